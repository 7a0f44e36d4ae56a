"""The report's figures, each as plain data with a caption made from the same numbers.

N is non-embedding parameters in every figure; cross-entropy is on the test split, in nats per token
or, of a masked study, per masked token.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdlaws.advice import captions
from kdlaws.advice.captions import percent
from kdlaws.advice.columns import N
from kdlaws.advice.contrasts import Estimate
from kdlaws.advice.crossings import NoiseEffect, noise_effects
from kdlaws.advice.evidence import (
    Evidence,
    by_size,
    final,
    load,
    measured,
    one_pass,
    repeated,
)
from kdlaws.advice.findings import behind_teacher, gain, one_pass_curves
from kdlaws.advice.marks import colour, curve, floats, points
from kdlaws.advice.picture import MARKERS, Axis, Curve, Figure, Panel, Reference, Series
from kdlaws.advice.serving import frontier
from kdlaws.advice.teachers import Teacher
from kdlaws.quantities import human

if TYPE_CHECKING:
    from pandas import DataFrame

COMPRESSION = Axis("compression, teacher N / student N (non-embedding)", log=True)


def figures(folder: Path) -> tuple[Figure, ...]:
    """Every figure of a study, from its saved artefacts. Raises what ``evidence.load`` raises."""
    return describe(load(folder))


def _cross_entropy(evidence: Evidence, *, at: str = "", log: bool = False) -> Axis:
    return Axis(f"test cross-entropy{at} (nats {evidence.per_token})", log=log)


def _tokens(evidence: Evidence) -> str:
    return "input tokens" if evidence.is_masked else "tokens"


def describe(evidence: Evidence) -> tuple[Figure, ...]:
    figures = [scaling(evidence), data(evidence), frontier(evidence), compression(evidence)]
    return (*figures, noise(evidence)) if noise_effects(evidence) else tuple(figures)


# --- 1. cross-entropy against N -----------------------------------------------------------------


def scaling(evidence: Evidence) -> Figure:
    rows = {method: final(evidence, evidence.of(method)) for method in evidence.methods}
    rows = {method: each for method, each in rows.items() if len(each)}
    most = percent(evidence.largest_fraction)
    panel = Panel(
        title="",
        x=Axis("N, non-embedding parameters", log=True, ticks=evidence.sizes),
        y=_cross_entropy(evidence, log=True),
        series=tuple(s for method, each in rows.items() for s in points(each, N, method)),
        curves=tuple(_size_curve(evidence, method, each) for method, each in rows.items()),
        references=tuple(_references(evidence)),
        missing="" if rows else f"no one-pass run at {most} of the data",
    )
    return Figure(
        name="scaling",
        title="Cross-entropy against size",
        caption=captions.scaling(evidence, rows),
        panels=(panel,),
        panel_inches=(7.4, 4.6),
    )


def _size_curve(evidence: Evidence, method: str, rows: "DataFrame") -> Curve:
    """The law is of single passes; repeats have their means joined."""
    fixed = {"n_tokens": rows["n_tokens"].max()}
    is_once = evidence.largest_fraction in evidence.single_passes
    fit = evidence.fit("chinchilla", method) if is_once else None
    return curve(fit, rows, N, fixed, method, method)


def _references(evidence: Evidence) -> Iterator[Reference]:
    """The bigram table and the teachers; the unigram line, far above, is in the caption."""
    known = [("bigram", cross_entropy) for _, cross_entropy in evidence.bigrams[-1:]]
    known += [(teacher.label, teacher.cross_entropy) for teacher in evidence.teachers]
    for name, value in known:
        if np.isfinite(value):
            yield Reference(f"{name}: {value:.2f}", value)


# --- 2. cross-entropy against data --------------------------------------------------------------


def data(evidence: Evidence) -> Figure:
    methods = evidence.methods or ("scratch",)
    return Figure(
        name="data",
        title="Cross-entropy against data, read once and repeated",
        caption=captions.data(evidence),
        panels=(
            *(_one_pass_panel(evidence, method) for method in methods),
            *(_repeated_panel(evidence, method) for method in methods),
        ),
        columns=max(2, len(methods)),
        panel_inches=(3.4, 3.3),
    )


def _one_pass_panel(evidence: Evidence, method: str) -> Panel:
    sizes = by_size(measured(one_pass(evidence.of(method))))
    fit = evidence.fit("chinchilla", method)
    ticks = _levels(one_pass(evidence.comparable), "n_tokens")
    return Panel(
        title=f"{method}, one pass: L(N, D)",
        x=Axis(f"D, {_tokens(evidence)} trained on", log=True, ticks=ticks),
        y=_cross_entropy(evidence),
        series=tuple(s for each in sizes.values() for s in points(each, "n_tokens", method)),
        curves=tuple(
            curve(fit, each, "n_tokens", {N: size}, human(size), method)
            for size, each in sizes.items()
        ),
        missing="" if sizes else f"no one-pass run of {method}",
    )


def _repeated_panel(evidence: Evidence, method: str) -> Panel:
    rows, unique = measured(repeated(evidence.of(method))), "n_unique_tokens"
    sizes = by_size(rows)
    ticks = _levels(repeated(evidence.comparable), unique)
    return Panel(
        title=f"{method}, repeated data: L(N, U)",
        x=Axis(f"U, unique {_tokens(evidence)}", log=True, ticks=ticks),
        y=_cross_entropy(evidence, at=" at the best epochs"),
        series=tuple(s for each in sizes.values() for s in points(each, unique, method)),
        curves=(
            *(curve(None, each, unique, {}, human(n), method) for n, each in sizes.items()),
            *_bigram_curve(evidence, rows),
        ),
        missing="" if sizes else f"no run of {method} repeats its data",
    )


def _levels(rows: "DataFrame", column: str) -> tuple[float, ...]:
    """The study's own values as ticks, where there are few enough to read."""
    values = sorted(measured(rows)[column].unique())
    return floats(values) if len(values) <= 4 else ()


