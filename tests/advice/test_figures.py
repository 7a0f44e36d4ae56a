"""Figures as data: their points are the table's, and say what is missing."""

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdlaws.advice import figures
from kdlaws.advice.evidence import Evidence
from kdlaws.advice.figures import describe
from kdlaws.advice.picture import Figure, Panel

Point = tuple[float, float]

SIZES = (12_576, 98_112, 332_448, 791_680, 1_532_160)
TOKENS = (231_000, 406_000, 700_000)
LABELS = ("token, teacher 2.65M", "token, teacher 332k")
RUN_SE, OWN_SE = 0.008, 0.002
"""Over sequences, nats: of one run, and of the part that it has alone."""


def law(n_params: float, n_tokens: float) -> float:
    return 1.8 + 25 * n_params**-0.3 + 55 * n_tokens**-0.35


def sigma_of_seeds() -> float:
    """Two seeds of the smallest size after 700k tokens, told apart by a jitter of .1 %."""
    turns = 700_000 / 97_000
    half = abs(math.sin(turns) - math.sin(11 + turns)) / math.sqrt(2)
    return 0.001 * half * law(SIZES[0], 700_000)


def by_name(folder: Path) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(folder)}


@pytest.fixture(scope="module")
def drawn(study: Path) -> dict[str, Figure]:
    return by_name(study)


def rows(folder: Path) -> Iterator[dict[str, str]]:
    with (folder / "table.csv").open() as file:
        yield from csv.DictReader(file)


def points(panel: Panel, *, hollow: bool = False) -> set[Point]:
    shown = [each for each in panel.series if each.hollow == hollow and not each.join]
    return {point for each in shown for point in zip(each.x, each.y, strict=True)}


def is_plain(row: dict[str, str], method: str) -> bool:
    """Clean, done, with the main teacher at full weight: in the generator's own words."""
    usual = row["noise"] == "0.0" and row["status"] == "done" and row["kd_weight"] != "0.5"
    return row["method"] == method and usual and row["teacher"] != "teacher-96x3"


def test_scaling_shows_every_full_run_of_the_table(study: Path, drawn: dict[str, Figure]) -> None:
    [panel] = drawn["scaling"].panels
    expected = {
        (float(row["n_params_non_embedding"]), float(row["cross_entropy"]))
        for method in ("scratch", "token", "embedding")
        for row in rows(study)
        if is_plain(row, method) and row["n_tokens"] == "700000" and row["fraction"] == "1.0"
    }
    assert points(panel) == expected
    assert len(expected) == 18
    errors = [error for each in panel.series for error in each.error]
    assert set(errors) == {0.008}


def test_scaling_has_a_law_with_a_band_for_each_method(drawn: dict[str, Figure]) -> None:
    [panel] = drawn["scaling"].panels
    assert [curve.label for curve in panel.curves] == ["scratch", "token", "embedding"]
    for curve in panel.curves:
        assert curve.x[0] == pytest.approx(12_576)
        assert curve.x[-1] == pytest.approx(1_532_160)
        assert all(lo <= hi for lo, hi in zip(curve.lo, curve.hi, strict=True))
    scratch = panel.curves[0]
    # The generator's law at its largest size.
    assert scratch.y[-1] == pytest.approx(law(1_532_160, 700_000), rel=0.003)


def test_scaling_draws_the_reference_lines(drawn: dict[str, Figure]) -> None:
    [panel] = drawn["scaling"].panels
    lines = {line.label: line.value for line in panel.references}
    assert "A unigram table has 5.31 nats" in drawn["scaling"].caption
    assert lines["bigram: 3.46"] == pytest.approx(3.1 + 40 / 700_000**0.35)
    assert lines["teacher 2.65M: 2.35"] == 2.35
    assert lines["teacher 332k: 2.52"] == 2.52


@pytest.mark.parametrize("method", ["scratch", "token", "embedding"])
def test_data_keeps_one_pass_and_repeated_data_apart(
    study: Path, drawn: dict[str, Figure], method: str
) -> None:
    panels = {panel.title: panel for panel in drawn["data"].panels}
    once, again = (
        {
            (float(row[column]), float(row["cross_entropy"]))
            for row in rows(study)
            if is_plain(row, method) and row["selected"] == "True" and wanted(float(row["epochs"]))
        }
        for column, wanted in (
            ("n_tokens", lambda epochs: epochs <= 1),
            ("n_unique_tokens", lambda epochs: epochs > 1),
        )
    )
    assert points(panels[f"{method}, one pass: L(N, D)"]) == once
    assert points(panels[f"{method}, repeated data: L(N, U)"]) == again
    # Few values are ticks themselves; the undertrained run's 100k is among those drawn.
    ticks = panels[f"{method}, one pass: L(N, D)"].x.ticks
    assert ticks == (100_000, 231_000, 406_000, 700_000)
    assert len(once) == 18
    assert len(again) == 12


def test_an_undertrained_run_is_drawn_hollow_and_named(drawn: dict[str, Figure]) -> None:
    figure = drawn["data"]
    assert points(figure.panels[0], hollow=True) == {(100_000.0, 4.6)}
    assert "1 undertrained run" in figure.caption


