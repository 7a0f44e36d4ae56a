"""Profile intervals, against the linear model's exact ones and against profiles made by scipy."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import brentq, least_squares
from scipy.stats import linregress, t

from kdlaws.laws import LAWS
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.estimate import Stage
from kdlaws.laws.law import Columns, D, N, real
from kdlaws.laws.profile import Range, profile
from kdlaws.laws.uncertainty import linear

from .textbook import MEAN, POWER, fitted

CHINCHILLA = LAWS["chinchilla"]


def of(stage: Stage, name: str, level: float = 0.9) -> Range:
    law = stage.coordinates.law
    return profile(stage, law.parameters.index(name), linear(stage), level)


def grid() -> Columns:
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(6e3, 8e5, 5), np.geomspace(1e5, 8e5, 5)))
    return {N: np.log(n), D: np.log(d)}


def log_curve(x: Columns, e: float, a: float, b: float, alpha: float, beta: float) -> FloatArray:
    curve: FloatArray = np.log(e + a * np.exp(-alpha * x[N]) + b * np.exp(-beta * x[D]))
    return curve


# --- where the linear model is exact ------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_a_straight_lines_profile_is_its_textbook_interval(level: float) -> None:
    """Estimate +- t standard errors, n - 2 degrees of freedom, for intercept and slope."""
    log_n = np.linspace(9, 14, 12)
    log_y = 3.0 - 0.2 * log_n + 0.01 * np.random.default_rng(1).standard_normal(12)
    line, quantile = linregress(log_n, log_y), t.ppf((1 + level) / 2, 10)
    stage = fitted(POWER, {N: log_n}, log_y)
    for name, middle, error in (
        ("A", line.intercept, line.intercept_stderr),
        ("alpha", -line.slope, line.stderr),
    ):
        ends = of(stage, name, level)
        expected = (middle - quantile * error, middle + quantile * error)
        assert (ends.lo, ends.hi) == pytest.approx(expected, rel=1e-5)


def test_the_profile_of_a_balanced_layouts_mean_is_that_of_its_trunks() -> None:
    """t with m - 1 degrees of freedom, and the standard error of the trunks' means."""
    rng = np.random.default_rng(4)
    cluster = np.repeat(np.arange(6), 4)
    log_y = 1.0 + 2e-5 * rng.standard_normal(6)[cluster] + 1e-5 * rng.standard_normal(24)
    stage = fitted(MEAN, {N: np.linspace(9, 14, 24)}, log_y, cluster=cluster)
    means = log_y.reshape(6, 4).mean(axis=1)
    half = t.ppf(0.95, 5) * means.std(ddof=1) / np.sqrt(6)
    ends = of(stage, "A")
    expected = (means.mean() - half, means.mean() + half)
    assert (ends.lo, ends.hi) == pytest.approx(expected, abs=1e-3 * half)


def test_runs_without_noise_leave_no_room() -> None:
    x = grid()
    ends = of(fitted(CHINCHILLA, x, log_curve(x, 1.5, 40.0, 300.0, 0.3, 0.4)), "alpha")
    assert (ends.lo, ends.hi) == pytest.approx((0.3, 0.3), abs=1e-6)


# --- where it is not ----------------------------------------------------------------------------


TIGHT = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14}
START = np.array([0.5, 1.0, 0.5, 0.3, 0.4])


class Scipys:
    """Chinchilla by least squares; log scales are told at the means of log N and log D.

    ``ratio`` is var(u) / var(e) of the trunks in ``cluster``; ``basis`` gives all five parameters
    from those that move.
    """

    def __init__(
        self,
        x: Columns,
        log_y: FloatArray,
        cluster: NDArray[np.int64] | None = None,
        ratio: float = 0.0,
        basis: FloatArray | None = None,
    ) -> None:
        trunks = np.arange(25) if cluster is None else cluster
        self.factor = cholesky(np.eye(25) + ratio * (trunks[:, None] == trunks), lower=True)
        self.x = {name: column - column.mean() for name, column in x.items()}
        self.log_y, self.basis = log_y, np.eye(5) if basis is None else basis

    def residual(self, v: FloatArray) -> FloatArray:
        u = self.basis @ v
        curve = log_curve(self.x, *np.exp(u[:3]), *u[3:])
        white: FloatArray = solve_triangular(self.factor, curve - self.log_y, lower=True)
        return white

    def cost(self, k: int, end: float) -> float:
        """Half the least sum of squares with parameter ``k`` pinned, all others fitted anew."""
        others = np.delete(START[: self.basis.shape[1]], k)
        found = least_squares(
            lambda v: self.residual(np.insert(v, k, end)), others, "3-point", **TIGHT
        )
        return float(found.cost)

    def ends(self, k: int, quantile: float) -> tuple[float, float]:
        """Where it is the least one times 1 + quantile^2 / (n - p)."""
        start = START[: self.basis.shape[1]]
        best = least_squares(self.residual, start, "3-point", **TIGHT)
        allowed = best.cost * (1 + quantile**2 / (25 - len(start)))
        at = float(best.x[k])
        lo, hi = (
            brentq(lambda end: self.cost(k, end) - allowed, at, at + side, xtol=1e-6)
            for side in (-0.3, 0.3)
        )
        return lo, hi


