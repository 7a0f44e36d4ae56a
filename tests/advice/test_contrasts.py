"""Standard errors of differences, against textbook tests of scipy and simulated truths."""

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdlaws.advice.contrasts import (
    Estimate,
    SeedNoise,
    Term,
    contrast,
    gain_noise,
    independent,
    run_noise,
)
from kdlaws.advice.evidence import Evidence

N = "n_params_non_embedding"


def scored(losses: dict[str, Any]) -> Evidence:
    """All that a contrast reads of a study: the losses by sequence."""
    return cast(Evidence, SimpleNamespace(losses=losses))


def cell(losses: dict[str, Any], *run_ids: str) -> pd.DataFrame:
    means = [float(np.mean(losses[run_id])) for run_id in run_ids]
    return pd.DataFrame({"run_id": run_ids, "cross_entropy": means})


def within(share: float, nominal: float, number: int) -> bool:
    """Whether a share of ``number`` trials is what the binomial law allows in 999 of 1000 cases."""
    low, high = stats.binom.interval(0.999, number, nominal)
    return bool(low <= share * number <= high)


# --- noise over seeds ---------------------------------------------------------------------------


def test_repeats_are_pooled_by_their_degrees_of_freedom() -> None:
    cells = {
        ("scratch", 1e4): np.array([1.0, 2, 4]),
        ("scratch", 1e5): np.array([5.0, 7]),
        ("scratch", 1e6): np.array([3.0]),
    }
    # Squares within cells: 42/9 on two degrees and 2 on one; the single run has none.
    assert SeedNoise.pooled(cells) == SeedNoise(pytest.approx(math.sqrt((42 / 9 + 2) / 3)), 3)


def test_methods_at_one_size_add_to_sigma_but_not_to_its_degrees_of_freedom() -> None:
    cells = {
        ("scratch", 1e4): np.array([1.0, 2, 4]),
        ("token", 1e4): np.array([5.0, 7]),
        ("scratch", 1e5): np.array([9.0]),
        ("token", 1e5): np.array([3.0, 3.0]),
    }
    # 42/9 + 2 + 0 on four degrees; of these two are another size's or the longest's at the first.
    assert SeedNoise.pooled(cells) == SeedNoise(pytest.approx(math.sqrt((42 / 9 + 2) / 4)), 3)


def test_without_repeats_nothing_is_known_of_seeds() -> None:
    cells = {("scratch", 1e4): np.array([1.0]), ("token", 1e4): np.array([2.0])}
    assert SeedNoise.pooled(cells) is None
    assert SeedNoise.pooled({}) is None


@pytest.mark.parametrize(
    ("df", "low", "high"),
    # Chi-square tables, 5 and 95 %: .00393 and 3.841 on one degree, .3518 and 7.815 on three.
    [(1, 1 / math.sqrt(3.841), 1 / math.sqrt(0.00393)), (3, 0.6196, 2.920)],
)
def test_the_interval_of_sigma_is_that_of_the_tables(df: int, low: float, high: float) -> None:
    assert SeedNoise(1.0, df).interval() == pytest.approx((low, high), rel=1e-3)
    assert SeedNoise(0.02, df).interval() == pytest.approx((0.02 * low, 0.02 * high), rel=1e-3)


def test_nine_intervals_of_ten_contain_the_true_sigma() -> None:
    """Cells of two, three and four seeds, of different means; the true deviation is .004."""
    rng, number = np.random.default_rng(0), 2000
    studies = np.array([[3.0] * 2 + [4.0] * 3 + [2.5] * 4]) + rng.normal(0, 0.004, (number, 9))
    covered = 0
    for study in studies:
        noise = SeedNoise.pooled({("scratch", n): c for n, c in split(study, [2, 5])})
        assert noise is not None
        low, high = noise.interval(0.9)
        covered += low <= 0.004 <= high
    assert within(covered / number, 0.9, number)


def split(runs: np.ndarray, at: list[int]) -> list[tuple[float, Any]]:
    """(N, its runs), of made-up sizes."""
    return [(float(n), each) for n, each in enumerate(np.split(runs, at))]


