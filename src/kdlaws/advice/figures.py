"""The report's figures, each as plain data with a caption made from the same numbers.

N is non-embedding parameters in every figure; cross-entropy is on the test split, nats per token.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdlaws.advice import captions
from kdlaws.advice.captions import percent
from kdlaws.advice.drawing import COLOURS, MARKERS, Axis, Curve, Figure, Panel, Reference, Series
from kdlaws.advice.evidence import (
    N,
    Evidence,
    Teacher,
    done,
    full_pass,
    load,
    one_pass,
    paired,
    pareto,
    repeated,
    undertrained,
)
from kdlaws.laws import Fit
from kdlaws.quantities import human

if TYPE_CHECKING:
    from pandas import DataFrame

CROSS_ENTROPY = "test cross-entropy (nats per token)"
COSTS = {
    "forward_flops_per_token": "forward FLOPs per token",
    "decode_ms_p50": "decode latency, p50 (ms per token, batch 1)",
}


def figures(folder: Path) -> tuple[Figure, ...]:
    """Every figure of a study, from its saved artefacts. Raises what ``evidence.load`` raises."""
    return describe(load(folder))


def describe(evidence: Evidence) -> tuple[Figure, ...]:
    return scaling(evidence), data(evidence), frontier(evidence), compression(evidence)


# --- 1. cross-entropy against N -----------------------------------------------------------------


def scaling(evidence: Evidence) -> Figure:
    rows = {method: full_pass(evidence.of(method)) for method in evidence.methods}
    rows = {method: each for method, each in rows.items() if each["cross_entropy"].notna().any()}
    series, curves = [], []
    for method, each in rows.items():
        fitted = _law_over_sizes(evidence, method, each)
        curves += fitted
        series += _points(each, N, method, label="" if fitted else method)
    panel = Panel(
        title="",
        x=Axis("N, non-embedding parameters", log=True, ticks=evidence.sizes),
        y=Axis(CROSS_ENTROPY, log=True),
        series=tuple(series),
        curves=tuple(curves),
        references=tuple(_references(evidence)),
        missing="" if rows else "no one-pass run at 100 % of the data",
    )
    return Figure(
        name="scaling",
        title="Cross-entropy against size",
        caption=captions.scaling(evidence, rows),
        panels=(panel,),
        panel_inches=(7.4, 4.6),
    )


def _law_over_sizes(evidence: Evidence, method: str, rows: "DataFrame") -> list[Curve]:
    sizes, tokens = done(rows)[N], rows["n_tokens"].max()
    return _law_curve(evidence.fit("chinchilla", method), method, N, sizes, {"n_tokens": tokens})


def _references(evidence: Evidence) -> Iterator[Reference]:
    if evidence.unigram is not None:
        yield Reference("unigram", evidence.unigram)
    if evidence.bigrams:
        yield Reference("bigram", evidence.bigrams[-1][1])
    for teacher in evidence.teachers:
        if np.isfinite(teacher.cross_entropy):
            yield Reference(teacher.label, teacher.cross_entropy)


# --- 2. cross-entropy against data --------------------------------------------------------------


def data(evidence: Evidence) -> Figure:
    return Figure(
        name="data",
        title="Cross-entropy against data, read once and repeated",
        caption=captions.data(evidence),
        panels=(
            *(_one_pass_panel(evidence, method) for method in evidence.methods),
            *(_repeated_panel(evidence, method) for method in evidence.methods),
        ),
        columns=len(evidence.methods),
        panel_inches=(3.4, 3.3),
    )


def _one_pass_panel(evidence: Evidence, method: str) -> Panel:
    rows, fit = one_pass(evidence.of(method)), evidence.fit("chinchilla", method)
    series, curves = [], []
    for size, each, strength in _by_size(evidence, rows):
        style = {"label": human(size), "strength": strength}
        fitted = _law_curve(fit, method, "n_tokens", each["n_tokens"], {N: size}, **style)
        curves += fitted
        series += _points(each, "n_tokens", method, **style | ({"label": ""} if fitted else {}))
    return Panel(
        title=f"{method}, one pass: L(N, D)",
        x=Axis("D, tokens trained on", log=True),
        y=Axis(CROSS_ENTROPY),
        series=tuple(series),
        curves=tuple(curves),
        missing="" if series else f"no one-pass run of {method}",
    )


def _repeated_panel(evidence: Evidence, method: str) -> Panel:
    rows = repeated(evidence.of(method))
    series: list[Series] = []
    for size, each, strength in _by_size(evidence, rows):
        style = {"label": human(size), "strength": strength, "join": "line"}
        series += _points(each, "n_unique_tokens", method, **style)
    return Panel(
        title=f"{method}, repeated data: L(N, U)",
        x=Axis("U, unique tokens, each at its best epochs", log=True),
        y=Axis(CROSS_ENTROPY),
        series=tuple(series),
        curves=_bigram_curve(evidence, rows),
        missing="" if series else f"no run of {method} repeats its data",
    )


def _by_size(evidence: Evidence, rows: "DataFrame") -> "Iterator[tuple[float, DataFrame, float]]":
    """Each size, its measured rows, and the strength of its ink: the largest size is darkest."""
    for rank, size in enumerate(evidence.sizes, start=1):
        each = rows[(rows[N] == size) & rows["cross_entropy"].notna()]
        if len(each):
            yield size, each, 0.35 + 0.65 * rank / len(evidence.sizes)


def _bigram_curve(evidence: Evidence, rows: "DataFrame") -> tuple[Curve, ...]:
    known = [pair for pair in evidence.bigrams if pair[0] in set(rows["n_unique_tokens"])]
    if not known:
        return ()
    unique, cross_entropy = zip(*known, strict=True)
    return (Curve("bigram", unique, cross_entropy, colour="faint", dashed=True),)


# --- 3. perplexity against the cost of serving --------------------------------------------------


def frontier(evidence: Evidence) -> Figure:
    models = _models(evidence)
    priced = done(models[models["forward_flops_per_token"].notna()])
    return Figure(
        name="frontier",
        title="Perplexity against the cost of serving",
        caption=captions.frontier(priced, cheapest(priced, "forward_flops_per_token")),
        panels=tuple(_frontier_panel(evidence, models, cost) for cost in COSTS),
        columns=2,
        legend=True,
        panel_inches=(4.6, 3.9),
    )


def _models(evidence: Evidence) -> "DataFrame":
    """Students on clean data, whatever their share of it, and the teachers among the runs."""
    runs = evidence.runs
    return runs[runs.index.isin(evidence.comparable.index) | (runs["role"] == "teacher")]


def cheapest(models: "DataFrame", cost: str) -> "DataFrame":
    """The Pareto-optimal models in ``cost`` and perplexity, cheapest first."""
    return models.iloc[pareto(list(models[cost]), list(models["perplexity"]))]


def _frontier_panel(evidence: Evidence, models: "DataFrame", cost: str) -> Panel:
    models = models[models[cost].notna()]
    made_by = models["method"].where(models["role"] != "teacher", "teacher")
    series: list[Series] = []
    for kind in (*evidence.methods, "teacher"):
        style = {"y": "perplexity", "label": kind, "strength": 0.75}
        series += _points(models[made_by == kind], cost, kind, **style)
    return Panel(
        title="",
        x=Axis(COSTS[cost], log=True),
        y=Axis("test perplexity", log=True),
        series=(*_pareto_series(done(models), cost), *series),
        missing="" if series else f"the table has no {COSTS[cost]}",
    )


def _pareto_series(models: "DataFrame", cost: str) -> Iterator[Series]:
    chosen = cheapest(models, cost)
    if len(chosen):
        yield Series(
            "Pareto-optimal, with its N",
            _floats(chosen[cost]),
            _floats(chosen["perplexity"]),
            hollow=True,
            size=10,
            join="steps",
            names=tuple(human(n) for n in chosen[N]),
        )


# --- 4. distilling against compression ----------------------------------------------------------


def compression(evidence: Evidence) -> Figure:
    distilled = [(m, t) for m in evidence.methods if m != "scratch" for t in evidence.teachers]
    return Figure(
        name="compression",
        title="What distilling gains, against compression",
        caption=captions.compression(evidence, distilled),
        panels=(
            _gap_panel(evidence, distilled),
            *(_gain_panel(evidence, distilled, fraction) for fraction in evidence.fractions),
        ),
        columns=2,
        legend=True,
        panel_inches=(4.6, 3.1),
    )


def _gap_panel(evidence: Evidence, distilled: Sequence[tuple[str, Teacher]]) -> Panel:
    series: list[Series] = []
    for method, teacher in distilled:
        rows = full_pass(evidence.of(method, teacher=teacher))
        rows = rows.assign(
            compression=teacher.n_params_non_embedding / rows[N],
            gap=rows["cross_entropy"] - teacher.cross_entropy,
        )
        style = _style(evidence, method, teacher)
        series += _points(rows, "compression", method, y="gap", **style)
    return Panel(
        title="behind the teacher, at 100 % of the data",
        x=_compression_axis(evidence),
        y=Axis("student minus teacher (nats per token)"),
        series=tuple(series),
        missing="" if series else "no distilled run at 100 % of the data",
    )


def _gain_panel(
    evidence: Evidence, distilled: Sequence[tuple[str, Teacher]], fraction: float
) -> Panel:
    series = [each for pair in distilled for each in _gain_series(evidence, *pair, fraction)]
    return Panel(
        title=f"ahead of scratch, at {percent(fraction)} of the data",
        x=_compression_axis(evidence),
        y=Axis("scratch minus distilled (nats per token)"),
        series=tuple(series),
        references=(Reference("", 0.0),),
        missing="" if series else f"no scratch and distilled runs to pair at {percent(fraction)}",
    )


def _gain_series(
    evidence: Evidence, method: str, teacher: Teacher, fraction: float
) -> Iterator[Series]:
    """A point a size: the mean over its seeds, with a standard error where there are several."""
    pairs = paired(evidence, method, fraction, teacher)
    by_size = pairs.groupby(teacher.n_params_non_embedding / pairs[N])["gain"].agg(["mean", "sem"])
    if len(by_size):
        yield Series(
            x=_floats(by_size.index),
            y=_floats(by_size["mean"]),
            error=_floats(by_size["sem"]),
            **_style(evidence, method, teacher),
        )


def _compression_axis(evidence: Evidence) -> Axis:
    return Axis("compression, teacher N / student N (non-embedding)", log=True)


def _style(evidence: Evidence, method: str, teacher: Teacher) -> dict[str, Any]:
    """A method keeps its colour and marker; points of a further teacher are paler crosses."""
    style = {"label": f"{method}, {teacher.label}", "colour": _colour(method), "join": "line"}
    if teacher == evidence.main_teacher:
        return style | {"marker": MARKERS.get(method, "o")}
    return style | {"marker": "X", "strength": 0.55}


# --- what they share ----------------------------------------------------------------------------


def _points(
    rows: "DataFrame", x: str, kind: str, *, y: str = "cross_entropy", label: str, **style: Any
) -> Iterator[Series]:
    """The rows that laws read as solid points, then those that are undertrained as hollow ones."""
    style = {"marker": MARKERS.get(kind, "o"), "colour": _colour(kind)} | style
    known = rows[rows[x].notna() & rows[y].notna()].sort_values(x)
    for each, hollow in ((done(known), False), (undertrained(known), True)):
        if len(each):
            yield Series(
                f"{label}, undertrained" if label and hollow else label,
                _floats(each[x]),
                _floats(each[y]),
                error=() if y == "perplexity" else _floats(each["cross_entropy_se"]),
                hollow=hollow,
                **style,
            )


def _law_curve(
    fit: Fit | None,
    method: str,
    along: str,
    measured: "Iterable[float]",
    fixed: dict[str, float],
    *,
    label: str = "",
    strength: float = 1.0,
) -> list[Curve]:
    """The law and its band along one column, inside what was measured; none if it reads other N."""
    values = _floats(measured)
    if fit is None or fit.n_column != N or not values:
        return []
    x: NDArray[np.float64] = np.geomspace(min(values), max(values), 60)
    columns = {along: x} | {name: np.full_like(x, value) for name, value in fixed.items()}
    lo, hi = fit.band(columns)
    return [
        Curve(
            label or method,
            _floats(x),
            _floats(fit.predict(columns)),
            _floats(lo),
            _floats(hi),
            colour=_colour(method),
            strength=strength,
        )
    ]


def _colour(kind: str) -> str:
    return kind if kind in COLOURS else "other"


def _floats(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
