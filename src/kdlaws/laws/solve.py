"""One solver for starts and resamples: many small robust fits side by side, in plain numpy.

Each fit minimises, inside a box,

    sum_i w_i * huber(log L(v, x_i) - log y_i),   huber(r) = r^2/2, or delta*(|r| - delta/2) beyond

which is a sum and not a mean (averaging lets absolute tolerances stop early; Besiroglu et al.
2024, arXiv:2404.10102). Steps are damped Gauss-Newton (Levenberg-Marquardt): the curvature is
that of the runs inside delta (their Huber curvature is 1, and 0 beyond), plus ``damping`` times
the curvature of iteratively reweighted least squares, which every run has. Damping rises when a
step fails and falls when it succeeds, for each fit on its own. An infinite delta is least squares.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdlaws.laws.coordinates import Coordinates
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.law import Columns
from kdlaws.laws.whiten import Whitening

DELTA = 1e-3  # of log cross-entropy; Hoffmann et al. 2022, so that published fits reproduce
GRADIENT_TOLERANCE = 1e-6
MAX_STEPS = 300
STALLED = 1e-9  # relative gain of the objective that is none ...
PATIENCE = 40  # ... in so many steps on end: a valley so flat that no gradient will vanish
LESS, MORE = 1 / 2, 3.0  # factors of the damping after a success, and after a failure
LOST = 1e10  # damping at which no step is left to try
RIDGE = 1e-6  # relative; keeps flat directions solvable without hiding them
SHORTENING = 0.01  # of steps along flat directions, as Marquardt's, while a fit is damped
TINY = 1e-100  # keeps a curvature of nothing at all invertible
BLOCK_NUMBERS = 60_000  # fits x runs solved at once: the arrays stay in the processor's cache


@dataclass(frozen=True)
class Problem:
    """What all fits of a batch share: a law's coordinates, log columns, log y ``[runs]``, the loss.

    ``log_y`` may be ``[fits, runs]``. ``whiten``, if any, is applied to the residuals.
    """

    coordinates: Coordinates
    x: Columns
    log_y: FloatArray
    delta: float = DELTA
    whiten: Whitening | None = None

    def residual(self, v: FloatArray) -> FloatArray:
        return self._white(self.coordinates.value(v, self.x) - self.log_y)

    def linearise(self, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        value, jacobian = self.coordinates.linearise(v, self.x)
        return self._white(value - self.log_y), self._white(jacobian)

    def _white(self, values: FloatArray) -> FloatArray:
        return values if self.whiten is None else self.whiten(values)

    def take(self, fits: slice | NDArray[np.bool_]) -> "Problem":
        """The same for these fits only."""
        log_y = self.log_y if self.log_y.ndim == 1 else self.log_y[fits]
        return Problem(self.coordinates.take(fits), self.x, log_y, self.delta, self.whiten)


@dataclass(frozen=True)
class Solution:
    """Coordinates ``[fits, free]``, objective and relative gradient ``[fits]``.

    The gradient is relative to the sum of its terms' magnitudes: 0 is a stationary point, 1 means
    that every run pulls the same way. Pulls out of the box do not count.
    """

    v: FloatArray
    objective: FloatArray
    gradient: FloatArray


def minimise(
    problem: Problem,
    weights: FloatArray | None,
    starts: FloatArray,
    tolerance: float = GRADIENT_TOLERANCE,
) -> Solution:
    """Fit each row of ``starts [fits, free]``, under its row of ``weights [fits, runs]`` if any."""
    n_runs = problem.log_y.shape[-1]
    size = max(1, BLOCK_NUMBERS // n_runs)
    blocks = []
    for i in range(0, len(starts), size):
        rows = slice(i, i + size)
        weight = np.ones((1, n_runs)) if weights is None else weights[rows]
        weight = np.broadcast_to(weight, (len(starts[rows]), n_runs))
        blocks.append(_minimise_block(problem.take(rows), weight, starts[rows], tolerance))
    return Solution(
        v=np.concatenate([block.v for block in blocks]),
        objective=np.concatenate([block.objective for block in blocks]),
        gradient=np.concatenate([block.gradient for block in blocks]),
    )


def huber(residual: FloatArray, delta: float) -> FloatArray:
    """r^2/2 up to delta, delta*(|r| - delta/2) beyond; r^2/2 everywhere for an infinite delta."""
    inside = np.minimum(np.abs(residual), delta)
    return inside * (np.abs(residual) - inside / 2)


@dataclass
class _Point:
    """Where each unfinished fit stands."""

    v: FloatArray  # [fits, free]
    objective: FloatArray  # [fits]
    residual: FloatArray  # [fits, runs]

    def replace(self, where: NDArray[np.bool_], other: "_Point") -> None:
        self.v[where] = other.v[where]
        self.objective[where] = other.objective[where]
        self.residual[where] = other.residual[where]

    def keep(self, where: NDArray[np.bool_]) -> "_Point":
        return _Point(self.v[where], self.objective[where], self.residual[where])


def _evaluate(problem: Problem, weights: FloatArray, v: FloatArray) -> _Point:
    v = np.clip(v, problem.coordinates.lower, problem.coordinates.upper)
    residual = problem.residual(v)
    objective = np.einsum("fr,fr->f", weights, huber(residual, problem.delta))
    return _Point(v, np.where(np.isfinite(objective), objective, np.inf), residual)


def _gradient(
    problem: Problem, weights: FloatArray, point: _Point, jacobian: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The gradient, 0 where it pushes out of the box, and the largest relative one of each fit."""
    delta = problem.delta
    lower, upper = problem.coordinates.lower, problem.coordinates.upper
    pull = weights * np.clip(point.residual, -delta, delta)
    gradient = _times(jacobian, pull)
    gradient[np.where(gradient > 0, point.v <= lower, point.v >= upper)] = 0
    # The small constant lets exact fits, whose residuals are rounding errors, count as stationary.
    total = _times(np.abs(jacobian), np.abs(pull) + 1e-6 * DELTA * weights)
    relative = np.divide(np.abs(gradient), total, out=np.zeros_like(total), where=total > 0)
    return gradient, relative.max(axis=-1, initial=0.0)