def test_methods_that_a_seed_moves_alike_tell_no_more_than_one_of_them() -> None:
    """Three methods, four seeds at each of two sizes; a seed adds the same to all methods.

    Were their repeats counted as independent ones, intervals would be too short.
    """
    rng, number, truth = np.random.default_rng(1), 2000, 0.004
    covered = short = 0
    for shifts in rng.normal(0, truth, (number, 8)):
        cells = {
            (method, n): level + each
            for method, level in (("scratch", 4.0), ("token", 3.5), ("embedding", 3.8))
            for n, each in split(shifts, [4])
        }
        noise = SeedNoise.pooled(cells)
        assert noise is not None
        low, high = noise.interval(0.9)
        covered += low <= truth <= high
        low, high = SeedNoise(noise.sigma, 3 * 2 * 3).interval(0.9)
        short += low <= truth <= high
    assert within(covered / number, 0.9, number)
    assert not within(short / number, 0.9, number)


def test_a_run_is_repeated_by_another_of_its_method_and_size() -> None:
    rows = pd.DataFrame(
        [
            ("scratch", 1e4, 3.0),
            ("scratch", 1e4, 3.2),  # .02 on one degree
            ("scratch", 1e5, 2.0),
            ("token", 1e4, 2.5),
            ("token", 1e4, 2.9),  # .08 on one degree, of the same seeds
            ("token", 1e5, 9.0),
        ],
        columns=["method", N, "cross_entropy"],
    )
    assert run_noise(rows) == SeedNoise(pytest.approx(math.sqrt(0.10 / 2)), 1)


def test_paired_differences_are_pooled_over_methods_and_sizes() -> None:
    """At one size token's gains differ by .2: .02 on one degree; the others' do not."""
    token = pd.DataFrame({N: [1e4, 1e4, 1e5, 1e5], "gain": [0.1, 0.3, 0.5, 0.5]})
    embedding = pd.DataFrame({N: [1e4, 1e4, 1e5], "gain": [0.7, 0.7, 0.9]})
    pairs = pd.concat([token.assign(method="token"), embedding.assign(method="embedding")])
    # Three repeats, two of them at one size.
    assert gain_noise(pairs) == SeedNoise(pytest.approx(math.sqrt(0.02 / 3)), 2)
    assert gain_noise(pairs.iloc[:0]) is None


# --- a difference and its interval --------------------------------------------------------------


@pytest.mark.parametrize("se_sequences", [0.0, math.nan])
def test_with_noise_of_seeds_alone_it_is_the_paired_t_interval(se_sequences: float) -> None:
    gains = np.array([0.21, 0.18, 0.26, 0.20, 0.23])
    textbook = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    found = Estimate(gains.mean(), se_sequences, gains.std(ddof=1) / math.sqrt(5), 4)
    assert found.interval() == pytest.approx(tuple(textbook))


@pytest.mark.parametrize(("se_seeds", "df"), [(math.nan, math.nan), (0.0, 3)])
def test_with_sequences_alone_it_is_the_normal_interval(se_seeds: float, df: float) -> None:
    """Hundreds of sequences are as good as infinitely many."""
    assert Estimate(0.3, 0.02, se_seeds, df).interval() == pytest.approx(
        stats.norm.interval(0.95, 0.3, 0.02)
    )


def test_with_both_it_is_welchs_interval() -> None:
    """One sample so large that its degrees of freedom are infinite, one of four."""
    rng = np.random.default_rng(1)
    many, few = rng.normal(0.3, 4, 100_000), np.array([0.09, 0.11, 0.08, 0.13])
    textbook = stats.ttest_ind(many, few, equal_var=False)
    found = Estimate(
        many.mean() - few.mean(),
        float(stats.sem(many)),
        float(stats.sem(few)),
        3,
    )
    assert 3 < textbook.df < 100
    assert found.interval() == pytest.approx(tuple(textbook.confidence_interval()), rel=1e-4)
    assert found.se == pytest.approx(math.hypot(stats.sem(many), stats.sem(few)))


def test_without_a_standard_error_there_is_no_interval() -> None:
    found = Estimate(0.123, math.nan, math.nan, math.nan)
    assert all(map(math.isnan, (found.se, *found.interval())))
    assert str(found) == "+0.123"
    assert str(Estimate(-0.2, 0.003, 0.004, 2)) == "-0.200 ± 0.005"


