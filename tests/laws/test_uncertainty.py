"""Intervals of curves and of new runs, against the textbook of the linear model."""

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.stats import binom, linregress, norm, t

from kdlaws.laws import LAWS
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.estimate import Stage
from kdlaws.laws.law import D, N
from kdlaws.laws.uncertainty import Linear, Resampled, linear, student

from .textbook import MEAN, POWER, fitted


def u_of(stage: Stage) -> FloatArray:
    return stage.coordinates.parameters(stage.v)


# --- Student's t --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_students_quantiles_are_scipys(level: float) -> None:
    """Degrees just above 1, those of few trunks, are the hardest; from 1e4 on t is normal."""
    degrees = np.array([1, 1.01, 1.06, 1.3, 2, 3.7, 5, 12, 39.9, 40, 200, 1e3, 9999, 1e4])
    expected = t.ppf((1 + level) / 2, degrees)
    np.testing.assert_allclose(student(degrees, level), expected, rtol=2e-4)


def test_students_quantiles_keep_the_shape_of_the_degrees() -> None:
    assert student(5.0, 0.9).shape == ()
    assert student(np.full((2, 3), 5.0), 0.9).shape == (2, 3)
    assert student(np.inf, 0.9) == pytest.approx(norm.ppf(0.95))


# --- a straight line ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def line() -> tuple[FloatArray, FloatArray]:
    """log N and log L of 12 runs."""
    log_n = np.linspace(9, 14, 12)
    noise = 0.01 * np.random.default_rng(1).standard_normal(12)
    return log_n, 3.0 - 0.2 * log_n + noise


def bands(log_n: FloatArray, log_y: FloatArray, at: FloatArray) -> tuple[FloatArray, ...]:
    """Of the textbook: the line, its standard error, a run's variance."""
    found = linregress(log_n, log_y)
    rest = log_y - found.intercept - found.slope * log_n
    run = rest @ rest / (len(log_n) - 2)
    spread = (log_n - log_n.mean()) @ (log_n - log_n.mean())
    error = np.sqrt(run * (1 / len(log_n) + (at - log_n.mean()) ** 2 / spread))
    return found.intercept + found.slope * at, error, run


def test_standard_errors_of_a_straight_line_are_linregresss(
    line: tuple[FloatArray, FloatArray],
) -> None:
    log_n, log_y = line
    expected = linregress(log_n, log_y)
    sure = linear(fitted(POWER, {N: log_n}, log_y))
    directions = np.eye(2)
    np.testing.assert_allclose(
        sure.deviation(directions), [expected.intercept_stderr, expected.stderr], rtol=1e-6
    )
    np.testing.assert_allclose(sure.degrees(directions), 10, rtol=1e-9)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_bands_of_a_straight_line_are_the_textbooks(
    line: tuple[FloatArray, FloatArray], level: float
) -> None:
    """The curve's interval, and a new run's, whose variance has the same degrees of freedom."""
    log_n, log_y = line
    stage = fitted(POWER, {N: log_n}, log_y)
    at = np.array([8.0, 11.0, 17.0])
    curve, error, run = bands(log_n, log_y, at)
    half = t.ppf((1 + level) / 2, 10) * error
    lo, hi = linear(stage).interval(POWER, u_of(stage), {N: at}, level)
    np.testing.assert_allclose([lo, hi], [curve - half, curve + half], rtol=1e-6)
    extra = np.full(3, float(run))
    half = t.ppf((1 + level) / 2, 10) * np.sqrt(error**2 + run)
    lo, hi = linear(stage).new_run(POWER, u_of(stage), {N: at}, level, extra)
    np.testing.assert_allclose([lo, hi], [curve - half, curve + half], rtol=1e-6)


def test_what_is_taken_as_known_adds_to_the_degrees_of_freedom(
    line: tuple[FloatArray, FloatArray],
) -> None:
    """A drift far larger than what was estimated leaves a normal interval."""
    log_n, log_y = line
    sure = linear(fitted(POWER, {N: log_n}, log_y))
    direction = np.array([1.0, -15.0])
    assert sure.degrees(direction, extra=1.0) > 1e3


# --- a curve ------------------------------------------------------------------------------------


def test_the_covariance_of_a_curve_is_curve_fits() -> None:
    """Chinchilla by least squares in logarithms: scipy's own linearisation, in the same u."""
    rng = np.random.default_rng(2)
    log_n, log_d = (a.ravel() for a in np.meshgrid(np.linspace(9, 14, 5), np.linspace(12, 16, 5)))

    def curve(x: FloatArray, *u: float) -> FloatArray:
        terms = np.exp(u[0]) + np.exp(u[1] - u[3] * x[0]) + np.exp(u[2] - u[4] * x[1])
        result: FloatArray = np.log(terms)
        return result

    truth = [np.log(1.5), np.log(40.0), np.log(300.0), 0.3, 0.4]
    x = np.stack([log_n, log_d])
    log_y = curve(x, *truth) + 0.002 * rng.standard_normal(25)
    _, expected = curve_fit(curve, x, log_y, truth, method="lm", xtol=1e-14, ftol=1e-14)
    stage = fitted(LAWS["chinchilla"], {N: log_n, D: log_d}, log_y)
    np.testing.assert_allclose(linear(stage).covariance, expected, rtol=1e-3)
    variance = linear(stage).curve_variance(LAWS["chinchilla"], u_of(stage), stage.runs.x)
    # Over the runs, the variances of the curve add up to that of the parameters' number.
    run = 2 * stage.solution.objective.min() / 20
    assert variance.sum() == pytest.approx(5 * run, rel=1e-6)


