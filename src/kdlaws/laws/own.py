"""A law of one's own: one Python function of columns and parameters.

    def shifted(N, n_tokens, *, E, A, alpha=0.3, B, beta=0.3):
        "L = E + A/N^alpha + B/D^beta"
        return E + A / N**alpha + B / n_tokens**beta

Columns come first, under their names in the table (N stands for the parameter count in use);
parameters are keyword-only. A parameter whose name begins with a capital is positive and may be of
any size; any other is a real number, such as an exponent. A default is where its search begins.
"""

import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from kdlaws.errors import InputError
from kdlaws.laws.dual import Dual, FloatArray
from kdlaws.laws.law import Columns, Form, Law, Parameters, Starts, Unknown

STEP = 1e-5  # of a central difference; its error is of order STEP^2
SCALE = (1e-12, 1e15)  # bounds, as wide as a law of unknown units may need ...
REAL = (-10.0, 10.0)  # ... and as an exponent may
SCREENED, KEPT = 4000, 40  # points at which the law is evaluated, and those that a fit starts from


def law_of(function: Callable[..., Any], name: str = "") -> Law:
    """The function as a law; InputError where its signature is none of a law's."""
    name = name or function.__name__
    reads, unknowns = _signature(function, name)
    first_line = (inspect.getdoc(function) or name).splitlines()[0]
    form = _form(function, reads, name)
    return Law(
        name=name,
        equation=first_line,
        source="a law of one's own",
        unknowns=tuple(_unknown(each) for each in unknowns),
        reads=tuple(reads),
        form=form,
        starts=_starts(unknowns, form, name),
    )


def load_law(reference: str) -> Law:
    """The law in ``path.py:name``; InputError where there is none."""
    path, _, name = reference.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise InputError(
            "there is no such Python file", where=f"law {reference}", remedy="give path.py:name"
        )
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever somebody's file may raise
        reason = f"Python cannot run the file ({type(error).__name__}: {error})"
        raise InputError(reason, where=f"law {reference}", remedy="correct the file") from error
    function = getattr(module, name, None)
    if not callable(function):
        there = [each for each, value in vars(module).items() if inspect.isfunction(value)]
        raise InputError(
            f"{path} has no function {name!r}",
            where=f"law {reference}",
            remedy=f"its functions are: {', '.join(there) or 'none'}",
        )
    return law_of(function, reference)


def _signature(function: Callable[..., Any], law: str) -> tuple[list[str], list[inspect.Parameter]]:
    """The columns and the parameters that a law's function takes, or InputError."""
    signature = list(inspect.signature(function).parameters.values())
    reads = [each.name for each in signature if each.kind is each.POSITIONAL_OR_KEYWORD]
    unknowns = [each for each in signature if each.kind is each.KEYWORD_ONLY]
    if not reads or not unknowns or len(reads) + len(unknowns) != len(signature):
        raise InputError(
            "a law takes columns, then keyword-only parameters",
            where=f"law {law}",
            remedy="write def law(N, n_tokens, *, E, A, alpha): return ...",
        )
    for each in unknowns:
        _check_default(each, law)
    return reads, unknowns


def _check_default(parameter: inspect.Parameter, law: str) -> None:
    """InputError for a default that is no number, or that cannot be a scale's."""
    name, default = parameter.name, parameter.default
    if default is parameter.empty:
        return
    is_number = isinstance(default, (int, float)) and isfinite(default)
    if not is_number or (name[0].isupper() and not default > 0):
        raise InputError(
            f"the search for {name} cannot begin at {name}={default!r}",
            where=f"law {law}",
            remedy="give a number, positive for a capital letter, or no default",
        )


def _unknown(parameter: inspect.Parameter) -> Unknown:
    if parameter.name[0].isupper():
        return Unknown(parameter.name, "scale", SCALE)
    return Unknown(parameter.name, "real", REAL)


def _form(function: Callable[..., Any], reads: Sequence[str], law: str) -> Form:
    """log L and its derivatives by central differences."""

    def form(u: Parameters, x: Columns) -> Dual:
        columns = [np.exp(x[name]) for name in reads]

        def log_loss(shifts: dict[str, float]) -> FloatArray:
            values = {}
            for name, parameter in u.items():
                moved = parameter.value + shifts.get(name, 0.0)
                values[name] = np.exp(moved) if name[0].isupper() else moved
            with np.errstate(all="ignore"):
                return np.log(_called(function, columns, values, law))

        slopes: dict[int, FloatArray | float] = {}
        for name, parameter in u.items():
            if not parameter.slopes:
                continue
            slope = (log_loss({name: STEP}) - log_loss({name: -STEP})) / (2 * STEP)
            for k, weight in parameter.slopes.items():
                slopes[k] = slopes.get(k, 0.0) + slope * weight
        return Dual(log_loss({}), slopes)

    return form


def _called(
    function: Callable[..., Any], columns: Sequence[FloatArray], values: Mapping[str, Any], law: str
) -> FloatArray:
    """Cross-entropy of every run; InputError where the function fails or gives something else."""
    remedy = "it is called with arrays, and returns the cross-entropy of each run"
    try:
        result = np.asarray(function(*columns, **values), dtype=np.float64)
        shape = np.broadcast_shapes(*map(np.shape, (*columns, *values.values())))
        return np.broadcast_to(result, shape)
    except Exception as error:  # whatever somebody's function may raise
        reason = f"the function fails ({type(error).__name__}: {error})"
        raise InputError(reason, where=f"law {law}", remedy=remedy) from error


def _starts(parameters: Sequence[inspect.Parameter], form: Form, law: str) -> Starts:
    """The best of many points: scales over ten decades, others over 0 to 1, or around defaults."""
    ranges = np.array([_range(each) for each in parameters])

    def starts(x: Columns, loss: FloatArray) -> FloatArray:
        rng = np.random.default_rng(0)
        points = rng.uniform(ranges[:, 0], ranges[:, 1], size=(SCREENED, len(ranges)))
        points[0] = ranges.mean(axis=1)
        u = {each.name: Dual(points[:, k, None]) for k, each in enumerate(parameters)}
        misfit = np.abs(form(u, x).value - np.log(loss)).mean(axis=1)
        if not np.isfinite(misfit).any():
            raise InputError(
                f"none of {SCREENED} tried values of its parameters gives every run a positive, "
                "finite cross-entropy",
                where=f"law {law}",
                remedy="correct the function, or give its parameters defaults to begin at",
            )
        best = np.argsort(np.nan_to_num(misfit, nan=np.inf), kind="stable")[:KEPT]
        kept: FloatArray = points[best]
        return kept

    return starts


def _range(parameter: inspect.Parameter) -> tuple[float, float]:
    """Of the coordinate, which is the logarithm of a scale."""
    is_scale = parameter.name[0].isupper()
    if parameter.default is parameter.empty:
        return (np.log(1e-2), np.log(1e8)) if is_scale else (0.0, 1.0)
    middle = np.log(parameter.default) if is_scale else float(parameter.default)
    return (middle - 2.0, middle + 2.0) if is_scale else (middle - 0.3, middle + 0.3)
