"""What a proposed study would tell, as a value; how it reads for people."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from kdlaws.advice.designing.proposal import ProposedTrunk
from kdlaws.advice.planning.certainty import Ends
from kdlaws.laws import Notice, Parameter, artefact
from kdlaws.laws.expected import Noise
from kdlaws.laws.result import interval_text
from kdlaws.quantities import human


@dataclass(frozen=True)
class Cannot:
    """What the runs cannot tell, however they come out, why, and which runs would."""

    what: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Foreseen:
    """The plan that the guess leads to, N by the design's count, and the interval it would have.

    ``interval`` is None at a ``corner``; an end that would not be known is None.
    """

    flops: float
    scenario: str
    n_params: float
    n_tokens: float
    teacher_n_params: float | None
    cross_entropy: float
    interval: Mapping[str, Ends] | None
    corner: str | None


@dataclass(frozen=True)
class Better:
    """Another study that costs no more, and what it would tell."""

    trunks: tuple[ProposedTrunk, ...]
    flops: float
    parameters: Mapping[str, Parameter]
    plan: Foreseen


@dataclass(frozen=True)
class Design(artefact.Document):
    """What a proposed study costs, would tell and cannot tell, and a better one if there is any.

    ``parameters`` are the law's free ones: the guess, and the intervals at ``level`` that the runs
    would give if it were the truth and they scattered by ``noise``. FLOPs are those of the whole
    study, N is counted as ``n_column`` says.
    """

    law: str
    n_column: str
    level: float
    noise: Noise
    n_trunks: int
    n_runs: int
    flops: float
    parameters: Mapping[str, Parameter]
    cannot: tuple[Cannot, ...]
    plan: Foreseen
    better: Better | None
    warnings: tuple[Notice, ...]

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _lines(design: Design) -> Iterator[str]:
    yield (
        f"{design.n_trunks} trunks, {design.n_runs} runs, {design.flops:.3g} FLOPs; "
        f"{design.law}, N = {design.n_column}"
    )
    yield (
        f"would tell ({design.level:.0%} intervals), if the guess holds and trunks deviate by "
        f"{100 * design.noise.trunk:.2g}%, runs by {100 * design.noise.run:.2g}%"
    )
    width = max(len(name) for name in design.parameters) + 1
    for name, found in design.parameters.items():
        yield f"  {name:<{width}} {found.value:<10.4g} {_parameter_text(found)}"
    yield from _plan_lines(design.plan)
    if design.cannot:
        yield "cannot tell"
    for each in design.cannot:
        yield f"  {each.what}: {each.reason}"
        yield f"      {each.remedy}"
    yield from _better_lines(design)
    yield from (f"{n.code}: {n.message}\n    {n.remedy}" for n in design.warnings)


def _parameter_text(found: Parameter) -> str:
    text = interval_text(found.lo, found.hi)
    return text if found.identified else f"not identified: {text}"


def _plan_lines(plan: Foreseen) -> Iterator[str]:
    yield f"the plan for {plan.flops:.3g} FLOPs, scenario {plan.scenario}"
    values = {
        "n_params": plan.n_params,
        "n_tokens": plan.n_tokens,
        "teacher_n_params": plan.teacher_n_params,
        "ratio": plan.teacher_n_params and plan.teacher_n_params / plan.n_params,
    }
    for name, value in values.items():
        if value is not None:
            ends = ends_text((plan.interval or {}).get(name))
            yield f"  {LABELS[name]:<12} {human(value):<8} {ends}"
    if plan.corner:
        yield f"  corner: {plan.corner}"


LABELS = {
    "n_params": "N",
    "n_tokens": "tokens",
    "teacher_n_params": "teacher's N",
    "ratio": "ratio",
    "teacher_n_tokens": "teacher's D",
}


def ends_text(ends: Ends | None) -> str:
    """An interval for people."""
    if ends is None or ends[0] is None or ends[1] is None:
        return "unknown"
    return f"{human(ends[0])} to {human(ends[1])}"


def _better_lines(design: Design) -> Iterator[str]:
    better = design.better
    if better is None:
        yield "no better study for these FLOPs was found"
        return
    n_runs = sum(len(trunk.n_tokens) for trunk in better.trunks)
    yield f"better: {len(better.trunks)} trunks, {n_runs} runs, {better.flops:.3g} FLOPs"
    yield from (f"  {line}" for line in trunk_lines(better.trunks))
    for name, ends in (better.plan.interval or {}).items():
        was = (design.plan.interval or {}).get(name)
        if name in LABELS:
            yield f"  {LABELS[name]:<12} {ends_text(ends)} (proposed: {ends_text(was)})"
    narrower = [name for name, p in better.parameters.items() if p.identified]
    gained = [name for name in narrower if not design.parameters[name].identified]
    if gained:
        yield f"  identifies {', '.join(gained)}, too"


def trunk_lines(trunks: Sequence[ProposedTrunk]) -> Iterator[str]:
    """``2 x token N = 332k on 90k, 180k tokens, teacher of 2.66M``."""
    for what, same in groupby(map(_described, trunks)):
        yield f"{len(list(same))} x {what}"


def _described(trunk: ProposedTrunk) -> str:
    tokens = ", ".join(map(human, trunk.n_tokens))
    teacher = f", teacher of {human(trunk.teacher_n_params)}" if trunk.teacher_n_params else ""
    method = trunk.method and f"{trunk.method} "
    return f"{method}N = {human(trunk.n_params)} on {tokens} tokens{teacher}"
