"""The best plan of a budget under the joint law, the teacher's size free, inside the runs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kdlaws.advice.judging.frontiers import Payer
from kdlaws.advice.judging.joint import Joint, not_identified
from kdlaws.advice.judging.known import Known
from kdlaws.advice.planning.plan import plan
from kdlaws.advice.planning.plan_result import Plan
from kdlaws.errors import InputError
from kdlaws.quantities import human

N_BUDGETS = 5
"""Tried, from the dearest of the method's runs to its cheapest."""


@dataclass(frozen=True)
class Planned:
    """Of the best plan: teacher N over student N, and the teacher's share of the FLOPs.

    Not known, with the reason, where no plan stays inside the runs.
    """

    ratio: Known
    share: Known
    note: str


def planned(joint: Joint, method: str) -> Planned:
    """Of the largest budget whose best plan stays inside the runs, the teacher's inference paid.

    One student pays alone (k = 1). Needs a law that knows how the gain depends on the ratio.
    """
    assert joint.fit is not None
    why, _ = not_identified(joint.fit, f"kappa_{method}", f"r_c_{method}")
    if why:
        return Planned(Known(), Known(), why)
    for budget in _budgets(joint, method):
        try:
            found = plan(joint.fit, budget, scenario="inference", method=method)
        except InputError:  # the smallest budgets may buy no student
            continue
        if not found.extrapolates and not found.corner and found.interval:
            return _of(found, budget)
    return Planned(Known(), Known(), "the best plan of every measured budget is outside the runs")


def _of(found: Plan, budget: float) -> Planned:
    assert found.interval is not None
    teachers = getattr(found.best, f"teacher_{found.n_column}")
    ratio = Known(teachers / found.best.n, *found.interval.get("ratio", (None, None)))
    ends = found.interval.get("teacher_inference_share", (None, None))
    note = f"{human(budget)} FLOPs, scenario inference, k = 1"
    return Planned(ratio, Known(found.allocation["teacher_inference"], *ends), note)


def _budgets(joint: Joint, method: str) -> Iterator[float]:
    payer = Payer("inference")
    costs = [payer.flops(run) for _, run in joint.of(method).groupby("run_id")]
    known = np.array(costs)[np.isfinite(costs)]
    if len(known):
        yield from map(float, np.geomspace(known.max(), known.min(), N_BUDGETS))
