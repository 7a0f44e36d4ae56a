"""The numbers behind the verdicts, against closed forms of the simulated law."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from kdlaws.advice.columns import N
from kdlaws.advice.judging.best_ratio import best_ratio
from kdlaws.advice.judging.cheapness import cheapness
from kdlaws.advice.judging.collapse import better_weight, collapse
from kdlaws.advice.judging.curated_exponent import curated_exponent
from kdlaws.advice.judging.exponents import exponents
from kdlaws.advice.judging.frontiers import Payer, n_students
from kdlaws.advice.judging.known import Known
from kdlaws.advice.judging.parity import parity
from kdlaws.advice.judging.teacher_share import teacher_share
from kdlaws.advice.judging.thrift import thrift
from kdlaws.advice.judging.verdicts import N_NAMES

from .simulated import SIZES, TOKENS, Gain, Row, Simulation
from .studies import (
    BOTH_TEXTS,
    EMBEDDINGS,
    ONE_TEACHER,
    SMALL_ONES,
    STEEP_GAP,
    THRIFTY,
    WITH_LAW,
    WITHOUT_LAW,
    assert_covers,
    assert_holds,
    grounds_of,
    having,
    judged_on,
    only_tokens,
    verdict_of,
)

# --- H1 -----------------------------------------------------------------------------------------


def middle(simulation: Simulation, column: str) -> float:
    """Of the runs, as a fit takes it."""
    return float(np.exp(np.mean([math.log(row[column]) for row in simulation.rows()])))


@pytest.mark.parametrize("study", [ONE_TEACHER, STEEP_GAP])
def test_exponents_are_those_of_the_law(study: str) -> None:
    """Of scratch .6; of token .6 and the slope of log g in log r, with the teacher fixed."""
    simulation, found = WITH_LAW[study], verdict_of("H1", study)
    n = middle(simulation, N)
    ratio, gain = simulation.teachers[0] / n, simulation.methods["token"]
    for column in N_NAMES:
        [scratch] = having(found, "alpha of scratch", n_column=column)
        [token] = having(found, "alpha of token", n_column=column)
        assert_holds(scratch, 0.6, within=0.005)
        assert_holds(token, 0.6 + gain.slope(ratio, 0.6), within=0.005)
        assert token.runs == tuple(sorted(row["run_id"] for row in simulation.rows()))


def test_the_local_slope_is_that_of_the_whole_loss() -> None:
    simulation = WITH_LAW[ONE_TEACHER]
    found = verdict_of("H1", ONE_TEACHER)
    n, d = middle(simulation, N), middle(simulation, "n_tokens")
    [teacher] = simulation.teachers
    for method in ("scratch", "token"):
        high, low = (
            math.log(simulation.loss(method, n * step, d, teacher, 0.6)) for step in (0.99, 1.01)
        )
        [slope] = having(found, f"-dlog L/dlog N of {method}", n_column=N)
        assert_holds(slope, (high - low) / math.log(1.01 / 0.99), within=0.01)
        assert slope.verdict == ""


def test_degradation_is_the_slope_of_the_gain() -> None:
    """Least squares on log2 N of scratch minus token after the longest pass, without noise."""
    simulation = WITH_LAW[ONE_TEACHER]
    d, [teacher] = simulation.tokens[-1], simulation.teachers
    gains = [
        simulation.loss("scratch", n, d, teacher, 0.6)
        - simulation.loss("token", n, d, teacher, 0.6)
        for n in simulation.sizes
    ]
    truth = np.polyfit(np.log2(simulation.sizes), gains, 1)[0]
    [less] = having(verdict_of("H1", ONE_TEACHER), "with each halving")
    assert truth < 0
    assert_holds(less, float(truth), within=0.02)
    assert less.verdict == "supported"


def test_ways_to_count_n_that_disagree_are_said() -> None:
    found = verdict_of("H1", EMBEDDINGS)
    sides = {each.n_column: each.verdict for each in having(found, "alpha of scratch")}
    assert sides == {N: "supported", "n_params": "contradicted"}
    assert "by N without embeddings but" in found.reason
    assert "both ways to count N" in found.would_settle


def test_a_second_law_that_says_otherwise_leaves_alpha_open() -> None:
    """As good a fit, whose alpha of .9 is outside both claimed ranges, by one way to count N."""
    joints = judged_on(ONE_TEACHER).joints
    law = joints[N]
    assert law.fit is not None
    alpha = replace(law.fit.parameters["alpha"], value=0.9)
    rival = replace(law.fit, parameters={**law.fit.parameters, "alpha": alpha})
    doubtful = replace(judged_on(ONE_TEACHER), joints={**joints, N: replace(law, rival=rival)})
    found = exponents(doubtful)
    [scratch] = having(found, "alpha of scratch", n_column=N)
    assert scratch.verdict == found.verdict == "undetermined"
    assert scratch.note == "it depends on the law: spec_additive, as good a fit, has 0.9"
    assert "tell the two laws apart" in found.would_settle
    assert law.fit.new_run is not None
    worse = replace(rival, new_run=replace(law.fit.new_run, variance=1.0))
    trusted = replace(doubtful, joints={**joints, N: replace(law, rival=worse)})
    assert exponents(trusted).verdict == "supported"


def test_without_a_law_degradation_still_contradicts() -> None:
    """One contradicted part contradicts: g falls with N, so that a token student loses more."""
    found = exponents(grounds_of(WITH_LAW[STEEP_GAP]))
    assert found.verdict == "contradicted"
    assert "there is no joint law" in found.reason


# --- H2 -----------------------------------------------------------------------------------------


def test_the_factor_of_flops_is_the_planted_one() -> None:
    """D_token is .15 D_scratch and g is 1: every size reaches every loss with .15 of the tokens.

    At equal size F_T/(3 F_S) of the student's FLOPs are the teacher's inference.
    """
    cheap, dear = (verdict_of("H2", n) for n in ("15 % of the tokens", "15 %, a dear teacher"))
    assert_holds(having(cheap, "C_scratch/C_token", scenario="free")[0], 1 / 0.15, within=0.01)
    [paid] = having(dear, "k = 1", scenario="inference")
    ratios = [dear_teacher / n / 3 for dear_teacher in THRIFTY.teachers for n in THRIFTY.sizes]
    possible = [1 / 0.15 / (1 + ratio) for ratio in ratios]
    assert paid.estimate is not None
    assert min(possible) < paid.estimate < max(possible)


def test_sharing_a_teacher_makes_it_cheaper() -> None:
    """Its training, dear beside a student's, is divided by the students that share it."""
    dear = verdict_of("H2", "15 %, a dear teacher")
    alone, shared = having(dear, "C_scratch/C_token", scenario="pretraining")
    k = shared.n_students
    assert k == sum(row["method"] == "token" for row in THRIFTY.rows())
    assert alone.estimate is not None
    assert shared.estimate is not None
    assert 1 < shared.estimate / alone.estimate <= k


