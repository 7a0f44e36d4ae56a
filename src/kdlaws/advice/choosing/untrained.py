"""Models that were not trained: their cross-entropy by a law, their costs by those near them.

Latency, memory, size, FLOPs and the other parameter count lie on straight lines, in logarithms of
value and N, between the students that were measured. Teachers are no points of these lines: they
may have another shape, and weights of another precision.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from kdlaws.advice.choosing.candidates import COSTS, Floats, Row, rows_of
from kdlaws.errors import InputError, TableError
from kdlaws.laws import Fit, Mixture, Notice, predict
from kdlaws.laws.columns import N_COLUMNS
from kdlaws.laws.law import L_T, METHOD, SCRATCH, TEACHER_N, C, D, N, U, column_of
from kdlaws.laws.result import BEYOND
from kdlaws.quantities import human

if TYPE_CHECKING:
    from pandas import DataFrame, Series

N_SIZES = 40  # predicted between half the smallest student and twice the largest ...
NEAR = 0.05  # ... unless as near as this share to a measured one, which is predicted, too
_FILLED = frozenset({N, D, U, METHOD, L_T, TEACHER_N})  # what a recommendation can give a law


@dataclass(frozen=True)
class Recipe:
    """How predicted models are trained; None is a method that is not known, or no teacher.

    ``teacher_flops_per_token`` is NaN where it is not known whether there is one.
    """

    method: str | None
    teacher: str | None
    teacher_columns: Mapping[str, float]
    teacher_flops_per_token: float


def predicted(
    models: "DataFrame", fit: Fit | Mixture, method: str | None, max_flops: float | None
) -> tuple[list[Row], list[Notice]]:
    """What the fit says of students of other sizes, by each method that it knows.

    They train on the most tokens among the fit's runs, or on those that ``max_flops`` buys. Raises
    InputError where the law does not read N and ``n_tokens``, TableError where no student has its N
    or where it needs a teacher and the table has none.
    """
    _check_reads(fit)
    students = models[models["role"] != "teacher"]
    n, of_n = _sizes(students, fit.n_column), students[fit.n_column]
    known = {name: interpolated(n, of_n, students[name]) for name in (*COSTS, *N_COLUMNS)}
    known[fit.n_column] = n
    recipes, notices = _recipes(models, fit, method)
    rows = []
    for recipe in recipes:
        flops_per_token = _flops_per_token(students, fit.n_column, recipe, n)
        tokens = _tokens(fit, flops_per_token, max_flops)
        flops = flops_per_token * tokens
        columns = _columns(fit, recipe, n, tokens, flops)
        of_law = _of_law(fit, columns)
        notices += _carried(fit, columns, int(np.argmax(of_law["cross_entropy"])))
        rows += rows_of(_frame(fit, recipe, columns, of_n, {**known, **of_law, "flops": flops}))
    return rows, list(dict.fromkeys(notices))


def parts_of(fit: Fit | Mixture) -> tuple[Fit, ...]:
    """The fit itself, or those that are combined."""
    return fit.fits if isinstance(fit, Mixture) else (fit,)


def methods_of(fit: Fit | Mixture) -> tuple[str, ...]:
    """The methods that a joint law tells apart; of any other, none."""
    return tuple(sorted({method for part in parts_of(fit) for method in part.methods}))


def _check_reads(fit: Fit | Mixture) -> None:
    for part in parts_of(fit):
        if not {N, D} <= set(part.form.reads) <= _FILLED:
            raise InputError(
                f"{part.law} reads {', '.join(part.form.reads)}, so it does not predict a model "
                "from its N and n_tokens",
                where="fit",
                remedy="give a fit of chinchilla, spec or another law that does",
            )


# --- sizes and costs ----------------------------------------------------------------------------


def _sizes(students: "DataFrame", n_column: str) -> Floats:
    """The measured ones, and even steps of the logarithm where none of these is near."""
    measured = _apart(students[n_column].dropna().unique().astype(np.float64))
    if not len(measured):
        raise TableError(
            f"the fit reads {n_column}, and no student has it",
            where=n_column,
            remedy="give the table that was fitted",
        )
    even = np.round(np.geomspace(measured.min() / 2, measured.max() * 2, N_SIZES))
    distance = np.abs(np.log(even[:, None] / measured)).min(axis=1)
    sizes: Floats = np.sort(np.concatenate([even[distance > NEAR], measured]))
    return sizes


def _apart(sizes: Floats) -> Floats:
    """Ascending, without those as near as ``NEAR`` to a smaller one."""
    kept: list[float] = []
    for size in np.sort(sizes):
        if not kept or np.log(size / kept[-1]) > NEAR:
            kept.append(float(size))
    return np.array(kept)


def interpolated(n: ArrayLike, of_n: "Series[float]", values: "Series[float]") -> Floats:
    """``values`` at ``n [sizes]``: lines in logarithms through the median at each measured N.

    The outer lines go on beyond the measured N; one N alone says nothing of another.
    """
    n = np.asarray(n, dtype=np.float64)
    is_known = (of_n > 0) & (values > 0)
    points = values[is_known].groupby(of_n[is_known]).median()
    if len(points) < 2:
        return np.asarray(points.reindex(n), dtype=np.float64)
    at, height = np.log(points.index.to_numpy(np.float64)), np.log(points.to_numpy(np.float64))
    line = np.clip(np.searchsorted(at, np.log(n)) - 1, 0, len(at) - 2)
    slope = np.diff(height) / np.diff(at)
    lines: Floats = np.exp(height[line] + slope[line] * (np.log(n) - at[line]))
    return lines


def _flops_per_token(students: "DataFrame", n_column: str, recipe: Recipe, n: Floats) -> Floats:
    """Of training: the student's, as its method's runs have them, and its teacher's."""
    is_of_method = students["method"].isin([recipe.method])
    runs = students[is_of_method] if is_of_method.any() else students
    own = interpolated(n, runs[n_column], runs["student_flops"] / runs[D])
    return own + recipe.teacher_flops_per_token


