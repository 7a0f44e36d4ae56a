"""A plan as a value: what to train, how sure that is, what else there is; JSON and plain text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log10

from kdlaws.advice.planning.break_even import BreakEven, Comparison
from kdlaws.advice.planning.certainty import Ends
from kdlaws.laws import Notice, artefact
from kdlaws.quantities import human


@dataclass(frozen=True)
class Student:
    """One way to spend the budget; N by both conventions, of which the fit knows one.

    ``method`` is that of a law which tells methods apart, ``teacher`` None training without one.
    ``lo`` and ``hi`` enclose the curve.
    """

    n_params: float | None
    n_params_non_embedding: float | None
    n_tokens: float
    n_unique_tokens: float
    method: str | None
    teacher: str | None
    teacher_n_params: float | None
    teacher_n_params_non_embedding: float | None
    teacher_n_tokens: float | None
    cross_entropy: float
    lo: float | None
    hi: float | None

    @property
    def n(self) -> float:
        """N by the fit's own count."""
        n = self.n_params_non_embedding if self.n_params is None else self.n_params
        assert n is not None  # a fit counts by one of them
        return n


@dataclass(frozen=True)
class Valley:
    """The students within ``tolerance_nats`` of the best, each with the tokens it would get."""

    tolerance_nats: float
    n_params: tuple[float, float]
    n_tokens: tuple[float, float]


@dataclass(frozen=True)
class Stop:
    """The best student of another budget, and the best that is trained without a teacher."""

    flops: float
    n_params: float
    n_tokens: float
    method: str | None
    teacher: str | None
    teacher_n_params: float | None
    cross_entropy: float
    direct_cross_entropy: float | None


@dataclass(frozen=True)
class Plan(artefact.Document):
    """What to train; N is counted as ``n_column`` says, in ``interval`` and ``flat_valley``, too.

    ``corner`` says what is at an end of its range, where the best is no optimum between two ends,
    and has no interval; ``at_ends`` are its names. ``allocation`` are shares of the budget,
    ``spent`` FLOPs.
    """

    best: Student
    corner: str | None
    at_ends: tuple[str, ...]
    interval: Mapping[str, Ends] | None
    level: float
    flat_valley: Valley | None
    allocation: Mapping[str, float]
    spent: Mapping[str, float]
    break_even: BreakEven
    comparison: Comparison
    alternatives: tuple[Student, ...]
    frontier: tuple[Stop, ...]
    scenario: str
    n_column: str
    budget: Mapping[str, float | None]
    cache_gigabytes: float | None
    extrapolates: bool
    warnings: tuple[Notice, ...]

    def __str__(self) -> str:
        return "\n".join(_lines(self))


# --- for people ---------------------------------------------------------------------------------

_BUCKETS = {
    "student_training": "student's training",
    "teacher_inference": "teacher's reading",
    "teacher_training": "teacher's training",
    "serving": "serving",
    "cache_storage": "storage",
}


def _lines(plan: Plan) -> Iterator[str]:
    scenario = f", scenario {plan.scenario}" if plan.best.teacher else ""
    yield f"for {_budget(plan)}{scenario}; N = {plan.n_column}"
    yield f"  train      {described(plan.best)}"
    if plan.corner:
        yield f"  corner     {plan.corner}"
    yield from _sure(plan)
    shares = [f"{_BUCKETS[name]} {x:.0%}" for name, x in plan.allocation.items() if x >= 0.005]
    yield f"  split      {', '.join(shares)}"
    yield from _against_direct(plan)
    for other in plan.alternatives:
        yield f"  or         {described(other)}"
    yield from _frontier(plan)
    if plan.cache_gigabytes is not None:
        yield f"  storage    {human(plan.cache_gigabytes * 1e9)} bytes of teacher outputs"
    for notice in plan.warnings:
        yield f"{notice.code}: {notice.message}\n    {notice.remedy}"


def _budget(plan: Plan) -> str:
    amounts = {"hours": "hours", "money": "in money"}
    known = [f"{plan.budget[k]:,.4g} {unit}" for k, unit in amounts.items() if plan.budget[k]]
    return " = ".join([f"{plan.budget['flops']:.3g} FLOPs", *known])