def online(row: Row) -> list[Row]:
    return [{**row, "teacher_outputs": "online" if row["method"] == "token" else None}]


def test_only_stored_outputs_are_shared() -> None:
    """A student pays F_T D in full for a teacher that reads along, and its share of the training.

    Of stored outputs it pays a tenth, as one of ten students.
    """
    along = replace(THRIFTY, change=online)
    for simulation, reads in ((THRIFTY, 0.1), (along, 1.0)):
        evidence = grounds_of(simulation).evidence
        rows = evidence.students[evidence.students["method"] == "token"].head(1)
        [row] = rows.to_dict("records")
        paid = row["student_flops"] + reads * row["teacher_inference_flops"]
        assert Payer("inference", 10).flops(rows) == pytest.approx(paid)
        trained = 0.1 * row["teacher_training_flops"]
        assert Payer("both", 10).flops(rows) == pytest.approx(paid + trained)
    assert n_students(grounds_of(along).evidence) == 0


def test_students_of_other_text_share_no_outputs() -> None:
    """Beside each student one on noisy, one on curated text, and one whose teacher read along."""
    others = ({"noise": 0.3}, {"quality": "curated"}, {"teacher_outputs": "online"})

    def change(row: Row) -> list[Row]:
        stored = {"teacher_outputs": "stored"}
        copies = [{"run_id": f"{k}-{row['run_id']}", **each} for k, each in enumerate(others)]
        return [{**row, **stored}, *({**row, **stored, **each} for each in copies)]

    evidence = grounds_of(replace(THRIFTY, change=change)).evidence
    assert n_students(evidence) == sum(row["method"] == "token" for row in THRIFTY.rows())


