"""A better study for the same FLOPs: which trunks to make instead of the proposed ones."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kdlaws.advice.designing.learning import Search, learnt, lessons
from kdlaws.advice.designing.proposal import Proposal, ProposedTrunk
from kdlaws.advice.planning.costs import Floats
from kdlaws.laws import Fit
from kdlaws.laws.estimate import Estimate
from kdlaws.laws.expected import Noise
from kdlaws.laws.gaps import FEWEST_DISTINCT, FEWEST_TEACHERS, TEACHER_SPAN, n_distinct
from kdlaws.laws.law import SCRATCH, TEACHER_N

# Before any run: standard deviations of the law's centred coordinates, far wider than what any
# study leaves of them. A scale within a factor of 7, an exponent within .5, to one deviation.
VAGUE = {"scale": 2.0, "exponent": 0.5, "real": 0.5}
BEYOND = 4.0  # how far outside the proposed sizes a candidate may be, as a factor
LONGER = 2.0  # than the longest proposed branch
TEACHERS_BEYOND = 3.0  # smaller and larger than each proposed teacher, as a factor
MOST_SIZES, MOST_LENGTHS, MOST_TEACHERS = 8, 6, 4  # of the proposal that candidates keep


def vague(fitted: Estimate) -> Floats:
    """Covariance of u ``[unknowns, unknowns]`` before any run."""
    at = fitted.stages[0].coordinates
    deviation = np.array([VAGUE[at.law.unknowns[k].kind] for k in at.free])
    spread = at.basis * deviation
    covariance: Floats = spread @ spread.T
    return covariance


def better_trunks(
    proposal: Proposal, fit: Fit, prior: Floats, aims: Floats, method: str | None, noise: Noise
) -> Proposal:
    """The best study found with no more FLOPs and trunks than ``proposal``.

    ``aims [aims, unknowns]`` is what to narrow. Trunks of other methods with a teacher than the
    plan's stay as they are: they are there for another reason.
    """
    kept = [t for t in proposal.trunks if t.is_taught and method and t.method != method]
    if kept:
        prior = learnt(prior, _rows(fit, replace(proposal, trunks=tuple(kept)), noise))
    own = tuple(t for t in proposal.trunks if t not in kept)
    around = candidates(own, method, TEACHER_N in fit.form.optional)
    pool = replace(proposal, trunks=(*own, *around))
    found, proposed = lessons(fit, pool, noise), list(range(len(own)))
    rule = Enough(pool.trunks, method)
    budget = found.cost(proposed) * (1 + 1e-9)
    search = Search(found, prior, aims, budget, len(own), rule)
    best = search.best([proposed, search.greedy(rule.groups)])
    trunks = [pool.trunks[k] for k in best]
    return replace(proposal, trunks=(*kept, *numbered(trunks)), dropped=())


def _rows(fit: Fit, proposal: Proposal, noise: Noise) -> Floats:
    found = lessons(fit, proposal, noise)
    return found.of(range(len(proposal.trunks)))


def numbered(trunks: Sequence[ProposedTrunk]) -> list[ProposedTrunk]:
    """In order of method and size; the same trunk again is another seed of it."""
    seen: Counter[ProposedTrunk] = Counter()
    found = []
    for trunk in sorted(trunks, key=_order):
        plain = replace(trunk, seed=0)
        found.append(replace(plain, seed=seen[plain]))
        seen[plain] += 1
    return found


def _order(trunk: ProposedTrunk) -> tuple[str, float, float, float]:
    return trunk.method, trunk.teacher_n_params or 0.0, trunk.n_params, max(trunk.n_tokens)


# --- candidates ---------------------------------------------------------------------------------


def candidates(
    trunks: Sequence[ProposedTrunk], method: str | None, knows_teachers: bool
) -> list[ProposedTrunk]:
    """Between and around the proposed ones: sizes, lengths with all shorter branches, teachers."""
    sizes = _sizes([trunk.n_params for trunk in trunks])
    lengths = _thinned([d for trunk in trunks for d in trunk.n_tokens], MOST_LENGTHS)
    lengths = [*lengths, LONGER * lengths[-1]]
    kinds = _kinds(trunks, method, knows_teachers)
    return [
        ProposedTrunk(kind, n, tuple(lengths[: k + 1]), teacher)
        for kind, teacher in kinds
        for n in sizes
        for k in range(len(lengths))
    ]


def _sizes(proposed: Sequence[float]) -> list[float]:
    """With half-steps between neighbours, and beyond both ends."""
    sizes = _thinned(proposed, MOST_SIZES)
    between = [float(np.sqrt(a * b)) for a, b in pairwise(sizes)]
    return sorted([*sizes, *between, sizes[0] / BEYOND, sizes[-1] * BEYOND])


def _kinds(
    trunks: Sequence[ProposedTrunk], method: str | None, knows_teachers: bool
) -> list[tuple[str, float | None]]:
    """Method and teacher. A law that knows no teachers cannot tell kinds apart: the usual one."""
    kinds = Counter((trunk.method, trunk.teacher_n_params) for trunk in trunks)
    if not knows_teachers or method is None:
        return [kinds.most_common(1)[0][0]]
    teachers = [t for kind, t in kinds if kind == method and t is not None]
    around = [t * f for t in teachers for f in (1 / TEACHERS_BEYOND, 1.0, TEACHERS_BEYOND)]
    scratch: list[tuple[str, float | None]] = [k for k in kinds if k[0] == SCRATCH]
    return [*scratch, *((method, t) for t in _thinned(around, 3 * MOST_TEACHERS))]


def _thinned(values: Sequence[float], most: int) -> list[float]:
    """Distinct ones (to 5 %) in order, evenly chosen where there are more than ``most``."""
    distinct: list[float] = []
    for value in sorted(values):
        if not distinct or value > 1.05 * distinct[-1]:
            distinct.append(value)
    if len(distinct) <= most:
        return distinct
    return [distinct[k] for k in np.linspace(0, len(distinct) - 1, most).round().astype(int)]


# --- what a design needs ------------------------------------------------------------------------


@dataclass(frozen=True)
class Enough:
    """Whether a fit of some of the ``trunks`` could determine the law, as ``laws.gaps`` asks.

    All methods, three sizes and lengths, and of the plan's ``method`` three teachers far apart,
    where there are so many among the trunks.
    """

    trunks: Sequence[ProposedTrunk]
    method: str | None

    def __call__(self, chosen: Sequence[int]) -> bool:
        trunks = [self.trunks[k] for k in chosen]
        sizes = np.log([trunk.n_params for trunk in trunks])
        lengths = np.log([d for trunk in trunks for d in trunk.n_tokens])
        return (
            {trunk.method for trunk in trunks} == {trunk.method for trunk in self.trunks}
            and min(n_distinct(sizes), n_distinct(lengths)) >= FEWEST_DISTINCT
            and self.has_teachers(chosen)
        )

    @cached_property
    def teachers(self) -> Floats:
        """log N of each trunk's teacher, NaN where it is not of the plan's method ``[trunks]``."""
        of_plan = (t.teacher_n_params if t.method == self.method else None for t in self.trunks)
        return np.log([n or np.nan for n in of_plan])

    @cached_property
    def groups(self) -> list[NDArray[np.bool_]]:
        """The trunks of the smallest, of the middle and of the largest teacher."""
        sizes = np.unique(self.teachers[np.isfinite(self.teachers)])
        if len(sizes) < FEWEST_TEACHERS:
            return []
        return [self.teachers == sizes[k] for k in (0, len(sizes) // 2, -1)]

    def has_teachers(self, chosen: Sequence[int]) -> bool:
        teachers = self.teachers[list(chosen)]
        teachers = teachers[np.isfinite(teachers)]
        if not self.groups:
            return True
        enough = n_distinct(teachers) >= FEWEST_TEACHERS
        return bool(enough and np.ptp(teachers) >= np.log(TEACHER_SPAN))
