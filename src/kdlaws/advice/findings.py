"""What a study's runs say without a law: gains, slopes, inversions, equal losses, noise.

Every answer is a contrast of measured cells with its standard error (``contrasts.py``). "Doubling"
slopes are least-squares slopes of cross-entropy on log2, as weighted sums of the measured means:
average slopes over the study's own levels, whatever the curve between them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from kdlaws.advice.contrasts import (
    Estimate,
    SeedNoise,
    Term,
    contrast,
    gain_noise,
    independent,
    run_noise,
)
from kdlaws.advice.evidence import (
    Evidence,
    N,
    Teacher,
    by_size,
    full_pass,
    measured,
    one_pass,
    paired,
    repeated,
)

if TYPE_CHECKING:
    from pandas import DataFrame

SIGNIFICANT = 2.0
"""Standard errors beyond which a difference is called one."""
WIDEST_GAP = 10.5
"""Between points further apart than this factor nothing is interpolated."""


# --- what distilling gains ----------------------------------------------------------------------


@dataclass(frozen=True)
class Gain:
    """Scratch minus distilled test cross-entropy: the mean over sizes, and at each size by N."""

    mean: Estimate
    by_size: Mapping[float, Estimate]

    @property
    def n_sizes(self) -> int:
        return len(self.by_size)

    @property
    def n_wins(self) -> int:
        """Sizes at which the method is ahead by more than ``SIGNIFICANT`` standard errors."""
        return sum(e.value > SIGNIFICANT * e.se for e in self.by_size.values())

    @property
    def n_losses(self) -> int:
        return sum(e.value < -SIGNIFICANT * e.se for e in self.by_size.values())


def gain(
    evidence: Evidence, method: str, fraction: float, teacher: Teacher | None = None
) -> Gain | None:
    """Paired by size and seed as in ``evidence.paired``; None where there is no pair."""
    pairs = by_size(paired(evidence, method, fraction, teacher))
    if not pairs:
        return None
    noise = paired_noise(evidence, fraction)
    terms = {n: _gain_terms(rows) for n, rows in pairs.items()}
    each = {n: contrast(evidence, terms[n], noise, 1 / len(rows)) for n, rows in pairs.items()}
    share = 1 / len(pairs)
    return Gain(
        mean=contrast(
            evidence,
            [(share * weight, rows) for two in terms.values() for weight, rows in two],
            noise,
            share**2 * sum(1 / len(rows) for rows in pairs.values()),
        ),
        by_size=each,
    )


def _gain_terms(pairs: "DataFrame") -> list[Term]:
    names = {"run_id_scratch": "run_id", "cross_entropy_scratch": "cross_entropy"}
    scratch = pairs[list(names)].rename(columns=names)
    return [(1.0, scratch), (-1.0, pairs[["run_id", "cross_entropy"]])]


def paired_noise(evidence: Evidence, fraction: float) -> SeedNoise | None:
    """Over seeds, of distilled against scratch: all methods with the main teacher."""
    import pandas as pd

    pairs = [paired(evidence, m, fraction) for m in evidence.methods if m != "scratch"]
    return gain_noise(pd.concat(pairs)) if pairs else None


def seed_noise(evidence: Evidence, fraction: float) -> SeedNoise | None:
    """Over seeds, of one run: at the end of one pass, or at the best number of epochs.

    All methods, with the main teacher.
    """
    import pandas as pd

    rows = [_final(evidence.of(method), fraction) for method in evidence.methods]
    return run_noise(pd.concat(rows)) if rows else None


def _final(rows: "DataFrame", fraction: float) -> "DataFrame":
    """One measured row a trunk: the longest pass over all of the data, the best repeats of less."""
    rows = measured(rows[rows["fraction"] == fraction])
    return full_pass(rows) if fraction == 1 else repeated(rows)


def teacher_gain(
    evidence: Evidence, method: str, teacher: Teacher, against: Teacher
) -> dict[float, Estimate]:
    """N -> how far students of ``teacher`` are ahead of those of ``against``, same seeds, nats."""
    noise = seed_noise(evidence, 1.0)
    ours, theirs = (
        by_size(_final(evidence.of(method, teacher=each), 1.0)) for each in (teacher, against)
    )
    found: dict[float, Estimate] = {}
    for n in ours.keys() & theirs.keys():
        keys = ["seed", "n_tokens"]
        pairs = theirs[n].merge(ours[n].dropna(subset=keys), on=keys, suffixes=("_scratch", ""))
        if len(pairs):
            terms = _gain_terms(pairs)
            found[n] = contrast(evidence, terms, noise, independent(terms))
    return dict(sorted(found.items()))


def behind_teacher(evidence: Evidence, method: str, teacher: Teacher) -> dict[float, Estimate]:
    """N -> student minus teacher after one pass over all of the data, nats.

    Paired with the teacher's own run, where the table has it.
    """
    noise = seed_noise(evidence, 1.0)
    own = measured(evidence.runs[evidence.runs["run_id"] == teacher.run_id])
    found: dict[float, Estimate] = {}
    if math.isnan(teacher.cross_entropy):
        return found
    for n, rows in by_size(_final(evidence.of(method, teacher=teacher), 1.0)).items():
        terms: list[Term] = [(1.0, rows), (-1.0, own)] if len(own) else [(1.0, rows)]
        gap = contrast(evidence, terms, noise, 1 / len(rows))
        found[n] = gap if len(own) else replace(gap, value=gap.value - teacher.cross_entropy)
    return found


# --- scaling ------------------------------------------------------------------------------------


def shared_sizes(evidence: Evidence, fraction: float = 1.0) -> tuple[float, ...]:
    """The N at which every method with a slope was run, so that their slopes compare."""
    sizes = [set(by_size(_final(evidence.of(m), fraction))) for m in evidence.methods]
    with_slope = [each for each in sizes if len(each) > 1]
    return tuple(sorted(set.intersection(*with_slope))) if with_slope else ()


def size_slope(evidence: Evidence, method: str, fraction: float = 1.0) -> Estimate | None:
    """Nats per doubling of N, over the shared sizes; None with fewer than two."""
    sizes = _at_shared_sizes(evidence, method, fraction)
    if len(sizes) < 2:
        return None
    terms = _slope_terms(sizes)
    return contrast(evidence, terms, seed_noise(evidence, fraction), independent(terms))


def size_exponent(evidence: Evidence, method: str, fraction: float = 1.0) -> Estimate | None:
    """Effective exponent of N: minus the slope of log cross-entropy on log N, no offset taken off.

    Kaplan et al. 2020 (2001.08361) fit this form; it is smaller than an exponent that describes
    the distance to an irreducible loss.
    """
    sizes = _at_shared_sizes(evidence, method, fraction)
    if len(sizes) < 2:
        return None
    terms = [(weight / math.log(2), rows) for weight, rows in _slope_terms(sizes)]
    means = [float(rows["cross_entropy"].mean()) for _, rows in terms]
    # d log L = dL / L carries the standard error over from L to log L.
    relative = [(-weight / mean, rows) for (weight, rows), mean in zip(terms, means, strict=True)]
    noise = seed_noise(evidence, fraction)
    error = contrast(evidence, relative, noise, independent(relative))
    logs = (weight * math.log(mean) for (weight, _), mean in zip(terms, means, strict=True))
    return replace(error, value=-sum(logs))


def _at_shared_sizes(evidence: Evidence, method: str, fraction: float) -> dict[float, "DataFrame"]:
    shared = shared_sizes(evidence, fraction)
    sizes = by_size(_final(evidence.of(method), fraction))
    return {n: rows for n, rows in sizes.items() if n in shared}


def data_slopes(evidence: Evidence, method: str) -> dict[float, Estimate]:
    """N -> nats per doubling of D, over the token counts of one pass."""
    noise = seed_noise(evidence, 1.0)
    terms = _slope_terms_by_size(evidence, method)
    return {n: contrast(evidence, each, noise, independent(each)) for n, each in terms.items()}


def data_slope(evidence: Evidence, method: str) -> Estimate | None:
    """The mean over sizes of ``data_slopes``."""
    by_n = _slope_terms_by_size(evidence, method).values()
    terms = [(weight / len(by_n), rows) for each in by_n for weight, rows in each]
    noise = seed_noise(evidence, 1.0)
    return contrast(evidence, terms, noise, independent(terms)) if terms else None


def _slope_terms_by_size(evidence: Evidence, method: str) -> dict[float, list[Term]]:
    curves = one_pass_curves(evidence, method).items()
    return {n: _slope_terms(curve) for n, curve in curves if len(curve) > 1}


def one_pass_curves(
    evidence: Evidence, method: str, teacher: Teacher | None = None
) -> dict[float, dict[float, "DataFrame"]]:
    """N -> tokens trained on -> the runs of one pass over all of the data, a row a seed."""
    rows = measured(one_pass(evidence.of(method, teacher=teacher)))
    rows = rows[rows["fraction"] == 1]
    return {n: _by(each, "n_tokens") for n, each in by_size(rows).items()}


def repeated_curves(evidence: Evidence, method: str) -> dict[float, dict[float, "DataFrame"]]:
    """N -> unique tokens -> the runs at their best epochs.

    Of all the data that is the longest single pass, where nothing repeats them.
    """
    rows = evidence.of(method)
    again = measured(repeated(rows))
    once = _final(rows[~rows[N].isin(again[N][again["fraction"] == 1])], 1.0)
    chosen = rows.loc[again.index.union(once.index)]
    return {n: _by(each, "n_unique_tokens") for n, each in by_size(chosen).items()}


def _by(rows: "DataFrame", column: str) -> dict[float, "DataFrame"]:
    return {float(x): rows[rows[column] == x] for x in sorted(rows[column].unique())}


def _slope_terms(curve: Mapping[float, "DataFrame"]) -> list[Term]:
    """Least squares on log2 x, as a weighted sum of the cells."""
    x = np.log2(list(curve))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    return list(zip(map(float, weights), curve.values(), strict=True))


@dataclass(frozen=True)
class Step:
    """From one level to the next: more parameters N, tokens of one pass D, or unique tokens U.

    ``fixed`` is the fraction of the data for a step in N, and N for a step in data.
    """

    method: str
    along: Literal["N", "D", "U"]
    low: float
    high: float
    fixed: float
    change: Estimate

    @property
    def is_inverted(self) -> bool:
        """Whether more is worse, beyond ``SIGNIFICANT`` standard errors."""
        return self.change.value > SIGNIFICANT * self.change.se


def steps(evidence: Evidence) -> list[Step]:
    """Every step between neighbours in N at equal data, and in data at equal N."""
    found: list[Step] = []
    noise, worst = seed_noise(evidence, 1.0), _worst(evidence)
    for method in evidence.methods:
        found += _steps_in_n(evidence, method)
        for n, curve in one_pass_curves(evidence, method).items():
            found += _steps(evidence, method, "D", n, curve, noise)
        for n, curve in repeated_curves(evidence, method).items():
            found += _steps(evidence, method, "U", n, curve, worst)
    return found


def _steps_in_n(evidence: Evidence, method: str) -> Iterator[Step]:
    for fraction in evidence.fractions:
        sizes = by_size(_final(evidence.of(method), fraction))
        yield from _steps(evidence, method, "N", fraction, sizes, seed_noise(evidence, fraction))


def _worst(evidence: Evidence) -> SeedNoise | None:
    """The largest of the fractions' seed noises, for steps between fractions."""
    known = [noise for f in evidence.fractions if (noise := seed_noise(evidence, f))]
    return max(known, key=lambda noise: noise.sigma, default=None)


