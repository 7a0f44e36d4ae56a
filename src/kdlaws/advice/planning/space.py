"""The students that a budget allows: what a search over sizes and teachers moves in.

A point has the logarithm of N, of the teacher's N and tokens, and of the text that is used, where
these are free, in this order. The tokens that the student trains on follow from the budget.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import exp
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdlaws.advice.planning.costs import NO_TEACHER, Costs, Floats, TeacherCost
from kdlaws.errors import InputError
from kdlaws.laws import Fit
from kdlaws.laws.law import L_T, METHOD, SCRATCH, TEACHER_N, D, U
from kdlaws.laws.surface import log_surface, parameter_slopes
from kdlaws.quantities import human

WIDE = (1e-4, 1e6)  # of the smallest and the largest model among the runs: where a search ends
MOST_PASSES = 1e4  # over the text: the least of it that a search may use
FEWEST_TOKENS = 0.1  # of the shortest run: a search goes no further below
REPEATS = 15.387756  # R_D* of Muennighoff et al. 2023, 2305.16264, for laws that know no repeats
WIDEST_TEACHER_TOKENS = (1.0, 1e4)  # per parameter


@dataclass(frozen=True)
class TeacherOption:
    """A teacher to choose, N by the fit's convention; None is not known.

    Without ``n_params`` it is free: any size, trained on ``tokens_per_param``, or on any number of
    tokens where that is None, too. ``forward`` are FLOPs of a token; if None, those of a student as
    large.
    """

    n_params: float | None = None
    n_tokens: float | None = None
    cross_entropy: float | None = None
    tokens_per_param: float | None = None
    forward: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is not None and entry.name != "name" and not value > 0:
                raise InputError(
                    f"{value:g} cannot be used",
                    where=f"{entry.name} of a teacher",
                    remedy="give more than 0",
                )

    @property
    def label(self) -> str:
        """The name, or the size."""
        if self.name or self.n_params is None:
            return self.name or "teacher"
        return f"teacher of {human(self.n_params)}"

    @property
    def is_free(self) -> bool:
        return self.n_params is None and self.cross_entropy is None


@dataclass(frozen=True)
class Models:
    """What each point stands for; arrays ``[points]``, None where there is no teacher."""

    n_params: Floats
    n_tokens: Floats
    n_unique_tokens: Floats
    teacher_n_params: Floats | None
    teacher_n_tokens: Floats | None
    is_allowed: NDArray[np.bool_]
    is_limited: NDArray[np.bool_]  # by the most tokens that are allowed: part of the budget is left


@dataclass(frozen=True)
class Space:
    """Students of one budget (FLOPs) under one fit; ``teacher`` None trains them directly.

    ``n_params`` pins the student's N. With ``stays_inside``, only models in the fit's own range
    are allowed.
    """

    fit: Fit
    costs: Costs
    budget: float
    teacher: TeacherOption | None = None
    method: str | None = None
    n_params: float | None = None
    stays_inside: bool = False

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """The free coordinates."""
        free = ["n_params"] if self.n_params is None else []
        if self.teacher is not None and self.teacher.is_free:
            free.append("teacher_n_params")
            if self.teacher.tokens_per_param is None and self.teacher.n_tokens is None:
                free.append("teacher_n_tokens")
        if self.teacher is not None and self.costs.may_use_less:
            free.append("n_unique_tokens")
        return tuple(free)

    @cached_property
    def box(self) -> tuple[Floats, Floats]:
        """Lower and upper ends of the logarithms ``[axes]``."""
        ends = [np.log(self._ends(axis)) for axis in self.axes]
        lo, hi = np.array(ends, dtype=np.float64).reshape(len(ends), 2).T
        return lo, hi

    def _ends(self, axis: str) -> tuple[float, float]:
        n_column, corpus = self.fit.n_column, self.costs.n_unique_tokens
        if axis == "n_unique_tokens":
            return corpus / MOST_PASSES, corpus
        if axis == "teacher_n_tokens":
            lo, hi = self._ends("teacher_n_params")
            return lo * WIDEST_TEACHER_TOKENS[0], hi * WIDEST_TEACHER_TOKENS[1]
        column = n_column if axis == "n_params" else f"teacher_{n_column}"
        lo, hi = self.fit.domain.get(column) or self.fit.domain[n_column]
        return (lo, hi) if self.stays_inside else (lo * WIDE[0], hi * WIDE[1])

    def at_budget(self, budget: float) -> "Space":
        return replace(self, budget=budget)

    # --- what a point stands for ----------------------------------------------------------------

    def models(self, z: Floats) -> Models:
        """Of points ``[points, axes]``."""
        columns = {axis: np.exp(z[:, k]) for k, axis in enumerate(self.axes)}
        shape = np.ones(len(z))
        n = columns.get("n_params", shape * (self.n_params or np.nan))
        teacher_n, teacher_tokens = self._teacher(columns, shape)
        text = columns.get("n_unique_tokens", shape * self.costs.n_unique_tokens)
        cost = self.teacher_cost(teacher_n, teacher_tokens)
        with np.errstate(invalid="ignore", divide="ignore"):
            tokens = np.broadcast_to(self.costs.tokens(self.budget, n, cost, text), shape.shape)
        lo, hi = self.token_range
        allowed, limited, tokens = tokens >= lo, tokens > hi, np.minimum(tokens, hi)
        unique = np.minimum(tokens, text)
        return Models(n, tokens, unique, teacher_n, teacher_tokens, allowed, limited)

    @cached_property
    def token_range(self) -> tuple[float, float]:
        """The fewest and most tokens of a student: with too few a law is no guide at all."""
        lo, hi = self.fit.domain[D]
        return (lo, hi) if self.stays_inside else (lo * FEWEST_TOKENS, np.inf)

    def _teacher(
        self, columns: Mapping[str, Floats], shape: Floats
    ) -> tuple[Floats | None, Floats | None]:
        teacher = self.teacher
        if teacher is None:
            return None, None
        n = columns.get("teacher_n_params")
        if n is None:
            n = None if teacher.n_params is None else shape * teacher.n_params
        tokens = columns.get("teacher_n_tokens")
        if tokens is None and teacher.n_tokens is not None:
            tokens = shape * teacher.n_tokens
        if tokens is None and teacher.tokens_per_param is not None and n is not None:
            tokens = n * teacher.tokens_per_param
        return n, tokens

    def teacher_cost(self, n: Any, n_tokens: Any) -> TeacherCost:
        """What a teacher of ``n`` costs; InputError where the scenario needs what is not known."""
        if self.teacher is None:
            return NO_TEACHER
        forward: ArrayLike | None = self.teacher.forward
        if (
            forward is None
            and n is None
            and (self.costs.pays_inference or self.costs.pays_training)
        ):
            raise _unknown(f"teacher_{self.fit.n_column}", self.costs.scenario)
        if n_tokens is None and self.costs.pays_training:
            raise _unknown("teacher_n_tokens", self.costs.scenario)
        if forward is None:
            forward = 0.0 if n is None else self.costs.forward(n)
        return TeacherCost(forward, 0.0 if n_tokens is None else n_tokens)

    def columns(self, models: Models) -> dict[str, Any]:
        """What the fit reads of each model; tokens at least 1, so that all have a logarithm."""
        fit, tokens = self.fit, np.maximum(models.n_tokens, 1.0)
        unique = np.maximum(models.n_unique_tokens, 1.0)
        columns: dict[str, Any] = {fit.n_column: models.n_params}
        if U in fit.form.reads:
            columns |= {D: tokens, U: unique}
        else:
            columns[D] = worth(tokens, unique)
        if METHOD in fit.form.optional:
            columns[METHOD] = SCRATCH if self.teacher is None else self.method
        if self.teacher is not None:
            columns |= self._teacher_columns(models)
        return columns

    def _teacher_columns(self, models: Models) -> dict[str, Any]:
        fit, teacher = self.fit, self.teacher
        columns: dict[str, Any] = {}
        assert teacher is not None
        if TEACHER_N in fit.form.optional and models.teacher_n_params is not None:
            columns[f"teacher_{fit.n_column}"] = models.teacher_n_params
        if L_T in fit.form.optional:
            if teacher.cross_entropy is not None:
                columns[L_T] = teacher.cross_entropy
            elif models.teacher_n_params is not None and models.teacher_n_tokens is not None:
                columns[f"teacher_{fit.n_column}"] = models.teacher_n_params
                columns[f"teacher_{D}"] = models.teacher_n_tokens
        return columns

    def spent(self, z: Floats) -> dict[str, float]:
        """FLOPs of one point ``[axes]`` by bucket."""
        models = self.models(z[None])
        teacher = self.teacher_cost(models.teacher_n_params, models.teacher_n_tokens)
        spent = self.costs.spent(models.n_params, models.n_tokens, teacher, models.n_unique_tokens)
        return {name: float(np.ravel(part)[0]) for name, part in spent.items()}

    # --- the surface ----------------------------------------------------------------------------

    def log_loss(self, z: Floats) -> Floats:
        """log cross-entropy of ``[points]``; inf where a model is not allowed."""
        models = self.models(z)
        columns = self.columns(models)
        values = log_surface(self.fit, columns, self.fit.u[None])[0]
        return np.where(models.is_allowed & self._knows_teacher(columns), values, np.inf)

    def cross_entropy(self, z: Floats) -> float:
        """Of one point ``[axes]``, nats per token."""
        return exp(float(self.log_loss(z[None])[0]))

    def log_losses(self, z: Floats, u: Floats) -> Floats:
        """The same ``[fits, points]`` of other parameters ``[fits, unknowns]``, each at its own
        points ``[fits, points, axes]``."""
        models = self.models(z.reshape(-1, z.shape[-1]))
        values = log_surface(self.fit, self.columns(models), u, each_its_own=True)
        return np.where(models.is_allowed.reshape(values.shape), values, np.inf)

    def _knows_teacher(self, columns: Mapping[str, Any]) -> NDArray[np.bool_] | bool:
        """Whether the teacher's cross-entropy is in the range of those among the runs."""
        teacher = {self.fit.n_column: f"teacher_{self.fit.n_column}", D: f"teacher_{D}"}
        limits = self.fit.domain.get(L_T)
        if not self.stays_inside or limits is None or not set(teacher.values()) <= set(columns):
            return True
        alone = {ours: columns[theirs] for ours, theirs in teacher.items()}
        quality = self.fit.predict(alone)
        return np.asarray((quality >= limits[0]) & (quality <= limits[1]))

    def slopes(self, z: Floats) -> Floats:
        """Derivative of log cross-entropy by the law's u ``[points, unknowns]``."""
        return parameter_slopes(self.fit, self.columns(self.models(z)))


def first(values: Floats | None) -> float | None:
    """Of the only point, what ``Models`` holds."""
    return None if values is None else float(np.ravel(values)[0])


def worth(tokens: Floats, unique: Floats) -> Floats:
    """Tokens read once that are worth as much (Muennighoff et al. 2023, 2305.16264, equation 5)."""
    passes = tokens / unique - 1
    fresh: Floats = unique * (1 - REPEATS * np.expm1(-passes / REPEATS))
    return fresh


def _unknown(column: str, scenario: str) -> InputError:
    return InputError(
        f"the scenario {scenario!r} pays for a teacher whose {column} is not known",
        where=column,
        remedy=f"give {column}=..., or scenario=free",
    )
