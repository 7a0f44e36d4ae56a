"""Answers without a law, against studies in which they are known exactly."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdlaws.advice import crossings, findings
from kdlaws.advice.contrasts import SeedNoise
from kdlaws.advice.evidence import Evidence, by_size

SIZES = (12_576, 98_112, 332_448, 791_680, 1_532_160)
TOKENS = (231_000, 406_000, 700_000)
OWN_SE = 0.002
"""Standard error over sequences of what a run has alone; a difference of two has root 2 of it."""

Cell = dict[str, Any]
StudyOf = Callable[..., Evidence]
Loss = Callable[[float, float], float]


def ladder(method: str, loss: Loss, sizes: Iterable[int] = range(5), **columns: Any) -> list[Cell]:
    """One clean pass at every size and token count."""
    return [
        {
            "method": method,
            "size": size,
            "n_tokens": tokens,
            "cross_entropy": loss(SIZES[size], tokens),
            **columns,
        }
        for size in sizes
        for tokens in TOKENS
    ]


def straight(n_params: float, n_tokens: float) -> float:
    """Exactly .15 nats less with each doubling of N and .25 with each of D."""
    return 8 - 0.15 * math.log2(n_params) - 0.25 * math.log2(n_tokens / 231_000)


# --- gains --------------------------------------------------------------------------------------


def test_gains_wins_and_losses_are_the_planted_ones(unfitted: Evidence) -> None:
    token, embedding = (findings.gain(unfitted, m, 1.0) for m in ("token", "embedding"))
    assert token is not None
    assert embedding is not None
    planted = {
        "token": (0.10, 0.15, 0.20, 0.25, 0.30),
        "embedding": (0.06, 0.04, 0.02, 0.01, -0.03),
    }
    for found, gains in ((token, planted["token"]), (embedding, planted["embedding"])):
        values = {n: each.value for n, each in found.by_size.items()}
        assert values == pytest.approx(dict(zip(SIZES, gains, strict=True)), abs=1e-9)
        # Sizes weigh equally, though the smallest has two seeds.
        assert found.mean.value == pytest.approx(sum(gains) / 5)
    assert (token.n_sizes, token.n_wins, token.n_losses) == (5, 5, 0)
    assert (embedding.n_sizes, embedding.n_wins, embedding.n_losses) == (5, 4, 1)


def test_a_gain_has_the_standard_error_of_its_pairs(unfitted: Evidence) -> None:
    """Ten runs of one seed and two of two, orthogonal but for what cancels in the difference."""
    found = findings.gain(unfitted, "token", 1.0)
    assert found is not None
    two_seeds, one_seed = found.by_size[SIZES[0]], found.by_size[SIZES[1]]
    assert one_seed.se_sequences == pytest.approx(OWN_SE * math.sqrt(2), rel=1e-4)
    assert two_seeds.se_sequences == pytest.approx(OWN_SE, rel=1e-4)
    mean = OWN_SE * math.sqrt((2 / 2 + 4 * 2) / 25)
    assert found.mean.se_sequences == pytest.approx(mean, rel=1e-4)
    # A seed moves both sides of these pairs alike, though it moves runs by thousandths of a nat.
    assert found.mean.se_seeds == pytest.approx(0, abs=1e-9)
    noise = findings.seed_noise(unfitted, 1.0)
    assert noise is not None
    assert noise.sigma > 0.003


def test_seeds_that_disagree_widen_a_gain(study_of: StudyOf) -> None:
    gains = {0: (0.10, 0.14), 1: (0.20, 0.24), 2: (0.03,)}
    cells = [
        {"size": size, "seed": seed, "method": method, "n_tokens": 700_000, "cross_entropy": loss}
        for size, each in gains.items()
        for seed, gain in enumerate(each)
        for method, loss in (("scratch", 3.0 + seed), ("token", 3.0 + seed - gain))
    ]
    found = findings.gain(study_of(cells, losses=False), "token", 1.0)
    assert found is not None
    # Each repeated size has squares of .0008 on one degree: a variance of .0008 on two.
    sigma = math.sqrt(0.0008)
    values = [(each.value, each.se, each.df) for each in found.by_size.values()]
    assert values[0] == pytest.approx((0.12, sigma / math.sqrt(2), 2))
    assert values[1] == pytest.approx((0.22, sigma / math.sqrt(2), 2))
    assert values[2] == pytest.approx((0.03, sigma, 2))
    assert found.mean.value == pytest.approx((0.12 + 0.22 + 0.03) / 3)
    assert found.mean.se == pytest.approx(sigma * math.sqrt(0.5 + 0.5 + 1) / 3)
    assert (found.n_wins, found.n_losses) == (2, 0)  # .03 is not beyond two of .028


def test_the_noise_of_pairs_is_that_of_all_methods_with_the_seeds_of_one(
    study_of: StudyOf,
) -> None:
    gains = {"scratch": (0.0, 0.0), "token": (0.10, 0.14), "embedding": (0.20, 0.28)}
    cells = [
        {"size": 0, "seed": seed, "method": method, "n_tokens": 700_000, "cross_entropy": 3 - gain}
        for method, each in gains.items()
        for seed, gain in enumerate(each)
    ]
    # Squares of .0008 and .0032 over the two methods' repeats; the two seeds leave one degree.
    assert findings.paired_noise(study_of(cells), 1.0) == SeedNoise(
        pytest.approx(math.sqrt((0.0008 + 0.0032) / 2)), 1
    )


def test_there_is_no_gain_without_pairs(study_of: StudyOf) -> None:
    evidence = study_of(ladder("scratch", straight) + ladder("token", straight, seed=3))
    assert findings.gain(evidence, "token", 1.0) is None
    assert findings.gain(evidence, "embedding", 1.0) is None


def test_one_teacher_is_ahead_of_another_by_the_planted_gain(unfitted: Evidence) -> None:
    """Over the seed that both have: the other one moves runs by thousandths of a nat."""
    strong, weak = unfitted.teachers
    found = findings.teacher_gain(unfitted, "token", strong, weak)
    values = {n: each.value for n, each in found.items()}
    assert values == pytest.approx({SIZES[0]: 0.04, SIZES[1]: 0.04}, abs=1e-9)
    back = findings.teacher_gain(unfitted, "token", weak, strong)
    assert back[SIZES[0]].value == pytest.approx(-0.04)
    noise = findings.seed_noise(unfitted, 1.0)
    assert noise is not None
    for each in found.values():
        assert each.se_sequences == pytest.approx(OWN_SE * math.sqrt(2), rel=1e-4)
        assert each.se_seeds == pytest.approx(noise.sigma * math.sqrt(2))


def test_teachers_without_a_common_seed_are_not_compared(study_of: StudyOf) -> None:
    cells = [*ladder("token", straight), *ladder("token", straight, seed=5, by="weak")]
    evidence = study_of(cells)
    strong, weak = evidence.teachers
    assert findings.teacher_gain(evidence, "token", strong, weak) == {}


def test_students_of_two_teachers_are_compared_over_common_seeds(study_of: StudyOf) -> None:
    """Seed 1 is of one teacher only, and seed 4, with a loss far off, of the other."""
    cells = [
        {"size": 0, "method": "token", "n_tokens": 700_000, "cross_entropy": loss, **columns}
        for loss, columns in (
            *((3.0 + seed, {"seed": seed}) for seed in (0, 1, 2)),
            (3.25, {"by": "weak"}),
            (5.35, {"by": "weak", "seed": 2}),
            (9.0, {"by": "weak", "seed": 4}),
        )
    ]
    evidence = study_of(cells)
    weak, strong = sorted(evidence.teachers, key=lambda each: each.n_params_non_embedding)
    found = findings.teacher_gain(evidence, "token", strong, weak)
    # The mean of .25 and .35.
    assert {n: each.value for n, each in found.items()} == pytest.approx({SIZES[0]: 0.30})


def test_students_that_read_unequally_much_are_not_compared(study_of: StudyOf) -> None:
    cells = [
        {"size": 0, "method": "token", "n_tokens": 700_000, "cross_entropy": 3.0},
        {"size": 0, "method": "token", "n_tokens": 406_000, "cross_entropy": 3.6, "by": "weak"},
    ]
    evidence = study_of(cells)
    first, second = evidence.teachers
    assert findings.teacher_gain(evidence, "token", first, second) == {}


@pytest.mark.parametrize("own_row", [False, True])
def test_how_far_students_are_behind_their_teacher(study_of: StudyOf, own_row: bool) -> None:
    """With the teacher's own losses the texts' common difficulty cancels; without, it does not."""
    cells = ladder("token", straight)
    if own_row:
        own = {"run_id": "teacher-192x6", "role": "teacher", "method": "scratch", "size": 4}
        cells.append({**own, "n_tokens": 5_000_000, "cross_entropy": 2.35})
    evidence = study_of(cells)
    found = findings.behind_teacher(evidence, "token", evidence.teachers[0])
    known = {n: straight(n, 700_000) - 2.35 for n in SIZES}
    assert {n: each.value for n, each in found.items()} == pytest.approx(known)
    alone = 0.008
    for each in found.values():
        se = OWN_SE * math.sqrt(2) if own_row else alone
        assert each.se_sequences == pytest.approx(se, rel=1e-4)


def test_a_teachers_row_without_a_result_leaves_what_its_students_say(study_of: StudyOf) -> None:
    own = {"run_id": "teacher-192x6", "role": "teacher", "method": "scratch", "size": 4}
    failed = {**own, "n_tokens": 5_000_000, "cross_entropy": None, "status": "failed"}
    evidence = study_of([*ladder("token", straight), failed])
    found = findings.behind_teacher(evidence, "token", evidence.teachers[0])
    known = {n: straight(n, 700_000) - 2.35 for n in SIZES}
    assert {n: each.value for n, each in found.items()} == pytest.approx(known)


def test_nobody_is_behind_a_teacher_of_unknown_cross_entropy(study_of: StudyOf) -> None:
    evidence = study_of(ladder("token", straight, teacher_cross_entropy=None))
    [teacher] = evidence.teachers
    assert math.isnan(teacher.cross_entropy)
    assert findings.behind_teacher(evidence, "token", teacher) == {}


# --- scaling ------------------------------------------------------------------------------------


def test_slopes_are_those_of_a_straight_law(study_of: StudyOf) -> None:
    evidence = study_of(ladder("scratch", straight))
    of_n, of_d = findings.size_slope(evidence, "scratch"), findings.data_slope(evidence, "scratch")
    assert of_n is not None
    assert of_d is not None
    assert (of_n.value, of_d.value) == pytest.approx((-0.15, -0.25))
    each = findings.data_slopes(evidence, "scratch")
    assert list(each) == list(SIZES)
    assert [slope.value for slope in each.values()] == pytest.approx([-0.25] * 5)


def test_slopes_are_least_squares_whatever_the_curve(study_of: StudyOf) -> None:
    def bent(n: float, d: float) -> float:
        return 1.8 + 25 / n**0.3 + 55 / d**0.35 + 0.1 * math.sin(n)

    evidence = study_of(ladder("scratch", bent))
    of_n = findings.size_slope(evidence, "scratch")
    by_numpy = np.polyfit(np.log2(SIZES), [bent(n, 700_000) for n in SIZES], 1)[0]
    assert of_n is not None
    assert of_n.value == pytest.approx(by_numpy)
    of_d = findings.data_slopes(evidence, "scratch")[SIZES[2]]
    by_numpy = np.polyfit(np.log2(TOKENS), [bent(SIZES[2], d) for d in TOKENS], 1)[0]
    assert of_d.value == pytest.approx(by_numpy)


def test_a_slope_has_the_textbook_standard_error(study_of: StudyOf) -> None:
    """sigma over the root of the squared spread of x, for equal cells of independent noise."""
    cells = ladder("scratch", straight)
    found = findings.size_slope(study_of(cells), "scratch")
    spread = math.sqrt(np.var(np.log2(SIZES)) * 5)
    assert found is not None
    assert found.se_sequences == pytest.approx(OWN_SE / spread, rel=1e-4)
    assert math.isnan(found.se_seeds)
    # Three seeds at each size, of a standard deviation of .03 nats.
    seeds = [
        {**cell, "seed": seed, "cross_entropy": cell["cross_entropy"] + shift}
        for cell in cells
        for seed, shift in ((1, 0.03), (2, -0.03))
    ]
    found = findings.size_slope(study_of([*cells, *seeds], losses=False), "scratch")
    assert found is not None
    assert found.se == pytest.approx(0.03 / math.sqrt(3) / spread)
    assert found.df == 10


def test_the_effective_exponent_of_a_power_law_is_its_exponent(study_of: StudyOf) -> None:
    cells = ladder("scratch", lambda n, d: 12 * n**-0.09)
    found = findings.size_exponent(study_of(cells), "scratch")
    assert found is not None
    assert found.value == pytest.approx(0.09)


def test_the_effective_exponent_is_least_squares_with_the_jackknifes_error(
    study_of: StudyOf,
) -> None:
    """Leaving out one test sequence at a time, and refitting the logarithms of the means."""
    evidence = study_of(ladder("scratch", lambda n, d: 1.8 + 25 * n**-0.3))
    found = findings.size_exponent(evidence, "scratch")
    rows = evidence.students[evidence.students["n_tokens"] == 700_000]
    losses = np.array([evidence.losses[run_id] for run_id in rows["run_id"]])
    number = losses.shape[1]
    means = np.log((losses.sum(axis=1, keepdims=True) - losses) / (number - 1))
    left_out = np.polyfit(np.log(SIZES), means, 1)[0]
    assert found is not None
    by_numpy = np.polyfit(np.log(SIZES), np.log(rows["cross_entropy"]), 1)[0]
    assert found.value == pytest.approx(-by_numpy)
    jackknife = math.sqrt((number - 1) * left_out.var())
    assert found.se_sequences == pytest.approx(jackknife, rel=1e-3)


def test_one_size_and_one_token_count_have_no_slopes(study_of: StudyOf) -> None:
    cells = [cell for cell in ladder("scratch", straight, [1]) if cell["n_tokens"] == 700_000]
    evidence = study_of(cells)
    assert findings.size_slope(evidence, "scratch") is None
    assert findings.size_exponent(evidence, "scratch") is None
    assert findings.data_slope(evidence, "scratch") is None
    assert findings.data_slopes(evidence, "scratch") == {}


def inverted(steps: Iterable[findings.Step]) -> list[tuple[str, str, float, float]]:
    return [(step.method, step.along, step.low, step.high) for step in steps if step.is_inverted]


def test_a_larger_model_that_is_worse_is_the_only_inversion(study_of: StudyOf) -> None:
    """Token's fourth size is raised by .3 nats, so that the step up to it, of -.19, is +.11."""
    cells = ladder("scratch", straight) + ladder("token", straight)
    for cell in cells:
        if (cell["method"], cell["size"]) == ("token", 3):
            cell["cross_entropy"] += 0.3
    every = findings.steps(study_of(cells))
    assert inverted(every) == [("token", "N", SIZES[2], SIZES[3])]
    [change] = [step.change for step in every if step.is_inverted]
    assert change.value == pytest.approx(0.3 - 0.15 * math.log2(SIZES[3] / SIZES[2]))
    assert change.se == pytest.approx(OWN_SE * math.sqrt(2), rel=1e-4)
    # Two methods, each with four steps in N at the full data and two in D at five sizes.
    of_n = [("N", 1.0)] * 4
    of_d = [("D", n) for n in SIZES for _ in range(2)]
    assert [(step.along, step.fixed) for step in every] == 2 * (of_n + of_d)


