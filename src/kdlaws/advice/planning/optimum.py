"""The lowest point of a surface in up to four dimensions, to 1e-8, and how it moves.

A grid that zooms in finds it wherever it is; Newton's steps on differences of high order then place
it far more exactly than the surface's own rounding would let a comparison of values do.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Surface = Callable[[Floats], Floats]  # values [..., points] of points [..., points, dimensions]

GRID = {1: 241, 2: 41, 3: 13, 4: 9}  # points on each axis
COARSE, FINE = 1e-3, 1e-7  # half-widths at which zooming ends, with and without Newton's steps
ROUNDS = 60
STEP = 0.01  # of differences; their error is of its fourth power
OFFSETS = (-2, -1, 1, 2)  # in steps, of five-point differences without their centre
SLOPE = np.array([1.0, -8.0, 8.0, -1.0]) / 12
BEND = np.array([-1.0, 16.0, 16.0, -1.0]) / 12
TWIST = np.array([1.0, 1.0, -1.0, -1.0]) / 4  # of points across two axes
NEWTON = 6
FOLLOWED = 40  # steps downhill, each at most LEAP long
LEAP = 0.7
EDGE = 1e-6  # of the axis: nearer to an end is at the end


def lowest(surface: Surface, lo: Floats, hi: Floats) -> Floats | None:
    """Where ``surface`` is lowest between ``lo`` and ``hi`` ``[dimensions]``.

    None where it is nowhere finite. Values that are not finite are never lowest.
    """
    if not len(lo):
        return np.empty(0) if np.isfinite(surface(np.empty((1, 0)))[0]) else None
    near = _zoom(surface, lo, hi, (lo + hi) / 2, (hi - lo) / 2, COARSE)
    if near is None:
        return None
    exact = _newton(surface, near, lo, hi)
    if exact is not None:
        return exact
    return _zoom(surface, lo, hi, near, np.full(len(lo), 4 * COARSE), FINE)


def interior(at: Floats, lo: Floats, hi: Floats) -> NDArray[np.bool_]:
    """Which coordinates are not at an end ``[dimensions]``."""
    margin = EDGE * (hi - lo)
    inside: NDArray[np.bool_] = (at > lo + margin) & (at < hi - margin)
    return inside


def _zoom(
    surface: Surface, lo: Floats, hi: Floats, centre: Floats, half: Floats, until: float
) -> Floats | None:
    n_points = GRID[len(lo)]
    for _ in range(ROUNDS):
        low, high = np.maximum(lo, centre - half), np.minimum(hi, centre + half)
        points = grid([np.linspace(a, b, n_points) for a, b in zip(low, high, strict=True)])
        values = surface(points)
        values = np.where(np.isfinite(values), values, np.inf)
        best = int(values.argmin())
        if not np.isfinite(values[best]):
            return None
        found = points[best]
        # At the side of a window the valley goes on outside: follow it before looking closer.
        beside = ((found <= low) & (low > lo)) | ((found >= high) & (high < hi))
        half = np.where(beside, half, np.minimum(half, 2 * (high - low) / (n_points - 1)))
        centre = found
        if (half <= until).all():
            break
    return centre


def grid(axes: Sequence[Floats]) -> Floats:
    """Every combination ``[points, dimensions]``."""
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=-1)


def _newton(surface: Surface, at: Floats, lo: Floats, hi: Floats) -> Floats | None:
    """None where the surface is not smooth there, or the steps lead away."""
    free = free_axes(at, lo, hi)
    if not (interior(at, lo, hi) == np.isin(np.arange(len(at)), free)).all():
        return None  # so near to an end that a stencil does not fit
    found = at.copy()
    for _ in range(NEWTON):
        slope, curvature = derivatives(_one(surface), found[None], free)
        if not np.isfinite(slope).all() or not _is_bowl(curvature[0]):
            return None
        step = -np.linalg.solve(curvature[0], slope[0])
        found[free] += step
        if not np.abs(found - at).max(initial=0.0) < 10 * STEP:
            return None
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
    return found


def free_axes(at: Floats, lo: Floats, hi: Floats) -> NDArray[np.int64]:
    """The coordinates about which a stencil fits."""
    return np.flatnonzero((at > lo + 3 * STEP) & (at < hi - 3 * STEP))


def _one(surface: Surface) -> Surface:
    """A surface of ``[1, points, dimensions]``."""
    return lambda points: surface(points[0])[None]


def _is_bowl(curvature: Floats) -> bool:
    if not np.isfinite(curvature).all():
        return False
    return bool((np.linalg.eigvalsh(curvature) > 0).all())


def follow(
    surfaces: Surface, at: Floats, lo: Floats, hi: Floats, free: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Downhill from ``at`` on each of many surfaces: their lowest points near it ``[surfaces, d]``.

    ``surfaces`` gives ``[surfaces, points]`` of ``[surfaces, points, dimensions]``. Newton's steps
    along the curvature's absolute value, which lead downhill from anywhere, at most ``LEAP`` long.
    Also returns which have settled ``[surfaces]``, at a lowest point or at an end of its range.
    """
    found = at.copy()
    inner_lo, inner_hi = (lo + 3 * STEP)[free], (hi - 3 * STEP)[free]
    for _ in range(FOLLOWED):
        slope, curvature = derivatives(surfaces, found, free)
        known = np.isfinite(slope).all(axis=1) & np.isfinite(curvature).all(axis=(1, 2))
        slope, curvature = np.nan_to_num(slope), np.nan_to_num(curvature)
        values, vectors = np.linalg.eigh(curvature)
        turned = np.einsum("sij,si->sj", vectors, slope) / np.maximum(np.abs(values), 1e-12)
        step = -np.einsum("sij,sj->si", vectors, turned)
        length = np.abs(step).max(axis=1, initial=0.0, keepdims=True)
        step = step * np.minimum(1.0, LEAP / np.maximum(length, 1e-300))
        before = found[:, free]
        found[:, free] = np.clip(before + step, inner_lo, inner_hi)
        moved = np.abs(found[:, free] - before).max(axis=1, initial=0.0)
        if float(moved.max(initial=0.0)) < 1e-6:
            break
    return found, known & (moved < 1e-3)