def test_scaling_turns_the_interval_with_the_value() -> None:
    found = Estimate(-0.2, 0.003, 0.004, 2)
    low, high = found.interval()
    assert found.scaled(-2).interval() == pytest.approx((-2 * high, -2 * low))
    assert found.scaled(-2).value == 0.4


# --- contrasts of cells -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def losses() -> dict[str, Any]:
    """Four runs over 200 sequences that are easy or hard for all of them."""
    rng = np.random.default_rng(2)
    common = rng.normal(3, 0.5, 200)
    return {name: common + rng.normal(0, 0.1, 200) for name in "abcd"}


def test_a_pair_of_runs_has_the_standard_error_of_the_paired_t_test(losses: dict) -> None:
    terms = [(1.0, cell(losses, "a")), (-1.0, cell(losses, "b"))]
    found = contrast(scored(losses), terms, None, 0.0)
    paired = stats.ttest_rel(losses["a"], losses["b"])
    unpaired = math.hypot(stats.sem(losses["a"]), stats.sem(losses["b"]))
    assert found.value == pytest.approx(np.mean(losses["a"]) - np.mean(losses["b"]))
    assert found.se_sequences == pytest.approx(found.value / paired.statistic)
    assert found.se_sequences < unpaired / 3
    assert math.isnan(found.se_seeds)


def test_seeds_of_a_cell_are_averaged_sequence_by_sequence(losses: dict) -> None:
    terms = [(1.0, cell(losses, "a", "b")), (-0.5, cell(losses, "c")), (-0.5, cell(losses, "d"))]
    found = contrast(scored(losses), terms, None, 0.0)
    a, b, c, d = losses.values()
    each = (a + b) / 2 - c / 2 - d / 2
    assert found.value == pytest.approx(each.mean())
    assert found.se_sequences == pytest.approx(stats.sem(each))


def test_a_run_without_losses_leaves_the_part_of_the_sequences_unknown(losses: dict) -> None:
    terms = [(1.0, cell(losses, "a")), (-1.0, cell(losses, "b"))]
    known = {name: losses[name] for name in "acd"}
    found = contrast(scored(known), terms, SeedNoise(0.004, 3), 2.0)
    assert math.isnan(found.se_sequences)
    assert found.se == pytest.approx(0.004 * math.sqrt(2))
    assert found.df == 3


def test_independent_runs_weigh_as_the_variance_of_their_sum() -> None:
    losses = {name: np.zeros(2) for name in "abc"}
    terms = [(0.5, cell(losses, "a", "b")), (-2.0, cell(losses, "c"))]
    # Var = .5^2 / 2 + 2^2 of one run's variance.
    assert independent(terms) == pytest.approx(0.125 + 4)


def test_the_interval_of_a_slope_contains_the_true_one_in_95_of_100_studies() -> None:
    """Five sizes of three seeds each: -.15 nats a doubling, seeds moving runs by .02 nats.

    Sequences are hard for all sizes alike, which cancels, and for each size differently, which
    does not. Without the part of the seeds the intervals are too short.
    """
    rng, number, n_sequences = np.random.default_rng(3), 400, 120
    sizes, slope, sigma = np.arange(5.0), -0.15, 0.02
    weights = np.linalg.pinv(np.vander(sizes, 2))[0]
    shape = (number, len(sizes), 1, n_sequences)
    level = 4 + slope * sizes[:, None, None] + rng.normal(0, sigma, (number, len(sizes), 3, 1))
    studies = level + rng.normal(0, 0.5, (number, 1, 1, n_sequences)) + rng.normal(0, 0.15, shape)
    covered = short = 0
    for study in studies:
        losses = {f"{size}-{seed}": study[size, seed] for size in range(5) for seed in range(3)}
        cells = [cell(losses, *(f"{size}-{seed}" for seed in range(3))) for size in range(5)]
        terms: list[Term] = list(zip(map(float, weights), cells, strict=True))
        noise = SeedNoise.pooled(
            {("scratch", n): each["cross_entropy"].to_numpy() for n, each in enumerate(cells)}
        )
        found = contrast(scored(losses), terms, noise, independent(terms))
        low, high = found.interval()
        covered += low <= slope <= high
        short += abs(found.value - slope) <= 1.96 * found.se_sequences
    assert within(covered / number, 0.95, number)
    assert not within(short / number, 0.95, number)
