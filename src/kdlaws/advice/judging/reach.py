"""Where a measured curve reaches a measured loss, as a reading may use it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdlaws.advice.contrasts import SeedNoise, Term, contrast, independent
from kdlaws.advice.crossings import crossing
from kdlaws.advice.evidence import Evidence
from kdlaws.advice.judging.known import LEVEL, Known

if TYPE_CHECKING:
    from pandas import DataFrame


def reached(
    evidence: Evidence,
    curve: Mapping[float, "DataFrame"],
    target: "DataFrame",
    noise: SeedNoise | None,
) -> Known:
    """The x at which the curve meets the target's loss, with its 90 % interval if seeds are known.

    Outside the measured x there is at most a bound, and only where the curve's end is beyond noise
    on that side of the target.
    """
    found = crossing(evidence, curve, target, noise, LEVEL)
    if found is None:
        return Known()
    first, *_, last = curve
    if not found.bound and noise is None:
        return Known(found.x)
    if not found.bound:
        return Known(found.x, found.lo, found.hi).clipped(first, last)
    is_below = found.bound == "<"
    ahead = difference(evidence, target, curve[first if is_below else last], noise).sign()
    if is_below:
        return Known(hi=first) if ahead > 0 else Known()
    return Known(lo=last) if ahead < 0 else Known()


def difference(
    evidence: Evidence, cell: "DataFrame", minus: "DataFrame", noise: SeedNoise | None
) -> Known:
    """Of two cells' mean cross-entropies, nats."""
    terms: list[Term] = [(1.0, cell), (-1.0, minus)]
    return Known.of(contrast(evidence, terms, noise, independent(terms)))
