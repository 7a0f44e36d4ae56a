"""Residuals of trunks, made independent: what generalised least squares needs of a trunk effect.

With y = law + u_trunk + e, var(u) = ratio * var(e), taking away from each residual the share
1 - 1/sqrt(1 + ratio * n) of its trunk's mean, of n runs, leaves independent ones of variance
var(e).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdlaws.laws.dual import FloatArray


@dataclass(frozen=True)
class Whitening:
    """``cluster [runs]`` numbers the trunks from 0; ``ratio`` is var(u) / var(e)."""

    cluster: NDArray[np.int64]
    ratio: float

    def __call__(self, values: FloatArray) -> FloatArray:
        """The last axis whitened; runs are along it."""
        sizes = np.bincount(self.cluster)
        share = 1 - 1 / np.sqrt(1 + self.ratio * sizes)
        member = self.cluster[:, None] == np.arange(len(sizes))
        means = values @ (member * (share / sizes))
        white: FloatArray = values - means[..., self.cluster]
        return white
