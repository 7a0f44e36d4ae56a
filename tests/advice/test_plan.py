"""Plans against closed forms, the numbers of the papers, and plain searches by scipy."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from kdlaws.advice.planning.plan import plan
from kdlaws.advice.planning.plan_result import Plan
from kdlaws.advice.planning.space import TeacherOption, worth
from kdlaws.errors import InputError
from kdlaws.laws import Fit, Mixture, fit, published
from kdlaws.laws.cost import TWO_N
from kdlaws.laws.uncertainty import Linear, student

CHINCHILLAS = ("hoffmann2022", "besiroglu2024")
BUDGETS = (1e19, 3e21, 1e24)


def values(fitted: Fit) -> dict[str, float]:
    return {name: each.value for name, each in fitted.parameters.items()}


def with_values(fitted: Fit, **changed: float) -> Fit:
    parameters = dict(fitted.parameters)
    for name, value in changed.items():
        parameters[name] = replace(parameters[name], value=value)
    return replace(fitted, parameters=parameters)


def closed_form(p: Mapping[str, float], flops: float) -> tuple[float, float, float]:
    """N, D and L of Hoffmann et al. 2022, equation 4: N = G (C/6)^a, D = (C/6)^b / G."""
    total = p["alpha"] + p["beta"]
    g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / total)
    n = g * (flops / 6) ** (p["beta"] / total)
    d = flops / 6 / n
    return n, d, p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"]


# --- Chinchilla's form --------------------------------------------------------------------------


@pytest.mark.parametrize("flops", BUDGETS)
@pytest.mark.parametrize("name", CHINCHILLAS)
def test_the_optimum_is_the_closed_form(name: str, flops: float) -> None:
    law = published(name)
    found = plan(law, flops, extrapolate=True).best
    n, d, loss = closed_form(values(law), flops)
    assert found.n_params == pytest.approx(n, rel=1e-6)
    assert found.n_tokens == pytest.approx(d, rel=1e-6)
    assert found.cross_entropy == pytest.approx(loss, rel=1e-9)


def test_besiroglus_optimum_grows_with_the_power_that_the_paper_gives() -> None:
    """a = .514 (science.md, section 2)."""
    law = published("besiroglu2024")
    sizes = [plan(law, flops, extrapolate=True).best.n_params for flops in (1e20, 1e22)]
    assert None not in sizes
    assert math.log(sizes[1] / sizes[0]) / math.log(100) == pytest.approx(0.514, abs=2e-3)  # type: ignore[operator]


def test_more_budget_is_a_larger_student_more_tokens_and_less_loss() -> None:
    found = plan(published("hoffmann2022"), 1e21, extrapolate=True).frontier
    assert len(found) == 9
    for name, sign in (("flops", 1), ("n_params", 1), ("n_tokens", 1), ("cross_entropy", -1)):
        series = np.array([getattr(stop, name) for stop in found])
        assert (sign * np.diff(series) > 0).all()


def test_serving_moves_the_optimum_as_a_plain_search_says() -> None:
    """Sardana et al. 2024: what is served makes the best student smaller, and trained longer."""
    law, flops, served = published("hoffmann2022"), 1e22, 3e12
    p = values(law)

    def loss(log_n: float) -> float:
        n = math.exp(log_n)
        d = (flops - 2 * n * served) / (6 * n)
        return p["E"] + p["A"] / n ** p["alpha"] + p["B"] / max(d, 1e-9) ** p["beta"]

    best = minimize_scalar(loss, bounds=(18, 23), method="bounded", options={"xatol": 1e-10})
    found = plan(law, flops, serve_tokens=served, extrapolate=True)
    assert found.best.n_params == pytest.approx(math.exp(best.x), rel=1e-5)
    assert found.best.cross_entropy == pytest.approx(best.fun, rel=1e-10)
    n_served = found.best.n_params
    assert n_served is not None
    assert found.allocation["serving"] == pytest.approx(2 * n_served * served / flops)
    assert n_served < closed_form(p, flops)[0]


def test_the_flat_valley_ends_where_the_loss_is_a_hundredth_higher() -> None:
    law, flops = published("besiroglu2024"), 1e21
    p, found = values(law), plan(law, flops, extrapolate=True, tolerance=0.01)
    assert found.flat_valley is not None
    for n in found.flat_valley.n_params:
        loss = p["E"] + p["A"] / n ** p["alpha"] + p["B"] / (flops / 6 / n) ** p["beta"]
        assert loss - found.best.cross_entropy == pytest.approx(0.01, rel=0.03)
    lo, hi = found.flat_valley.n_params
    assert found.flat_valley.n_tokens == pytest.approx((flops / 6 / hi, flops / 6 / lo))
    assert found.alternatives[0].n_params == pytest.approx(lo)


# --- Busbridge et al. 2025 ----------------------------------------------------------------------


def busbridge(flops: float, **asked: Any) -> Plan:
    return plan(published("busbridge2025"), flops, extrapolate=True, n_params=3e9, **asked)


def teacher_ratio(found: Plan) -> float:
    assert found.best.teacher_n_params_non_embedding is not None
    return found.best.teacher_n_params_non_embedding / 3e9


@pytest.mark.parametrize(("flops", "share", "ratio"), [(1e22, 0.43, 2.4), (1e24, 0.57, 4.2)])
def test_the_split_and_teacher_of_the_inference_scenario(
    flops: float, share: float, ratio: float
) -> None:
    found = busbridge(flops, scenario="inference", teacher_tokens_per_param=200)
    assert found.allocation["teacher_inference"] == pytest.approx(share, abs=0.02)
    assert teacher_ratio(found) == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize(("flops", "ratio"), [(1e21, 0.7), (1e23, 3.2)])
def test_the_teacher_grows_with_the_budget_when_all_is_paid_for(flops: float, ratio: float) -> None:
    found = busbridge(flops, scenario="both")
    assert teacher_ratio(found) == pytest.approx(ratio, rel=0.15)


def supervised_tokens(n: float, flops: float) -> float:
    law = published("busbridge2025")
    assert law.forward_flops is not None
    return flops / 3 / float(law.forward_flops(n))


IN_RANGE = [
    (n, flops)
    for n in (0.5e9, 1e9, 3e9, 10e9)
    for flops in (1e19, 1e21, 1e23, 1e25)
    if supervised_tokens(n, flops) >= 2.5e9
]


@pytest.mark.parametrize(("n", "flops"), IN_RANGE)
def test_scenarios_are_in_order_and_paying_for_all_never_beats_training_directly(
    n: float, flops: float
) -> None:
    law = published("busbridge2025")
    tokens = supervised_tokens(n, flops)
    supervised = float(law.predict({"n_params_non_embedding": n, "n_tokens": tokens}))
    losses = [
        plan(
            law,
            flops,
            scenario=scenario,  # type: ignore[arg-type]
            n_params=n,
            teacher_tokens_per_param=per_param,
            extrapolate=True,
        ).best.cross_entropy
        for scenario, per_param in (("free", 200), ("inference", 200), ("both", 200))
    ]
    assert losses == sorted(losses)
    free_teacher = plan(law, flops, scenario="both", n_params=n, extrapolate=True)
    assert free_teacher.best.cross_entropy >= supervised
    assert free_teacher.best.cross_entropy <= losses[-1] + 1e-12


def test_a_published_law_stays_in_its_range_unless_told_otherwise() -> None:
    law = published("busbridge2025")
    inside = plan(law, 1e23, scenario="inference", teacher_tokens_per_param=20)
    n, d = inside.best.n_params_non_embedding, inside.best.n_tokens
    assert n is not None
    for name, value in (("n_params_non_embedding", n), ("n_tokens", d)):
        lo, hi = law.domain[name]
        assert lo * (1 - 1e-9) <= value <= hi * (1 + 1e-9)
    assert not inside.extrapolates
    assert inside.corner is not None
    assert "upper end" in inside.corner
    outside = plan(law, 1e25, scenario="inference", teacher_tokens_per_param=20, extrapolate=True)
    assert outside.extrapolates
    assert "extrapolates" in {notice.code for notice in outside.warnings}
    with pytest.raises(InputError, match="buy no student"):
        plan(law, 1e17, scenario="inference")
    with pytest.raises(InputError, match="outside the range"):
        plan(law, 1e21, n_params=1e6)


def test_the_best_of_listed_teachers_is_chosen_and_the_others_are_alternatives() -> None:
    law = published("busbridge2025")
    teachers = [
        TeacherOption(n_params=n, n_tokens=20 * n, name=name)
        for name, n in (("small", 3e8), ("middle", 3e9), ("large", 1.2e10))
    ]
    found = plan(law, 1e21, teachers=teachers)
    alone = {t.name: plan(law, 1e21, teachers=[t]).best.cross_entropy for t in teachers}
    assert found.best.teacher == min(alone, key=lambda name: alone[name])
    assert found.best.cross_entropy == pytest.approx(min(alone.values()))
    named = {other.teacher: other.cross_entropy for other in found.alternatives}
    for name in alone.keys() - {found.best.teacher}:
        assert named[name] == pytest.approx(alone[name])
    assert None in named  # training directly


BUSBRIDGE = published("busbridge2025")
TEACHERS = [
    TeacherOption(n_params=n, n_tokens=20 * n, name=name)
    for name, n in (("small", 1e9), ("large", 1e10))
]


def test_the_frontier_is_the_plan_of_each_budget() -> None:
    """Also where another teacher is best: small ones leave more of a small budget."""
    found = plan(BUSBRIDGE, 3e21, scenario="both", teachers=TEACHERS)
    names = set()
    for stop in found.frontier:
        there = plan(BUSBRIDGE, stop.flops, scenario="both", teachers=TEACHERS)
        assert stop.cross_entropy == pytest.approx(there.best.cross_entropy, rel=1e-9)
        assert (stop.teacher, stop.n_tokens) == (there.best.teacher, there.best.n_tokens)
        assert stop.direct_cross_entropy == pytest.approx(there.comparison.direct_cross_entropy)
        names.add(stop.teacher)
    assert names == {"small", "large"}
    losses = [stop.cross_entropy for stop in found.frontier]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("k", [1.0, 20.0])
def test_the_students_that_pay_are_counted_inside_the_range_of_the_law(k: float) -> None:
    """By hand, at the planned N and budget, no run longer than the law knows."""
    n, flops, longest = 5e8, 3e21, 5.12e11
    teacher = TeacherOption(n_params=3e9, n_tokens=5.12e11)
    found = plan(BUSBRIDGE, flops, teachers=[teacher], n_params=n, n_students=k)
    forward = BUSBRIDGE.forward_flops
    assert forward is not None
    of_student, of_teacher = float(forward(n)), float(forward(3e9))

    def ahead(students: float) -> bool:
        tokens = min(flops / (3 * of_student + of_teacher / students), longest)
        alone = {"n_params_non_embedding": n, "n_tokens": min(flops / 3 / of_student, longest)}
        taught = {
            "n_params_non_embedding": n,
            "n_tokens": tokens,
            "teacher_n_params_non_embedding": 3e9,
            "teacher_n_tokens": 5.12e11,
        }
        return bool(BUSBRIDGE.predict(taught) <= BUSBRIDGE.predict(alone))

    pays = found.break_even.n_students
    if pays is None:
        assert not ahead(1e6)
    else:
        assert ahead(pays * (1 + 1e-6))
        assert pays == 1 or not ahead(pays * (1 - 1e-6))


def test_a_pinned_student_is_compared_with_one_of_its_size() -> None:
    found = plan(BUSBRIDGE, 3e20, teachers=TEACHERS, n_params=1e9, scenario="free")
    against = found.comparison
    assert against.direct_cross_entropy == pytest.approx(against.same_size_cross_entropy)
    [direct] = [each for each in found.alternatives if each.teacher is None]
    assert direct.n_params_non_embedding == pytest.approx(1e9)
    assert against.direct_flops is not None
    forward = BUSBRIDGE.forward_flops
    assert forward is not None
    tokens = against.direct_flops / 3 / float(forward(1e9))
    alone = BUSBRIDGE.predict({"n_params_non_embedding": 1e9, "n_tokens": tokens})
    assert float(alone) == pytest.approx(found.best.cross_entropy, rel=1e-6)


def test_teachers_that_are_too_dear_are_named() -> None:
    found = plan(BUSBRIDGE, 4e19, teachers=TEACHERS, n_params=1e9)
    assert found.best.teacher == "small"
    [notice] = [each for each in found.warnings if each.code == "teachers_left_out"]
    assert "large" in notice.message


# --- finite corpora -----------------------------------------------------------------------------


def test_repeats_are_worth_what_muennighoff_et_al_say() -> None:
    """Equation 5 by hand: U + U R* (1 - exp(-R / R*)), R = D/U - 1, R* = 15.387756."""
    by_hand = 1e9 + 1e9 * 15.387756 * (1 - math.exp(-3 / 15.387756))
    assert worth(np.array([4e9]), np.array([1e9]))[0] == pytest.approx(by_hand)
    assert worth(np.array([7e8]), np.array([7e8]))[0] == 7e8


def test_a_small_corpus_wants_the_smaller_student_that_a_plain_search_finds() -> None:
    law, flops, unique = published("muennighoff2023"), 1e22, 5e9

    def loss(log_n: float) -> float:
        n = math.exp(log_n)
        d = flops / 6 / n
        columns = {"n_params": n, "n_tokens": d, "n_unique_tokens": min(unique, d)}
        return float(law.predict(columns))

    # Below this size the corpus is read more than once, which is where the best lies.
    found = plan(law, flops, n_unique_tokens=unique, extrapolate=True)
    grid = np.linspace(19, 27, 4000)
    best = min(map(loss, grid))
    assert found.best.cross_entropy <= best + 1e-9
    assert found.best.cross_entropy == pytest.approx(best, abs=1e-5)
    unlimited = plan(law, flops, extrapolate=True)
    assert unlimited.best.cross_entropy < found.best.cross_entropy


@pytest.mark.parametrize("n", [None, 1e9])
def test_more_text_is_never_worse(n: float | None) -> None:
    """A teacher's reading is paid by the text, so a student need not use all of it."""
    teacher = [TeacherOption(n_params=7e9, n_tokens=1.4e11)]
    found = [
        plan(BUSBRIDGE, 2.88e21, teachers=teacher, n_params=n, n_unique_tokens=unique).best
        for unique in (5e9, 1e10, 2e10, 5e10, 1e11, 1e12)
    ]
    losses = [best.cross_entropy for best in found]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(losses[-2], abs=1e-6)  # more than enough
    assert found[0].n_unique_tokens == pytest.approx(5e9)
    assert 1e10 < found[-1].n_unique_tokens < found[-1].n_tokens


