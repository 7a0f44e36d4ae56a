"""Several fits as one: their weighted mean, and intervals that know that they disagree."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kdlaws.laws import artefact
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.result import Fit, Notice
from kdlaws.laws.uncertainty import Interval


def mixed_interval(
    weights: FloatArray, curves: FloatArray, lo: FloatArray, hi: FloatArray, level: float
) -> Interval:
    """Of the weighted mean of ``curves [laws, runs]`` with intervals ``lo``, ``hi``.

    Squares of half-widths are averaged, and the laws' scatter around their mean is added at the
    normal quantile: within and between, as of a mixture's variance.
    """
    mean = weights @ curves
    between = NormalDist().inv_cdf((1 + level) / 2) ** 2 * (weights @ (curves - mean) ** 2)
    below, above = weights @ (curves - lo) ** 2, weights @ (hi - curves) ** 2
    return mean - np.sqrt(below + between), mean + np.sqrt(above + between)


@dataclass(frozen=True)
class Mixture:
    """Fits of the same runs, by weight; made by ``kdlaws.laws.combine``."""

    fits: tuple[Fit, ...]
    weights: tuple[float, ...]

    @property
    def n_column(self) -> str:
        return self.fits[0].n_column

    @property
    def level(self) -> float:
        return self.fits[0].level

    @property
    def warnings(self) -> tuple[Notice, ...]:
        return tuple(dict.fromkeys(notice for fit in self.fits for notice in fit.warnings))

    def predict(self, columns: Mapping[str, ArrayLike]) -> FloatArray:
        """Cross-entropy in nats per token: the weighted geometric mean of the laws'."""
        logs = np.stack([np.log(fit.predict(columns)) for fit in self.fits])
        mean: FloatArray = np.exp(np.tensordot(self.weights, logs, axes=1))
        return mean

    def band(self, columns: Mapping[str, ArrayLike]) -> Interval:
        """Interval of the curve at ``level``."""
        return self._mixed(columns, [fit.band(columns) for fit in self.fits])

    def new_runs(self, columns: Mapping[str, ArrayLike]) -> Interval:
        """Interval of a new run at ``level``."""
        return self._mixed(columns, [fit.new_runs(columns) for fit in self.fits])

    def _mixed(self, columns: Mapping[str, ArrayLike], ends: list[Interval]) -> Interval:
        curves = np.stack([np.log(fit.predict(columns)) for fit in self.fits])
        shape = curves.shape[1:]
        flat = curves.reshape(len(self.fits), -1)
        lo, hi = (np.log(np.stack(end)).reshape(flat.shape) for end in zip(*ends, strict=True))
        mixed = mixed_interval(np.array(self.weights), flat, lo, hi, self.level)
        low, high = (np.exp(end).reshape(shape) for end in mixed)
        return low, high

    def beyond(self, columns: Mapping[str, ArrayLike]) -> dict[str, float]:
        """As of a fit, the farthest of all."""
        far: dict[str, float] = {}
        for fit in self.fits:
            for name, factor in fit.beyond(columns).items():
                far[name] = max(far.get(name, 0.0), factor)
        return far

    def to_dict(self) -> dict[str, Any]:
        weights = {fit.law: w for fit, w in zip(self.fits, self.weights, strict=True)}
        return artefact.document({"weights": weights, "fits": [fit.to_dict() for fit in self.fits]})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all fits with their uncertainty; the file appears whole or not at all."""
        content = self.to_dict() | {"fits": [fit.content() for fit in self.fits]}
        artefact.write(path, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Mixture":
        """Read what ``save`` wrote; ArtefactError where the file is no combination of fits."""
        content = artefact.read(path, "combination of fits")
        try:
            fits = tuple(Fit.of_content(each) for each in content["fits"])
            return cls(fits, tuple(content["weights"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise artefact.foreign(path, "combination of fits", error) from error

    def __str__(self) -> str:
        parts = zip(self.fits, self.weights, strict=True)
        return "\n\n".join(f"weight {weight:.2f}\n{fit}" for fit, weight in parts)
