"""What a study's design lets it show, and what not."""

import math
from collections.abc import Callable, Sequence

from kdlaws.advice.captions import counted, listed, percent
from kdlaws.advice.columns import N
from kdlaws.advice.crossings import data_needed, noise_effects
from kdlaws.advice.curation import curation_effects
from kdlaws.advice.evidence import (
    Evidence,
    done,
    measured,
    one_pass,
    repeated,
)
from kdlaws.advice.findings import gain, seed_noise, size_exponent
from kdlaws.quantities import human

TEACHER_MARGIN = (0.10, 10.0)
"""A teacher has to lead every scratch student by this many nats, and seed deviations."""
TEACHER_GAP = 0.10
"""Nats by which a teacher may know the students' text better than the test text."""
FEW_TRUNKS = 10
"""Below it, intervals resampled by trunk do not have their nominal coverage."""


def teacher_margin(evidence: Evidence) -> float | None:
    """Nats from the main teacher up to the best scratch student on clean data."""
    best, teacher = measured(evidence.of("scratch"))["cross_entropy"].min(), evidence.main_teacher
    margin = best - teacher.cross_entropy if teacher else math.nan
    return None if math.isnan(margin) else float(margin)


def margin_needed(evidence: Evidence) -> float:
    """Nats; seed deviations count where runs were repeated."""
    nats_needed, deviations = TEACHER_MARGIN
    noise = seed_noise(evidence)
    return max(nats_needed, deviations * noise.sigma) if noise else nats_needed


def teacher_gap(evidence: Evidence) -> float | None:
    """The main teacher's cross-entropy on the test text minus that on the students' own, nats."""
    teacher = evidence.main_teacher
    gap = teacher.cross_entropy - teacher.stream_cross_entropy if teacher else math.nan
    return None if math.isnan(gap) else gap


def teacher_overlap(evidence: Evidence) -> float | None:
    """The largest share of the students' text that a teacher has read."""
    share = evidence.students["teacher_overlap"].max()
    return None if math.isnan(share) else float(share)


def heldout_warning(evidence: Evidence) -> tuple[str, str] | None:
    """(teachers, what to beware of), where a teacher from elsewhere may know the test text."""
    doubtful = [each for each in evidence.teachers if each.may_know_test]
    if not doubtful:
        return None
    said = listed(sorted({str(each.heldout) for each in doubtful}))
    return (
        listed([each.label for each in doubtful]),
        f"the teacher may have read the test text (held out: {said}), so its cross-entropy is not "
        "held out, and laws with L_T as a floor are to be read with care.",
    )


def n_trunks(evidence: Evidence, method: str) -> int:
    """Independent trainings behind a method's one-pass law; rows without a trunk stand alone."""
    rows = one_pass(done(evidence.of(method)))
    return int(rows["trunk"].nunique() + rows["trunk"].isna().sum())


def can_show(evidence: Evidence) -> list[str]:
    return _said(evidence, (_range, _exponents, _comparisons, _curation, _saving, _seeds))


def cannot_show(evidence: Evidence) -> list[str]:
    return _said(
        evidence,
        (
            _beyond,
            _laws,
            _trunks,
            _token_levels,
            _margin,
            _gap,
            _overlap,
            _ratios,
            _limit,
            _collapse,
            _repeats,
            _edges,
            _noise,
            _left_out,
        ),
    )


def _said(evidence: Evidence, rules: Sequence[Callable[[Evidence], str]]) -> list[str]:
    return list(filter(None, (rule(evidence) for rule in rules)))


def _range(evidence: Evidence) -> str:
    if not evidence.sizes:
        return ""
    low, high = evidence.sizes[0], evidence.sizes[-1]
    return (
        f"How cross-entropy falls over {counted(len(evidence.sizes), 'size')} between "
        f"{human(low)} and {human(high)} non-embedding parameters, a factor of {high / low:.3g}."
    )


def _exponents(evidence: Evidence) -> str:
    found = {m: size_exponent(evidence, m) for m in evidence.methods}
    parts = [f"{m} {each.value:.4f} ± {each.se:.4f}" for m, each in found.items() if each]
    if not parts or any(math.isnan(each.se) for each in found.values() if each):
        return ""
    return (
        f"How steeply N counts here, as effective exponents with no offset taken off: "
        f"{listed(parts)}; the exponent alpha of a law with an offset is another thing."
    )


def _comparisons(evidence: Evidence) -> str:
    found = {m: gain(evidence, m, evidence.largest_fraction) for m in evidence.distilled}
    parts = [
        f"{method} {g.mean} nats, at {counted(g.n_sizes, 'size')}"
        for method, g in found.items()
        if g
    ]
    if not parts:
        return ""
    return f"The sign and the rough size of what distilling gains over scratch: {listed(parts)}."


def _curation(evidence: Evidence) -> str:
    effects = curation_effects(evidence)
    if not effects:
        return ""
    kept = sorted({percent(each.kept) for each in effects if not math.isnan(each.kept)})
    text = f" of which {listed(kept)} was kept" if kept else ""
    return f"What curation of the text{text} brings, at one way of curating."


def _saving(evidence: Evidence) -> str:
    found = {m: data_needed(evidence, m) for m in evidence.distilled}
    inside = {m: [c for c in each.values() if not c.bound] for m, each in found.items()}
    parts = [f"{m} at {counted(len(each), 'size')}" for m, each in inside.items() if each]
    if not parts:
        return ""
    return f"How many tokens distilling saves at equal cross-entropy, one pass: {listed(parts)}."


