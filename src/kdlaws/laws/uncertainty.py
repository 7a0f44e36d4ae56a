"""How sure a fit is: of its parameters, of its curve and of a run that it has not seen.

Two kinds, both plain numbers that a file can hold. ``Linear``: the covariance of the parameters
and how well the variances behind it are known, hence Student's t (runs that share trunks).
``Resampled``: the parameters of refits to resampled runs. Both give the log curve's interval and a
new run's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdlaws.laws.coordinates import log_curve, plain_coordinates
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.estimate import Stage
from kdlaws.laws.law import Law
from kdlaws.laws.mixed import Precision, inverse, precision

Interval = tuple[FloatArray, FloatArray]

LEAST = 1e-300  # keeps a variance of nothing at all divisible
HEAVIEST, LIGHTEST = 1.0, 1e4  # degrees of freedom; beyond the second t is normal


@dataclass(frozen=True)
class Linear:
    """Covariance of u ``[unknowns, unknowns]``, and its derivatives by var(e) and var(u)."""

    covariance: FloatArray
    by_run: FloatArray
    by_trunk: FloatArray
    of_variances: FloatArray  # covariance [2, 2] of var(e) and var(u)

    def deviation(self, direction: FloatArray) -> FloatArray:
        """Standard error of ``direction [..., unknowns]`` times u."""
        return np.sqrt(np.maximum(_quadratic(self.covariance, direction), 0.0))

    def degrees(self, direction: FloatArray, *, extra: FloatArray | float = 0.0) -> FloatArray:
        """Satterthwaite's degrees of freedom of that variance.

        ``extra`` is the new run's part: var(e) + var(u), and whatever is taken as known.
        """
        own = 1.0 if np.any(extra) else 0.0
        gradient = np.stack(
            [_quadratic(self.by_run, direction) + own, _quadratic(self.by_trunk, direction) + own],
            axis=-1,
        )
        total = _quadratic(self.covariance, direction) + extra
        spread = _quadratic(self.of_variances, gradient)
        with np.errstate(divide="ignore", invalid="ignore"):
            degrees = 2 * total**2 / spread
        return np.clip(np.nan_to_num(degrees, nan=LIGHTEST), HEAVIEST, LIGHTEST)

    def curve_variance(self, law: Law, u: FloatArray, x: Mapping[str, NDArray[Any]]) -> FloatArray:
        """Of log L ``[runs]``."""
        return self.deviation(_slopes(law, u, x)[1]) ** 2

    def interval(
        self, law: Law, u: FloatArray, x: Mapping[str, NDArray[Any]], level: float
    ) -> Interval:
        """Of log L ``[runs]``."""
        curve, slopes = _slopes(law, u, x)
        half = student(self.degrees(slopes), level) * self.deviation(slopes)
        return curve - half, curve + half

    def new_run(
        self,
        law: Law,
        u: FloatArray,
        x: Mapping[str, NDArray[Any]],
        level: float,
        extra: FloatArray,
    ) -> Interval:
        """Of a new run's log cross-entropy, which adds the variance ``extra [runs]``."""
        curve, slopes = _slopes(law, u, x)
        half = student(self.degrees(slopes, extra=extra), level)
        half = half * np.sqrt(self.deviation(slopes) ** 2 + extra)
        return curve - half, curve + half


@dataclass(frozen=True)
class Resampled:
    """``samples [resamples, unknowns]``: u of each refit."""

    samples: FloatArray

    def interval(
        self, law: Law, u: FloatArray, x: Mapping[str, NDArray[Any]], level: float
    ) -> Interval:
        """Of log L ``[runs]``: percentiles of the refits' curves, widened to hold the fit's own."""
        tail = (1 - level) / 2
        curve = log_curve(law, u[None], x)[0]
        lo, hi = np.quantile(log_curve(law, self.samples, x), [tail, 1 - tail], axis=0)
        return np.minimum(lo, curve), np.maximum(hi, curve)

    def new_run(
        self,
        law: Law,
        u: FloatArray,
        x: Mapping[str, NDArray[Any]],
        level: float,
        extra: FloatArray,
    ) -> Interval:
        """The half-widths of the curve and of the run's own scatter add in squares."""
        curve = log_curve(law, u[None], x)[0]
        lo, hi = self.interval(law, u, x, level)
        own = NormalDist().inv_cdf((1 + level) / 2) ** 2 * extra
        return curve - np.sqrt((curve - lo) ** 2 + own), curve + np.sqrt((hi - curve) ** 2 + own)


