"""The equations: derivatives, published numbers, plain arithmetic, limits; and the registry."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from kdlaws.errors import InputError
from kdlaws.laws import LAWS, Law, find
from kdlaws.laws.dual import Dual, FloatArray
from kdlaws.laws.law import D_MID, L_T, METHOD, N_MID, RATIO, TEACHER_N, C, D, N, U

METHODS = ["scratch", "token", "embedding"]
JOINT = {name: find(name, METHODS) for name in LAWS if name.startswith("spec")}
every_law = pytest.mark.parametrize(
    "law",
    [*LAWS.values(), *JOINT.values()],
    ids=[*LAWS, *(f"{name} of three methods" for name in JOINT)],
)


def loss(law: str | Law, values: Mapping[str, float], **columns: Any) -> FloatArray:
    """L of parameters and columns as people write them; a method is text, NaN is unknown."""
    form = find(law) if isinstance(law, str) else law
    x = {
        name: np.asarray(column) if name == METHOD else np.log(np.asarray(column, dtype=float))
        for name, column in columns.items()
    }
    if TEACHER_N in x:
        x[RATIO] = x[TEACHER_N] - x[N]
    scales = {unknown.name for unknown in form.unknowns if unknown.kind == "scale"}
    u = {
        name: Dual(np.asarray(np.log(value) if name in scales else value))
        for name, value in values.items()
    }
    result: FloatArray = np.exp(form.form(u, x).value)
    return result


def slope(law: Law, values: Mapping[str, float], **columns: Any) -> float:
    """-d ln(L - L0) / d ln N, at one run, N moved by a tenth of a per mille."""
    n = columns.pop("N")
    above = [
        float(loss(law, values, N=n * step, **columns)) - values["L0"] for step in (0.9999, 1.0001)
    ]
    return float(-np.log(above[1] / above[0]) / np.log(1.0001 / 0.9999))


# --- derivatives --------------------------------------------------------------------------------


def some_point(law: Law, seed: int) -> tuple[FloatArray, dict[str, Any]]:
    """Coordinates ``[3, parameters]``, and log columns of 12 runs, half of them with a teacher."""
    rng = np.random.default_rng(seed)
    taught = np.arange(12) % 2 == 0
    x: dict[str, Any] = {name: rng.normal(0.0, 2.0, 12) for name in (N, D, C, TEACHER_N)}
    x[U] = x[D] - rng.exponential(1.5, 12)
    x[L_T] = np.where(taught, rng.uniform(1.0, 1.3, 12), np.nan)
    x[RATIO] = np.where(taught, x[TEACHER_N] - x[N], np.nan)
    x[METHOD] = np.where(taught, np.where(np.arange(12) % 4 == 0, "token", "embedding"), "scratch")
    return rng.uniform(0.1, 0.9, (3, len(law.unknowns))), x


@every_law
@pytest.mark.parametrize("seed", range(3))
def test_the_derivative_is_that_of_a_complex_step(law: Law, seed: int) -> None:
    u, x = some_point(law, seed)
    duals = {name: Dual(u[:, k, None], {k: 1.0}) for k, name in enumerate(law.parameters)}
    found = law.form(duals, x)
    assert np.isfinite(found.value).all()
    assert set(found.slopes) <= set(range(len(law.unknowns)))
    for k, name in enumerate(law.parameters):
        moved: Any = u[:, k, None] + 1e-30j
        with np.errstate(invalid="ignore"):  # complex NaN, of runs without a teacher
            stepped = law.form({**duals, name: Dual(moved)}, x).value
        expected = np.imag(stepped) / 1e-30
        slopes = np.broadcast_to(np.asarray(found.slopes.get(k, 0.0)), expected.shape)
        np.testing.assert_allclose(slopes, expected, rtol=1e-10, atol=1e-14, err_msg=name)


def test_runs_without_a_teacher_say_nothing_of_distillation() -> None:
    """Nor do they poison the others' derivatives, although their L_T is NaN."""
    law = LAWS["busbridge"]
    u, x = some_point(law, 0)
    duals = {name: Dual(u[:, k, None], {k: 1.0}) for k, name in enumerate(law.parameters)}
    slopes = law.form(duals, x).slopes
    alone = np.isnan(x[L_T])
    for k, name in enumerate(law.parameters):
        assert np.isfinite(slopes[k]).all()
        of_teacher = name in law.stages[1]
        assert (np.broadcast_to(slopes[k], (3, 12))[:, alone] == 0).all() == of_teacher


