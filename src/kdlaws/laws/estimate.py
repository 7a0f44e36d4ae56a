"""One law fitted to one set of runs: the optimum over all starts, and its bootstrap refits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdlaws.laws.columns import Runs
from kdlaws.laws.forms import FloatArray, Law
from kdlaws.laws.solve import DELTA, GRADIENT_TOLERANCE, Problem, Solution, minimise

AGREEMENT = 1e-6  # relative difference of objectives that counts as the same optimum
FEWEST_CLUSTERS = 4  # fewer give at most ten different resamples: no tail to read an end from


@dataclass(frozen=True)
class Estimate:
    """The fits of ``law`` from every start, in centred coordinates."""

    law: Law
    n_column: str
    centres: FloatArray  # [columns], mean log of each
    problem: Problem
    starts: FloatArray  # [starts, parameters]
    solution: Solution

    @property
    def best(self) -> int:
        return int(self.solution.objective.argmin())

    @property
    def u(self) -> FloatArray:
        """The optimum ``[parameters]``."""
        u: FloatArray = self.solution.u[self.best]
        return u

    @property
    def converged(self) -> bool:
        return bool(self.solution.gradient[self.best] <= GRADIENT_TOLERANCE)

    @property
    def starts_agree(self) -> float:
        """Share of starts that reached the best objective."""
        objective = self.solution.objective
        # Exact fits end at rounding errors: below this all objectives are the same.
        rounding = 1e-8 * DELTA**2 * len(self.problem.log_y)
        return float(np.mean(objective <= objective.min() * (1 + AGREEMENT) + rounding))

    def values(self, u: FloatArray) -> FloatArray:
        """Parameter values of centred coordinates, both ``[..., parameters]``."""
        return self.law.values(self.law.uncentre(u, self.centres))

    def log_curve(self, u: FloatArray, runs: Runs) -> FloatArray:
        """log L ``[..., runs]`` of centred coordinates ``[..., parameters]``."""
        x = log_columns(self.law, runs, self.n_column) - self.centres[:, None]
        return self.law.log_form(u, x)[0]


def log_columns(law: Law, runs: Runs, n_column: str) -> FloatArray:
    return np.log(np.stack([runs.columns[name] for name in law.reads(n_column)]))


def estimate(law: Law, runs: Runs, n_column: str) -> Estimate:
    """Fit from every start of the law."""
    x = log_columns(law, runs, n_column)
    centres = x.mean(axis=1)
    lower, upper = law.bounds(runs.cross_entropy)
    problem = Problem(law.log_form, x - centres[:, None], np.log(runs.cross_entropy), lower, upper)
    starts = law.starts(runs.cross_entropy)
    solution = minimise(problem, np.ones((len(starts), len(runs))), starts)
    return Estimate(law, n_column, centres, problem, starts, solution)


def refit(
    fitted: Estimate, cluster: NDArray[np.int64], n_resamples: int, rng: np.random.Generator
) -> FloatArray:
    """Refits of resampled clusters in centred coordinates ``[resamples, parameters]``.

    Each begins at another of the law's starts, not at the optimum: along a direction that the runs
    leave flat a refit stays near where it began, so what is not determined shows as spread.
    Empty where there are too few clusters.
    """
    n_clusters = int(cluster.max()) + 1
    if n_clusters < FEWEST_CLUSTERS or not n_resamples:
        return fitted.starts[:0]
    counts = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=n_resamples)
    starts = fitted.starts[np.arange(n_resamples) % len(fitted.starts)]
    return minimise(fitted.problem, counts[:, cluster].astype(np.float64), starts).u