def test_a_law_of_one_pass_borrows_the_worth_of_repeats_and_says_so() -> None:
    law = published("hoffmann2022")
    found = plan(law, 1e22, n_unique_tokens=1e10, extrapolate=True)
    assert "repeats_assumed" in {notice.code for notice in found.warnings}
    p, n, d = values(law), found.best.n_params, found.best.n_tokens
    assert n is not None
    effective = float(worth(np.array([d]), np.array([1e10]))[0])
    expected = p["E"] + p["A"] / n ** p["alpha"] + p["B"] / effective ** p["beta"]
    assert found.best.cross_entropy == pytest.approx(expected)
    plenty = plan(law, 1e22, n_unique_tokens=1e15, extrapolate=True)
    assert "repeats_assumed" not in {notice.code for notice in plenty.warnings}


# --- intervals ----------------------------------------------------------------------------------

TRUE = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


def simulated(n_trunks: int, *, noise: float = 0.002, seed: int = 0) -> tuple[dict[str, Any], Any]:
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(5e6, 5e8, n_trunks)
    tokens = np.geomspace(2e8, 2e10, 5)
    n, d = np.repeat(sizes, 5), np.tile(tokens, n_trunks)
    trunk = np.repeat(np.arange(n_trunks), 5)
    mean = TRUE["E"] + TRUE["A"] / n ** TRUE["alpha"] + TRUE["B"] / d ** TRUE["beta"]
    deviation = 2 * noise * rng.normal(size=n_trunks)[trunk] + noise * rng.normal(size=len(n))
    columns = {"n_params": n, "n_tokens": d, "cross_entropy": mean * np.exp(deviation)}
    return columns, [str(each) for each in trunk]