# --- numbers that papers give -------------------------------------------------------------------

BESIROGLU = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
BUSBRIDGE = (
    {"E": 1.220, "A": 3355.0, "B": 18186.0, "alpha": 0.408, "beta": 0.431, "gamma": 0.452}
    | {"A_prime": 2243.0, "B_prime": 24181.0, "alpha_prime": 0.321, "beta_prime": 0.637}
    | {"gamma_prime": 0.764, "c0": 2.549, "c1": 522.6, "d1": 1.315, "f1": 0.090}
)
MUENNIGHOFF = {"E": np.exp(0.6254804), "A": np.exp(6.255414), "B": np.exp(7.3049974)} | {
    "alpha": 0.3526596,
    "beta": 0.3526596,
    "R_D_star": 15.387756,
    "R_N_star": 5.309743,
}


def test_compute_gives_the_forecast_of_marin() -> None:
    """2.252 nats at 1e23 FLOPs; the run gave 2.234."""
    marin = {"E": 1.6, "A": 95.25, "a": 0.0941}
    assert loss("compute", marin, flops=1e23) == pytest.approx(2.252, abs=5e-4)


@pytest.mark.parametrize(
    ("n", "d", "expected"),
    [(6.34e9, 242e9, 2.2256440889984477), (8.67e9, 178e9, 2.2269634075087867)],
)
def test_data_constrained_gives_muennighoffs_numbers(n: float, d: float, expected: float) -> None:
    found = loss("data_constrained", MUENNIGHOFF, N=n, n_tokens=d, n_unique_tokens=25e9)
    assert found == pytest.approx(expected, rel=1e-12)


def test_busbridge_gives_the_papers_own_run() -> None:
    """A student of 546M of a teacher of 1.82B, 20 tokens per parameter each: 2.42 in the paper.

    Without the teacher, the supervised law of the same student says 2.515.
    """
    teacher = loss("generalized", BUSBRIDGE, N=1.82e9, n_tokens=20 * 1.82e9)
    student = {"N": 546e6, "n_tokens": 20 * 546e6}
    distilled = loss("busbridge", BUSBRIDGE, **student, teacher_cross_entropy=teacher)
    assert distilled == pytest.approx(2.424, abs=5e-4)
    alone = loss("busbridge", BUSBRIDGE, **student, teacher_cross_entropy=np.nan)
    assert alone == pytest.approx(2.515, abs=5e-4)
    assert alone == loss("generalized", BUSBRIDGE, **student)


# --- plain arithmetic ---------------------------------------------------------------------------


def test_chinchilla_in_plain_arithmetic() -> None:
    n, d = 1e9, 2e10
    expected = 1.8172 + 482.01 / n**0.3478 + 2085.43 / d**0.3658
    assert loss("chinchilla", BESIROGLU, N=n, n_tokens=d) == pytest.approx(expected, rel=1e-13)


def test_kaplan_in_plain_arithmetic_and_in_its_limits() -> None:
    """Table 2 of the paper. With endless data it is (N_c/N)^alpha_N, its equation 1.1; with endless
    parameters (D_c/D)^alpha_D, its equation 1.2."""
    table_2 = {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}
    n, d = 3e7, 5e8
    expected = ((6.4e13 / n) ** (0.076 / 0.103) + 1.8e13 / d) ** 0.103
    assert loss("kaplan", table_2, N=n, n_tokens=d) == pytest.approx(expected, rel=1e-13)
    assert loss("kaplan", table_2, N=n, n_tokens=1e60) == pytest.approx((6.4e13 / n) ** 0.076)
    assert loss("kaplan", table_2, N=1e60, n_tokens=d) == pytest.approx((1.8e13 / d) ** 0.103)


