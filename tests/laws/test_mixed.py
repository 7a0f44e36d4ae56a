"""Trunk effects: whitening, REML, Satterthwaite, against dense matrices and the one-way layout."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import inv, sqrtm
from scipy.optimize import minimize
from scipy.stats import norm

from kdlaws.laws.dual import FloatArray
from kdlaws.laws.mixed import Precision, Variances, precision, restricted_deviance, variances
from kdlaws.laws.uncertainty import Linear
from kdlaws.laws.whiten import Whitening

Clusters = NDArray[np.int64]
UNEQUAL: Clusters = np.repeat(np.arange(6), [1, 5, 2, 7, 3, 4])
SMALL = 1e-5  # deviations so far below 2 %, the prior's, that it does not show


def covariance(v: Variances, cluster: Clusters) -> FloatArray:
    """V, written out: var(e) on the diagonal, var(u) between runs of one trunk."""
    same = cluster[:, None] == cluster
    dense: FloatArray = v.run * np.eye(len(cluster)) + v.trunk * same
    return dense


def some_runs(cluster: Clusters, seed: int) -> tuple[FloatArray, FloatArray]:
    """Residuals with a trunk effect as large as a run's, and three columns of derivatives."""
    rng = np.random.default_rng(seed)
    n = len(cluster)
    residual = rng.standard_normal(cluster.max() + 1)[cluster] + rng.standard_normal(n)
    return SMALL * residual, np.stack([np.ones(n), np.linspace(-1, 1, n), rng.standard_normal(n)])


# --- whitening ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 0.3, 40.0])
def test_whitening_is_the_inverse_root_of_the_covariance(ratio: float) -> None:
    rows = np.random.default_rng(0).standard_normal((2, 3, len(UNEQUAL)))
    root = sqrtm(inv(covariance(Variances(ratio, 1.0), UNEQUAL)))
    np.testing.assert_allclose(Whitening(UNEQUAL, ratio)(rows), rows @ root, atol=1e-12)


# --- variances ----------------------------------------------------------------------------------


def one_way(n_trunks: int, n_runs: int, deviation: float, seed: int) -> tuple[FloatArray, Clusters]:
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(n_trunks), n_runs)
    effect = deviation * rng.standard_normal(n_trunks)
    return SMALL * (3.0 + effect[cluster] + rng.standard_normal(len(cluster))), cluster


def mean_squares(y: FloatArray, n_runs: int) -> tuple[float, float]:
    """Of the analysis of variance: between and within trunks."""
    table = y.reshape(-1, n_runs)
    means = table.mean(axis=1)
    between = n_runs * ((means - y.mean()) ** 2).sum() / (len(means) - 1)
    within = ((table - means[:, None]) ** 2).sum() / (table.size - len(means))
    return float(between), float(within)


@pytest.mark.parametrize(("n_trunks", "n_runs"), [(5, 4), (12, 2), (3, 9)])
def test_a_balanced_layout_gives_the_analysis_of_variance(n_trunks: int, n_runs: int) -> None:
    """var(e) = MSW and var(u) = (MSB - MSW)/n, exactly, where MSB > MSW."""
    y, cluster = one_way(n_trunks, n_runs, 1.0, seed=1)
    between, within = mean_squares(y, n_runs)
    assert between > within
    found = variances(y - y.mean(), np.ones((1, len(y))), cluster)
    assert found.run == pytest.approx(within, rel=1e-4)
    assert found.trunk == pytest.approx((between - within) / n_runs, rel=1e-4)


def test_trunks_more_alike_than_runs_have_no_effect() -> None:
    """MSB < MSW: var(u) is 0, and var(e) is the variance of all runs."""
    y, cluster = one_way(6, 4, 0.0, seed=1)
    between, within = mean_squares(y, 4)
    assert between < within
    found = variances(y - y.mean(), np.ones((1, len(y))), cluster)
    assert found.trunk == 0.0
    assert found.ratio == 0.0
    assert found.run == pytest.approx(y.var(ddof=1))


def dense_deviance(
    v: Variances, residual: FloatArray, jacobian: FloatArray, cluster: Clusters
) -> float:
    """-2 log restricted likelihood: log|V| + log|X'V^-1 X| + y'Py (Patterson and Thompson 1971)."""
    matrix = covariance(v, cluster)
    of_fit = jacobian @ np.linalg.solve(matrix, jacobian.T)
    projected = projection(v, jacobian, cluster) @ residual
    log_det = float(np.linalg.slogdet(matrix)[1] + np.linalg.slogdet(of_fit)[1])
    return log_det + float(residual @ projected)


