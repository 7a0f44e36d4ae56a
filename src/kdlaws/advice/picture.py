"""A figure as plain data: what is in it, not how it is drawn.

``figures.py`` makes these from a study, ``drawing.py`` draws any of them.
"""

from dataclasses import dataclass
from typing import Literal

# The methods' colours are those of Okabe and Ito, told apart by colour-blind readers. On the page
# each of these becomes the style sheet's variable of the same name, so that dark mode works.
COLOURS = {
    "scratch": "#0072b2",
    "token": "#d55e00",
    "embedding": "#009e73",
    "other": "#aa4499",
    "teacher": "#5c5470",
    "ink": "#1f2329",
    "faint": "#737b85",
    "rule": "#dfe2e6",
    "paper": "#ffffff",
}
MARKERS = {"scratch": "o", "token": "s", "embedding": "^", "teacher": "D"}


@dataclass(frozen=True)
class Axis:
    """A quantity with its unit. Panels whose axis has the same label share its range."""

    label: str
    log: bool = False
    ticks: tuple[float, ...] = ()


@dataclass(frozen=True)
class Series:
    """Measured points. ``error`` is one standard error a point, NaN where there is none."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    error: tuple[float, ...] = ()
    colour: str = "ink"
    marker: str = "o"
    hollow: bool = False
    size: float = 5.5
    join: Literal["", "line", "dashes", "steps"] = ""
    names: tuple[str, ...] = ()  # one a point, written beside it


@dataclass(frozen=True)
class Curve:
    """A line, fitted or measured, with a band where its uncertainty is known."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    lo: tuple[float, ...] = ()
    hi: tuple[float, ...] = ()
    colour: str = "ink"
    dashed: bool = False


@dataclass(frozen=True)
class Reference:
    """A horizontal line at ``value``."""

    label: str
    value: float


@dataclass(frozen=True)
class Panel:
    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...] = ()
    curves: tuple[Curve, ...] = ()
    references: tuple[Reference, ...] = ()
    missing: str = ""  # said in place of the picture, when there is nothing to draw


@dataclass(frozen=True)
class Figure:
    """Panels read row by row, ``columns`` in each.

    Curves have their names beside them; with ``legend``, series have theirs in a legend instead.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    columns: int = 1
    legend: bool = False
    panel_inches: tuple[float, float] = (3.4, 3.0)