def test_generalized_in_plain_arithmetic() -> None:
    n, d = 5e8, 1e10
    expected = 1.220 + (3355 / n**0.408 + 18186 / d**0.431) ** 0.452
    assert loss("generalized", BUSBRIDGE, N=n, n_tokens=d) == pytest.approx(expected, rel=1e-13)


def test_generalized_with_gamma_1_is_chinchilla() -> None:
    at = {"N": np.geomspace(1e6, 1e10, 5), "n_tokens": np.geomspace(1e11, 1e8, 5)}
    found = loss("generalized", {**BESIROGLU, "gamma": 1.0}, **at)
    np.testing.assert_allclose(found, loss("chinchilla", BESIROGLU, **at), rtol=1e-13)


def test_kaplan_is_the_generalized_law_without_a_floor() -> None:
    """[(N_c/N)^(aN/aD) + D_c/D]^aD: A = N_c^(aN/aD), alpha = aN/aD, B = D_c, beta = 1."""
    at = {"N": np.geomspace(1e6, 1e10, 5), "n_tokens": np.geomspace(1e11, 1e8, 5)}
    power = 0.076 / 0.103
    same = {"E": 1e-30, "A": 6.4e13**power, "alpha": power}
    same |= {"B": 1.8e13, "beta": 1.0, "gamma": 0.103}
    kaplan = {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}
    np.testing.assert_allclose(
        loss("generalized", same, **at), loss("kaplan", kaplan, **at), rtol=1e-12
    )


def test_skaling_is_the_generalized_law_under_a_later_name() -> None:
    """Videau et al. 2026, arXiv:2608.07222: L = E + (A/N^alpha + B/D^beta)^k."""
    assert find("skaling") is LAWS["generalized"]


BROKEN = {"E": 1.0, "A": 30.0, "c0": 0.15, "c1": 0.1, "d1": 1e15, "f1": 0.3}


def test_broken_in_plain_arithmetic() -> None:
    c = np.geomspace(1e12, 1e18, 7)
    expected = 1.0 + 30 * c**-0.15 * (1 + (c / 1e15) ** (1 / 0.3)) ** (-0.1 * 0.3)
    np.testing.assert_allclose(loss("broken", BROKEN, flops=c), expected, rtol=1e-13)


@pytest.mark.parametrize(("c", "exponent"), [(1e9, 0.15), (1e22, 0.25)])
def test_broken_has_the_exponent_c0_before_its_break_and_c0_and_c1_beyond(
    c: float, exponent: float
) -> None:
    above = loss("broken", BROKEN, flops=np.array([c, 2 * c])) - 1.0
    assert np.log2(above[0] / above[1]) == pytest.approx(exponent, rel=1e-6)


def test_broken_with_a_vanishing_f1_is_two_power_laws_that_meet() -> None:
    c = np.array([1e13, 1e17])
    sharp = loss("broken", {**BROKEN, "f1": 1e-3}, flops=c)
    expected = 1.0 + 30 * c**-0.15 * np.array([1.0, (1e17 / 1e15) ** -0.1])
    np.testing.assert_allclose(sharp, expected, rtol=1e-12)


# --- repeated data ------------------------------------------------------------------------------


def best_n(unique: float) -> float:
    """The compute-optimal N for that many tokens: G (U G)^(beta/alpha)."""
    v = MUENNIGHOFF
    g = (v["alpha"] * v["A"] / (v["beta"] * v["B"])) ** (1 / (v["alpha"] + v["beta"]))
    return float(g * (unique * g) ** (v["beta"] / v["alpha"]))


def test_one_epoch_of_a_small_model_is_chinchilla() -> None:
    unique = np.geomspace(1e8, 1e11, 6)
    at = {"N": 0.9 * np.array([best_n(each) for each in unique]), "n_tokens": unique}
    found = loss("data_constrained", MUENNIGHOFF, **at, n_unique_tokens=unique)
    plain = {name: MUENNIGHOFF[name] for name in ("E", "A", "B", "alpha", "beta")}
    np.testing.assert_allclose(found, loss("chinchilla", plain, **at), rtol=1e-13)


