"""One solver for starts and resamples: many small robust fits side by side, in plain numpy.

Each fit minimises, inside a box,

    sum_i w_i * huber(log L(u, x_i) - log y_i),   huber(r) = r^2/2, or DELTA*(|r| - DELTA/2) beyond

which is a sum and not a mean (averaging lets absolute tolerances stop early; Besiroglu et al.
2024, arXiv:2404.10102). Steps are damped Gauss-Newton (Levenberg-Marquardt): the curvature is
that of the runs inside DELTA (their Huber curvature is 1, and 0 beyond), plus ``damping`` times
the curvature of iteratively reweighted least squares, which every run has. Damping rises when a
step fails and falls when it succeeds, for each fit on its own.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdlaws.laws.forms import FloatArray, Form

DELTA = 1e-3  # of log cross-entropy; Hoffmann et al. 2022, so that published fits reproduce
OBJECTIVE_NAME = "sum of log-Huber(1e-3)"
GRADIENT_TOLERANCE = 1e-6
MAX_STEPS = 200
RIDGE = 1e-6  # relative; keeps flat directions solvable without hiding them
BLOCK_NUMBERS = 100_000  # fits x runs solved at once: the arrays stay in the processor's cache


@dataclass(frozen=True)
class Problem:
    """What all fits of a batch share: log columns ``[columns, runs]``, log y ``[runs]``, a box."""

    log_form: Form
    x: FloatArray
    log_y: FloatArray
    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True)
class Solution:
    """Coordinates ``[fits, parameters]``, objective and relative gradient ``[fits]``.

    The gradient is relative to the sum of its terms' magnitudes: 0 is a stationary point, 1 means
    that every run pulls the same way. Pulls out of the box do not count.
    """

    u: FloatArray
    objective: FloatArray
    gradient: FloatArray


def minimise(problem: Problem, weights: FloatArray, starts: FloatArray) -> Solution:
    """Fit every row of ``starts [fits, parameters]`` under its row of ``weights [fits, runs]``."""
    size = max(1, BLOCK_NUMBERS // len(problem.log_y))
    blocks = [
        _minimise_block(problem, weights[i : i + size], starts[i : i + size])
        for i in range(0, len(starts), size)
    ]
    return Solution(
        u=np.concatenate([block.u for block in blocks]),
        objective=np.concatenate([block.objective for block in blocks]),
        gradient=np.concatenate([block.gradient for block in blocks]),
    )


@dataclass
class _Point:
    """Where each unfinished fit stands."""

    u: FloatArray  # [fits, parameters]
    objective: FloatArray  # [fits]
    residual: FloatArray  # [fits, runs]
    jacobian: FloatArray  # [fits, parameters, runs]

    def replace(self, where: NDArray[np.bool_], other: "_Point") -> None:
        self.u[where] = other.u[where]
        self.objective[where] = other.objective[where]
        self.residual[where] = other.residual[where]
        self.jacobian[where] = other.jacobian[where]

    def keep(self, where: NDArray[np.bool_]) -> "_Point":
        return _Point(
            self.u[where], self.objective[where], self.residual[where], self.jacobian[where]
        )


def huber(residual: FloatArray) -> FloatArray:
    inside = np.minimum(np.abs(residual), DELTA)
    return inside * (np.abs(residual) - inside / 2)


def _evaluate(problem: Problem, weights: FloatArray, u: FloatArray) -> _Point:
    u = np.clip(u, problem.lower, problem.upper)
    log_prediction, jacobian = problem.log_form(u, problem.x)
    residual = log_prediction - problem.log_y
    return _Point(u, (weights * huber(residual)).sum(axis=-1), residual, jacobian)


def _gradient(
    problem: Problem, weights: FloatArray, point: _Point
) -> tuple[FloatArray, FloatArray]:
    """The gradient, 0 where it pushes out of the box, and the largest relative one of each fit."""
    pull = weights * np.clip(point.residual, -DELTA, DELTA)
    gradient = _times(point.jacobian, pull)
    gradient[np.where(gradient > 0, point.u <= problem.lower, point.u >= problem.upper)] = 0
    # The small constant lets exact fits, whose residuals are rounding errors, count as stationary.
    total = _times(np.abs(point.jacobian), np.abs(pull) + 1e-6 * DELTA * weights)
    relative = np.divide(np.abs(gradient), total, out=np.zeros_like(total), where=total > 0)
    return gradient, relative.max(axis=-1)


def _advance(
    problem: Problem, weights: FloatArray, point: _Point, gradient: FloatArray, damping: FloatArray
) -> _Point:
    """Where each fit would go: a damped step, corrected where the law bends under it.

    The correction (geodesic acceleration; Transtrum and Sethna 2012, arXiv:1201.5885) solves once
    more for what the linearised law missed. Without it, runs that are held near zero residual
    confine the steps to the width of DELTA.
    """
    size = np.abs(point.residual)
    curvature = weights * ((size < DELTA) + damping[:, None] * DELTA / np.maximum(size, DELTA))
    free = gradient != 0
    inverse = _inverse_hessian(point.jacobian, curvature, free)
    trial = _evaluate(problem, weights, point.u - _times(inverse, gradient))
    linear = _times(point.jacobian.swapaxes(-1, -2), trial.u - point.u)
    missed = curvature * (trial.residual - point.residual - linear)
    correction = _times(inverse, free * _times(point.jacobian, missed))
    corrected = _evaluate(problem, weights, trial.u - correction)
    trial.replace(corrected.objective < trial.objective, corrected)
    return trial


def _inverse_hessian(
    jacobian: FloatArray, curvature: FloatArray, free: NDArray[np.bool_]
) -> FloatArray:
    hessian = (jacobian * curvature[:, None, :]) @ jacobian.swapaxes(-1, -2)
    hessian *= free[:, :, None] & free[:, None, :]
    diagonal = np.einsum("fpp->fp", hessian)  # a view: what is written here lands in the hessian
    diagonal *= 1 + RIDGE
    diagonal += 1e-12 * diagonal.max(axis=-1, keepdims=True) + ~free
    return np.linalg.inv(hessian).astype(np.float64, copy=False)


def _times(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    product: FloatArray = (matrix @ vector[..., None])[..., 0]
    return product


def _minimise_block(problem: Problem, weights: FloatArray, starts: FloatArray) -> Solution:
    point = _evaluate(problem, weights, starts)
    damping = np.ones(len(starts))
    unfinished = np.arange(len(starts))
    result = Solution(point.u.copy(), point.objective.copy(), np.ones(len(starts)))
    for _ in range(MAX_STEPS):
        gradient, relative = _gradient(problem, weights, point)
        result.u[unfinished] = point.u
        result.objective[unfinished] = point.objective
        result.gradient[unfinished] = relative
        going = (relative > GRADIENT_TOLERANCE) & (damping < 1e10)
        if not going.any():
            break
        point, unfinished = point.keep(going), unfinished[going]
        weights, damping = weights[going], damping[going]
        trial = _advance(problem, weights, point, gradient[going], damping)
        better = trial.objective < point.objective
        point.replace(better, trial)
        damping = np.where(better, damping / 2, damping * 3)
    return result
