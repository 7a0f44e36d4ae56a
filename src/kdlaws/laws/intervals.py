"""Intervals of the parameters, and what the runs cannot determine."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from kdlaws.laws.columns import Runs
from kdlaws.laws.estimate import FEWEST_CLUSTERS, Estimate
from kdlaws.laws.forms import FloatArray, Law
from kdlaws.laws.result import Notice, Parameter, interval_text

# A parameter counts as identified when its interval is no wider than this.
WIDEST_SCALE = 10.0  # hi / lo
WIDEST_EXPONENT = 0.5  # hi - lo

FEWEST_DISTINCT = 3  # values of a column that determine a scale, an exponent and the floor
SAME_VALUE = 0.01  # of the logarithm: values within 1 % are one design point
CONFOUNDED = 0.995  # correlation of two log columns beyond which their terms are one

FEW_CLUSTERS = 10


class Gap(NamedTuple):
    """Why a parameter is not determined, and which runs would determine it."""

    reason: str
    remedy: str


def undetermined_by_design(law: Law, runs: Runs, n_column: str) -> dict[str, Gap]:
    """Parameters that no runs of this design can determine, however many."""
    names = law.reads(n_column)
    x = {role: np.log(runs.columns[name]) for role, name in zip(law.columns, names, strict=True)}
    gaps: dict[str, Gap] = {}
    for (role, values), name in zip(x.items(), names, strict=True):
        n_distinct = len(np.unique(np.round(values / SAME_VALUE)))
        if n_distinct < FEWEST_DISTINCT:
            gap = Gap(
                f"only {n_distinct} distinct {name} among the runs", _remedy(law, role, n_column)
            )
            gaps |= {k.name: gap for k in law.unknowns if k.column in (role, None)}
    if len(names) > 1 and _confounded(*x.values()):
        both = " and ".join(names)
        gap = Gap(f"{both} rise together", f"add runs in which {both} vary on their own")
        gaps |= dict.fromkeys(law.parameters, gap)  # one term can even pass for the floor
    return gaps


def _confounded(x: FloatArray, y: FloatArray) -> bool:
    x, y = x - x.mean(), y - y.mean()
    return bool(x @ y > CONFOUNDED * np.sqrt((x @ x) * (y @ y)))


def parameters(
    fitted: Estimate, refits: FloatArray, level: float, undetermined: Mapping[str, Gap]
) -> dict[str, Parameter]:
    """Values with percentile intervals of the refits; an end on the box's wall is open."""
    values = fitted.values(fitted.u)
    ends = _interval(values, fitted.values(refits), level)
    lowest, highest = _interval(fitted.u, refits, level)
    margin = 1e-3 * (fitted.problem.upper - fitted.problem.lower)
    # Where there are no refits the ends are NaN, and not inside.
    inside = np.array(
        [lowest > fitted.problem.lower + margin, highest < fitted.problem.upper - margin]
    )
    result = {}
    for i, unknown in enumerate(fitted.law.unknowns):
        known = inside[:, i] & (unknown.name not in undetermined)
        lo, hi = (
            float(end) if is_known else None
            for end, is_known in zip(ends[:, i], known, strict=True)
        )
        identified = lo is not None and hi is not None and _narrow(unknown.kind, lo, hi)
        result[unknown.name] = Parameter(float(values[i]), lo, hi, identified)
    return result


def _interval(value: FloatArray, samples: FloatArray, level: float) -> FloatArray:
    """Both ends ``[2, parameters]``, around the value; NaN where there are no samples."""
    if not len(samples):
        return np.full((2, len(value)), np.nan)
    tail = (1 - level) / 2
    lo, hi = np.quantile(samples, [tail, 1 - tail], axis=0)
    return np.array([np.minimum(lo, value), np.maximum(hi, value)])


def _narrow(kind: str, lo: float, hi: float) -> bool:
    return hi <= WIDEST_SCALE * lo if kind == "scale" else hi - lo <= WIDEST_EXPONENT


def identification_notices(
    fitted: Estimate,
    estimates: Mapping[str, Parameter],
    undetermined: Mapping[str, Gap],
    level: float,
) -> list[Notice]:
    """One notice for each parameter that the runs do not identify."""
    notices = []
    for unknown in fitted.law.unknowns:
        found = estimates[unknown.name]
        if found.identified:
            continue
        gap = undetermined.get(unknown.name) or Gap(
            f"its {level:.0%} interval is {interval_text(found.lo, found.hi)}",
            _remedy(fitted.law, unknown.column, fitted.n_column),
        )
        message = f"{unknown.name} = {found.value:.4g} is not identified: {gap.reason}"
        notices.append(Notice("not_identified", message, gap.remedy))
    return notices


def _remedy(law: Law, column: str | None, n_column: str) -> str:
    names = dict(zip(law.columns, law.reads(n_column), strict=True))
    if column is None:
        return f"add runs nearer to the floor, at larger {' and '.join(names.values())}"
    others = " and ".join(name for role, name in names.items() if role != column)
    fixed = f", at the same {others}" if others else ""
    return f"add runs with {FEWEST_DISTINCT} or more values of {names[column]}, far apart{fixed}"


def cluster_notices(n_clusters: int, by_trunk: bool) -> list[Notice]:
    """Whether there are enough clusters to resample."""
    if n_clusters >= FEW_CLUSTERS:
        return []
    what = "trunks" if by_trunk else "runs"
    effect = "no interval" if n_clusters < FEWEST_CLUSTERS else "only a rough interval"
    message = f"{n_clusters} {what} to resample give {effect}"
    remedy = f"add seeds or sizes until there are {FEW_CLUSTERS} {what} or more"
    return [Notice("few_trunks", message, remedy)]
