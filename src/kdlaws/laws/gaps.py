"""What the runs of a design cannot determine, however many there are, and which runs would."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdlaws.laws.columns import Runs
from kdlaws.laws.estimate import Estimate
from kdlaws.laws.law import L_T, METHOD, RATIO, TEACHER_N, C, D, Law, N, U, column_of

FEWEST_DISTINCT = 3  # values of a column that determine a scale, an exponent and the floor
FEWEST_EPOCHS = 4  # passes over the data that determine how repeats decay
FEWEST_TEACHERS = 3  # sizes, that determine how the gain depends on the ratio ...
TEACHER_SPAN = 8.0  # ... this far apart
FEWEST_BEYOND = 3  # runs on each side of a transition
SAME_VALUE = 0.01  # of the logarithm: values within 1 % are one design point
CONFOUNDED = 0.995  # correlation of two log columns beyond which their terms are one


class Gap(NamedTuple):
    """Why a parameter is not determined, and which runs would determine it."""

    reason: str
    remedy: str


Gaps = dict[str, Gap]


def undetermined_by_design(fitted: Estimate, n_column: str) -> Gaps:
    """The free parameters that these runs cannot determine, by name."""
    law, runs = fitted.law, fitted.runs
    gaps: Gaps = {}
    for find in (_few_values, _constant_ratio, _few_teachers, _few_epochs, _no_run_beyond):
        for name, gap in find(law, runs, fitted, n_column).items():
            gaps.setdefault(name, gap)
    return {name: gap for name, gap in gaps.items() if name not in fitted.fixed}


def n_distinct(values: NDArray[Any]) -> int:
    """Number of design points among logarithms; unknown ones do not count."""
    return len(np.unique(np.round(values[np.isfinite(values)] / SAME_VALUE)))


def _few_values(law: Law, runs: Runs, fitted: Estimate, n_column: str) -> Gaps:
    """An exponent and its scale need three values of the column; and so does the floor.

    A law of one's own does not say which column determines what, so its profiles must show it.
    """
    gaps: Gaps = {}
    for role in dict.fromkeys((*law.reads, *law.optional)):
        if role in (METHOD, TEACHER_N, L_T, U) or not _determined_by(law, [role]):
            continue
        count = n_distinct(runs.x[role])
        if count < FEWEST_DISTINCT:
            reason = f"only {count} distinct {column_of(role, n_column)} among the runs"
            gap = Gap(reason, remedy(law, role, n_column))
            gaps |= dict.fromkeys(_determined_by(law, (role, None)), gap)
    return gaps


def _determined_by(law: Law, columns: Iterable[str | None]) -> list[str]:
    wanted = set(columns)
    return [unknown.name for unknown in law.unknowns if unknown.column in wanted]


def _constant_ratio(law: Law, runs: Runs, fitted: Estimate, n_column: str) -> Gaps:
    if not {N, D} <= set(law.reads) or not _confounded(runs.x[N], runs.x[D]):
        return {}
    both = f"{n_column} and {D}"
    gap = Gap(f"{both} rise together (constant D/N)", f"add runs in which {both} vary on their own")
    return dict.fromkeys(law.parameters, gap)  # one term can even pass for the floor


def _confounded(x: NDArray[Any], y: NDArray[Any]) -> bool:
    x, y = x - x.mean(), y - y.mean()
    return bool(x @ y > CONFOUNDED * np.sqrt((x @ x) * (y @ y)))


def _few_teachers(law: Law, runs: Runs, fitted: Estimate, n_column: str) -> Gaps:
    """How a gain depends on the teacher needs teachers that differ."""
    if TEACHER_N in law.optional:
        return _few_teachers_of_methods(law, runs, n_column)
    if L_T not in law.optional:
        return {}
    count = n_distinct(runs.x[L_T])
    if count >= 2:
        return {}
    gap = Gap("one teacher only", f"add runs with teachers of other {L_T}")
    return dict.fromkeys(_determined_by(law, [L_T]), gap)


def _few_teachers_of_methods(law: Law, runs: Runs, n_column: str) -> Gaps:
    by_quality = L_T in law.optional
    role = L_T if by_quality else TEACHER_N
    gaps: Gaps = {}
    for method in np.unique(runs.x[METHOD]):
        teachers = runs.x[role][(runs.x[METHOD] == method) & np.isfinite(runs.x[role])]
        count = n_distinct(teachers)
        span = float(np.ptp(teachers)) if len(teachers) else 0.0
        apart = by_quality or span >= np.log(TEACHER_SPAN)
        names = [
            n for n in (f"c_{method}", f"kappa_{method}", f"r_c_{method}") if n in law.parameters
        ]
        if not names or (count >= FEWEST_TEACHERS and apart):
            continue
        few = ("no teacher", "one teacher only", "2 teachers only")
        what = few[count] if count < len(few) else f"{count} teachers too alike"
        gap = Gap(
            f"{what}: size and ratio are one number",
            f"add {method} runs with {FEWEST_TEACHERS} or more teachers, a factor {TEACHER_SPAN:g} "
            f"apart in teacher_{n_column}, for the same students",
        )
        gaps |= dict.fromkeys(names, gap)
    return gaps


def _few_epochs(law: Law, runs: Runs, fitted: Estimate, n_column: str) -> Gaps:
    if U not in law.reads:
        return {}
    count = n_distinct(runs.x[D] - runs.x[U])
    if count >= FEWEST_EPOCHS:
        return {}
    gap = Gap(
        f"only {count} distinct numbers of epochs",
        f"add runs with {FEWEST_EPOCHS} or more numbers of passes over the same data",
    )
    return {"R_D_star": gap}


def _no_run_beyond(law: Law, runs: Runs, fitted: Estimate, n_column: str) -> Gaps:
    """A transition needs runs on both of its sides."""
    u = dict(zip(law.parameters, fitted.u, strict=True))
    if law.name == "broken":
        below, above = _sides(runs.x[C], u["d1"])
        names, what = ["d1", "f1", "c1"], C
        if below < FEWEST_BEYOND:  # what is seen is c0 + c1
            names += ["c0", "A"]
    elif law.name in ("busbridge", "busbridge_limit"):
        below, above = _sides(_quality(fitted), _transition(u))
        names = [name for name in ("c1", "d1", "u0", "f1") if name in u]
        what = f"{L_T} over the same student's without a teacher"
    else:
        return {}
    if min(below, above) >= FEWEST_BEYOND:
        return {}
    gap = Gap("no point beyond the break", f"add runs on both sides of it, in {what}")
    return dict.fromkeys(names, gap)


def _sides(axis: NDArray[Any], at: float) -> tuple[int, int]:
    """Number of runs below and above."""
    return int((axis < at).sum()), int((axis > at).sum())


def _transition(u: Mapping[str, float]) -> float:
    """log u0; of busbridge u0 = d1 (c1 f1)^-f1, where its bracket becomes that of the limit."""
    if "u0" in u:
        return u["u0"]
    return float(u["d1"] - np.exp(u["f1"]) * (u["c1"] + u["f1"]))


def _quality(fitted: Estimate) -> NDArray[Any]:
    """log of L_T over the supervised cross-entropy of the same student, of runs with a teacher."""
    runs = fitted.runs
    taught = np.isfinite(runs.x[L_T])
    alone = {**runs.x, L_T: np.full(len(runs), np.nan)}
    supervised = fitted.log_prediction(Runs(alone, runs.cross_entropy, runs.cluster))
    quality: NDArray[Any] = (runs.x[L_T] - supervised)[taught]
    return quality


def remedy(law: Law, role: str | None, n_column: str) -> str:
    """The runs that narrow a parameter which is determined by this column."""
    names = {name: column_of(name, n_column) for name in law.reads}
    if role is None:
        return f"add runs nearer to the floor, at larger {' and '.join(names.values())}"
    if role in (L_T, TEACHER_N, RATIO):
        what = L_T if role == L_T else f"teacher_{n_column}"
        return f"add runs of the same students with more teachers, far apart in {what}"
    others = " and ".join(name for other, name in names.items() if other != role)
    fixed = f", at the same {others}" if others else ""
    column = column_of(role, n_column)
    return f"add runs with {FEWEST_DISTINCT} or more values of {column}, far apart{fixed}"