@pytest.fixture(scope="module")
def by_trunks() -> Fit:
    columns, trunk = simulated(10)
    return fit(columns, "chinchilla", n_column="n_params", trunk=trunk)


def test_the_interval_is_that_of_the_closed_form(by_trunks: Fit) -> None:
    """The delta method by hand: log N* of the closed form, differentiated by u numerically."""
    flops = 1e19
    names, uncertainty = by_trunks.form.parameters, by_trunks.uncertainty
    assert isinstance(uncertainty, Linear)

    def log_n(u: np.ndarray) -> float:
        scales = {"E", "A", "B"}
        p = {name: math.exp(x) if name in scales else x for name, x in zip(names, u, strict=True)}
        return math.log(closed_form(p, flops)[0])

    u = by_trunks.u
    slope = np.array([(log_n(u + h) - log_n(u - h)) / 2e-6 for h in 1e-6 * np.eye(len(u))])
    half = student(uncertainty.degrees(slope), 0.9) * uncertainty.deviation(slope)
    found = plan(by_trunks, flops)
    assert found.interval is not None
    expected = [math.exp(log_n(u) - float(half)), math.exp(log_n(u) + float(half))]
    assert found.interval["n_params"] == pytest.approx(expected, rel=1e-4)
    lo, hi = found.interval["n_params"]
    assert found.interval["n_tokens"] == pytest.approx((flops / 6 / hi, flops / 6 / lo), rel=1e-6)  # type: ignore[operator]
    lo_loss, hi_loss = by_trunks.band(
        {"n_params": found.best.n_params, "n_tokens": found.best.n_tokens}  # type: ignore[dict-item]
    )
    assert (found.best.lo, found.best.hi) == pytest.approx((float(lo_loss), float(hi_loss)))