@pytest.mark.parametrize(("rise", "is_inverted"), [(0.0050, False), (0.0064, True)])
def test_more_data_is_worse_only_beyond_two_standard_errors(
    study_of: StudyOf, rise: float, is_inverted: bool
) -> None:
    """Twice root 2 of .002 nats is .0057."""
    cells = ladder("scratch", straight)
    cells[2]["cross_entropy"] = cells[1]["cross_entropy"] + rise
    expected = [("scratch", "D", 406_000, 700_000)] if is_inverted else []
    assert inverted(findings.steps(study_of(cells))) == expected


def test_without_a_standard_error_nothing_is_inverted(study_of: StudyOf) -> None:
    every = findings.steps(study_of(ladder("scratch", lambda n, d: math.log(n)), losses=False))
    assert all(math.isnan(step.change.se) and step.change.value >= 0 for step in every)
    assert inverted(every) == []


def test_more_text_is_worse_where_repeats_gain_more_than_a_pass(unfitted: Evidence) -> None:
    """The generator's gain of embedding is .35 on a tenth and at most .06 on all of the text.

    The law falls by 55 (210k^-.35 - 700k^-.35) = .259 nats from three effective passes over a
    tenth to one over all: less than every difference of the gains.
    """
    found = [step for step in findings.steps(unfitted) if step.is_inverted]
    assert {(s.method, s.along, s.low, s.high) for s in found} == {
        ("embedding", "U", 70_000, 700_000)
    }
    assert len(found) == 5
    fall = 55 * (210_000**-0.35 - 700_000**-0.35)
    changes = [step.change.value for step in found]
    assert changes == pytest.approx(
        [0.35 - g - fall for g in (0.06, 0.04, 0.02, 0.01, -0.03)], abs=0.01
    )


