"""Scaling laws as pure functions, and the registry ``LAWS``.

Legend
    L              cross-entropy, nats per token
    N, D, C        parameters, training tokens, training FLOPs
    E, A, B        scales: the floor (nats per token), and what N, D or C still cost
    alpha, beta    exponents of N (in ``compute``: of C, named ``a``) and of D
    u              coordinates: the logarithm of each scale, each exponent as it is
    x              logarithms of a law's columns; ``centred`` where each has mean 0

A scale such as A is meaningless far from the runs (it is the term at N = 1), so a fit moves in
centred coordinates, where the same scale is the term at the geometric mean of the runs. The form
is the same function in both: only x and u are shifted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdlaws.errors import InputError

FloatArray = NDArray[np.float64]
Form = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]

N = "N"  # in a law's columns: whichever parameter count the fit reads, its ``n_column``

# Bounds in centred coordinates: scales relative to the runs' median cross-entropy. They are far
# outside anything published, so an estimate that touches one was not determined by the runs.
SCALE_BOUNDS = (1e-4, 1e2)
EXPONENT_BOUNDS = (0.01, 3.0)

# Starts: floors as shares of the lowest cross-entropy, exponents that span the published ones.
START_FLOORS = (0.3, 0.6, 0.9)
START_EXPONENTS = (0.1, 0.3, 0.6)


@dataclass(frozen=True)
class Unknown:
    """A parameter of a law; ``column`` is the one whose variation determines it, if any."""

    name: str
    kind: Literal["scale", "exponent"]
    column: str | None


@dataclass(frozen=True)
class Law:
    """A law, and what fitting it needs.

    ``log_form(u, x)`` takes coordinates ``[..., parameters]`` and log columns ``[columns, runs]``
    and returns log L ``[..., runs]`` and its derivative by u ``[..., parameters, runs]``.
    ``starts(cross_entropy)`` gives centred coordinates ``[starts, parameters]``;
    ``uncentre(u, centres)`` turns centred coordinates into plain ones.
    """

    name: str
    equation: str
    source: str
    unknowns: tuple[Unknown, ...]
    columns: tuple[str, ...]
    log_form: Form
    starts: Callable[[FloatArray], FloatArray]
    uncentre: Callable[[FloatArray, FloatArray], FloatArray]

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(unknown.name for unknown in self.unknowns)

    def reads(self, n_column: str) -> tuple[str, ...]:
        """The table columns of this law when N is ``n_column``."""
        return tuple(n_column if column == N else column for column in self.columns)

    def values(self, u: FloatArray) -> FloatArray:
        """Parameter values ``[..., parameters]`` of plain coordinates."""
        return np.where(self._is_scale, np.exp(np.where(self._is_scale, u, 0.0)), u)

    def coordinates(self, values: FloatArray) -> FloatArray:
        """Plain coordinates of parameter values; the inverse of ``values``."""
        return np.where(self._is_scale, np.log(np.where(self._is_scale, values, 1.0)), values)

    def bounds(self, cross_entropy: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends ``[parameters]`` of the centred coordinates."""
        scales = np.log(np.array(SCALE_BOUNDS) * np.median(cross_entropy))
        ends = np.where(self._is_scale[:, None], scales, EXPONENT_BOUNDS)
        return ends[:, 0], ends[:, 1]

    @property
    def _is_scale(self) -> NDArray[np.bool_]:
        return np.array([unknown.kind == "scale" for unknown in self.unknowns])


def floor_and_powers(u: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """log L and its derivative for L = E + sum_k A_k / x_k^alpha_k.

    u holds log E, then every log A_k, then every alpha_k.
    """
    n_terms = len(x)
    floor = np.exp(u[..., :1])
    terms = np.exp(u[..., 1 : 1 + n_terms, None] - u[..., 1 + n_terms :, None] * x)
    loss = floor + terms.sum(axis=-2)
    share = terms / loss[..., None, :]
    floor_share = (floor / loss)[..., None, :]
    return np.log(loss), np.concatenate([floor_share, share, -share * x], axis=-2)


def _starts(n_terms: int) -> Callable[[FloatArray], FloatArray]:
    """Every floor with every combination of exponents; the terms share the rest equally."""

    def starts(cross_entropy: FloatArray) -> FloatArray:
        floors = np.array(START_FLOORS) * cross_entropy.min()
        terms = (np.median(cross_entropy) - floors) / n_terms
        powers = list(product(START_EXPONENTS, repeat=n_terms))
        return np.array(
            [
                [np.log(floor), *[np.log(term)] * n_terms, *power]
                for floor, term in zip(floors, terms, strict=True)
                for power in powers
            ]
        )

    return starts


def _uncentre_powers(u: FloatArray, centres: FloatArray) -> FloatArray:
    """log A = log(term at the centre) + alpha * log(centre)."""
    n_terms = len(centres)
    scales = u[..., 1 : 1 + n_terms] + u[..., 1 + n_terms :] * centres
    return np.concatenate([u[..., :1], scales, u[..., 1 + n_terms :]], axis=-1)


def _law_of_powers(name: str, equation: str, source: str, *terms: tuple[str, str, str]) -> Law:
    """A floor and one power law per (scale, exponent, column)."""
    scales = [Unknown(scale, "scale", column) for scale, _, column in terms]
    exponents = [Unknown(exponent, "exponent", column) for _, exponent, column in terms]
    return Law(
        name=name,
        equation=equation,
        source=source,
        unknowns=(Unknown("E", "scale", None), *scales, *exponents),
        columns=tuple(column for _, _, column in terms),
        log_form=floor_and_powers,
        starts=_starts(len(terms)),
        uncentre=_uncentre_powers,
    )


CHINCHILLA = _law_of_powers(
    "chinchilla",
    "L = E + A/N^alpha + B/D^beta",
    "Hoffmann et al. 2022, arXiv:2203.15556, approach 3, equation 2",
    ("A", "alpha", N),
    ("B", "beta", "n_tokens"),
)

COMPUTE = _law_of_powers(
    "compute",
    "L = E + A*C^-a",
    "Henighan et al. 2020, arXiv:2010.14701, equation 1.1, with x = training FLOPs",
    ("A", "a", "flops"),
)

LAWS: dict[str, Law] = {law.name: law for law in (CHINCHILLA, COMPUTE)}


def find(name: str) -> Law:
    """The law of that name; InputError where there is none."""
    if name not in LAWS:
        raise InputError(f"no law {name!r}", where="law", remedy=f"one of {', '.join(LAWS)}")
    return LAWS[name]
