"""Runs within and around those of a fit, one of which may be worth making next."""

from collections.abc import Iterator

import numpy as np

from kdlaws.advice.designing.proposal import THE_SAME, ProposedTrunk
from kdlaws.advice.planning.asked import TOKENS_PER_PARAM
from kdlaws.laws import Fit
from kdlaws.laws.law import L_T, SCRATCH, TEACHER_N, D

N_SIZES, SIZES_BEYOND = 9, 3.0  # how many, and how far outside those of the fit, as a factor
LONGEST = (1.0, 2.0, 4.0)  # branches, times the fit's largest number of tokens
BRANCHES = (0.25, 0.5, 1.0)  # where a trunk's branches end, as shares of the longest
TEACHERS_BEYOND = 3.0  # smaller and larger than those of the fit, as a factor


def usual_candidates(fit: Fit) -> list[ProposedTrunk]:
    """Within and around the runs of a fit."""
    lo, hi = fit.domain[fit.n_column]
    sizes = np.geomspace(lo / SIZES_BEYOND, hi * SIZES_BEYOND, N_SIZES)
    longest = [fit.domain[D][1] * factor for factor in LONGEST]
    return [
        ProposedTrunk(method, float(n), tuple(share * d for share in BRANCHES), teacher, quality)
        for method, teacher, quality in _kinds(fit)
        for n in sizes
        for d in longest
    ]


def _kinds(fit: Fit) -> Iterator[tuple[str, float | None, float | None]]:
    """Method, teacher's N and its cross-entropy where the law reads it."""
    knows_teachers = TEACHER_N in fit.form.optional or L_T in fit.form.optional
    if not fit.methods and not knows_teachers:
        yield THE_SAME, None, None
    elif SCRATCH in fit.methods or not fit.methods:
        yield SCRATCH, None, None
    taught = [name for name in fit.methods if name != SCRATCH] or ["taught"] * knows_teachers
    for teacher in _teachers(fit) if knows_teachers else ():
        for method in taught:
            yield method, teacher, _quality(fit, teacher)


def _teachers(fit: Fit) -> list[float]:
    """The ends of the fit's range, its middle, and beyond both."""
    lo, hi = fit.domain.get(f"teacher_{fit.n_column}") or _teachers_of_quality(fit)
    middle = float(np.sqrt(lo * hi))
    teachers = {lo / TEACHERS_BEYOND, lo, middle, hi, hi * TEACHERS_BEYOND}
    return sorted(teachers)


def _teachers_of_quality(fit: Fit) -> tuple[float, float]:
    """N of teachers that are as good as the fit's, where it reads only how good they are."""
    lo, hi = fit.domain[fit.n_column]
    sizes = np.geomspace(lo / 100, hi * 100, 400)
    quality = fit.predict({fit.n_column: sizes, D: TOKENS_PER_PARAM * sizes})
    best, worst = fit.domain[L_T]
    # Larger is better: along falling cross-entropy the sizes rise.
    ends = np.interp([-worst, -best], -quality, sizes)
    return float(ends[0]), float(ends[1])


def _quality(fit: Fit, teacher: float) -> float | None:
    """By the law itself, which in its first stage says how good a teacher of this N is."""
    if L_T not in fit.form.optional:
        return None
    trained = {fit.n_column: teacher, D: TOKENS_PER_PARAM * teacher}
    return float(np.reshape(fit.predict(trained), ()))
