"""What surrounds the best point of a space: the model there, the valley, other budgets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import exp

import numpy as np

from kdlaws.advice.planning.costs import Floats
from kdlaws.advice.planning.optimum import grid, interior, lowest
from kdlaws.advice.planning.plan_result import Stop, Student, Valley
from kdlaws.advice.planning.space import Space, first
from kdlaws.laws import Fit

DECADES = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # of the budget, along the frontier
SIZES, REACH = 481, np.log(50.0)  # points along N in a valley; how far its other axes are searched
HALVINGS = 7  # of a grid's step, at the end of a valley
WIDEST = 10.0  # of an interval's end over the other: beyond it nothing is known of the loss
OTHERS = {2: 41, 3: 15, 4: 9}  # points on these


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
        n_unique_tokens=float(models.n_unique_tokens[0]),
        method=space.method,
        teacher=_name(space, models.teacher_n_params),
        teacher_n_params=teacher_n["n_params"],
        teacher_n_params_non_embedding=teacher_n["n_params_non_embedding"],
        teacher_n_tokens=first(models.teacher_n_tokens),
        cross_entropy=space.cross_entropy(z),
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


def _by_convention(fit: Fit, n: Floats | None) -> dict[str, float | None]:
    unknown: dict[str, float | None] = {"n_params": None, "n_params_non_embedding": None}
    return unknown | {fit.n_column: first(n)}


def _name(space: Space, teacher_n: Floats | None) -> str | None:
    return (
        None if space.teacher is None else replace(space.teacher, n_params=first(teacher_n)).label
    )


def of_the_run(spent: Mapping[str, float]) -> float:
    """FLOPs of the run alone, as tables count them."""
    return spent["student_training"] + spent["teacher_inference"]


def at_ends(space: Space, z: Floats) -> dict[str, str]:
    """What is at an end of its range, and at which."""
    (lo, hi), ends = space.box, {}
    for k in np.flatnonzero(~interior(z, lo, hi)) if len(z) else ():
        ends[space.axes[k]] = "lower" if z[k] - lo[k] < hi[k] - z[k] else "upper"
    if space.models(z[None]).is_limited[0]:
        ends["n_tokens"] = "upper"
    elif at_fewest_tokens(space, z):
        ends["n_tokens"] = "lower"
    return ends


def corner(space: Space, z: Floats) -> str | None:
    """The same for people."""
    parts = [f"{name} at the {end} end of its range" for name, end in at_ends(space, z).items()]
    if space.models(z[None]).is_limited[0]:
        left = 1 - sum(space.spent(z).values()) / space.budget
        parts[-1] += f" ({left:.0%} of the budget is left)"
    return "; ".join(parts) or None


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
    allowed = space.cross_entropy(z) + tolerance
    ends = [
        exp(_end(space, _bracket(sizes[side], losses[side], float(z[0]), allowed), allowed))
        for side in (np.flatnonzero(sizes < z[0])[::-1], np.flatnonzero(sizes > z[0]))
    ]
    tokens = [_pinned(space, n).n_tokens for n in ends]
    return Valley(tolerance, (ends[0], ends[1]), (min(tokens), max(tokens)))


def _bracket(
    sizes: Floats, losses: Floats, begin: float, allowed: float
) -> tuple[float, float | None]:
    """The last of ``sizes`` within what is allowed, and the first beyond; None at the end."""
    last = begin
    for size, loss in zip(map(float, sizes), map(float, losses), strict=True):
        if not loss <= allowed:
            return last, size
        last = size
    return last, None


def _end(space: Space, bracket: tuple[float, float | None], allowed: float) -> float:
    """Where between two log sizes the best loss is what is allowed; the grid knew it roughly."""
    inner, outer = bracket
    if outer is None:
        return inner
    for _ in range(HALVINGS):
        middle = (inner + outer) / 2
        found = best_of([replace(space, n_params=exp(middle))])
        within = bool(found) and found[0][0].cross_entropy(found[0][1]) <= allowed
        inner, outer = (middle, outer) if within else (inner, middle)
    return inner


def smallest(space: Space, flat: Valley) -> Student:
    """The smallest student of the valley: nearly as good, and cheaper to serve."""
    return _pinned(space, flat.n_params[0])


def _pinned(space: Space, n_params: float) -> Student:
    [found] = best_of([replace(space, n_params=n_params)])
    return student(*found)


def paid_beforehand(space: Space) -> float:
    """FLOPs of the teacher's training and of serving, at the least of all that may be chosen."""
    z = np.atleast_2d(space.box[0])
    models = space.models(z)
    teacher = space.teacher_cost(models.teacher_n_params, models.teacher_n_tokens)
    spent = space.costs.spent(models.n_params, 0.0, teacher)
    return float(np.ravel(spent["teacher_training"] + spent["serving"])[0])


def best_of(spaces: Sequence[Space]) -> list[tuple[Space, Floats]]:
    """The best point of each space that has any, the lowest cross-entropy first."""
    found = [(each, z) for each in spaces if (z := lowest(each.log_loss, *each.box)) is not None]
    return sorted(found, key=lambda pair: pair[0].cross_entropy(pair[1]))


def frontier(spaces: Sequence[Space], direct: Space | None) -> Iterator[Stop]:
    """The best of all teachers and methods at budgets around the one that is asked for."""
    for flops in (spaces[0].budget * 10**decade for decade in DECADES):
        found = best_of([each.at_budget(flops) for each in spaces])
        if found:
            alone = best_of([direct.at_budget(flops)] if direct else [])
            yield _stop(*found[0], student(*alone[0]).cross_entropy if alone else None)


def _stop(space: Space, z: Floats, direct_cross_entropy: float | None) -> Stop:
    models, best = space.models(z[None]), student(space, z)
    return Stop(
        flops=space.budget,
        n_params=float(models.n_params[0]),
        n_tokens=best.n_tokens,
        method=best.method,
        teacher=best.teacher,
        teacher_n_params=first(models.teacher_n_params),
        cross_entropy=best.cross_entropy,
        direct_cross_entropy=direct_cross_entropy,
    )
