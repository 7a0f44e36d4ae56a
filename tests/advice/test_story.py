"""Sentences: each with its numbers, none without, and the numbers are the generator's."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdlaws.advice.crossings import Crossing
from kdlaws.advice.evidence import Evidence, load
from kdlaws.advice.story import sentences, shares_needed, story

SIZES = (12_576, 98_112, 332_448, 791_680, 1_532_160)
MakeStudy = Callable[..., Path]


@pytest.fixture(scope="module")
def told(unfitted: Evidence) -> list[str]:
    return sentences(unfitted)


def the(told: list[str], *words: str) -> str:
    """The one sentence with all of these words."""
    [found] = [each for each in told if all(word in each for word in words)]
    return found


def numbers(sentence: str) -> list[float]:
    return [float(each) for each in re.findall(r"-?\d+\.\d+", sentence)]


# --- what the generator planted -----------------------------------------------------------------


def test_doublings_of_n_are_those_of_the_law(told: list[str]) -> None:
    """25 N^-.3 minus the gains, by least squares on log2 N; the jitter is .1 %."""
    sentence = the(told, "Each doubling of N", "12.6k to 1.53M")
    doublings, exponents = sentence.split("effective exponents")
    law = 1.8 + 55 * 700_000**-0.35 + 25 * np.array(SIZES, dtype=float) ** -0.3
    for method, gains in (
        ("scratch", np.zeros(5)),
        ("token", np.array([0.10, 0.15, 0.20, 0.25, 0.30])),
        ("embedding", np.array([0.06, 0.04, 0.02, 0.01, -0.03])),
    ):
        slope = -np.polyfit(np.log2(SIZES), law - gains, 1)[0]
        exponent = -np.polyfit(np.log(SIZES), np.log(law - gains), 1)[0]
        for part, known in ((doublings, slope), (exponents, exponent)):
            found = re.search(rf"(\d\.\d+) \[(\d\.\d+), (\d\.\d+)\] \({method}\)", part)
            assert found is not None
            value, low, high = map(float, found.groups())
            assert value == pytest.approx(known, abs=0.002)
            assert low < value < high


def test_doublings_of_d_are_those_of_the_law(told: list[str]) -> None:
    """55 D^-.35 by least squares on log2 D; the jitter is .1 % of four nats."""
    tokens = np.array([231_000.0, 406_000.0, 700_000.0])
    known = -np.polyfit(np.log2(tokens), 55 * tokens**-0.35, 1)[0]
    found = re.search(
        r"token by (\d\.\d+) to (\d\.\d+) nats \(([^)]+)\)", the(told, "tokens of one")
    )
    assert found is not None
    assert [float(each) for each in found.groups()[:2]] == pytest.approx([known] * 2, abs=0.004)
    assert found.group(3) == "95 % interval above 0 at 5 of 5 sizes"


def test_gains_are_told_with_their_pairs(told: list[str]) -> None:
    token = the(told, "Token-level distillation against scratch")
    # Ten runs and two pairs of seeds, .002 nats each: .002 (1 + 8)^.5 / 5 = .0012.
    assert "+0.200 ± 0.001 nats at 100 % of the data (+0.100 to +0.300 over 5 sizes)" in token
    assert "+0.350 ± 0.001 nats at 10 % of the data" in token
    assert "+0.450 ± 0.001 nats at 1 % of the data" in token
    assert "in 15 of 15 comparisons, behind in 0" in token
    embedding = the(told, "Embedding-level distillation against scratch")
    assert "+0.020 ± 0.001 nats at 100 % of the data (-0.030 to +0.060 over 5 sizes)" in embedding
    assert "in 14 of 15 comparisons, behind in 1" in embedding


def test_every_inversion_is_named(told: list[str]) -> None:
    """Of each method 3 x 4 steps in N, 5 x 2 in D and in U; one more from an undertrained run."""
    sentence = the(told, "More parameters or more data are worse")
    assert "in 5 of 97 steps between neighbours: " in sentence
    assert sentence.count("embedding from U = 70k to 700k") == 5


def test_the_tokens_that_token_level_needs(told: list[str]) -> None:
    """Where 55 D^-.35, straight in ln D between branches, is above its end by the gain."""
    sentence = the(told, "In one pass each, token")
    tokens = np.array([231_000.0, 406_000.0, 700_000.0])
    falls = 55 * (tokens**-0.35 - 700_000**-0.35)
    least, most = (
        100 * math.exp(np.interp(gain, falls[::-1], np.log(tokens)[::-1])) / 700_000
        for gain in (0.20, 0.10)
    )
    found = re.search(r"with (\d+) % \[\d+, \d+\] to (\d+) % \[\d+, \d+\] \(3 sizes\)", sentence)
    assert found is not None
    assert [int(each) for each in found.groups()] == pytest.approx([least, most], abs=1.5)
    # Gains of .25 and .30 lie below the first branch, 231k of 700k.
    assert "less than 33 % (N = 792k and 1.53M)" in sentence
    # Embedding is behind at the largest size.
    assert "more than 100 % (N = 1.53M)" in the(told, "In one pass each, embedding")


def test_the_text_that_token_level_needs(told: list[str]) -> None:
    """Best epochs are worth three passes; the gains are .45 on 7k and .35 on 70k unique tokens."""
    unique = np.array([7_000.0, 70_000.0])
    levels = 55 * (3 * unique) ** -0.35 - np.array([0.45, 0.35])
    goal = 55 * 700_000**-0.35
    share = 100 * math.exp(np.interp(goal, levels[::-1], np.log(unique)[::-1])) / 700_000
    found = re.search(r"with (\d+) % .*\(5 sizes\)", the(told, "Repeating its text", "token"))
    assert found is not None
    assert int(found.group(1)) == pytest.approx(share, abs=0.6)


def test_teachers_are_compared_by_their_students(told: list[str]) -> None:
    sentence = the(told, "students of teacher 2.65M (2.350 nats)", "teacher 332k (2.520 nats)")
    # A run has .002 nats over sequences and .0037 over seeds, a difference root 2 of both.
    assert "by +0.040 ± 0.006 nats (N = 12.6k) and +0.040 ± 0.006 nats" in sentence


def test_the_noisy_run_is_told_against_its_null(told: list[str]) -> None:
    """Planted .05 nats above the clean run of 406k tokens, 58 % of the text."""
    sentence = the(told, "42 % of the blocks")
    assert "+0.050 ± 0.006" in sentence
    assert re.search(r"nu = 1\.\d+ \[\d\.\d+, \d\.\d+\]", sentence)


def test_the_teacher_is_judged(told: list[str]) -> None:
    """1.8 + 25 x 1532160^-.3 + 55 x 700000^-.35 with its jitter, minus 2.35; 2.35 against 2.31."""
    sentence = the(told, "The teacher 2.65M")
    assert "0.291 nats below the best scratch student" in sentence
    assert "has read 0% of the students' text" in sentence
    assert "0.040 nats more on the test text" in sentence


def test_seeds_are_told_with_their_interval(told: list[str]) -> None:
    """Two seeds at the smallest size, whose jitter is .001 of the law times a sine."""
    law = 1.8 + 25 * 12_576**-0.3 + 55 * 700_000**-0.35
    turns = 700_000 / 97_000
    sigma = 0.001 * law * abs(math.sin(turns) - math.sin(11 + turns)) / math.sqrt(2)
    # Chi-square on one degree, 95 and 5 %: 3.841 and .003932.
    known = [sigma, sigma * math.sqrt(1 / 3.841), sigma * math.sqrt(1 / 0.003932)]
    sentence = the(told, "Over seeds")
    assert numbers(sentence)[:3] == pytest.approx(known, abs=6e-5)
    # All three methods are of the same two seeds.
    assert "at 100 % (1 degree of freedom)" in sentence


def test_the_story_of_a_folder_is_that_of_its_evidence(make_study: MakeStudy) -> None:
    folder = make_study(sizes=1, unusual=False)
    assert story(folder) == sentences(load(folder))


# --- what is missing ----------------------------------------------------------------------------

NO_STANDARD_ERROR = {"seeds": 1, "losses": False}


def lacking(*columns: str, sizes: int = 1) -> dict:
    return {"without": columns, "sizes": sizes}


@pytest.mark.parametrize(
    ("parts", "absent"),
    [
        ({"losses": False}, []),
        ({"methods": ["scratch"], "unusual": False}, ["eacher", "scratch:", "equals", "blocks"]),
        ({"methods": ["token"], "unusual": False}, ["against scratch", "equals", "The teacher"]),
        ({"methods": ["embedding"]}, ["Embedding-level"]),
        ({"unusual": False}, ["Each doubling of N", "students of", "blocks"]),
        ({"seeds": 1}, ["Over seeds"]),
        (NO_STANDARD_ERROR | {"sizes": 2}, ["Over seeds", "More parameters", "±", "[", "95 %"]),
        (lacking("selected", "n_unique_tokens"), ["Repeating", "at 10 % of the data", "U = "]),
        (lacking("seed", "run_id", "teacher_overlap"), ["students of", "has read"]),
        (lacking("teacher"), ["students of", "The teacher"]),
        (lacking("teacher_cross_entropy", "cross_entropy_se"), ["The teacher", "(2.350 nats)"]),
        (
            lacking("teacher_n_params_non_embedding", "teacher_stream_cross_entropy"),
            ["teacher 2.65M", "more on the test text"],
        ),
        (lacking("noise", "status", sizes=2), ["blocks"]),
        (lacking("epochs", sizes=2), ["Each doubling", "More parameters", "Repeating"]),
        (lacking("fraction", "role", sizes=2), ["Each doubling", "against scratch", "equals"]),
    ],
    ids=str,
)
def test_what_is_missing_is_left_out_and_the_rest_has_its_numbers(
    make_study: MakeStudy, told: list[str], parts: dict, absent: list[str]
) -> None:
    found = sentences(load(make_study(**({"sizes": 1} | parts))))
    for phrase in absent:
        assert any(phrase in sentence for sentence in told)
        assert not any(phrase in sentence for sentence in found)
    for sentence in found:
        assert re.search(r"\d", sentence)
        assert not re.search(r"\b(nan|inf|None)\b", sentence)
        assert sentence.endswith(".")


def test_without_standard_errors_no_comparison_is_won(make_study: MakeStudy) -> None:
    """Gains of .10 and .15 nats."""
    found = sentences(load(make_study(sizes=2, unusual=False, **NO_STANDARD_ERROR)))
    sentence = the(found, "Token-level distillation against scratch")
    assert "+0.125 nats at 100 % of the data" in sentence
    assert "no standard error" in sentence
    assert "ahead by" not in sentence


def test_amounts_of_data_without_an_error_are_told_apart(make_study: MakeStudy) -> None:
    """Three seeds at 100 % give one; at 10 % and 1 % there is a single seed and no losses."""
    folder = make_study(sizes=2, unusual=False, losses=False)
    header, *rows = (folder / "table.csv").read_text().splitlines()
    names = header.split(",")
    fraction, seed = names.index("fraction"), names.index("seed")
    kept = [
        row for row in rows if (cells := row.split(","))[fraction] == "1.0" or cells[seed] == "0"
    ]
    (folder / "table.csv").write_text("\n".join([header, *kept]) + "\n")
    sentence = the(sentences(load(folder)), "Token-level distillation against scratch")
    assert "in 2 of 2 comparisons, behind in 0; no standard error in 2 amounts of data" in sentence


# --- shares -------------------------------------------------------------------------------------


def test_one_share_has_its_size_and_several_their_range() -> None:
    first, second, third = (
        Crossing(share, share - 0.02, share + 0.03) for share in (0.45, 0.312, 0.6)
    )
    assert shares_needed({1e4: first}) == "45 % [43, 48] (N = 10k)"
    several = shares_needed({1e4: first, 1e5: second, 1e6: third})
    assert several == "31 % [29, 34] to 60 % [58, 63] (3 sizes)"


def test_a_bound_holds_for_every_size_that_it_names() -> None:
    """Less than the largest of the curves' beginnings, more than the least of their ends."""
    nan = math.nan
    below = {1e4: Crossing(0.2, nan, 0.2, "<"), 1e5: Crossing(0.3, nan, 0.3, "<")}
    above = {1e4: Crossing(0.8, 0.8, nan, ">"), 1e5: Crossing(1.0, 1.0, nan, ">")}
    assert shares_needed(below) == "less than 30 % (N = 10k and 100k)"
    assert shares_needed(above) == "more than 80 % (N = 10k and 100k)"