def test_all_of_the_text_is_repeated_too_where_that_was_tried(study_of: StudyOf) -> None:
    """The step in U from a tenth is then to its best repeats; elsewhere to its longest pass."""

    def again(size: int, fraction: float, loss: float, selected: bool = True) -> Cell:
        return {
            "size": size,
            "method": "scratch",
            "fraction": fraction,
            "n_unique_tokens": 700_000 * fraction,
            "n_tokens": 4 * 700_000 * fraction,
            "epochs": 4,
            "selected": selected,
            "cross_entropy": loss,
        }

    cells = [
        *ladder("scratch", lambda n, d: 4.0, [0, 1]),
        *(again(size, 0.1, 5.0) for size in (0, 1)),
        again(0, 1.0, 3.5),
        {**again(0, 1.0, 3.6, selected=False), "epochs": 8},
    ]
    found = [step for step in findings.steps(study_of(cells)) if step.along == "U"]
    ends = [(step.fixed, step.low, step.high) for step in found]
    assert ends == [(SIZES[0], 70_000, 700_000), (SIZES[1], 70_000, 700_000)]
    assert [step.change.value for step in found] == pytest.approx([-1.5, -1.0])


# --- equal losses -------------------------------------------------------------------------------


def curve(points: dict[float, float]) -> dict[float, pd.DataFrame]:
    return {x: cell(f"x{x:g}", y) for x, y in points.items()}


