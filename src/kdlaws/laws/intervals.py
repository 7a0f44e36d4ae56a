"""Intervals of the parameters, and which of them the runs identify."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from kdlaws.laws.coordinates import partner
from kdlaws.laws.estimate import Estimate, Stage, plain_value
from kdlaws.laws.gaps import Gap, remedy
from kdlaws.laws.law import Law
from kdlaws.laws.profile import Range, profile
from kdlaws.laws.resample import FEWEST_CLUSTERS
from kdlaws.laws.result import Notice, Parameter, interval_text
from kdlaws.laws.uncertainty import Linear, Resampled, Uncertainty, linear

# A parameter counts as identified when its interval is no wider than this.
WIDEST_SCALE = 10.0  # hi / lo
WIDEST_EXPONENT = 0.5  # hi - lo

FEW_CLUSTERS = 10


def parameters(
    fitted: Estimate, uncertainty: Uncertainty | None, level: float, gaps: Mapping[str, Gap]
) -> dict[str, Parameter]:
    """Values and intervals of all parameters of the law.

    Linear: profiles. Resampled: percentiles of the refits, and the profile, too, where either does
    not identify the parameter or trunks were drawn. None: no intervals. What ``gaps`` names has
    none.
    """
    law, u = fitted.law, fitted.u
    found: dict[str, Parameter] = {}
    for stage in fitted.stages:
        of_stage = linear(stage) if uncertainty is not None else None
        for k in map(int, stage.coordinates.free):
            name = law.parameters[k]
            value = float(plain_value(law, k, u[k]))
            known = of_stage is not None and name not in gaps
            ends = _ends(stage, k, of_stage, uncertainty, level) if known else Range(None, None)
            found[name] = _parameter(law, k, value, ends)
    for k, name in enumerate(law.parameters):
        if name not in found:
            found[name] = _fixed(fitted, k, name, found)
    for unknown in law.unknowns:
        if unknown.needs and not found[unknown.needs].identified:
            found[unknown.name] = replace(found[unknown.name], identified=False)
    return {name: found[name] for name in law.parameters}


def _ends(
    stage: Stage,
    k: int,
    of_stage: Linear | None,
    uncertainty: Uncertainty | None,
    level: float,
) -> Range:
    assert of_stage is not None
    profiled = profile(stage, k, of_stage, level)
    if not isinstance(uncertainty, Resampled) or _stands_alone(stage):
        return profiled
    u = float(stage.coordinates.parameters(stage.v)[k])
    tail = (1 - level) / 2
    lo, hi = np.quantile(uncertainty.samples[:, k], [tail, 1 - tail])
    drawn = Range(min(float(lo), u), max(float(hi), u))
    kind = stage.coordinates.law.unknowns[k].kind
    both_narrow = _narrow(kind, drawn) and _narrow(kind, profiled)
    by_trunk = stage.variances is not None  # few trunks make refits agree too well
    return drawn if both_narrow and not by_trunk else _wider(drawn, profiled)


def _stands_alone(stage: Stage) -> bool:
    """A first stage with trunk effects: its own profile says all, as of a law in one stage."""
    law = stage.coordinates.law
    first = {law.parameters.index(name) for name in law.stages[0]} if law.stages else set()
    return stage.variances is not None and bool(first & set(map(int, stage.coordinates.free)))


def _wider(one: Range, other: Range) -> Range:
    lo = None if one.lo is None or other.lo is None else min(one.lo, other.lo)
    hi = None if one.hi is None or other.hi is None else max(one.hi, other.hi)
    return Range(lo, hi)


def _narrow(kind: str, ends: Range) -> bool:
    """Whether an interval of u identifies the parameter."""
    if ends.lo is None or ends.hi is None:
        return False
    widest = np.log(WIDEST_SCALE) if kind == "scale" else WIDEST_EXPONENT
    return bool(ends.hi - ends.lo <= widest)


def _parameter(law: Law, k: int, value: float, ends: Range) -> Parameter:
    with np.errstate(over="ignore"):  # an end too large for a number is none
        lo, hi = (
            None if end is None else float(plain_value(law, k, np.array(end)))
            for end in (ends.lo, ends.hi)
        )
    lo, hi = (end if end is not None and np.isfinite(end) else None for end in (lo, hi))
    return Parameter(value, lo, hi, _narrow(law.unknowns[k].kind, ends))


def _fixed(fitted: Estimate, k: int, name: str, found: Mapping[str, Parameter]) -> Parameter:
    """A tied parameter is as sure as its partner; of a pinned one the runs say nothing."""
    followed = found.get(partner(name, fitted.fixed))
    value = float(plain_value(fitted.law, k, fitted.u[k]))
    if followed is not None:
        return Parameter(value, followed.lo, followed.hi, followed.identified)
    return Parameter(value, None, None, False)


def identification_notices(
    fitted: Estimate,
    estimates: Mapping[str, Parameter],
    gaps: Mapping[str, Gap],
    level: float,
    n_column: str,
    uncertainty: Uncertainty | None,
) -> list[Notice]:
    """One notice for each free parameter that the runs do not identify.

    Without intervals only what the design cannot determine is known.
    """
    notices = []
    for unknown in fitted.law.unknowns:
        found = estimates[unknown.name]
        by_design = unknown.name in gaps
        if found.identified or unknown.name in fitted.fixed:
            continue
        if uncertainty is None and not by_design:
            continue
        reason = f"its {level:.0%} interval is {interval_text(found.lo, found.hi)}"
        if unknown.needs and not estimates[unknown.needs].identified:
            reason = f"it means nothing without {unknown.needs}, which is not identified"
        gap = gaps.get(unknown.name) or Gap(reason, remedy(fitted.law, unknown.column, n_column))
        message = f"{unknown.name} = {found.value:.4g} is not identified: {gap.reason}"
        notices.append(Notice("not_identified", message, gap.remedy))
    return notices


def cluster_notices(n_clusters: int, by_trunk: bool) -> list[Notice]:
    """Whether there are enough clusters for an interval."""
    if n_clusters >= FEW_CLUSTERS:
        return []
    what = "trunks" if by_trunk else "runs"
    effect = "no interval" if n_clusters < FEWEST_CLUSTERS else "only a rough interval"
    message = f"{n_clusters} {what} give {effect}"
    advice = f"add seeds or sizes until there are {FEW_CLUSTERS} {what} or more"
    return [Notice("few_trunks", message, advice)]