def _tokens(fit: Fit | Mixture, flops_per_token: Floats, max_flops: float | None) -> Floats:
    """Those of the fit's longest runs, or what the budget buys, where its price is known."""
    most = np.full_like(flops_per_token, parts_of(fit)[0].domain[D][1])
    if max_flops is None:
        return most
    bought = np.maximum(np.floor(max_flops / flops_per_token), 1.0)
    return np.where(np.isnan(bought), most, bought)


# --- recipes ------------------------------------------------------------------------------------


def _recipes(
    models: "DataFrame", fit: Fit | Mixture, method: str | None
) -> tuple[list[Recipe], list[Notice]]:
    own = methods_of(fit) or _said_by(fit)
    table = sorted(models.loc[models["role"] != "teacher", "method"].dropna().unique())
    wanted = [each for each in own or _labels(fit, method, table) if method in (None, each)]
    notices = []
    if not wanted:
        what = f"the fit says nothing of method {method}"
        notices.append(Notice("method_not_in_fit", what, f"fit runs of {method}, too"))
    if not own and not _reads_teacher(fit) and len(table) > 1:
        notices.append(_of_unknown_method(method))
    return [_recipe(models, fit, each) for each in wanted], notices


def _said_by(fit: Fit | Mixture) -> list[str]:
    """The method of the runs behind a law that tells none apart, where they had only one."""
    told = {str(part.inputs.get("method") or "") for part in parts_of(fit)} - {""}
    return sorted(told) if len(told) == 1 and not _reads_teacher(fit) else []


def _of_unknown_method(method: str | None) -> Notice:
    what = "the fit does not say which method its runs had"
    if method is None:
        what += ", so neither do its rows, nor what training costs"
        return Notice("fit_method_unknown", what, "give method=, that of the fit's runs")
    what += f"; its rows are taken to be of {method}"
    return Notice("fit_method_unknown", what, "check that the fit is of this method")


def _labels(fit: Fit | Mixture, method: str | None, table: Sequence[str]) -> list[str | None]:
    """The methods of a law that tells none apart: as asked for, else the table's only one."""
    if not _reads_teacher(fit):
        return [method or _only(table)]
    taught = _only([each for each in table if each != SCRATCH])
    if method not in (None, SCRATCH):
        taught = method
    needs_one = any({L_T, TEACHER_N} & set(part.form.reads) for part in parts_of(fit))
    return [taught] if needs_one else [SCRATCH, taught]


