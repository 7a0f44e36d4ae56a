"""Where curves meet, against studies in which they do so at known places."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdlaws.advice import crossings
from kdlaws.advice.contrasts import SeedNoise
from kdlaws.advice.evidence import Evidence

from .ladders import OWN_SE, SIZES, Cell, StudyOf, ladder, straight

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


def test_nothing_is_interpolated_between_points_two_decades_apart(empty: Evidence) -> None:
    """Data curves bend: a straight line over 1 % to 100 % would invent the middle."""
    assert crossings.crossing(empty, curve({1e3: 5.0, 1e5: 4.0}), cell("t", 4.5), None) is None
    near = crossings.crossing(empty, curve({1e3: 5.0, 1e4: 4.0}), cell("t", 4.5), None)
    assert near is not None
    assert near.x == pytest.approx(10**3.5)


def test_a_curve_is_read_at_its_points_and_between_near_ones() -> None:
    """Straight in ln x; from 1e5 to 1e8 nothing is between, and the points themselves are."""
    near, far = curve({1e5: 5.0, 4e5: 4.0}), curve({1e5: 5.0, 1e8: 4.0})
    [(left, _), (right, _)] = crossings.interpolated(near, 2e5)
    assert (left, right) == pytest.approx((0.5, 0.5))
    assert crossings.interpolated(far, 1e6) == []
    for x, loss in {1e5: 5.0, 1e8: 4.0}.items():
        [(weight, rows)] = crossings.interpolated(far, x)
        assert (weight, list(rows["cross_entropy"])) == (1.0, [loss])
    assert crossings.interpolated(near, 9e4) == crossings.interpolated(near, 5e5) == []


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
