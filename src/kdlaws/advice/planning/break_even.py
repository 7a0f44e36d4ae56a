"""Distilling against training directly: where they are equal, and how much cheaper one is.

All comparisons are at equal cost in the scenario, unless they say otherwise: what the teacher takes
is spent by the direct student on tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, isfinite

import numpy as np
from numpy.typing import NDArray

from kdlaws.advice.planning.costs import NO_TEACHER, TRAINING, Floats
from kdlaws.advice.planning.optimum import lowest
from kdlaws.advice.planning.space import Models, Space, first
from kdlaws.laws.law import D
from kdlaws.laws.result import BEYOND
from kdlaws.quantities import human

LONGEST = 1e4  # times the most tokens among the runs: where a search ends
MOST_STUDENTS = 1e6
HALVINGS = 48  # of up to nine decades: to a billionth
POINTS = 400


@dataclass(frozen=True)
class BreakEven:
    """Where distilling the planned student equals training it directly, at equal cost.

    ``n_tokens`` of the distilled student, and ``flops`` of its training and teacher; ``n_students``
    is how many must share the teacher for distilling to be ahead at the planned budget. None is not
    there, and ``reason`` says why, and on which side of ``n_tokens`` distilling is ahead.
    """

    n_tokens: float | None
    flops: float | None
    n_students: float | None
    reason: str


@dataclass(frozen=True)
class Comparison:
    """The plan against the best that is trained directly; None is not known.

    ``direct_cross_entropy`` is of the same budget, ``direct_flops`` what direct training takes to
    the plan's cross-entropy, ``times_cheaper`` that over what the plan takes. ``same_size_*`` is
    the planned student with the teacher's FLOPs spent on its own tokens instead.
    ``direct_extrapolates`` says whether the direct student is outside the runs of its law.
    """

    direct_cross_entropy: float | None
    direct_extrapolates: bool | None
    direct_flops: float | None
    times_cheaper: float | None
    same_size_n_tokens: float | None
    same_size_cross_entropy: float | None
    reason: str


NO_TEACHER_PLANNED = "the plan has no teacher"
NO_DIRECT_LAW = "no law of training without a teacher is known: give --scratch FIT"


def compare_with_direct(
    space: Space, z: Floats, direct: Space | None, at: Floats | None
) -> Comparison:
    """Of the best points ``z`` and ``at`` of a space and of training directly, if that has any."""
    if space.teacher is None or direct is None:
        reason = NO_TEACHER_PLANNED if space.teacher is None else NO_DIRECT_LAW
        return Comparison(None, None, None, None, None, None, reason)
    best = space.cross_entropy(z)
    flops = cheapest(direct, best)
    same = replace(direct, n_params=float(space.models(z[None]).n_params[0]))
    same_models = same.models(np.empty((1, 0)))
    same_loss = float(same.log_loss(np.empty((1, 0)))[0])
    cost = sum(space.spent(z).values())
    return Comparison(
        direct_cross_entropy=None if at is None else direct.cross_entropy(at),
        direct_extrapolates=None if at is None else not _was_run(direct, at),
        direct_flops=flops,
        times_cheaper=None if flops is None else flops / cost,
        same_size_n_tokens=float(same_models.n_tokens[0]) if isfinite(same_loss) else None,
        same_size_cross_entropy=exp(same_loss) if isfinite(same_loss) else None,
        reason="" if flops is not None else f"no direct training reaches {best:.4g} nats there",
    )


def _was_run(space: Space, z: Floats) -> bool:
    """Whether the N and tokens of a point are among those of the runs."""
    models, domain = space.models(z[None]), space.fit.domain
    asked = ((space.fit.n_column, models.n_params), (D, models.n_tokens))
    return all(_is_within(domain[name], float(values[0])) for name, values in asked)


def _is_within(ends: tuple[float, float], value: float) -> bool:
    return ends[0] / BEYOND <= value <= ends[1] * BEYOND


def cheapest(direct: Space, cross_entropy: float) -> float | None:
    """FLOPs of the cheapest student without a teacher that reaches it; None where none does."""
    costs, pinned = direct.costs, direct.n_params
    lo, hi = direct.box if pinned is None else (np.log([pinned]), np.log([pinned]))
    sizes = np.linspace(lo[0], hi[0], POINTS if pinned is None else 1)

    def flops(log_n: Floats) -> Floats:
        n = np.exp(log_n)
        tokens = _tokens_for(direct, n, cross_entropy)
        return TRAINING * costs.forward(n) * tokens + costs.serve_tokens * costs.forward(n)

    amounts = flops(sizes)
    if not np.isfinite(amounts).any():
        return None
    if pinned is not None:
        return float(amounts[0])
    at = lowest(lambda z: np.log(flops(z[:, 0])), sizes[:1], sizes[-1:])
    assert at is not None
    return float(flops(at)[0])


def _tokens_for(direct: Space, n: Floats, cross_entropy: float) -> Floats:
    """Tokens with which each N reaches it, by halving, no fewer than the range has; inf: never."""
    low, high = (np.full(len(n), np.log(end)) for end in _token_range(direct))
    goal = np.log(cross_entropy)

    def is_above(log_tokens: Floats) -> NDArray[np.bool_]:
        return np.asarray(_direct_loss(direct, n, np.exp(log_tokens)) > goal)

    never = is_above(high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = is_above(middle)
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(never, np.inf, np.exp(high))


def _token_range(space: Space) -> tuple[float, float]:
    lo, hi = space.fit.domain[D]
    return (lo, hi) if space.stays_inside else (space.token_range[0], hi * LONGEST)


def _direct_loss(direct: Space, n: Floats, tokens: Floats) -> Floats:
    unique = np.minimum(tokens, direct.costs.n_unique_tokens)
    models = Models(n, tokens, unique, None, None, np.ones(len(n), bool), np.zeros(len(n), bool))
    loss: Floats = np.log(direct.fit.predict(direct.columns(models)))
    return loss


# --- break-even ---------------------------------------------------------------------------------


def break_even(space: Space, z: Floats, direct: Space | None) -> BreakEven:
    """Of the student and teacher at the best point ``z`` of a space."""
    if space.teacher is None or direct is None:
        reason = NO_TEACHER_PLANNED if space.teacher is None else NO_DIRECT_LAW
        return BreakEven(None, None, None, reason)
    models = space.models(z[None])
    tokens = np.geomspace(*_token_range(space), POINTS)
    ahead = _ahead(space, direct, models)
    at, reason = _crossing(ahead, tokens)
    if at is not None and not _is_inside(space, direct, models, at):
        reason += ", outside the runs"
    flops = None if at is None else float(_cost(space, models, np.array([at]))[0])
    n_students, why = _students(space, direct, models)
    return BreakEven(at, flops, n_students, f"{reason}; {why}")


def _is_inside(space: Space, direct: Space, models: Models, tokens: float) -> bool:
    """Whether both students' tokens are among those of the runs behind the laws."""
    instead = _instead(direct, models.n_params[:1], _cost(space, models, np.array([tokens])))
    known = _is_within(space.fit.domain[D], tokens)
    return known and _is_within(direct.fit.domain[D], float(instead[0]))


