"""Sentences made from the data: the figures' captions, and the turns of phrase they share."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from kdlaws.advice.contrasts import Estimate
from kdlaws.advice.crossings import NoiseEffect
from kdlaws.advice.evidence import (
    Evidence,
    Teacher,
    by_size,
    done,
    one_pass,
    repeated,
    undertrained,
)
from kdlaws.advice.findings import Gain, gain
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


def scaling(evidence: Evidence, rows: "Mapping[str, DataFrame]") -> str:
    """``rows``: each method's longest one-pass runs at 100 % of the data."""
    if not rows:
        return "There is no one-pass run at 100 % of the data to draw."
    falls = [_fall(method, done(each)) for method, each in rows.items() if len(done(each))]
    tokens = human(max(each["n_tokens"].max() for each in rows.values()))
    fits = {method: evidence.fit("chinchilla", method) for method in rows}
    levels = {percent(fit.level) for fit in fits.values() if fit and fit.uncertainty}
    bands = f"; bands are the fitted law's {listed(sorted(levels))} intervals" if levels else ""
    lacking = [method for method, fit in fits.items() if fit is None]
    without = f"; {listed(lacking)}: no law, means joined" if lacking else ""
    return (
        f"After one pass over {tokens} tokens, {listed(falls)}. Bars are one standard error over "
        f"test sequences{bands}{without}.{_hollow(rows.values())}{_unigram(evidence)}"
    )


def _unigram(evidence: Evidence) -> str:
    """The line that every model is far below, so that a figure need not reach up to it."""
    known = evidence.unigram
    return "" if known is None else f" A unigram table has {known:.2f} nats, off the figure."


def _fall(method: str, rows: "DataFrame") -> str:
    means = [(human(n), each["cross_entropy"].mean()) for n, each in by_size(rows).items()]
    (small, first), (large, last) = means[0], means[-1]
    return f"{method} goes from {first:.3f} nats at N = {small} to {last:.3f} at {large}"


def _hollow(tables: "Iterable[DataFrame]") -> str:
    number = sum(len(undertrained(rows)) for rows in tables)
    return f" Hollow: {counted(number, 'undertrained run')}, not fitted." if number else ""


def data(evidence: Evidence) -> str:
    rows = [select(evidence.comparable) for select in (one_pass, repeated)]
    single, again = map(done, rows)
    if single.empty:
        first = "No run reads its data only once."
    else:
        low, high = human(single["n_tokens"].min()), human(single["n_tokens"].max())
        first = f"One pass: {counted(len(single), 'run')} of {low} to {high} tokens."
    if again.empty:
        return f"{first} No run repeats its data.{_hollow(rows)}"
    unique = listed([human(each) for each in sorted(again["n_unique_tokens"].unique())])
    low, high = (f"{each:.3g}" for each in (again["epochs"].min(), again["epochs"].max()))
    return (
        f"{first} Repeated data: {counted(len(again), 'run')} on {unique} unique tokens, each "
        f"after as many epochs as validation chose ({low} to {high}). The numbers beside the lines "
        f"are N.{_hollow(rows)}"
    )


def frontier(candidates: "DataFrame", chosen: "DataFrame") -> str:
    """``chosen``: the Pareto-optimal candidates by FLOPs per token, cheapest first."""
    if candidates.empty:
        return "The table has no FLOPs per token, so there is no frontier to draw."
    low, high = chosen.iloc[0], chosen.iloc[-1]
    return (
        f"{len(chosen)} of {counted(len(candidates), 'model')} are Pareto-optimal by FLOPs "
        f"({_makers(chosen)}). Along their line perplexity goes from {low['perplexity']:.1f} at "
        f"{human(low['forward_flops_per_token'])} FLOPs per token to {high['perplexity']:.1f} at "
        f"{human(high['forward_flops_per_token'])}."
    )


def _makers(rows: "DataFrame") -> str:
    made_by = rows["method"].where(rows["role"] != "teacher", "teacher").value_counts()
    return listed([f"{number} {maker}" for maker, number in made_by.items()])


def compression(evidence: Evidence, distilled: Sequence[tuple[str, Teacher]]) -> str:
    if not distilled:
        return "No run of the study is distilled."
    found = {pair: gain(evidence, pair[0], 1.0, pair[1]) for pair in distilled}
    parts = [
        f"{method} with {teacher.label} is ahead by {each.mean} nats, {spread(each)}"
        for (method, teacher), each in found.items()
        if each
    ]
    first = (
        f"Against scratch at 100 % of the data, {listed(parts)}."
        if parts
        else "At 100 % of the data no distilled run has a scratch run to compare with."
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
