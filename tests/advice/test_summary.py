"""Ten lines, each with its numbers, and what the design allows."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from kdlaws.advice import fit_study, limits, summary
from kdlaws.advice.evidence import Evidence, load


def lines(folder: Path) -> list[str]:
    return summary(folder).split("\n")


def test_ten_lines_of_a_hundred_characters_with_numbers(study: Path) -> None:
    found = lines(study)
    assert len(found) == 10
    assert all(len(line) <= 100 and re.search(r"\d", line) for line in found)


def test_the_numbers_are_the_known_ones(study: Path) -> None:
    run, teacher, scratch, token, embedding, gain, repeated, other, caution, report = lines(study)
    assert run == (
        "synthetic: 172 runs, 5 sizes, N 12.6k to 1.53M non-embedding (x122), "
        "56k to 700k tokens, 3 methods"
    )
    # The best scratch student: 1.8 + 25 * 1532160^-.3 + 55 * 700000^-.35 and its known jitter.
    assert teacher.startswith("Teacher 2.65M: 2.350 nats, 0.291 below the best scratch student")
    assert gain == (
        "Token ahead of scratch at 100 %: +0.200 ± 0.035 nats (SE over sizes), wins at 5 of 5 sizes"
    )
    assert (
        "at 10 %: +0.350 ± 0.000 nats (5 of 5 sizes); at 1 %: +0.450 ± 0.000 (5 of 5)" in repeated
    )
    assert "+0.020 ± 0.015 nats" in other
    assert "wins at 4 of 5 sizes" in other
    assert "6 trunks a law, 2 teachers; " in caution
    assert re.search(r"\d+ of 15 parameters of L\(N, D\) are not identified", caution)
    assert report.endswith("report/index.html (6 fits)")
    for line, name in ((scratch, "Scratch"), (token, "Token"), (embedding, "Embedding")):
        assert line.startswith(f"{name} law: alpha ")
        assert "(90 %)" in line


def test_the_scratch_line_gives_alpha_as_it_was_fitted(study: Path, evidence: Evidence) -> None:
    alpha = evidence.fits["chinchilla-scratch"].parameters["alpha"]
    assert f"alpha {alpha.value:.2f} [{alpha.lo:.2f}, {alpha.hi:.2f}]" in lines(study)[2]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"methods": ["scratch"], "unusual": False}, "Teacher: none in these 54 runs"),
        ({"methods": ["scratch"], "unusual": False}, "Token law: not fitted, 0 one-pass runs"),
        ({"methods": ["token"], "unusual": False}, "margin unknown: 0 scratch runs"),
        ({"without": ["teacher_cross_entropy"]}, "Teacher 2.65M: cross-entropy unknown"),
        ({"without": ["selected"]}, "on repeated data: 0 pairs of runs to compare"),
        ({"sizes": 1, "unusual": False}, "+0.100 nats (1 size, no SE), wins at 1 of 1 sizes"),
        ({}, "Caution: no law of N and D is fitted to these 172 runs"),
    ],
)
def test_what_is_not_there_is_said(make_study: Callable[..., Path], parts: dict, said: str) -> None:
    found = lines(make_study(**parts))
    assert len(found) == 10
    assert any(said in line for line in found)
    assert not any("nan" in line for line in found)


def test_a_long_folder_is_shortened_and_keeps_the_page(make_study: Callable[..., Path]) -> None:
    folder = make_study()
    long = folder.parent / ("a-rather-long-name-" * 6) / "study"
    long.parent.mkdir()
    folder.rename(long)
    last = lines(long)[-1]
    assert len(last) <= 100
    assert "study/report/index.html" in last


def test_parameters_that_one_size_cannot_identify_are_called_so(
    make_study: Callable[..., Path],
) -> None:
    folder = make_study(sizes=1, unusual=False)
    fit_study(folder, bootstrap=50)
    found = lines(folder)
    assert "alpha" in found[2]
    assert "* not identified" in found[2]
    assert "[open, open]*" in found[2].split("beta")[0]


def test_limits_follow_from_the_design(evidence: Evidence) -> None:
    can, cannot = " ".join(limits.can_show(evidence)), " ".join(limits.cannot_show(evidence))
    assert "5 sizes between 12.6k and 1.53M non-embedding parameters, a factor of 122" in can
    assert "token at 5 sizes and embedding at 5 sizes" in can
    assert "2 at N = 12.6k" in can
    assert "scratch 6, token 6 and embedding 6" in cannot
    assert "two teachers cannot enclose an optimum" in cannot
    assert "1 noisy run" in cannot
    assert "1 undertrained and 1 diverged" in cannot
    # The teacher leads by .291 nats and three token counts vary D: neither is complained about.
    assert "good teacher" not in cannot
    assert "exponent of D" not in cannot


def test_a_teacher_without_a_margin_is_called_too_weak(make_study: Callable[..., Path]) -> None:
    folder = make_study(unusual=False)
    table = folder / "table.csv"
    table.write_text(table.read_text().replace(",2.35,", ",2.6,"))
    evidence = load(folder)
    assert limits.teacher_margin(evidence) == pytest.approx(0.041, abs=0.001)
    assert "0.041 below the best scratch student, less than the 0.10 needed" in lines(folder)[1]
    assert any("good teacher" in sentence for sentence in limits.cannot_show(evidence))
    assert any("one teacher" in sentence for sentence in limits.cannot_show(evidence))


def test_the_margin_grows_with_the_spread_of_seeds(evidence: Evidence) -> None:
    [(n_seeds, deviation)] = limits.seed_spread(evidence).values()
    assert n_seeds == 2
    assert limits.margin_needed(evidence) == max(0.10, 10 * deviation)