def cell(run_id: str, *losses: float) -> pd.DataFrame:
    return pd.DataFrame({"run_id": run_id, "cross_entropy": losses})


def logarithmic(x: float) -> float:
    return 15 - 0.8 * math.log(x)


@pytest.fixture
def empty(study_of: StudyOf) -> Evidence:
    """No losses by sequence: the noise of seeds is all there is."""
    return study_of(ladder("scratch", straight, [0]), losses=False)


@pytest.mark.parametrize("x", [110_000.0, 200_000.0, 260_000.0, 400_000.0])
def test_a_crossing_is_exact_where_the_curve_is_straight(empty: Evidence, x: float) -> None:
    drawn = curve({each: logarithmic(each) for each in (1e5, 2e5, 4e5)})
    found = crossings.crossing(empty, drawn, cell("t", logarithmic(x)), None)
    assert found is not None
    assert found.x == pytest.approx(x)
    assert found.bound == ""
    assert math.isnan(found.lo)


def test_outside_the_curve_a_crossing_is_a_bound(empty: Evidence) -> None:
    drawn = curve({each: logarithmic(each) for each in (1e5, 2e5, 4e5)})
    below, above = (
        crossings.crossing(empty, drawn, cell("t", logarithmic(x)), None) for x in (9e4, 5e5)
    )
    assert below is not None
    assert above is not None
    assert (below.x, below.hi, below.bound) == (1e5, 1e5, "<")
    assert (above.x, above.lo, above.bound) == (4e5, 4e5, ">")
    assert math.isnan(below.lo)
    assert math.isnan(above.hi)