def described(student: Student) -> str:
    """``N = 3.41B on 15.5B tokens, teacher of 1.97B on 41.1B: 2.2740 nats``."""
    ends = "" if student.lo is None else f" [{student.lo:.4f}, {student.hi:.4f}]"
    passes = student.n_tokens / student.n_unique_tokens
    text = (
        f" ({human(student.n_unique_tokens)} of text, {passes:.3g} times)" if passes > 1.01 else ""
    )
    tokens = f" on {human(student.n_tokens)} tokens{text}"
    loss = f"{student.cross_entropy:.4f} nats{ends}"
    if student.teacher is None:
        return f"N = {human(student.n)}{tokens}, no teacher: {loss}"
    taught = student.teacher_n_tokens
    trained = "" if taught is None else f" (trained on {human(taught)})"
    method = "" if student.method is None else f"{student.method}, "
    return f"N = {human(student.n)}{tokens}, {method}{student.teacher}{trained}: {loss}"


def _sure(plan: Plan) -> Iterator[str]:
    if plan.interval:
        ends = [
            f"{_NAMES.get(name, name)} {_ends(name, *pair)}" for name, pair in plan.interval.items()
        ]
        yield f"  {plan.level:.0%}        {', '.join(ends)}"
    valley = plan.flat_valley
    if valley:
        lo, hi = map(human, valley.n_params)
        yield f"  flat       N from {lo} to {hi} costs {valley.tolerance_nats:g} nats at most"


_NAMES = {
    "n_params": "N",
    "n_tokens": "tokens",
    "n_unique_tokens": "text",
    "teacher_n_params": "teacher's N",
    "teacher_n_tokens": "teacher's tokens",
    "teacher_inference_share": "teacher's reading",
}


def _ends(name: str, lo: float | None, hi: float | None) -> str:
    if lo is None or hi is None:
        return "unknown"
    if name == "teacher_inference_share":
        return f"{lo:.0%} to {hi:.0%}"
    return f"{human(lo)} to {human(hi)}"


def _against_direct(plan: Plan) -> Iterator[str]:
    against, equal = plan.comparison, plan.break_even
    direct, flops, times = against.direct_cross_entropy, against.direct_flops, against.times_cheaper
    if direct is not None:
        gap = direct - plan.best.cross_entropy
        how = f"{abs(gap):.4f} {'worse' if gap > 0 else 'better'}"
        far = " (outside the runs)" if against.direct_extrapolates else ""
        yield f"  direct     the best without a teacher has {direct:.4f} nats{far}, {how};"
        price = (
            "no budget" if flops is None else f"{flops:.3g} FLOPs, {times:.3g} times the plan's,"
        )
        yield f"             {price} makes it equal"
    same, tokens = against.same_size_cross_entropy, against.same_size_n_tokens
    if same is not None and tokens is not None:
        yield f"             this N without a teacher, on {human(tokens)} tokens: {same:.4f} nats"
    at = (
        ""
        if equal.n_tokens is None
        else f"{human(equal.n_tokens)} tokens, {equal.flops:.3g} FLOPs; "
    )
    yield f"  break-even {at}{equal.reason}"


def _is_decade(flops: float, budget: float | None) -> bool:
    decades = log10(flops / (budget or flops))
    return abs(decades - round(decades)) < 0.1


def _frontier(plan: Plan) -> Iterator[str]:
    if len(plan.frontier) < 2:
        return
    yield "  frontier   FLOPs      N        tokens   nats" + "     direct" * bool(
        plan.frontier[0].direct_cross_entropy
    )
    for stop in plan.frontier:
        if not _is_decade(stop.flops, plan.budget["flops"]):
            continue
        direct = "" if stop.direct_cross_entropy is None else f"  {stop.direct_cross_entropy:.4f}"
        model = f"{human(stop.n_params):<7}  {human(stop.n_tokens):<7}"
        yield f"             {stop.flops:<9.3g}  {model}  {stop.cross_entropy:.4f}{direct}"
