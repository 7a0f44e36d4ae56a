"""The plans that a study's own laws make: for the FLOPs of its dearest run, and a tenth of them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from kdlaws.advice.evidence import Evidence, done, one_pass
from kdlaws.advice.grids import Cell, Table
from kdlaws.advice.planning.costs import Scenario
from kdlaws.advice.planning.plan import plan
from kdlaws.advice.planning.plan_result import Plan
from kdlaws.advice.planning.space import TeacherOption
from kdlaws.advice.teachers import Teacher
from kdlaws.errors import InputError
from kdlaws.quantities import human

LAW = "chinchilla"
TIMES = (0.1, 1.0)
PAID: dict[Scenario, str] = {
    "free": "a free teacher",
    "inference": "the teacher's reading paid",
}


@dataclass(frozen=True)
class StudyPlan:
    """A plan by the law of one ``method`` and its main teacher, or of scratch alone."""

    method: str
    teacher: Teacher | None
    plan: Plan

    @property
    def paid(self) -> str:
        scenario: Scenario = "free" if self.plan.scenario == "free" else "inference"
        return PAID[scenario] if self.teacher else "no teacher"

    @property
    def sentence(self) -> str:
        """What to train, how sure that is, and what training directly would give."""
        found, best = self.plan, self.plan.best
        taught = f"{self.method}-level from the {self.teacher.label}" if self.teacher else "scratch"
        size, tokens = (
            _with_ends(best.n, found, "n_params"),
            _with_ends(best.n_tokens, found, "n_tokens"),
        )
        direct, far = found.comparison.direct_cross_entropy, found.comparison.direct_extrapolates
        against = "" if direct is None or far else f"; training directly, {direct:.3f}"
        beyond = " (outside the runs)" if found.extrapolates else ""
        budget = f"{found.budget['flops']:.2g} FLOPs with {self.paid}"
        model = f"{taught}: N = {size} on {tokens} tokens, {_loss(found)} nats"
        return f"For {budget}, {model}{against}{beyond}."


def study_plans(evidence: Evidence) -> tuple[list[StudyPlan], dict[str, str]]:
    """By ``LAW`` as fitted to each method; and for each plan that there is none of, the reason."""
    plans: list[StudyPlan] = []
    reasons: dict[str, str] = {}
    for method, times, scenario in _asked(evidence):
        try:
            plans.append(_plan(evidence, method, times, scenario))
        except InputError as error:
            reasons[f"no plan by {LAW}-{method}, {PAID[scenario]}"] = str(error)
    return plans, reasons


def _asked(evidence: Evidence) -> Iterator[tuple[str, float, Scenario]]:
    for method in evidence.methods:
        taught = method != "scratch"
        knows = evidence.fit(LAW, method) and _dearest(evidence, method)
        if knows and (evidence.main_teacher or not taught):
            scenarios: tuple[Scenario, ...] = ("free", "inference") if taught else ("free",)
            yield from ((method, t, s) for t, s in product(TIMES, scenarios))


def _plan(evidence: Evidence, method: str, times: float, scenario: Scenario) -> StudyPlan:
    fit, teacher = evidence.fit(LAW, method), evidence.main_teacher
    assert fit is not None
    budget = times * _dearest(evidence, method)
    if method == "scratch" or teacher is None:
        return StudyPlan(method, None, plan(fit, budget, scenario=scenario))
    options, scratch = [_option(evidence, teacher, fit.n_column)], evidence.fit(LAW, "scratch")
    found = plan(fit, budget, scenario=scenario, teachers=options, scratch=scratch)
    return StudyPlan(method, teacher, found)


def _dearest(evidence: Evidence, method: str) -> float:
    """FLOPs of the dearest fitted run, its teacher's reading included; 0 where none is known."""
    rows = one_pass(done(evidence.of(method)))
    names = [x for x in ("student_flops", "teacher_inference_flops") if x in rows]
    known = rows[names].sum(axis=1, min_count=1).dropna() if names else rows["n_tokens"][:0]
    return float(known.max()) if len(known) else 0.0


def _option(evidence: Evidence, teacher: Teacher, n_column: str) -> TeacherOption:
    rows = evidence.runs
    own = rows[rows["run_id"] == teacher.run_id]["forward_flops_per_token"].dropna()
    sizes = rows[rows["teacher"] == teacher.run_id][f"teacher_{n_column}"].dropna()
    return TeacherOption(
        n_params=float(sizes.iloc[0]) if len(sizes) else None,
        cross_entropy=teacher.cross_entropy if not math.isnan(teacher.cross_entropy) else None,
        forward=float(own.iloc[0]) if len(own) else None,
        name=teacher.label,
    )


def plan_table(plans: Sequence[StudyPlan]) -> Table:
    """A row a plan."""
    head = ["budget", "who pays", "N", "tokens", "nats", "directly", "break-even"]
    level = f"{plans[0].plan.level:.0%}" if plans else ""
    return Table(
        "Plans",
        f"the best student for the FLOPs of the method's dearest run, and for a tenth of them, by "
        f"its {LAW} law; brackets are {level} intervals, ~ is outside the runs; directly: the "
        f"best without a teacher for the same FLOPs",
        head,
        [_row(each) for each in plans],
    )


def _row(each: StudyPlan) -> list[Cell]:
    found, best = each.plan, each.plan.best
    direct, equal = found.comparison.direct_cross_entropy, found.break_even
    return [
        f"{found.budget['flops']:.2g} FLOPs{' ~' if found.extrapolates else ''}",
        f"{each.method}: {each.paid}",
        _with_ends(best.n, found, "n_params"),
        _with_ends(best.n_tokens, found, "n_tokens"),
        _loss(found),
        "–"
        if direct is None
        else f"{direct:.3f}{' ~' * bool(found.comparison.direct_extrapolates)}",
        "–" if equal.n_tokens is None else f"{human(equal.n_tokens)} tokens",
    ]


def _with_ends(value: float, found: Plan, name: str) -> str:
    """``35k [6k, 196k]``; an open interval where the runs bound neither end, or at a corner."""
    shown = human(value)
    if name in found.at_ends:
        return f"{shown} (at the end of its range)"
    lo, hi = (found.interval or {}).get(name, (None, None))
    ends = [("open" if end is None else human(end)) for end in (lo, hi)]
    return f"{shown} [{', '.join(ends)}]"


def _loss(found: Plan) -> str:
    best = found.best
    if best.lo is None or best.hi is None:
        return f"{best.cross_entropy:.3f}"
    return f"{best.cross_entropy:.3f} [{best.lo:.3f}, {best.hi:.3f}]"