@pytest.mark.parametrize("name", ["E", "alpha", "beta"])
def test_the_ends_are_where_scipys_profile_crosses(name: str) -> None:
    """To 1 % of the interval."""
    x = grid()
    noise = 0.004 * np.random.default_rng(3).standard_normal(25)
    log_y = log_curve(x, 1.5, 40.0, 300.0, 0.3, 0.4) + noise
    stage, k = fitted(CHINCHILLA, x, log_y), CHINCHILLA.parameters.index(name)
    lo, hi = Scipys(x, log_y).ends(k, t.ppf(0.95, 20))
    ends = of(stage, name)
    assert (ends.lo, ends.hi) == pytest.approx((lo, hi), abs=0.01 * (hi - lo))


def test_the_profile_of_a_floor_is_longer_below() -> None:
    """Unlike the linear interval: E may almost vanish, and cannot rise to the lowest loss."""
    x = grid()
    noise = 0.004 * np.random.default_rng(3).standard_normal(25)
    stage = fitted(CHINCHILLA, x, log_curve(x, 1.5, 40.0, 300.0, 0.3, 0.4) + noise)
    u, ends = stage.coordinates.parameters(stage.v)[0], of(stage, "E")
    assert ends.lo is not None
    assert ends.hi is not None
    assert u - ends.lo > 1.1 * (ends.hi - u)


def test_trunks_are_whitened_and_have_their_own_degrees_of_freedom() -> None:
    """Against generalised least squares at the variances' ratio, alpha having fewer degrees."""
    x, rng = grid(), np.random.default_rng(5)
    cluster = np.tile(np.arange(5), 5)
    noise = 0.004 * rng.standard_normal(5)[cluster] + 0.002 * rng.standard_normal(25)
    log_y = log_curve(x, 1.5, 40.0, 300.0, 0.3, 0.4) + noise
    stage = fitted(CHINCHILLA, x, log_y, cluster=cluster)
    assert stage.variances is not None
    degrees = float(linear(stage).degrees(np.eye(5)[3]))
    assert 1 < degrees < 5
    scipys = Scipys(x, log_y, cluster, stage.variances.ratio)
    lo, hi = scipys.ends(3, t.ppf(0.95, degrees))
    ends = of(stage, "alpha")
    assert (ends.lo, ends.hi) == pytest.approx((lo, hi), abs=0.01 * (hi - lo))


def test_a_tie_is_kept_along_the_profile() -> None:
    """One exponent for both terms, against the same by scipy."""
    x = grid()
    noise = 0.004 * np.random.default_rng(3).standard_normal(25)
    log_y = log_curve(x, 1.5, 40.0, 300.0, 0.35, 0.35) + noise
    stage = fitted(CHINCHILLA, x, log_y, fixed={"alpha": "beta"})
    scipys = Scipys(x, log_y, basis=np.eye(5)[:, :4] + np.outer(np.eye(5)[4], np.eye(4)[3]))
    lo, hi = scipys.ends(3, t.ppf(0.95, 21))
    ends = of(stage, "beta")
    assert (ends.lo, ends.hi) == pytest.approx((lo, hi), abs=0.01 * (hi - lo))


# --- what the runs leave open -------------------------------------------------------------------


@pytest.mark.parametrize("n_trunks", [25, 5], ids=["runs", "trunks"])
def test_a_flat_direction_shows_its_whole_length(n_trunks: int) -> None:
    """All runs at one D: beta may be anything, and B/D^beta stays below the loss up to beta = 3."""
    x = {**grid(), D: np.full(25, np.log(3e5))}
    noise = 0.004 * np.random.default_rng(6).standard_normal(25)
    cluster = np.tile(np.arange(n_trunks), 25 // n_trunks)
    log_y = log_curve(x, 1.5, 40.0, 300.0, 0.3, 0.4) + noise
    stage = fitted(CHINCHILLA, x, log_y, cluster=cluster)
    assert of(stage, "beta") == Range(None, None)
    of_b = of(stage, "B")
    assert of_b.lo is None
    assert of_b.hi == pytest.approx(3 * np.log(3e5) + log_y.min(), rel=0.05)


@pytest.mark.parametrize("n_trunks", [25, 5], ids=["runs", "trunks"])
def test_a_parameter_that_moves_nothing_is_open(n_trunks: int) -> None:
    idle = replace(POWER, unknowns=(*POWER.unknowns, real("idle", (-10.0, 10.0), None)))
    begin = np.array([[1.0, 0.3, 0.5]])
    cluster = np.tile(np.arange(n_trunks), 25 // n_trunks)
    noise = 0.004 * np.random.default_rng(6).standard_normal(25)
    x = {N: np.linspace(9, 14, 25)}
    stage = fitted(
        replace(idle, starts=lambda *_: begin), x, 3 - 0.2 * x[N] + noise, cluster=cluster
    )
    assert of(stage, "idle") == Range(None, None)
    known, alone = (
        of(stage, "alpha"),
        of(fitted(POWER, x, stage.runs.log_y, cluster=cluster), "alpha"),
    )
    assert (known.lo, known.hi) == pytest.approx((alone.lo, alone.hi), abs=1e-3)


def test_a_floor_that_may_be_zero_is_open_below_and_bounded_above() -> None:
    """Runs whose floor is a third of a percent of their loss, against scipy's profile."""
    x = grid()
    noise = 0.004 * np.random.default_rng(7).standard_normal(25)
    log_y = log_curve(x, 0.01, 40.0, 300.0, 0.3, 0.4) + noise
    scipys = Scipys(x, log_y)
    allowed = scipys.cost(0, -30.0) * (1 + t.ppf(0.95, 20) ** 2 / 20)
    hi = brentq(lambda end: scipys.cost(0, end) - allowed, -5.0, 0.0, xtol=1e-6)
    ends = of(fitted(CHINCHILLA, x, log_y), "E")
    assert ends.lo is None
    assert ends.hi == pytest.approx(hi, abs=0.05)
