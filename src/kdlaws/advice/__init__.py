"""USES laws: plans, designs, recommendations, claims; from a study's artefacts to one page.

Needs no torch. ``plan(fit, budget)`` spends a budget; ``design(proposal)`` says what a study would
tell, ``suggest(fit, budget)`` what to run next; ``recommend(runs, fit)`` chooses a model under
constraints; ``claims(folder)`` judges what was expected, ``guidelines`` says what follows.
``summary(folder)``, ``story(folder)`` and ``figures(folder)`` read what ``fit_study`` or
``build_report`` wrote.

``planning/``, ``designing/``, ``choosing/`` and ``judging/`` answer these questions; the modules
beside them read a study's artefacts and report on it.
"""

from kdlaws.advice.choosing.constraints import Constraints
from kdlaws.advice.choosing.recommend import Recommendation, recommend
from kdlaws.advice.designing.design import design
from kdlaws.advice.designing.design_result import Design
from kdlaws.advice.designing.pilots import Suggestion, suggest
from kdlaws.advice.designing.proposal import Proposal, ProposedTrunk, proposal_of
from kdlaws.advice.figures import figures
from kdlaws.advice.judging.claims import Claims, claims
from kdlaws.advice.judging.guidelines import Guideline, guidelines
from kdlaws.advice.planning.costs import Rate, budget_flops
from kdlaws.advice.planning.plan import plan
from kdlaws.advice.planning.plan_result import Plan
from kdlaws.advice.planning.space import TeacherOption
from kdlaws.advice.report import build_report, fit_study
from kdlaws.advice.story import story
from kdlaws.advice.summary import summary

__all__ = [
    "Claims",
    "Constraints",
    "Design",
    "Guideline",
    "Plan",
    "Proposal",
    "ProposedTrunk",
    "Rate",
    "Recommendation",
    "Suggestion",
    "TeacherOption",
    "budget_flops",
    "build_report",
    "claims",
    "design",
    "figures",
    "fit_study",
    "guidelines",
    "plan",
    "proposal_of",
    "recommend",
    "story",
    "suggest",
    "summary",
]