def test_endless_repeats_are_worth_r_star_more_passes() -> None:
    """D' -> U (1 + R_D*); a model far too large counts as U_N (1 + R_N*)."""
    unique, v = 1e9, MUENNIGHOFF
    n_u = best_n(unique)
    found = loss("data_constrained", v, N=1e4 * n_u, n_tokens=1e4 * unique, n_unique_tokens=unique)
    n, d = n_u * (1 + v["R_N_star"]), unique * (1 + v["R_D_star"])
    expected = v["E"] + v["A"] / n ** v["alpha"] + v["B"] / d ** v["beta"]
    assert found == pytest.approx(expected, rel=1e-12)


def test_four_epochs_are_almost_worth_fresh_data() -> None:
    """Muennighoff et al.: four epochs cost less than half a percent of the loss; forty more."""
    n, unique = best_n(1e10) / 2, 1e10
    d = unique * np.array([4.0, 40.0])
    plain = {name: MUENNIGHOFF[name] for name in ("E", "A", "B", "alpha", "beta")}
    fresh = loss("chinchilla", plain, N=n, n_tokens=d)
    repeated = loss("data_constrained", MUENNIGHOFF, N=n, n_tokens=d, n_unique_tokens=unique)
    four, forty = repeated / fresh - 1
    assert 0 < four < 0.005
    assert forty > 0.01


# --- Busbridge et al. ---------------------------------------------------------------------------


def distilled(law: str, values: Mapping[str, float], teacher: FloatArray) -> FloatArray:
    """Of one student, 546M on 20 tokens per parameter."""
    return loss(law, values, N=546e6, n_tokens=20 * 546e6, teacher_cross_entropy=teacher)


def test_busbridge_in_plain_arithmetic() -> None:
    v, n, d = BUSBRIDGE, 546e6, 20 * 546e6
    supervised = v["E"] + (v["A"] / n ** v["alpha"] + v["B"] / d ** v["beta"]) ** v["gamma"]
    teacher = np.array([1.9, 2.2, 2.5])
    bracket = 1 + (teacher / (supervised * v["d1"])) ** (1 / v["f1"])
    terms = v["A_prime"] / n ** v["alpha_prime"] + v["B_prime"] / d ** v["beta_prime"]
    rest = teacher ** -v["c0"] * bracket ** (-v["c1"] * v["f1"]) * terms ** v["gamma_prime"]
    np.testing.assert_allclose(distilled("busbridge", v, teacher), teacher + rest, rtol=1e-12)


def test_busbridge_tends_to_its_limit() -> None:
    """For c1 to infinity with u0 = d1 (c1 f1)^(-f1) held; at table 6, where c1 = 522.6 and
    u0 = .930, the two already differ by less than a per mille."""
    teacher = np.array([1.6, 1.9, 2.2, 2.5])
    f1 = BUSBRIDGE["f1"]
    u0 = BUSBRIDGE["d1"] * (BUSBRIDGE["c1"] * f1) ** -f1
    assert u0 == pytest.approx(0.930, abs=5e-4)
    limit = distilled("busbridge_limit", {**BUSBRIDGE, "u0": u0}, teacher)
    np.testing.assert_allclose(distilled("busbridge", BUSBRIDGE, teacher), limit, rtol=1e-3)
    far = {**BUSBRIDGE, "c1": 1e9, "d1": u0 * (1e9 * f1) ** f1}
    np.testing.assert_allclose(distilled("busbridge", far, teacher), limit, rtol=1e-8)


@pytest.mark.parametrize("law", ["busbridge", "busbridge_limit"])
def test_a_student_never_beats_its_teacher_under_busbridges_law(law: str) -> None:
    teacher = np.linspace(1.3, 4.0, 28)
    rounding = 1 - 1e-14
    assert (distilled(law, {**BUSBRIDGE, "u0": 0.93}, teacher) >= teacher * rounding).all()


# --- the spec's law -----------------------------------------------------------------------------

SPEC = (
    {"L0": 1.5, "A": 60.0, "alpha": 0.3, "beta": 0.4, "w": 0.5}
    | {"a_D": 0.0, D_MID: 1e7, N_MID: 1e5}
    | {"D_scratch": 1e5, "D_token": 5e4, "D_embedding": 8e4}
    | {"c_token": 0.8, "kappa_token": 0.1, "r_c_token": 5.0, "eta_token": 0.3}
    | {"c_embedding": 0.9, "kappa_embedding": -0.05, "r_c_embedding": 9.0, "eta_embedding": 0.3}
)
ADDITIVE = {**SPEC, "B_scratch": 300.0, "B_token": 200.0, "B_embedding": 250.0}