def _steps(
    evidence: Evidence,
    method: str,
    along: Literal["N", "D", "U"],
    fixed: float,
    curve: Mapping[float, "DataFrame"],
    noise: SeedNoise | None,
) -> Iterator[Step]:
    for (low, fewer), (high, more) in pairwise(curve.items()):
        terms: list[Term] = [(1.0, more), (-1.0, fewer)]
        change = contrast(evidence, terms, noise, independent(terms))
        yield Step(method, along, low, high, fixed, change)


# --- equal losses -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crossing:
    """Where a curve reaches a cross-entropy: at ``x``, with a 95 % interval.

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
) -> Crossing | None:
    """The smallest x at which the curve, straight in log x between its points, meets ``target``.

    None with fewer than two points, or where those beside the crossing are too far apart.
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
            low, high = (end * width / (y0 - y1) for end in error.interval())
            x = x0 * math.exp(share * width)
            return Crossing(x, x * math.exp(low), x * math.exp(high))
    return Crossing(points[-1][0], points[-1][0], math.nan, ">")


def data_needed(evidence: Evidence, method: str) -> dict[float, Crossing]:
    """N -> share of scratch's tokens with which the method equals scratch, one pass each."""
    scratch = one_pass_curves(evidence, "scratch")
    found: dict[float, Crossing] = {}
    for n, curve in one_pass_curves(evidence, method).items():
        if n in scratch:
            longest = max(scratch[n])
            at = crossing(evidence, curve, scratch[n][longest], seed_noise(evidence, 1.0))
            if at:
                found[n] = _relative(at, longest)
    return found