def _bigram_curve(evidence: Evidence, rows: "DataFrame") -> Iterator[Curve]:
    known = [pair for pair in evidence.bigrams if pair[0] in set(rows["n_unique_tokens"])]
    if known:
        unique, cross_entropy = zip(*known, strict=True)
        yield Curve("bigram", unique, cross_entropy, colour="faint", dashed=True)


# --- 3. distilling against compression ----------------------------------------------------------


def compression(evidence: Evidence) -> Figure:
    distilled = [(m, t) for m in evidence.distilled for t in evidence.teachers]
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
    most, series = percent(evidence.largest_fraction), list[Series]()
    for method, teacher in distilled:
        gaps = behind_teacher(evidence, method, teacher)
        series += _by_compression(evidence, method, teacher, gaps)
    return Panel(
        title=f"behind the teacher, at {most} of the data",
        x=COMPRESSION,
        y=Axis(f"student minus teacher (nats {evidence.per_token})"),
        series=tuple(series),
        missing="" if series else f"no distilled run at {most} of the data whose teacher is known",
    )


def _gain_panel(
    evidence: Evidence, distilled: Sequence[tuple[str, Teacher]], fraction: float
) -> Panel:
    series: list[Series] = []
    for method, teacher in distilled:
        found = gain(evidence, method, fraction, teacher)
        series += _by_compression(evidence, method, teacher, found.by_size if found else {})
    return Panel(
        title=f"ahead of scratch, at {percent(fraction)} of the data",
        x=COMPRESSION,
        y=Axis(f"scratch minus distilled (nats {evidence.per_token})"),
        series=tuple(series),
        references=(Reference("", 0.0),),
        missing=(
            ""
            if series
            else f"no scratch and distilled runs to pair at {percent(fraction)}, of a known teacher"
        ),
    )


def _by_compression(
    evidence: Evidence, method: str, teacher: Teacher, found: Mapping[float, Estimate]
) -> Iterator[Series]:
    """A point a size, with its paired standard error."""
    is_main = teacher == evidence.main_teacher
    known = {teacher.n_params_non_embedding / n: each for n, each in reversed([*found.items()])}
    if known and not math.isnan(teacher.n_params_non_embedding):
        yield Series(
            f"{method}, {teacher.label}",
            floats(known),
            floats(each.value for each in known.values()),
            error=floats(each.se for each in known.values()),
            colour=colour(method),
            marker=MARKERS.get(method, "o") if is_main else "X",
            join="line" if is_main else "dashes",
        )


# --- 4. degraded text against its null ----------------------------------------------------------


def noise(evidence: Evidence) -> Figure:
    effects = noise_effects(evidence)
    return Figure(
        name="noise",
        title="Degraded text against its null: that the degraded blocks are merely wasted",
        caption=captions.noise(effects),
        panels=tuple(_noise_panel(evidence, effect) for effect in effects),
        columns=min(2, len(effects)),
        legend=True,
        panel_inches=(4.6, 3.1) if len(effects) > 1 else (6.4, 3.4),
    )


def _noise_panel(evidence: Evidence, effect: NoiseEffect) -> Panel:
    clean = one_pass_curves(evidence, effect.method, effect.teacher)[effect.n_params].values()
    rows = evidence.runs.loc[[index for each in clean for index in each.index]]
    by = f", {effect.teacher.label}" if effect.teacher else ""
    null = [] if effect.null is None else [effect.null]
    return Panel(
        title=f"{effect.method}, N {human(effect.n_params)}{by}",
        x=Axis(f"D, {_tokens(evidence)} of one pass", log=True),
        y=_cross_entropy(evidence),
        series=(
            *points(rows, "n_tokens", effect.method, label=f"{effect.method}, clean"),
            Series(
                f"{percent(effect.noise)} of the blocks degraded",
                (effect.n_tokens,),
                (effect.noisy,),
                error=(effect.cost.se,),
                colour="ink",
                marker="X",
                size=7.5,
            ),
            Series(
                "null: the clean blocks alone",
                floats([(1 - effect.noise) * effect.n_tokens] * len(null)),
                floats(null),
                colour="ink",
                marker="D",
                hollow=True,
                size=9,
            ),
        ),
        curves=(curve(None, rows, "n_tokens", {}, "", effect.method),),
    )
