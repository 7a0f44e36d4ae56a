"""The solver against scipy's, and against what follows from the objective alone."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import huber as scipy_huber

from kdlaws.laws.forms import CHINCHILLA
from kdlaws.laws.solve import DELTA, Problem, huber, minimise

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def problem() -> Problem:
    """24 runs with 1 % noise and two outliers."""
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1, 60, 6), np.geomspace(1, 20, 4)))
    loss = (2.0 + 1.5 * n**-0.4 + 1.2 * d**-0.35) * np.exp(0.01 * RNG.standard_normal(n.size))
    loss[[3, 17]] *= [1.3, 0.8]
    lower, upper = CHINCHILLA.bounds(loss)
    return Problem(CHINCHILLA.log_form, np.log([n, d]), np.log(loss), lower, upper)


def starts(problem: Problem) -> np.ndarray:
    return CHINCHILLA.starts(np.exp(problem.log_y))


def objective(u: np.ndarray, problem: Problem) -> float:
    """Written out again, in scipy's Huber function and natural parameters."""
    (e, a, b), (alpha, beta) = np.exp(u[:3]), u[3:]
    n, d = np.exp(problem.x)
    residual = np.log(e + a / n**alpha + b / d**beta) - problem.log_y
    return float(scipy_huber(DELTA, residual).sum())


def test_the_huber_loss_is_scipys() -> None:
    residual = np.linspace(-4e-3, 4e-3, 41)
    np.testing.assert_allclose(huber(residual), scipy_huber(DELTA, residual), rtol=1e-12)


def test_the_optimum_is_what_scipy_finds(problem: Problem) -> None:
    solution = minimise(problem, np.ones((27, 24)), starts(problem))
    best = solution.objective.argmin()
    assert solution.gradient[best] < 1e-6
    assert solution.objective[best] == pytest.approx(objective(solution.u[best], problem))
    box = list(zip(problem.lower, problem.upper, strict=True))
    options = {"maxiter": 5000, "maxfun": 50_000, "ftol": 1e-15, "gtol": 1e-9}
    scaled = [
        minimize(
            lambda u: 1e3 * objective(u, problem),
            start,
            method="L-BFGS-B",
            bounds=box,
            options=options,
        )
        for start in starts(problem)[::6]
    ]
    theirs = min(scaled, key=lambda result: result.fun)
    assert solution.objective[best] <= theirs.fun / 1e3 * (1 + 1e-9)
    # They stop earlier: near the optimum, in a valley that is flat along E.
    assert theirs.fun / 1e3 == pytest.approx(solution.objective[best], rel=1e-3)
    near_theirs = minimise(problem, np.ones((1, 24)), theirs.x[None])
    np.testing.assert_allclose(near_theirs.u[0], solution.u[best], atol=1e-3)


def test_a_weight_counts_a_run_that_often(problem: Problem) -> None:
    counts = RNG.integers(0, 4, 24)
    repeated = Problem(
        problem.log_form,
        np.repeat(problem.x, counts, axis=1),
        np.repeat(problem.log_y, counts),
        problem.lower,
        problem.upper,
    )
    weighted = minimise(problem, np.tile(counts.astype(float), (27, 1)), starts(problem))
    plain = minimise(repeated, np.ones((27, counts.sum())), starts(problem))
    assert weighted.objective.min() == pytest.approx(plain.objective.min(), rel=1e-6)


def test_fits_of_a_batch_do_not_depend_on_each_other(problem: Problem) -> None:
    weights = RNG.multinomial(24, np.full(24, 1 / 24), size=6).astype(float)
    together = minimise(problem, weights, starts(problem)[:6])
    for i in range(6):
        alone = minimise(problem, weights[i : i + 1], starts(problem)[i : i + 1])
        np.testing.assert_allclose(alone.u[0], together.u[i], rtol=1e-6)


def test_an_optimum_outside_the_box_is_found_on_its_wall() -> None:
    """Loss that rises with N: the best falling curve is the flattest, at the median loss."""
    n = np.geomspace(1.0, 100.0, 13)
    log_y = np.log(3.0 + 0.2 * np.log(n))
    lower, upper = CHINCHILLA.bounds(np.exp(log_y))
    problem = Problem(CHINCHILLA.log_form, np.log([n, np.ones(13)]), log_y, lower, upper)
    solution = minimise(problem, np.ones((27, 13)), starts(problem))
    u = solution.u[solution.objective.argmin()]
    assert (u >= lower).all()
    assert (u <= upper).all()
    assert (u == lower).any()
    curve = CHINCHILLA.log_form(u, problem.x)[0]
    np.testing.assert_allclose(curve, np.median(log_y), atol=0.01)
