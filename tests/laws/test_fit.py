"""Fits of simulated runs of known truth, against scipy's, and of bad input."""

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import binom

from kdlaws.errors import InputError, TableError
from kdlaws.laws import LAWS, Fit, fit

N = "n_params_non_embedding"
TEACHER_N = f"teacher_{N}"
L_T = "teacher_cross_entropy"
TRUTH = {"E": 1.5, "A": 40.0, "B": 300.0, "alpha": 0.3, "beta": 0.4}

Array = NDArray[Any]
Columns = dict[str, Array]
Parameters = Mapping[str, float]


def loss(n: Array, d: Array) -> Array:
    return TRUTH["E"] + TRUTH["A"] / n ** TRUTH["alpha"] + TRUTH["B"] / d ** TRUTH["beta"]


def runs(n: Array, d: Array, noise: float = 0.0, seed: int = 0) -> Columns:
    return {N: n, "n_tokens": d, "cross_entropy": loss(n, d) * scatter(n.size, noise, seed)}


def scatter(n: int, noise: float, seed: int) -> Array:
    return np.exp(noise * np.random.default_rng(seed).standard_normal(n))


def mesh(*axes: Array) -> tuple[Array, ...]:
    return tuple(axis.ravel() for axis in np.meshgrid(*axes))


def grid(n_sizes: int, n_tokens: int) -> tuple[Array, Array]:
    d, n = mesh(np.geomspace(1e5, 8e5, n_tokens), np.geomspace(6e3, 8e5, n_sizes))
    return n, d


def trunk_study(seed: int) -> tuple[Columns, list[str]]:
    """5 sizes x 2 seeds x 5 branches; .4 % scatter of a trunk, .2 % of a branch."""
    rng = np.random.default_rng(seed)
    n, d = (np.tile(axis, 2) for axis in grid(5, 5))
    trunk = np.repeat(np.arange(10), 5)
    deviation = 0.004 * rng.standard_normal(10)[trunk] + 0.002 * rng.standard_normal(n.size)
    columns = {N: n, "n_tokens": d, "cross_entropy": loss(n, d) * np.exp(deviation)}
    return columns, [f"trunk-{i}" for i in trunk]


def codes(result: Fit) -> list[str]:
    return [notice.code for notice in result.warnings]


def interval(result: Fit, name: str) -> tuple[float, float]:
    """Of a parameter that the runs bound on both sides."""
    parameter = result.parameters[name]
    assert parameter.lo is not None
    assert parameter.hi is not None
    return parameter.lo, parameter.hi


def half_width(result: Fit, name: str) -> float:
    lo, hi = interval(result, name)
    return (hi - lo) / 2


def values(result: Fit) -> dict[str, float]:
    return {name: parameter.value for name, parameter in result.parameters.items()}


# --- the truth, exactly -------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A law's runs without noise, in plain arithmetic; ``truth`` made them."""

    law: str
    truth: Parameters
    columns: Columns
    fixed: Mapping[str, float | str] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join((self.law, *self.fixed))


def in_compute() -> Case:
    flops = np.geomspace(1e9, 1e14, 12)
    truth = {"E": 1.2, "A": 50.0, "a": 0.15}
    return Case("compute", truth, {"flops": flops, "cross_entropy": 1.2 + 50 * flops**-0.15})


def in_compute_broken() -> Case:
    """The exponent doubles at 1e17."""
    flops = np.geomspace(1e12, 1e22, 21)
    p = {"E": 1.5, "A": 150.0, "c0": 0.1, "c1": 0.1, "d1": 1e17, "f1": 0.3}
    bend = (1 + (flops / p["d1"]) ** (1 / p["f1"])) ** (-p["c1"] * p["f1"])
    return Case("broken", p, {"flops": flops, "cross_entropy": 1.5 + 150 * flops**-0.1 * bend})


def of_n_and_d(law: str, truth: Parameters, of: Callable[..., Array]) -> Case:
    n, d = mesh(np.geomspace(1e5, 1e9, 5), np.geomspace(1e7, 1e11, 5))
    return Case(law, truth, {N: n, "n_tokens": d, "cross_entropy": of(n, d, **truth)})


def kaplan(n: Array, d: Array, N_c: float, D_c: float, alpha_N: float, alpha_D: float) -> Array:
    return ((N_c / n) ** (alpha_N / alpha_D) + D_c / d) ** alpha_D