def test_refits_give_the_percentiles_of_their_own_optima() -> None:
    columns, _ = simulated(10)
    fitted = fit(columns, "chinchilla", n_column="n_params", bootstrap=200)
    flops = 1e19
    samples = fitted.uncertainty.samples  # type: ignore[union-attr]
    names = fitted.form.parameters
    optima = [
        closed_form(
            {n: math.exp(x) if n in "EAB" else x for n, x in zip(names, row, strict=True)}, flops
        )[0]
        for row in samples
    ]
    found = plan(fitted, flops)
    assert found.interval is not None
    assert found.interval["n_params"] == pytest.approx(np.quantile(optima, [0.05, 0.95]), rel=1e-4)


def test_a_published_law_has_no_interval_and_says_why() -> None:
    found = plan(published("hoffmann2022"), 1e21)
    assert found.interval is None
    assert (found.best.lo, found.best.hi) == (None, None)
    assert "no_joint_uncertainty" in {notice.code for notice in found.warnings}


def test_a_pinned_size_leaves_nothing_to_be_unsure_of(by_trunks: Fit) -> None:
    found = plan(by_trunks, 1e19, n_params=1e8)
    assert found.interval is None
    assert found.flat_valley is None
    assert found.best.n_tokens == pytest.approx(1e19 / 6e8)
    assert found.best.lo is not None