def test_a_curve_that_comes_back_is_crossed_at_its_first_point(empty: Evidence) -> None:
    drawn = curve({1e5: 4.0, 2e5: 3.0, 4e5: 4.0, 8e5: 2.0})
    found = crossings.crossing(empty, drawn, cell("t", 3.5), None)
    assert found is not None
    assert found.x == pytest.approx(math.sqrt(1e5 * 2e5))


def test_one_point_is_no_curve(empty: Evidence) -> None:
    assert crossings.crossing(empty, curve({1e5: 4.0}), cell("t", 3.5), None) is None


def test_slopes_of_n_compare_the_sizes_that_all_methods_share(
    study_of: Callable[..., Evidence],
) -> None:
    """Token bends after the third size; scratch has no run beyond it, and both are told alike."""

    def bent(n_params: float, n_tokens: float) -> float:
        return straight(min(n_params, SIZES[2]), n_tokens)

    cells = [*ladder("scratch", straight, range(3)), *ladder("token", bent)]
    evidence = study_of(cells, losses=False)
    assert findings.shared_sizes(evidence) == SIZES[:3]
    for method in ("scratch", "token"):
        slope = findings.size_slope(evidence, method)
        assert slope is not None
        assert slope.value == pytest.approx(-0.15)


def test_nothing_is_interpolated_between_points_two_decades_apart(empty: Evidence) -> None:
    """Data curves bend: a straight line over 1 % to 100 % would invent the middle."""
    assert crossings.crossing(empty, curve({1e3: 5.0, 1e5: 4.0}), cell("t", 4.5), None) is None
    near = crossings.crossing(empty, curve({1e3: 5.0, 1e4: 4.0}), cell("t", 4.5), None)
    assert near is not None
    assert near.x == pytest.approx(10**3.5)


