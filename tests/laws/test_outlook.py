"""The interval of a new run: a run's own scatter, and the law's own error beyond the runs."""

from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, chi2, t

from kdlaws.laws import Fit, fit
from kdlaws.laws.newrun import NewRun

N = "n_params_non_embedding"

Array = NDArray[Any]
Columns = dict[str, Array]


def grid(n_sizes: int, n_tokens: int) -> tuple[Array, Array]:
    n, d = np.meshgrid(np.geomspace(6e3, 8e5, n_sizes), np.geomspace(1e5, 8e5, n_tokens))
    return n.ravel(), d.ravel()


def loss(n: Array | float, d: Array | float) -> Array:
    return np.asarray(1.5 + 40 / n**0.3 + 300 / d**0.4)


def runs(n: Array, d: Array, noise: float, seed: int) -> Columns:
    scatter = np.exp(noise * np.random.default_rng(seed).standard_normal(n.size))
    return {N: n, "n_tokens": d, "cross_entropy": loss(n, d) * scatter}


def bent(n: Array, d: Array, noise: float, seed: int) -> Columns:
    """A law that no sum of two powers follows: beyond a decade of compute the loss turns up."""
    columns = runs(n, d, noise, seed)
    decades = np.log10(n * d / (n * d).min())
    columns["cross_entropy"] = columns["cross_entropy"] * (1 + 0.02 * decades**2)
    return columns


def farther(decades: float) -> dict[str, float]:
    """A model of this many decades of compute beyond the largest run, half in N, half in D."""
    return {N: 8e5 * 10 ** (decades / 2), "n_tokens": 8e5 * 10 ** (decades / 2)}


def log_width(ends: tuple[Array, Array]) -> float:
    return float(np.log(ends[1] / ends[0]))


def drift(result: Fit) -> float:
    assert result.new_run is not None
    assert result.new_run.drift is not None
    return result.new_run.drift


# --- a run's own scatter ------------------------------------------------------------------------


def test_the_variance_of_a_run_is_that_of_the_noise() -> None:
    """Residuals of 64 runs of a normal noise of .5 %, each study with 59 degrees of freedom."""
    found = []
    for seed in range(6):
        result = fit(runs(*grid(8, 8), 0.005, seed), "chinchilla", bootstrap=50, holdout=0)
        assert result.new_run is not None
        found.append(result.new_run.variance)
    degrees = 6 * 59
    low, high = (0.005**2 * chi2.ppf(q, degrees) / degrees for q in (0.001, 0.999))
    # Huber's fit is a few percent further from the runs than least squares.
    assert low < np.mean(found) < 1.05 * high


