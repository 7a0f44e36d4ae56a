"""Answers without a law, against studies in which they are known exactly."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from kdlaws.advice import findings
from kdlaws.advice.contrasts import SeedNoise
from kdlaws.advice.evidence import Evidence, by_size

from .ladders import OWN_SE, SIZES, TOKENS, Cell, StudyOf, ladder, straight

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