def test_the_interval_of_a_crossing_is_that_of_the_loss_over_the_slope(empty: Evidence) -> None:
    """At a point that was measured two runs differ: root 2 of .02 nats, .8 nats a unit of ln x."""
    drawn = curve({each: logarithmic(each) for each in (1e5, 2e5, 4e5)})
    found = crossings.crossing(empty, drawn, cell("t", logarithmic(2e5)), SeedNoise(0.02, 4))
    half = stats.t.ppf(0.975, 4) * 0.02 * math.sqrt(2) / 0.8
    assert found is not None
    assert (found.lo, found.hi) == pytest.approx((2e5 * math.exp(-half), 2e5 * math.exp(half)))


def test_19_of_20_intervals_contain_the_true_crossing(empty: Evidence) -> None:
    """The truth is in the middle of an interval, in ln x; every run has noise of .02 nats."""
    rng, number, truth = np.random.default_rng(0), 300, math.sqrt(2e5 * 4e5)
    xs, covered = (1e5, 2e5, 4e5), 0
    for _ in range(number):
        drawn = curve({x: logarithmic(x) + rng.normal(0, 0.02) for x in xs})
        target = cell("t", logarithmic(truth) + rng.normal(0, 0.02))
        repeats = {n: rng.normal(level, 0.02, 5) for n, level in ((1e4, 0), (1e5, 3))}
        noise = SeedNoise.pooled({("scratch", n): each for n, each in repeats.items()})
        found = crossings.crossing(empty, drawn, target, noise)
        assert found is not None
        covered += found.lo <= truth <= found.hi
    low, high = stats.binom.interval(0.999, number, 0.95)
    assert low <= covered <= high


def test_the_data_that_a_method_needs_is_the_planted_share(study_of: StudyOf) -> None:
    """Token after r D tokens is scratch after D, straight in log D, so that r is exact.

    The curves begin at 33 %: below it there is a bound only, as there is above 100 %.
    """
    shares = {0: 0.6, 1: 0.45, 2: 1.0, 3: 0.2, 4: 1.5}
    cells = ladder("scratch", straight)
    for size, share in shares.items():
        cells += ladder("token", lambda n, d, share=share: straight(n, d / share), [size])
    found = crossings.data_needed(study_of(cells), "token")
    assert list(found) == list(SIZES)
    known = {SIZES[size]: shares[size] for size in (0, 1, 2)}
    assert {n: found[n].x for n in known} == pytest.approx(known)
    assert all(found[n].lo < found[n].x < found[n].hi for n in known)
    below, above = found[SIZES[3]], found[SIZES[4]]
    assert (below.bound, below.x) == ("<", pytest.approx(231 / 700))
    assert (above.bound, above.x) == (">", 1.0)


def test_without_scratch_of_that_size_no_share_is_needed(study_of: StudyOf) -> None:
    cells = ladder("scratch", straight, [0]) + ladder("token", straight, [0, 1])
    assert list(crossings.data_needed(study_of(cells), "token")) == [SIZES[0]]


def test_the_text_that_a_method_needs_is_the_planted_share(study_of: StudyOf) -> None:
    """Token at its best epochs on U unique tokens falls by .3 nats a unit of ln U.

    It meets scratch after one pass at 35k, a twentieth of the text. Trunks that are not at their
    best number of epochs say nothing.
    """
    target = straight(SIZES[0], 700_000)
    cells = ladder("scratch", straight, [0])
    for fraction, unique in ((0.01, 7_000), (0.1, 70_000)):
        best = target - 0.3 * math.log(unique / 35_000)
        cells += [
            {
                "size": 0,
                "method": "token",
                "fraction": fraction,
                "n_unique_tokens": unique,
                "n_tokens": unique * epochs,
                "epochs": epochs,
                "selected": epochs == 4,
                "cross_entropy": best + 0.1 * (epochs != 4),
            }
            for epochs in (2, 4, 8)
        ]
    cells += ladder("token", straight, [0])
    found = crossings.text_needed(study_of(cells), "token")
    assert found[SIZES[0]].x == pytest.approx(0.05)


