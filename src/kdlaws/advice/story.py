"""What a study found, in sentences, each made from its numbers; the page and the README show them.

± is one paired standard error, brackets are 95 % intervals.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from kdlaws.advice.captions import (
    after,
    counted,
    input_tokens,
    listed,
    noise_sentence,
    nothing_done,
    of_data,
    percent,
    spread,
)
from kdlaws.advice.contrasts import Estimate
from kdlaws.advice.crossings import Crossing, data_needed, noise_effects, text_needed
from kdlaws.advice.curation import curation_effects, curation_sentence
from kdlaws.advice.evidence import Evidence, load
from kdlaws.advice.findings import (
    SIGNIFICANT,
    Gain,
    Step,
    data_slopes,
    gain,
    judged_steps,
    seed_noise,
    shared_sizes,
    size_exponent,
    size_slope,
    teacher_gain,
)
from kdlaws.advice.limits import teacher_gap, teacher_margin, teacher_overlap
from kdlaws.advice.teachers import Teacher
from kdlaws.quantities import human


def story(folder: Path) -> list[str]:
    """Every sentence that the study's saved artefacts carry. Raises what ``load`` raises."""
    return sentences(load(folder))


def sentences(evidence: Evidence) -> list[str]:
    distilled = evidence.distilled
    return list(
        filter(
            None,
            [
                _units(evidence),
                nothing_done(evidence),
                _size(evidence),
                _data(evidence),
                _steps(evidence),
                *(_against_scratch(evidence, method) for method in distilled),
                *(_data_needed(evidence, method) for method in distilled),
                *(_text_needed(evidence, method) for method in distilled),
                *_teachers(evidence),
                *map(noise_sentence, noise_effects(evidence)),
                *map(curation_sentence, curation_effects(evidence)),
                _teacher(evidence),
                _seeds(evidence),
            ],
        )
    )


def _units(evidence: Evidence) -> str:
    if not evidence.is_masked:
        return ""
    return (
        f"Cross-entropies, perplexities and their differences, in nats, are per masked token. "
        f"{input_tokens(evidence)}"
    )


def bracketed(estimate: Estimate, digits: int = 3) -> str:
    """``0.058 [0.053, 0.063]``, a 95 % interval; without one, the value."""
    low, high = estimate.interval()
    value = f"{estimate.value:.{digits}f}"
    return value if math.isnan(low) else f"{value} [{low:.{digits}f}, {high:.{digits}f}]"


def _size(evidence: Evidence) -> str:
    slopes = {m: size_slope(evidence, m) for m in evidence.methods}
    parts = [f"{bracketed(slope.scaled(-1))} ({m})" for m, slope in slopes.items() if slope]
    if not parts:
        return ""
    low, *_, high = map(human, shared_sizes(evidence))
    exponents = {m: size_exponent(evidence, m) for m in evidence.methods}
    effective = [f"{bracketed(each, 4)} ({m})" for m, each in exponents.items() if each]
    return (
        f"Each doubling of N lowers cross-entropy {after(evidence, of_data(evidence))} by "
        f"{listed(parts)} nats {evidence.per_token}, on average from N = {low} to {high}; the "
        f"effective exponents are {listed(effective)}."
    )


def _data(evidence: Evidence) -> str:
    parts = []
    for method in evidence.methods:
        slopes = [slope.scaled(-1) for slope in data_slopes(evidence, method).values()]
        if slopes:
            least, most = (pick(slopes, key=lambda s: s.value) for pick in (min, max))
            part = f"{method} by {least.value:.3f} to {most.value:.3f} nats"
            lows = [slope.interval()[0] for slope in slopes]
            if not any(map(math.isnan, lows)):
                sure = sum(low > 0 for low in lows)
                part += f" (95 % interval above 0 at {sure} of {counted(len(slopes), 'size')})"
            parts.append(part)
    if not parts:
        return ""
    return f"Each doubling of the tokens of one pass lowers cross-entropy: {listed(parts)}."


def _steps(evidence: Evidence) -> str:
    every = judged_steps(evidence)
    if not every:
        return ""
    inverted = [step for step in every if step.is_inverted]
    said = f": {'; '.join(map(_step, inverted))}" if inverted else ""
    return (
        f"More parameters or more data are worse by over {SIGNIFICANT:g} paired standard errors in "
        f"{len(inverted)} of {counted(len(every), 'step')} between neighbours{said}."
    )


def _step(step: Step) -> str:
    fixed = step.fixed
    at = f"{percent(fixed)} of the data" if step.along == "N" else f"N = {human(fixed)}"
    low, high = human(step.low), human(step.high)
    return f"{step.method} from {step.along} = {low} to {high} at {at} ({step.change})"


