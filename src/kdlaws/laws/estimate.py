"""One law fitted to one set of runs: the optimum over all starts, stage by stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdlaws.errors import TableError
from kdlaws.laws.columns import Runs
from kdlaws.laws.coordinates import Coordinates, coordinates, log_curve
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.law import L_T, Law
from kdlaws.laws.mixed import Variances, variances
from kdlaws.laws.solve import DELTA, GRADIENT_TOLERANCE, Problem, Solution, minimise
from kdlaws.laws.whiten import Whitening

Loss = Literal["huber", "squares"]
Fixed = Mapping[str, float | str]

AGREEMENT = 1e-6  # relative difference of objectives that counts as the same optimum
EFFICIENT = 1.345  # Huber's delta in standard deviations: 95 % efficient for normal noise
SMALLEST = 1e-7  # delta of runs that obey the law exactly
WILD = 4  # standard deviations that normal noise hardly ever reaches
ROUNDS = 8  # of fitting and estimating the variances
SETTLED = 1e-3  # relative change of their ratio that ends the rounds


@dataclass(frozen=True)
class Stage:
    """The fits from every start of one stage, to its ``rows``."""

    runs: Runs
    rows: NDArray[np.bool_]
    fixed: Fixed
    problem: Problem
    starts: FloatArray  # [starts, free]
    solution: Solution
    variances: Variances | None

    @property
    def best(self) -> int:
        return int(self.solution.objective.argmin())

    @property
    def v(self) -> FloatArray:
        """The optimum ``[free]``."""
        v: FloatArray = self.solution.v[self.best]
        return v

    @property
    def coordinates(self) -> Coordinates:
        return self.problem.coordinates

    def linearise(self) -> tuple[FloatArray, FloatArray]:
        """At the optimum: residuals of log L ``[runs]``, its derivatives ``[free, runs]``."""
        value, jacobian = self.coordinates.linearise(self.v[None], self.runs.x)
        return value[0] - self.runs.log_y, jacobian[0]


@dataclass(frozen=True)
class Estimate:
    """The fitted stages of ``law``; ``u [unknowns]`` is where they ended."""

    law: Law
    fixed: Fixed
    runs: Runs
    stages: tuple[Stage, ...]

    @property
    def u(self) -> FloatArray:
        last = self.stages[-1]
        return last.coordinates.parameters(last.v)

    @property
    def objective(self) -> float:
        return float(sum(s.solution.objective[s.best] for s in self.stages))

    @property
    def converged(self) -> bool:
        return all(s.solution.gradient[s.best] <= GRADIENT_TOLERANCE for s in self.stages)

    @property
    def starts_agree(self) -> float:
        """Share of starts that reached the best objective, in the stage where fewest did."""
        return min(_agreement(stage) for stage in self.stages)

    @property
    def n_free(self) -> int:
        return sum(len(stage.v) for stage in self.stages)

    def residual(self) -> FloatArray:
        """log of predicted over measured, ``[runs]``, of the fitted runs in their order."""
        return self.log_prediction(self.runs) - self.runs.log_y

    def log_prediction(self, runs: Runs) -> FloatArray:
        """log L ``[runs]`` at the optimum."""
        curve: FloatArray = self.log_curve(self.u[None], runs)[0]
        return curve

    def log_curve(self, u: FloatArray, runs: Runs) -> FloatArray:
        """log L ``[fits, runs]`` of parameters ``[fits, unknowns]``."""
        return log_curve(self.law, u, runs.x)


def _agreement(stage: Stage) -> float:
    objective = stage.solution.objective
    # Exact fits end at rounding errors: below this all objectives are the same.
    rounding = 1e-8 * DELTA**2 * len(stage.runs)
    return float(np.mean(objective <= objective.min() * (1 + AGREEMENT) + rounding))


def estimate(
    law: Law,
    runs: Runs,
    fixed: Fixed,
    loss: Loss,
    delta: float = DELTA,
    begin: FloatArray | None = None,
) -> Estimate:
    """Fit from every start of the law, with trunk effects where runs share trunks.

    ``fixed`` are all pins and ties, the law's own (``law.fixed``) among them; ``begin`` is the only
    start instead, u of a fit to nearly the same runs.
    """
    stages: list[Stage] = []
    for rows, pins in _stages(law, runs, fixed):
        fitted = free_values(stages[-1].coordinates, stages[-1].v) if stages else {}
        before = {name: float(value) for name, value in fitted.items()}
        held = {**pins, **before, **fixed}
        stages.append(_fit_stage(law, runs[rows], rows, held, loss, delta, begin))
    return Estimate(law, fixed, runs, tuple(stages))


def _stages(
    law: Law, runs: Runs, fixed: Fixed
) -> list[tuple[NDArray[np.bool_], dict[str, float | str]]]:
    """Which runs each stage is fitted to, and what it holds at an arbitrary value."""
    every = np.ones(len(runs), dtype=bool)
    if not law.stages:
        return [(every, {})]
    first, second = law.stages
    taught = np.isfinite(runs.x[L_T])
    later: dict[str, float | str] = dict.fromkeys(second, 1.0)
    plan: list[tuple[NDArray[np.bool_], dict[str, float | str]]] = []
    if set(first) - set(fixed):
        _check_stage(law, ~taught, "without a teacher", len(set(first) - set(fixed)))
        plan.append((~taught, later))
    _check_stage(law, taught, f"with {L_T}", len(set(second) - set(fixed)))
    plan.append((taught, {}))
    return plan


def _check_stage(law: Law, rows: NDArray[np.bool_], what: str, n_free: int) -> None:
    if rows.sum() <= n_free:
        raise TableError(
            f"{rows.sum()} runs {what} cannot determine {n_free} parameters",
            where=f"law {law.name}",
            remedy="add such runs, or pin the parameters that a fit of other runs gave",
        )


def free_values(at: Coordinates, v: FloatArray) -> dict[str, FloatArray]:
    """By name, the values ``[...]`` of the free parameters at v ``[..., free]``."""
    u = at.parameters(v)
    return {at.law.parameters[k]: plain_value(at.law, k, u[..., k]) for k in at.free}


def plain_value(law: Law, k: int, u: FloatArray) -> FloatArray:
    """The values of parameter ``k`` for its coordinates u."""
    values: FloatArray = np.exp(u) if law.unknowns[k].kind == "scale" else u
    return values


def _fit_stage(
    law: Law,
    runs: Runs,
    rows: NDArray[np.bool_],
    fixed: Fixed,
    loss: Loss,
    delta: float,
    begin: FloatArray | None,
) -> Stage:
    at = coordinates(law, runs.x, float(np.median(runs.cross_entropy)), fixed)
    if begin is None:
        starts = np.unique(law.starts(runs.x, runs.cross_entropy)[:, at.free], axis=0)
    else:
        starts = at.of(begin[None])
    if runs.share_trunks:
        return _fit_trunks(at, runs, rows, fixed, starts, loss)
    problem = Problem(at, runs.x, runs.log_y, delta if loss == "huber" else np.inf)
    return Stage(runs, rows, fixed, problem, starts, minimise(problem, None, starts), None)


def robust_deviation(residual: FloatArray, n_free: int) -> float:
    """Of normal noise, by the median: a fit passes close to as many runs as it has parameters."""
    return 1.4826 * float(np.median(np.sort(np.abs(residual))[n_free:]))


def _tamed(residual: FloatArray, n_free: int) -> FloatArray:
    """Wild runs brought to where normal noise ends: they say nothing of the others' variance."""
    furthest = max(WILD * robust_deviation(residual, n_free), SMALLEST)
    return np.clip(residual, -furthest, furthest)


def _fit_trunks(
    at: Coordinates,
    runs: Runs,
    rows: NDArray[np.bool_],
    fixed: Fixed,
    starts: FloatArray,
    loss: Loss,
) -> Stage:
    """Alternate the law, given the ratio of the variances, and the variances, given the law."""
    ratio, begin = 1.0, starts
    delta = DELTA if loss == "huber" else np.inf
    for _ in range(ROUNDS):
        problem = Problem(at, runs.x, runs.log_y, delta, Whitening(runs.cluster, ratio))
        stage = Stage(runs, rows, fixed, problem, begin, minimise(problem, None, begin), None)
        begin = stage.v[None]
        residual, jacobian = stage.linearise()
        tame = residual if loss == "squares" else _tamed(residual, len(jacobian))
        found = variances(tame, jacobian, runs.cluster)
        if loss == "huber":
            delta = max(EFFICIENT * float(np.sqrt(found.run)), SMALLEST)
        if abs(found.ratio - ratio) <= SETTLED * (1 + ratio):
            break
        ratio = found.ratio
    problem = Problem(at, runs.x, runs.log_y, delta, Whitening(runs.cluster, found.ratio))
    return Stage(runs, rows, fixed, problem, starts, minimise(problem, None, starts), found)