def _only(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def _reads_teacher(fit: Fit | Mixture) -> bool:
    forms = [part.form for part in parts_of(fit)]
    return any({L_T, TEACHER_N} & {*form.reads, *form.optional} for form in forms)


def _recipe(models: "DataFrame", fit: Fit | Mixture, method: str | None) -> Recipe:
    """With the teacher of most students, unless there is none."""
    students = models[models["role"] != "teacher"]
    teachers = students["teacher"].value_counts()
    if method == SCRATCH or (teachers.empty and not _reads_teacher(fit)):
        return Recipe(method, None, {}, 0.0)
    if teachers.empty:
        raise TableError(
            "the fit reads a teacher, and no student of the table has one",
            where="teacher",
            remedy=f"give method={SCRATCH}, or a table of distilled runs",
        )
    if method is None and not _reads_teacher(fit):
        return Recipe(None, None, {}, math.nan)
    return _taught(models, students, fit.n_column, method, str(teachers.index[0]))


def _taught(
    models: "DataFrame", students: "DataFrame", n_column: str, method: str | None, teacher: str
) -> Recipe:
    """What its students' rows say of a teacher, else its own; of its reading, the other way."""
    rows, own = students[students["teacher"] == teacher], models[models["run_id"] == teacher]
    reading = rows["teacher_inference_flops"] / rows[U].fillna(rows[D])
    columns = {
        column_of(TEACHER_N, n_column): _first(rows[f"teacher_{n_column}"], own[n_column]),
        L_T: _first(rows[L_T], own["cross_entropy"]),
    }
    known = {name: value for name, value in columns.items() if not math.isnan(value)}
    # What is read online is read again at each epoch: the least is of one reading.
    flops = _first(own["forward_flops_per_token"], [reading.min()])
    return Recipe(method, teacher, known, flops)


def _first(*columns: Iterable[float]) -> float:
    """The first value that is known."""
    return next((float(v) for column in columns for v in column if not math.isnan(v)), math.nan)


# --- what the law says --------------------------------------------------------------------------


def _columns(
    fit: Fit | Mixture, recipe: Recipe, n: Floats, tokens: Floats, flops: Floats
) -> dict[str, Any]:
    """All that a law may read; tokens are distinct as far as the text of the fit's runs goes.

    FLOPs are given where they are known and the fit cannot tell them from N and ``n_tokens``.
    """
    columns: dict[str, Any] = {fit.n_column: n, D: tokens, **recipe.teacher_columns}
    if recipe.method is not None:
        columns[METHOD] = recipe.method
    if not _counts_6nd(fit) and np.isfinite(flops).all():
        columns[C] = flops
    unique = [part.domain[U][1] for part in parts_of(fit) if U in part.domain]
    return {**columns, U: np.minimum(tokens, min(unique))} if unique else columns


def _counts_6nd(fit: Fit | Mixture) -> bool:
    """Whether the FLOPs of the fit's runs were a multiple of 6 N D."""
    return all(part.new_run and part.new_run.flops_per_6nd for part in parts_of(fit))


def _is_beyond(fit: Fit | Mixture, model: Mapping[str, Any]) -> bool:
    """Outside the fit's runs. Of FLOPs that were counted otherwise, 6 N D says nothing."""
    comparable = C in model or _counts_6nd(fit)
    return bool(fit.beyond(model).keys() - ({C} if not comparable else set()))


def _of_law(fit: Fit | Mixture, columns: Mapping[str, Any]) -> dict[str, Floats]:
    curve, new_run = fit.band(columns), fit.new_runs(columns)
    return {
        "cross_entropy": fit.predict(columns),
        **dict(zip(("lo", "hi"), curve, strict=True)),
        **dict(zip(("new_run_lo", "new_run_hi"), new_run, strict=True)),
    }


def _one(columns: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The columns of one model."""
    return {k: v[index] if isinstance(v, np.ndarray) else v for k, v in columns.items()}


def _carried(fit: Fit | Mixture, columns: Mapping[str, Any], worst: int) -> list[Notice]:
    """What the fit warns of that concerns predictions. InputError where the worst is nonsense."""
    found = predict(fit, _one(columns, worst)).warnings
    return [notice for notice in found if notice.code != "extrapolates"]


def _frame(
    fit: Fit | Mixture,
    recipe: Recipe,
    columns: Mapping[str, Any],
    of_n: "Series[float]",
    known: Mapping[str, Floats],
) -> "DataFrame":
    import pandas as pd

    n = columns[fit.n_column]
    is_outside = (n > of_n.max() * BEYOND) | (n < of_n.min() / BEYOND)
    is_outside |= [_is_beyond(fit, _one(columns, index)) for index in range(len(n))]
    return pd.DataFrame(known).assign(
        kind=np.where(is_outside, "extrapolated", "predicted"),
        name=[f"predicted N={human(each)}" for each in n],
        role="student",
        method=recipe.method,
        teacher=recipe.teacher,
        n_tokens=columns[D],
        perplexity=np.exp(known["cross_entropy"]),
    )
