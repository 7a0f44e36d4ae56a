"""Refits to resampled runs: against refitted tables, and against the sandwich of regression."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdlaws.laws import fit
from kdlaws.laws.catalogue import find
from kdlaws.laws.columns import Runs, read_runs
from kdlaws.laws.estimate import Estimate, estimate
from kdlaws.laws.law import N
from kdlaws.laws.resample import refit
from kdlaws.laws.uncertainty import Resampled

N_COLUMN = "n_params_non_embedding"
L_T = "teacher_cross_entropy"

Array = NDArray[Any]


def noise(n: int, deviation: float, seed: int = 0) -> Array:
    return np.exp(deviation * np.random.default_rng(seed).standard_normal(n))


def chinchilla() -> dict[str, Array]:
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(6e3, 8e5, 5), np.geomspace(1e5, 8e5, 5)))
    loss = (1.5 + 40 / n**0.3 + 300 / d**0.4) * noise(25, 0.004)
    return {N_COLUMN: n, "n_tokens": d, "cross_entropy": loss}


def fitted(columns: dict[str, Array], law: str, trunk: list[str] | None = None) -> Estimate:
    form = find(law)
    return estimate(form, read_runs(columns, form, N_COLUMN, trunk), {}, "huber")


def draws(n_clusters: int, n_resamples: int, seed: int) -> Array:
    """How often each resample holds each cluster, as the same generator draws it."""
    shares = np.full(n_clusters, 1 / n_clusters)
    return np.random.default_rng(seed).multinomial(n_clusters, shares, size=n_resamples)


def repeated(runs: Runs, counts: Array) -> Runs:
    """The table in which each run stands as often as it was drawn, each of its own trunk."""
    again = runs[np.repeat(np.arange(len(runs)), counts)]
    return Runs(again.x, again.cross_entropy, np.arange(len(again)))


def test_a_refit_is_the_fit_to_the_resampled_table() -> None:
    once = fitted(chinchilla(), "chinchilla")
    refits = refit(once, 5, np.random.default_rng(7))
    for u, counts in zip(refits, draws(25, 5, 7), strict=True):
        table = estimate(once.law, repeated(once.runs, counts), {}, "huber")
        curves = once.log_curve(np.stack([u, table.u]), once.runs)
        np.testing.assert_allclose(curves[0], curves[1], atol=1e-5)


def test_the_scatter_of_refits_is_the_sandwich_of_regression() -> None:
    """A power law without a floor is a straight line in logarithms.

    The pairs bootstrap of its slope estimates White's (1980) heteroscedastic standard error,
    which 4,000 refits meet within a few percent.
    """
    x = np.linspace(20.0, 40.0, 200)
    e = 0.02 * (1 + (x - 20) / 5) * np.random.default_rng(4).standard_normal(200)
    columns = {"flops": np.exp(x), "cross_entropy": np.exp(4 - 0.1 * x + e)}
    result = fit(columns, "compute", fixed={"E": 1e-9}, loss="squares", bootstrap=4000, holdout=0)
    assert isinstance(result.uncertainty, Resampled)
    slope = result.uncertainty.samples[:, list(result.parameters).index("a")]
    design = np.stack([np.ones(200), x])
    line = np.linalg.lstsq(design.T, 4 - 0.1 * x + e, rcond=None)[0]
    bread = np.linalg.inv(design @ design.T)
    meat = (design * (4 - 0.1 * x + e - line @ design) ** 2) @ design.T
    deviation = np.sqrt((bread @ meat @ bread)[1, 1])
    assert result.parameters["a"].value == pytest.approx(-line[1], rel=1e-5)
    assert slope.std() == pytest.approx(deviation, rel=0.06)
    lo, hi = np.quantile(slope, [0.05, 0.95])
    assert (result.parameters["a"].lo, result.parameters["a"].hi) == pytest.approx((lo, hi))


# --- two stages ---------------------------------------------------------------------------------


def busbridge(deviation: float) -> tuple[dict[str, Array], list[str]]:
    """Busbridge et al. 2025, equation 8 for c1 to infinity; trunks of one size and teacher."""
    axes = [np.nan, 2.6, 2.4, 2.2, 2.0], np.geomspace(1e8, 8e9, 5), np.geomspace(3e9, 5e11, 4)
    l_t, n, d = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    alone = 1.22 + (3355 / n**0.408 + 18186 / d**0.431) ** 0.452
    gap = l_t**-2.549 * np.exp(-((l_t / alone / 0.93) ** (1 / 0.09)))
    student = l_t + gap * (2243 / n**0.321 + 24181 / d**0.637) ** 0.764
    loss = np.where(np.isnan(l_t), alone, student) * noise(n.size, deviation)
    columns = {N_COLUMN: n, "n_tokens": d, L_T: l_t, "cross_entropy": loss}
    return columns, [f"{size:.0f} {teacher}" for size, teacher in zip(n, l_t, strict=True)]


# What the noise leaves open; pinned, each stage has one optimum.
INNER = {"A_prime": 2243.0, "B_prime": 24181.0, "alpha_prime": 0.321, "beta_prime": 0.637}
INNER |= {"gamma_prime": 0.764}


def test_both_stages_are_refitted_the_second_to_the_first() -> None:
    """Each refit is the two-stage fit of its resampled table."""
    form = find("busbridge_limit")
    runs = read_runs(busbridge(0.001)[0], form, N_COLUMN, None)
    once = estimate(form, runs, INNER, "huber")
    refits = refit(once, 3, np.random.default_rng(5))
    for name in ("E", "A", "gamma", "c0", "u0", "f1"):
        assert refits[:, form.parameters.index(name)].std() > 0, name
    for u, counts in zip(refits, draws(100, 3, 5), strict=True):
        table = estimate(form, repeated(runs, counts), INNER, "huber")
        np.testing.assert_allclose(u, table.u, rtol=1e-3)


def test_what_is_pinned_stays() -> None:
    columns, _ = busbridge(0.001)
    form = find("busbridge_limit")
    pins = {"u0": 0.93, "gamma": 0.452, "c0": 2.5}
    runs = read_runs(columns, form, N_COLUMN, None)
    refits = refit(estimate(form, runs, pins, "huber"), 4, np.random.default_rng(0))
    for name, value in pins.items():
        u = refits[:, form.parameters.index(name)]
        np.testing.assert_allclose(u, np.log(value) if name == "u0" else value)


# --- clusters -----------------------------------------------------------------------------------


def test_whole_trunks_are_drawn() -> None:
    """Runs of a trunk come or stay away together, so their common error does not average out.

    One error per trunk, and none of a run: refits scatter as one run per trunk would, sqrt(5)
    more than 5 independent ones.
    """
    flops = np.repeat(np.geomspace(1e10, 1e18, 40), 5) * np.tile(np.geomspace(0.99, 1.01, 5), 40)
    error = np.repeat(noise(40, 0.01, 3), 5)
    columns = {"flops": flops, "cross_entropy": 50 * flops**-0.05 * error}
    form = find("compute")
    scatter = {}
    for label, trunk in (("trunks", np.repeat(np.arange(40), 5)), ("runs", np.arange(200))):
        once = estimate(
            form, read_runs(columns, form, N_COLUMN, list(map(str, trunk))), {"E": 1e-9}, "squares"
        )
        refits = refit(once, 1500, np.random.default_rng(2))
        scatter[label] = refits[:, form.parameters.index("a")].std()
    assert scatter["trunks"] / scatter["runs"] == pytest.approx(np.sqrt(5), rel=0.15)


@pytest.mark.parametrize(("n_trunks", "n_refits"), [(1, 0), (3, 0), (4, 60)])
def test_fewer_than_four_clusters_give_no_refit(n_trunks: int, n_refits: int) -> None:
    trunk = [str(i % n_trunks) for i in range(25)]
    once = fitted(chinchilla(), "chinchilla", trunk)
    assert refit(once, 60, np.random.default_rng(0)).shape == (n_refits, 5)


def test_the_same_generator_gives_the_same_refits() -> None:
    once = fitted(chinchilla(), "chinchilla")
    one, again, other = (refit(once, 20, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_runs_that_obey_the_law_exactly_have_refits_at_the_optimum() -> None:
    columns = chinchilla()
    n, d = columns[N_COLUMN], columns["n_tokens"]
    once = fitted(columns | {"cross_entropy": 1.5 + 40 / n**0.3 + 300 / d**0.4}, "chinchilla")
    refits = refit(once, 30, np.random.default_rng(0))
    assert once.runs.x[N].shape == (25,)
    np.testing.assert_allclose(refits, np.tile(once.u, (30, 1)), rtol=1e-5)
