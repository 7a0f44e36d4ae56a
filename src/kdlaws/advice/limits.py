"""What a study's design lets it show, and what not."""

import math
from collections.abc import Callable, Sequence

from kdlaws.advice.captions import counted, listed
from kdlaws.advice.evidence import (
    Evidence,
    N,
    by_size,
    done,
    full_pass,
    gain,
    measured,
    one_pass,
    paired,
    repeated,
)
from kdlaws.quantities import human

TEACHER_MARGIN = (0.10, 10.0)
"""A teacher has to lead every scratch student by this many nats, and seed deviations."""
FEW_TRUNKS = 10
"""Below it, intervals resampled by trunk do not have their nominal coverage."""


def teacher_margin(evidence: Evidence) -> float | None:
    """Nats from the main teacher up to the best scratch student on clean data."""
    best, teacher = measured(evidence.of("scratch"))["cross_entropy"].min(), evidence.main_teacher
    margin = best - teacher.cross_entropy if teacher else math.nan
    return None if math.isnan(margin) else float(margin)


def margin_needed(evidence: Evidence) -> float:
    """Nats; seed deviations count where a size has several seeds."""
    spread = seed_spread(evidence)
    nats_needed, deviations = TEACHER_MARGIN
    return max(nats_needed, deviations * max((sd for _, sd in spread.values()), default=0.0))


def seed_spread(evidence: Evidence) -> dict[float, tuple[int, float]]:
    """N -> number of seeds and their standard deviation in nats, full scratch runs."""
    sizes = by_size(full_pass(measured(evidence.of("scratch"))))
    return {
        size: (len(rows), float(rows["cross_entropy"].std()))
        for size, rows in sizes.items()
        if len(rows) > 1
    }


def n_trunks(evidence: Evidence, method: str) -> int:
    """Independent trainings behind a method's one-pass law; rows without a trunk stand alone."""
    rows = one_pass(done(evidence.of(method)))
    return int(rows["trunk"].nunique() + rows["trunk"].isna().sum())


def can_show(evidence: Evidence) -> list[str]:
    return _said(evidence, (_range, _comparisons, _seeds))


def cannot_show(evidence: Evidence) -> list[str]:
    return _said(
        evidence, (_beyond, _trunks, _token_levels, _margin, _ratios, _repeats, _noise, _left_out)
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


def _comparisons(evidence: Evidence) -> str:
    found = {m: gain(paired(evidence, m, 1.0)) for m in evidence.methods if m != "scratch"}
    parts = [f"{method} at {counted(g.n_sizes, 'size')}" for method, g in found.items() if g]
    return f"Which method is ahead where runs pair with scratch: {listed(parts)}." if parts else ""


def _seeds(evidence: Evidence) -> str:
    each = [
        f"{number} at N = {human(size)}, standard deviation {deviation:.3f} nats"
        for size, (number, deviation) in seed_spread(evidence).items()
    ]
    return f"How much a scratch result moves with the seed: {listed(each)}." if each else ""


def _beyond(evidence: Evidence) -> str:
    if not evidence.sizes:
        return ""
    corpora = sorted(map(str, evidence.students["corpus"].dropna().unique()))
    text = f" or for other text than {listed(corpora)}" if corpora else ""
    return f"What happens beyond N = {human(evidence.sizes[-1])}{text}: that is extrapolation."


def _trunks(evidence: Evidence) -> str:
    numbers = {method: n_trunks(evidence, method) for method in evidence.methods}
    few = [f"{method} {number}" for method, number in numbers.items() if number < FEW_TRUNKS]
    if not few:
        return ""
    return (
        f"Sharp intervals: token counts branch off a common trunk and are not independent, and "
        f"there are few trunks ({listed(few)}); below {FEW_TRUNKS} the intervals are rough."
    )


def _token_levels(evidence: Evidence) -> str:
    levels = one_pass(done(evidence.comparable)).groupby(["method", N])["n_tokens"].nunique()
    fewest = levels.min() if len(levels) else 0
    if fewest >= 3:
        return ""
    return f"The exponent of D: some sizes have {counted(int(fewest), 'token count')} in one pass."


def _margin(evidence: Evidence) -> str:
    margin, needed = teacher_margin(evidence), margin_needed(evidence)
    if margin is None or margin >= needed:
        return ""
    return (
        f"What a good teacher brings: this one leads the best scratch student by {margin:.3f} "
        f"nats, less than the {needed:.3f} that such a study needs."
    )


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


def _repeats(evidence: Evidence) -> str:
    rows = repeated(measured(evidence.comparable))
    if rows.empty:
        return "What repeating data costs: no run repeats its data."
    unique = rows["n_unique_tokens"].nunique()
    return (
        f"A law of repeated data: {counted(int(unique), 'amount')} of unique tokens are compared, "
        f"and the one-pass laws say nothing about repeats."
    )


def _noise(evidence: Evidence) -> str:
    noisy = int((evidence.students["noise"] > 0).sum())
    if not noisy:
        return ""
    return f"A law of noise: {counted(noisy, 'noisy run')} in the table of runs, and no more."


def _left_out(evidence: Evidence) -> str:
    statuses = evidence.students["status"].value_counts()
    parts = [f"{number} {status}" for status, number in statuses.items() if status != "done"]
    return f"Anything about runs that no law reads: {listed(parts)}." if parts else ""
