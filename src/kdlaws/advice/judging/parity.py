"""H8: is there a number of tokens up to which distilling wins, and beyond which it does not?"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from kdlaws.advice.captions import counted, listed
from kdlaws.advice.contrasts import Estimate, Term, contrast, independent
from kdlaws.advice.crossings import WIDEST_GAP, interpolated
from kdlaws.advice.evidence import Evidence
from kdlaws.advice.findings import one_pass_curves, seed_noise
from kdlaws.advice.judging.frontiers import Curve, Payer, by_cost
from kdlaws.advice.judging.grounds import Grounds
from kdlaws.advice.judging.known import Known
from kdlaws.advice.judging.verdicts import (
    BOTH_METHODS,
    SEEDS,
    Reading,
    Side,
    Verdict,
    extremes,
    reading,
    unanimous,
    unopposed,
)
from kdlaws.advice.judging.words import who_pays
from kdlaws.advice.planning.costs import SCENARIOS, Scenario
from kdlaws.quantities import human

if TYPE_CHECKING:
    from pandas import DataFrame

FEWEST_LEADS = 2
"""A first and a last; with one of them nothing can cross."""


@dataclass(frozen=True)
class Lead:
    """At one number of tokens, how far scratch is behind at the same cost, nats."""

    n_tokens: float
    terms: Sequence[Term]
    estimate: Estimate

    @property
    def sign(self) -> int:
        return Known.of(self.estimate).sign()


@dataclass(frozen=True)
class Parity:
    """One size in one scenario: its leads over the tokens, and what they say."""

    n: float
    leads: Sequence[Lead]
    reading: Reading

    @property
    def is_the_other_way_round(self) -> bool:
        return _is_turned(self.leads)


def parity(grounds: Grounds) -> Verdict:
    """By size, the tokens at which both ways to train have equal loss, inside the measured tokens.

    A scenario supports with one size or more where distilling is ahead at the fewest and behind at
    the most tokens, both with confidence, and no size the other way round; it contradicts where
    distilling is behind with confidence at every measured number of tokens of every size, or the
    crossing runs the other way. Behind at the fewest alone says nothing of fewer still. The student
    pays alone (k = 1), and scratch gets the same total FLOPs, between its own measured runs: on a
    straight line in the logarithm, which lies above a convex curve and so favours distilling. The
    scenarios that can be read must agree, with and without charge; a second method may only object.
    """
    evidence = grounds.evidence
    found = {m: {s: _sizes(evidence, m, s) for s in SCENARIOS} for m in evidence.distilled}
    said = [_across(each) for each in found.values()]
    verdict: Side = unopposed(said[0], said[1:]) if said else "undetermined"
    return Verdict(
        id="H8",
        claim="There is a break-even: up to some number of tokens distilling wins, beyond it "
        "training directly does.",
        claimed="distilling ahead at the fewest and behind at the most measured tokens",
        verdict=verdict,
        reason=_reason(found),
        would_settle="" if verdict != "undetermined" else _would_settle(evidence, found),
        readings=tuple(
            each.reading
            for by_scenario in found.values()
            for sizes in by_scenario.values()
            for each in sizes
        ),
    )


def _across(by_scenario: Mapping[Scenario, Sequence[Parity]]) -> Side:
    """Of one method. Without any comparison at equal FLOPs a free teacher alone supports nothing.

    It can contradict: who is behind when the teacher is free is behind when it is not.
    """
    said = {s: _of_sizes(sizes) for s, sizes in by_scenario.items() if _leads(sizes)}
    if said.get("free") == "supported" and len(said) == 1:
        return "undetermined"
    return unanimous([said.get("free", "undetermined"), *said.values()])


def _leads(sizes: Sequence[Parity]) -> list[Parity]:
    """The sizes at which there is something to compare."""
    return [each for each in sizes if len(each.leads) >= FEWEST_LEADS]


def _of_sizes(sizes: Sequence[Parity]) -> Side:
    verdicts = {each.reading.verdict for each in _leads(sizes)}
    turned = any(each.is_the_other_way_round for each in sizes)
    if "supported" in verdicts:
        return "undetermined" if turned else "supported"
    return "contradicted" if turned or verdicts == {"contradicted"} else "undetermined"


def _sizes(evidence: Evidence, method: str, scenario: Scenario) -> list[Parity]:
    scratch, distilled = (one_pass_curves(evidence, m) for m in ("scratch", method))
    shared = sorted(scratch.keys() & distilled.keys())
    return [_parity(evidence, method, scenario, n, scratch[n], distilled[n]) for n in shared]


# --- one size -----------------------------------------------------------------------------------


def _parity(
    evidence: Evidence, method: str, scenario: Scenario, n: float, scratch: Curve, distilled: Curve
) -> Parity:
    if scenario == "free":
        leads = list(_leads_at(evidence, distilled, scratch, _tokens))
    else:
        priced = by_cost(scratch, Payer("free").flops)
        leads = list(_leads_at(evidence, distilled, priced, Payer(scenario).flops))
    known, note = _break_even(evidence, leads)
    found = reading(
        f"tokens of equal loss, {method} and scratch at N = {human(n)}",
        known,
        quantity="break_even",
        unit="tokens",
        method=method,
        scenario=scenario,
        at_n=n,
        n_students=1,
        runs=(run_id for lead in leads for _, rows in lead.terms for run_id in rows["run_id"]),
        note=note,
    )
    return Parity(n, leads, replace(found, verdict=_side(leads)))


def _tokens(rows: "DataFrame") -> float:
    return float(rows["n_tokens"].mean())


def _leads_at(
    evidence: Evidence,
    distilled: Curve,
    scratch: Curve,
    cost: Callable[["DataFrame"], float],
) -> Iterator[Lead]:
    """At each number of tokens whose cost lies within scratch's own curve, by that cost."""
    noise = seed_noise(evidence)
    for n_tokens, rows in distilled.items():
        alone = interpolated(scratch, cost(rows))
        if alone:
            terms = [*alone, (-1.0, rows)]
            yield Lead(n_tokens, terms, contrast(evidence, terms, noise, independent(terms)))


