"""Profiles: how far a parameter can be pinned from its estimate before the fit is too bad.

Everything else is fitted anew at each step, so a direction that the runs leave flat shows its whole
length, which neither a covariance nor refits from the optimum can.
"""

from dataclasses import dataclass, replace

import numpy as np

from kdlaws.laws.coordinates import Coordinates, coordinates
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.estimate import Stage
from kdlaws.laws.solve import Problem, Solution, minimise
from kdlaws.laws.uncertainty import Linear, spread, student

# Steps tried in turn, in half-widths of the linear interval, until the fit is too bad; the later
# ones are for flat directions.
STEPS = ((0.8, 1.25), (2.0, 4.0), (8.0, 25.0))
ROUNDS, POINTS = 2, 6  # of narrowing down where it becomes too bad: 25 times narrower
STILL = 0.8  # of the rise that ends an interval must remain when the box is widened
TOLERANCE = 1e-4  # of the gradient: the objective, flat at its minimum, is known far better


@dataclass(frozen=True)
class Range:
    """Ends of a profile interval of u; None where the runs do not set one."""

    lo: float | None
    hi: float | None


def profile(stage: Stage, k: int, uncertainty: Linear, level: float) -> Range:
    """The interval of the law's parameter ``k``, free in ``stage``, others fitted anew."""
    direction = np.eye(len(uncertainty.covariance))[k]
    quantile = float(student(uncertainty.degrees(direction), level))
    half = quantile * float(uncertainty.deviation(direction))
    return _Profile(stage, k, uncertainty.covariance[k], half, quantile).range()


@dataclass(frozen=True)
class _Profile:
    stage: Stage
    k: int
    covariance: FloatArray  # [unknowns], of parameter k with each
    half: float  # width of the linear interval, halved
    quantile: float  # Student's, two-sided

    def range(self) -> Range:
        u = float(self._optimum[self.k])
        if not self.half > 0:
            return Range(u, u)
        ends = [self._crossing(side) for side in (-1.0, 1.0)]
        ends = [None if end is None or self._held_by_the_box(end) else u + end for end in ends]
        return Range(*ends)

    def _crossing(self, side: float) -> float | None:
        """The step at which the root passes 1; None where it does not within the limits."""
        steps, roots = np.zeros(1), np.zeros(1)
        for some in STEPS:
            further = self._clipped(side * self.half * np.array(some))
            steps, roots = np.append(steps, further), np.append(roots, self._roots(further))
            if (roots >= 1).any():
                return self._between(steps, roots)
        return None

    def _between(self, steps: FloatArray, roots: FloatArray) -> float:
        """The same between steps whose roots pass 1: narrowed down, then on a straight line."""
        for _ in range(ROUNDS):
            j = int(np.argmax(roots >= 1))
            steps = np.linspace(steps[j - 1], steps[j], POINTS)
            roots = np.array([roots[j - 1], *self._roots(steps[1:-1]), roots[j]])
        j = int(np.argmax(roots >= 1))
        return float(np.interp(1.0, roots[j - 1 : j + 1], steps[j - 1 : j + 1]))

    def _clipped(self, steps: FloatArray) -> FloatArray:
        """Steps no further than the parameter's limits."""
        lower, upper = self._limits
        at = self._optimum[self.k]
        return np.clip(steps, min(lower - at, 0.0), max(upper - at, 0.0))

    @property
    def _optimum(self) -> FloatArray:
        return self.stage.coordinates.parameters(self.stage.v)

    def _roots(self, steps: FloatArray) -> FloatArray:
        """sqrt of the rise of the objective at each step, 1 where it is what the level allows."""
        rise = np.maximum(self._refitted(steps)[0].objective - self._lowest, 0.0)
        return np.sqrt(rise / self._allowed)

    @property
    def _lowest(self) -> float:
        return float(self.stage.solution.objective.min())

    @property
    def _allowed(self) -> float:
        """Rise of the objective at the interval's ends."""
        stage = self.stage
        residual, jacobian = stage.linearise()
        scale, _ = spread(stage, residual, len(jacobian))
        if stage.variances is not None:
            scale = max(scale, stage.variances.run)
        return 0.5 * self.quantile**2 * scale

    def _refitted(self, steps: FloatArray) -> tuple[Solution, Coordinates]:
        """Fits with the parameter pinned at each step from its optimum, the others anew."""
        stage, law = self.stage, self.stage.coordinates.law
        u = self._optimum
        along = self.covariance / self.covariance[self.k]
        guesses = u + steps[:, None] * along
        pin = guesses[:, self.k]
        unknown = law.unknowns[self.k]
        value = np.exp(np.clip(pin, -700, 700)) if unknown.kind == "scale" else pin
        pins = {**stage.fixed, unknown.name: value}
        at = coordinates(law, stage.runs.x, float(np.median(stage.runs.cross_entropy)), pins)
        return minimise(self._problem(at), None, at.of(guesses), TOLERANCE), at

    def _held_by_the_box(self, step: float) -> bool:
        """Whether the box, and not the runs, ends the interval there.

        It does where the fit is no longer bad enough once the others have a wider box.
        """
        found, at = self._refitted(np.array([step]))
        if not _at_a_wall(found.v[0], at):
            return False
        end = minimise(self._problem(_widened(at)), None, found.v, TOLERANCE)
        own = self._problem(_widened(self.stage.coordinates))
        best = minimise(own, None, self.stage.v[None], TOLERANCE)
        return bool(end.objective[0] - best.objective[0] < STILL * self._allowed)

    def _problem(self, at: Coordinates) -> Problem:
        return replace(self.stage.problem, coordinates=at)

    @property
    def _limits(self) -> tuple[float, float]:
        """Ends of this u over the whole box."""
        at = self.stage.coordinates
        ends = at.basis[self.k] * np.stack([at.lower, at.upper])
        offset = at.offset[self.k]
        return float(offset + ends.min(axis=0).sum()), float(offset + ends.max(axis=0).sum())


def _at_a_wall(v: FloatArray, at: Coordinates) -> bool:
    return bool(((v <= at.lower) | (v >= at.upper)).any())


def _widened(at: Coordinates) -> Coordinates:
    """Twice as far from the middle; but a floor or a term cannot be less than nothing."""
    half = (at.upper - at.lower) / 2
    vanishes = np.array([at.law.unknowns[k].per_loss for k in at.free], dtype=bool)
    return replace(at, lower=np.where(vanishes, at.lower, at.lower - half), upper=at.upper + half)