def derivatives(surfaces: Surface, at: Floats, free: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Gradient ``[surfaces, free]`` and curvature ``[surfaces, free, free]`` at ``[surfaces, d]``.

    Of fourth order in STEP, but for the mixed derivatives, which are of second.
    """
    n, pairs = len(free), list(combinations(range(len(free)), 2))
    moves = _stencil(at.shape[1], free)
    values = surfaces(at[:, None] + STEP * moves[None])
    centre, axes = values[:, 0], values[:, 1 : 1 + 4 * n].reshape(len(at), n, 4)
    crossed = values[:, 1 + 4 * n :].reshape(len(at), len(pairs), 4)
    curvature = np.zeros((len(at), n, n))
    with np.errstate(invalid="ignore"):  # beside a model that is not allowed
        slope = axes @ SLOPE / STEP
        curvature[:, range(n), range(n)] = (axes @ BEND - 2.5 * centre[:, None]) / STEP**2
        for k, (i, j) in enumerate(pairs):
            twist = crossed[:, k] @ TWIST / STEP**2
            curvature[:, i, j] = curvature[:, j, i] = twist
    return slope, curvature


def _stencil(n_axes: int, free: NDArray[np.int64]) -> Floats:
    """Steps ``[points, axes]``: none, four along each free axis, four across each pair of them."""
    unit = np.eye(n_axes)[free]
    along = [k * e for e in unit for k in OFFSETS]
    across = [
        a * unit[i] + b * unit[j]
        for i, j in combinations(range(len(free)), 2)
        for a, b in ((1, 1), (-1, -1), (1, -1), (-1, 1))
    ]
    return np.stack([np.zeros(n_axes), *along, *across])


def movement(
    surface: Surface, slopes: Callable[[Floats], Floats], at: Floats, free: NDArray[np.int64]
) -> Floats:
    """Derivative of the lowest point by what the surface depends on, ``[dimensions, parameters]``.

    ``slopes`` gives the surface's derivative by the parameters ``[points, parameters]``. The
    gradient stays zero while parameters change: the implicit function theorem. What is not ``free``
    stays where it is.
    """
    _, curvature = derivatives(_one(surface), at[None], free)
    mixed = along(slopes, at, free)
    moved = np.zeros((len(at), mixed.shape[1]))
    moved[free] = -np.linalg.solve(curvature[0], mixed)
    return moved


def along(values: Callable[[Floats], Floats], at: Floats, free: NDArray[np.int64]) -> Floats:
    """Derivative ``[free, values]`` of ``values [points, values]`` along each free axis."""
    points = np.stack([at + k * STEP * np.eye(len(at))[i] for i in free for k in OFFSETS])
    each = values(points).reshape(len(free), len(OFFSETS), -1)
    result: Floats = np.einsum("k,fkp->fp", SLOPE, each) / STEP
    return result
