"""Differences between runs, with the two kinds of noise that they have.

Every run is scored on the same test sequences, so what one text adds to both sides of a difference
cancels: the first part of the standard error is that of the difference, sequence by sequence. The
second is training's: the same run with another seed ends elsewhere. It is known only where runs
were repeated, and is pooled over them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from kdlaws.advice.evidence import Evidence, by_size

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame


@dataclass(frozen=True)
class SeedNoise:
    """Standard deviation over seeds, nats per token, pooled over cells that were repeated."""

    sigma: float
    df: int

    @classmethod
    def pooled(cls, cells: "Mapping[tuple[str, float], NDArray[np.float64]]") -> "Self | None":
        """From the repeats of each (method, N); None where none has two.

        The methods at one N share their seeds, so initial weights and batches: they add to sigma
        but not to the degrees of freedom, which are those of one method.
        """
        repeats = {key: values for key, values in cells.items() if len(values) > 1}
        if not repeats:
            return None
        squares = sum(float(((v - v.mean()) ** 2).sum()) for v in repeats.values())
        n_free = sum(len(values) - 1 for values in repeats.values())
        by_n: dict[float, int] = {}
        for (_, n), values in repeats.items():
            by_n[n] = max(by_n.get(n, 0), len(values) - 1)
        return cls(math.sqrt(squares / n_free), sum(by_n.values()))

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """From df sigma^2 / chi^2(df), exact for normal noise."""
        from scipy.stats import chi2

        tails = chi2.ppf([(1 + level) / 2, (1 - level) / 2], self.df)
        low, high = self.sigma * np.sqrt(self.df / tails)
        return float(low), float(high)


@dataclass(frozen=True)
class Estimate:
    """A difference or slope, nats per token, and the parts of its standard error.

    ``se_sequences`` is over test sequences and ``se_seeds`` over seeds; NaN where the study does
    not have what it takes. ``df`` are the degrees of freedom of ``se_seeds``.
    """

    value: float
    se_sequences: float
    se_seeds: float
    df: float

    @property
    def se(self) -> float:
        """Both parts, or the one that is known."""
        known = [part for part in (self.se_sequences, self.se_seeds) if not math.isnan(part)]
        return math.hypot(*known) if known else math.nan

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's t with Satterthwaite's degrees of freedom; NaN without a standard error."""
        from scipy.stats import t

        seeds = 0.0 if math.isnan(self.se_seeds) else self.se_seeds
        df = math.inf if seeds == 0 else self.df * (self.se / seeds) ** 4
        half = float(t.ppf((1 + level) / 2, df)) * self.se
        return self.value - half, self.value + half

    def scaled(self, factor: float) -> "Estimate":
        size = abs(factor)
        return Estimate(
            factor * self.value, size * self.se_sequences, size * self.se_seeds, self.df
        )

    def __str__(self) -> str:
        error = "" if math.isnan(self.se) else f" ± {self.se:.3f}"
        return f"{self.value:+.3f}{error}"


Term = tuple[float, "DataFrame"]
"""A weight, and the rows (one a seed) of a cell whose mean cross-entropy it multiplies."""


def contrast(
    evidence: Evidence, terms: Sequence[Term], noise: SeedNoise | None, seed_weight: float
) -> Estimate:
    """The weighted sum of cells' mean cross-entropies.

    ``seed_weight`` is what the variance ``noise.sigma^2`` is multiplied by.
    """
    value = sum(weight * float(rows["cross_entropy"].mean()) for weight, rows in terms)
    return Estimate(
        value=value,
        se_sequences=_se_over_sequences(evidence, terms),
        se_seeds=math.nan if noise is None else noise.sigma * math.sqrt(seed_weight),
        df=math.nan if noise is None else noise.df,
    )


def independent(terms: Sequence[Term]) -> float:
    """The ``seed_weight`` of cells whose runs have noise of their own: sum of w^2 / seeds."""
    return sum(weight**2 / len(rows) for weight, rows in terms)


def _se_over_sequences(evidence: Evidence, terms: Sequence[Term]) -> float:
    losses = evidence.losses
    total: NDArray[np.float64] | float = 0.0
    for weight, rows in terms:
        if not set(rows["run_id"]) <= losses.keys():
            return math.nan
        total = total + weight * np.mean([losses[run_id] for run_id in rows["run_id"]], axis=0)
    sums = np.asarray(total)
    return float(sums.std(ddof=1)) / math.sqrt(len(sums))


def run_noise(rows: "DataFrame") -> SeedNoise | None:
    """How far one run's cross-entropy moves with its seed, pooled over methods and sizes.

    ``rows`` are of one amount of data and have a teacher each, or none.
    """
    return SeedNoise.pooled(_cells(rows, "cross_entropy"))


def gain_noise(pairs: "DataFrame") -> SeedNoise | None:
    """The same of paired differences: of ``pairs`` as ``evidence.paired`` gives them."""
    return SeedNoise.pooled(_cells(pairs, "gain"))


def _cells(rows: "DataFrame", column: str) -> "dict[tuple[str, float], NDArray[np.float64]]":
    return {
        (str(method), n): cell[column].to_numpy()
        for method, of_method in rows.groupby("method")
        for n, cell in by_size(of_method).items()
    }