# --- distilling against training directly -------------------------------------------------------

N, D = 1e9, 1e10
DIRECT = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.36}
TAUGHT = {**DIRECT, "E": 1.8, "B": 600.0}
"""Ahead with few tokens, behind with many: equal at D = ((2000 - 600)/.1)^(1/.36)."""


def two_laws() -> tuple[Fit, Fit]:
    law = published("besiroglu2024")
    return with_values(law, **TAUGHT), with_values(law, **DIRECT)


def loss_of(p: Mapping[str, float], n: float, d: float) -> float:
    return p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"]


def test_break_even_of_a_free_teacher_is_where_the_curves_meet() -> None:
    taught, direct = two_laws()
    found = plan(
        taught,
        1e21,
        scratch=direct,
        teachers=[TeacherOption(7e9)],
        scenario="free",
        extrapolate=True,
    )
    at = (1400 / 0.1) ** (1 / 0.36)
    n = found.best.n_params
    assert n is not None
    assert found.break_even.n_tokens == pytest.approx(at, rel=1e-6)
    assert found.break_even.flops == pytest.approx(6 * n * at, rel=1e-6)
    assert "fewer" in found.break_even.reason
    assert found.break_even.n_students is None


def test_a_teacher_that_is_paid_for_lowers_the_break_even() -> None:
    taught, direct = two_laws()
    teacher = TeacherOption(4e9)
    found = plan(
        taught, 1e21, scratch=direct, teachers=[teacher], scenario="inference", extrapolate=True
    )
    at, n = found.break_even.n_tokens, found.best.n_params
    assert at is not None
    assert n is not None
    instead = (6 * n + 2 * 4e9) * at / (6 * n)
    assert loss_of(TAUGHT, n, at) == pytest.approx(loss_of(DIRECT, n, instead), rel=1e-9)
    assert at < (1400 / 0.1) ** (1 / 0.36)