def _ahead(space: Space, direct: Space, models: Models) -> Callable[[Floats], Floats]:
    """Nats by which distilling is ahead after so many tokens, NaN where direct is out of range."""

    def ahead(tokens: Floats) -> Floats:
        n = np.full(len(tokens), models.n_params[0])
        instead = _instead(direct, n, _cost(space, models, tokens))
        most = direct.token_range[1]
        known = instead <= most * (1 + 1e-9)
        distilled = _distilled_loss(space, models, tokens)
        alone = _direct_loss(direct, n, np.where(known, instead, most))
        gain: Floats = np.where(known, np.exp(alone) - np.exp(distilled), np.nan)
        return gain

    return ahead


def _cost(space: Space, models: Models, tokens: Floats) -> Floats:
    """FLOPs of distilling on so many tokens, serving left out: it is the same for both."""
    teacher = space.teacher_cost(first(models.teacher_n_params), first(models.teacher_n_tokens))
    spent = space.costs.spent(models.n_params[0], tokens, teacher, _text(space, models))
    return np.asarray(sum(part for name, part in spent.items() if name != "serving"))


def _text(space: Space, models: Models) -> float:
    """Tokens of text that the planned student uses, or all."""
    is_chosen = "n_unique_tokens" in space.axes
    return float(models.n_unique_tokens[0]) if is_chosen else space.costs.n_unique_tokens