def _seeds(evidence: Evidence) -> str:
    noise = seed_noise(evidence)
    if noise is None:
        return ""
    low, high = noise.interval()
    most = percent(evidence.largest_fraction)
    return (
        f"How much a result moves with the seed: {noise.sigma:.4f} nats [{low:.4f}, {high:.4f}] "
        f"at {most} of the data (90 %, {counted(noise.df, 'degree')} of freedom)."
    )


def _beyond(evidence: Evidence) -> str:
    if not evidence.sizes:
        return ""
    corpora = sorted(map(str, evidence.students["corpus"].dropna().unique()))
    text = f" or for other text than {listed(corpora)}" if corpora else ""
    return f"What happens beyond N = {human(evidence.sizes[-1])}{text}: that is extrapolation."


def _trunks(evidence: Evidence) -> str:
    numbers = {method: n_trunks(evidence, method) for method in evidence.methods}
    few = [f"{method} {number}" for method, number in numbers.items() if 0 < number < FEW_TRUNKS]
    if not few:
        return ""
    return (
        f"Sharp intervals: token counts branch off a common trunk and are not independent, and "
        f"there are few trunks ({listed(few)}); below {FEW_TRUNKS} the intervals are rough."
    )


def _token_levels(evidence: Evidence) -> str:
    levels = one_pass(done(evidence.comparable)).groupby(["method", N])["n_tokens"].nunique()
    if levels.empty:
        return "The exponent of D: there is no fully trained run of one pass."
    fewest = levels.min()
    if fewest >= 3:
        return ""
    return f"The exponent of D: some sizes have {counted(int(fewest), 'token count')} in one pass."


def _laws(evidence: Evidence) -> str:
    fits = {m: fit for m in evidence.methods if (fit := evidence.fit("chinchilla", m))}
    vague = {
        method: [name for name, each in fit.parameters.items() if not each.identified]
        for method, fit in fits.items()
    }
    parts = [f"{method} {', '.join(names)}" for method, names in vague.items() if names]
    return f"These parameters of L(N, D), not identified: {'; '.join(parts)}." if parts else ""


def _margin(evidence: Evidence) -> str:
    margin, needed = teacher_margin(evidence), margin_needed(evidence)
    if margin is None or margin >= needed:
        return ""
    return (
        f"What a good teacher brings: this one leads the best scratch student by {margin:.3f} "
        f"nats, less than the {needed:.3f} that such a study needs."
    )


def _gap(evidence: Evidence) -> str:
    gap = teacher_gap(evidence)
    if gap is None or gap <= TEACHER_GAP:
        return ""
    return (
        f"A teacher that is new to its students' text: it has {gap:.3f} nats more on the test text "
        f"than on theirs, over {TEACHER_GAP:.2f}, as if it knew theirs."
    )


def _overlap(evidence: Evidence) -> str:
    share = teacher_overlap(evidence)
    if share is None and evidence.teachers:
        return "Whether the teacher has read the students' text: its overlap is not recorded."
    if not share:
        return ""
    return f"A teacher that has not read the students' text: it has read {share:.0%} of it."


def _ratios(evidence: Evidence) -> str:
    number = len(evidence.teachers)
    if number == 0:
        return "Anything about distillation: the study has no teacher."
    if number > 2:
        return ""
    why = (
        "with one teacher, compression and student size are one number"
        if number == 1
        else "two teachers cannot enclose an optimum"
    )
    return f"The best ratio of teacher to student: {why}. It takes three, a factor of 8 apart."


def _limit(evidence: Evidence) -> str:
    fits = {m: fit for m in evidence.methods if (fit := evidence.fit("chinchilla", m))}
    known = [m for m, fit in fits.items() if fit.parameters["E"].identified]
    if known or not fits:
        return ""
    return f"The irreducible cross-entropy: E is identified in 0 of {counted(len(fits), 'law')}."


def _collapse(evidence: Evidence) -> str:
    teacher = evidence.main_teacher
    if teacher is None or not evidence.sizes or math.isnan(teacher.n_params_non_embedding):
        return ""
    largest = teacher.n_params_non_embedding / evidence.sizes[0]
    return (
        f"Where distilling collapses: the smallest student is {largest:.3g} times smaller than "
        f"its teacher, and sizes beyond are extrapolation."
    )


def _repeats(evidence: Evidence) -> str:
    rows = repeated(measured(evidence.comparable))
    if rows.empty:
        return "What repeating data costs: no run repeats its data."
    unique = rows["n_unique_tokens"].nunique()
    return (
        f"A law of repeated data: {counted(int(unique), 'amount')} of unique tokens are compared, "
        f"and the one-pass laws say nothing about repeats."
    )


def _edges(evidence: Evidence) -> str:
    rows = measured(evidence.comparable)
    longest = rows.groupby("trunk")["epochs"].max()
    best = repeated(rows).dropna(subset=["trunk"])
    at_edge = best[best["epochs"] >= best["trunk"].map(longest)]
    if at_edge.empty:
        return ""
    by_method = at_edge["method"].value_counts()
    parts = [f"{number} of {method}" for method, number in by_method.items()]
    return (
        f"The best number of epochs of {len(at_edge)} of {counted(len(best), 'trunk')} that repeat "
        f"their data: it is the largest that was tried ({listed(parts)}), and more may help."
    )


def _noise(evidence: Evidence) -> str:
    effects = noise_effects(evidence)
    levels = {each.noise for each in effects}
    if not levels:
        return ""
    return (
        f"A law of noise: {counted(len(levels), 'level')} at "
        f"{counted(len({each.n_params for each in effects}), 'size')}."
    )


def _left_out(evidence: Evidence) -> str:
    statuses = evidence.students["status"].value_counts()
    parts = [f"{number} {status}" for status, number in statuses.items() if status != "done"]
    return f"Anything about runs that no law reads: {listed(parts)}." if parts else ""