def test_the_number_of_students_that_pay_for_a_teacher() -> None:
    taught, direct = two_laws()
    teacher, flops = TeacherOption(4e9, n_tokens=4e11), 1e21
    found = plan(
        taught,
        flops,
        scratch=direct,
        teachers=[teacher],
        scenario="both",
        n_params=1e9,
        n_students=1000,
        extrapolate=True,
    )
    k = found.break_even.n_students
    assert k is not None
    assert k > 1
    tokens = (flops - 6 * 4e9 * 4e11 / k) / (6e9 + 8e9 / k)
    assert loss_of(TAUGHT, 1e9, tokens) == pytest.approx(
        loss_of(DIRECT, 1e9, flops / 6e9), rel=1e-9
    )
    assert f"{math.ceil(k)} students pay" in found.break_even.reason


def test_how_many_times_cheaper_and_the_teachers_flops_spent_on_the_student() -> None:
    taught, direct = two_laws()
    flops = 1e20
    found = plan(taught, flops, scratch=direct, teachers=[TeacherOption(4e9)], extrapolate=True)
    against = found.comparison
    assert against.direct_cross_entropy == pytest.approx(closed_form(DIRECT, flops)[2])
    assert against.direct_flops is not None
    equal = closed_form(DIRECT, against.direct_flops)[2]
    assert equal == pytest.approx(found.best.cross_entropy, rel=1e-8)
    assert against.times_cheaper == pytest.approx(against.direct_flops / flops)
    n = found.best.n_params
    assert n is not None
    assert against.same_size_n_tokens == pytest.approx(flops / 6 / n)
    assert against.same_size_cross_entropy == pytest.approx(loss_of(DIRECT, n, flops / 6 / n))


def test_what_training_directly_never_reaches_has_no_price() -> None:
    taught, direct = two_laws()
    low = with_values(taught, E=1.2)
    found = plan(
        low, 1e24, scratch=direct, teachers=[TeacherOption(4e9)], scenario="free", extrapolate=True
    )
    assert found.comparison.times_cheaper is None
    assert "no direct training" in found.comparison.reason
    assert "ahead from" in found.break_even.reason


def test_a_direct_student_outside_its_laws_runs_is_said_to_be() -> None:
    """At 1e21 the closed form is inside both ranges of the runs, at 1e26 far outside."""
    taught, direct = two_laws()
    for flops, outside in ((1e21, False), (1e26, True)):
        n, d, _ = closed_form(DIRECT, flops)
        inside = all(
            lo <= value <= hi
            for (lo, hi), value in zip(direct.domain.values(), (n, d), strict=True)
        )
        found = plan(taught, flops, scratch=direct, teachers=[TeacherOption(4e9)], extrapolate=True)
        assert found.comparison.direct_extrapolates is outside is not inside
        assert ("nats (outside the runs)" in str(found)) is outside


def test_without_a_law_of_direct_training_nothing_is_compared() -> None:
    taught, _ = two_laws()
    found = plan(taught, 1e21, teachers=[TeacherOption(4e9)], extrapolate=True)
    assert "--scratch" in found.break_even.reason
    assert "--scratch" in found.comparison.reason
    assert plan(taught, 1e21, extrapolate=True).break_even.reason == "the plan has no teacher"