def chinchilla(n: Array, d: Array, **p: float) -> Array:
    return p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"]


def generalized(n: Array, d: Array, **p: float) -> Array:
    return p["E"] + (p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"]) ** p["gamma"]


KAPLAN = {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}
SUPERVISED = {"E": 1.22, "A": 3355.0, "B": 18186.0, "alpha": 0.408, "beta": 0.431}
SUPERVISED |= {"gamma": 0.452}
DISTILLED = {"A_prime": 2243.0, "B_prime": 24181.0, "alpha_prime": 0.321, "beta_prime": 0.637}
DISTILLED |= {"gamma_prime": 0.764}


def repeated() -> Case:
    """Muennighoff et al. 2023, equations 5 and 6, at their coefficients."""
    e, a, b, alpha = np.exp(0.6254804), np.exp(6.255414), np.exp(7.3049974), 0.3526596
    r_d, r_n = 15.387756, 5.309743
    n, u, epochs = mesh(np.geomspace(1e7, 8e9, 5), np.geomspace(1e8, 1e11, 4), np.array([1, 4, 30]))
    g = (a / b) ** (1 / (2 * alpha))
    u_n = np.minimum(n, u * g**2)
    n_eff = u_n + u_n * r_n * (1 - np.exp(-(n / u_n - 1) / r_n))
    d_eff = u + u * r_d * (1 - np.exp(-(epochs - 1) / r_d))
    truth = {"E": e, "A": a, "B": b, "alpha": alpha, "beta": alpha}
    truth |= {"R_D_star": r_d, "R_N_star": r_n}
    loss = e + a / n_eff**alpha + b / d_eff**alpha
    columns = {N: n, "n_tokens": u * epochs, "n_unique_tokens": u, "cross_entropy": loss}
    return Case("data_constrained", truth, columns)


def taught(law: str, **bracket: float) -> Case:
    """Busbridge et al. 2025, equation 8, table 6; students with four teachers and with none."""
    p = {**SUPERVISED, **DISTILLED, "c0": 2.549, **bracket, "f1": 0.09}
    teachers = np.array([np.nan, 2.6, 2.4, 2.2, 2.0])
    n, d, l_t = mesh(np.geomspace(1e8, 8e9, 5), np.geomspace(3e9, 5e11, 4), teachers)
    alone = generalized(n, d, **SUPERVISED)
    if law == "busbridge":
        transition = (1 + (l_t / alone / p["d1"]) ** (1 / 0.09)) ** (-p["c1"] * 0.09)
    else:
        transition = np.exp(-((l_t / alone / p["u0"]) ** (1 / 0.09)))
    inner = p["A_prime"] / n ** p["alpha_prime"] + p["B_prime"] / d ** p["beta_prime"]
    distilled = l_t + l_t ** -p["c0"] * transition * inner ** p["gamma_prime"]
    columns = {N: n, "n_tokens": d, L_T: l_t}
    return Case(law, p, columns | {"cross_entropy": np.where(np.isnan(l_t), alone, distilled)})


SPEC = {"L0": 1.4, "A": 60.0, "alpha": 0.3, "beta": 0.4, "D_scratch": 3e6}
SPEC |= {"D_embedding": 2.5e6, "c_embedding": 0.9, "kappa_embedding": 0.05, "r_c_embedding": 8.0}
SPEC |= {"D_token": 1.5e6, "c_token": 0.8, "kappa_token": 0.15, "r_c_token": 4.0}
SPEC_ADDITIVE = {name: value for name, value in SPEC.items() if not name.startswith("D_")}
SPEC_ADDITIVE |= {"B_scratch": 300.0, "B_embedding": 250.0, "B_token": 200.0}


def of_methods(law: str, truth: Parameters, **free: float) -> Case:
    """Scratch and two methods with three teachers each; ``free`` are parameters that are freed."""
    parts = [method_runs(law, {**truth, **free}, method) for method in ("scratch", "token")]
    parts.append(method_runs(law, {**truth, **free}, "embedding"))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Case(law, {**truth, **free}, columns, dict.fromkeys(free, "free"))


def method_runs(law: str, p: Parameters, m: str) -> Columns:
    sizes = np.array([np.nan]) if m == "scratch" else np.array([1e6, 8e6, 6.4e7])
    n, d, teacher = mesh(np.geomspace(1e5, 1e7, 5), np.geomspace(1e7, 1e9, 4), sizes)
    l_t = 1.4 + 60 / teacher**0.3 * 1.2  # worse than its size and endless data would make it
    turn = p.get("a_D", 0.0) * np.log(d / 1e8) * np.log(n / 1e6)
    size = p["A"] / n ** p["alpha"] * np.exp(-turn)
    if m != "scratch":
        by_quality = (p["A"] / (l_t - p["L0"])) ** (1 / p["alpha"]) / n
        size = size * gain(by_quality if law == "spec_effective" else teacher / n, p, m)
    if law == "spec_additive":
        above = size + p[f"B_{m}"] / d ** p["beta"]
    else:
        above = size * (1 + (p[f"D_{m}"] / d) ** p["beta"])
    columns = {N: n, "n_tokens": d, TEACHER_N: teacher, L_T: l_t, "cross_entropy": p["L0"] + above}
    return columns | {"method": np.full(n.size, m)}


def gain(r: Array, p: Parameters, m: str) -> Array:
    """The distillation efficiency function of docs/laws.md."""
    w, z = p.get("w", 0.5), r / p[f"r_c_{m}"]
    below, above = z ** (-p.get(f"eta_{m}", p["alpha"]) / w), z ** (p[f"kappa_{m}"] / w)
    return p[f"c_{m}"] * ((below + above) / 2) ** w


CASES = [
    in_compute(),
    in_compute_broken(),
    of_n_and_d("kaplan", KAPLAN, kaplan),
    of_n_and_d("chinchilla", TRUTH, chinchilla),
    of_n_and_d("generalized", SUPERVISED, generalized),
    of_n_and_d("skaling", SUPERVISED, generalized),
    repeated(),
    taught("busbridge", c1=8.0, d1=1.2),
    taught("busbridge", c1=522.6, d1=1.315),
    taught("busbridge_limit", u0=0.93),
    of_methods("spec", SPEC),
    of_methods("spec", SPEC, w=0.8),
    of_methods("spec", SPEC, a_D=0.01),
    of_methods("spec", SPEC, eta_token=0.4),
    of_methods("spec_additive", SPEC_ADDITIVE),
    of_methods("spec_effective", SPEC),
]


def test_every_law_has_its_case() -> None:
    assert {case.law for case in CASES} == {*LAWS, "skaling"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_runs_without_noise_give_the_truth_exactly(case: Case) -> None:
    result = fit(case.columns, case.law, bootstrap=0, holdout=0, fixed=case.fixed)
    found = values(result)
    assert result.converged
    for name, value in case.truth.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    prediction = result.predict(case.columns)
    np.testing.assert_allclose(prediction, case.columns["cross_entropy"], rtol=1e-8)


def test_what_is_exact_is_identified_and_predicts_the_held_out_runs() -> None:
    result = fit(runs(*grid(4, 4)), "chinchilla")
    assert all(parameter.identified for parameter in result.parameters.values())
    assert result.starts_agree == 1.0
    assert result.holdout is not None
    assert result.holdout.mape == pytest.approx(0.0, abs=1e-6)
    assert result.holdout.baseline_mape is not None
    assert result.holdout.baseline_mape > 1.0
    assert (result.n_runs, result.holdout.n_test) == (16, 5)
    assert result.domain[N] == pytest.approx((6e3, 8e5))


def test_of_the_compute_law_the_baseline_is_itself() -> None:
    result = fit(in_compute().columns, "compute", bootstrap=0)
    assert "flops_6nd" not in codes(result)
    assert result.holdout is not None
    assert result.holdout.mape == result.holdout.baseline_mape


def test_flops_fall_back_to_6nd_without_overflow() -> None:
    """6*N*D = 6e22 is far beyond int64."""
    n, d = np.array([10**10] * 8), 10 ** np.array([7, 8, 9, 10, 11, 12, 12, 12])
    columns = {N: n, "n_tokens": d, "cross_entropy": 1.5 + 50 * (6.0 * n * d) ** -0.1}
    result = fit(columns, "compute", bootstrap=0)
    assert result.domain["flops"] == pytest.approx((6e17, 6e22))
    assert codes(result)[0] == "flops_6nd"
    assert result.predict(columns) == pytest.approx(columns["cross_entropy"], rel=1e-6)


# --- against scipy: the loss, pins and ties -----------------------------------------------------

NOISY = runs(*grid(5, 5), noise=0.005, seed=3)


def scipys(law_of: Callable[..., tuple[float, ...]], start: list[float], loss: str) -> Array:
    """E, A, B, alpha, beta by scipy; ``law_of`` gives them for its free numbers."""
    log_n, log_d, log_y = (np.log(NOISY[name]) for name in (N, "n_tokens", "cross_entropy"))

    def residual(p: Array) -> Array:
        e, a, b, alpha, beta = law_of(*p)
        terms = a - alpha * (log_n - MIDDLE), b - beta * (log_d - log_d.mean())
        value: Array = np.log(np.exp(e) + np.exp(terms[0]) + np.exp(terms[1])) - log_y
        return value

    tight = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 5000}
    kind = {"loss": "huber", "f_scale": 1e-3} if loss == "huber" else {}
    found = least_squares(residual, start, x_scale="jac", **kind, **tight)
    e, a, b, alpha, beta = law_of(*found.x)
    a, b = a + alpha * MIDDLE, b + beta * log_d.mean()
    return np.array([*np.exp([e, a, b]), alpha, beta, found.cost])


MIDDLE = np.log(NOISY[N]).mean()


@pytest.mark.parametrize("loss", ["squares", "huber"])
@pytest.mark.parametrize(
    ("fixed", "law_of", "start"),
    [
        ({}, lambda e, a, b, p, q: (e, a, b, p, q), [0.4, 0.0, 0.5, 0.3, 0.4]),
        ({"E": 1.6}, lambda a, b, p, q: (np.log(1.6), a, b, p, q), [0.0, 0.5, 0.3, 0.4]),
        ({"alpha": "beta"}, lambda e, a, b, q: (e, a, b, q, q), [0.2, 0.0, 0.5, 0.4]),
        ({"beta": 0.4}, lambda e, a, b, p: (e, a, b, p, 0.4), [0.4, 0.0, 0.5, 0.3]),
        ({"beta": "alpha", "alpha": 0.3}, lambda e, a, b: (e, a, b, 0.3, 0.3), [0.2, 0.0, 0.5]),
        (
            {"A": 40.0},
            lambda e, b, p, q: (e, np.log(40.0) - p * MIDDLE, b, p, q),
            [0.4, 0.5, 0.3, 0.4],
        ),
    ],
    ids=["none", "E", "alpha = beta", "beta", "alpha = beta = .3", "A"],
)
def test_the_fit_is_scipys_without_the_fixed_parameters(
    fixed: Mapping[str, float | str],
    law_of: Callable[..., tuple[float, ...]],
    start: list[float],
    loss: Literal["squares", "huber"],
) -> None:
    result = fit(NOISY, "chinchilla", bootstrap=0, holdout=0, fixed=fixed, loss=loss)
    theirs = scipys(law_of, start, loss)
    assert result.objective is not None
    ours = np.array([*values(result).values(), result.objective])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert result.fixed == fixed


def test_a_tie_holds_in_either_order_and_takes_its_partners_interval() -> None:
    results = [
        fit(NOISY, "chinchilla", fixed=fixed, holdout=0, loss="squares")
        for fixed in ({"alpha": "beta"}, {"beta": "alpha"})
    ]
    assert values(results[0]) == pytest.approx(values(results[1]), rel=1e-6)
    for result in results:
        assert result.parameters["alpha"] == result.parameters["beta"]
        assert result.parameters["alpha"].identified


def test_a_chain_of_ties_is_one_tie_whatever_its_order() -> None:
    chains = ({"E": "A", "A": "B"}, {"A": "B", "E": "A"}, {"A": "B", "E": "B"})
    results = [fit(NOISY, "chinchilla", fixed=fixed, holdout=0, bootstrap=50) for fixed in chains]
    for result in results:
        found = result.parameters
        assert found["E"] == found["A"] == found["B"]
        assert values(result) == pytest.approx(values(results[-1]), rel=1e-6)


def test_what_is_fitted_first_cannot_follow_what_is_fitted_later() -> None:
    case = taught("busbridge_limit", u0=0.93)
    with pytest.raises(InputError, match="fitted later") as caught:
        fit(case.columns, case.law, fixed={"alpha": "alpha_prime"}, bootstrap=0, holdout=0)
    assert "alpha_prime=alpha" in caught.value.remedy


def test_a_method_that_only_the_held_out_runs_have_is_not_back_tested() -> None:
    """Its parameters would be where their search began."""
    case = of_methods("spec", SPEC)
    flops = np.where(case.columns["method"] == "scratch", 1.0, 1e9) * case.columns[N]
    result = fit({**case.columns, "flops": flops}, "spec", bootstrap=0, holdout=0.45)
    assert result.holdout is not None  # both taught methods are among the cheaper runs
    rare = case.columns["method"] == "embedding"
    flops = np.where(rare, 1e9, 1.0) * case.columns[N]
    result = fit({**case.columns, "flops": flops}, "spec", bootstrap=0, holdout=0.45)
    assert result.holdout is None
    assert "no_holdout" in codes(result)


def test_a_column_that_no_law_reads_must_still_be_numbers() -> None:
    """Tokens tell how FLOPs were counted, where they are there."""
    columns = {"flops": np.geomspace(1e9, 1e14, 12), "cross_entropy": np.linspace(3, 2, 12)}
    with pytest.raises(TableError, match="n_tokens: not numbers"):
        fit({**columns, N: np.full(12, 1e5), "n_tokens": ["many"] * 12}, "compute", holdout=0)


def test_a_pinned_parameter_has_no_interval_and_narrows_the_others() -> None:
    free, pinned = (fit(NOISY, "chinchilla", fixed=f, holdout=0) for f in ({}, {"E": 1.5}))
    pin = pinned.parameters["E"]
    assert (pin.value, pin.lo, pin.hi, pin.identified) == (1.5, None, None, False)
    assert "not_identified" not in codes(pinned)
    assert half_width(pinned, "beta") < 0.5 * half_width(free, "beta")


def test_with_all_parameters_pinned_the_objective_is_that_of_the_pins() -> None:
    result = fit(NOISY, "chinchilla", fixed=TRUTH, holdout=0)
    residual = np.abs(np.log(loss(NOISY[N], NOISY["n_tokens"]) / NOISY["cross_entropy"]))
    inside = np.minimum(residual, 1e-3)
    assert values(result) == pytest.approx(TRUTH)
    assert result.objective == pytest.approx(float(np.sum(inside * (residual - inside / 2))))


# --- noise: repeats, wild runs, trunks ----------------------------------------------------------


def repeats(n_repeats: int, n_runs: int) -> Columns:
    n, d = (np.tile(axis, n_repeats)[:n_runs] for axis in grid(4, 4))
    return runs(n, d, noise=0.003, seed=2)


def test_delta_comes_from_repeats() -> None:
    """1.345 times the pooled standard deviation: three runs of each of 16 points."""
    columns = repeats(3, 48)
    by_point = np.log(columns["cross_entropy"]).reshape(3, 16)
    delta = 1.345 * np.sqrt(by_point.var(axis=0, ddof=1).mean())
    result = fit(columns, "chinchilla", bootstrap=0, holdout=0)
    residual = np.abs(np.log(result.predict(columns) / columns["cross_entropy"]))
    inside = np.minimum(residual, delta)
    assert result.objective == pytest.approx(float(np.sum(inside * (residual - inside / 2))))
    assert result.objective_name == f"sum of log-Huber({1e3 * delta:.2f}e-3)"


@pytest.mark.parametrize(
    ("n_runs", "name"), [(16, "(1e-3)"), (19, "(1e-3)"), (20, "(2.40e-3)")], ids=str
)
def test_with_three_repeats_or_fewer_delta_is_the_published_one(n_runs: int, name: str) -> None:
    columns = repeats(2, n_runs)
    if n_runs == 20:
        pairs = np.log(columns["cross_entropy"])[[0, 1, 2, 3, 16, 17, 18, 19]].reshape(2, 4)
        sigma = np.sqrt(np.mean((pairs[0] - pairs[1]) ** 2) / 2)
        name = f"({1e3 * 1.345 * sigma:.2f}e-3)"
    result = fit(columns, "chinchilla", bootstrap=0, holdout=0)
    assert result.objective_name == f"sum of log-Huber{name}"


@pytest.mark.parametrize("shared", [False, True], ids=["no trunks", "trunks"])
def test_a_wild_run_hardly_moves_the_fit_and_is_named(shared: bool) -> None:
    """One run half as high again: Huber's fit moves less than its interval, least squares more."""
    columns, labels = trunk_study(0) if shared else (runs(*grid(5, 5), 0.003, 1), None)
    wild = columns | {"cross_entropy": columns["cross_entropy"].copy()}
    wild["cross_entropy"][12] *= 1.5
    moved = {}
    for loss in ("huber", "squares"):
        before, after = (
            fit(c, "chinchilla", trunk=labels, loss=loss, bootstrap=60, holdout=0)
            for c in (columns, wild)
        )
        assert "outliers" not in codes(before)
        [named] = [n.message for n in after.warnings if n.code == "outliers"]
        assert named.startswith(f"1 of {columns[N].size} runs are over 6 standard deviations off")
        assert "row 12 (+" in named
        moved[loss] = [
            abs(values(after)[name] - values(before)[name]) / half_width(before, name)
            for name in ("E", "alpha", "beta")
        ]
    assert max(moved["huber"]) < 1
    assert max(moved["squares"]) > 3


def test_normal_noise_makes_no_wild_run() -> None:
    """Of 60 studies of 16 runs at most what chance (1 in 1000) makes of one in twenty."""
    studies = [runs(*grid(4, 4), 0.005, seed) for seed in range(60)]
    fits = [fit(columns, "chinchilla", bootstrap=0, holdout=0) for columns in studies]
    assert sum("outliers" in codes(each) for each in fits) <= binom.ppf(0.999, 60, 0.05)


def test_runs_of_one_trunk_are_not_independent() -> None:
    """Ignoring that runs share a trunk makes the interval of alpha too narrow, not that of beta."""
    columns, trunk = trunk_study(0)
    shared, ignored = (fit(columns, "chinchilla", trunk=t, holdout=0) for t in (trunk, None))
    assert half_width(shared, "alpha") > 1.5 * half_width(ignored, "alpha")
    assert half_width(shared, "beta") < half_width(ignored, "beta")
    assert shared.intervals == "profiles with trunk effects of 10 trunks"
    assert ignored.intervals == "400 refits to resampled runs"


def test_the_names_and_the_order_of_trunks_do_not_matter() -> None:
    columns, trunk = trunk_study(0)
    order = np.random.default_rng(1).permutation(50)
    shuffled = {name: column[order] for name, column in columns.items()}
    renamed = [f"{100 - int(trunk[i].removeprefix('trunk-'))}" for i in order]
    first, second = (
        fit(columns, "chinchilla", trunk=trunk),
        fit(shuffled, "chinchilla", trunk=renamed),
    )
    for name, parameter in first.parameters.items():
        other = second.parameters[name]
        assert (other.value, other.lo, other.hi) == pytest.approx(
            (parameter.value, parameter.lo, parameter.hi), rel=1e-4
        )


def test_a_trunk_for_each_run_is_no_trunk() -> None:
    columns, _ = trunk_study(0)
    alone = fit(columns, "chinchilla", trunk=[f"{i:02d}" for i in range(50)], bootstrap=100)
    assert alone.parameters == fit(columns, "chinchilla", bootstrap=100).parameters
    assert alone.intervals == "100 refits to resampled runs"


@pytest.mark.parametrize("trunks", [True, False], ids=["trunks", "no trunks"])
def test_a_seed_determines_everything(trunks: bool) -> None:
    columns, labels = trunk_study(3)
    first, again, other = (
        fit(columns, "chinchilla", trunk=labels if trunks else None, seed=seed, bootstrap=60)
        for seed in (1, 1, 2)
    )
    assert first.content() == again.content()
    assert values(first) == values(other)
    # Only resampling draws numbers.
    assert (first.parameters == other.parameters) == trunks


@pytest.mark.parametrize(("n_trunks", "interval"), [(1, False), (3, False), (4, True), (5, True)])
def test_few_trunks_are_called_few(n_trunks: int, interval: bool) -> None:
    n, d = grid(5, 4)
    labels = [f"trunk-{i % n_trunks}" for i in range(n.size)]
    result = fit(runs(n, d, 0.003), "chinchilla", trunk=labels, holdout=0)
    notice = next(n for n in result.warnings if n.code == "few_trunks")
    assert notice.message.startswith(f"{n_trunks} trunks give")
    assert ("no interval" in notice.message) != interval
    assert (result.uncertainty is not None) == interval
    assert (result.parameters["beta"].lo is not None) == interval
    for ends in (result.band, result.new_runs):
        assert np.isfinite(ends({N: 1e5, "n_tokens": 5e5})).all() == interval


def test_ten_trunks_are_enough() -> None:
    columns, trunk = trunk_study(0)
    assert "few_trunks" not in codes(fit(columns, "chinchilla", trunk=trunk, holdout=0))


@pytest.mark.parametrize("trunks", [True, False], ids=["trunks", "no trunks"])
def test_without_resampling_there_is_no_interval(trunks: bool) -> None:
    columns, labels = trunk_study(0)
    result = fit(columns, "chinchilla", trunk=labels if trunks else None, bootstrap=0, holdout=0)
    assert result.intervals == "none"
    assert all((p.lo, p.hi) == (None, None) for p in result.parameters.values())
    assert np.isnan(result.new_runs(columns)).all()
    # Whether the runs identify a parameter was not asked.
    assert "not_identified" not in codes(result)


# --- the back-test ------------------------------------------------------------------------------


def test_too_few_runs_for_a_back_test_are_reported() -> None:
    columns = runs(np.geomspace(6e3, 8e5, 7), np.array([1, 5, 2, 8, 3, 9, 4]) * 1e5)
    result = fit(columns, "chinchilla")
    assert result.holdout is None
    assert "no_holdout" in codes(result)


def test_the_share_held_out_is_the_callers() -> None:
    """The largest runs are nobody's law: only a back-test that holds them out sees it."""
    columns = runs(*grid(5, 5), 0.003)
    flops = columns[N] * columns["n_tokens"]
    columns["cross_entropy"] = np.where(flops > 0.99 * flops.max(), 9.0, columns["cross_entropy"])
    result = fit(columns, "chinchilla", bootstrap=0, holdout=0.04)
    assert result.holdout is not None
    assert result.holdout.n_test == 1
    expected = 100 * (1 - loss(np.array(8e5), np.array(8e5)) / 9)
    assert result.holdout.mape == pytest.approx(expected, abs=0.3)
    assert fit(columns, "chinchilla", bootstrap=0, holdout=0).holdout is None


def test_a_back_test_that_nobody_asked_for_is_not_missed() -> None:
    assert "no_holdout" not in codes(fit(NOISY, "chinchilla", bootstrap=0, holdout=0))


# --- runs of others -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def datablations() -> Columns:
    """296 runs of Muennighoff et al. 2023 on C4, at most as many unique tokens as tokens."""
    if "KDLAWS_DATA" not in os.environ:
        pytest.skip("KDLAWS_DATA does not say where the reference data is")
    path = Path(os.environ["KDLAWS_DATA"], "reference/datablations/c4_runs.csv")
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with path.open(newline="") as lines:
        rows = [
            [row[name] for name in ("N", "D", "U", "val_loss")] for row in csv.DictReader(lines)
        ]
    n, d, u, loss = np.array(rows, dtype=float).T
    names = ("n_params", "n_tokens", "n_unique_tokens", "cross_entropy")
    return dict(zip(names, (n, d, np.minimum(u, d), loss), strict=True))


def test_how_repeats_decay_is_not_identified_by_the_published_runs(datablations: Columns) -> None:
    """R_D* from 15 to 300 fits the authors' runs nearly as well as the published 15.4."""
    tied = {"alpha": "beta"}
    result = fit(
        datablations, "data_constrained", n_column="n_params", bootstrap=50, holdout=0, fixed=tied
    )
    assert result.converged
    named = {n.message.split()[0] for n in result.warnings if n.code == "not_identified"}
    assert {"R_D_star", "R_N_star"} <= named
    lo, hi = interval(result, "alpha")
    assert lo < 0.3527 < hi  # the published one


# --- bad input ----------------------------------------------------------------------------------

GOOD = runs(*grid(4, 4))


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"cross_entropy": None}, "cross_entropy", "missing"),
        ({N: None}, N, "missing"),
        ({N: None, "n_params": GOOD[N]}, N, "n_params is another parameter count"),
        ({"n_tokens": GOOD["n_tokens"] - GOOD["n_tokens"].min()}, "n_tokens", "0 in row 0"),
        ({N: np.r_[np.nan, GOOD[N][1:]]}, N, "1 of 16 values"),
        ({"cross_entropy": -GOOD["cross_entropy"]}, "cross_entropy", "16 of 16 values"),
        ({"flops": np.full(16, np.inf)}, "flops", "inf in row 0"),
        ({N: ["2.8B"] * 16}, N, "not numbers"),
        ({N: GOOD[N][:9]}, N, "9 values for 16"),
        ({name: column[:5] for name, column in GOOD.items()}, "law chinchilla", "5 runs"),
        ({"cross_entropy": GOOD["cross_entropy"].reshape(4, 4)}, "cross_entropy", "one row each"),
    ],
)
def test_columns_that_cannot_be_fitted_are_refused(
    change: dict[str, Any], where: str, says: str
) -> None:
    columns = {name: column for name, column in (GOOD | change).items() if column is not None}
    with pytest.raises(TableError) as caught:
        fit(columns, "chinchilla")
    assert caught.value.where == where
    assert caught.value.remedy
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("keep", "says"),
    [(lambda l_t: np.isnan(l_t), "with teacher_cross"), (np.isfinite, "without a teacher")],
    ids=["no teacher", "no scratch run"],
)
def test_a_law_in_two_stages_needs_runs_of_both(keep: Callable[[Array], Array], says: str) -> None:
    case = taught("busbridge_limit", u0=0.93)
    rows = keep(case.columns[L_T])
    with pytest.raises(TableError, match=says) as caught:
        fit({name: column[rows] for name, column in case.columns.items()}, case.law)
    assert caught.value.where == "law busbridge_limit"
    assert caught.value.remedy