def _instead(direct: Space, n: Floats, flops: Floats) -> Floats:
    """Tokens of direct training that cost as much."""
    tokens: Floats = direct.costs.tokens(flops, n, NO_TEACHER)
    return tokens + direct.costs.serve_tokens / TRAINING


def _distilled_loss(space: Space, models: Models, tokens: Floats) -> Floats:
    ones = np.ones(len(tokens))
    teacher_n, teacher_tokens = (
        None if part is None else part[0] * ones
        for part in (models.teacher_n_params, models.teacher_n_tokens)
    )
    n, unique = models.n_params[0] * ones, np.minimum(tokens, _text(space, models))
    there = Models(n, tokens, unique, teacher_n, teacher_tokens, ones > 0, ones < 0)
    loss: Floats = np.log(space.fit.predict(space.columns(there)))
    return loss


def _crossing(ahead: Callable[[Floats], Floats], tokens: Floats) -> tuple[float | None, str]:
    """The longest training at which the sign changes, and what is to be known beside it."""
    gains = ahead(tokens)
    seen = np.isfinite(gains)
    if not seen.any():
        return None, "equal cost is outside the range of the direct law"
    gains, tokens = gains[seen], tokens[seen]
    changes = np.flatnonzero(np.sign(gains[:-1]) != np.sign(gains[1:]))
    if not len(changes):
        who = "distilling" if gains[0] > 0 else "training directly"
        return None, f"{who} is ahead from {human(tokens[0])} to {human(tokens[-1])} tokens"
    k = int(changes[-1])
    low, high = np.log(tokens[k]), np.log(tokens[k + 1])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        same = (ahead(np.exp(np.array([middle])))[0] > 0) == (gains[k] > 0)
        low, high = (middle, high) if same else (low, middle)
    side = "fewer" if gains[k] > 0 else "more"
    return float(np.exp(low)), f"distilling is ahead with {side} tokens"


def _afforded(space: Space, tokens: Floats) -> Floats | None:
    """The tokens of one student, at most as many as are allowed; None for too few."""
    fewest, most = space.token_range
    return np.minimum(np.atleast_1d(tokens), most) if float(np.ravel(tokens)[0]) >= fewest else None


def _students(space: Space, direct: Space, models: Models) -> tuple[float | None, str]:
    """How many must share the teacher at the planned budget, and why there is no number."""
    if not (space.costs.pays_inference or space.costs.pays_training):
        return None, "the teacher is free"

    def ahead(n_students: float) -> float:
        shared = replace(space, costs=replace(space.costs, n_students=n_students))
        teacher = shared.teacher_cost(
            first(models.teacher_n_params), first(models.teacher_n_tokens)
        )
        n = models.n_params[:1]
        text = _text(space, models)
        tokens = _afforded(shared, shared.costs.tokens(space.budget, n, teacher, text))
        instead = _afforded(direct, direct.costs.tokens(space.budget, n, NO_TEACHER))
        if tokens is None or instead is None:
            return -np.inf if tokens is None else np.inf
        gain = _direct_loss(direct, n, instead) - _distilled_loss(shared, models, tokens)
        return float(gain[0])

    if ahead(1.0) >= 0:
        return 1.0, "one student pays for its teacher"
    if ahead(MOST_STUDENTS) < 0:
        return None, "no number of students pays for the teacher"
    low, high = 0.0, float(np.log(MOST_STUDENTS))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if ahead(exp(middle)) < 0 else (low, middle)
    return exp(high), f"{int(np.ceil(exp(high) - 1e-9))} students pay for the teacher"