def projection(v: Variances, jacobian: FloatArray, cluster: Clusters) -> FloatArray:
    """P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1."""
    weight = np.linalg.inv(covariance(v, cluster))
    wx = weight @ jacobian.T
    dense: FloatArray = weight - wx @ np.linalg.inv(jacobian @ wx) @ wx.T
    return dense


@pytest.mark.parametrize("seed", range(4))
def test_the_variances_maximise_the_restricted_likelihood(seed: int) -> None:
    """Of unequal trunks and three parameters, with dense matrices, by scipy, in both variances.

    With seed 0 there is no trunk effect to be seen.
    """
    residual, jacobian = some_runs(UNEQUAL, seed)
    best = minimize(
        lambda log_v: dense_deviance(Variances(*np.exp(log_v)), residual, jacobian, UNEQUAL),
        np.full(2, np.log(SMALL**2)),
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 4000},
    )
    found = variances(residual, jacobian, UNEQUAL)
    assert (found.trunk > 0) == (seed > 0)
    expected = np.exp(best.x)
    np.testing.assert_allclose(
        [found.trunk, found.run], expected, rtol=1e-3, atol=1e-9 * expected.max()
    )


@pytest.mark.parametrize("size", [1.0, 1e3, 1e5])
def test_the_deviance_is_the_likelihoods_and_a_priors(size: float) -> None:
    """Up to a constant. The prior of a trunk's deviation is half of a normal one of 2 %, and trunks
    of up to 100 % are tried."""
    residual, jacobian = some_runs(UNEQUAL, 7)
    dense, ours = [], []
    for ratio in (0.0, 0.1, 1.0, 10.0):
        deviance, run = restricted_deviance(ratio, size * residual, jacobian, UNEQUAL)
        v = Variances(ratio * run, run)
        ours.append(deviance)
        likelihood = dense_deviance(v, size * residual, jacobian, UNEQUAL)
        prior = -2 * (norm.logpdf(np.sqrt(v.trunk), scale=0.02) - norm.logpdf(0.0, scale=0.02))
        dense.append(likelihood + prior)
    np.testing.assert_allclose(np.diff(ours), np.diff(dense), rtol=1e-9)


def test_the_prior_leaves_the_deviations_of_seeds_alone() -> None:
    """Of half a percent, from 5 trunks: less than a tenth smaller; ten times that is reined in."""
    cluster = np.repeat(np.arange(5), 5)
    effect = np.array([-1.2, -0.6, 0.1, 0.5, 1.2])[cluster] + 0.2 * np.tile(np.arange(-2, 3), 5)
    flat = np.ones((1, 25))
    without, seeds, wild = (
        variances(size * effect, flat, cluster).trunk / size**2 for size in (SMALL, 0.005, 0.05)
    )
    assert 0.9 * without < seeds < without
    assert wild < 0.7 * without


def test_a_shift_along_the_fit_changes_no_variance() -> None:
    """Restricted: what the parameters could explain does not count."""
    residual, jacobian = some_runs(UNEQUAL, 2)
    moved = residual + SMALL * np.array([5.0, -3.0, 0.7]) @ jacobian
    one, other = (variances(r, jacobian, UNEQUAL) for r in (residual, moved))
    assert (one.trunk, one.run) == pytest.approx((other.trunk, other.run), rel=1e-6)


def test_estimates_are_centred_on_the_truth() -> None:
    """400 studies of 4 trunks: var(u) by maximum likelihood would be a quarter too low."""
    cluster, x = np.repeat(np.arange(4), 4), np.ones((1, 16))
    rng = np.random.default_rng(5)
    y = 2.0 * rng.standard_normal((400, 4))[:, cluster] + rng.standard_normal((400, 16))
    found = [variances(SMALL * (each - each.mean()), x, cluster) for each in y]
    # Three standard errors, from those of MSB and MSW.
    assert np.mean([v.trunk for v in found]) / SMALL**2 == pytest.approx(4.0, abs=0.52)
    assert np.mean([v.run for v in found]) / SMALL**2 == pytest.approx(1.0, abs=0.061)


# --- precision ----------------------------------------------------------------------------------

AT = Variances(0.7, 1.9)


def of_three() -> tuple[Precision, FloatArray]:
    _, jacobian = some_runs(UNEQUAL, 3)
    return precision(AT, jacobian, UNEQUAL), jacobian


def dense_covariance(v: Variances, jacobian: FloatArray) -> FloatArray:
    """Of generalised least squares: (X'V^-1 X)^-1."""
    dense: FloatArray = np.linalg.inv(
        jacobian @ np.linalg.solve(covariance(v, UNEQUAL), jacobian.T)
    )
    return dense