def test_a_first_stage_from_other_runs_can_be_pinned() -> None:
    """Distilled runs alone, when the supervised law is known."""
    case = taught("busbridge_limit", u0=0.93)
    rows = np.isfinite(case.columns[L_T])
    columns = {name: column[rows] for name, column in case.columns.items()}
    result = fit(columns, case.law, bootstrap=0, holdout=0, fixed=SUPERVISED)
    assert values(result) == pytest.approx(case.truth, rel=1e-5)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("law", "chincilla"),
        ("n_column", "N"),
        ("level", 90),
        ("bootstrap", 10),
        ("seed", -1),
        ("loss", "absolute"),
        ("holdout", 1.0),
        ("trunk", ["a"] * 3),
        ("fixed", {"gamma": 1.0}),
        ("fixed", {"alpha": "gamma"}),
        ("fixed", {"E": 0.0}),
        ("fixed", {"alpha": np.inf}),
        ("fixed", {"alpha": "alpha"}),
        ("fixed", {"alpha": "beta", "beta": "alpha"}),
        ("fixed", {"E": "alpha"}),
        ("fixed", {"alpha": "middle"}),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(argument: str, value: object) -> None:
    arguments: dict[str, Any] = {"columns": GOOD, "law": "chinchilla", argument: value}
    with pytest.raises(InputError) as caught:
        fit(**arguments)
    assert caught.value.where == argument
    assert caught.value.remedy


def test_copies_of_runs_tell_no_noise_and_change_no_parameter() -> None:
    """Each run three times is the same sum of losses, times three."""
    n, d = (
        axis.ravel() for axis in np.meshgrid(np.geomspace(1e4, 1e6, 5), np.geomspace(1e5, 3e6, 4))
    )
    loss = (1.5 + 40 / n**0.3 + 300 / d**0.4) * (1 + 0.003 * np.sin(7.0 * np.arange(20)))
    columns = {"n_params_non_embedding": n, "n_tokens": d, "cross_entropy": loss}
    once = fit(columns, "chinchilla", bootstrap=0, holdout=0)
    copied = {name: np.tile(values, 3) for name, values in columns.items()}
    thrice = fit(copied, "chinchilla", bootstrap=0, holdout=0)
    for name, parameter in once.parameters.items():
        assert thrice.parameters[name].value == pytest.approx(parameter.value, rel=1e-4)
