"""Figures as data: their points are the table's, and say what is missing."""

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdlaws.advice import figures
from kdlaws.advice.picture import Figure, Panel

Point = tuple[float, float]

SIZES = (12_576, 98_112, 332_448, 791_680, 1_532_160)
LABELS = ("token, teacher 2.65M", "token, teacher 332k")


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
    # The generator's law at its largest size: 1.8 + 25 N^-.3 + 55 D^-.35.
    truth = 1.8 + 25 * 1_532_160**-0.3 + 55 * 700_000**-0.35
    assert scratch.y[-1] == pytest.approx(truth, rel=0.003)


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
    lowest = math.exp(1.8 + 25 * 1_532_160**-0.3 + 55 * 700_000**-0.35 - 0.30)
    assert min(frontier.y) == pytest.approx(lowest, rel=0.01)


def test_compression_shows_the_known_gaps_and_gains_by_teacher(drawn: dict[str, Figure]) -> None:
    gap, gain, *_ = drawn["compression"].panels
    strong, weak = (next(s for s in gain.series if s.label == label) for label in LABELS)
    assert strong.x == pytest.approx([2_654_208 / n for n in reversed(SIZES)])
    assert strong.y == pytest.approx([0.30, 0.25, 0.20, 0.15, 0.10])
    assert weak.x == pytest.approx([332_448 / n for n in (98_112, 12_576)])
    assert weak.y == pytest.approx([0.11, 0.06])
    # Two seeds at the smallest size: a standard error there, and nowhere else.
    assert [math.isnan(error) for error in strong.error] == [True] * 4 + [False]
    behind = next(each for each in gap.series if each.label == LABELS[0])
    truth = 1.8 + 25 * SIZES[-1] ** -0.3 + 55 * 700_000**-0.35 - 0.30 - 2.35
    assert behind.y[0] == pytest.approx(truth, abs=0.004)


def test_captions_carry_the_numbers(drawn: dict[str, Figure]) -> None:
    captions = {name: figure.caption for name, figure in drawn.items()}
    assert "700k tokens" in captions["scaling"]
    assert "90 % intervals" in captions["scaling"]
    assert "7k and 70k unique tokens" in captions["data"]
    assert "(4 to 16)" in captions["data"]
    assert "5 of 96 models" in captions["frontier"]
    assert "+0.200 ± 0.035 nats (5 sizes)" in captions["compression"]


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
