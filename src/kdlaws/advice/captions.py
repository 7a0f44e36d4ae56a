"""Sentences made from the data: the figures' captions, and the turns of phrase they share."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from kdlaws.advice.contrasts import Estimate
from kdlaws.advice.crossings import NoiseEffect
from kdlaws.advice.evidence import (
    Evidence,
    by_size,
    done,
    measured,
    one_pass,
    repeated,
    undertrained,
)
from kdlaws.advice.findings import Gain, gain
from kdlaws.advice.teachers import Teacher
from kdlaws.gates import MIN_STEPS
from kdlaws.quantities import human

if TYPE_CHECKING:
    from pandas import DataFrame


def percent(share: float) -> str:
    """A share of one as people write it: 0.01 is ``1 %``."""
    return f"{100 * share:.3g} %"


def listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def counted(number: int, noun: str) -> str:
    """``1 teacher``, ``2 teachers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def of_data(evidence: Evidence) -> str:
    """The most data of the study: ``all of the data``, or ``10 % of the data``."""
    most = evidence.largest_fraction
    return "all of the data" if most == 1 else f"{percent(most)} of the data"


def after(evidence: Evidence, text: str) -> str:
    """What the study's longest runs did with ``text``: passed over it once, or repeated it."""
    if evidence.largest_fraction in evidence.single_passes:
        return f"after one pass over {text}"
    return f"after the best number of epochs of {text}"


def input_tokens(evidence: Evidence) -> str:
    """What D counts, of a masked study."""
    if not evidence.is_masked:
        return ""
    share = evidence.target_share
    some = "some" if share is None else f"about {percent(share)}"
    return f"D is in input tokens; {some} of them have a loss."


def nothing_done(evidence: Evidence) -> str:
    """Why there is no law where no student trained for long enough."""
    students = evidence.students
    statuses = students["status"].value_counts()
    if not len(undertrained(students)) or len(done(students)):
        return ""
    found = listed([f"{number} {status}" for status, number in statuses.items()])
    return (
        f"No law is fitted, for no student has trained enough ({found}): a run is undertrained "
        f"with fewer than {MIN_STEPS} optimiser steps before its validation loss turns up, or if "
        f"it does not beat a bigram table. What was measured is shown."
    )


def scaling(evidence: Evidence, rows: "Mapping[str, DataFrame]") -> str:
    """``rows``: each method's longest runs at the most data."""
    if not rows:
        most = percent(evidence.largest_fraction)
        return f"There is no one-pass run at {most} of the data to draw."
    falls = [_fall(method, _judged(each)) for method, each in rows.items()]
    is_once = evidence.largest_fraction in evidence.single_passes
    tokens = _most_tokens(evidence, rows.values())
    fits = {method: evidence.fit("chinchilla", method) if is_once else None for method in rows}
    levels = {percent(fit.level) for fit in fits.values() if fit and fit.uncertainty}
    bands = f"; bands are the fitted law's {listed(sorted(levels))} intervals" if levels else ""
    lacking = [method for method, fit in fits.items() if fit is None]
    without = f"; {listed(lacking)}: no law, means joined" if lacking else ""
    return (
        f"A{after(evidence, tokens)[1:]}, {listed(falls)}. Bars are one standard error over "
        f"test sequences{bands}{without}.{_hollow(rows.values())}{_unigram(evidence)}"
        f"{_neighbours(evidence)}"
    )


def _judged(rows: "DataFrame") -> "DataFrame":
    """The rows that laws may read, or all if none is."""
    return done(rows) if len(done(rows)) else rows


def _most_tokens(evidence: Evidence, tables: "Iterable[DataFrame]") -> str:
    """``700k tokens``: read once, or the unique ones that are repeated."""
    is_once = evidence.largest_fraction in evidence.single_passes
    column = "n_tokens" if is_once else "n_unique_tokens"
    unit = "input tokens" if evidence.is_masked else "tokens"
    return f"{human(max(rows[column].max() for rows in tables))} {unit}"


def _neighbours(evidence: Evidence) -> str:
    if not (evidence.is_masked and evidence.bigrams):
        return ""
    return " The line of the bigram is that of a bigram table that sees both neighbours."


def _unigram(evidence: Evidence) -> str:
    """The line that every model is far below, so that a figure need not reach up to it."""
    known = evidence.unigram
    return "" if known is None else f" A unigram table has {known:.2f} nats, off the figure."


def _fall(method: str, rows: "DataFrame") -> str:
    means = [(human(n), each["cross_entropy"].mean()) for n, each in by_size(rows).items()]
    (small, first), (large, last) = means[0], means[-1]
    if small == large:
        return f"{method} has {first:.3f} nats at N = {small}"
    return f"{method} goes from {first:.3f} nats at N = {small} to {last:.3f} at {large}"


def _hollow(tables: "Iterable[DataFrame]") -> str:
    number = sum(len(undertrained(rows)) for rows in tables)
    return f" Hollow: {counted(number, 'undertrained run')}, not fitted." if number else ""