def test_a_loss_that_other_lengths_might_reach_for_less_is_only_a_bound() -> None:
    """Small students from scratch stop above the loss, having spent less: no lower end."""
    factors = having(verdict_of("H2", "short curves"), "k = 1", scenario="inference")
    assert all(each.lo is None for each in factors)
    assert "might be cheaper" in factors[0].note


@pytest.mark.parametrize("study", ["harmful", "overtaken", "short curves"])
def test_costs_are_compared_at_a_loss_that_both_reached(study: str) -> None:
    simulation = WITHOUT_LAW[study]
    best: dict[str, float] = {}
    for row in simulation.rows():
        best[row["method"]] = min(row["cross_entropy"], best.get(row["method"], math.inf))
    for each in having(verdict_of("H2", study), "nats, k = 1"):
        assert each.at_cross_entropy is not None
        assert each.at_cross_entropy >= max(best.values()) - 1e-6


def test_the_same_is_told_at_equal_tokens_flops_and_seconds() -> None:
    found = verdict_of("H2", "15 %, a dear teacher")
    beside = having(found, "scratch minus token")
    assert [each.verdict for each in beside] == ["", "", "", ""]
    tokens, flops, spent, seconds = beside
    d, loss = THRIFTY.tokens[-1], partial(THRIFTY.loss, teacher=1e6, alpha=0.6)
    gains = [loss("scratch", n, d) - loss("token", n, d) for n in THRIFTY.sizes]
    assert_holds(tokens, float(np.mean(gains)), within=0.03)
    # Training takes as long for both, so that the same cells meet: those of the largest size, with
    # the most tokens with which no other size may do better.
    n, d = THRIFTY.sizes[-1], THRIFTY.tokens[3]
    assert set(seconds.runs) == {
        f"scratch-{n:.0f}-nan-raw-0-{d:.0f}",
        f"token-{n:.0f}-1000000-raw-0-{d:.0f}",
    }
    largest = loss("scratch", n, d) - loss("token", n, d)
    assert_holds(seconds, largest, within=0.01)
    assert flops.estimate is not None
    assert 0 < flops.estimate < largest
    assert spent.estimate is None
    assert spent.note == "nothing was measured at equal cost"


# --- H3 and H7 ----------------------------------------------------------------------------------


