"""What a law's own pins do: other values tried, and nested parameters freed."""

from collections.abc import Iterator

import numpy as np

from kdlaws.laws.dual import FloatArray
from kdlaws.laws.estimate import Estimate, Fixed, Loss, estimate, plain_value
from kdlaws.laws.law import RATIO, TEACHER_N
from kdlaws.laws.profile import profile
from kdlaws.laws.repeats import huber_delta
from kdlaws.laws.result import Notice, interval_text
from kdlaws.laws.uncertainty import linear


def pin_notices(fitted: Estimate, loss: Loss, level: float) -> Iterator[Notice]:
    """One notice for each of the law's own pins that the caller left as it is."""
    law = fitted.law
    for name, values in law.tried.items():
        if fitted.fixed.get(name) == law.fixed[name]:
            yield _tried(fitted, name, values, loss)
    for name in law.nested:
        if fitted.fixed.get(name) == law.fixed[name]:
            yield _freed(fitted, name, loss, level)


def _tried(fitted: Estimate, name: str, values: tuple[float, ...], loss: Loss) -> Notice:
    """How far the teacher's parameters move with the pin."""
    law = fitted.law
    others = [_refitted(fitted, {**fitted.fixed, name: value}, loss).u for value in values]
    moved = ", ".join(
        f"{law.parameters[k]} is {_moved(plain_value(law, k, np.array([u[k] for u in others])))}"
        for k, unknown in enumerate(law.unknowns)
        if unknown.column in (TEACHER_N, RATIO) and unknown.name not in fitted.fixed
    )
    tried = " and ".join(f"{value:g}" for value in values)
    message = f"{name} is pinned at {law.fixed[name]:g}; at {tried} {moved}"
    return Notice("pinned", message, f"free it ({name}=free) where there are many teachers")


def _refitted(fitted: Estimate, fixed: Fixed, loss: Loss) -> Estimate:
    return estimate(fitted.law, fitted.runs, fixed, loss, huber_delta(fitted.runs), fitted.u)


def _moved(values: FloatArray) -> str:
    """From its value at the first pin tried to that at the last."""
    return f"{values[0]:.4g} and {values[-1]:.4g}"


def _freed(fitted: Estimate, name: str, loss: Loss, level: float) -> Notice:
    """The nested parameter's interval."""
    law = fitted.law
    fixed = {other: value for other, value in fitted.fixed.items() if other != name}
    freed = _refitted(fitted, fixed, loss)
    k, [stage] = law.parameters.index(name), freed.stages
    ends = profile(stage, k, linear(stage), level)
    null = float(law.fixed[name])
    inside = (ends.lo is None or ends.lo <= null) and (ends.hi is None or null <= ends.hi)
    verdict = "which includes" if inside else "which EXCLUDES"
    message = (
        f"{name} is pinned at {null:g}; freed it is {freed.u[k]:.4g}, "
        f"{level:.0%} interval {interval_text(ends.lo, ends.hi)}, {verdict} {null:g}"
    )
    return Notice("nested", message, f"free it ({name}=free) where its interval excludes {null:g}")
