"""With a fit in hand: which further runs narrow the plan most, and what they cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kdlaws.advice.captions import counted
from kdlaws.advice.designing.aim import Aim, aim_of
from kdlaws.advice.designing.design import OF_THE_TEACHER, lost_ratio
from kdlaws.advice.designing.design_result import LABELS, ends_text, trunk_lines
from kdlaws.advice.designing.exchange import Enough, numbered
from kdlaws.advice.designing.learning import Search, anything, gains, known, lessons, total
from kdlaws.advice.designing.pilot_candidates import usual_candidates
from kdlaws.advice.designing.proposal import Proposal, ProposedTrunk
from kdlaws.advice.planning.certainty import WIDEST, Ends
from kdlaws.advice.planning.costs import Floats, Scenario
from kdlaws.advice.planning.plan import plan
from kdlaws.errors import InputError
from kdlaws.laws import Fit, Mixture, artefact
from kdlaws.laws.cost import TWO_N
from kdlaws.laws.expected import Noise
from kdlaws.laws.law import U
from kdlaws.laws.uncertainty import Linear, student
from kdlaws.quantities import human

SHOWN = 20  # candidates in a suggestion
LITTLE = 0.05  # narrower: less is not worth a run
DEAR = 8  # candidates, dear and telling, that a set may begin with
MOST = 12  # trunks of a set, unless asked for more
LEAST_RUN = 1e-6  # of the deviation that the fit found: it has none of zero


@dataclass(frozen=True)
class Pilot:
    """A trunk that could be made, and the plan's intervals with it alone beside the fit's runs.

    ``shrinks_by`` is the share by which what the plan chooses gets narrower: of the root of the sum
    of squared log widths of N and of the ratio.
    """

    method: str
    n_params: float
    n_tokens: tuple[float, ...]
    teacher_n_params: float | None
    flops: float
    interval_after: Mapping[str, Ends]
    shrinks_by: float


@dataclass(frozen=True)
class Suggestion(artefact.Document):
    """The runs that narrow a plan most: each alone, the best first, and the best set.

    ``together`` fits in ``budget`` FLOPs and leads to ``interval_after``. Intervals shrink as those
    of the linearised law do, Student's quantile stays that of the fit: with many new runs they come
    out a little too wide.
    """

    plan_budget: float
    scenario: str
    level: float
    n_column: str
    budget: float
    plan: Mapping[str, float]
    interval_before: Mapping[str, Ends]
    candidates: tuple[Pilot, ...]
    together: tuple[ProposedTrunk, ...]
    flops: float
    interval_after: Mapping[str, Ends]
    shrinks_by: float

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def suggest(
    fit: Fit | Mixture,
    budget: float,
    *,
    plan_budget: float,
    scenario: Scenario = "inference",
    method: str | None = None,
    candidates: Sequence[ProposedTrunk] | None = None,
    noise: Noise | None = None,
    most: int = MOST,
) -> Suggestion:
    """At most ``most`` trunks, of ``budget`` FLOPs in all, that narrow a plan for ``plan_budget``.

    ``candidates`` are by default of all methods of the fit, sizes from a third of its smallest to
    three times its largest, up to four times its tokens, and teachers within and around its own.
    ``noise`` is by default what the fit found. Where the fit cannot tell the best ratio for want of
    teachers, the set has three of them far apart.

    Raises InputError for a fit without uncertainty, a plan that has nothing to choose, or where no
    candidate fits in the budget.
    """
    if most < 1 or not budget > 0:
        where, value = ("most", most) if most < 1 else ("flops", budget)
        raise InputError(f"{value:g} cannot be used", where=where, remedy="give more than 0")
    planned = plan(fit, plan_budget, scenario=scenario, method=method)
    assert isinstance(fit, Fit)  # a plan refuses all else
    if U in fit.form.reads:
        raise InputError(
            f"which runs a fit of {fit.law} lacks is not known",
            where="fit",
            remedy="fit chinchilla or spec_additive to runs that read their text once",
        )
    covariance, method = known(fit), planned.best.method
    aim = aim_of(fit, plan_budget, scenario, method)
    if aim is None:
        raise InputError(
            f"the plan has nothing to choose: {planned.corner}",
            where="plan_budget",
            remedy="ask for another budget or scenario",
        )
    trunks = tuple(usual_candidates(fit) if candidates is None else candidates)
    needs = Enough(trunks, method) if lost_ratio(fit, method) else None
    pool = Proposal(trunks, fit.n_column, fit.forward_flops or TWO_N)
    found = lessons(fit, pool, noise or found_noise(fit))
    rule = needs.has_teachers if needs else anything
    search = Search(found, covariance, aim.choices, budget, most, rule)
    asked = _Question(fit, aim, pool, search, planned.interval or {}, needs)
    return asked.suggestion(plan_budget, scenario)


def found_noise(fit: Fit) -> Noise:
    """As the fit found it; of a fit without trunks, all of it is the runs'."""
    assert fit.new_run is not None  # a fit with uncertainty has one
    run = max(fit.new_run.variance - fit.new_run.trunk_variance, 0.0)
    return Noise(float(np.sqrt(fit.new_run.trunk_variance)), max(float(np.sqrt(run)), LEAST_RUN))


