"""The spec's law fitted to scratch and distilled runs together, and what follows from it.

One fit for each way to count N. What is not a parameter of the law itself (a local exponent, a best
ratio) has its interval by the delta method from the covariance of the parameters, or from the
refits where runs were resampled.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Unpack

import numpy as np

from kdlaws.advice.evidence import Evidence, done, one_pass
from kdlaws.advice.judging.known import LEVEL, Known
from kdlaws.advice.judging.verdicts import About, Claimed, Reading, doubted, reading
from kdlaws.errors import InputError
from kdlaws.laws import LAWS, Fit, fit
from kdlaws.laws.coordinates import log_curve
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.law import D_MID, METHOD, N_MID, RATIO, TEACHER_N, D, Form, N
from kdlaws.laws.uncertainty import Linear, student
from kdlaws.selection import law_columns

if TYPE_CHECKING:
    from pandas import DataFrame

N_COLUMNS = {"n_params_non_embedding": "non_embedding", "n_params": "total"}
"""What a selection calls each way to count N."""

STEP = 1e-5  # of a parameter, in a central difference
NEAR = 0.01  # of log N, in a local slope
# Times the other law's variance of a run around its curve: describes the runs as well, far better.
AS_GOOD, FAR_BETTER = 1.5, 0.25

Quantity = Callable[[FloatArray], float]
"""Of u, the parameters as the law's equation takes them ``[unknowns]``."""


@dataclass(frozen=True)
class Joint:
    """``spec`` fitted to ``rows`` with N counted as ``n_column``; without a fit, the reason.

    ``rival`` is ``spec_additive`` on the same rows, its estimates without intervals: a second
    opinion on what the product form says.
    """

    n_column: str
    rows: "DataFrame"
    fit: Fit | None
    rival: Fit | None
    reason: str = ""

    def of(self, method: str) -> "DataFrame":
        return self.rows[self.rows["method"] == method]

    @property
    def rival_is_as_good(self) -> bool:
        """Whether the additive law describes the runs about as well."""
        return self._rival_within(AS_GOOD)

    def read(
        self, what: str, known: Known, claimed: Claimed, *, note: str = "", **about: Unpack[About]
    ) -> Reading:
        """A reading of this law, doubted where the additive one describes the runs far better."""
        about["n_column"] = self.n_column
        found = reading(what, known, claimed, runs=self.rows["run_id"], note=note, **about)
        if not self._rival_within(FAR_BETTER):
            return found
        return doubted(found, "spec_additive describes the runs far better")

    def _rival_within(self, factor: float) -> bool:
        ours, theirs = (each and each.new_run for each in (self.fit, self.rival))
        return bool(ours and theirs and theirs.variance <= factor * ours.variance)


def joints(evidence: Evidence, rows: "DataFrame | None" = None) -> dict[str, Joint]:
    """By N column. Rows are clean runs of one pass at their usual settings that laws may read."""
    return {n_column: joint(evidence, n_column, rows) for n_column in N_COLUMNS}


def joint(evidence: Evidence, n_column: str, rows: "DataFrame | None" = None) -> Joint:
    """By one N column; without a fit where the runs are too few or it does not converge."""
    if rows is None:
        rows = done(one_pass(evidence.comparable))
    table = replace(evidence.table, frame=rows)
    law = LAWS["spec"]
    try:
        read = law_columns(table, law.reads, n=N_COLUMNS[n_column], optional=law.optional)
        same = {"holdout": 0.0, "level": LEVEL, **read.arguments()}
        fitted = fit(read.columns, "spec", **same)
        rival = fit(read.columns, "spec_additive", bootstrap=0, **same)
    except InputError as error:
        return Joint(n_column, rows, None, None, error.what)
    if not fitted.converged:
        return Joint(n_column, rows, None, None, "the joint fit has not converged")
    return Joint(n_column, rows, fitted, rival)


# --- what follows from a fit --------------------------------------------------------------------


def derived(fitted: Fit, quantity: Quantity) -> Known:
    """A quantity of the parameters, with its interval at the fit's level."""
    value = quantity(fitted.u)
    if fitted.uncertainty is None:
        return Known(value)
    if not isinstance(fitted.uncertainty, Linear):
        tail = (1 - fitted.level) / 2
        drawn = [quantity(u) for u in fitted.uncertainty.samples]
        lo, hi = np.quantile(drawn, [tail, 1 - tail])
        return Known(value, float(min(lo, value)), float(max(hi, value)))
    direction = _gradient(quantity, fitted.u)
    t = float(student(fitted.uncertainty.degrees(direction), fitted.level))
    half = t * float(fitted.uncertainty.deviation(direction))
    return Known(value, value - half, value + half)


def _gradient(quantity: Quantity, u: FloatArray) -> FloatArray:
    steps = STEP * np.eye(len(u))
    return np.array([(quantity(u + s) - quantity(u - s)) / (2 * STEP) for s in steps])


def parameter(fitted: Fit, name: str) -> Known:
    """A parameter's own interval; without ends where the runs do not identify it."""
    found = fitted.parameters[name]
    return Known(found.value, found.lo, found.hi) if found.identified else Known(found.value)


def exponent_of(method: str, teacher_n: float) -> Callable[[Fit, FloatArray], float]:
    """alpha + dlog g/dlog r at the middle N: how the size term falls there, the teacher fixed."""

    def exponent(fitted: Fit, u: FloatArray) -> float:
        alpha = float(u[fitted.form.parameters.index("alpha")])
        assert fitted.form.efficiency is not None
        g = fitted.form.efficiency
        return alpha - local_slope(fitted, u, g, method, teacher_n)

    return exponent


def local_exponent(method: str, teacher_n: float | None) -> Callable[[Fit, FloatArray], float]:
    """-dlog L/dlog N at the middle N and D: of the whole loss, its floor included."""
    return lambda fitted, u: -local_slope(fitted, u, fitted.form.form, method, teacher_n)


def local_slope(
    fitted: Fit, u: FloatArray, form: Form, method: str, teacher_n: float | None
) -> float:
    """Of a log form of the law by log N at the middle of the runs, the teacher's N fixed."""
    n = np.log(fitted.parameters[N_MID].value) + NEAR * np.array([-1.0, 1.0])
    d = np.full(2, np.log(fitted.parameters[D_MID].value))
    teacher = np.full(2, np.nan if teacher_n is None else np.log(teacher_n))
    x = {N: n, D: d, TEACHER_N: teacher, RATIO: teacher - n, METHOD: np.array([method] * 2)}
    low, high = log_curve(replace(fitted.form, form=form), u[None], x)[0]
    return float(high - low) / (2 * NEAR)


def not_identified(fitted: Fit, *names: str) -> tuple[str, str]:
    """Why the first of these parameters that the runs do not identify is not, and the remedy.

    Both empty where all are identified.
    """
    for name in names:
        for notice in fitted.warnings:
            if notice.code == "not_identified" and notice.message.startswith(f"{name} = "):
                why = notice.message.partition(" is not identified: ")[2]
                return f"{name} is not identified, {why}", notice.remedy
    return "", ""