def test_the_covariance_is_that_of_generalised_least_squares() -> None:
    found, jacobian = of_three()
    np.testing.assert_allclose(found.covariance, dense_covariance(AT, jacobian), rtol=1e-9)


def test_its_derivatives_are_difference_quotients() -> None:
    found, jacobian = of_three()
    h = 1e-5
    for derivative, run, trunk in ((found.by_run, h, 0.0), (found.by_trunk, 0.0, h)):
        more, less = (
            dense_covariance(Variances(AT.trunk + s * trunk, AT.run + s * run), jacobian)
            for s in (1, -1)
        )
        np.testing.assert_allclose(derivative, (more - less) / (2 * h), rtol=1e-6, atol=1e-9)


def test_the_information_about_the_variances_is_half_the_traces() -> None:
    """1/2 tr(P dV P dV), with dV = 1 by var(e) and ZZ' by var(u)."""
    found, jacobian = of_three()
    p = projection(AT, jacobian, UNEQUAL)
    slopes = [np.eye(len(UNEQUAL)), (UNEQUAL[:, None] == UNEQUAL).astype(float)]
    information = [[0.5 * np.trace(p @ a @ p @ b) for b in slopes] for a in slopes]
    np.testing.assert_allclose(found.of_variances, np.linalg.inv(information), rtol=1e-8)


def degrees(known: Precision, direction: FloatArray) -> FloatArray:
    return Linear(**vars(known)).degrees(direction)


def test_degrees_of_freedom_are_satterthwaites() -> None:
    """2 f^2 / (f' C f'), f the variance of a combination, by dense matrices and differences."""
    found, jacobian = of_three()
    direction, h = np.array([1.0, -0.5, 2.0]), 1e-5

    def variance(run: float, trunk: float) -> float:
        return float(direction @ dense_covariance(Variances(trunk, run), jacobian) @ direction)

    gradient = np.array(
        [
            variance(AT.run + h, AT.trunk) - variance(AT.run - h, AT.trunk),
            variance(AT.run, AT.trunk + h) - variance(AT.run, AT.trunk - h),
        ]
    ) / (2 * h)
    spread = gradient @ found.of_variances @ gradient
    expected = 2 * variance(AT.run, AT.trunk) ** 2 / spread
    np.testing.assert_allclose(degrees(found, direction), expected, rtol=1e-6)
    both = degrees(found, np.stack([direction, 3 * direction]))
    np.testing.assert_allclose(both, expected, rtol=1e-6)  # a factor changes nothing


@pytest.mark.parametrize(("n_trunks", "n_runs"), [(4, 3), (5, 5), (10, 2)])
def test_a_balanced_layout_has_the_textbooks_degrees(n_trunks: int, n_runs: int) -> None:
    """The mean is known as well as m trunks allow, m - 1; a contrast within trunks as well as
    all runs allow, m (n - 1) - 1; whatever the variances are."""
    cluster = np.repeat(np.arange(n_trunks), n_runs)
    within = np.tile(np.arange(n_runs) - (n_runs - 1) / 2, n_trunks)
    jacobian = np.stack([np.ones(len(cluster)), within])
    for v in (Variances(0.3, 1.0), Variances(5.0, 0.2)):
        found = degrees(precision(v, jacobian, cluster), np.eye(2))
        np.testing.assert_allclose(found, [n_trunks - 1, n_trunks * (n_runs - 1) - 1], rtol=1e-9)


def test_a_flat_direction_is_unknown_and_leaves_the_others_as_they_are() -> None:
    """Two columns alike: their sum is known as well as if there were one, their difference is not.

    A zero would say that it is known exactly.
    """
    _, jacobian = some_runs(UNEQUAL, 3)
    twice = precision(AT, jacobian[[0, 1, 2, 2]], UNEQUAL)
    once, _ = of_three()
    total, alone = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0])
    known = alone @ once.covariance @ alone
    assert total @ twice.covariance @ total == pytest.approx(known, rel=1e-3)
    difference = np.array([0.0, 0.0, 1.0, -1.0])
    assert 1e6 * known < difference @ twice.covariance @ difference < np.inf
    assert degrees(twice, total) == pytest.approx(degrees(once, alone), rel=1e-3)


def test_a_parameter_that_moves_nothing_is_unknown() -> None:
    _, jacobian = some_runs(UNEQUAL, 3)
    once, _ = of_three()
    idle = precision(AT, np.vstack([jacobian, np.zeros(len(UNEQUAL))]), UNEQUAL)
    np.testing.assert_allclose(idle.covariance[:3, :3], once.covariance, rtol=1e-6)
    assert 1e6 < idle.covariance[3, 3] < np.inf