def best_plan(gain: Gain) -> float:
    """The ratio that minimises g(r) N^-alpha at a given N (3 + r), FLOPs without a head."""

    def log_loss(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        return math.log(gain.g(ratio, 0.6)) + 0.6 * math.log(3 + ratio)

    found = minimize_scalar(log_loss, bounds=(-3, 6), method="bounded", options={"xatol": 1e-8})
    return math.exp(float(found.x))


@pytest.mark.parametrize("study", [STEEP_GAP, SMALL_ONES])
def test_best_ratios_are_those_of_the_law(study: str) -> None:
    gain, found = WITH_LAW[study].methods["token"], verdict_of("H3", study)
    for column in N_NAMES:
        [free] = having(found, "best ratio", n_column=column)
        [paid] = having(found, "ratio of the best plan", n_column=column)
        assert_holds(free, gain.best_ratio(0.6), within=0.01)
        assert_holds(paid, best_plan(gain), within=0.01)


@pytest.mark.parametrize("study", [STEEP_GAP, SMALL_ONES])
def test_the_best_share_is_that_of_the_best_ratio(study: str) -> None:
    ratio = best_plan(WITH_LAW[study].methods["token"])
    for share in having(verdict_of("H7", study), "in the best plan"):
        assert_holds(share, ratio / (3 + ratio), within=0.01)


def test_what_a_study_spent_on_its_teacher_is_told_and_not_judged() -> None:
    """r/(3 + r) of one student, r of total N; of several, their teacher reads the text once."""
    simulation, found = WITH_LAW[ONE_TEACHER], verdict_of("H7", ONE_TEACHER)
    *alone, together = having(found, "share of the teacher's inference, token")
    [teacher] = map(simulation.n_params, simulation.teachers)
    ratios = [teacher / simulation.n_params(n) for n in simulation.sizes]
    assert [each.estimate for each in alone] == pytest.approx([r / (3 + r) for r in ratios])
    rows = [row for row in simulation.rows() if row["method"] == "token"]
    inference = max(row["teacher_inference_flops"] for row in rows)
    spent = inference / (inference + sum(row["student_flops"] for row in rows))
    assert together.estimate == pytest.approx(spent)
    assert {each.verdict for each in (*alone, together)} == {""}
    assert "an input, not an optimum" in found.reason


def test_an_online_teacher_reads_for_every_student() -> None:
    """F_T sum D over that and 3 sum F_S D."""
    simulation = replace(THRIFTY, change=online)
    *_, together = having(teacher_share(grounds_of(simulation)), "share of the teacher's inference")
    rows = [row for row in simulation.rows() if row["method"] == "token"]
    inference = sum(row["teacher_inference_flops"] for row in rows)
    spent = inference / (inference + sum(row["student_flops"] for row in rows))
    assert together.estimate == pytest.approx(spent)
    assert together.n_students == len(rows)


def test_one_teacher_has_no_best_ratio() -> None:
    found = verdict_of("H3", ONE_TEACHER)
    assert all(each.estimate is None for each in having(found, "best ratio"))
    assert "one teacher only" in found.reason
    assert "3 or more teachers" in found.would_settle


def test_what_rests_on_a_law_that_another_outdoes_is_left_open() -> None:
    """The additive law's runs scatter a tenth as much around it."""
    joints = judged_on(STEEP_GAP).joints
    law = joints[N]
    assert law.fit is not None
    assert law.fit.new_run is not None
    closer = replace(law.fit.new_run, variance=law.fit.new_run.variance / 10)
    outdone = replace(law, rival=replace(law.fit, new_run=closer))
    grounds = replace(judged_on(STEEP_GAP), joints={**joints, N: outdone})
    vars(grounds)["plans"] = judged_on(STEEP_GAP).plans  # which know nothing of the other law
    for test in (best_ratio, collapse, teacher_share):
        found = test(grounds)
        assert found.verdict == "undetermined"
        assert "spec_additive describes the runs far better" in found.reason


# --- H4 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("study", "share"), [("15 % of the tokens", 0.15), ("half of the tokens", 0.5)]
)
def test_the_share_of_tokens_is_the_planted_one(study: str, share: float) -> None:
    found = having(verdict_of("H4", study), "tokens over scratch's")
    assert len(found) == len(WITHOUT_LAW[study].sizes)
    for each in found:
        assert_holds(each, share, within=0.05)
    assert "its teacher read 10M" in found[0].note


def test_the_laws_own_saving_is_the_planted_one() -> None:
    """D_token is .3 D_scratch."""
    for study in (STEEP_GAP, ONE_TEACHER):
        [saving, *_] = having(verdict_of("H4", study), "1/xi")
        assert_holds(saving, 0.3, within=0.01)


