"""How sure a plan is: how far its optimum moves with the law's parameters."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kdlaws.advice.planning.costs import Floats
from kdlaws.advice.planning.optimum import STEP, along, follow, free_axes, grid, interior, movement
from kdlaws.advice.planning.space import Space
from kdlaws.laws.surface import samples
from kdlaws.laws.uncertainty import Linear, student

Ends = tuple[float | None, float | None]

WIDEST = np.log(1e6)  # a half-width beyond which an end is not known
MOST = 400  # refits that a plan follows
SETTLED = 0.98  # of them must have an optimum: otherwise the tails are not known


def plan_interval(space: Space, z: Floats) -> dict[str, Ends] | None:
    """Intervals at the fit's level of what the plan is free to choose, by name; None without any.

    By the law's linearised optimum and Student's t, or by the optimum of each refit. What is at an
    end of its range has none; an end that lies outside the search is None.
    """
    free = free_axes(z, *space.box)
    uncertainty = space.fit.uncertainty
    if not len(free) or uncertainty is None or not _is_smooth(space, z, free):
        return None
    names = quantity_names(space, z)
    if isinstance(uncertainty, Linear):
        ends = _linear(space, z, free, uncertainty)
    else:
        ends = _resampled(space, z, free)
    limits = {axis: (lo, hi) for axis, lo, hi in zip(space.axes, *space.box, strict=True)}
    return {
        name: _plain(name, *pair, limits.get(name, (-np.inf, np.inf)))
        for name, pair in zip(names, ends, strict=True)
    }


def _is_smooth(space: Space, z: Floats, free: NDArray[np.int64]) -> bool:
    """Whether no end of a range is near, unless it is reached: there no slope need be zero."""
    if (interior(z, *space.box) != np.isin(np.arange(len(z)), free)).any():
        return False
    reach = grid([np.array([-1.0, 0.0, 1.0])] * len(z)) * 3 * STEP
    models = space.models(z + reach)
    return bool((models.is_allowed & ~models.is_limited).all())


def quantity_names(space: Space, z: Floats) -> list[str]:
    """What is free, and what follows from it."""
    inside = [
        name for name, is_in in zip(space.axes, interior(z, *space.box), strict=True) if is_in
    ]
    names = [name for name in inside if name == "n_params"]
    names += ["n_tokens"]
    names += [name for name in inside if name != "n_params"]
    if "teacher_n_params" in inside:
        names.append("ratio")
    if space.teacher is not None and space.costs.pays_inference:
        names.append("teacher_inference_share")
    return names


def quantities(space: Space, names: list[str]) -> Callable[[Floats], Floats]:
    """Of points ``[points, axes]``: logarithms, and log odds of a share ``[points, names]``."""

    def of(z: Floats) -> Floats:
        models = space.models(z)
        teacher = space.teacher_cost(models.teacher_n_params, models.teacher_n_tokens)
        known = {
            "n_params": np.log(models.n_params),
            "n_tokens": np.log(np.maximum(models.n_tokens, 1e-300)),
            "n_unique_tokens": np.log(np.maximum(models.n_unique_tokens, 1e-300)),
        }
        if models.teacher_n_params is not None:
            known["teacher_n_params"] = np.log(models.teacher_n_params)
            known["ratio"] = known["teacher_n_params"] - known["n_params"]
        if models.teacher_n_tokens is not None:
            known["teacher_n_tokens"] = np.log(models.teacher_n_tokens)
        if "teacher_inference_share" in names:
            unique = models.n_unique_tokens
            spent = space.costs.spent(models.n_params, models.n_tokens, teacher, unique)
            others = sum(part for name, part in spent.items() if name != "teacher_inference")
            known["teacher_inference_share"] = np.log(spent["teacher_inference"]) - np.log(others)
        return np.stack([known[name] for name in names], axis=-1)

    return of


def optimum_slopes(space: Space, z: Floats, names: list[str]) -> Floats:
    """Derivative of the plan's quantities by the law's u ``[names, unknowns]``."""
    free = free_axes(z, *space.box)
    moved = movement(space.log_loss, space.slopes, z, free)
    by_axis = along(quantities(space, names), z, free)
    result: Floats = by_axis.T @ moved[free]
    return result


def _linear(
    space: Space, z: Floats, free: NDArray[np.int64], uncertainty: Linear
) -> list[tuple[float, float]]:
    names = quantity_names(space, z)
    slopes = optimum_slopes(space, z, names)
    half = student(uncertainty.degrees(slopes), space.fit.level) * uncertainty.deviation(slopes)
    at = quantities(space, names)(z[None])[0]
    return [(float(a - h), float(a + h)) for a, h in zip(at, half, strict=True)]


def _resampled(space: Space, z: Floats, free: NDArray[np.int64]) -> list[tuple[float, float]]:
    """Percentiles over the refits' optima, widened to hold the fit's own."""
    names, drawn = quantity_names(space, z), samples(space.fit)
    assert drawn is not None
    u = drawn[:MOST]
    begin = np.repeat(z[None], len(u), axis=0)
    at, settled = follow(lambda points: space.log_losses(points, u), begin, *space.box, free)
    if np.mean(settled) < SETTLED:
        return [(-np.inf, np.inf)] * len(names)
    values, own = quantities(space, names)(at[settled]), quantities(space, names)(z[None])[0]
    tail = (1 - space.fit.level) / 2
    lo, hi = np.quantile(values, [tail, 1 - tail], axis=0)
    return list(zip(np.minimum(lo, own).tolist(), np.maximum(hi, own).tolist(), strict=True))


def _plain(name: str, lo: float, hi: float, limits: tuple[float, float]) -> Ends:
    """Of logarithms, or of log odds of a share; None for an end at the end of the search."""
    if not hi - lo < 2 * WIDEST:
        return None, None
    if name == "teacher_inference_share":
        return float(1 / (1 + np.exp(-lo))), float(1 / (1 + np.exp(-hi)))
    is_lo, is_hi = lo > limits[0] + 4 * STEP, hi < limits[1] - 4 * STEP
    return float(np.exp(lo)) if is_lo else None, float(np.exp(hi)) if is_hi else None
