"""A teacher's hidden states by their principal components: what embedding-level students match."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BASIS_WINDOWS = 256
"""Of the stream that fix mean, scale and basis: they depend on teacher and stream alone."""


@dataclass(frozen=True)
class Components:
    """The mean [d], the basis [d, c], one scale, and the variance shares of all d components.

    The scale makes the mean square of a dimension 1; shares are largest first.
    """

    mean_d: np.ndarray
    basis_dc: np.ndarray
    scale: float
    variance_shares: np.ndarray

    @property
    def n(self) -> int:
        return int(self.basis_dc.shape[1])

    @property
    def dropped(self) -> float:
        """Share of the variance outside the basis."""
        return self.rank_floor(self.n)

    def rank_floor(self, rank: int) -> float:
        """Share of the variance that no linear map from ``rank`` dimensions can give."""
        return math.fsum(self.variance_shares[rank:])

    def of(self, states_btd: Tensor) -> Tensor:
        """The states' components, standardised: [b, t, c]."""
        mean_d, basis_dc = (
            torch.from_numpy(array).to(states_btd) for array in (self.mean_d, self.basis_dc)
        )
        return (states_btd - mean_d) @ basis_dc / self.scale


def principal_components(batches_nd: Iterable[np.ndarray], kept_variance: float) -> Components:
    """The fewest leading components that keep a share of the variance; 1 keeps every one."""
    n, total_d, products_dd = 0, np.zeros(1), np.zeros((1, 1))
    for states_nd in batches_nd:
        n += len(states_nd)
        total_d = total_d + states_nd.sum(axis=0)
        products_dd = products_dd + states_nd.T @ states_nd
    mean_d = total_d / n
    covariance = products_dd / n - np.outer(mean_d, mean_d)
    variances, vectors = np.linalg.eigh(covariance)
    shares = np.maximum(variances[::-1], 0) / np.maximum(variances, 0).sum()
    enough = int(np.searchsorted(shares.cumsum(), kept_variance)) + 1
    n_components = len(shares) if kept_variance == 1 else min(enough, len(shares))
    return Components(
        mean_d=mean_d.astype(np.float32),
        basis_dc=np.ascontiguousarray(vectors[:, ::-1][:, :n_components], dtype=np.float32),
        scale=float(np.sqrt(covariance.trace() / len(mean_d))),
        variance_shares=shares,
    )
