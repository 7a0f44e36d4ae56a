"""What distilling gains at equal tokens, FLOPs and seconds: told beside the claims."""

from collections.abc import Iterator

from kdlaws.advice.contrasts import Term, contrast, independent
from kdlaws.advice.crossings import interpolated
from kdlaws.advice.evidence import Evidence, paired
from kdlaws.advice.findings import gain, seed_noise
from kdlaws.advice.judging.frontiers import Cost, Payer, Priced, loss_of, seconds
from kdlaws.advice.judging.known import Known
from kdlaws.advice.judging.verdicts import About, Reading, reading
from kdlaws.advice.judging.words import at_equal
from kdlaws.advice.planning.costs import Scenario


def side_by_side(evidence: Evidence, method: str) -> Iterator[Reading]:
    """What the method gains at equal tokens, FLOPs and seconds, nats; told, not judged."""
    yield _at_equal_tokens(evidence, method)
    charged: tuple[Scenario, ...] = ("inference", "both")
    for scenario in charged:
        about: About = {"quantity": "gain_at_equal_flops", "scenario": scenario}
        yield _at_equal(evidence, method, Payer(scenario).flops, about)
    yield _at_equal(evidence, method, seconds, {"quantity": "gain_at_equal_seconds"})


def _at_equal_tokens(evidence: Evidence, method: str) -> Reading:
    found = gain(evidence, method, evidence.largest_fraction)
    pairs = paired(evidence, method, evidence.largest_fraction)
    return reading(
        f"scratch minus {method} {at_equal('gain_at_equal_tokens')}",
        Known.of(found.mean if found else None),
        quantity="gain_at_equal_tokens",
        unit="nats",
        method=method,
        runs=[*pairs["run_id"], *pairs["run_id_scratch"]],
        note="the mean over sizes, at the most data",
    )


def _at_equal(evidence: Evidence, method: str, cost: Cost, about: About) -> Reading:
    """Scratch's best loss minus the method's at the largest cost at which both are at their best.

    Where there is none, at the largest at which one of them is, and bounded on one side. Both are
    interpolated along their frontiers, nothing across gaps that are too wide.
    """
    scratch = Priced.of(evidence, "scratch", cost if cost is seconds else Payer("free").flops)
    distilled = Priced.of(evidence, method, cost)
    what = f"scratch minus {method} {at_equal(about['quantity'], about.get('scenario', ''))}"
    about = {**about, "unit": "nats", "method": method}
    found = [
        (at, edges)
        for at in _costs_of(scratch, distilled)
        if (edges := _edges(at, scratch, distilled))
    ]
    if not found:
        return reading(what, Known(), note="nothing was measured at equal cost", **about)
    at, edges = min(found, key=lambda each: (sum(each[1]), -each[0]))
    terms: list[Term] = list(interpolated(scratch.frontier, at))
    terms += [(-weight, rows) for weight, rows in interpolated(distilled.frontier, at)]
    known = Known.of(contrast(evidence, terms, seed_noise(evidence), independent(terms)))
    known = Known(known.value, None if edges[0] else known.lo, None if edges[1] else known.hi)
    runs = [run_id for _, rows in terms for run_id in rows["run_id"]]
    note = f"each at its best N and D, at {at:.3g} {'s' if cost is seconds else 'FLOPs'}"
    return reading(what, known, runs=runs, note=note, **about)


def _costs_of(*both: Priced) -> list[float]:
    """Of the cells of either frontier."""
    return [cost for each in both for cost in each.frontier]


def _edges(at: float, *both: Priced) -> list[bool]:
    """Of each, whether runs of other lengths might do better at that cost; empty if unmeasured."""
    curves = [interpolated(each.frontier, at) for each in both]
    if not all(curves):
        return []
    losses = [sum(weight * loss_of(rows) for weight, rows in terms) for terms in curves]
    return [each.may_be_cheaper(loss, at) for each, loss in zip(both, losses, strict=True)]
