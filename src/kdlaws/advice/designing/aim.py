"""What a plan is free to choose, and how that moves with the law: what more runs should narrow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdlaws.advice.designing.learning import deviations, refits
from kdlaws.advice.planning.asked import teacher_options
from kdlaws.advice.planning.certainty import Ends, optimum_slopes, quantities, quantity_names
from kdlaws.advice.planning.costs import Costs, Floats, Scenario
from kdlaws.advice.planning.optimum import follow, free_axes, lowest
from kdlaws.advice.planning.space import Space
from kdlaws.errors import InputError
from kdlaws.laws import Fit
from kdlaws.laws.cost import TWO_N

CHOICES = ("n_params", "ratio")  # what is chosen; all else follows from these and the budget


@dataclass(frozen=True)
class Aim:
    """A plan's quantities, logarithms: ``at [names]``, and ``slopes [names, state]``.

    The state is what is unknown, the law's u or its refits (``learning``). ``choices`` are the
    slopes of what the plan is free to choose ``[choices, state]``.
    """

    names: tuple[str, ...]
    at: Floats
    slopes: Floats

    @property
    def choices(self) -> Floats:
        chosen = [k for k, name in enumerate(self.names) if name in CHOICES]
        return self.slopes[chosen or slice(None)]

    def deviations(self, covariance: Floats) -> Floats:
        """Of the quantities ``[names]``, for a covariance of the state."""
        variance = np.einsum("qi,ij,qj->q", self.slopes, covariance, self.slopes)
        deviations: Floats = np.sqrt(np.maximum(variance, 0.0))
        return deviations


def aim_of(fit: Fit, budget: float, scenario: Scenario, method: str | None) -> Aim | None:
    """Of the plan for ``budget`` FLOPs, its teacher of any size; None where nothing is free.

    That is where all that could be chosen is at an end of its range.
    """
    space = _space(fit, budget, scenario, method)
    z = lowest(space.log_loss, *space.box)
    if z is None or not len(free_axes(z, *space.box)):
        return None
    logs = [name for name in quantity_names(space, z) if not name.endswith("share")]
    drawn = refits(fit)
    slopes = optimum_slopes(space, z, logs) if drawn is None else _spread(space, z, logs, drawn)
    if not np.isfinite(slopes).all():
        return None
    return Aim(tuple(logs), quantities(space, logs)(z[None])[0], slopes)


def _spread(space: Space, z: Floats, names: list[str], u: Floats) -> Floats:
    """Of the optima of refits: their quantities' deviations ``[names, refits]``."""
    at = np.repeat(z[None], len(u), axis=0)
    free = free_axes(z, *space.box)
    optima, _ = follow(lambda points: space.log_losses(points, u), at, *space.box, free)
    return deviations(quantities(space, names)(optima).T)


def _space(fit: Fit, budget: float, scenario: Scenario, method: str | None) -> Space:
    """What ``plan`` searches, for a teacher that is free."""
    costs = Costs(fit.forward_flops or TWO_N, scenario)
    [teacher], _ = teacher_options(fit, costs, method=method)
    return Space(fit, costs, budget, teacher, method)


def parameter_rows(fit: Fit, names: Sequence[str]) -> Floats:
    """Of these parameters: slopes by u of their relative deviations ``[names, unknowns]``."""
    rows = np.zeros((len(names), len(fit.form.unknowns)))
    for row, name in enumerate(names):
        if name not in fit.form.parameters:
            raise InputError(
                f"{fit.law} has no parameter {name}",
                where="about",
                remedy=f"its parameters are {', '.join(fit.form.parameters)}",
            )
        rows[row, fit.form.parameters.index(name)] = 1 / _size(fit, name)
    return rows


def _size(fit: Fit, name: str) -> float:
    """What a deviation of u is relative to: of a scale, whose u is its logarithm, 1."""
    return 1.0 if _is_scale(fit, name) else abs(fit.parameters[name].value) or 1.0


def _is_scale(fit: Fit, name: str) -> bool:
    return any(unknown.name == name and unknown.kind == "scale" for unknown in fit.form.unknowns)


def parameter_width(fit: Fit, name: str) -> float:
    """Of its interval, relative to its size; infinite where it has no two ends."""
    found = fit.parameters[name]
    if found.lo is None or found.hi is None:
        return float(np.inf)
    ends = np.array([found.lo, found.hi])
    return float(np.ptp(np.log(ends) if _is_scale(fit, name) else ends)) / _size(fit, name)


def total_width(ends: Mapping[str, Ends] | None) -> float:
    """Sum over what a plan chooses of squared log widths; infinite where an end is not known."""
    chosen = [pair for name, pair in (ends or {}).items() if name in CHOICES] or [(None, None)]
    widths = [np.inf if lo is None or hi is None else np.log(hi / lo) for lo, hi in chosen]
    return float(np.sum(np.square(widths)))