def test_below_its_shortest_run_a_share_is_a_bound() -> None:
    """Token's shortest run, a quarter of scratch's longest, is already better."""
    bounds = [
        each
        for each in having(verdict_of("H4", "short curves"), "tokens over scratch's")
        if each.estimate is None and each.hi is not None
    ]
    assert {each.hi for each in bounds} == {0.25}
    assert {each.verdict for each in bounds} == {"undetermined"}


def test_methods_that_disagree_leave_it_open() -> None:
    two = {"token": only_tokens(1.5e5), "embedding": only_tokens(7e5)}
    found = thrift(grounds_of(replace(THRIFTY, methods=two)))
    sides = {each.method: each.verdict for each in having(found, "tokens over scratch's")}
    assert sides == {"token": "supported", "embedding": "contradicted"}
    assert found.verdict == "undetermined"


# --- H5 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("study", "planted"), [("better text", 0.15), ("same text", 0.0)])
def test_the_improvement_is_the_planted_one(study: str, planted: float) -> None:
    for each in having(verdict_of("H5", study), "improvement"):
        assert each.estimate == pytest.approx(planted, abs=0.01)
        assert_covers(each, planted)


def test_without_a_floor_an_exponent_means_nothing() -> None:
    """Noisy runs of three sizes leave the floor open: between .2 and 2.2 nats."""
    few = replace(BOTH_TEXTS, sizes=SIZES[:3], noise=0.01)
    found = curated_exponent(
        grounds_of(replace(few, change=lambda row: [{**row, "n_params": None}]))
    )
    assert found.verdict == "undetermined"
    [each] = having(found, "improvement", n_column=N)
    assert each.estimate is not None
    assert each.known.is_open
    assert each.note.startswith("E is not identified, ")
    assert "not determined (E is not identified" in found.reason
    [total] = having(found, "improvement", n_column="n_params")
    assert (total.estimate, total.verdict) == (None, "undetermined")


def test_two_sizes_are_too_few_for_an_improvement() -> None:
    found = curated_exponent(grounds_of(replace(BOTH_TEXTS, sizes=SIZES[:2])))
    assert found.verdict == "undetermined"
    assert "2 sizes" in found.reason
    assert "3 or more sizes" in found.would_settle


# --- H6 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", [STEEP_GAP, SMALL_ONES])
def test_g_is_that_of_the_law_beyond_a_ratio_of_20(study: str) -> None:
    """At each size with the largest teacher, where that is over 20 times as large."""
    simulation, gain = WITH_LAW[study], WITH_LAW[study].methods["token"]
    ratios = [max(simulation.teachers) / n for n in simulation.sizes]
    truth = [gain.g(ratio, 0.6) for ratio in ratios if ratio > 20]
    found = having(verdict_of("H6", study), "g of token", n_column=N)
    assert len(found) == len(truth) >= 2
    for each, g in zip(found, truth, strict=True):
        assert_holds(each, g, within=0.02)
    [kappa] = having(verdict_of("H6", study), "kappa", n_column=N)
    assert_holds(kappa, gain.kappa, within=0.01)


def test_the_better_of_two_weights_is_judged() -> None:
    """At the smallest size runs of half the weight are better by .1 nats, at the next one worse."""

    def change(row: Row) -> list[Row]:
        n, shift = row[N], {SIZES[0]: -0.1, SIZES[1]: 0.1}
        if row["method"] != "token" or n not in shift:
            return [row]
        half = {"kd_weight": 0.5, "run_id": f"half-{row['run_id']}"}
        return [row, {**row, **half, "cross_entropy": row["cross_entropy"] + shift[n]}]

    simulation = replace(THRIFTY, tokens=TOKENS, seeds=1)
    evidence = grounds_of(replace(simulation, change=change)).evidence
    assert better_weight(grounds_of(simulation).evidence, "token") is None
    rows = better_weight(evidence, "token")
    assert rows is not None
    weights = rows[rows["method"] == "token"].groupby(N)["kd_weight"].unique()
    assert [list(each) for each in weights] == [[0.5], [1.0], [1.0], [1.0], [1.0]]
    assert len(rows) == 2 * len(SIZES) * len(TOKENS)


