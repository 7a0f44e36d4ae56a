"""The one renderer: a figure's description becomes a picture, as SVG or PNG.

Nothing here knows about studies. matplotlib is loaded by the functions that draw.
"""

import html
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdlaws.advice.picture import COLOURS, Axis, Curve, Figure, Panel, Series
from kdlaws.quantities import human

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_DASHES = (0, (4, 2.5))
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["faint"],
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": COLOURS["faint"],
    "ytick.color": COLOURS["faint"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "svg.fonttype": "none",
    "svg.hashsalt": "kdlaws",
}


def save(figure: Figure, folder: Path) -> str:
    """Write ``folder/<name>.svg`` and ``.png`` (200 dots an inch); returns the SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    svg = _rendered(figure, "svg", {"Date": None})
    (folder / f"{figure.name}.svg").write_bytes(svg)
    (folder / f"{figure.name}.png").write_bytes(_rendered(figure, "png", {"Software": None}))
    return svg.decode()


def inline(figure: Figure, svg: str) -> str:
    """What ``save`` returned, for a page: its fonts and colours, ids of its own, no address."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{figure.name}-", svg)
    svg = svg.replace("'DejaVu Sans'", "var(--sans)")
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(figure.title)}"', 1)


def _rendered(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        _draw(figure).savefig(file, format=kind, dpi=200, metadata=metadata)
    return file.getvalue()


def _draw(figure: Figure) -> "Canvas":
    from matplotlib.figure import Figure as Canvas

    rows = math.ceil(len(figure.panels) / figure.columns)
    width, height = figure.panel_inches
    size = (width * figure.columns, height * rows + 0.35 * figure.legend)
    canvas = Canvas(figsize=size)
    canvas.set_layout_engine("constrained", w_pad=0.06, h_pad=0.09)
    for index, panel in enumerate(figure.panels):
        axes = canvas.add_subplot(rows, figure.columns, index + 1)
        left = figure.panels[index - 1] if index % figure.columns else None
        _draw_panel(axes, panel, figure, named=left is None or left.y.label != panel.y.label)
    if figure.legend:
        _draw_legend(canvas)
    return canvas


def _draw_panel(axes: "Axes", panel: Panel, figure: Figure, *, named: bool) -> None:
    title_pad = 20 if panel.y.label and not panel.missing else 6
    axes.set_title(panel.title, loc="left", fontsize=9.5, fontweight="bold", pad=title_pad)
    if panel.missing:
        _say_missing(axes, panel.missing)
        return
    x_limits, y_limits = (_limits(figure, panel, which) for which in ("x", "y"))
    _set_axis(axes, "x", panel.x, x_limits)
    _set_axis(axes, "y", panel.y, y_limits)
    axes.grid(axis="y", color=COLOURS["rule"], linewidth=0.6)
    axes.set_xlabel(panel.x.label, color=COLOURS["faint"])
    if named:
        axes.text(0, 1.03, panel.y.label, transform=axes.transAxes, color=COLOURS["faint"])
    for reference in panel.references:
        axes.axhline(reference.value, color=COLOURS["faint"], linewidth=0.9, linestyle=_DASHES)
    for curve in panel.curves:
        _draw_curve(axes, curve)
    for series in panel.series:
        _draw_series(axes, series)
    if not figure.legend:
        _label_ends(axes, panel, figure.panel_inches[1])


def _say_missing(axes: "Axes", text: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=COLOURS["faint"], wrap=True)


def _draw_curve(axes: "Axes", curve: Curve) -> None:
    colour = COLOURS[curve.colour]
    if curve.lo:
        axes.fill_between(curve.x, curve.lo, curve.hi, color=colour, alpha=0.15, linewidth=0)
    style = _DASHES if curve.dashed else "-"
    axes.plot(curve.x, curve.y, color=colour, linewidth=1.4, linestyle=style)


def _draw_series(axes: "Axes", series: Series) -> None:
    colour = COLOURS[series.colour]
    axes.errorbar(
        series.x,
        series.y,
        yerr=series.error or None,
        color=colour,
        label=series.label or None,
        marker=series.marker,
        markersize=series.size,
        markerfacecolor="none" if series.hollow else colour,
        markeredgecolor=colour if series.hollow else COLOURS["paper"],
        markeredgewidth=1.2 if series.hollow else 0.5,
        linestyle={"": "", "dashes": _DASHES}.get(series.join, "-"),
        linewidth=1.1,
        drawstyle="steps-post" if series.join == "steps" else "default",
        elinewidth=1.0,
        zorder=3,
    )
    for x, y, name in zip(series.x, series.y, series.names, strict=False):
        axes.annotate(name, (x, y), (7, 3), textcoords="offset points", fontsize=7.5)


def _draw_legend(canvas: "Canvas") -> None:
    handles: dict[str, Any] = {}
    for axes in canvas.axes:
        handles |= {text: handle for handle, text in zip(*_legend(axes), strict=True)}
    if handles:
        canvas.legend(
            list(handles.values()),
            list(handles),
            loc="outside upper left",
            ncols=min(len(handles), 5),
            frameon=False,
            handletextpad=0.5,
            columnspacing=1.6,
            fontsize=8.5,
        )


def _legend(axes: "Axes") -> tuple[list[Any], list[str]]:
    """The marker of each labelled series, without its error bars."""
    containers: Any
    containers, labels = axes.get_legend_handles_labels()
    return [container[0] for container in containers], labels


def _label_ends(axes: "Axes", panel: Panel, height: float) -> None:
    """Write each line's name at the right, level with its end, moved apart where they collide."""
    ends = [(curve.label, curve.y[-1], curve.colour) for curve in panel.curves if curve.label]
    ends += [(line.label, line.value, "faint") for line in panel.references]
    low, high = axes.get_ylim()
    span = _scaled(high, panel.y) - _scaled(low, panel.y)
    wanted = [(_scaled(y, panel.y) - _scaled(low, panel.y)) / span for _, y, _ in ends]
    for (text, _, colour), y in zip(ends, spread(wanted, 0.15 / (height - 1)), strict=True):
        axes.text(
            1.02, y, text, transform=axes.transAxes, color=COLOURS[colour], va="center", fontsize=8
        )


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions in the same order, moved as little as keeps neighbours ``gap`` apart."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    groups: list[tuple[float, list[int]]] = []  # (centre, members from below)
    for index in order:
        centre, members = positions[index], [index]
        while groups and centre - groups[-1][0] < gap * (len(members) + len(groups[-1][1])) / 2:
            below_centre, below = groups.pop()
            total = below_centre * len(below) + centre * len(members)
            members = below + members
            centre = total / len(members)
        groups.append((centre, members))
    moved = list(positions)
    for centre, members in groups:
        for rank, index in enumerate(members):
            moved[index] = centre + gap * (rank - (len(members) - 1) / 2)
    return moved


def _set_axis(axes: "Axes", which: str, axis: Axis, limits: tuple[float, float]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    ticks = axis.ticks or readable_ticks(*limits, log=axis.log)
    axes.set(**{f"{which}scale": "log" if axis.log else "linear", f"{which}lim": limits})
    drawn = getattr(axes, f"{which}axis")
    drawn.set_major_locator(FixedLocator(ticks))
    drawn.set_minor_locator(NullLocator())
    drawn.set_ticklabels(tick_labels(ticks))


def readable_ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Round numbers in the range: 1-2-5 a decade on a wide log axis, else even steps."""
    if log and high / low >= 8:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for mantissas in ((1, 2, 5), (1, 3), (1,)):
            ticks = [m * 10.0**d for d in decades for m in mantissas if low <= m * 10.0**d <= high]
            if len(ticks) <= 6:
                break
        return ticks
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = min((1, 2, 2.5, 5, 10), key=lambda m: abs(math.log(m * unit / rough))) * unit
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Labels with the same number of decimals, or with suffixes from a thousand on."""
    if max(map(abs, ticks), default=0) >= 1000:
        return [human(tick) for tick in ticks]
    if max(ticks, default=0) >= 10 * min(ticks, default=1) > 0:
        return [f"{tick:g}" for tick in ticks]
    decimals = max((len(f"{tick:.6g}".partition(".")[2]) for tick in ticks), default=0)
    return [f"{tick:.{decimals}f}" for tick in ticks]


def _limits(figure: Figure, panel: Panel, which: str) -> tuple[float, float]:
    """The range of every value on this axis, in all the panels that share it, and a margin."""
    axis: Axis = getattr(panel, which)
    sharing = [each for each in figure.panels if getattr(each, which).label == axis.label]
    values = [value for each in sharing for value in _values(each, which) if math.isfinite(value)]
    low, high = _scaled(min(values), axis), _scaled(max(values), axis)
    margin = 0.06 * (high - low) or 0.1
    return _unscaled(low - margin, axis), _unscaled(high + margin, axis)


def _values(panel: Panel, which: str) -> Iterator[float]:
    lines: Iterable[Series | Curve] = (*panel.series, *panel.curves)
    for line in lines:
        yield from getattr(line, which)
    if which == "y":
        yield from (reference.value for reference in panel.references)
        for series in panel.series:
            for y, error in zip(series.y, series.error, strict=False):
                yield from (y - error, y + error)


def _scaled(value: float, axis: Axis) -> float:
    return math.log10(value) if axis.log else value


def _unscaled(value: float, axis: Axis) -> float:
    return 10.0**value if axis.log else value
