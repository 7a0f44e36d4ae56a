"""What is asked of a plan, checked: the law, the methods, the teachers to choose from."""

from collections.abc import Sequence
from dataclasses import replace

from kdlaws.advice.planning.costs import Costs
from kdlaws.advice.planning.space import Space, TeacherOption
from kdlaws.errors import InputError
from kdlaws.laws import Fit, Mixture, Notice
from kdlaws.laws.law import L_T, SCRATCH, TEACHER_N, D, N

TOKENS_PER_PARAM = 20.0  # of a teacher whose training is not paid for: Hoffmann et al. 2022


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


def is_published(fit: Fit) -> bool:
    return fit.objective is None


def methods_to_try(fit: Fit, method: str | None, has_teachers: bool) -> list[str | None]:
    """Of a law that tells methods apart: the one that is asked for, or all that were taught."""
    if not fit.methods:
        _refuse_method(fit, method)
        return [None]
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


def _refuse_method(fit: Fit, method: str | None) -> None:
    if method is not None:
        raise InputError(
            f"{fit.law} does not tell methods apart",
            where="method",
            remedy="leave it out, or fit spec_additive to runs of several methods",
        )


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
    if teachers and method == SCRATCH:
        raise InputError(
            "training from scratch has no teacher", where="method", remedy="leave one of them out"
        )
    if teachers:
        named = [_with_tokens(each, tokens_per_param) for each in teachers]
        _check_teachers(fit, named)
        return named, []
    if not knows_teachers or method == SCRATCH:
        _refuse_tokens(tokens_per_param)
        return [None], []
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


def _with_tokens(teacher: TeacherOption, tokens_per_param: float | None) -> TeacherOption:
    """A teacher whose tokens are told by its size."""
    if tokens_per_param is None:
        return teacher
    if teacher.n_tokens is not None or teacher.n_params is None:
        raise InputError(
            "a teacher's tokens are told by its N, or as they are",
            where="teacher_tokens_per_param",
            remedy="give it with the teachers' N and without teacher_n_tokens, or leave it out",
        )
    return replace(teacher, n_tokens=teacher.n_params * tokens_per_param)


def _refuse_tokens(tokens_per_param: float | None) -> None:
    if tokens_per_param is not None:
        raise InputError(
            "the plan has no teacher: the law knows none, and none is named",
            where="teacher_tokens_per_param",
            remedy="name a teacher, or leave it out",
        )


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


def check_pinned(space: Space) -> None:
    """InputError for an N, or a teacher, outside the range of a law that stays inside it."""
    n_column, teacher = space.fit.n_column, space.teacher or TeacherOption()
    if space.n_params is not None and not space.n_params > 0:
        raise InputError(f"{space.n_params:g} cannot be used", where=n_column, remedy="give an N")
    told = teacher.cross_entropy
    asked = {
        n_column: space.n_params,
        f"teacher_{n_column}": teacher.n_params,
        L_T: _quality(space, teacher) if told is None else told,
    }
    for name, value in asked.items() if space.stays_inside else ():
        lo, hi = space.fit.domain.get(name, (0.0, float("inf")))
        if value is not None and not lo <= value <= hi:
            raise InputError(
                f"{value:.4g} is outside the range of the law, {lo:.4g} to {hi:.4g}",
                where=f"{name} of {teacher.name}" if teacher.name and name != n_column else name,
                remedy="add --extrapolate, or take another law",
            )


def _quality(space: Space, teacher: TeacherOption) -> float | None:
    """The cross-entropy of a teacher that is told by its N and tokens, where the law says it."""
    fit = space.fit
    if not fit.form.stages or teacher.n_params is None or teacher.n_tokens is None:
        return None
    return float(fit.predict({fit.n_column: teacher.n_params, D: teacher.n_tokens}))