# --- H8 -----------------------------------------------------------------------------------------


def test_the_break_even_is_where_the_curves_cross() -> None:
    """g (1 + (D_token/D)^.9) = 1 + (D_scratch/D)^.9, where that lies inside the tokens."""
    simulation = WITHOUT_LAW["overtaken"]
    gain, [teacher] = simulation.methods["token"], simulation.teachers
    for n, each in zip(
        simulation.sizes,
        having(verdict_of("H8", "overtaken"), "tokens", scenario="free"),
        strict=True,
    ):
        g = gain.g(teacher / n, 0.6)
        power = (1e6**0.9 - g * gain.n_tokens**0.9) / (g - 1)
        truth = power ** (1 / 0.9) if power > 0 else math.inf
        if simulation.tokens[0] < truth < simulation.tokens[-1]:
            assert each.estimate == pytest.approx(truth, rel=0.05)
        else:
            assert each.estimate is None
            assert each.lo == simulation.tokens[-1]


COARSE = replace(WITHOUT_LAW["overtaken"], sizes=SIZES[:1], tokens=(1e5, 1e8))


def test_between_tokens_that_are_far_apart_there_is_no_break_even() -> None:
    """Ahead at 1e5 and behind at 1e8 with a free teacher; nobody has seen where it turns.

    Where it is paid, no distilled run costs what one from scratch does, and none is invented.
    """
    found = having(parity(grounds_of(COARSE)), "tokens of equal loss")
    free = [each for each in found if each.scenario == "free"]
    assert {each.verdict for each in free} == {"supported"}
    assert {each.note for each in free} == {"nothing measured from 100k to 100M"}
    assert all(each.known == Known() for each in found)
    paid = [each for each in found if each.scenario == "inference"]
    assert {(each.verdict, each.note) for each in paid} == {
        ("undetermined", "not measured at equal cost")
    }
    beside = having(cheapness(grounds_of(COARSE)), "at equal FLOPs")
    assert [each.estimate for each in beside] == [None]


def test_a_crossing_the_other_way_contradicts() -> None:
    """g is .5 and D_token 3 D_scratch: behind up to 660k tokens, ahead beyond."""
    turned = Gain(0.5 * math.sqrt(2), 0.0, 1e-4, 3e6)
    found = parity(
        grounds_of(replace(WITHOUT_LAW["overtaken"], methods={"token": turned}, sizes=SIZES[:2]))
    )
    assert found.verdict == "contradicted"
    assert "inside the measured tokens" in found.reason
    assert "behind with few tokens and ahead with many at 2 of 2 sizes" in found.reason
    assert all(each.known == Known() for each in having(found, "tokens of equal loss"))


def test_behind_at_every_measured_d_contradicts_and_at_the_fewest_only_does_not() -> None:
    """The same losses but for the fewest tokens, where token is .1 nats behind."""
    harmful = verdict_of("H8", "harmful")
    assert "inside the measured tokens: with a free teacher" in harmful.reason
    assert "behind at every measured D at 5 of 5 sizes" in harmful.reason

    def change(row: Row) -> list[Row]:
        is_late = row["method"] == "token" and row["n_tokens"] == TOKENS[0]
        return [{**row, "cross_entropy": row["cross_entropy"] + 0.1 * is_late}]

    level = Simulation(
        {"token": only_tokens(1e6)}, [1e6], sizes=SIZES[:2], price=1e-5, change=change
    )
    found = parity(grounds_of(level))
    assert found.verdict == "undetermined"
    assert "not told apart" in found.reason


def test_a_free_teacher_alone_supports_no_break_even() -> None:
    """Its training is so dear that scratch was never run at the same FLOPs."""
    far = replace(WITHOUT_LAW["overtaken"], price=1e6)
    found = parity(grounds_of(far))
    assert {each.scenario for each in found.readings if each.verdict == "supported"} == {"free"}
    assert found.verdict == "undetermined"
