"""Where curves meet: tokens and text that distilling saves, and what degraded text is worth.

Curves are straight in log x between their measured points, and nothing is told outside them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from kdlaws.advice.columns import N
from kdlaws.advice.contrasts import Estimate, SeedNoise, Term, contrast, independent
from kdlaws.advice.evidence import Evidence, full_pass, measured, one_pass
from kdlaws.advice.findings import (
    one_pass_curves,
    repeated_curves,
    seed_noise,
    worst_seed_noise,
)
from kdlaws.advice.teachers import Teacher

if TYPE_CHECKING:
    from pandas import DataFrame

WIDEST_GAP = 10.5
"""Between points further apart than this factor nothing is interpolated."""


# --- equal losses -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crossing:
    """Where a curve reaches a cross-entropy: at ``x``, with an interval, of 95 % unless asked.

    Outside the curve's own range nothing is extrapolated: ``x`` is its end, and ``bound`` says on
    which side the crossing lies, ``"<"`` or ``">"``.
    """

    x: float
    lo: float
    hi: float
    bound: str = ""


def crossing(
    evidence: Evidence,
    curve: Mapping[float, "DataFrame"],
    target: "DataFrame",
    noise: SeedNoise | None,
    level: float = 0.95,
) -> Crossing | None:
    """The smallest x at which the curve, straight in log x between its points, meets ``target``.

    ``level`` is the interval's. None with fewer than two points, or where those beside the crossing
    are too far apart.
    """
    goal = float(target["cross_entropy"].mean())
    points = [(x, float(rows["cross_entropy"].mean()), rows) for x, rows in curve.items()]
    if len(points) < 2:
        return None
    if points[0][1] <= goal:
        return Crossing(points[0][0], math.nan, points[0][0], "<")
    for (x0, y0, rows0), (x1, y1, rows1) in pairwise(points):
        if y1 <= goal and x1 / x0 > WIDEST_GAP:
            return None
        if y1 <= goal:
            share, width = (y0 - goal) / (y0 - y1), math.log(x1 / x0)
            terms: list[Term] = [(1 - share, rows0), (share, rows1), (-1.0, target)]
            error = contrast(evidence, terms, noise, independent(terms))
            low, high = (end * width / (y0 - y1) for end in error.interval(level))
            x = x0 * math.exp(share * width)
            return Crossing(x, x * math.exp(low), x * math.exp(high))
    return Crossing(points[-1][0], points[-1][0], math.nan, ">")


def data_needed(evidence: Evidence, method: str) -> dict[float, Crossing]:
    """N -> share of scratch's tokens with which the method equals scratch, one pass each."""
    return _needed(evidence, one_pass_curves(evidence, method), seed_noise(evidence))


def text_needed(evidence: Evidence, method: str) -> dict[float, Crossing]:
    """N -> share of the text with which the method, repeating it, equals one pass of scratch."""
    return _needed(evidence, repeated_curves(evidence, method), worst_seed_noise(evidence))


def _needed(
    evidence: Evidence,
    curves: Mapping[float, Mapping[float, "DataFrame"]],
    noise: SeedNoise | None,
) -> dict[float, Crossing]:
    """Where each size's curve meets its longest run from scratch, as shares of that run's D."""
    scratch = one_pass_curves(evidence, "scratch")
    found: dict[float, Crossing] = {}
    for n in curves.keys() & scratch.keys():
        longest = max(scratch[n])
        at = crossing(evidence, curves[n], scratch[n][longest], noise)
        if at:
            found[n] = _relative(at, longest)
    return dict(sorted(found.items()))


def _relative(found: Crossing, unit: float) -> Crossing:
    return Crossing(found.x / unit, found.lo / unit, found.hi / unit, found.bound)


# --- noise --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoiseEffect:
    """A run whose text is degraded in a share ``noise`` of its blocks, against its null.

    The null is that degraded blocks are wasted: the clean run on the other ``1 - noise`` of the
    tokens. ``cost`` is the loss against the clean run on as many tokens, ``beyond_null`` that
    against the null; positive is worse. The clean curve is straight in log D between its points.
    ``nu`` is in D_eff = (1 - noise)^nu D: 1 wasted, above harmful.
    """

    method: str
    teacher: Teacher | None
    n_params: float
    noise: float
    n_tokens: float
    noisy: float
    cost: Estimate
    beyond_null: Estimate | None
    nu: Crossing | None

    @property
    def null(self) -> float | None:
        """Cross-entropy of the null; None where the clean curve has no point so short."""
        return None if self.beyond_null is None else self.noisy - self.beyond_null.value


def noise_effects(evidence: Evidence) -> list[NoiseEffect]:
    """Every noisy run of one pass that has clean runs of its size, method and teacher.

    Both at the method's usual settings.
    """
    rows = measured(one_pass(evidence.usual[evidence.usual["noise"] > 0]))
    keys, most = ["method", "teacher", N, "noise"], evidence.largest_fraction
    rows = rows[rows["fraction"] == most]
    # Scrambled text has fewer tokens, so each level has a longest pass of its own.
    found = [
        _noise_effect(evidence, full_pass(group, most))
        for _, group in rows.groupby(keys, dropna=False)
    ]
    return [each for each in found if each]


def _noise_effect(evidence: Evidence, noisy: "DataFrame") -> NoiseEffect | None:
    first = noisy.iloc[0]
    method, n, share = str(first["method"]), float(first[N]), float(first["noise"])
    teacher = next((t for t in evidence.teachers if t.run_id == first["teacher"]), None)
    curve = one_pass_curves(evidence, method, teacher).get(n, {})
    if not curve:
        return None
    noise, n_tokens = seed_noise(evidence), float(first["n_tokens"])
    clean = interpolated(curve, n_tokens)
    null = interpolated(curve, (1 - share) * n_tokens)
    if not clean:
        return None
    cost, beyond = (
        [(1.0, noisy), *((-weight, rows) for weight, rows in terms)] for terms in (clean, null)
    )
    return NoiseEffect(
        method=method,
        teacher=teacher,
        n_params=n,
        noise=share,
        n_tokens=n_tokens,
        noisy=float(noisy["cross_entropy"].mean()),
        cost=contrast(evidence, cost, noise, independent(cost)),
        beyond_null=contrast(evidence, beyond, noise, independent(beyond)) if null else None,
        nu=_nu(crossing(evidence, curve, noisy, noise), n_tokens, share),
    )


def interpolated(curve: Mapping[float, "DataFrame"], x: float) -> list[Term]:
    """The curve at ``x``: a measured point, or straight in log x between two of them.

    Empty outside the points, and between two that are too far apart. Losses are convex in log D:
    the straight line lies above them, so that what is held against it looks better than it is.
    """
    for at, rows in curve.items():
        if math.isclose(x, at, rel_tol=1e-9):
            return [(1.0, rows)]
    for (x0, rows0), (x1, rows1) in pairwise(curve.items()):
        if x0 < x < x1 <= x0 * WIDEST_GAP:
            share = math.log(x / x0) / math.log(x1 / x0)
            return [(1 - share, rows0), (share, rows1)]
    return []


def _nu(reached: Crossing | None, n_tokens: float, share: float) -> Crossing | None:
    """None where the clean curve does not reach the noisy loss, or no block is clean."""
    if reached is None or reached.bound or share >= 1:
        return None

    def nu(x: float) -> float:
        return math.log(x / n_tokens) / math.log(1 - share)

    return Crossing(nu(reached.x), nu(reached.hi), nu(reached.lo))