def test_the_frontier_is_optimal_among_the_points_shown(drawn: dict[str, Figure]) -> None:
    for panel in drawn["frontier"].panels:
        [frontier] = [each for each in panel.series if each.join == "steps"]
        shown = points(panel)
        optimal = {
            (a, b)
            for a, b in shown
            if not any(c <= a and d <= b and (c, d) != (a, b) for c, d in shown)
        }
        assert set(zip(frontier.x, frontier.y, strict=True)) == optimal
        assert frontier.names == ("12.6k", "98.1k", "332k", "792k", "1.53M")
    lowest = math.exp(law(1_532_160, 700_000) - 0.30)
    assert min(frontier.y) == pytest.approx(lowest, rel=0.01)


def test_compression_shows_the_known_gaps_and_gains_by_teacher(drawn: dict[str, Figure]) -> None:
    gap, gain, *_ = drawn["compression"].panels
    strong, weak = (next(s for s in gain.series if s.label == label) for label in LABELS)
    assert strong.x == pytest.approx([2_654_208 / n for n in reversed(SIZES)])
    assert strong.y == pytest.approx([0.30, 0.25, 0.20, 0.15, 0.10])
    assert weak.x == pytest.approx([332_448 / n for n in (98_112, 12_576)])
    assert weak.y == pytest.approx([0.11, 0.06])
    behind = next(each for each in gap.series if each.label == LABELS[0])
    gains = (0.30, 0.25, 0.20, 0.15, 0.10)
    known = [law(n, 700_000) - g - 2.35 for n, g in zip(reversed(SIZES), gains, strict=True)]
    assert behind.x == strong.x
    assert behind.y == pytest.approx(known, abs=0.004)


def test_bars_of_compression_are_paired_standard_errors(drawn: dict[str, Figure]) -> None:
    """A seed moves both runs of a pair alike: a gain has only what its runs have alone.

    Nothing cancels in the gap to a teacher whose own losses are not in the study. At the smallest
    size two seeds are averaged; the weak teacher has one of them.
    """
    gap, gain, *_ = drawn["compression"].panels
    strong, weak = (next(s for s in gain.series if s.label == label) for label in LABELS)
    pair = OWN_SE * math.sqrt(2)
    assert strong.error == pytest.approx([pair] * 4 + [OWN_SE], rel=1e-4)
    assert weak.error == pytest.approx([pair] * 2, rel=1e-4)
    behind = next(each for each in gap.series if each.label == LABELS[0])
    seeds = sigma_of_seeds()
    one = math.hypot(RUN_SE, seeds)
    two = math.hypot(math.sqrt(RUN_SE**2 - OWN_SE**2 / 2), seeds / math.sqrt(2))
    assert behind.error == pytest.approx([one] * 4 + [two], rel=1e-4)


def test_compression_has_a_panel_of_gains_for_each_amount_of_data(
    drawn: dict[str, Figure],
) -> None:
    _, *gains = drawn["compression"].panels
    assert [panel.title for panel in gains] == [
        f"ahead of scratch, at {share} % of the data" for share in (100, 10, 1)
    ]
    for panel, planted in zip(gains[1:], (0.35, 0.45), strict=True):
        assert [series.label for series in panel.series] == [LABELS[0], "embedding, teacher 2.65M"]
        for series in panel.series:
            assert series.y == pytest.approx([planted] * 5)


def test_without_losses_and_repeats_gains_have_no_bars(make_study: Callable[..., Path]) -> None:
    figure = by_name(make_study(sizes=2, seeds=1, unusual=False, losses=False))["compression"]
    gain = figure.panels[1].series[0]
    assert gain.y == pytest.approx((0.15, 0.10))
    assert all(map(math.isnan, gain.error))
    assert "+0.125 nats, +0.100 to +0.150 over 2 sizes" in figure.caption
    assert "±" not in figure.caption


def test_a_teacher_of_unknown_cross_entropy_has_gains_and_no_gap(
    make_study: Callable[..., Path],
) -> None:
    folder = make_study(sizes=2, unusual=False, without=["teacher_cross_entropy"])
    gap, gain, *_ = by_name(folder)["compression"].panels
    assert not gap.series
    assert gap.missing == "no distilled run at 100 % of the data whose teacher is known"
    assert gain.series[0].y == pytest.approx((0.15, 0.10))


# --- degraded text ------------------------------------------------------------------------------