# --- noise --------------------------------------------------------------------------------------


def noisy(size: int, share: float, nu: float, n_tokens: int = 700_000, **columns: Any) -> Cell:
    """A run of a straight law whose noise leaves (1 - share)^nu of its tokens."""
    loss = straight(SIZES[size], n_tokens * (1 - share) ** nu)
    cell = {"size": size, "method": "scratch", "n_tokens": n_tokens, "noise": share}
    return {**cell, "cross_entropy": loss, **columns}


@pytest.mark.parametrize("nu", [1.0, 1.7])
def test_wasted_and_harmful_blocks_are_told_apart(study_of: StudyOf, nu: float) -> None:
    """42 % of the blocks are degraded, and there is a clean run of the other 58 %, 406k tokens."""
    evidence = study_of([*ladder("scratch", straight), noisy(1, 0.42, nu)])
    [found] = crossings.noise_effects(evidence)
    assert (found.method, found.n_params, found.noise) == ("scratch", SIZES[1], 0.42)
    assert found.teacher is None
    # .25 nats a doubling, over log2(1 / .58) doublings for each unit of nu.
    doublings = -math.log2(0.58)
    assert found.n_tokens == 700_000
    assert found.noisy == pytest.approx(straight(SIZES[1], 700_000) + 0.25 * nu * doublings)
    assert found.null == pytest.approx(straight(SIZES[1], 406_000))
    assert found.cost.value == pytest.approx(0.25 * nu * doublings)
    assert found.beyond_null is not None
    assert found.beyond_null.value == pytest.approx(0.25 * (nu - 1) * doublings, abs=1e-9)
    assert found.beyond_null.se == pytest.approx(OWN_SE * math.sqrt(2), rel=1e-4)
    assert found.nu is not None
    assert found.nu.x == pytest.approx(nu)
    assert found.nu.lo < found.nu.x < found.nu.hi


def test_a_null_between_clean_runs_is_interpolated(study_of: StudyOf) -> None:
    """Of a noise of .3, 490k tokens are left: there is no clean run of so many."""
    [found] = crossings.noise_effects(study_of([*ladder("scratch", straight), noisy(1, 0.3, 1.0)]))
    assert found.null == pytest.approx(straight(SIZES[1], 490_000))
    assert found.beyond_null is not None
    assert found.beyond_null.value == pytest.approx(0, abs=1e-9)
    assert found.nu is not None
    assert found.nu.x == pytest.approx(1)


def test_what_the_clean_runs_do_not_reach_is_not_told(study_of: StudyOf) -> None:
    """A noise of .8 leaves 140k tokens, less than any clean run; a better run has no nu."""
    better = noisy(2, 0.42, 1.0, cross_entropy=straight(SIZES[2], 800_000))
    cells = [*ladder("scratch", straight), noisy(1, 0.8, 1.0), better]
    far, gained = crossings.noise_effects(study_of(cells))
    assert far.beyond_null is None
    assert far.nu is None
    assert far.cost.value == pytest.approx(0.25 * math.log2(5))
    assert gained.nu is None
    assert gained.cost.value < 0


def test_a_distilled_noisy_run_is_held_against_its_own_teachers_students(study_of: StudyOf) -> None:
    def weaker(n: float, d: float) -> float:
        return straight(n, d) + 0.5

    cells = [*ladder("token", straight), *ladder("token", weaker, [1], by="weak")]
    loss = weaker(SIZES[1], 406_000)
    cells.append(noisy(1, 0.42, 1.0, method="token", by="weak", cross_entropy=loss))
    [found] = crossings.noise_effects(study_of(cells))
    assert found.teacher is not None
    assert found.teacher.run_id == "teacher-96x3"
    assert found.nu is not None
    assert found.nu.x == pytest.approx(1)


def test_every_noise_level_is_told_though_scrambled_text_is_a_little_shorter(
    study_of: StudyOf,
) -> None:
    """Without its line breaks noisier text has fewer tokens, and so a shorter pass."""
    shorter = {0.25: 680_000, 0.42: 600_000}
    cells = [*ladder("scratch", straight), *(noisy(1, q, 1.0, n) for q, n in shorter.items())]
    found = crossings.noise_effects(study_of(cells))
    assert {each.noise: each.n_tokens for each in found} == shorter
    for each in found:
        # Each against the clean curve at its own length, so that the shorter pass costs nothing.
        assert each.cost.value == pytest.approx(-0.25 * math.log2(1 - each.noise))
        assert each.null == pytest.approx(straight(SIZES[1], (1 - each.noise) * each.n_tokens))
        assert each.nu is not None
        assert each.nu.x == pytest.approx(1)
        # The noisy run, and the two clean ones that its length lies between.
        share = math.log(each.n_tokens / 406_000) / math.log(700 / 406)
        se = OWN_SE * math.sqrt(1 + share**2 + (1 - share) ** 2)
        assert each.cost.se == pytest.approx(se, rel=1e-4)


