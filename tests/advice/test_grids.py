"""The page's tables: their numbers are the generator's, worked out by hand or by numpy."""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from kdlaws.advice import grids
from kdlaws.advice.evidence import Evidence, load

SIZES = (12_576, 98_112, 332_448, 791_680, 1_532_160)
TOKENS = (231_000.0, 406_000.0, 700_000.0)
METHODS = ("scratch", "token", "embedding")
GAINS = {
    "scratch": (0.0,) * 5,
    "token": (0.10, 0.15, 0.20, 0.25, 0.30),
    "embedding": (0.06, 0.04, 0.02, 0.01, -0.03),
}
OWN_SE = 0.002
"""Standard error over sequences of what a run has alone, nats; the rest cancels in differences."""

MakeStudy = Callable[..., Path]


def law(n_params: float, n_tokens: float) -> float:
    return 1.8 + 25 * n_params**-0.3 + 55 * n_tokens**-0.35


def sigma_of_seeds(turns: float, loss: float) -> float:
    """Two seeds at the smallest size, told apart by the generator's jitter of .1 %."""
    return 0.001 * loss * abs(math.sin(turns) - math.sin(11 + turns)) / math.sqrt(2)


def by_label(table: grids.Table) -> dict[str, Sequence[grids.Cell]]:
    return {str(label): cells for label, *cells in table.rows}


def numbers(cell: grids.Cell) -> list[float]:
    """A value, and where it has one its interval."""
    assert isinstance(cell, str)
    return [float(each) for each in re.findall(r"-?\d+\.\d+", cell)]


# --- gains --------------------------------------------------------------------------------------


def test_gains_are_the_planted_ones_with_their_paired_errors(unfitted: Evidence) -> None:
    table = grids.gain_table(unfitted)
    amounts = ("100 %", "10 %", "1 %")
    columns = [f"{method}, {amount}" for method in METHODS[1:] for amount in amounts]
    assert list(table.head) == ["N", *columns]
    # Two runs of .002 nats, whose seeds cancel: .0028; of two pairs at the smallest size .0020.
    expected = [
        [name, *(f"{gain:+.3f} ± {se}" for gain in (token, 0.35, 0.45, embedding, 0.35, 0.45))]
        for name, token, embedding, se in zip(
            ("12.6k", "98.1k", "332k", "792k", "1.53M"),
            GAINS["token"],
            GAINS["embedding"],
            ("0.002", *["0.003"] * 4),
            strict=True,
        )
    ]
    # .002 (2 / 2 + 4 x 2)^.5 / 5 = .0012
    means = [f"{gain:+.3f} ± 0.001" for gain in (0.20, 0.35, 0.45, 0.02, 0.35, 0.45)]
    assert [list(row) for row in table.rows] == [*expected, ["mean", *means]]


def test_a_size_without_a_pair_has_a_dash(study_of: Callable[..., Evidence]) -> None:
    cells = [
        {"size": size, "method": method, "n_tokens": 700_000, "cross_entropy": loss}
        for size, method, loss in ((0, "scratch", 4.0), (1, "scratch", 3.5), (0, "token", 3.75))
    ]
    table = grids.gain_table(study_of(cells, losses=False))
    assert list(table.head) == ["N", "token, 100 %"]
    assert [list(row) for row in table.rows] == [
        ["12.6k", "+0.250"],
        ["98.1k", "–"],
        ["mean", "+0.250"],
    ]


def test_without_pairs_there_is_no_table_of_gains(make_study: MakeStudy) -> None:
    evidence = load(make_study(methods=["scratch"], sizes=2, unusual=False))
    assert grids.gain_table(evidence).rows == []


