"""Before any run is paid for: what a study would tell, what it cannot, and what is better."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdlaws.advice.designing.aim import aim_of, parameter_rows, parameter_width, total_width
from kdlaws.advice.designing.design_result import Better, Cannot, Design, Foreseen
from kdlaws.advice.designing.exchange import better_trunks, vague
from kdlaws.advice.designing.guess import guessed, known_from
from kdlaws.advice.designing.proposal import Proposal
from kdlaws.advice.planning.costs import Floats, Scenario
from kdlaws.advice.planning.plan import plan
from kdlaws.errors import InputError
from kdlaws.laws import Fit, Law, Notice, Parameter, find
from kdlaws.laws.estimate import Estimate, Fixed
from kdlaws.laws.expected import Noise, expected, expected_fit
from kdlaws.laws.gaps import Gap, remedy, undetermined_by_design
from kdlaws.laws.law import L_T, RATIO, SCRATCH, D, N
from kdlaws.laws.result import interval_text

NARROWER = 0.9  # of the sum of squared widths: a design that gains less is not worth a change
OF_THE_TEACHER = ("teacher_n_params", "ratio")  # what a plan says of it


def design(
    proposal: Proposal,
    *,
    plan_budget: float,
    law: str = "spec_additive",
    guess: Fit | Mapping[str, float] | None = None,
    noise: Noise | None = None,
    scenario: Scenario = "inference",
    method: str | None = None,
    about: Sequence[str] = (),
    level: float = 0.9,
) -> Design:
    """What the proposed runs would tell of ``law`` and of the plan for ``plan_budget`` FLOPs.

    ``guess`` is a fit of other runs, or values of parameters by name, which take the place of the
    usual ones. ``method`` is the plan's, by default the one with a teacher that has most runs. A
    better study costs no more FLOPs, has no more trunks, and narrows what the plan chooses, N and
    the ratio of teacher to student, and the parameters that ``about`` names.

    The default law is the additive form. Of the product form the best number of tokens does not
    depend on the budget: with a free teacher it is D_m (beta/alpha - 1)^(1/beta), and none at all
    for beta <= alpha.

    Raises InputError for a law that a design cannot be made for, an incomplete guess or a strange
    parameter, TableError for fewer runs than parameters.
    """
    form, known, fixed = _asked(proposal, law, guess)
    values = guessed(form, proposal, known, fixed)
    method = method or _usual_method(proposal, form)
    study = _Study(law, form, values, fixed, noise or Noise(), level, plan_budget, scenario, method)
    return study.design(proposal, about)


def _asked(
    proposal: Proposal, name: str, guess: Fit | Mapping[str, float] | None
) -> tuple[Law, Mapping[str, float], Fixed]:
    """The law, what is known of its parameters, and its pins and ties."""
    law = find(name, proposal.methods)
    _check(law)
    if not isinstance(guess, Fit):
        return law, guess or {}, law.fixed
    if guess.n_column != proposal.n_column:
        raise InputError(
            f"it counts {guess.n_column}, the proposal {proposal.n_column}",
            where="guess",
            remedy="count both by the same N",
        )
    ours = set(law.fixed) - set(guess.form.parameters)  # of methods that the fit does not know
    return law, known_from(guess, law), {**guess.fixed, **{k: law.fixed[k] for k in ours}}


def _check(law: Law) -> None:
    """InputError for a law that reads what a proposal does not say, or is fitted in two stages."""
    if law.stages or set(law.reads) != {N, D} or L_T in law.optional:
        raise InputError(
            f"no design is known for {law.name}",
            where="law",
            remedy="take a law of N and n_tokens that knows a teacher by its size: spec_additive, "
            "chinchilla; what determines spec_additive determines busbridge, too",
        )


def _usual_method(proposal: Proposal, law: Law) -> str | None:
    """The one with a teacher that has most runs; None of a law that tells no methods apart."""
    runs = Counter[str]()
    for trunk in proposal.trunks:
        runs[trunk.method] += len(trunk.n_tokens) * trunk.is_taught
    return runs.most_common(1)[0][0] if law.by_method else None


@dataclass(frozen=True)
class _Study:
    """What is asked of any set of runs."""

    law: str
    form: Law
    values: Mapping[str, float]
    fixed: Fixed
    noise: Noise
    level: float
    budget: float
    scenario: Scenario
    method: str | None

    def design(self, proposal: Proposal, about: Sequence[str]) -> Design:
        fit, estimate = self.fit(proposal), self.estimate(proposal)
        gaps = undetermined_by_design(estimate, proposal.n_column)
        foreseen = self.foreseen(fit)
        return Design(
            law=self.law,
            n_column=proposal.n_column,
            level=self.level,
            noise=self.noise,
            n_trunks=len(proposal.trunks),
            n_runs=proposal.n_runs,
            flops=float(proposal.flops.sum()),
            parameters=self.free(fit),
            cannot=tuple(_cannot(fit, gaps, foreseen)),
            plan=foreseen,
            better=self.better(proposal, fit, vague(estimate), foreseen, about),
            warnings=(*_left_out(proposal), *_kept_notices(fit)),
        )

    def fit(self, proposal: Proposal) -> Fit:
        return expected_fit(
            proposal.columns(),
            self.law,
            self.values,
            self.noise,
            n_column=proposal.n_column,
            trunk=proposal.labels,
            fixed=self.fixed,
            level=self.level,
            forward=proposal.forward,
        )

    def estimate(self, proposal: Proposal) -> Estimate:
        runs, n_column = proposal.columns(), proposal.n_column
        labels, fixed = proposal.labels, self.fixed
        return expected(runs, self.form, self.values, self.noise, n_column, labels, fixed)

    def free(self, fit: Fit) -> dict[str, Parameter]:
        return {name: p for name, p in fit.parameters.items() if name not in self.fixed}

    def foreseen(self, fit: Fit) -> Foreseen:
        planned = plan(fit, self.budget, scenario=self.scenario, method=self.method)
        best = planned.best
        ends = None if planned.interval is None else dict(planned.interval)
        if ends and lost_ratio(fit, self.method):
            # What they would rest on is the law's form alone.
            ends |= {name: (None, None) for name in OF_THE_TEACHER if name in ends}
        total_n = fit.n_column == "n_params"
        teacher_n = best.teacher_n_params if total_n else best.teacher_n_params_non_embedding
        n = best.n_params if total_n else best.n_params_non_embedding
        assert n is not None
        return Foreseen(
            flops=self.budget,
            scenario=self.scenario,
            n_params=n,
            n_tokens=best.n_tokens,
            teacher_n_params=teacher_n,
            cross_entropy=best.cross_entropy,
            interval=ends,
            corner=planned.corner,
        )

    def better(
        self,
        proposal: Proposal,
        fit: Fit,
        prior: Floats,
        foreseen: Foreseen,
        about: Sequence[str],
    ) -> Better | None:
        """None where no other study has a clearly narrower plan, or identifies more."""
        aim = aim_of(fit, self.budget, self.scenario, self.method)
        rows = parameter_rows(fit, about)
        aims = rows if aim is None else np.vstack([aim.choices, rows])
        if not len(aims):
            return None
        other = better_trunks(proposal, fit, prior, aims, self.method, self.noise)
        found = self.fit(other)
        there = self.foreseen(found)
        plans = (None, None) if aim is None else (there, foreseen)
        if not _is_better(self._unsure(found, plans[0], about), self._unsure(fit, plans[1], about)):
            return None
        return Better(other.trunks, float(other.flops.sum()), self.free(found), there)

    def _unsure(
        self, fit: Fit, planned: Foreseen | None, about: Sequence[str]
    ) -> tuple[int, float]:
        """How many parameters are not identified, and the squared widths of what is aimed at."""
        lost = sum(not found.identified for found in self.free(fit).values())
        width = sum(parameter_width(fit, name) ** 2 for name in about)
        return lost, width + (0.0 if planned is None else total_width(planned.interval))


def _is_better(one: tuple[int, float], other: tuple[int, float]) -> bool:
    """Of (parameters not identified, sum of squared widths)."""
    if one[0] != other[0]:
        return one[0] < other[0]
    return one[1] < NARROWER * other[1]


def _kept_notices(fit: Fit) -> list[Notice]:
    """Without those that ``cannot`` has."""
    return [notice for notice in fit.warnings if notice.code != "not_identified"]


def _left_out(proposal: Proposal) -> list[Notice]:
    """That a fit would not use some rows of a table."""
    if not proposal.dropped:
        return []
    shown = "; ".join(proposal.dropped[:2])
    more = f"; and {len(proposal.dropped) - 2} more" if len(proposal.dropped) > 2 else ""
    message = f"a fit would leave out, and so does this: {shown}{more}"
    return [Notice("left_out", message, "their cost is not counted either")]


# --- what the runs cannot tell ------------------------------------------------------------------


def lost_ratio(fit: Fit, method: str | None) -> list[str]:
    """The parameters of this method without which no best ratio is known, and that are not."""
    names = (f"kappa_{method}", f"r_c_{method}")
    return [
        name for name in names if name in fit.parameters and not fit.parameters[name].identified
    ]


def _cannot(fit: Fit, gaps: Mapping[str, Gap], foreseen: Foreseen) -> Iterator[Cannot]:
    yield from _parameters_lost(fit, gaps)
    for method in fit.methods:
        if method != SCRATCH:
            yield from _ratio_lost(fit, gaps, method)
    if foreseen.corner:
        yield Cannot(
            "an interval of the plan",
            f"{foreseen.corner}: no optimum between two ends",
            "ask for another budget or scenario, or take a law that has an optimum there",
        )


def _parameters_lost(fit: Fit, gaps: Mapping[str, Gap]) -> Iterator[Cannot]:
    """Those of one reason together."""
    lost: dict[Gap, list[str]] = {}
    for unknown in fit.form.unknowns:
        found = fit.parameters[unknown.name]
        if found.identified or unknown.name in fit.fixed:
            continue
        ends = f"its {fit.level:.0%} interval would be {interval_text(found.lo, found.hi)}"
        wide = Gap(ends, remedy(fit.form, unknown.column, fit.n_column))
        lost.setdefault(gaps.get(unknown.name, wide), []).append(unknown.name)
    for gap, names in lost.items():
        yield Cannot(", ".join(names), gap.reason, gap.remedy)


def _ratio_lost(fit: Fit, gaps: Mapping[str, Gap], method: str) -> Iterator[Cannot]:
    kappa, what = fit.parameters.get(f"kappa_{method}"), f"the best ratio of {method}"
    lost = lost_ratio(fit, method)
    if lost:
        reason = f"it rests on {' and '.join(lost)}, not identified"
        gap = gaps.get(lost[0])
        yield Cannot(what, reason, gap.remedy if gap else remedy(fit.form, RATIO, fit.n_column))
    elif kappa and kappa.lo is not None and kappa.lo <= 0:
        yield Cannot(
            what,
            f"kappa_{method} may be 0 or less: larger teachers would always be better",
            remedy(fit.form, RATIO, fit.n_column),
        )