def text_needed(evidence: Evidence, method: str) -> dict[float, Crossing]:
    """N -> share of the text with which the method, repeating it, equals one pass of scratch."""
    scratch = one_pass_curves(evidence, "scratch")
    found: dict[float, Crossing] = {}
    for n, curve in repeated_curves(evidence, method).items():
        if n in scratch:
            longest = max(scratch[n])
            at = crossing(evidence, curve, scratch[n][longest], _worst(evidence))
            if at:
                found[n] = _relative(at, longest)
    return found


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
    null: float
    cost: Estimate
    beyond_null: Estimate | None
    nu: Crossing | None


def noise_effects(evidence: Evidence) -> list[NoiseEffect]:
    """Every noisy run of one pass that has clean runs of its size, method and teacher.

    Both at the method's usual settings.
    """
    rows = measured(one_pass(evidence.usual[evidence.usual["noise"] > 0]))
    keys = ["method", "teacher", N, "noise"]
    rows = rows[rows["fraction"] == 1]
    # Scrambled text has fewer tokens, so each level has a longest pass of its own.
    found = [
        _noise_effect(evidence, full_pass(group)) for _, group in rows.groupby(keys, dropna=False)
    ]
    return [each for each in found if each]


def _noise_effect(evidence: Evidence, noisy: "DataFrame") -> NoiseEffect | None:
    first = noisy.iloc[0]
    method, n, share = str(first["method"]), float(first[N]), float(first["noise"])
    teacher = next((t for t in evidence.teachers if t.run_id == first["teacher"]), None)
    curve = one_pass_curves(evidence, method, teacher).get(n, {})
    if not curve:
        return None
    noise, n_tokens = seed_noise(evidence, 1.0), float(first["n_tokens"])
    clean = interpolated(curve, n_tokens)
    null = interpolated(curve, (1 - share) * n_tokens)
    if not clean:
        return None
    cost, beyond = ([(1.0, noisy), *_negative(terms)] for terms in (clean, null))
    return NoiseEffect(
        method=method,
        teacher=teacher,
        n_params=n,
        noise=share,
        n_tokens=n_tokens,
        noisy=float(noisy["cross_entropy"].mean()),
        null=sum(weight * float(rows["cross_entropy"].mean()) for weight, rows in null),
        cost=contrast(evidence, cost, noise, independent(cost)),
        beyond_null=contrast(evidence, beyond, noise, independent(beyond)) if null else None,
        nu=_nu(crossing(evidence, curve, noisy, noise), n_tokens, share),
    )


def _negative(terms: Sequence[Term]) -> list[Term]:
    return [(-weight, rows) for weight, rows in terms]


def interpolated(curve: Mapping[float, "DataFrame"], x: float) -> list[Term]:
    """The curve at ``x``, straight in log x between its points; empty outside them."""
    for (x0, rows0), (x1, rows1) in pairwise(curve.items()):
        if x0 * (1 - 1e-9) <= x <= x1 * (1 + 1e-9):
            share = min(1.0, max(0.0, math.log(x / x0) / math.log(x1 / x0)))
            return [term for term in ((1 - share, rows0), (share, rows1)) if term[0]]
    return []


def _nu(reached: Crossing | None, n_tokens: float, share: float) -> Crossing | None:
    """None where the clean curve does not reach the noisy loss, or no block is clean."""
    if reached is None or reached.bound or share >= 1:
        return None

    def nu(x: float) -> float:
        return math.log(x / n_tokens) / math.log(1 - share)

    return Crossing(nu(reached.x), nu(reached.hi), nu(reached.lo))
