"""A fit as a value: what was estimated, how sure it is, where it is valid; saved as JSON."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdlaws.errors import InputError, TableError
from kdlaws.laws import artefact
from kdlaws.laws.catalogue import find
from kdlaws.laws.columns import N_COLUMNS, log_columns, read_column
from kdlaws.laws.coordinates import log_curve
from kdlaws.laws.cost import ForwardFlops
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.law import L_T, METHOD, MIDDLE, C, D, Law
from kdlaws.laws.newrun import NewRun
from kdlaws.laws.uncertainty import Interval, Linear, Resampled, Uncertainty

BEYOND = 1.01  # a column this far outside the runs, as a factor, is outside


@dataclass(frozen=True)
class Parameter:
    """An estimate and its interval; an end that the runs do not bound is None."""

    value: float
    lo: float | None
    hi: float | None
    identified: bool


@dataclass(frozen=True)
class Notice:
    """A warning: a stable code, what is the matter, and what to do."""

    code: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Holdout:
    """Back-test on the runs of largest compute, predicted from the others.

    ``mape`` and ``baseline_mape`` (the power law in compute) are in percent of cross-entropy,
    ``coverage_90`` is the share of these runs inside their 90 % new-run interval.
    """

    mape: float | None
    baseline_mape: float | None
    coverage_90: float | None
    n_test: int


@dataclass(frozen=True)
class Fit:
    """A fitted law; made by ``kdlaws.laws.fit``, or published (``kdlaws.laws.published``).

    ``starts_agree`` is the share of starts that reached the best objective, ``domain`` the range of
    each column among the runs, ``fixed`` what was pinned (a number) or tied (another's name),
    ``intervals`` how the intervals were made. ``forward_flops`` is what a model of N takes per
    token, None where the runs do not say. ``form`` is the law itself, ``uncertainty`` what the
    curve's interval rests on, None where there is none; ``new_run`` what a new run adds to it.
    """

    law: str
    n_column: str
    parameters: Mapping[str, Parameter]
    level: float
    objective: float | None
    objective_name: str
    n_runs: int | None
    n_dropped: int
    converged: bool
    starts_agree: float | None
    domain: Mapping[str, tuple[float, float]]
    holdout: Holdout | None
    seed: int
    inputs: Mapping[str, str | None]
    warnings: tuple[Notice, ...]
    intervals: str
    fixed: Mapping[str, float | str]
    methods: tuple[str, ...]
    new_run: NewRun | None
    forward_flops: ForwardFlops | None
    form: Law = field(repr=False, compare=False)
    uncertainty: Uncertainty | None = field(repr=False, compare=False)

    def predict(self, columns: Mapping[str, ArrayLike]) -> FloatArray:
        """Cross-entropy in nats per token, in the shape that the columns broadcast to.

        ``columns`` holds what the law reads: ``n_column`` and ``n_tokens``, or ``flops`` (6*N*D
        only where the fit took that, too), the teacher's and the method where the law knows them.
        TableError where one is missing or not positive, InputError where the law has no value.
        """
        x, shape = self.read(columns)
        cross_entropy: FloatArray = np.exp(log_curve(self.form, self.u[None], x)[0])
        if not np.isfinite(cross_entropy).all():
            raise InputError(
                f"{self.law} has no value there",
                where="predict",
                remedy=f"give the method's teacher; its {L_T} must be above the law's floor",
            )
        return cross_entropy.reshape(shape)

    def band(self, columns: Mapping[str, ArrayLike]) -> Interval:
        """Both ends of the interval of the curve at ``level``; NaN where there is none.

        This is where the expected cross-entropy lies. A new run scatters around it.
        """
        x, shape = self.read(columns)
        if self.uncertainty is None:
            return _unknown(shape)
        ends = self.uncertainty.interval(self.form, self.u, x, self.level)
        return _from_logs(ends, shape)

    def new_runs(self, columns: Mapping[str, ArrayLike]) -> Interval:
        """Both ends of the interval of a new run at ``level``; NaN where there is none.

        It adds to the curve's interval the scatter of runs and, beyond the largest compute among
        the runs, the law's own drift.
        """
        x, shape = self.read(columns)
        if self.uncertainty is None or self.new_run is None:
            return _unknown(shape)
        extra = self.new_run.at(np.broadcast_to(self._log_flops(columns), shape).ravel())
        ends = self.uncertainty.new_run(self.form, self.u, x, self.level, extra)
        return _from_logs(ends, shape)

    def efficiency(self, columns: Mapping[str, ArrayLike]) -> tuple[FloatArray, Interval]:
        """The distillation efficiency function g and its interval, of a law that has one.

        g is the loss above the floor relative to the same student's from scratch, the data term
        apart; below 1 the teacher helps. It is known as a function of N at one teacher even where
        its parameters are not identified. InputError for a law without it.
        """
        if self.form.efficiency is None:
            raise InputError(
                f"{self.law} has no distillation efficiency", where="law", remedy="fit spec"
            )
        x, shape = self.read(columns)
        g = replace(self.form, form=self.form.efficiency)
        value: FloatArray = np.exp(log_curve(g, self.u[None], x)[0]).reshape(shape)
        if self.uncertainty is None:
            return value, _unknown(shape)
        return value, _from_logs(self.uncertainty.interval(g, self.u, x, self.level), shape)

    def beyond(self, columns: Mapping[str, ArrayLike]) -> dict[str, float]:
        """How far outside the runs one model is: by column, the factor beyond its range."""
        far = {}
        for name, (lo, hi) in self.domain.items():
            if name == C and self.new_run is not None:
                value = float(np.exp(np.max(self._log_flops(columns))))
            elif name in columns:
                value = float(np.max(read_column(columns, name, self.n_column)))
            else:
                continue
            factor = max(value / hi, lo / value)
            if factor > BEYOND:
                far[name] = factor
        return far

    @property
    def u(self) -> FloatArray:
        """The parameters as the law's equation takes them ``[unknowns]``."""
        values = np.array([self.parameters[name].value for name in self.form.parameters])
        scale = np.array([unknown.kind == "scale" for unknown in self.form.unknowns])
        return np.where(scale, np.log(np.where(scale, values, 1.0)), values)

    def read(
        self, columns: Mapping[str, ArrayLike]
    ) -> tuple[dict[str, NDArray[Any]], tuple[int, ...]]:
        """The law's own logarithmic columns, flat, and the shape that the given ones have."""
        given = {**self._flops(columns), **columns, **self._teacher(columns)}
        x = log_columns(given, self.form, self.n_column, derive_flops=False)
        self._check_methods(x)
        shape = next(iter(x.values())).shape
        return {name: values.reshape(-1) for name, values in x.items()}, shape

    def _teacher(self, columns: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        """The teacher's cross-entropy, by the supervised law, where its N and tokens are given."""
        names = (f"teacher_{self.n_column}", f"teacher_{D}")
        given = [name for name in names if name in columns]
        if not self.form.stages or L_T in columns or not given:
            return {}
        if len(given) == 1:
            raise TableError(
                "a teacher needs its N and its tokens",
                where=given[0],
                remedy=f"give {' and '.join(names)}, or {L_T}",
            )
        teacher = dict(zip((self.n_column, D), (columns[name] for name in names), strict=True))
        return {L_T: self.predict(teacher)}

    def _check_methods(self, x: Mapping[str, NDArray[Any]]) -> None:
        unknown = set(np.unique(x[METHOD])) - set(self.methods) if METHOD in x else set()
        if unknown:
            raise InputError(
                f"the fit has no runs of method {', '.join(sorted(unknown))}",
                where=METHOD,
                remedy=f"one of {', '.join(self.methods)}",
            )

    def _flops(self, columns: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        """From N and D where the law reads FLOPs and those of its runs were a multiple of 6*N*D.

        A law of FLOPs that were counted otherwise says nothing about 6*N*D.
        """
        multiple = self.new_run and self.new_run.flops_per_6nd
        if C in columns or C not in self.form.reads or not multiple:
            return {}
        if not {self.n_column, D} <= set(columns):
            return {}
        return {C: multiple * read_column(columns, C, self.n_column)}

    def _log_flops(self, columns: Mapping[str, ArrayLike]) -> FloatArray:
        """Of given FLOPs, else of 6*N*D, as the runs of the fit were counted if that is known."""
        multiple = (self.new_run and self.new_run.flops_per_6nd) or 1.0
        flops = read_column(columns, C, self.n_column)
        return np.log(flops if C in columns else multiple * flops)

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract: plain values, None for what is unknown."""
        body = {name: getattr(self, name) for name in _CONTRACT}
        body["parameters"] = {name: asdict(value) for name, value in self.parameters.items()}
        body["holdout"] = self.holdout and asdict(self.holdout)
        body["new_run"] = self.new_run and asdict(self.new_run)
        body["forward_flops"] = self.forward_flops and asdict(self.forward_flops)
        body["warnings"] = [asdict(notice) for notice in self.warnings]
        return artefact.document(body)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the contract and the uncertainty; the file appears whole or not at all."""
        artefact.write(path, self.content())

    def content(self) -> dict[str, Any]:
        """What a file of the fit holds."""
        known = None if self.uncertainty is None else asdict(self.uncertainty)
        return self.to_dict() | {"uncertainty": artefact.plain(known)}

    @classmethod
    def load(cls, path: str | os.PathLike[str], law: Callable[..., Any] | None = None) -> "Fit":
        """Read what ``save`` wrote; ArtefactError where the file is not a fit.

        ``law`` is the function of a law of one's own that was fitted from the library; a law of the
        catalogue, or one named ``path.py:name``, is found by its name.
        """
        content = artefact.read(path, "fit")
        try:
            return cls.of_content(content, law)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise artefact.foreign(path, "fit", error) from error

    @classmethod
    def of_content(cls, content: Mapping[str, Any], law: Callable[..., Any] | None = None) -> "Fit":
        """The inverse of ``content``."""
        values = {name: content[name] for name in _CONTRACT if name != "forward_flops"}
        form = find(law or content["law"], content["methods"])
        given = content["parameters"]
        values["parameters"] = {name: Parameter(**given[name]) for name in form.parameters}
        values["domain"] = {name: (lo, hi) for name, (lo, hi) in content["domain"].items()}
        values["holdout"] = content["holdout"] and Holdout(**content["holdout"])
        values["new_run"] = content["new_run"] and NewRun(**content["new_run"])
        forward = content.get("forward_flops")  # which earlier files do not have
        values["forward_flops"] = forward and ForwardFlops(**forward)
        values["methods"] = tuple(content["methods"])
        values["warnings"] = tuple(Notice(**notice) for notice in content["warnings"])
        uncertainty = _uncertainty(content["uncertainty"], len(form.unknowns))
        fit = cls(**values, form=form, uncertainty=uncertainty)
        if fit.n_column not in N_COLUMNS or not np.isfinite(fit.u).all():
            raise ValueError("n_column or a parameter's value is damaged")
        return fit

    def __str__(self) -> str:
        lines = [f"{self.law}: {self.form.equation}, N = {self.n_column}"]
        width = max(6, *(len(name) + 1 for name in self.parameters))
        for name, value in self.parameters.items():
            lines.append(f"  {name:<{width}}{self._parameter(name, value)}")
        lines += [*self._made(), *(f"{n.code}: {n.message}\n    {n.remedy}" for n in self.warnings)]
        return "\n".join(lines)

    def _parameter(self, name: str, value: Parameter) -> str:
        """Without intervals nothing is known of what a design could determine."""
        told = f"{name} = "
        blamed = any(
            n.code == "not_identified" and n.message.startswith(told) for n in self.warnings
        )
        if self.intervals == "none" and name not in self.fixed and not blamed:
            return f"{value.value:<10.4g} no interval"
        return _parameter(value, self.fixed.get(name))

    def _made(self) -> list[str]:
        """How the fit was made and tested."""
        if self.objective is None:
            return [f"{self.intervals}; {self.inputs.get('source')}"]
        lines = [
            f"{self.n_runs} runs ({self.n_dropped} dropped), {self.level:.0%} intervals: "
            f"{self.intervals}; {self.objective_name} = {self.objective:.6g}",
            f"{'converged' if self.converged else 'NOT converged'}, "
            f"{self.starts_agree:.0%} of the starts agree",
        ]
        return lines if self.holdout is None else [*lines, holdout_text(self.holdout)]


_CONTRACT = tuple(entry.name for entry in fields(Fit) if entry.name not in ("form", "uncertainty"))


def _uncertainty(content: Mapping[str, Any] | None, n_unknowns: int) -> Uncertainty | None:
    if content is None:
        return None
    arrays = {name: np.array(value, dtype=np.float64) for name, value in content.items()}
    for name, array in arrays.items():
        if array.ndim != 2 or array.shape[1] != (2 if name == "of_variances" else n_unknowns):
            raise ValueError(f"{name} has the shape {array.shape}")
    return Resampled(**arrays) if "samples" in arrays else Linear(**arrays)


def _unknown(shape: tuple[int, ...]) -> Interval:
    return np.full(shape, np.nan), np.full(shape, np.nan)


def _from_logs(ends: Interval, shape: tuple[int, ...]) -> Interval:
    with np.errstate(over="ignore"):  # an end too large for a number is none
        lo, hi = (np.exp(end).reshape(shape) for end in ends)
    return lo, hi


def interval_text(lo: float | None, hi: float | None) -> str:
    """An interval for people, open where it has no end."""
    if lo is None and hi is None:
        return "unknown"
    if lo is None:
        return f"up to {hi:.4g}"
    return f"{lo:.4g} or more" if hi is None else f"{lo:.4g} to {hi:.4g}"


def percent_text(value: float | None) -> str:
    """A percentage for people."""
    return "-" if value is None else f"{value:.2f}%"


def _parameter(parameter: Parameter, fixed: float | str | None) -> str:
    value, interval = f"{parameter.value:<10.4g}", interval_text(parameter.lo, parameter.hi)
    if fixed == MIDDLE:
        return f"{value} the middle of the runs"
    if fixed is not None:
        return f"{value} = {fixed}" if isinstance(fixed, str) else f"{value} pinned"
    return f"{value} {interval}" if parameter.identified else f"{value} not identified: {interval}"


def holdout_text(holdout: Holdout) -> str:
    covered = "unknown" if holdout.coverage_90 is None else f"{holdout.coverage_90:.0%}"
    return (
        f"held out the {holdout.n_test} runs of largest compute: error "
        f"{percent_text(holdout.mape)}, power law in compute "
        f"{percent_text(holdout.baseline_mape)}, 90% interval covers {covered}"
    )