def of_methods(law: Law, values: Mapping[str, float], n: float, d: float) -> FloatArray:
    """One student by scratch, token and embedding, the teacher of the last two 8 times as large."""
    teacher = np.array([np.nan, 8 * n, 8 * n])
    return loss(law, values, N=np.full(3, n), n_tokens=d, teacher_N=teacher, method=METHODS)


def gains() -> FloatArray:
    """g of scratch, of token and of embedding at r = 8, in plain arithmetic."""
    token = 0.8 * (((8 / 5) ** (-0.3 / 0.5) + (8 / 5) ** (0.1 / 0.5)) / 2) ** 0.5
    embedding = 0.9 * (((8 / 9) ** (-0.3 / 0.5) + (8 / 9) ** (-0.05 / 0.5)) / 2) ** 0.5
    return np.array([1.0, token, embedding])


def test_spec_in_plain_arithmetic() -> None:
    n, d = 3e5, 2e6
    places = np.array([1e5, 5e4, 8e4])
    expected = 1.5 + 60 / n**0.3 * gains() * (1 + (places / d) ** 0.4)
    np.testing.assert_allclose(of_methods(JOINT["spec"], SPEC, n, d), expected, rtol=1e-13)


def test_spec_additive_in_plain_arithmetic() -> None:
    n, d = 3e5, 2e6
    data = np.array([300.0, 200.0, 250.0]) / d**0.4
    expected = 1.5 + 60 / n**0.3 * gains() + data
    np.testing.assert_allclose(
        of_methods(JOINT["spec_additive"], ADDITIVE, n, d), expected, rtol=1e-13
    )


def test_a_small_ratio_stops_the_student_at_its_teacher() -> None:
    """r << r_c, eta = alpha: g ~ r^-alpha, so that the loss no longer depends on the student."""
    at = {"n_tokens": 1e9, "teacher_N": 1e6, "method": "token"}
    n = np.array([1e11, 1e12, 1e13])
    found = loss(JOINT["spec"], SPEC, N=n, **at)
    np.testing.assert_allclose(found, found[0], rtol=1e-4)
    assert slope(JOINT["spec"], SPEC, N=1e12, **at) == pytest.approx(0.0, abs=1e-3)


def test_a_large_ratio_costs_the_exponent_alpha_and_kappa() -> None:
    """r >> r_c: the student's own size counts with the slope alpha + kappa at a given teacher."""
    at = {"N": 1e5, "n_tokens": 1e9, "teacher_N": 1e13, "method": "token"}
    assert slope(JOINT["spec"], SPEC, **at) == pytest.approx(0.3 + 0.1, abs=1e-3)


def test_scratch_has_the_exponent_alpha_at_any_teacher() -> None:
    at = {"N": 1e5, "n_tokens": 1e9, "teacher_N": np.nan, "method": "scratch"}
    assert slope(JOINT["spec"], SPEC, **at) == pytest.approx(0.3, rel=1e-6)


def test_the_best_ratio_is_where_the_calculus_puts_it() -> None:
    """r* = r_c (eta/kappa)^(w/(eta + kappa)), for kappa > 0."""

    def of_log_ratio(log_r: float) -> float:
        at = {"N": 1e5, "n_tokens": 1e9, "teacher_N": 1e5 * np.exp(log_r), "method": "token"}
        return float(loss(JOINT["spec"], SPEC, **at))

    best = minimize_scalar(of_log_ratio, bounds=(0.0, 6.0), method="bounded")
    assert np.exp(best.x) == pytest.approx(5.0 * (0.3 / 0.1) ** (0.5 / (0.3 + 0.1)), rel=1e-3)


