"""The solver against scipy's, and against what follows from the objective alone."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import OptimizeResult, least_squares
from scipy.optimize import minimize as scipy_minimize
from scipy.special import huber as scipy_huber

from kdlaws.laws import LAWS, solve
from kdlaws.laws.coordinates import coordinates
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.law import D, N
from kdlaws.laws.solve import DELTA, Problem, huber, minimise
from kdlaws.laws.whiten import Whitening

CHINCHILLA = LAWS["chinchilla"]


def chinchilla_problem(n: FloatArray, d: FloatArray, loss: FloatArray) -> Problem:
    x = {N: np.log(n), D: np.log(d)}
    return Problem(coordinates(CHINCHILLA, x, float(np.median(loss)), {}), x, np.log(loss))


@pytest.fixture(scope="module")
def problem() -> Problem:
    """24 runs with 1 % noise and two outliers."""
    rng = np.random.default_rng(3)
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1, 60, 6), np.geomspace(1, 20, 4)))
    loss = (2.0 + 1.5 * n**-0.4 + 1.2 * d**-0.35) * np.exp(0.01 * rng.standard_normal(n.size))
    loss[[3, 17]] *= [1.3, 0.8]
    return chinchilla_problem(n, d, loss)


@pytest.fixture(scope="module")
def starts(problem: Problem) -> FloatArray:
    return CHINCHILLA.starts(problem.x, np.exp(problem.log_y))


def residual(v: FloatArray, problem: Problem) -> FloatArray:
    """Written out again, from the parameters as people write them."""
    u = problem.coordinates.parameters(v)
    (floor, size, data), (alpha, beta) = np.exp(u[:3]), u[3:]
    n, d = np.exp(problem.x[N]), np.exp(problem.x[D])
    curve: FloatArray = np.log(floor + size / n**alpha + data / d**beta)
    return curve - problem.log_y


def by_scipy(problem: Problem, start: FloatArray) -> OptimizeResult:
    """Its trust region for robust least squares; its cost is our objective."""
    lower, upper = problem.coordinates.lower, problem.coordinates.upper
    return least_squares(
        residual,
        np.clip(start, lower + 1e-3, upper - 1e-3),
        "3-point",
        bounds=(lower, upper),
        loss="huber" if np.isfinite(problem.delta) else "linear",
        f_scale=problem.delta if np.isfinite(problem.delta) else 1.0,
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
        args=(problem,),
    )


# --- the loss -----------------------------------------------------------------------------------


def test_the_huber_loss_is_scipys() -> None:
    r = np.linspace(-4e-3, 4e-3, 41)
    np.testing.assert_allclose(huber(r, DELTA), scipy_huber(DELTA, r), rtol=1e-12)


def test_an_endless_delta_is_half_the_square() -> None:
    r = np.linspace(-40.0, 40.0, 41)
    np.testing.assert_allclose(huber(r, np.inf), r**2 / 2, rtol=1e-14)


# --- the optimum --------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [1e-3, 1e-2, np.inf])
def test_the_optimum_is_that_of_scipys_least_squares(
    problem: Problem, starts: FloatArray, delta: float
) -> None:
    """From the optimum itself, scipy finds nothing better; from a start, nothing else."""
    problem = replace(problem, delta=delta)
    solution = minimise(problem, None, starts)
    best = solution.objective.argmin()
    assert solution.gradient[best] < 1e-6
    assert by_scipy(problem, solution.v[best]).cost >= solution.objective[best] * (1 - 1e-9)
    theirs = by_scipy(problem, starts[13])
    assert theirs.cost == pytest.approx(solution.objective[best], rel=1e-2)
    back = minimise(problem, None, theirs.x[None])
    np.testing.assert_allclose(back.v[0], solution.v[best], atol=1e-4)


def test_least_squares_are_scipys_to_many_digits(problem: Problem, starts: FloatArray) -> None:
    squares = replace(problem, delta=np.inf)
    solution = minimise(squares, None, starts)
    theirs = by_scipy(squares, starts[13])
    assert solution.objective.min() == pytest.approx(theirs.cost, rel=1e-10)
    np.testing.assert_allclose(solution.v[solution.objective.argmin()], theirs.x, rtol=1e-5)


def test_l_bfgs_b_finds_nothing_better(problem: Problem, starts: FloatArray) -> None:
    """The usual solver of scaling laws, on the usual objective (scaled: its tolerance is absolute).

    It stops earlier: near the optimum, in a valley that is flat along E.
    """
    solution = minimise(problem, None, starts)
    lower, upper = problem.coordinates.lower, problem.coordinates.upper
    results = [
        scipy_minimize(
            lambda v: 1e3 * scipy_huber(DELTA, residual(v, problem)).sum(),
            start,
            method="L-BFGS-B",
            bounds=list(zip(lower, upper, strict=True)),
            options={"maxiter": 5000, "maxfun": 50_000, "ftol": 1e-15, "gtol": 1e-9},
        )
        for start in starts[::6]
    ]
    theirs = min(result.fun for result in results) / 1e3
    assert solution.objective.min() <= theirs * (1 + 1e-9)
    assert theirs == pytest.approx(solution.objective.min(), rel=1e-3)


@pytest.mark.parametrize("delta", [1e-7, DELTA, np.inf])
def test_runs_without_noise_give_the_truth(delta: float) -> None:
    """And count as stationary, although their residuals are rounding errors."""
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1, 60, 6), np.geomspace(1, 20, 4)))
    exact = chinchilla_problem(n, d, 2.0 + 1.5 * n**-0.4 + 1.2 * d**-0.35)
    starts = CHINCHILLA.starts(exact.x, np.exp(exact.log_y))
    solution = minimise(replace(exact, delta=delta), None, starts)
    best = solution.objective.argmin()
    u = exact.coordinates.parameters(solution.v[best])
    expected = [*np.log([2.0, 1.5, 1.2]), 0.4, 0.35]
    np.testing.assert_allclose(u, expected, rtol=1e-6)
    assert solution.gradient[best] < 1e-6


def test_nine_starts_in_ten_find_it(problem: Problem, starts: FloatArray) -> None:
    """Where the usual grid of starts succeeds with 8.8 % on the Chinchilla runs."""
    objective = minimise(replace(problem, delta=0.0135), None, starts).objective
    assert np.mean(objective < objective.min() * (1 + 1e-6)) > 0.9


def test_an_optimum_outside_the_box_is_found_on_its_wall() -> None:
    """Loss that rises with N: the best falling curve is the flattest, at the median loss."""
    n = np.geomspace(1.0, 100.0, 13)
    rising = chinchilla_problem(n, np.ones(13), 3.0 + 0.2 * np.log(n))
    solution = minimise(rising, None, CHINCHILLA.starts(rising.x, np.exp(rising.log_y)))
    v = solution.v[solution.objective.argmin()]
    lower, upper = rising.coordinates.lower, rising.coordinates.upper
    assert (v >= lower).all()
    assert (v <= upper).all()
    assert (v == lower).any()
    assert solution.gradient.min() < 1e-6
    curve = rising.coordinates.value(v[None], rising.x)[0]
    np.testing.assert_allclose(curve, np.median(rising.log_y), atol=0.01)


def test_a_wall_between_start_and_optimum_is_scipys_too(
    problem: Problem, starts: FloatArray
) -> None:
    """E at least 2.2, where the runs say 2.0."""
    at = problem.coordinates
    walled = replace(
        problem, coordinates=replace(at, lower=np.array([np.log(2.2), *at.lower[1:]])), delta=np.inf
    )
    solution = minimise(walled, None, starts)
    best = solution.objective.argmin()
    assert solution.v[best, 0] == np.log(2.2)
    assert solution.objective[best] == pytest.approx(by_scipy(walled, starts[-1]).cost, rel=1e-8)


def test_fits_that_run_into_a_wall_go_on_along_it() -> None:
    """Resamples of runs with 1 % noise and a low floor, of which a good third say E = 0.

    scipy, begun where they ended and with each run as often as its weight, finds nothing better.
    """
    rng = np.random.default_rng(6)
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(6e3, 8e5, 5), np.geomspace(1e5, 8e5, 5)))
    noise = np.exp(0.01 * rng.standard_normal(25))
    noisy = replace(
        chinchilla_problem(n, d, (0.3 + 40 / n**0.3 + 300 / d**0.4) * noise), delta=0.0135
    )
    counts = rng.multinomial(25, np.full(25, 1 / 25), size=100)
    begin = CHINCHILLA.starts(noisy.x, np.exp(noisy.log_y))[13]
    solution = minimise(noisy, counts.astype(float), np.tile(begin, (100, 1)))
    floor = noisy.coordinates.lower[0]
    on_the_wall = solution.v[:, 0] == floor
    assert 10 < on_the_wall.sum() < 60
    assert solution.gradient.max() < 1e-6
    for i in np.flatnonzero(on_the_wall)[:5]:
        again = by_scipy(resampled(noisy, counts[i]), solution.v[i])
        assert again.cost >= solution.objective[i] * (1 - 1e-6)


def resampled(problem: Problem, counts: NDArray[np.int64]) -> Problem:
    """Each run as often as it is counted, in the same coordinates."""
    x = {name: np.repeat(values, counts) for name, values in problem.x.items()}
    return replace(problem, x=x, log_y=np.repeat(problem.log_y, counts))


def test_nothing_to_move_is_an_optimum() -> None:
    values = {"E": 2.0, "A": 1.5, "B": 1.2, "alpha": 0.4, "beta": 0.35}
    x = {N: np.log([1.0, 4.0, 9.0]), D: np.zeros(3)}
    log_y = np.array([1.5, 1.4, 1.3])
    pinned = Problem(coordinates(CHINCHILLA, x, 4.0, values), x, log_y, np.inf)
    solution = minimise(pinned, None, np.empty((1, 0)))
    expected = np.log(2.0 + 1.5 / np.array([1.0, 4.0, 9.0]) ** 0.4 + 1.2) - log_y
    assert solution.objective[0] == pytest.approx(expected @ expected / 2)
    assert solution.gradient[0] == 0


# --- weights, batches, blocks -------------------------------------------------------------------


def test_a_weight_counts_a_run_that_often(problem: Problem, starts: FloatArray) -> None:
    counts = np.random.default_rng(8).integers(0, 4, 24)
    weighted = minimise(problem, np.tile(counts.astype(float), (len(starts), 1)), starts)
    plain = minimise(resampled(problem, counts), None, starts)
    assert weighted.objective.min() == pytest.approx(plain.objective.min(), rel=1e-6)
    np.testing.assert_allclose(
        weighted.v[weighted.objective.argmin()], plain.v[plain.objective.argmin()], atol=1e-5
    )


def test_a_run_without_weight_may_say_anything(problem: Problem, starts: FloatArray) -> None:
    weights = np.ones((len(starts), 24))
    weights[:, 5] = 0
    wild = replace(problem, log_y=np.where(np.arange(24) == 5, 9.0, problem.log_y))
    one, other = (minimise(each, weights, starts) for each in (problem, wild))
    np.testing.assert_allclose(one.v, other.v, rtol=1e-9)


def batch(problem: Problem, starts: FloatArray) -> tuple[Problem, FloatArray, FloatArray]:
    """Six fits, each with weights, losses and a start of its own."""
    rng = np.random.default_rng(9)
    weights = rng.multinomial(24, np.full(24, 1 / 24), size=6).astype(float)
    log_y = problem.log_y + 0.01 * rng.standard_normal((6, 24))
    return replace(problem, log_y=log_y), weights, starts[:6]


def test_fits_of_a_batch_do_not_depend_on_each_other(problem: Problem, starts: FloatArray) -> None:
    several, weights, begin = batch(problem, starts)
    together = minimise(several, weights, begin)
    for i in range(6):
        alone = minimise(
            replace(problem, log_y=several.log_y[i]), weights[i : i + 1], begin[i : i + 1]
        )
        np.testing.assert_allclose(alone.v[0], together.v[i], rtol=1e-6)
        assert alone.objective[0] == pytest.approx(together.objective[i], rel=1e-9)


def test_blocks_do_not_show(
    problem: Problem, starts: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two fits at a time, each with weights, losses and a pin of its own."""
    several, weights, begin = batch(problem, starts)
    at = coordinates(CHINCHILLA, problem.x, 3.0, {"beta": np.linspace(0.2, 0.6, 6)})
    several, begin = replace(several, coordinates=at), begin[:, :4]
    together = minimise(several, weights, begin)
    monkeypatch.setattr(solve, "BLOCK_NUMBERS", 2 * 24)
    apart = minimise(several, weights, begin)
    np.testing.assert_allclose(apart.v, together.v, rtol=1e-8)
    np.testing.assert_allclose(apart.objective, together.objective, rtol=1e-12)


# --- trunks -------------------------------------------------------------------------------------


def test_whitened_residuals_are_generalised_least_squares(
    problem: Problem, starts: FloatArray
) -> None:
    """With the covariance V = 1 + ratio ZZ' written out, and its Cholesky factor in scipy's."""
    cluster = np.repeat(np.arange(8), [1, 5, 2, 4, 3, 3, 5, 1])
    whitened = replace(problem, delta=np.inf, whiten=Whitening(cluster, 2.5))
    solution = minimise(whitened, None, starts)
    factor = cholesky(np.eye(24) + 2.5 * (cluster[:, None] == cluster), lower=True)
    theirs = least_squares(
        lambda v: solve_triangular(factor, residual(v, problem), lower=True),
        starts[13],
        "3-point",
        bounds=(problem.coordinates.lower, problem.coordinates.upper),
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    )
    assert solution.objective.min() == pytest.approx(theirs.cost, rel=1e-7)
    np.testing.assert_allclose(solution.v[solution.objective.argmin()], theirs.x, atol=1e-4)