# --- the spec's law -----------------------------------------------------------------------------


def spec_columns(seed: int = 0) -> tuple[dict[str, Any], list[str]]:
    """Scratch and token students, three teachers; g of science.md section 1."""
    rng, rows = np.random.default_rng(seed), []
    for method, teachers in (("scratch", [np.nan]), ("token", [3e6, 1e7, 1e8])):
        for teacher in teachers:
            for n in np.geomspace(1e5, 1e7, 6):
                for d in np.geomspace(1e7, 1e9, 4):
                    r = 1.0 if method == "scratch" else teacher / n
                    g = 0.8 * (((r / 6) ** -0.7 + (r / 6) ** 0.3) / 2) ** 0.5
                    size = 80 / n**0.35 * (1.0 if method == "scratch" else g)
                    loss = 1.9 + size * (1 + (4e7 / d) ** 0.4)
                    rows.append((method, n, d, teacher, loss * math.exp(0.001 * rng.normal())))
    method, n, d, teacher, loss = zip(*rows, strict=True)
    columns = {
        "method": np.array(method),
        "n_params_non_embedding": np.array(n),
        "n_tokens": np.array(d),
        "teacher_n_params_non_embedding": np.array(teacher),
        "cross_entropy": np.array(loss),
    }
    trunk = [
        f"{m}-{n}-{t}"
        for m, n, t in zip(method, columns["n_params_non_embedding"], teacher, strict=True)
    ]
    return columns, trunk


@pytest.fixture(scope="module")
def joint() -> Fit:
    columns, trunk = spec_columns()
    return fit(columns, "spec", trunk=trunk)


def test_a_free_teacher_of_a_free_scenario_is_at_the_best_ratio(joint: Fit) -> None:
    """r* = r_c (eta/kappa)^(w/(eta+kappa)), here 6 (.7/.3)^(1/2) by construction of g."""
    found = plan(joint, 1e17, scenario="free", n_params=1e6)
    p = values(joint)
    alpha, kappa, r_c = p["alpha"], p["kappa_token"], p["r_c_token"]
    best = r_c * (alpha / kappa) ** (0.5 / (alpha + kappa))
    teacher = found.best.teacher_n_params_non_embedding
    assert teacher is not None
    assert teacher / 1e6 == pytest.approx(best, rel=1e-6)
    assert found.interval is not None
    lo, hi = found.interval["ratio"]
    assert lo is not None
    assert hi is not None
    assert lo < best < hi
    true = 6 * (0.35 / 0.15) ** 1.0
    assert lo < true < hi


def test_a_joint_law_compares_with_its_own_scratch_curve(joint: Fit) -> None:
    found = plan(joint, 1e15, teachers=[TeacherOption(1e8, name="large")], scenario="inference")
    n = found.best.n_params_non_embedding
    assert n is not None
    alone = {"method": "scratch", "n_params_non_embedding": n, "n_tokens": 1e15 / 6 / n}
    assert found.comparison.same_size_cross_entropy == pytest.approx(float(joint.predict(alone)))
    direct = plan(joint, 1e15, method="scratch")
    assert direct.best.teacher is None
    assert direct.best.cross_entropy == pytest.approx(found.comparison.direct_cross_entropy)


def test_the_better_of_two_methods_is_chosen_and_the_other_is_an_alternative() -> None:
    columns, trunk = spec_columns()
    taught = columns["method"] == "token"
    other = {name: values[taught] for name, values in columns.items()}
    other |= {
        "method": np.full(taught.sum(), "embedding"),
        "cross_entropy": other["cross_entropy"] * 1.02,
    }
    both = {name: np.concatenate([columns[name], other[name]]) for name in columns}
    trunks = [*trunk, *(f"embedding-{t}" for t, is_t in zip(trunk, taught, strict=True) if is_t)]
    fitted = fit(both, "spec_additive", trunk=trunks, bootstrap=0, holdout=0)
    teacher = [TeacherOption(1e8, name="large")]
    found = plan(fitted, 1e15, teachers=teacher, scenario="inference")
    assert found.best.method == "token"
    alone = plan(fitted, 1e15, teachers=teacher, scenario="inference", method="embedding")
    [embedding] = [each for each in found.alternatives if each.method == "embedding"]
    assert embedding == alone.best