# --- the answer ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Question:
    """``before`` are the plan's own intervals, where it has any.

    ``needs`` says what it takes to know the best ratio, of a fit that does not know it.
    """

    fit: Fit
    aim: Aim
    pool: Proposal
    search: Search
    before: Mapping[str, Ends]
    needs: Enough | None

    def suggestion(self, plan_budget: float, scenario: Scenario) -> Suggestion:
        chosen = self.best(self.needs.groups if self.needs else [])
        return Suggestion(
            plan_budget=plan_budget,
            scenario=scenario,
            level=self.fit.level,
            n_column=self.fit.n_column,
            budget=self.search.budget,
            plan=dict(zip(self.aim.names, map(float, np.exp(self.aim.at)), strict=True)),
            interval_before=self.ends([]),
            candidates=tuple(self.ranked()),
            together=tuple(numbered([self.pool.trunks[k] for k in chosen])),
            flops=self.search.found.cost(chosen),
            interval_after=self.ends(chosen),
            shrinks_by=self.shrinks_by(chosen),
        )

    def ends(self, chosen: Sequence[int]) -> dict[str, Ends]:
        """The plan's intervals after these trunks, by name."""
        was = self.aim.deviations(self.search.prior)
        now = self.aim.deviations(self.search.after(chosen))
        values = zip(self.aim.names, self.aim.at, self._quantiles * now, now / was, strict=True)
        ends = {name: self._narrowed(name, at, half, s) for name, at, half, s in values}
        if self.needs is None or (self.needs.groups and self.needs.has_teachers(chosen)):
            return ends
        # What these would rest on is the law's form alone.
        return {name: (None, None) if name in OF_THE_TEACHER else e for name, e in ends.items()}

    def _narrowed(self, name: str, at: float, half: float, shrunk: float) -> Ends:
        """Each end of a known interval moves by the share that the deviation shrinks."""
        lo, hi = self.before.get(name, (None, None))
        if lo is not None and hi is not None:
            to_lo, to_hi = shrunk * (np.log(lo) - at), shrunk * (np.log(hi) - at)
            return float(np.exp(at + to_lo)), float(np.exp(at + to_hi))
        return (
            (float(np.exp(at - half)), float(np.exp(at + half))) if half < WIDEST else (None, None)
        )

    @property
    def _quantiles(self) -> Floats:
        """Deviations to either side ``[names]``."""
        uncertainty, level = self.fit.uncertainty, self.fit.level
        if isinstance(uncertainty, Linear):
            return student(uncertainty.degrees(self.aim.slopes), level)
        return student(np.full(len(self.aim.names), np.inf), level)

    def shrinks_by(self, chosen: Sequence[int]) -> float:
        after, before = self.search.after(chosen), self.search.prior
        left = total(after, self.aim.choices) / total(before, self.aim.choices)
        return 1 - float(np.sqrt(max(left, 0.0)))

    def best(self, groups: Sequence[NDArray[np.bool_]]) -> list[int]:
        """The set; InputError where the budget has no room for any trunk."""
        start = self.search.greedy(groups)
        if not start:
            n, cheapest = len(self.pool.trunks), self.search.found.flops.min()
            raise InputError(
                f"{self.search.budget:.3g} FLOPs pay for none of {n} candidates",
                where="budget",
                remedy=f"give {cheapest:.3g} FLOPs or more",
            )
        # What teaches most per FLOP may leave too little for the one that teaches most.
        dear = [] if groups else self._affordable[:DEAR]
        return self.search.best([start, *(self.search.greedy(begin=[k]) for k in dear)])

    @cached_property
    def _affordable(self) -> list[int]:
        """Candidates within the budget, the one that narrows most first."""
        gain = gains(self.search.prior, self.search.found, self.aim.choices)
        within = self.search.found.flops <= self.search.budget
        return [int(k) for k in np.argsort(-gain) if within[k]]

    def ranked(self) -> Iterator[Pilot]:
        return (self._pilot(k) for k in self._affordable[:SHOWN])

    def _pilot(self, k: int) -> Pilot:
        trunk = self.pool.trunks[k]
        return Pilot(
            method=trunk.method,
            n_params=trunk.n_params,
            n_tokens=trunk.n_tokens,
            teacher_n_params=trunk.teacher_n_params,
            flops=float(self.search.found.flops[k]),
            interval_after=self.ends([k]),
            shrinks_by=self.shrinks_by([k]),
        )


# --- for people ---------------------------------------------------------------------------------


def _lines(found: Suggestion) -> Iterator[str]:
    yield (
        f"the plan for {found.plan_budget:.3g} FLOPs, scenario {found.scenario}, and its "
        f"{found.level:.0%} intervals; N = {found.n_column}"
    )
    yield f"  {'':<12} {'':<8} {'now':<18} with the runs below"
    for name, before in found.interval_before.items():
        value, after = human(found.plan[name]), ends_text(found.interval_after[name])
        yield f"  {LABELS[name]:<12} {value:<8} {ends_text(before):<18} {after}"
    n_runs = sum(len(trunk.n_tokens) for trunk in found.together)
    if found.shrinks_by < LITTLE:
        yield (
            f"nothing that {found.budget:.3g} FLOPs pay for makes it {LITTLE:.0%} narrower: give "
            "more, or ask for a plan nearer to the runs"
        )
        return
    yield (
        f"make {counted(len(found.together), 'trunk')}, {n_runs} runs, {found.flops:.3g} of "
        f"{found.budget:.3g} FLOPs: {found.shrinks_by:.0%} narrower"
    )
    yield from (f"  {line}" for line in trunk_lines(found.together))
    yield "one trunk alone"
    for pilot in found.candidates[:5]:
        [line] = trunk_lines([_trunk(pilot)])
        yield f"  {pilot.shrinks_by:4.0%} narrower for {pilot.flops:.3g} FLOPs: {line}"


def _trunk(pilot: Pilot) -> ProposedTrunk:
    return ProposedTrunk(pilot.method, pilot.n_params, pilot.n_tokens, pilot.teacher_n_params)