# --- slopes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_doublings_of_n_are_least_squares_of_the_known_law(unfitted: Evidence, method: str) -> None:
    """Gains of .35 and .45 nats at every size change no slope; the jitter is .1 %."""
    rows, column = by_label(grids.slope_table(unfitted)), METHODS.index(method)
    of_size = 25 * np.array(SIZES, dtype=float) ** -0.3
    for share, gains in ((100, GAINS[method]), (10, 0.0), (1, 0.0)):
        known = np.polyfit(np.log2(SIZES), of_size - gains, 1)[0]
        value, low, high = numbers(rows[f"of N, at {share} % of the data"][column])
        assert value == pytest.approx(known, abs=0.002)
        assert low < value < high
    whole = law(np.inf, 700_000) + of_size - GAINS[method]
    exponent = -np.polyfit(np.log(SIZES), np.log(whole), 1)[0]
    value, low, high = numbers(rows["effective exponent of N at 100 %"][column])
    assert value == pytest.approx(exponent, abs=0.0005)
    assert low < value < high


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", range(5))
def test_doublings_of_d_are_least_squares_of_the_known_law(
    unfitted: Evidence, method: str, size: int
) -> None:
    """Scratch's largest size has an undertrained run besides, of 4.6 nats after 100k tokens."""
    tokens, losses = [*TOKENS], [law(SIZES[size], each) for each in TOKENS]
    if (method, size) == ("scratch", 4):
        tokens, losses = [*tokens, 100_000.0], [*losses, 4.6]
    name = ("12.6k", "98.1k", "332k", "792k", "1.53M")[size]
    row = by_label(grids.slope_table(unfitted))[f"of D in one pass, at N = {name}"]
    value, low, high = numbers(row[METHODS.index(method)])
    assert value == pytest.approx(np.polyfit(np.log2(tokens), losses, 1)[0], abs=0.004)
    assert low < value < high


def welch(weights: np.ndarray, n_seeds: np.ndarray, sigma: float) -> float:
    """Half of a 95 % interval: sequences known well, seeds on one degree of freedom."""
    own, seeds = (part * math.sqrt((weights**2 / n_seeds).sum()) for part in (OWN_SE, sigma))
    se = math.hypot(own, seeds)
    return float(stats.t.ppf(0.975, (se / seeds) ** 4) * se)


def test_the_intervals_of_slopes_are_those_of_sequences_and_seeds(unfitted: Evidence) -> None:
    rows, sigma = (
        by_label(grids.slope_table(unfitted)),
        sigma_of_seeds(700_000 / 97_000, law(SIZES[0], 700_000)),
    )
    for label, x, n_seeds in (
        ("of N, at 100 % of the data", SIZES, (2, 1, 1, 1, 1)),
        ("of D in one pass, at N = 12.6k", TOKENS, (2, 2, 2)),
        ("of D in one pass, at N = 98.1k", TOKENS, (1, 1, 1)),
    ):
        weights = np.linalg.pinv(np.vander(np.log2(x), 2))[0]
        _, low, high = numbers(rows[label][1])
        half = welch(weights, np.array(n_seeds), sigma)
        assert (high - low) / 2 == pytest.approx(half, abs=0.0006)


def test_a_slope_that_cannot_be_told_has_a_dash(study_of: Callable[..., Evidence]) -> None:
    """Token at one size and two token counts: -.5 nats a doubling of D, and nothing of N."""
    cells: list[dict[str, Any]] = [
        {"size": size, "method": "scratch", "n_tokens": 400_000, "cross_entropy": loss}
        for size, loss in ((0, 4.0), (1, 4.0 - 0.25 * math.log2(98_112 / 12_576)))
    ]
    cells += [
        {"size": 0, "method": "token", "n_tokens": tokens, "cross_entropy": loss}
        for tokens, loss in ((200_000, 3.5), (400_000, 3.0))
    ]
    table = grids.slope_table(study_of(cells, losses=False))
    assert list(table.head) == ["", "scratch", "token"]
    exponent = (math.log(4) - math.log(cells[1]["cross_entropy"])) / math.log(98_112 / 12_576)
    assert [list(row) for row in table.rows] == [
        ["of N, at 100 % of the data", "-0.250", "–"],
        ["effective exponent of N at 100 %", f"{exponent:.4f}", "–"],
        ["of D in one pass, at N = 12.6k", "–", "-0.500"],
    ]


def test_one_size_has_no_row_of_n(make_study: MakeStudy) -> None:
    evidence = load(make_study(sizes=1, unusual=False))
    assert list(by_label(grids.slope_table(evidence))) == ["of D in one pass, at N = 12.6k"]


# --- seeds --------------------------------------------------------------------------------------


