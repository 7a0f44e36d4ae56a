"""How a fit moves: from free, centred coordinates v to a law's parameters u, by an affine map.

u = offset + basis v holds three things at once: scales are centred at the middle of the runs, so
that they are not entangled with their exponents; pinned parameters do not move; tied ones move with
their partner.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kdlaws.laws.dual import Dual, FloatArray
from kdlaws.laws.law import MIDDLE, Columns, Law, Parameters

FREE = "free"


@dataclass(frozen=True)
class Coordinates:
    """``basis [unknowns, free]``, ``offset [unknowns]`` or ``[fits, unknowns]``, a box ``[free]``.

    ``free`` are the positions of the free parameters among the law's unknowns.
    """

    law: Law
    free: NDArray[np.int64]
    basis: FloatArray
    offset: FloatArray
    lower: FloatArray
    upper: FloatArray

    def parameters(self, v: FloatArray) -> FloatArray:
        """u ``[..., unknowns]`` of v ``[..., free]``."""
        return self.offset + v @ self.basis.T

    def of(self, u: FloatArray) -> FloatArray:
        """v of u, both ``[..., n]``; exact where u obeys the pins and ties."""
        inverse = np.linalg.inv(self.basis[self.free])
        return (u - self.offset)[..., self.free] @ inverse.T

    def value(self, v: FloatArray, x: Columns) -> FloatArray:
        """log L ``[fits, runs]`` of v ``[fits, free]``; columns are ``[runs]``, or a row a fit."""
        u = self.parameters(v)
        duals = {name: Dual(u[:, k, None]) for k, name in enumerate(self.law.parameters)}
        log_loss = _quietly(self.law, duals, x).value
        return np.broadcast_to(log_loss, (len(v), _n_runs(x)))

    def linearise(self, v: FloatArray, x: Columns) -> tuple[FloatArray, FloatArray]:
        """log L ``[fits, runs]``, and its derivative by v ``[fits, free, runs]``."""
        u = self.parameters(v)
        duals = {
            name: Dual(
                u[:, k, None], {int(j): self.basis[k, j] for j in self.basis[k].nonzero()[0]}
            )
            for k, name in enumerate(self.law.parameters)
        }
        log_loss = _quietly(self.law, duals, x)
        shape = (len(v), _n_runs(x))
        jacobian = np.zeros((len(v), len(self.free), shape[1]))
        for j, slope in log_loss.slopes.items():
            jacobian[:, j] = slope
        return np.broadcast_to(log_loss.value, shape), jacobian

    def take(self, fits: slice | NDArray[np.bool_]) -> "Coordinates":
        """The same for these fits only."""
        return self if self.offset.ndim == 1 else replace(self, offset=self.offset[fits])


def _quietly(law: Law, parameters: Parameters, x: Columns) -> Dual:
    """log L. Far from the optimum a law may overflow; what is not finite, the solver refuses."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return law.form(parameters, x)


def _n_runs(x: Columns) -> int:
    return int(np.shape(next(iter(x.values())))[-1])


def coordinates(
    law: Law, x: Columns, median: float, fixed: Mapping[str, float | str | FloatArray]
) -> Coordinates:
    """The map for runs of these log columns, ``median`` the median cross-entropy.

    ``fixed`` pins parameters (a value, or one for each fit) or ties them (the partner's name).
    """
    position = {name: k for k, name in enumerate(law.parameters)}
    free = np.array([k for name, k in position.items() if name not in fixed], dtype=np.int64)
    basis = np.eye(len(position))[:, free]
    pins = {n: _pinned(law, position[n], value, x) for n, value in fixed.items() if _is_pin(value)}
    n_fits = [np.size(pin) for pin in pins.values() if np.ndim(pin)]
    offset = np.zeros((max(n_fits), len(position)) if n_fits else len(position))
    for name, pin in pins.items():
        offset[..., position[name]] = pin
    ties = {position[n]: position[partner(n, fixed)] for n in fixed if n not in pins}
    _tie(basis, offset, ties)
    for k in free:
        _centre(law, int(k), x, basis, offset)
    _tie(basis, offset, ties)  # once more: a partner's centre came after
    box = np.array([law.unknowns[k].box(median) for k in free]).reshape(len(free), 2)
    return Coordinates(law, free, basis, offset, box[:, 0], box[:, 1])


def _tie(basis: FloatArray, offset: FloatArray, ties: Mapping[int, int]) -> None:
    for k, other in ties.items():
        basis[k], offset[..., k] = basis[other], offset[..., other]


def _centre(law: Law, k: int, x: Columns, basis: FloatArray, offset: FloatArray) -> None:
    """Say a free scale by what it is at the middle of the runs."""
    centre = law.unknowns[k].centre
    if centre is None:
        return
    power, column = centre
    middle = _middle(x, column)
    if isinstance(power, str):
        exponent = law.parameters.index(power)
        basis[k] += middle * basis[exponent]
        offset[..., k] += middle * offset[..., exponent]
    else:
        offset[..., k] += middle * power


def partner(name: str, fixed: Mapping[str, float | str | FloatArray]) -> str:
    """The free or pinned parameter that a tied one follows, over any others between them."""
    while name in fixed and not _is_pin(fixed[name]):
        name = str(fixed[name])
    return name


def _is_pin(value: float | str | FloatArray) -> bool:
    return not isinstance(value, str) or value == MIDDLE


def _pinned(law: Law, k: int, value: float | str | FloatArray, x: Columns) -> FloatArray | float:
    unknown = law.unknowns[k]
    if isinstance(value, str):  # MIDDLE
        assert unknown.centre is not None
        return _middle(x, unknown.centre[1])
    return np.log(value) if unknown.kind == "scale" else np.asarray(value, dtype=np.float64)


def _middle(x: Columns, column: str) -> float:
    known = x[column][np.isfinite(x[column])]
    return float(known.mean()) if len(known) else 0.0


def log_curve(law: Law, u: FloatArray, x: Columns) -> FloatArray:
    """log L ``[fits, runs]`` of parameters ``[fits, unknowns]`` at log columns ``[runs]``."""
    return plain_coordinates(law).value(u, x)


def plain_coordinates(law: Law) -> Coordinates:
    """v is u itself."""
    n = len(law.unknowns)
    wide = np.full(n, np.inf)
    return Coordinates(law, np.arange(n), np.eye(n), np.zeros(n), -wide, wide)