def test_noise_is_drawn_beside_its_clean_runs_and_its_null(
    study: Path, drawn: dict[str, Figure]
) -> None:
    """42 % of the blocks: the null is the clean run of 406k tokens, and .05 nats were planted."""
    [panel] = drawn["noise"].panels
    clean, noisy, null = panel.series
    assert panel.title == "scratch, N 98.1k"
    assert drawn["noise"].columns == 1
    measured = {
        (float(row["n_tokens"]), float(row["cross_entropy"]))
        for row in rows(study)
        if is_plain(row, "scratch") and row["n_params_non_embedding"] == "98112"
        if row["fraction"] == "1.0"
    }
    assert set(zip(clean.x, clean.y, strict=True)) == measured
    assert len(measured) == 3
    assert clean.y == pytest.approx([law(98_112, tokens) for tokens in TOKENS], rel=0.0011)
    assert (null.x, null.y) == (pytest.approx((406_000,)), (dict(measured)[406_000],))
    assert noisy.x == (700_000,)
    assert noisy.y == pytest.approx((null.y[0] + 0.05,))
    # Of its cost: the difference of two runs, over sequences and over seeds.
    error = math.sqrt(2) * math.hypot(OWN_SE, sigma_of_seeds())
    assert noisy.error == pytest.approx((error,), rel=1e-4)
    assert "42 %" in noisy.label
    assert null.hollow


def test_noise_has_a_caption_with_its_numbers(drawn: dict[str, Figure]) -> None:
    caption = drawn["noise"].caption
    worse = law(98_112, 406_000) + 0.05 - law(98_112, 700_000)
    assert "42 % of the blocks in random order, scratch at N = 98.1k" in caption
    found = float(caption.partition("worse by ")[2].split()[0])
    assert found == pytest.approx(worse, abs=0.006)  # .1 % of two runs
    assert "+0.050 ± 0.006 beyond losing those blocks" in caption


def test_a_study_on_clean_text_has_no_figure_of_noise(make_study: Callable[..., Path]) -> None:
    assert list(by_name(make_study(sizes=1, unusual=False))) == [
        *("scaling", "data", "frontier", "compression")
    ]


def test_each_noisy_run_has_its_panel_with_its_own_teachers_students(
    study_of: Callable[..., Evidence],
) -> None:
    """A null below the shortest clean pass is not drawn."""
    clean = [
        {"size": 1, "method": method, "n_tokens": tokens, "cross_entropy": loss, **by}
        for method, loss, by in (
            ("scratch", 4.0, {}),
            ("token", 3.0, {"by": "weak"}),
            ("token", 3.5, {}),
            ("embedding", 3.8, {}),
        )
        for tokens in TOKENS
    ]
    noisy: list[dict[str, Any]] = [
        {"method": "scratch", "noise": 0.8, "cross_entropy": 4.5},
        {"method": "token", "noise": 0.42, "cross_entropy": 3.2, "by": "weak"},
    ]
    evidence = study_of([*clean, *({"size": 1, "n_tokens": 700_000, **each} for each in noisy)])
    [figure] = [each for each in describe(evidence) if each.name == "noise"]
    found = {panel.title: panel.series for panel in figure.panels}
    # The figure has one legend: each method's colour has a label of its own.
    colours = {(series[0].label, series[0].colour) for series in found.values()}
    assert colours == {("scratch, clean", "scratch"), ("token, clean", "token")}
    assert {title: [each.y for each in series] for title, series in found.items()} == {
        "scratch, N 98.1k": [(4.0,) * 3, (4.5,), ()],
        "token, N 98.1k, teacher 332k": [(3.0,) * 3, (3.2,), (3.0,)],
    }


# --- captions and what is missing ---------------------------------------------------------------


def test_captions_carry_the_numbers(drawn: dict[str, Figure]) -> None:
    captions = {name: figure.caption for name, figure in drawn.items()}
    assert "700k tokens" in captions["scaling"]
    assert "90 % intervals" in captions["scaling"]
    assert "7k and 70k unique tokens" in captions["data"]
    assert "(4 to 16)" in captions["data"]
    assert "5 of 96 models" in captions["frontier"]
    # Twelve runs of .002 nats that nothing else shares: .002 (2 / 2 + 4 x 2)^.5 / 5 = .0012.
    gained = "token with teacher 2.65M is ahead by +0.200 ± 0.001 nats, +0.100 to +0.300 over 5"
    assert gained in captions["compression"]
    assert (
        "teacher 332k is ahead by +0.085 ± 0.002 nats, +0.060 to +0.110 over 2"
        in (captions["compression"])
    )


def test_every_axis_of_n_names_its_convention(drawn: dict[str, Figure]) -> None:
    assert "non-embedding" in drawn["scaling"].panels[0].x.label
    assert all("non-embedding" in panel.x.label for panel in drawn["compression"].panels)


def test_what_is_missing_is_said_in_its_place(make_study: Callable[..., Path]) -> None:
    folder = make_study(methods=["scratch"], unusual=False, without=["decode_ms_p50"])
    figures_ = by_name(folder)
    assert figures_["frontier"].panels[1].missing == (
        "the table has no decode latency, p50 (ms per token, batch 1)"
    )
    assert all(panel.missing for panel in figures_["compression"].panels)
    assert figures_["compression"].caption == "No run of the study is distilled."
    assert figures_["data"].columns == 2
    # Not fitted yet: the means are joined instead, and the caption says so.
    [panel] = figures_["scaling"].panels
    assert panel.curves[0].x == SIZES
    assert panel.curves[0].lo == ()
    assert "scratch: no law" in figures_["scaling"].caption
