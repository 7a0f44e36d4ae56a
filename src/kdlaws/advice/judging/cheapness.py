"""H2: how much cheaper is a loss by distilling than from scratch?"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kdlaws.advice.captions import listed
from kdlaws.advice.evidence import Evidence
from kdlaws.advice.findings import seed_noise
from kdlaws.advice.judging.frontiers import Payer, Priced, loss_of, n_students
from kdlaws.advice.judging.grounds import Grounds
from kdlaws.advice.judging.known import Known
from kdlaws.advice.judging.reach import reached
from kdlaws.advice.judging.side_by_side import side_by_side
from kdlaws.advice.judging.verdicts import (
    BOTH_METHODS,
    OPPOSITE,
    SEEDS,
    About,
    Claimed,
    Reading,
    Side,
    Verdict,
    opposite,
    reading,
    sides,
    unanimous,
    unopposed,
)
from kdlaws.advice.judging.words import who_pays
from kdlaws.advice.planning.costs import SCENARIOS

TIMES = Claimed(5.0, 10.0)


def cheapness(grounds: Grounds) -> Verdict:
    """C_scratch(l)/C_method(l), each at its best measured N and D, in FLOPs.

    l is the lowest loss at which both were at their best: no other size stopped short of it at less
    cost, or began below it. If there is none, l is the lowest at which one of them was, and the
    ratio is bounded on one side. All four scenarios must say the same with the teacher paid by one
    student (k = 1). The same shared by all students that read its stored outputs, and a second
    method, may only object.
    """
    evidence = grounds.evidence
    alone = {m: list(_factors(evidence, m, 1)) for m in evidence.distilled}
    k = n_students(evidence)
    shared = {m: list(_factors(evidence, m, k)) if k > 1 else [] for m in evidence.distilled}
    said = [unopposed(unanimous(sides(alone[m])), sides(shared[m])) for m in evidence.distilled]
    verdict: Side = unopposed(said[0], said[1:]) if said else "undetermined"
    return Verdict(
        id="H2",
        claim="Distilling reaches a loss with 5 to 10 times fewer FLOPs than scratch.",
        claimed="C_scratch/C_distilled of 5 to 10 at equal loss",
        verdict=verdict,
        reason=_reason(alone, shared, k),
        would_settle="" if verdict != "undetermined" else _would_settle(evidence, alone),
        readings=tuple(
            each
            for m in evidence.distilled
            for each in (*alone[m], *shared[m], *side_by_side(evidence, m))
        ),
    )


def _factors(evidence: Evidence, method: str, k: int) -> Iterator[Reading]:
    """By scenario; sharing changes nothing about a free teacher."""
    for scenario in SCENARIOS:
        if k == 1 or scenario != "free":
            yield _factor(evidence, method, Payer(scenario, k))


def _factor(evidence: Evidence, method: str, payer: Payer) -> Reading:
    scratch = Priced.of(evidence, "scratch", Payer("free").flops)
    distilled = Priced.of(evidence, method, payer.flops)
    about: About = {
        "quantity": "flops_ratio",
        "unit": "times",
        "method": method,
        "scenario": payer.scenario,
        "n_students": payer.n_students,
    }
    if not scratch.frontier or not distilled.frontier:
        lacking = method if scratch.frontier else "scratch"
        note = f"no one-pass run of {lacking} has known FLOPs"
        return reading(f"C_scratch/C_{method}", Known(), TIMES, note=note, **about)
    chosen = _chosen(_levels(evidence, scratch, distilled, payer))
    about["at_cross_entropy"] = chosen.loss
    cells = (rows for each in (scratch, distilled) for rows in each.frontier.values())
    return reading(
        f"C_scratch/C_{method} at {chosen.loss:.3g} nats, k = {payer.n_students}",
        chosen.ratio,
        TIMES,
        runs=(run_id for rows in cells for run_id in rows["run_id"]),
        note=chosen.note,
        **about,
    )


@dataclass(frozen=True)
class Level:
    """A loss that both methods reached, nats, and what it cost them, in FLOPs.

    The two flags say that a method might have reached it for less in runs of other lengths; then
    its measured cost is only a bound. ``fixed`` is what distilling costs at least.
    """

    loss: float
    scratch: Known
    distilled: Known
    scratch_may_be_cheaper: bool
    distilled_may_be_cheaper: bool
    fixed: float

    @property
    def n_edges(self) -> int:
        return self.scratch_may_be_cheaper + self.distilled_may_be_cheaper

    @property
    def ratio(self) -> Known:
        measured = self.scratch.over(self.distilled)
        lo = None if self.scratch_may_be_cheaper else measured.lo
        return Known(measured.value, lo, self._at_most(measured.hi))

    def _at_most(self, measured: float | None) -> float | None:
        if not self.distilled_may_be_cheaper:
            return measured
        most = self.scratch.hi
        return most / self.fixed if most is not None and self.fixed > 0 else None

    @property
    def note(self) -> str:
        edges = {"scratch": self.scratch_may_be_cheaper, "distilled": self.distilled_may_be_cheaper}
        edged = [name for name, is_edge in edges.items() if is_edge]
        if not edged:
            return "each at its best measured N and D"
        return f"{listed(edged)} runs longer or shorter than measured might be cheaper"


def _levels(
    evidence: Evidence, scratch: Priced, distilled: Priced, payer: Payer
) -> Iterator[Level]:
    """At each cell of either frontier whose loss both reached."""
    noise = seed_noise(evidence)
    lowest = max(min(map(loss_of, each.frontier.values())) for each in (scratch, distilled))
    fixed = min(map(payer.fixed, distilled.frontier.values()))
    for mine in (scratch, distilled):
        for cost, rows in mine.frontier.items():
            loss, here = loss_of(rows), Known(cost, cost, cost)
            if loss < lowest:
                continue
            costs = [
                here if each is mine else reached(evidence, each.frontier, rows, noise)
                for each in (scratch, distilled)
            ]
            edges = [
                each.may_be_cheaper(loss, math.inf if at.value is None else at.value)
                for each, at in zip((scratch, distilled), costs, strict=True)
            ]
            yield Level(loss, costs[0], costs[1], edges[0], edges[1], fixed)


def _chosen(levels: Iterable[Level]) -> Level:
    """The lowest at which both are at their best; without any, one of them."""
    return min(levels, key=lambda each: (each.n_edges, each.loss))


# --- words --------------------------------------------------------------------------------------


def _reason(alone: Mapping[str, list[Reading]], shared: Mapping[str, list[Reading]], k: int) -> str:
    if not alone:
        return "The study has no distilled runs."
    method, found = next(iter(alone.items()))
    if all(each.known == Known() for each in found):
        return f"No cost can be compared: {found[0].note}."
    verdict = unanimous(sides(found))
    objecting = [each for each in shared[method] if each.verdict in opposite(verdict)]
    parts = [
        _costs(method, [each for each in found if not each.known.is_open]),
        _unknown([each for each in found if each.known.is_open]),
        f"Shared by {k} students: {listed(list(map(_times, objecting)))}." if objecting else "",
        "It depends on who pays for the teacher." if {*OPPOSITE} <= {*sides(found)} else "",
    ]
    return " ".join(filter(None, parts))


def _costs(method: str, found: Sequence[Reading]) -> str:
    if not found:
        return ""
    first, *others = map(_times, found)
    first = first.replace(" times", f" times the FLOPs of {method}", 1)
    return f"At equal loss scratch takes {listed([first, *others])}."


def _times(found: Reading) -> str:
    """``6.2 [5.8, 6.7] times with a free teacher (supported, at 3.21 nats)``."""
    said = f"{found.verdict}, at {found.at_cross_entropy:.3g} nats"
    return f"{found.known_text} times {who_pays(found.scenario)} ({said})"


def _unknown(found: Sequence[Reading]) -> str:
    if not found:
        return ""
    return f"Not known {listed([who_pays(each.scenario) for each in found])}: {found[0].note}."


def _would_settle(evidence: Evidence, alone: Mapping[str, list[Reading]]) -> str:
    found = next(iter(alone.values()), [])
    if all(each.known == Known() for each in found):
        return BOTH_METHODS
    if seed_noise(evidence) is None:
        return SEEDS
    if any("might be cheaper" in each.note for each in found):
        return (
            "Longer runs of the small sizes and shorter runs of the large ones, from scratch and "
            "distilled, so that each loss is reached at its best size."
        )
    if {*OPPOSITE} <= {*sides(found)}:
        return "A claim that says who pays for the teacher, and how many students share it."
    return "More seeds of the best runs from scratch, and distilled runs of about their loss."