# --- trunks -------------------------------------------------------------------------------------


def test_the_mean_of_a_balanced_layout_has_the_interval_of_its_trunks() -> None:
    """t with m - 1 degrees of freedom times sqrt(MSB/(m n)): as if each trunk were one run.

    Deviations are far below the 2 % that a trunk's is expected to be.
    """
    rng = np.random.default_rng(4)
    cluster = np.repeat(np.arange(6), 4)
    log_y = 1.0 + 2e-5 * rng.standard_normal(6)[cluster] + 1e-5 * rng.standard_normal(24)
    stage = fitted(MEAN, {N: np.linspace(9, 14, 24)}, log_y, cluster=cluster)
    means = log_y.reshape(6, 4).mean(axis=1)
    half = t.ppf(0.95, 5) * means.std(ddof=1) / np.sqrt(6)
    (lo,), (hi,) = linear(stage).interval(MEAN, u_of(stage), {N: np.array([11.0])}, 0.9)
    assert (lo + hi) / 2 == pytest.approx(means.mean(), abs=1e-3 * half)
    assert (hi - lo) / 2 == pytest.approx(half, rel=1e-3)


def test_the_standard_error_of_trunks_that_are_alike_is_that_of_their_runs() -> None:
    """Alternating residuals leave no trunk effect: s/sqrt(n) over all runs."""
    log_y = 1.0 + 0.01 * np.tile([1.0, -1.0], 12)
    x = {N: np.linspace(9, 14, 24)}
    stage = fitted(MEAN, x, log_y, cluster=np.repeat(np.arange(6), 4))
    error = log_y.std(ddof=1) / np.sqrt(24)
    assert linear(stage).deviation(np.ones(1)) == pytest.approx(error, rel=1e-9)


# --- Huber --------------------------------------------------------------------------------------


def hubers_variance(k: float) -> float:
    """Asymptotic variance of his estimate of a normal mean, in those of the mean (Huber 1964)."""
    inside = norm.cdf(k) - norm.cdf(-k)
    of_psi = inside - 2 * k * norm.pdf(k) + 2 * k**2 * norm.sf(k)
    return float(of_psi / inside**2)


@pytest.mark.parametrize("k", [0.1, 0.5, 1.0, 1.345])
def test_hubers_loss_costs_what_huber_says(k: float) -> None:
    """On 4000 normal scores; nearly pi/2, that of the median, for small k, and 1/.95 for 1.345."""
    scores = norm.ppf((np.arange(4000) + 0.5) / 4000)
    x = {N: np.linspace(9, 14, 4000)}
    stage = fitted(MEAN, x, 1.0 + 0.01 * scores, "huber", delta=0.01 * k)
    found = linear(stage).deviation(np.ones(1)) / (0.01 / np.sqrt(4000))
    assert found**2 == pytest.approx(hubers_variance(k), rel=0.01)


def test_hubers_loss_costs_a_twentieth_beside_trunk_effects() -> None:
    """Delta is then 1.345 deviations; trunks of opposite runs have none of their own."""
    scores = norm.ppf((np.arange(2000) + 0.5) / 4000)
    log_y = 1.0 + 0.01 * np.stack([scores, -scores], axis=1).ravel()
    x = {N: np.linspace(9, 14, 4000)}
    stage = fitted(MEAN, x, log_y, "huber", np.repeat(np.arange(40), 100))
    found = linear(stage).deviation(np.ones(1)) / (0.01 / np.sqrt(4000))
    assert found**2 == pytest.approx(1 / 0.95, rel=0.01)


@pytest.mark.parametrize("trunks", [False, True], ids=["runs", "trunks"])
def test_a_huber_fit_of_heavy_tails_covers_at_its_level(trunks: bool) -> None:
    """Student's t3 noise, 120 studies of 30 runs: 90 % intervals of a slope, by a binomial test."""
    rng = np.random.default_rng(6)
    x = {N: np.tile(np.linspace(9, 14, 6), 5)}
    cluster = np.tile(np.arange(6), 5) if trunks else np.arange(30)
    hits = 0
    for _ in range(120):
        effect = 0.003 * rng.standard_normal(6)[cluster] if trunks else 0.0
        log_y = 3.0 - 0.2 * x[N] + effect + 0.003 * rng.standard_t(3, 30)
        stage = fitted(POWER, x, log_y, "huber", cluster, delta=0.004)
        sure, slope = linear(stage), np.array([0.0, 1.0])
        half = student(sure.degrees(slope), 0.9) * sure.deviation(slope)
        hits += bool(abs(u_of(stage)[1] - 0.2) <= half)
    assert binom.ppf(0.001, 120, 0.9) <= hits <= binom.ppf(0.999, 120, 0.9)


