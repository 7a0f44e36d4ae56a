"""Forward FLOPs per token as a function of N, so that a budget can be turned into tokens.

At a constant ratio of width to depth a transformer's width grows as N^(1/3): its matrices take 2 N
FLOPs per token, attention grows as N^(2/3), the head as N^(1/3) (Busbridge et al. 2025,
arXiv:2502.08606, appendix H).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kdlaws.laws.dual import FloatArray

POWERS = (1.0, 2 / 3, 1 / 3)


@dataclass(frozen=True)
class ForwardFlops:
    """``per_n`` N + ``attention`` N^(2/3) + ``head`` N^(1/3), the N that a law reads.

    ``largest_error`` is that of the models that it was fitted to, as a share.
    """

    per_n: float
    attention: float = 0.0
    head: float = 0.0
    largest_error: float = 0.0

    def __call__(self, n_params: ArrayLike) -> FloatArray:
        """FLOPs of one token's forward pass; training takes three times as many."""
        flops: FloatArray = _terms(n_params) @ np.array([self.per_n, self.attention, self.head])
        return flops


TWO_N = ForwardFlops(2.0)
"""What 6 N D counts: neither attention nor head (Kaplan et al. 2020, arXiv:2001.08361)."""


def fitted_forward(n_params: FloatArray, flops: FloatArray) -> ForwardFlops | None:
    """Through measured models, least squares of relative errors; None where none is known."""
    from scipy.optimize import nnls

    known = np.isfinite(n_params) & np.isfinite(flops) & (n_params > 0) & (flops > 0)
    if not known.any():
        return None
    # One size is one point: the same whether one run has it or fifty.
    points = np.unique(np.stack([n_params[known], flops[known]], axis=1), axis=0)
    terms = _terms(points[:, 0]) / points[:, 1:]
    n_sizes = len(np.unique(points[:, 0]))
    coefficients = np.zeros(len(POWERS))
    coefficients[:n_sizes], _ = nnls(terms[:, :n_sizes], np.ones(len(points)))
    error = float(np.abs(terms @ coefficients - 1).max())
    per_n, attention, head = map(float, coefficients)
    return ForwardFlops(per_n, attention, head, error)


def _terms(n_params: ArrayLike) -> FloatArray:
    n = np.asarray(n_params, dtype=np.float64)
    return np.stack([n**power for power in POWERS], axis=-1)
