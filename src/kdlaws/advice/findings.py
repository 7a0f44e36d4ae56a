"""What a study's runs say without a law: gains, slopes, inversions.

Every answer is a contrast of measured cells with its standard error (``contrasts.py``). "Doubling"
slopes are least-squares slopes of cross-entropy on log2, as weighted sums of the measured means:
average slopes over the study's own levels, whatever the curve between them.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from kdlaws.advice.columns import N
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
    by_size,
    final,
    measured,
    one_pass,
    paired,
    repeated,
)
from kdlaws.advice.teachers import Teacher

if TYPE_CHECKING:
    from pandas import DataFrame

SIGNIFICANT = 2.0
"""Standard errors beyond which a difference is called one."""


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
    terms = {n: gain_terms(rows) for n, rows in pairs.items()}
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


def gain_terms(pairs: "DataFrame") -> list[Term]:
    """The first runs of pairs, whose columns end in ``_scratch``, minus the second."""
    names = {"run_id_scratch": "run_id", "cross_entropy_scratch": "cross_entropy"}
    scratch = pairs[list(names)].rename(columns=names)
    return [(1.0, scratch), (-1.0, pairs[["run_id", "cross_entropy"]])]


def paired_noise(evidence: Evidence, fraction: float) -> SeedNoise | None:
    """Over seeds, of distilled against scratch: all methods with the main teacher."""
    import pandas as pd

    pairs = [paired(evidence, m, fraction) for m in evidence.distilled]
    return gain_noise(pd.concat(pairs)) if pairs else None


def seed_noise(evidence: Evidence, fraction: float | None = None) -> SeedNoise | None:
    """Over seeds, of one run as ``evidence.final`` has it: at the most data, unless told.

    All methods, with the main teacher.
    """
    import pandas as pd

    rows = [final(evidence, evidence.of(method), fraction) for method in evidence.methods]
    return run_noise(pd.concat(rows)) if rows else None


def teacher_gain(
    evidence: Evidence, method: str, teacher: Teacher, against: Teacher
) -> dict[float, Estimate]:
    """N -> how far students of ``teacher`` are ahead of those of ``against``, same seeds, nats."""
    noise = seed_noise(evidence)
    ours, theirs = (
        by_size(final(evidence, evidence.of(method, teacher=each))) for each in (teacher, against)
    )
    found: dict[float, Estimate] = {}
    for n in ours.keys() & theirs.keys():
        keys = ["seed", "n_tokens"]
        pairs = theirs[n].merge(ours[n].dropna(subset=keys), on=keys, suffixes=("_scratch", ""))
        if len(pairs):
            terms = gain_terms(pairs)
            found[n] = contrast(evidence, terms, noise, independent(terms))
    return dict(sorted(found.items()))


def behind_teacher(evidence: Evidence, method: str, teacher: Teacher) -> dict[float, Estimate]:
    """N -> student minus teacher at the most data, nats.

    Paired with the teacher's own run, where the table has it.
    """
    if math.isnan(teacher.cross_entropy):
        return {}
    noise = seed_noise(evidence)
    own = measured(evidence.runs[evidence.runs["run_id"] == teacher.run_id])
    found: dict[float, Estimate] = {}
    for n, rows in by_size(final(evidence, evidence.of(method, teacher=teacher))).items():
        terms: list[Term] = [(1.0, rows), (-1.0, own)] if len(own) else [(1.0, rows)]
        gap = contrast(evidence, terms, noise, 1 / len(rows))
        found[n] = gap if len(own) else replace(gap, value=gap.value - teacher.cross_entropy)
    return found


# --- scaling ------------------------------------------------------------------------------------


def shared_sizes(evidence: Evidence, fraction: float | None = None) -> tuple[float, ...]:
    """The N at which every method with a slope was run, so that their slopes compare.

    At the most data, unless a fraction is given.
    """
    sizes = [set(by_size(final(evidence, evidence.of(m), fraction))) for m in evidence.methods]
    with_slope = [each for each in sizes if len(each) > 1]
    return tuple(sorted(set.intersection(*with_slope))) if with_slope else ()


def size_slope(evidence: Evidence, method: str, fraction: float | None = None) -> Estimate | None:
    """Nats per doubling of N, over the shared sizes; None with fewer than two."""
    sizes = _at_shared_sizes(evidence, method, fraction)
    if len(sizes) < 2:
        return None
    terms = _slope_terms(sizes)
    return contrast(evidence, terms, seed_noise(evidence, fraction), independent(terms))


def size_exponent(
    evidence: Evidence, method: str, fraction: float | None = None
) -> Estimate | None:
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


def _at_shared_sizes(
    evidence: Evidence, method: str, fraction: float | None
) -> dict[float, "DataFrame"]:
    shared = shared_sizes(evidence, fraction)
    sizes = by_size(final(evidence, evidence.of(method), fraction))
    return {n: rows for n, rows in sizes.items() if n in shared}


def data_slopes(evidence: Evidence, method: str) -> dict[float, Estimate]:
    """N -> nats per doubling of D, over the token counts of one pass."""
    noise = seed_noise(evidence)
    terms = _slope_terms_by_size(evidence, method)
    return {n: contrast(evidence, each, noise, independent(each)) for n, each in terms.items()}


def data_slope(evidence: Evidence, method: str) -> Estimate | None:
    """The mean over sizes of ``data_slopes``."""
    by_n = _slope_terms_by_size(evidence, method).values()
    terms = [(weight / len(by_n), rows) for each in by_n for weight, rows in each]
    noise = seed_noise(evidence)
    return contrast(evidence, terms, noise, independent(terms)) if terms else None


def _slope_terms_by_size(evidence: Evidence, method: str) -> dict[float, list[Term]]:
    curves = one_pass_curves(evidence, method).items()
    return {n: _slope_terms(curve) for n, curve in curves if len(curve) > 1}


def one_pass_curves(
    evidence: Evidence, method: str, teacher: Teacher | None = None
) -> dict[float, dict[float, "DataFrame"]]:
    """N -> tokens trained on -> the runs of one pass over the most data, a row a seed."""
    rows = measured(one_pass(evidence.of(method, teacher=teacher)))
    rows = rows[rows["fraction"] == evidence.largest_fraction]
    return {n: _by(each, "n_tokens") for n, each in by_size(rows).items()}


def repeated_curves(evidence: Evidence, method: str) -> dict[float, dict[float, "DataFrame"]]:
    """N -> unique tokens -> the runs at their best epochs.

    Of the most data that is the longest single pass, where nothing repeats them.
    """
    rows, most = evidence.of(method), evidence.largest_fraction
    again = measured(repeated(rows))
    once = final(evidence, rows[~rows[N].isin(again[N][again["fraction"] == most])])
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
    noise = seed_noise(evidence)
    worst = worst_seed_noise(evidence)
    for method in evidence.methods:
        found += _steps_in_n(evidence, method)
        for n, curve in one_pass_curves(evidence, method).items():
            found += _steps(evidence, method, "D", n, curve, noise)
        for n, curve in repeated_curves(evidence, method).items():
            found += _steps(evidence, method, "U", n, curve, worst)
    return found


def judged_steps(evidence: Evidence) -> list[Step]:
    """The steps that have a standard error, so that an inversion can be told from noise."""
    return [step for step in steps(evidence) if not math.isnan(step.change.se)]


def _steps_in_n(evidence: Evidence, method: str) -> Iterator[Step]:
    for fraction in evidence.fractions:
        sizes = by_size(final(evidence, evidence.of(method), fraction))
        yield from _steps(evidence, method, "N", fraction, sizes, seed_noise(evidence, fraction))


def worst_seed_noise(evidence: Evidence) -> SeedNoise | None:
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
