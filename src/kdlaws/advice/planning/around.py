"""What surrounds the best point of a space: the model there, the valley, other budgets."""

from collections.abc import Mapping
from dataclasses import replace
from math import exp

import numpy as np

from kdlaws.advice.planning.costs import Floats
from kdlaws.advice.planning.optimum import grid, interior, lowest
from kdlaws.advice.planning.plan_result import Stop, Student, Valley
from kdlaws.advice.planning.space import Space
from kdlaws.laws import Fit
from kdlaws.quantities import human

DECADES = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # of the budget, along the frontier
SIZES, REACH = 481, np.log(50.0)  # points along N in a valley; how far its other axes are searched
WIDEST = 10.0  # of an interval's end over the other: beyond it nothing is known of the loss
OTHERS = {2: 41, 3: 15}  # points on these


def student(space: Space, z: Floats) -> Student:
    """The model at a point of the space."""
    models, fit = space.models(z[None]), space.fit
    columns = scalars(space, z)
    lo, hi = (float(np.reshape(end, ())) for end in fit.band(columns))
    known = hi < WIDEST * lo  # not so if NaN
    n, teacher_n = (
        _by_convention(fit, models.n_params),
        _by_convention(fit, models.teacher_n_params),
    )
    return Student(
        n_params=n["n_params"],
        n_params_non_embedding=n["n_params_non_embedding"],
        n_tokens=float(models.n_tokens[0]),
        method=space.method,
        teacher=_name(space, models.teacher_n_params),
        teacher_n_params=teacher_n["n_params"],
        teacher_n_params_non_embedding=teacher_n["n_params_non_embedding"],
        teacher_n_tokens=first(models.teacher_n_tokens),
        cross_entropy=exp(float(space.log_loss(z[None])[0])),
        lo=lo if known else None,
        hi=hi if known else None,
    )


def scalars(space: Space, z: Floats) -> dict[str, float | str]:
    """The fit's columns of one point, as scalars."""
    columns = space.columns(space.models(z[None]))
    return {
        name: value if isinstance(value, str) else float(np.ravel(value)[0])
        for name, value in columns.items()
    }


def first(values: Floats | None) -> float | None:
    return None if values is None else float(np.ravel(values)[0])


def _by_convention(fit: Fit, n: Floats | None) -> dict[str, float | None]:
    unknown: dict[str, float | None] = {"n_params": None, "n_params_non_embedding": None}
    return unknown | {fit.n_column: first(n)}


def _name(space: Space, teacher_n: Floats | None) -> str | None:
    if space.teacher is None:
        return None
    n = first(teacher_n)
    return space.teacher.name or ("teacher" if n is None else f"teacher of {human(n)}")


def of_the_run(spent: Mapping[str, float]) -> float:
    """FLOPs of the run alone, as tables count them."""
    return spent["student_training"] + spent["teacher_inference"]


def corner(space: Space, z: Floats) -> str | None:
    """What is at an end of its range."""
    lo, hi = space.box
    ends = []
    for k in np.flatnonzero(~interior(z, lo, hi)) if len(z) else ():
        end = "lower" if z[k] - lo[k] < hi[k] - z[k] else "upper"
        ends.append(f"{space.axes[k]} at the {end} end of its range")
    models = space.models(z[None])
    if at_fewest_tokens(space, z):
        ends.append("n_tokens at the lower end of its range")
    if models.is_limited[0]:
        left = 1 - sum(space.spent(z).values()) / space.budget
        ends.append(f"n_tokens at the upper end of its range ({left:.0%} of the budget is left)")
    return "; ".join(ends) or None


def at_fewest_tokens(space: Space, z: Floats) -> bool:
    """Whether a student would be larger still, if it could do with fewer tokens."""
    fewest = space.token_range[0]
    return bool(space.axes) and bool(space.models(z[None]).n_tokens[0] < fewest * (1 + 1e-4))


def valley(space: Space, z: Floats, tolerance: float) -> Valley | None:
    """Along N, the teacher chosen anew at each; None where N is pinned."""
    if not space.axes or space.axes[0] != "n_params":
        return None
    lo, hi = space.box
    sizes = np.linspace(lo[0], hi[0], SIZES)
    others = [
        np.linspace(max(lo[k], z[k] - REACH), min(hi[k], z[k] + REACH), OTHERS[len(z)])
        for k in range(1, len(z))
    ]
    losses = np.exp(space.log_loss(grid([sizes, *others]))).reshape(SIZES, -1).min(axis=1)
    least = exp(float(space.log_loss(z[None])[0]))
    ends = [
        exp(_reach(sizes[side], losses[side], (float(z[0]), least), least + tolerance))
        for side in (np.flatnonzero(sizes < z[0])[::-1], np.flatnonzero(sizes > z[0]))
    ]
    tokens = [_pinned(space, n).n_tokens for n in ends]
    return Valley(tolerance, (ends[0], ends[1]), (min(tokens), max(tokens)))


def _reach(sizes: Floats, losses: Floats, begin: tuple[float, float], allowed: float) -> float:
    """How far along ``sizes`` the loss stays within what is allowed; ``begin`` is (size, loss)."""
    last, last_loss = begin
    for size, loss in zip(map(float, sizes), map(float, losses), strict=True):
        if not loss <= allowed:
            share = (allowed - last_loss) / (loss - last_loss)  # 0 where no model is allowed
            return last + share * (size - last)
        last, last_loss = size, loss
    return last


def smallest(space: Space, flat: Valley) -> Student:
    """The smallest student of the valley: nearly as good, and cheaper to serve."""
    return _pinned(space, flat.n_params[0])


def _pinned(space: Space, n_params: float) -> Student:
    pinned = replace(space, n_params=n_params)
    at = lowest(pinned.log_loss, *pinned.box)
    assert at is not None
    return student(pinned, at)


def frontier(space: Space, direct: Space | None) -> list[Stop]:
    stops = []
    for decade in DECADES:
        there = space.at_budget(space.budget * 10**decade)
        z = lowest(there.log_loss, *there.box)
        if z is None:
            continue
        models = there.models(z[None])
        stops.append(
            Stop(
                flops=there.budget,
                n_params=float(models.n_params[0]),
                n_tokens=float(models.n_tokens[0]),
                teacher_n_params=first(models.teacher_n_params),
                cross_entropy=exp(float(there.log_loss(z[None])[0])),
                direct_cross_entropy=_best_loss(direct and direct.at_budget(there.budget)),
            )
        )
    return stops


def _best_loss(space: Space | None) -> float | None:
    z = None if space is None else lowest(space.log_loss, *space.box)
    return None if space is None or z is None else exp(float(space.log_loss(z[None])[0]))