def test_tokens_of_a_teacher_are_assumed_aloud(joint: Fit) -> None:
    found = plan(joint, 1e16, scenario="both")
    assert "teacher_tokens_assumed" in {notice.code for notice in found.warnings}
    told = plan(joint, 1e16, scenario="both", teacher_tokens_per_param=20)
    assert told.best == found.best


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"scenario": "gratis"}, "no scenario"),
        ({"teachers": [TeacherOption(name="unknown", n_params=1e9)]}, "how good"),
        ({"teachers": [TeacherOption(cross_entropy=2.0)]}, "not known"),
        ({"n_params": -1.0}, "cannot be used"),
        ({"scratch": published("hoffmann2022")}, "counts n_params,"),
    ],
)
def test_what_cannot_be_planned_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        plan(published("busbridge2025"), 1e21, **asked)


def test_a_law_of_flops_alone_and_a_combination_are_refused(by_trunks: Fit) -> None:
    columns, trunk = simulated(10)
    only_flops = fit(columns, "compute", n_column="n_params", trunk=trunk, bootstrap=0)
    with pytest.raises(InputError, match="does not tell N from D"):
        plan(only_flops, 1e19)
    with pytest.raises(InputError, match="combination"):
        plan(Mixture((by_trunks, by_trunks), (0.5, 0.5)), 1e19)


def test_a_method_that_was_not_fitted_is_refused(joint: Fit) -> None:
    with pytest.raises(InputError, match="no runs of method attention"):
        plan(joint, 1e16, method="attention")
    alone = fit(
        {**simulated(6)[0], "method": ["scratch"] * 30}, "spec_additive", n_column="n_params"
    )
    with pytest.raises(InputError, match="no runs of a method with teachers"):
        plan(alone, 1e18, teachers=[TeacherOption(1e9)])
    assert plan(alone, 1e18).best.method == "scratch"


# --- the contract -------------------------------------------------------------------------------


def test_the_document_is_the_contract(by_trunks: Fit) -> None:
    found = plan(by_trunks, 1e19)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert list(document)[:2] == ["schema", "kdlaws"]
    promised = {"best", "corner", "interval", "flat_valley", "allocation", "break_even"}
    promised |= {"alternatives", "scenario", "extrapolates", "warnings"}
    assert promised <= set(document)
    of_student = {"n_params", "n_params_non_embedding", "n_tokens", "teacher", "cross_entropy"}
    of_student |= {"teacher_n_params_non_embedding", "teacher_n_tokens", "lo", "hi"}
    assert of_student <= set(document["best"])
    assert set(document["break_even"]) == {"n_tokens", "flops", "n_students", "reason"}
    assert set(document["flat_valley"]) == {"tolerance_nats", "n_params", "n_tokens"}
    assert sum(document["allocation"].values()) == pytest.approx(1)
    assert document["interval"]["n_params"][0] < document["best"]["n_params"]
    assert "flops_6nd" in {notice["code"] for notice in document["warnings"]}


def test_the_text_has_the_plan_its_interval_and_its_warnings(by_trunks: Fit) -> None:
    found = plan(by_trunks, 1e19)
    text = str(found)
    for said in ("train ", "90% ", "flat ", "split ", "break-even", "frontier", "flops_6nd"):
        assert said in text
    assert max(map(len, text.splitlines())) <= 130


def test_flops_per_token_come_from_the_table_where_it_has_them() -> None:
    columns, trunk = simulated(10)
    priced = {**columns, "forward_flops_per_token": 3 * columns["n_params"]}
    fitted = fit(priced, "chinchilla", n_column="n_params", trunk=trunk)
    found = plan(fitted, 1e19)
    assert "flops_6nd" not in {notice.code for notice in found.warnings}
    n, d, _ = closed_form(values(fitted), 1e19 * 2 / 3)
    assert found.best.n_params == pytest.approx(n, rel=1e-5)
    assert found.best.n_tokens == pytest.approx(d, rel=1e-5)
    assert TWO_N(1.0) == 2
