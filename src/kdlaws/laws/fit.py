"""Fit a law to runs: robust, from several starts, with intervals that respect the trunks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from kdlaws.errors import InputError, TableError
from kdlaws.laws.backtest import HELD_OUT_SHARE, back_test
from kdlaws.laws.catalogue import find
from kdlaws.laws.columns import N_COLUMNS, Runs, read_runs
from kdlaws.laws.coordinates import FREE, partner
from kdlaws.laws.cost import ForwardFlops, fitted_forward
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.estimate import Estimate, Fixed, Loss, estimate, robust_deviation
from kdlaws.laws.gaps import undetermined_by_design
from kdlaws.laws.intervals import cluster_notices, identification_notices, parameters
from kdlaws.laws.law import METHOD, MIDDLE, SCRATCH, C, Law, column_of
from kdlaws.laws.nested import pin_notices
from kdlaws.laws.outlook import measured_drift, new_run
from kdlaws.laws.repeats import huber_delta
from kdlaws.laws.resample import FEWEST_CLUSTERS, refit
from kdlaws.laws.result import Fit, Holdout, Notice
from kdlaws.laws.uncertainty import Resampled, Uncertainty, linear

FEWEST_RESAMPLES = 50  # fewer have no tail to read an interval's end from
FAR = 6  # standard deviations that no normal noise reaches
FORWARD = "forward_flops_per_token"
SMALL = 0.002  # of log cross-entropy: too little to be worth a warning


def fit(
    columns: Mapping[str, ArrayLike],
    law: str | Callable[..., Any],
    *,
    n_column: str = "n_params_non_embedding",
    trunk: Sequence[str] | None = None,
    fixed: Mapping[str, float | str] | None = None,
    loss: Loss = "huber",
    level: float = 0.9,
    bootstrap: int = 400,
    holdout: float = HELD_OUT_SHARE,
    seed: int = 0,
    source: Mapping[str, str | None] | None = None,
    n_dropped: int = 0,
    notices: Sequence[Notice] = (),
) -> Fit:
    """Fit ``law`` to runs, one value of each column per run.

    ``columns`` holds ``cross_entropy`` (nats per token) and what the law reads: ``n_column`` and
    ``n_tokens``, or ``flops`` (6*N*D where it is absent, with a warning). ``law`` is a name of the
    catalogue, ``path.py:name`` or a function (``kdlaws.laws.own``). Runs of one ``trunk`` share
    their training: a trunk effect is fitted with the law, and the intervals are Student's; without
    trunks, and for laws in two stages, ``bootstrap`` refits to resampled runs (0: no intervals).
    ``fixed`` pins parameters (``{"E": 1.6}``), ties them (``{"alpha": "beta"}``) or frees what a
    law pins (``"free"``). ``forward_flops_per_token`` is kept for plans where it is given.
    ``loss`` is Huber's of log cross-entropy, or ``squares``. ``level`` is
    the intervals', ``holdout`` the share of runs that the back-test holds out. ``source`` (file,
    sha256), ``n_dropped`` and ``notices`` (the first of the warnings) are only carried along.

    Raises InputError for an unknown law or argument, TableError for columns that cannot be fitted.
    """
    check_arguments(
        n_column=n_column, level=level, bootstrap=bootstrap, seed=seed, loss=loss, holdout=holdout
    )
    form = of_methods(find(law), columns)
    pins = _checked(form, fixed or {})
    runs = read_runs(columns, form, n_column, trunk)
    _check_enough(form, runs, pins)
    back_test_rng, refit_rng = np.random.default_rng(seed).spawn(2)
    delta = huber_delta(runs)
    fitted = estimate(form, runs, pins, loss, delta)
    uncertainty = _uncertainty(fitted, bootstrap, refit_rng)
    gaps = undetermined_by_design(fitted, n_column)
    estimates = parameters(fitted, uncertainty, level, gaps)
    tested = back_test(form, runs, pins, loss, back_test_rng, holdout)
    found = (
        *flops_notices(C in columns, form, n_column),
        *_convergence_notices(fitted),
        *cluster_notices(runs.n_clusters, trunk is not None),
        *identification_notices(fitted, estimates, gaps, level, n_column, uncertainty),
        *(pin_notices(fitted, loss, level) if uncertainty else ()),
        *_outlier_notices(fitted),
        *(_holdout_notices(tested, len(runs)) if holdout else ()),
    )
    return Fit(
        law=law if isinstance(law, str) else form.name,
        n_column=n_column,
        parameters=estimates,
        level=level,
        objective=fitted.objective,
        objective_name=_objective_name(fitted),
        n_runs=len(runs),
        n_dropped=n_dropped,
        converged=fitted.converged,
        starts_agree=fitted.starts_agree,
        domain=_domain(columns, runs, form, n_column),
        holdout=tested,
        seed=seed,
        inputs={"file": None, "sha256": None, **(source or {})},
        warnings=(*notices, *found),
        intervals=_intervals(uncertainty, runs, bootstrap),
        fixed=fitted.fixed,
        methods=methods_of(columns) if form.by_method else (),
        new_run=new_run(fitted, measured_drift(fitted, loss) if uncertainty else None),
        forward_flops=_forward_flops(columns, n_column),
        form=form,
        uncertainty=uncertainty,
    )


def of_methods(law: Law, columns: Mapping[str, ArrayLike]) -> Law:
    """A law that is joint over methods, for those among the runs."""
    return law if law.by_method is None else law.by_method(methods_of(columns))


def methods_of(columns: Mapping[str, ArrayLike]) -> tuple[str, ...]:
    """The methods among the runs, in order of the alphabet; scratch where none is said."""
    if METHOD not in columns:
        return (SCRATCH,)
    return tuple(map(str, np.unique(np.asarray(columns[METHOD], dtype=str))))


def _checked(law: Law, fixed: Mapping[str, float | str]) -> dict[str, float | str]:
    """The law's own pins and ties under the caller's; InputError for what names no parameter."""
    for name, value in fixed.items():
        known = (*law.parameters, FREE, MIDDLE)
        if name not in law.parameters or (isinstance(value, str) and value not in known):
            raise InputError(
                f"{name}={value} pins or ties no parameter of {law.name}",
                where="fixed",
                remedy=f"its parameters are {', '.join(law.parameters)}; give a number, another's "
                f"name, or {FREE}",
            )
        _check_pin(law, name, value)
    merged = {**law.fixed, **fixed}
    pins = {name: value for name, value in merged.items() if value != FREE}
    for name in fixed:
        _check_circle(pins, name)
    _check_stages(law, pins)
    return pins


def _check_pin(law: Law, name: str, value: float | str) -> None:
    """InputError for a value that the parameter cannot have, or a partner of another kind."""
    unknowns = {u.name: u for u in law.unknowns}
    scale, centre = unknowns[name].kind == "scale", unknowns[name].centre
    wrong = ""
    if isinstance(value, str):
        if value == MIDDLE and (centre is None or isinstance(centre[0], str)):
            wrong = f"{name} is no place on an axis, which has a middle"
        elif value in unknowns and (unknowns[value].kind == "scale") != scale:
            wrong = "a scale and an exponent cannot be equal"
    elif not np.isfinite(value) or (scale and not value > 0):
        wrong = "a scale is finite and positive" if scale else "it is not finite"
    if wrong:
        raise InputError(f"{name}={value}: {wrong}", where="fixed", remedy=_PIN)


def _check_circle(pins: Mapping[str, float | str], name: str) -> None:
    """InputError for a tie that leads back to where it began."""
    passed = [name]
    while pins.get(passed[-1]) in pins:
        passed.append(str(pins[passed[-1]]))
        if passed[-1] in passed[:-1]:
            circle = "=".join(passed)
            raise InputError(f"{circle} ties in a circle", where="fixed", remedy=_PIN)


def _check_stages(law: Law, pins: Mapping[str, float | str]) -> None:
    """InputError for a tie to a parameter that is fitted only after this one is."""
    if not law.stages:
        return
    first, second = law.stages
    for name in first:
        followed = partner(name, pins)
        if followed in second and followed not in pins:
            raise InputError(
                f"{name}={followed}: {followed} is fitted later, when {name} is known",
                where="fixed",
                remedy=f"tie it the other way round: {followed}={name}",
            )


_PIN = "pin a parameter to a number, or tie it to a free one of its kind"


def _uncertainty(fitted: Estimate, bootstrap: int, rng: np.random.Generator) -> Uncertainty | None:
    runs = fitted.runs
    if not bootstrap or runs.n_clusters < FEWEST_CLUSTERS or not fitted.n_free:
        return None
    if len(fitted.stages) == 1 and fitted.stages[0].variances is not None:
        return linear(fitted.stages[0])
    return Resampled(refit(fitted, bootstrap, rng))


def _intervals(uncertainty: Uncertainty | None, runs: Runs, bootstrap: int) -> str:
    """How the intervals were made, for people."""
    if uncertainty is None:
        return "none"
    if not isinstance(uncertainty, Resampled):
        return f"profiles with trunk effects of {runs.n_clusters} trunks"
    what = "trunks" if runs.share_trunks else "runs"
    return f"{bootstrap} refits to resampled {what}"


def _objective_name(fitted: Estimate) -> str:
    last = fitted.stages[-1]
    delta = last.problem.delta
    name = "half the sum of squares" if np.isinf(delta) else f"sum of log-Huber({_short(delta)})"
    return name if last.variances is None else f"{name}, trunk effects"


def _short(delta: float) -> str:
    """1e-3 as people write it."""
    mantissa, _, power = f"{delta:.2e}".partition("e")
    return f"{mantissa.removesuffix('.00')}e{int(power)}"


def check_arguments(**given: Any) -> None:
    """InputError for an argument that cannot be used, by its name."""
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "n_column": (lambda v: v in N_COLUMNS, f"choose one of {', '.join(N_COLUMNS)}"),
        "level": (lambda v: 0 < v < 1, "give a share between 0 and 1, such as 0.9"),
        "bootstrap": (
            lambda v: v == 0 or v >= FEWEST_RESAMPLES,
            f"give {FEWEST_RESAMPLES} or more, or 0: no resampling",
        ),
        "seed": (lambda v: v >= 0, "give 0 or more"),
        "loss": (lambda v: v in get_args(Loss), f"choose one of {', '.join(get_args(Loss))}"),
        "holdout": (lambda v: 0 <= v < 1, "give a share between 0 and 1, such as 0.3"),
    }
    for where, value in given.items():
        good, remedy = checks[where]
        if not good(value):
            raise InputError(f"{value!r} cannot be used", where=where, remedy=remedy)


def _check_enough(law: Law, runs: Runs, fixed: Fixed) -> None:
    if law.stages:  # each stage is checked with its own runs
        return
    fewest = len(set(law.parameters) - set(fixed)) + 1
    if len(runs) < fewest:
        raise TableError(
            f"{len(runs)} runs cannot determine {fewest - 1} parameters",
            where=f"law {law.name}",
            remedy=f"give {fewest} runs or more, or a law with fewer parameters",
        )


def _domain(
    columns: Mapping[str, ArrayLike], runs: Runs, law: Law, n_column: str
) -> dict[str, tuple[float, float]]:
    """The range of each column that the law reads, and of FLOPs."""
    ranges = {}
    for role in (name for name in (*law.reads, *law.optional, C) if name != METHOD):
        name = column_of(role, n_column)
        values = np.asarray(columns.get(name, np.exp(runs.x[role])), dtype=np.float64)
        if np.isfinite(values).any():
            ranges[name] = _range(values[np.isfinite(values)])
    return ranges


def _forward_flops(columns: Mapping[str, ArrayLike], n_column: str) -> ForwardFlops | None:
    """What the runs say that a model of N takes per token; for plans, no law reads it."""
    if FORWARD not in columns or n_column not in columns:
        return None
    n_params, flops = (np.asarray(columns[x], dtype=np.float64) for x in (n_column, FORWARD))
    return fitted_forward(n_params, flops)


def _range(values: FloatArray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


# --- warnings -----------------------------------------------------------------------------------


def flops_notices(given: bool, law: Law, n_column: str) -> list[Notice]:
    """That FLOPs are 6*N*D where the runs do not say theirs."""
    if given:
        return []
    reader = "the law" if C in law.reads else "the back-test"
    message = f"there is no column flops: {reader} takes 6 * {n_column} * n_tokens"
    remedy = "give the training FLOPs of each run, with the head and attention, as column flops"
    return [Notice("flops_6nd", message, remedy)]


def _convergence_notices(fitted: Estimate) -> list[Notice]:
    if fitted.converged:
        return []
    message = "the gradient is not zero at the best point found"
    remedy = "do not use the parameters; give more runs, or a law with fewer parameters"
    return [Notice("not_converged", message, remedy)]


def _outlier_notices(fitted: Estimate) -> list[Notice]:
    """Runs further from the law than normal noise puts any of them."""
    residual = fitted.residual()
    spread = robust_deviation(residual, fitted.n_free)
    far = np.flatnonzero(np.abs(residual) > max(FAR * spread, SMALL))
    if not len(far):
        return []
    worst = sorted(far, key=lambda row: -abs(residual[row]))[:5]
    rows = ", ".join(f"{row} ({100 * np.expm1(-residual[row]):+.1f}%)" for row in worst)
    message = (
        f"{len(far)} of {len(residual)} runs are over {FAR} standard deviations off: row {rows}"
    )
    return [Notice("outliers", message, "look at these runs (rows count from 0, as fitted)")]


def _holdout_notices(holdout: Holdout | None, n_runs: int) -> list[Notice]:
    if holdout is not None:
        return []
    message = (
        f"the cheaper of {n_runs} runs are too few, or none of a method, for a back-test on those "
        "of largest compute"
    )
    return [Notice("no_holdout", message, "give more runs to learn how well the law extrapolates")]