def trunk_study(seed: int, n_trunks: int = 20) -> tuple[Columns, list[str]]:
    """.4 % scatter of a trunk, .2 % of each of its 5 branches."""
    rng = np.random.default_rng(seed)
    n, d = (np.tile(axis.reshape(5, 5).T.ravel(), n_trunks // 5) for axis in grid(5, 5))
    trunk = np.repeat(np.arange(n_trunks), 5)
    deviation = 0.004 * rng.standard_normal(n_trunks)[trunk] + 0.002 * rng.standard_normal(n.size)
    return {N: n, "n_tokens": d, "cross_entropy": loss(n, d) * np.exp(deviation)}, list(
        map(str, trunk)
    )


def test_the_variance_of_a_run_holds_its_trunks() -> None:
    """.4 % and .2 % together, of which 8 studies of 20 trunks know the first within an eighth."""
    found = []
    for seed in range(8):
        columns, trunk = trunk_study(seed)
        result = fit(columns, "chinchilla", trunk=trunk, holdout=0)
        assert result.new_run is not None
        found.append(result.new_run.variance)
    assert np.mean(found) == pytest.approx(0.004**2 + 0.002**2, rel=0.3)


@pytest.mark.parametrize("trunks", [True, False], ids=["trunks", "no trunks"])
def test_a_new_run_is_less_certain_than_the_curve(trunks: bool) -> None:
    columns, trunk = trunk_study(1)
    result = fit(columns, "chinchilla", trunk=trunk if trunks else None, holdout=0)
    model = {N: np.geomspace(1e4, 1e8, 9), "n_tokens": np.geomspace(1e5, 1e8, 9)}
    curve, new_run = result.band(model), result.new_runs(model)
    assert (new_run[0] < curve[0]).all()
    assert (new_run[1] > curve[1]).all()


def test_squares_of_half_widths_add_where_refits_are_resampled() -> None:
    """The curve's and the normal quantile times the run's deviation."""
    result = fit(runs(*grid(5, 5), 0.004, 3), "chinchilla", bootstrap=100, holdout=0)
    assert result.new_run is not None
    model = farther(-1.0)
    value = np.log(result.predict(model))
    own = NormalDist().inv_cdf(0.95) * np.sqrt(result.new_run.variance)
    for curve, new_run in zip(result.band(model), result.new_runs(model), strict=True):
        expected = np.hypot(np.log(curve) - value, own)
        assert abs(np.log(new_run) - value) == pytest.approx(expected)


def test_a_mean_of_trunks_has_the_interval_of_the_one_way_layout() -> None:
    """One point measured by 6 trunks of 4: the prediction interval of a new trunk's run.

    With all parameters but the floor pinned to nothing the law is a constant, and the answer is
    that of the balanced random-effects layout: the mean is as sure as 6 trunk means are, with 5
    degrees of freedom (Searle, Casella and McCulloch 1992, chapter 3). The deviations are small
    beside the prior on a trunk's.
    """
    rng = np.random.default_rng(8)
    y = 2e-4 * rng.standard_normal(6)[:, None] + 1e-4 * rng.standard_normal((6, 4))
    flops = np.tile(np.geomspace(1e10, 1e16, 4), 6)
    columns = {"flops": flops, "cross_entropy": 3 * np.exp(y.ravel())}
    labels = [str(i) for i in np.repeat(np.arange(6), 4)]
    nothing = {"A": 1e-12, "a": 1.0}
    result = fit(
        columns, "compute", trunk=labels, fixed=nothing, loss="squares", holdout=0, bootstrap=50
    )
    lo, hi = np.log(result.band({"flops": 1e12}))
    half = t.ppf(0.95, 5) * np.std(y.mean(axis=1), ddof=1) / np.sqrt(6)
    assert (lo + hi) / 2 == pytest.approx(np.log(3) + y.mean())
    assert (hi - lo) / 2 == pytest.approx(half, rel=1e-3)
    assert result.new_run is not None
    between, within = 4 * y.mean(axis=1).var(ddof=1), y.var(axis=1, ddof=1).mean()
    assert result.new_run.variance == pytest.approx(within + (between - within) / 4, rel=1e-3)


# --- the law's own error ------------------------------------------------------------------------


def test_the_drift_adds_in_squares_beyond_the_largest_run() -> None:
    """.03 a decade: two decades beyond it adds .06^2, and inside nothing."""
    known = NewRun(variance=4e-4, drift=0.03, largest_flops=1e18, flops_per_6nd=1.0)
    at = known.at(np.log([1e15, 1e18, 1e19, 1e20]))
    np.testing.assert_allclose(at, [4e-4, 4e-4, 4e-4 + 9e-4, 4e-4 + 36e-4])


@pytest.mark.parametrize("law", ["chinchilla", "generalized"])
def test_a_law_that_holds_does_not_drift(law: str) -> None:
    columns = runs(*grid(6, 6), 0.0, 0)
    assert drift(fit(columns, law, bootstrap=50, holdout=0)) < 1e-6


def test_the_drift_of_a_law_that_holds_is_within_the_noise() -> None:
    """.3 % noise, a decade of compute: of the order of the noise, none in many a study."""
    found = [
        drift(fit(runs(*grid(6, 6), 0.003, s), "chinchilla", bootstrap=50, holdout=0))
        for s in range(10)
    ]
    assert min(found) == 0.0
    assert np.median(found) < 0.006
    assert max(found) < 0.02


@pytest.mark.parametrize("law", ["chinchilla", "compute"])
def test_a_law_that_does_not_hold_drifts(law: str) -> None:
    found = [
        drift(fit(bent(*grid(6, 6), 0.003, s), law, bootstrap=50, holdout=0)) for s in range(4)
    ]
    assert min(found) > 0.01


def test_too_few_runs_measure_no_drift() -> None:
    """8 runs leave no rolling back-test a law of 5 parameters: the drift is not known, not 0."""
    result = fit(runs(*grid(4, 2), 0.003, 0), "chinchilla", bootstrap=50)
    assert result.new_run is not None
    assert result.new_run.drift is None


def test_the_interval_of_a_new_run_widens_with_the_distance_by_the_drift() -> None:
    """Beyond the widening of the curve's own interval, and only beyond the runs."""
    result = fit(bent(*grid(6, 6), 0.003, 0), "chinchilla", bootstrap=100, holdout=0)
    z = NormalDist().inv_cdf(0.95)
    for decades in (-1.0, 0.0, 1.0, 2.0, 3.0):
        model = farther(decades)
        curve, new_run = result.band(model), result.new_runs(model)
        upper = np.log(new_run[1] / result.predict(model)) ** 2
        upper = upper - np.log(curve[1] / result.predict(model)) ** 2
        assert result.new_run is not None
        own = z**2 * (result.new_run.variance + (drift(result) * max(decades, 0)) ** 2)
        assert upper == pytest.approx(own, rel=1e-6)


def test_flops_are_counted_as_the_runs_were() -> None:
    """Runs that cost 8*N*D: a model given by N and D alone is charged the same."""
    columns = bent(*grid(6, 6), 0.003, 0)
    columns["flops"] = 8 * columns[N] * columns["n_tokens"]
    result = fit(columns, "chinchilla", bootstrap=50, holdout=0)
    model = farther(2.0)
    counted = {**model, "flops": 8 * model[N] * model["n_tokens"]}
    np.testing.assert_allclose(result.new_runs(model), result.new_runs(counted))
    dearer = {**model, "flops": 800 * model[N] * model["n_tokens"]}
    assert log_width(result.new_runs(dearer)) > log_width(result.new_runs(counted))
    assert result.beyond(model)["flops"] == pytest.approx(100.0)


# --- coverage -----------------------------------------------------------------------------------


def test_new_runs_fall_into_their_interval_as_often_as_it_says() -> None:
    """Runs that obey the law with independent noise, held out: the 90 % interval covers 90 %."""
    inside = 0.0
    for seed in range(10):
        tested = fit(runs(*grid(6, 6), 0.005, seed), "chinchilla", bootstrap=50).holdout
        assert tested is not None
        assert tested.n_test == 11
        assert tested.coverage_90 is not None
        inside += tested.coverage_90 * tested.n_test
    assert inside >= binom.ppf(0.001, 110, 0.9)


def test_runs_beyond_a_bent_law_are_covered_for_its_drift() -> None:
    """Two thirds of the runs are fitted; the interval without the drift misses the rest."""
    inside: list[float] = []
    without: list[float] = []
    for seed in range(5):
        columns = bent(*grid(6, 6), 0.003, seed)
        order = np.argsort(columns[N] * columns["n_tokens"])
        train, test = (
            {name: column[rows] for name, column in columns.items()}
            for rows in (order[:24], order[24:])
        )
        result = fit(train, "chinchilla", bootstrap=50, holdout=0)
        assert result.new_run is not None
        still = replace(result, new_run=replace(result.new_run, drift=0.0))
        for covered, law in ((inside, result), (without, still)):
            lo, hi = law.new_runs(test)
            y = test["cross_entropy"]
            covered.append(float(np.mean((lo <= y) & (y <= hi))))
    assert np.mean(without) < 0.6
    assert np.mean(inside) > 0.8