def test_sigmas_are_those_of_the_two_seeds_of_the_smallest_size(unfitted: Evidence) -> None:
    """Chi-square on one degree, 95 and 5 %: 3.841 and .003932. Paired, the jitter cancels.

    Repeats are scored as three passes over their text; their cross-entropy counts before gains.
    """
    table = grids.seed_table(unfitted)
    assert list(table.head) == ["", "sigma", "degrees of freedom"]
    rows = by_label(table)
    assert len(rows) == len(table.rows) == 6
    for share, read, worth in (
        ("100", 700_000, 700_000),
        ("10", 70_000, 210_000),
        ("1", 7e3, 21e3),
    ):
        sigma = sigma_of_seeds(read / 97_000, law(SIZES[0], worth))
        of_runs, df = rows[f"one run, at {share} %"]
        ends = [sigma / math.sqrt(quantile) for quantile in (3.841, 0.003932)]
        assert numbers(of_runs) == pytest.approx([sigma, *ends], abs=7e-5)
        assert df == "1"
        of_pairs, df = rows[f"scratch minus distilled, at {share} %"]
        assert (of_pairs, df) == ("0.0000 [0.0000, 0.0000]", "1")


def test_pairs_have_a_sigma_of_their_own(study_of: Callable[..., Evidence]) -> None:
    """Seeds move runs by .3 nats and gains by .04, at two sizes of three seeds and of two."""
    cells = [
        {"size": size, "seed": seed, "method": method, "n_tokens": 700_000, "cross_entropy": loss}
        for size, gains in ((0, (0.10, 0.14, 0.18)), (1, (0.20, 0.24)))
        for seed, gain in enumerate(gains)
        for method, loss in (("scratch", 4 + 0.3 * seed), ("token", 4 + 0.3 * seed - gain))
    ]
    rows = by_label(grids.seed_table(study_of(cells)))
    of_pairs, df = rows["scratch minus distilled, at 100 %"]
    # Squares of 2 x .04^2 and 2 x .02^2 on three degrees; chi-square 7.815 and .3518.
    sigma = math.sqrt((2 * 0.04**2 + 2 * 0.02**2) / 3)
    ends = [sigma * math.sqrt(3 / quantile) for quantile in (7.815, 0.3518)]
    assert numbers(of_pairs) == pytest.approx([sigma, *ends], abs=7e-5)
    of_runs, same = rows["one run, at 100 %"]
    # Scratch: 2 x .3^2 and 2 x .15^2. Token: .3 less .04 in place of .3.
    squares = sum(2 * step**2 + step**2 / 2 for step in (0.30, 0.26))
    assert numbers(of_runs)[0] == pytest.approx(math.sqrt(squares / 6), abs=6e-5)
    assert df == same == "3"


def test_without_repeats_there_is_no_table_of_seeds(make_study: MakeStudy) -> None:
    assert grids.seed_table(load(make_study(sizes=1, seeds=1))).rows == []


# --- laws and runs ------------------------------------------------------------------------------


def test_a_law_that_was_not_fitted_has_dashes(unfitted: Evidence) -> None:
    table = grids.law_table(unfitted, "chinchilla")
    assert list(table.head) == ["", *METHODS]
    assert {cell for _, *cells in table.rows for cell in cells} == {"–"}
    assert "not fitted" in table.note


def test_a_run_is_listed_with_what_it_is(unfitted: Evidence) -> None:
    table = grids.run_table(unfitted)
    rows = [list(row) for row in table.rows]
    assert table.title == "172 runs"
    assert len(rows) == 172
    [noisy] = [row for row in rows if row[3] == "42 %"]
    # .05 nats above the law at its null, 406k tokens, whose jitter is .1 % of a sine.
    loss = law(98_112, 406_000) * (1 + 0.001 * math.sin(37 + 406_000 / 97_000)) + 0.05
    known = [f"{loss:.3f}", "0.008", f"{math.exp(loss):.1f}", "done"]
    assert noisy == ["scratch", "98.1k", "100 %", "42 %", "700k", "1", "0", "–", *known]
    [diverged] = [row for row in rows if row[-1] == ("diverged", "vague")]
    assert diverged == [
        *("token", "792k", "100 %", "–", "700k", "1", "7", "2.65M"),
        *("–", "0.008", "–", ("diverged", "vague")),
    ]
    # Each trunk that repeats its data is marked once, at its best epochs.
    marked = [row[5] for row in rows if "•" in row[5]]
    assert sorted(marked) == ["16 •"] * 18 + ["4 •"] * 18