def _against_scratch(evidence: Evidence, method: str) -> str:
    found = {f: g for f in evidence.fractions if (g := gain(evidence, method, f))}
    if not found:
        return ""
    parts = [
        f"{each.mean} nats at {percent(fraction)} of the data ({spread(each)})"
        for fraction, each in found.items()
    ]
    name = f"{method.capitalize()}-level distillation against scratch"
    return f"{name}: {listed(parts)}; {_wins(found)}."


def _wins(found: Mapping[float, Gain]) -> str:
    """Over the amounts of data that have a standard error, and how many have none."""
    known = [each for each in found.values() if not math.isnan(each.mean.se)]
    parts = []
    if known:
        pairs = sum(each.n_sizes for each in known)
        wins = sum(each.n_wins for each in known)
        losses = sum(each.n_losses for each in known)
        parts.append(
            f"ahead by over {SIGNIFICANT:g} paired standard errors in {wins} of "
            f"{counted(pairs, 'comparison')}, behind in {losses}"
        )
    if len(known) < len(found):
        number = len(found) - len(known)
        parts.append(f"no standard error in {counted(number, 'amount')} of data")
    return "; ".join(parts)


def _data_needed(evidence: Evidence, method: str) -> str:
    needed = data_needed(evidence, method)
    if not needed:
        return ""
    shares = shares_needed(needed)
    return f"In one pass each, {method} equals scratch with {shares} of its tokens."


def _text_needed(evidence: Evidence, method: str) -> str:
    needed = text_needed(evidence, method)
    if len(evidence.fractions) < 2 or not needed:
        return ""
    most = of_data(evidence).replace("the data", "it")
    return (
        f"Repeating its text to the best number of epochs, {method} equals one pass of scratch "
        f"over {most} with {shares_needed(needed)} of the text."
    )


def shares_needed(needed: Mapping[float, Crossing], *, name_sizes: bool = True) -> str:
    """``31 to 45 % (5 sizes)``, what lies outside the measured range as a bound."""
    inside = {n: each for n, each in needed.items() if not each.bound}
    parts = []
    if len(inside) == 1:
        [(n, only)] = inside.items()
        parts.append(f"{_share(only)} (N = {human(n)})")
    elif inside:
        ordered = sorted(inside.values(), key=lambda each: each.x)
        least, most = ordered[0], ordered[-1]
        ends = dict.fromkeys([_share(least), _share(most)])
        parts.append(f"{' to '.join(ends)} ({counted(len(inside), 'size')})")
    for bound, word, safest in (("<", "less than", max), (">", "more than", min)):
        outside = {n: each for n, each in needed.items() if each.bound == bound}
        if outside:
            sizes = listed([human(n) for n in outside])
            at = f"N = {sizes}" if name_sizes else counted(len(outside), "size")
            value = percent(safest(each.x for each in outside.values()))
            parts.append(f"{word} {value} ({at})")
    return listed(parts)


def _share(found: Crossing) -> str:
    value = f"{100 * found.x:.0f} %"
    if math.isnan(found.lo):
        return value
    return f"{value} [{100 * found.lo:.0f}, {100 * found.hi:.0f}]"


def _teachers(evidence: Evidence) -> Iterator[str]:
    distilled = evidence.distilled
    for main, other in ((evidence.teachers[0], other) for other in evidence.teachers[1:]):
        for method in distilled:
            found = teacher_gain(evidence, method, main, other)
            if found:
                parts = [f"{each} nats (N = {human(n)})" for n, each in found.items()]
                yield (
                    f"{method.capitalize()}-level students of {_named(main)} are ahead of those of "
                    f"{_named(other)} by {listed(parts)}."
                )


def _named(teacher: Teacher) -> str:
    known = not math.isnan(teacher.cross_entropy)
    return f"{teacher.label} ({teacher.cross_entropy:.3f} nats)" if known else teacher.label


def _teacher(evidence: Evidence) -> str:
    teacher, margin = evidence.main_teacher, teacher_margin(evidence)
    if teacher is None or margin is None:
        return ""
    parts = [f"is {margin:.3f} nats below the best scratch student"]
    overlap, gap = teacher_overlap(evidence), teacher_gap(evidence)
    if overlap is not None:
        parts.append(f"has read {overlap:.0%} of the students' text")
    if gap is not None:
        less = "more" if gap > 0 else "less"
        parts.append(f"has {abs(gap):.3f} nats {less} on the test text than on the students'")
    return f"The {teacher.label} {listed(parts)}."


def _seeds(evidence: Evidence) -> str:
    parts = []
    for fraction in evidence.fractions:
        noise = seed_noise(evidence, fraction)
        if noise:
            low, high = noise.interval()
            parts.append(
                f"{noise.sigma:.4f} [{low:.4f}, {high:.4f}] at {percent(fraction)} "
                f"({counted(noise.df, 'degree')} of freedom)"
            )
    if not parts:
        return ""
    return (
        f"Over seeds, a run's cross-entropy has a standard deviation of {listed(parts)}, "
        f"in nats with 90 % intervals."
    )