Uncertainty = Linear | Resampled


def linear(stage: Stage) -> Linear:
    """Of a stage's fit, in u: generalised least squares, and what Huber's loss adds to it.

    With no residual beyond delta it is the variance of generalised least squares.
    """
    residual, jacobian = stage.linearise()
    scale, inside = spread(stage, residual, len(jacobian))
    if stage.variances is None:
        known = _of_runs(jacobian, scale, inside)
    else:
        known = precision(stage.variances, jacobian, stage.runs.cluster)
        # Huber's loss adds to the uncertainty of least squares, and takes nothing from it.
        loss = max(scale / inside / max(stage.variances.run, LEAST), 1.0)
        known = Precision(
            loss * known.covariance, loss * known.by_run, loss * known.by_trunk, known.of_variances
        )
    basis = stage.coordinates.basis
    of_u, run_of_u, trunk_of_u = (
        basis @ matrix @ basis.T for matrix in (known.covariance, known.by_run, known.by_trunk)
    )
    return Linear(of_u, run_of_u, trunk_of_u, known.of_variances)


def _of_runs(jacobian: FloatArray, scale: float, inside: float) -> Precision:
    """Of independent runs, ``jacobian [parameters, runs]``: one variance, and none of trunks."""
    p, n = jacobian.shape
    covariance = scale * inverse(jacobian @ jacobian.T) / inside
    of_variances = np.diag([2 * scale**2 / max(n - p, 1), 0.0])
    by_run = covariance / max(scale, LEAST)
    return Precision(covariance, by_run, np.zeros_like(covariance), of_variances)


def spread(stage: Stage, residual: FloatArray, n_free: int) -> tuple[float, float]:
    """``_scale`` of a stage's whitened residuals, and their share inside delta."""
    white = stage.problem.whiten
    pull, inside = _influence(residual if white is None else white(residual), stage.problem.delta)
    return _scale(pull, inside, len(residual), n_free), inside


def _influence(residual: FloatArray, delta: float) -> tuple[FloatArray, float]:
    """Huber's psi of each residual, and the share of residuals inside delta, at least 1 in 20."""
    return np.clip(residual, -delta, delta), max(float(np.mean(np.abs(residual) < delta)), 0.05)


def _scale(pull: FloatArray, inside: float, n: int, p: int) -> float:
    """E psi^2 / E psi', which is the variance where all residuals are inside delta."""
    return float(np.sum(pull**2)) / max(n - p, 1) / inside


def _slopes(
    law: Law, u: FloatArray, x: Mapping[str, NDArray[Any]]
) -> tuple[FloatArray, FloatArray]:
    """The log curve ``[runs]`` and its derivatives by u ``[runs, unknowns]``."""
    curve, jacobian = plain_coordinates(law).linearise(u[None], x)
    return curve[0], jacobian[0].T


def _quadratic(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    form: FloatArray = np.einsum("...i,ij,...j->...", vector, matrix, vector)
    return form


def student(degrees: FloatArray | float, level: float) -> FloatArray:
    """The two-sided quantile of Student's t, to 1e-4, without scipy (predictions start fast).

    With x = sqrt(degrees) tan(angle) the density is cos(angle)^(degrees - 1), smooth and bounded.
    """
    flat = np.atleast_1d(np.asarray(degrees, dtype=np.float64))
    quantiles = [_student(float(each), level) for each in flat.ravel()]
    return np.array(quantiles).reshape(np.shape(degrees))


def _student(degrees: float, level: float) -> float:
    if degrees >= LIGHTEST:
        return NormalDist().inv_cdf((1 + level) / 2)
    # All but 1e-12 of the mass lies within this angle.
    widest = np.pi / 2 if degrees < 40 else np.arctan(9 / np.sqrt(degrees))
    # Closer steps towards the end, where the density of few degrees falls steeply.
    angle = widest * (1 - np.linspace(1.0, 0.0, 4001) ** 3)
    density = np.cos(angle) ** (degrees - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) * np.diff(angle))])
    at = np.interp(level * mass[-1], mass, angle)
    return float(np.sqrt(degrees) * np.tan(at))
