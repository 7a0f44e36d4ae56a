"""Runs that share a trunk: y = law + u_trunk + e, by REML and generalised least squares.

y is log cross-entropy; u and e are normal, of variances ``trunk`` and ``run``. Given their ratio,
``Whitening`` makes the residuals independent, and the law is fitted by least squares; given the
fit, its linearisation gives the restricted likelihood of the ratio (Patterson and Thompson 1971).
The two alternate. ``Precision`` holds what Satterthwaite's degrees of freedom take from it: the
information of the restricted likelihood about both variances, so few trunks give wide intervals.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdlaws.laws.dual import FloatArray
from kdlaws.laws.whiten import Whitening

FLAT = 1e-9  # a direction in which the curve moves this much less than in another does not count
# Seeds move cross-entropy by about .5 %. A half-normal prior on a trunk's deviation, wide beside
# that, keeps it from standing in for the law where the law bends otherwise than the runs: without
# it, a fit may take all levels for accidents and follow the slopes within trunks, far off the runs.
LARGE_TRUNK = 0.02
LEAST = 1e-30  # variance of runs that obey the law to the last bit
RATIOS = np.geomspace(1e-3, 1e3, 25)  # of var(u) to var(e), searched; and none


@dataclass(frozen=True)
class Variances:
    """``trunk`` and ``run``: of a trunk's and of a run's own deviation of log cross-entropy."""

    trunk: float
    run: float

    @property
    def ratio(self) -> float:
        return self.trunk / self.run if self.run else 0.0


def variances(residual: FloatArray, jacobian: FloatArray, cluster: NDArray[np.int64]) -> Variances:
    """REML estimates for a linearised fit: ``residual [runs]``, ``jacobian [parameters, runs]``."""
    from scipy.optimize import minimize_scalar

    jacobian = _independent(jacobian)

    def deviance(log_ratio: float) -> float:
        return restricted_deviance(np.exp(log_ratio), residual, jacobian, cluster)[0]

    coarse = [deviance(np.log(ratio)) for ratio in RATIOS]
    best = int(np.argmin(coarse))
    ends = np.log(RATIOS[[max(best - 1, 0), min(best + 1, len(RATIOS) - 1)]])
    found = minimize_scalar(deviance, bounds=ends, method="bounded")
    none, run = restricted_deviance(0.0, residual, jacobian, cluster)
    if none <= found.fun:
        return Variances(0.0, run)
    ratio = float(np.exp(found.x))
    run = restricted_deviance(ratio, residual, jacobian, cluster)[1]
    return Variances(ratio * run, run)


def restricted_deviance(
    ratio: float, residual: FloatArray, jacobian: FloatArray, cluster: NDArray[np.int64]
) -> tuple[float, float]:
    """-2 log restricted posterior of a ratio, up to a constant, and var(e) that goes with it.

    The rows of ``jacobian`` must be independent.
    """
    whiten = Whitening(cluster, ratio)
    q, triangle = np.linalg.qr(whiten(jacobian).T)
    r = whiten(residual)
    r = r - q @ (q.T @ r)
    degrees = max(len(r) - len(jacobian), 1)
    run = max(float(r @ r) / degrees, LEAST)
    log_det = np.log1p(ratio * np.bincount(cluster)).sum()
    log_det += 2 * np.log(np.abs(np.diag(triangle))).sum()
    prior = ratio * run / LARGE_TRUNK**2
    return degrees * np.log(run) + float(log_det) + prior, run


@dataclass(frozen=True)
class Precision:
    """What Satterthwaite's degrees of freedom need; ``covariance [parameters, parameters]``."""

    covariance: FloatArray
    by_run: FloatArray  # derivative of the covariance by var(e)
    by_trunk: FloatArray  # by var(u)
    of_variances: FloatArray  # covariance [2, 2] of (var(e), var(u))


def precision(v: Variances, jacobian: FloatArray, cluster: NDArray[np.int64]) -> Precision:
    """For a fit of ``jacobian [parameters, runs]``.

    With P = V^-1 - V^-1 J' (J V^-1 J')^-1 J V^-1 the information about (var(e), var(u)) is half of
    [[tr PP, tr PZZ'P], [., tr (Z'PZ)^2]]; all of it follows from G = Z'PZ, one number for each pair
    of trunks, since PVP = P and tr PV = runs - parameters.
    """
    sizes = np.bincount(cluster)
    member = (cluster[:, None] == np.arange(len(sizes))).astype(np.float64)
    inverse_z = member / (v.run + v.trunk * sizes)  # V^-1 Z, [runs, trunks]

    def weighted(rows: FloatArray) -> FloatArray:  # rows V^-1
        weighted_rows: FloatArray = (rows - v.trunk * (rows @ inverse_z) @ member.T) / v.run
        return weighted_rows

    jv = weighted(jacobian)
    covariance = inverse(jv @ jacobian.T)
    b = jacobian @ inverse_z
    g = np.diag(sizes / (v.run + v.trunk * sizes)) - b.T @ covariance @ b
    trace_g, trace_gg = np.trace(g), np.sum(g * g)
    trace_zppz = (trace_g - v.trunk * trace_gg) / v.run
    degrees = max(len(cluster) - len(_independent(jacobian)), 1)
    trace_p = (degrees - v.trunk * trace_g) / v.run
    trace_pp = (trace_p - v.trunk * trace_zppz) / v.run
    information = 0.5 * np.array([[trace_pp, trace_zppz], [trace_zppz, trace_gg]])
    return Precision(
        covariance,
        covariance @ (jv @ jv.T) @ covariance,
        covariance @ (b @ b.T) @ covariance,
        _pseudo_inverse(information),
    )


def _independent(jacobian: FloatArray) -> FloatArray:
    """An orthonormal basis of its rows: what the runs do not determine counts for no parameter."""
    _, size, rows = np.linalg.svd(jacobian, full_matrices=False)
    basis: FloatArray = rows[size > FLAT * size.max(initial=0.0)]
    return basis


def inverse(hessian: FloatArray) -> FloatArray:
    """Inverse of a curvature; a flat direction gets a variance that is large, and finite.

    Not larger than that, so that what is known beside it survives the rounding.
    """
    unit = np.sqrt(np.diag(hessian))
    largest = float(unit.max(initial=0.0)) or 1.0
    unit = np.where(unit > 1e-6 * largest, unit, largest)
    scaled = hessian / np.outer(unit, unit)
    covariance: FloatArray = np.linalg.inv(scaled + 1e-12 * np.eye(len(unit)))
    covariance /= np.outer(unit, unit)
    return covariance


def _pseudo_inverse(matrix: FloatArray) -> FloatArray:
    inverse: FloatArray = np.linalg.pinv(matrix, hermitian=True).astype(np.float64)
    return inverse