def test_a_wild_run_widens_a_huber_fits_interval_far_less() -> None:
    rng = np.random.default_rng(7)
    x = {N: np.linspace(9, 14, 40)}
    log_y = 3.0 - 0.2 * x[N] + 0.003 * rng.standard_normal(40)
    wild = np.where(np.arange(40) == 3, log_y + 0.5, log_y)
    slope = np.array([0.0, 1.0])
    widths = {
        loss: [
            float(linear(fitted(POWER, x, y, loss, delta=0.004)).deviation(slope))
            for y in (log_y, wild)
        ]
        for loss in ("huber", "squares")
    }
    assert widths["huber"][1] < 1.3 * widths["huber"][0]
    assert widths["squares"][1] > 10 * widths["squares"][0]


# --- flat directions ----------------------------------------------------------------------------


@pytest.mark.parametrize("n_trunks", [12, 4], ids=["runs", "trunks"])
def test_a_flat_direction_has_a_deviation_that_is_large_and_finite(n_trunks: int) -> None:
    """All runs at one N: the scale and the exponent are one number, whose curve is still known, as
    well as the mean of 12 runs or of 4 trunks is."""
    rng = np.random.default_rng(8)
    cluster = np.repeat(np.arange(n_trunks), 12 // n_trunks)
    log_y = 1.0 + 2e-5 * rng.standard_normal(n_trunks)[cluster] + 1e-5 * rng.standard_normal(12)
    stage = fitted(POWER, {N: np.full(12, 10.0)}, log_y, cluster=cluster)
    sure = linear(stage)
    assert 1e5 * log_y.std() < sure.deviation(np.array([0.0, 1.0])) < np.inf
    means = log_y.reshape(n_trunks, -1).mean(axis=1)
    found = sure.deviation(np.array([1.0, -10.0]))
    assert found == pytest.approx(means.std(ddof=1) / np.sqrt(n_trunks), rel=0.06)


@pytest.mark.parametrize(("spread", "degrees"), [(0.0, 1e4), (1e-9, 1e4), (1e9, 1.0)])
def test_degrees_of_freedom_stay_between_one_and_ten_thousand(
    spread: float, degrees: float
) -> None:
    """However well or badly the variances are known."""
    sure = Linear(np.eye(1), np.eye(1), np.zeros((1, 1)), np.diag([spread, 0.0]))
    assert sure.degrees(np.ones(1)) == degrees


# --- resamples ----------------------------------------------------------------------------------


def test_the_interval_of_refits_is_their_quantiles_curve_by_curve() -> None:
    """Curves shifted by 0, 1, .. 100 hundredths: 5 % of them lie below 5, and above 95."""
    u = np.array([0.5, 0.3])
    samples = u + np.outer(np.arange(101) / 100, [1.0, 0.0])
    x = {N: np.array([1.0, 2.0])}
    lo, hi = Resampled(samples[::-1]).interval(POWER, u, x, 0.9)
    curve = 0.5 - 0.3 * x[N]
    np.testing.assert_allclose(lo, np.minimum(curve, curve + 0.05))
    np.testing.assert_allclose(hi, curve + 0.95)


def test_refits_that_all_agree_leave_a_new_run_its_own_scatter() -> None:
    u, x = np.array([0.5, 0.3]), {N: np.array([1.0, 2.0])}
    extra = np.array([4e-4, 9e-4])
    lo, hi = Resampled(np.tile(u, (50, 1))).new_run(POWER, u, x, 0.9, extra)
    half = norm.ppf(0.95) * np.array([0.02, 0.03])
    curve = 0.5 - 0.3 * x[N]
    np.testing.assert_allclose([lo, hi], [curve - half, curve + half], rtol=1e-9)


def test_the_scatter_of_curve_and_run_add_in_squares() -> None:
    """Normal refits of a mean: the sum of two normal variables, by its exact quantile."""
    deviation, own = 0.03, 0.04
    shifts = deviation * norm.ppf((np.arange(20_001) + 0.5) / 20_001)
    u, x = np.array([0.5, 0.3]), {N: np.array([1.0])}
    samples = u + np.outer(shifts, [1.0, 0.0])
    lo, hi = Resampled(samples).new_run(POWER, u, x, 0.9, np.array([own**2]))
    half = norm.ppf(0.95) * 0.05  # 3, 4, 5
    np.testing.assert_allclose([lo[0], hi[0]], [0.2 - half, 0.2 + half], rtol=1e-3)
