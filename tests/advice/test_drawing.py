"""The renderer: readable ticks, labels that do not collide, pictures without addresses."""

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest

from kdlaws.advice import drawing
from kdlaws.advice.picture import Axis, Curve, Figure, Panel, Reference, Series

SERIES = Series("token", (1e4, 1e6), (4.0, 3.0), error=(0.1, float("nan")), names=("10k", ""))
PANEL = Panel(
    title="a panel",
    x=Axis("N", log=True),
    y=Axis("nats"),
    series=(SERIES,),
    curves=(Curve("law", (1e4, 1e6), (4.0, 3.0), (3.9, 2.9), (4.1, 3.1), colour="token"),),
    references=(Reference("teacher", 2.5),),
)
EMPTY = Panel(title="nothing", x=Axis("N"), y=Axis("nats"), missing="no runs here")


@pytest.mark.parametrize(
    ("low", "high", "log", "ticks"),
    [
        (2.1, 5.6, True, [2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5]),
        (0.0, 1.0, False, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (9e3, 1.1e5, True, [1e4, 2e4, 5e4, 1e5]),
        (1.5, 300, True, [3.0, 10.0, 30.0, 100.0, 300.0]),
        (-0.05, 0.31, False, [0.0, 0.1, 0.2, 0.3]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, log: bool, ticks: list[float]) -> None:
    assert drawing.readable_ticks(low, high, log=log) == pytest.approx(ticks)


def test_tick_labels_share_their_decimals() -> None:
    assert drawing.tick_labels([2.5, 3.0, 3.5]) == ["2.5", "3.0", "3.5"]
    assert drawing.tick_labels([0.0, 0.25, 0.5]) == ["0.00", "0.25", "0.50"]
    assert drawing.tick_labels([12_576, 332_448, 1_532_160]) == ["12.6k", "332k", "1.53M"]
    assert drawing.tick_labels([3.0, 10.0, 30.0]) == ["3", "10", "30"]


def test_labels_are_moved_apart_and_keep_their_order() -> None:
    wanted = [0.5, 0.1, 0.52, 0.51, 0.95]
    moved = drawing.spread(wanted, 0.05)
    assert all(above - below >= 0.05 - 1e-12 for below, above in pairwise(sorted(moved)))
    assert sorted(range(5), key=moved.__getitem__) == sorted(range(5), key=wanted.__getitem__)
    # What does not collide stays, and a cluster stays around its own middle.
    assert (moved[1], moved[4]) == (0.1, 0.95)
    assert (moved[0] + moved[2] + moved[3]) / 3 == pytest.approx(0.51)


@pytest.mark.parametrize("legend", [False, True])
def test_a_figure_becomes_an_svg_and_a_png(tmp_path: Path, legend: bool) -> None:
    figure = Figure("sample", "A <sample>", "", (PANEL, EMPTY), columns=2, legend=legend)
    svg = drawing.save(figure, tmp_path)
    assert (tmp_path / "sample.svg").read_text(encoding="utf-8") == svg
    assert (tmp_path / "sample.png").read_bytes().startswith(b"\x89PNG")
    texts = {text.strip() for text in ElementTree.fromstring(svg).itertext()}
    assert {"a panel", "no runs here", "N"} <= texts
    assert ("teacher" in texts) != legend


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    figure = Figure("sample", "A sample", "", (PANEL,))
    assert drawing.save(figure, tmp_path) == drawing.save(figure, tmp_path)


def test_a_picture_in_a_page_needs_nothing_outside_it(tmp_path: Path) -> None:
    figure = Figure("sample", "A <sample>", "", (PANEL,))
    svg = drawing.inline(figure, drawing.save(figure, tmp_path))
    assert "http" not in svg
    assert 'aria-label="A &lt;sample&gt;"' in svg
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert all(each.startswith("sample-") for each in ids)
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)) <= {
        pair for each in ids for pair in ((each, ""), ("", each))
    }
    # Colours are the page's, so that its dark mode reaches the picture.
    assert "var(--token)" in svg
    assert "#d55e00" not in svg


def test_panels_with_the_same_axis_share_its_range(tmp_path: Path) -> None:
    low = Panel("low", Axis("N"), Axis("nats"), series=(Series("", (1.0, 2.0), (0.0, 1.0)),))
    high = Panel("high", Axis("N"), Axis("nats"), series=(Series("", (1.0, 2.0), (9.0, 10.0)),))
    svg = drawing.save(Figure("pair", "", "", (low, high), columns=2), tmp_path)
    texts = [text.strip() for text in ElementTree.fromstring(svg).itertext()]
    assert texts.count("10.0") == 2