def _side(leads: Sequence[Lead]) -> Side:
    if len(leads) < FEWEST_LEADS:
        return "undetermined"
    if leads[0].sign > 0 > leads[-1].sign:
        return "supported"
    return "contradicted" if _is_turned(leads) or _all_have(-1, leads) else "undetermined"


def _is_turned(leads: Sequence[Lead]) -> bool:
    """Behind with few tokens, ahead with many."""
    return bool(leads) and leads[0].sign < 0 < leads[-1].sign


def _all_have(sign: int, leads: Sequence[Lead]) -> bool:
    return all(lead.sign == sign for lead in leads)


def _break_even(evidence: Evidence, leads: Sequence[Lead]) -> tuple[Known, str]:
    """The tokens of equal loss, straight in their logarithm, and what was seen."""
    if len(leads) < FEWEST_LEADS:
        return Known(), "not measured at equal cost"
    fewest, most = leads[0].n_tokens, leads[-1].n_tokens
    for one, two in pairwise(leads):
        if not one.estimate.value > 0 >= two.estimate.value:
            continue
        if two.n_tokens > one.n_tokens * WIDEST_GAP:
            return Known(), f"nothing measured from {human(one.n_tokens)} to {human(two.n_tokens)}"
        return _between(evidence, one, two).clipped(fewest, most), "ahead below it, behind above"
    if _is_turned(leads):
        return Known(), "behind with few tokens, ahead with many"
    if _all_have(1, leads):
        return Known(lo=most), "ahead at every measured D"
    if _all_have(-1, leads):
        return Known(hi=fewest), "behind at every measured D"
    return Known(), "not told apart at every measured D"


def _between(evidence: Evidence, one: Lead, two: Lead) -> Known:
    """As ``crossings.crossing`` has it, of a difference that falls through zero."""
    fall = one.estimate.value - two.estimate.value
    share, width = one.estimate.value / fall, math.log(two.n_tokens / one.n_tokens)
    terms: list[Term] = [(w * (1 - share), rows) for w, rows in one.terms]
    terms += [(w * share, rows) for w, rows in two.terms]
    error = contrast(evidence, terms, seed_noise(evidence), independent(terms))
    known = Known.of(error)
    x = one.n_tokens * math.exp(share * width)
    return known.mapped(lambda end: x * math.exp(end * width / fall))


# --- words --------------------------------------------------------------------------------------


def _reason(found: Mapping[str, Mapping[Scenario, Sequence[Parity]]]) -> str:
    if not found:
        return "The study has no distilled runs."
    method, by_scenario = next(iter(found.items()))
    seen: dict[str, list[str]] = {}
    for scenario, sizes in by_scenario.items():
        what = _seen(_leads(sizes)) if _leads(sizes) else "not compared, for lack of scratch runs"
        seen.setdefault(what, []).append(who_pays(scenario))
    parts = [f"{listed(scenarios)} it is {what}" for what, scenarios in seen.items()]
    return f"Of {method}, against scratch inside the measured tokens: {'; '.join(parts)}."


def _seen(sizes: Sequence[Parity]) -> str:
    """``ahead up to 1M tokens and behind beyond at 2 of 5 sizes``."""
    total = counted(len(sizes), "size")
    groups = {
        "ahead up to {} and behind beyond": [s for s in sizes if s.reading.verdict == "supported"],
        "behind with few tokens and ahead with many": [
            s for s in sizes if s.is_the_other_way_round
        ],
        "behind at every measured D": [s for s in sizes if _all_have(-1, s.leads)],
        "ahead at every measured D": [s for s in sizes if _all_have(1, s.leads)],
    }
    parts = [
        f"{words.format(_range([s.reading for s in group]))} at {len(group)} of {total}"
        for words, group in groups.items()
        if group
    ]
    rest = len(sizes) - sum(map(len, groups.values()))
    return listed([*parts, *([f"not told apart at {rest} of {total}"] if rest else [])])


def _range(found: Sequence[Reading]) -> str:
    known = [each for each in found if each.estimate is not None]
    return f"{' to '.join(extremes(known)) or 'an unknown number of'} tokens"


def _would_settle(
    evidence: Evidence, found: Mapping[str, Mapping[Scenario, Sequence[Parity]]]
) -> str:
    first = next(iter(found.values()), {})
    free = _leads(first.get("free", ()))
    if not free:
        return BOTH_METHODS
    if seed_noise(evidence) is None:
        return SEEDS
    if all(each.leads[-1].sign > 0 for each in free):
        most = human(free[0].leads[-1].n_tokens)
        return (
            f"Longer runs of the same sizes: up to {most} tokens distilling is ahead, and the "
            "break-even lies beyond."
        )
    return "Longer runs from scratch, to the total FLOPs of the distilled ones, and more seeds."