def test_text_without_a_clean_block_has_a_cost_and_no_nu(study_of: StudyOf) -> None:
    """Its null would be no text at all. It is as good as a clean pass over 300k tokens."""
    every = {**noisy(1, 0.5, 1.0), "noise": 1.0, "cross_entropy": straight(SIZES[1], 300_000)}
    [found] = crossings.noise_effects(study_of([*ladder("scratch", straight), every]))
    assert found.cost.value == pytest.approx(0.25 * math.log2(7 / 3))
    assert found.beyond_null is None
    assert found.nu is None


def test_noisy_runs_of_another_weight_are_no_repeats(study_of: StudyOf) -> None:
    cells = [
        *ladder("token", straight, kd_weight=1.0),
        noisy(1, 0.42, 1.0, method="token", kd_weight=1.0),
        noisy(1, 0.42, 1.0, method="token", kd_weight=0.5, run_id="half", cross_entropy=9.0),
    ]
    [found] = crossings.noise_effects(study_of(cells))
    assert found.cost.value == pytest.approx(-0.25 * math.log2(0.58))


def test_a_noisy_run_longer_than_every_clean_one_is_left_out(study_of: StudyOf) -> None:
    """Nothing is extrapolated."""
    cells = [*ladder("scratch", straight), noisy(1, 0.42, 1.0, 710_000)]
    assert crossings.noise_effects(study_of(cells)) == []


def test_a_noisy_run_without_clean_ones_is_left_out(study_of: StudyOf) -> None:
    assert (
        crossings.noise_effects(study_of([*ladder("scratch", straight, [0]), noisy(1, 0.42, 1)]))
        == []
    )


def test_the_generators_noisy_run_is_worse_than_its_null_by_what_was_planted(
    unfitted: Evidence,
) -> None:
    [found] = crossings.noise_effects(unfitted)
    assert found.beyond_null is not None
    assert found.beyond_null.value == pytest.approx(0.05)
    # From 406k towards 231k the curve, straight in ln D, has 55 (231k^-.35 - 406k^-.35) nats.
    share = 0.05 / (55 * (231_000**-0.35 - 406_000**-0.35))
    tokens = 406_000 * (231 / 406) ** share
    assert found.nu is not None
    assert found.nu.x == pytest.approx(math.log(tokens / 700_000) / math.log(0.58), abs=0.02)


# --- noise over seeds ---------------------------------------------------------------------------


def test_seed_noise_is_that_of_the_longest_pass_and_of_the_best_repeats(unfitted: Evidence) -> None:
    """Two seeds at the smallest size; each method's pair differs alike."""
    rows = by_size(unfitted.of("scratch"))[SIZES[0]]
    for fraction, tokens in ((1.0, 700_000), (0.1, 280_000), (0.01, 112_000)):
        pair = rows[(rows["fraction"] == fraction) & (rows["n_tokens"] == tokens)]
        found = findings.seed_noise(unfitted, fraction)
        assert found is not None
        assert len(pair) == 2
        assert found.sigma == pytest.approx(pair["cross_entropy"].std(ddof=1))
        # Three methods of the same two seeds.
        assert found.df == 1


def test_students_of_other_teachers_do_not_repeat_a_run(study_of: StudyOf) -> None:
    cells = [
        {"size": 0, "method": "token", "n_tokens": 700_000, "seed": seed, **columns}
        for seed, columns in (
            (0, {"cross_entropy": 3.0}),
            (1, {"cross_entropy": 3.02}),
            (2, {"cross_entropy": 3.04}),
            (0, {"cross_entropy": 4.0, "by": "weak"}),
            (1, {"cross_entropy": 5.0, "by": "weak"}),
        )
    ]
    found = findings.seed_noise(study_of(cells), 1.0)
    # 3.00, 3.02 and 3.04 have a standard deviation of .02 on two degrees.
    assert found == SeedNoise(pytest.approx(0.02), 2)