def data(evidence: Evidence) -> str:
    rows = [measured(select(evidence.comparable)) for select in (one_pass, repeated)]
    parts = [_once(_judged(rows[0])), _again(_judged(rows[1])), _hollow(rows).strip()]
    if len(rows[1]):
        parts[2:2] = ["The numbers beside the lines are N."]
    return " ".join(filter(None, [*parts, input_tokens(evidence), _neighbours(evidence).strip()]))


def _once(rows: "DataFrame") -> str:
    if rows.empty:
        return "No run reads its data only once."
    low, high = human(rows["n_tokens"].min()), human(rows["n_tokens"].max())
    return f"One pass: {counted(len(rows), 'run')} of {low} to {high} tokens."


def _again(rows: "DataFrame") -> str:
    if rows.empty:
        return "No run repeats its data."
    unique = listed([human(each) for each in sorted(rows["n_unique_tokens"].unique())])
    ends = dict.fromkeys(f"{each:.3g}" for each in (rows["epochs"].min(), rows["epochs"].max()))
    return (
        f"Repeated data: {counted(len(rows), 'run')} on {unique} unique tokens, each after as many "
        f"epochs as validation chose ({' to '.join(ends)})."
    )


def frontier(evidence: Evidence, candidates: "DataFrame", chosen: "DataFrame") -> str:
    """``candidates``: the measured models whose FLOPs per token are known. ``chosen``: the
    Pareto-optimal of those that laws may read, cheapest first."""
    if candidates.empty:
        return "The table has no FLOPs per token, so there is no frontier to draw."
    hollow = _hollow([candidates]) if nothing_done(evidence) else ""
    if chosen.empty:
        return f"There is no frontier, for no model is fully trained.{hollow}"
    is_are = "is" if len(chosen) == 1 else "are"
    return (
        f"{len(chosen)} of {counted(len(done(candidates)), 'model')} {is_are} Pareto-optimal by "
        f"FLOPs ({_makers(chosen)}). {_along(evidence, chosen)}.{hollow}"
    )


def _along(evidence: Evidence, chosen: "DataFrame") -> str:
    """From the cheapest of the Pareto-optimal models to the dearest."""
    perplexity, unit = "perplexity", "FLOPs per token"
    if evidence.is_masked:
        perplexity, unit = "perplexity per masked token", "FLOPs per input token"
    low, high = (
        (f"{row['perplexity']:.1f}", human(row["forward_flops_per_token"]))
        for _, row in chosen.iloc[[0, -1]].iterrows()
    )
    if len(chosen) == 1:
        return f"It has a {perplexity} of {low[0]} at {low[1]} {unit}"
    return (
        f"Along their line {perplexity} goes from {low[0]} at {low[1]} {unit} to {high[0]} at "
        f"{high[1]}"
    )


def _makers(rows: "DataFrame") -> str:
    made_by = rows["method"].where(rows["role"] != "teacher", "teacher").value_counts()
    return listed([f"{number} {maker}" for maker, number in made_by.items()])


def compression(evidence: Evidence, distilled: Sequence[tuple[str, Teacher]]) -> str:
    if not distilled:
        return "No run of the study is distilled."
    most = evidence.largest_fraction
    found = {pair: gain(evidence, pair[0], most, pair[1]) for pair in distilled}
    parts = [
        f"{method} with {teacher.label} is ahead by {each.mean} nats, {spread(each)}"
        for (method, teacher), each in found.items()
        if each
    ]
    first = (
        f"Against scratch at {percent(most)} of the data, {listed(parts)}."
        if parts
        else f"At {percent(most)} of the data no distilled run has a scratch run to compare with."
    )
    return f"{first}{_bars(each.mean for each in found.values() if each)}"


def spread(found: Gain) -> str:
    """``+0.236 to +0.435 over 5 sizes``: the least and the largest gain."""
    values = [each.value for each in found.by_size.values()]
    if len(values) == 1:
        return "1 size"
    return f"{min(values):+.3f} to {max(values):+.3f} over {counted(found.n_sizes, 'size')}"


def noise(effects: Sequence[NoiseEffect]) -> str:
    """Of the figure that draws them."""
    return f"{' '.join(map(noise_sentence, effects))}{_bars(each.cost for each in effects)}"


def _bars(drawn: Iterable[Estimate]) -> str:
    known = any(not math.isnan(each.se) for each in drawn)
    return " ± and bars: one paired standard error." if known else ""


def noise_sentence(effect: NoiseEffect) -> str:
    """What degraded blocks cost, beside what losing them costs."""
    first = (
        f"With the words of {percent(effect.noise)} of the blocks in random order, {effect.method} "
        f"at N = {human(effect.n_params)} is worse by {effect.cost} nats"
    )
    if effect.beyond_null is None:
        return f"{first}."
    nu = ""
    if effect.nu is not None:
        known = not math.isnan(effect.nu.lo)
        interval = f" [{effect.nu.lo:.2f}, {effect.nu.hi:.2f}]" if known else ""
        found = f"{effect.nu.x:.2f}{interval}"
        nu = f"; nu = {found}, where 1 is wasted and more is harmful"
    return f"{first}, {effect.beyond_null} beyond losing those blocks{nu}."