def _advance(
    problem: Problem,
    weights: FloatArray,
    point: _Point,
    jacobian: FloatArray,
    gradient: FloatArray,
    damping: FloatArray,
) -> _Point:
    """Where each fit would go: a damped step, corrected where the law bends under it.

    The correction (geodesic acceleration; Transtrum and Sethna 2012, arXiv:1201.5885) solves once
    more for what the linearised law missed. Without it, runs that are held near zero residual
    confine the steps to the width of delta.
    """
    size = np.abs(point.residual)
    reweighted = np.minimum(1.0, problem.delta / np.maximum(size, 1e-300))
    curvature = weights * ((size < problem.delta) + damping[:, None] * reweighted)
    free = gradient != 0
    inverse = _inverse_hessian(jacobian, curvature, free, damping)
    step = -_times(inverse, gradient)
    inside = np.clip(point.v + step, problem.coordinates.lower, problem.coordinates.upper)
    stopped = inside != point.v + step
    if stopped.any():
        free &= ~stopped
        inverse = _inverse_hessian(jacobian, curvature, free, damping)
        to_wall = np.where(stopped, inside - point.v, 0.0)
        step = _along_the_wall(to_wall, jacobian, curvature, gradient, inverse, free)
    trial = _evaluate(problem, weights, point.v + step)
    linear = _times(jacobian.swapaxes(-1, -2), trial.v - point.v)
    missed = curvature * (trial.residual - point.residual - linear)
    correction = _times(inverse, free * _times(jacobian, missed))
    corrected = _evaluate(problem, weights, trial.v - correction)
    trial.replace(corrected.objective < trial.objective, corrected)
    return trial


def _along_the_wall(
    to_wall: FloatArray,
    jacobian: FloatArray,
    curvature: FloatArray,
    gradient: FloatArray,
    inverse: FloatArray,
    free: NDArray[np.bool_],
) -> FloatArray:
    """The step when what meets a wall stops there, and the ``free`` others move as that lets them.

    Merely clipped, a step need not descend, and fits would end just in front of the wall.
    """
    bent = _times(jacobian, curvature * _times(jacobian.swapaxes(-1, -2), to_wall))
    step: FloatArray = to_wall - _times(inverse, free * (gradient + bent))
    return step


def _inverse_hessian(
    jacobian: FloatArray,
    curvature: FloatArray,
    free: NDArray[np.bool_],
    damping: FloatArray,
) -> FloatArray:
    hessian = (jacobian * curvature[:, None, :]) @ jacobian.swapaxes(-1, -2)
    hessian *= free[:, :, None] & free[:, None, :]
    hessian[~np.isfinite(hessian).all(axis=(-1, -2))] = 0  # such a fit goes nowhere
    diagonal = np.einsum("fpp->fp", hessian)  # a view: what is written here lands in the hessian
    diagonal *= 1 + RIDGE + SHORTENING * np.minimum(damping, 1.0)[:, None]
    diagonal += 1e-12 * np.maximum(diagonal.max(axis=-1, keepdims=True), TINY) + ~free
    return np.linalg.inv(hessian).astype(np.float64, copy=False)


def _times(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    product: FloatArray = (matrix @ vector[..., None])[..., 0]
    return product


def _minimise_block(
    problem: Problem, weights: FloatArray, starts: FloatArray, tolerance: float
) -> Solution:
    point = _evaluate(problem, weights, starts)
    damping = np.ones(len(starts))
    stalled = np.zeros(len(starts), dtype=np.int64)
    unfinished = np.arange(len(starts))
    result = Solution(point.v.copy(), point.objective.copy(), np.ones(len(starts)))
    for _ in range(MAX_STEPS):
        _, jacobian = problem.linearise(point.v)
        gradient, relative = _gradient(problem, weights, point, jacobian)
        result.v[unfinished] = point.v
        result.objective[unfinished] = point.objective
        result.gradient[unfinished] = relative
        going = (relative > tolerance) & (damping < LOST) & (stalled < PATIENCE)
        if not going.any():
            break
        if not going.all():
            point, unfinished, problem = point.keep(going), unfinished[going], problem.take(going)
            weights, damping, stalled = weights[going], damping[going], stalled[going]
            jacobian, gradient = jacobian[going], gradient[going]
        trial = _advance(problem, weights, point, jacobian, gradient, damping)
        better = trial.objective < point.objective
        gained = point.objective - trial.objective > STALLED * point.objective
        stalled = np.where(gained, 0, stalled + 1)
        point.replace(better, trial)
        damping = damping * np.where(better, LESS, MORE)
    return result