def test_a_d_changes_alpha_with_every_e_fold_of_data() -> None:
    """alpha + a_D ln(D/D_mid); a model of N_mid does not notice."""
    values = {**SPEC, "a_D": 0.02}
    for folds in (-2.0, 0.0, 2.0):
        at = {"n_tokens": 1e7 * np.exp(folds), "teacher_N": np.nan, "method": "scratch"}
        for n in (1e4, 1e6):
            found = slope(JOINT["spec"], values, N=n, **at)
            assert found == pytest.approx(0.3 + 0.02 * folds, rel=1e-6)
        both = [loss(JOINT["spec"], each, N=1e5, **at) for each in (SPEC, values)]
        assert both[0] == pytest.approx(both[1], rel=1e-14)


def test_a_teachers_quality_counts_as_the_size_that_has_it() -> None:
    """L_T = L0 + A/N_T^alpha is the quality of N_T on endless data: the two laws then agree. Of a
    teacher whose training was worth only a third of its size, ``spec_effective`` says what
    ``spec`` says of a third of the size."""
    n, d, teacher = np.full(3, 3e5), 2e6, np.array([1e6, 1e7, 1e8])
    at = {"N": n, "n_tokens": d, "method": "token"}
    quality = 1.5 + 60 / teacher**0.3
    for size in (teacher, 3 * teacher):
        found = loss(
            JOINT["spec_effective"], SPEC, **at, teacher_N=size, teacher_cross_entropy=quality
        )
        np.testing.assert_allclose(
            found, loss(JOINT["spec"], SPEC, **at, teacher_N=teacher), rtol=1e-12
        )


def test_only_the_additive_form_leaves_data_its_price_in_large_models() -> None:
    endless = {"N": 1e60, "n_tokens": 2e6, "teacher_N": np.nan, "method": "scratch"}
    assert loss(JOINT["spec"], SPEC, **endless) == pytest.approx(1.5)
    assert loss(JOINT["spec_additive"], ADDITIVE, **endless) == pytest.approx(1.5 + 300 / 2e6**0.4)


# --- the registry -------------------------------------------------------------------------------


@every_law
def test_starts_lie_inside_the_box(law: Law) -> None:
    _, x = some_point(law, 1)
    cross_entropy = np.linspace(3.0, 5.0, 12)
    starts = law.starts(x, cross_entropy)
    assert starts.shape == (len(starts), len(law.unknowns))
    lower, upper = np.transpose([u.box(float(np.median(cross_entropy))) for u in law.unknowns])
    assert (starts > lower).all()
    assert (starts < upper).all()


@pytest.mark.parametrize("name", ["compute", "kaplan", "chinchilla", "generalized"])
def test_every_start_gives_the_median_run_its_loss(name: str) -> None:
    """Centred coordinates say what the law says at the middle of the runs, where each x is 0."""
    law, cross_entropy = find(name), np.linspace(3.0, 5.0, 9)
    starts = law.starts({}, cross_entropy)
    u = {each: Dual(starts[:, k, None]) for k, each in enumerate(law.parameters)}
    middle = law.form(u, {column: np.zeros(1) for column in law.reads})
    np.testing.assert_allclose(np.exp(middle.value), 4.0, rtol=1e-12)


def test_a_law_names_the_columns_it_reads() -> None:
    assert LAWS["chinchilla"].columns("n_params") == ("n_params", "n_tokens")
    assert LAWS["compute"].columns("n_params") == ("flops",)
    columns = LAWS["data_constrained"].columns("n_params_non_embedding")
    assert columns == ("n_params_non_embedding", "n_tokens", "n_unique_tokens")


def test_a_joint_law_has_a_gain_for_each_method_that_has_a_teacher() -> None:
    """Scratch alone leaves the shared parameters and its own data term; order does not matter."""
    gain = {f"{name}_token" for name in ("c", "kappa", "r_c", "eta", "D")}
    alone = set(find("spec", ["scratch"]).parameters)
    assert set(find("spec", ["token", "scratch"]).parameters) == alone | gain
    assert find("spec", ["token", "scratch"]).parameters == (
        find("spec", ["scratch", "token"]).parameters
    )


def test_an_unknown_law_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="no law 'chincilla'") as caught:
        find("chincilla")
    for name in (*LAWS, "skaling", "path.py:name"):
        assert name in caught.value.remedy
