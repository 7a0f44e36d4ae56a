"""Plans: the best student that a budget buys, its teacher and tokens, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from kdlaws.advice.planning.around import (
    corner,
    frontier,
    of_the_run,
    scalars,
    smallest,
    student,
    valley,
)
from kdlaws.advice.planning.break_even import break_even, compare_with_direct
from kdlaws.advice.planning.certainty import plan_interval
from kdlaws.advice.planning.costs import (
    CACHE_BYTES_PER_TOKEN,
    Costs,
    Floats,
    Rate,
    Scenario,
    shares,
)
from kdlaws.advice.planning.optimum import lowest
from kdlaws.advice.planning.plan_result import Plan
from kdlaws.advice.planning.space import Space, TeacherOption
from kdlaws.errors import InputError
from kdlaws.laws import Fit, Mixture, Notice
from kdlaws.laws.cost import TWO_N
from kdlaws.laws.law import L_T, SCRATCH, TEACHER_N, D, N
from kdlaws.laws.prediction import beyond_notices, carried_notices

TOLERANCE = 0.01  # nats per token: what a flat valley may cost
PRODUCT_FORMS = ("spec", "spec_effective")  # L0 on any tokens, for N large enough
TOKENS_PER_PARAM = 20.0  # of a teacher whose training is not paid for: Hoffmann et al. 2022


def plan(
    fit: Fit | Mixture,
    budget: float,
    *,
    scenario: Scenario = "inference",
    teachers: Sequence[TeacherOption] = (),
    teacher_tokens_per_param: float | None = None,
    method: str | None = None,
    scratch: Fit | Mixture | None = None,
    n_params: float | None = None,
    serve_tokens: float = 0.0,
    n_students: float = 1.0,
    n_unique_tokens: float = np.inf,
    is_online: bool = False,
    cache_bytes_per_token: float = CACHE_BYTES_PER_TOKEN,
    rate: Rate | None = None,
    tolerance: float = TOLERANCE,
    extrapolate: bool = False,
) -> Plan:
    """The best student of ``budget`` FLOPs under ``fit``.

    The teacher is chosen from ``teachers``; without any, a law that knows teachers chooses their
    size, and tokens, too, where it knows what these bring and ``scenario`` pays for them.
    A law that tells methods apart chooses the ``method``, too, unless it is given.
    ``scratch`` is a fit of runs without a teacher, unless the law knows these itself. ``n_params``
    pins the student's N, by the fit's ``n_column``. A published law stays inside the range that it
    was fitted in unless ``extrapolate``; a fit of one's own says how far outside a plan is.

    Raises InputError where the law has no N and D, where a cost is not known, or where the budget
    buys no student.
    """
    fit = one_law(fit)
    forward = fit.forward_flops or TWO_N
    rate = rate or Rate()
    costs = Costs(
        forward,
        scenario,
        serve_tokens,
        n_students,
        n_unique_tokens,
        is_online,
        cache_bytes_per_token,
        flops_per_gigabyte=rate.flops_per_gigabyte,
    )
    inside = _is_published(fit) and not extrapolate
    methods = _methods(fit, method, bool(teachers))
    space = Space(fit, costs, budget, None, methods[0], n_params, stays_inside=inside)
    options, notices = teacher_options(fit, costs, teachers, teacher_tokens_per_param, space.method)
    spaces = [
        replace(space, method=each, teacher=option) for each, option in product(methods, options)
    ]
    for each in spaces:
        _check_pinned(each)
    found = [(each, z) for each in spaces if (z := lowest(each.log_loss, *each.box)) is not None]
    if not found:
        raise _no_student(space)
    found.sort(key=lambda pair: float(pair[0].log_loss(pair[1][None])[0]))
    direct = _direct(space, one_law(scratch) if scratch else None)
    return _assemble(found, direct, rate, tolerance, notices)


# --- what is asked for --------------------------------------------------------------------------


def one_law(fit: Fit | Mixture) -> Fit:
    """The fit, if a budget can be planned by it; InputError says why not."""
    if isinstance(fit, Mixture):
        raise InputError(
            "a combination of laws has no optimum of its own",
            where="fit",
            remedy="fit one law: kdlaws fit TABLE --law NAME --out FIT",
        )
    if not {N, D} <= set(fit.form.reads):
        raise InputError(
            f"{fit.law} does not tell N from D, so it cannot split a budget",
            where="fit",
            remedy="fit a law of N and D, such as chinchilla",
        )
    return fit


def _is_published(fit: Fit) -> bool:
    return fit.objective is None


def _methods(fit: Fit, method: str | None, has_teachers: bool) -> list[str | None]:
    """Of a law that tells methods apart: the one that is asked for, or all that were taught."""
    if not fit.methods:
        return [method]
    taught = [name for name in fit.methods if name != SCRATCH]
    if method is None and (taught or not has_teachers):
        return [*taught] or [SCRATCH]
    if method not in fit.methods:
        what = f"method {method}" if method else "a method with teachers"
        raise InputError(
            f"the fit has no runs of {what}",
            where="method",
            remedy=f"it has {', '.join(fit.methods)}",
        )
    return [method]


def teacher_options(
    fit: Fit,
    costs: Costs,
    teachers: Sequence[TeacherOption] = (),
    tokens_per_param: float | None = None,
    method: str | None = None,
) -> tuple[Sequence[TeacherOption | None], list[Notice]]:
    """The teachers to choose from, None for none, and what was assumed of them."""
    reads_quality = L_T in fit.form.optional
    knows_teachers = reads_quality or (TEACHER_N in fit.form.optional and method != SCRATCH)
    if teachers or not knows_teachers or method == SCRATCH:
        _check_teachers(fit, teachers)
        return list(teachers) or [None], []
    if reads_quality and not fit.form.stages:
        raise InputError(
            f"{fit.law} judges a teacher by its cross-entropy, and does not know that of any size",
            where="teacher_cross_entropy",
            remedy=f"give teacher_{fit.n_column}=... and teacher_cross_entropy=...",
        )
    if tokens_per_param is not None:
        return [TeacherOption(tokens_per_param=tokens_per_param)], []
    if reads_quality and costs.pays_training:
        return [TeacherOption()], []
    return [TeacherOption(tokens_per_param=TOKENS_PER_PARAM)], _assumed(reads_quality, costs)


def _assumed(reads_quality: bool, costs: Costs) -> list[Notice]:
    if not (reads_quality or costs.pays_training):
        return []
    message = f"teachers are taken to be trained on {TOKENS_PER_PARAM:g} tokens per parameter"
    return [Notice("teacher_tokens_assumed", message, "give teacher_tokens_per_param=...")]


def _check_teachers(fit: Fit, teachers: Sequence[TeacherOption]) -> None:
    n_name = f"teacher_{fit.n_column}"
    for teacher in teachers:
        by_tokens = teacher.n_params is not None and teacher.n_tokens is not None
        staged = ", or its N and tokens" if fit.form.stages else ""
        knows_quality = teacher.cross_entropy is not None or (by_tokens and fit.form.stages)
        if L_T in fit.form.optional and not knows_quality:
            raise InputError(
                "how good is this teacher?",
                where=teacher.name or "teacher",
                remedy=f"give teacher_cross_entropy=...{staged}",
            )
        if TEACHER_N in fit.form.optional and teacher.n_params is None:
            raise InputError("how large is this teacher?", where=n_name, remedy=f"give {n_name}")


def _check_pinned(space: Space) -> None:
    """InputError for an N outside the range of a law that stays inside it."""
    n, (lo, hi) = space.n_params, space.fit.domain[space.fit.n_column]
    if n is not None and not n > 0:
        raise InputError(f"{n:g} cannot be used", where=space.fit.n_column, remedy="give an N")
    if n is not None and space.stays_inside and not lo <= n <= hi:
        raise InputError(
            f"{n:.4g} is outside the range of the law, {lo:.4g} to {hi:.4g}",
            where=space.fit.n_column,
            remedy="add --extrapolate, or take another law",
        )


def _no_student(space: Space) -> InputError:
    lo, hi = space.fit.domain[D]
    inside = f" on {lo:.3g} to {hi:.3g} tokens, the law's range" if space.stays_inside else ""
    return InputError(
        f"{space.budget:.4g} FLOPs buy no student{inside} (scenario {space.costs.scenario})",
        where="budget",
        remedy="give a larger budget"
        + (", or add --extrapolate" if space.stays_inside else ", or scenario=free"),
    )


def _direct(space: Space, scratch: Fit | None) -> Space | None:
    """The same budget without a teacher, where a law of that is known."""
    fit = scratch or space.fit
    if fit.n_column != space.fit.n_column:
        raise InputError(
            f"it counts {fit.n_column}, the fit counts {space.fit.n_column}",
            where="--scratch",
            remedy="fit both by the same N",
        )
    knows = scratch is not None or SCRATCH in fit.methods or bool(fit.form.stages)
    if not knows:
        return None
    inside = space.stays_inside and _is_published(fit)
    return replace(space, fit=fit, teacher=None, method=SCRATCH, n_params=None, stays_inside=inside)


# --- what is found ------------------------------------------------------------------------------


def _assemble(
    found: Sequence[tuple[Space, Floats]],
    direct: Space | None,
    rate: Rate,
    tolerance: float,
    notices: Sequence[Notice],
) -> Plan:
    (space, z), *others = found
    fit, best, flat = space.fit, student(space, z), valley(space, z, tolerance)
    reference = direct if space.teacher is not None else None
    amounts = space.spent(z)
    beyond = fit.beyond(scalars(space, z) | {"flops": of_the_run(amounts)})
    alternatives = [student(*other) for other in others]
    if reference and (at := lowest(reference.log_loss, *reference.box)) is not None:
        alternatives.append(student(reference, at))
    if flat is not None:
        alternatives.append(smallest(space, flat))
    flops, comparison = space.budget, compare_with_direct(space, z, reference)
    return Plan(
        best=best,
        corner=corner(space, z),
        interval=plan_interval(space, z),
        level=fit.level,
        flat_valley=flat,
        allocation=shares(amounts),
        spent=amounts,
        break_even=break_even(space, z, reference),
        comparison=comparison,
        alternatives=tuple(sorted(alternatives, key=lambda each: each.cross_entropy)),
        frontier=tuple(frontier(space, reference)),
        scenario=space.costs.scenario,
        n_column=fit.n_column,
        budget={"flops": flops, "hours": rate.hours(flops), "money": rate.money(flops)},
        cache_gigabytes=space.costs.gigabytes(best.n_tokens) if space.teacher else None,
        extrapolates=bool(beyond),
        warnings=(
            *_if_direct_is_better(best.cross_entropy, comparison.direct_cross_entropy),
            *notices,
            *_warnings(space, best.n_tokens, beyond),
        ),
    )


def _if_direct_is_better(distilled: float, direct: float | None) -> list[Notice]:
    if direct is None or direct >= distilled:
        return []
    message = (
        f"for the same budget training without a teacher gives {direct:.4f} nats, which is less"
    )
    return [Notice("direct_is_better", message, "train it directly, or let more students share")]


def _warnings(space: Space, tokens: float, beyond: Mapping[str, float]) -> list[Notice]:
    fit = space.fit
    found = [*beyond_notices(beyond)]
    found += [notice for notice in carried_notices(fit) if notice.code != "flops_6nd"]
    if fit.forward_flops is None:
        message = f"a token costs 2 * {fit.n_column} FLOPs forward: no head, no attention"
        remedy = "fit a table that has forward_flops_per_token"
        found.append(Notice("flops_6nd", message, remedy))
    elif fit.forward_flops.largest_error > 0.05:
        error = fit.forward_flops.largest_error
        message = f"FLOPs per token are off by up to {error:.0%} for the models of the table"
        found.append(Notice("flops_approximate", message, "see how they depend on N there"))
    if fit.form.name in PRODUCT_FORMS and space.n_params is None:
        message = f"{fit.form.name} lets N stand in for tokens: it says little of their balance"
        found.append(Notice("product_form", message, "fit spec_additive for plans"))
    unique = space.costs.n_unique_tokens
    if tokens > unique and "n_unique_tokens" not in fit.form.reads:
        message = (
            f"the text is read {tokens / unique:.3g} times, which {fit.law} does not know: repeats "
            "are valued as Muennighoff et al. 2023 do (R_D* = 15.4)"
        )
        remedy = "fit data_constrained to runs that repeat their text"
        found.append(Notice("repeats_assumed", message, remedy))
    return found
