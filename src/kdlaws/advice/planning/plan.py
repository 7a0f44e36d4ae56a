"""Plans: the best student that a budget buys, its teacher and tokens, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from kdlaws.advice.planning.around import (
    at_ends,
    best_of,
    corner,
    frontier,
    of_the_run,
    paid_beforehand,
    scalars,
    smallest,
    student,
    valley,
)
from kdlaws.advice.planning.asked import (
    check_pinned,
    is_published,
    methods_to_try,
    one_law,
    teacher_options,
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
from kdlaws.advice.planning.plan_result import Plan, Student
from kdlaws.advice.planning.space import Space, TeacherOption
from kdlaws.errors import InputError
from kdlaws.laws import Fit, Mixture, Notice
from kdlaws.laws.cost import TWO_N
from kdlaws.laws.law import SCRATCH, D
from kdlaws.laws.prediction import beyond_notices, carried_notices

TOLERANCE = 0.01  # nats per token: what a flat valley may cost
PRODUCT_FORMS = ("spec", "spec_effective")  # L0 on any tokens, for N large enough


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
    if not tolerance >= 0:
        raise InputError(f"{tolerance:g} cannot be used", where="tolerance", remedy="0 or more")
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
    inside = is_published(fit) and not extrapolate
    methods = methods_to_try(fit, method, bool(teachers))
    space = Space(fit, costs, budget, None, methods[0], n_params, stays_inside=inside)
    options, notices = teacher_options(fit, costs, teachers, teacher_tokens_per_param, space.method)
    spaces = [
        replace(space, method=each, teacher=option) for each, option in product(methods, options)
    ]
    for each in spaces:
        check_pinned(each)
    found = best_of(spaces)
    if not found:
        raise _no_student(spaces)
    direct = _direct(space, one_law(scratch) if scratch else None)
    return _assemble(found, spaces, direct, rate, tolerance, notices)


def _no_student(spaces: Sequence[Space]) -> InputError:
    """Why the budget buys none: what is paid before a student is trained, or the law's range."""
    space = spaces[0]
    lo, hi = space.fit.domain[D]
    paid = min(map(paid_beforehand, spaces))
    if paid >= space.budget:
        reason, inside = f"the teacher's training and serving take {paid:.3g}", False
    else:
        inside = space.stays_inside
        reason = f"of {lo:.3g} to {hi:.3g} tokens, the law's range" if inside else "at all"
    return InputError(
        f"{space.budget:.4g} FLOPs buy no student: {reason} (scenario {space.costs.scenario})",
        where="budget",
        remedy="give a larger budget, or another scenario"
        + (", or add --extrapolate" if inside else ""),
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
    inside = space.stays_inside and is_published(fit)
    return replace(space, fit=fit, teacher=None, method=SCRATCH, stays_inside=inside)


# --- what is found ------------------------------------------------------------------------------


def _assemble(
    found: Sequence[tuple[Space, Floats]],
    spaces: Sequence[Space],
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
    alone = best_of([reference] if reference else [])
    alternatives = [student(*other) for other in (*others, *alone)]
    if flat is not None:
        alternatives.append(smallest(space, flat))
    comparison = compare_with_direct(space, z, reference, alone[0][1] if alone else None)
    flops = space.budget
    return Plan(
        best=best,
        corner=corner(space, z),
        at_ends=tuple(at_ends(space, z)),
        interval=plan_interval(space, z),
        level=fit.level,
        flat_valley=flat,
        allocation=shares(amounts),
        spent=amounts,
        break_even=break_even(space, z, reference),
        comparison=comparison,
        alternatives=tuple(sorted(alternatives, key=lambda each: each.cross_entropy)),
        frontier=tuple(frontier(spaces, reference)),
        scenario=space.costs.scenario,
        n_column=fit.n_column,
        budget={"flops": flops, "hours": rate.hours(flops), "money": rate.money(flops)},
        cache_gigabytes=space.costs.gigabytes(best.n_unique_tokens) if space.teacher else None,
        extrapolates=bool(beyond),
        warnings=(
            *_if_direct_is_better(
                best.cross_entropy, comparison.direct_cross_entropy, space.costs.scenario
            ),
            *_left_out(spaces, found),
            *notices,
            *_warnings(space, best, beyond),
        ),
    )


def _not_identified(fit: Fit) -> list[Notice]:
    """Parameters that the runs do not determine, in one notice."""
    names = [n for n, p in fit.parameters.items() if not p.identified and n not in fit.fixed]
    if not names or is_published(fit) or fit.uncertainty is None:
        return []
    message = f"the fit does not identify {', '.join(names)}: do not rely on how it splits a budget"
    return [Notice("not_identified", message, "see what the fit says of each: kdlaws design FIT")]


def _untaught(space: Space) -> list[Notice]:
    """Distilled runs behind a plan that names no teacher."""
    method = space.fit.inputs.get("method")
    if space.teacher is not None or method in (None, SCRATCH) or space.fit.methods:
        return []
    message = f"the runs behind the fit were distilled ({method}), and no teacher is named"
    remedy = (
        f"give teacher_{space.fit.n_column}=...: what it costs is left out, and it must be there"
    )
    return [Notice("no_teacher_named", message, remedy)]


def _left_out(spaces: Sequence[Space], found: Sequence[tuple[Space, Floats]]) -> list[Notice]:
    """Named teachers that leave nothing to train a student on."""
    there = [space.teacher for space, _ in found]
    names = [each.teacher.label for each in spaces if each.teacher and each.teacher not in there]
    if not names:
        return []
    message = f"{', '.join(dict.fromkeys(names))}: too dear, no student is left in the law's range"
    return [Notice("teachers_left_out", message, "give a larger budget, or add --extrapolate")]


def _if_direct_is_better(distilled: float, direct: float | None, scenario: str) -> list[Notice]:
    if direct is None or direct >= distilled:
        return []
    message = (
        f"for the same budget training without a teacher gives {direct:.4f} nats, which is less"
    )
    sharing = "" if scenario == "free" else ", or let more students share the teacher"
    return [Notice("direct_is_better", message, f"train it directly{sharing}")]


def _warnings(space: Space, best: Student, beyond: Mapping[str, float]) -> list[Notice]:
    fit = space.fit
    found = [*beyond_notices(beyond), *_not_identified(fit), *_untaught(space)]
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
    passes = best.n_tokens / best.n_unique_tokens
    if passes > 1 and "n_unique_tokens" not in fit.form.reads:
        message = (
            f"the text is read {passes:.3g} times, which {fit.law} does not know: repeats "
            "are valued as Muennighoff et al. 2023 do (R_D* = 15.4)"
        )
        remedy = "fit data_constrained to runs that repeat their text"
        found.append(Notice("repeats_assumed", message, remedy))
    return found
