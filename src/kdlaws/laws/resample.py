"""Refits to resampled runs: whole trunks where runs share trunks; all stages are refitted."""

from dataclasses import replace

import numpy as np

from kdlaws.laws.coordinates import coordinates
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.estimate import Estimate, Stage, free_values
from kdlaws.laws.solve import Problem, minimise

FEWEST_CLUSTERS = 4  # fewer give at most ten different resamples: no tail to read an end from


def refit(fitted: Estimate, n_resamples: int, rng: np.random.Generator) -> FloatArray:
    """u of each refit ``[resamples, unknowns]``; empty where there are too few clusters.

    A refit begins at the optimum, so along a flat direction it stays near: profiles are for that.
    """
    cluster = fitted.runs.cluster
    n_clusters = fitted.runs.n_clusters
    if n_clusters < FEWEST_CLUSTERS or not n_resamples:
        return np.empty((0, len(fitted.u)))
    counts = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=n_resamples)
    weights = counts[:, cluster].astype(np.float64)
    pins: dict[str, FloatArray] = {}
    for stage in fitted.stages:
        problem, v = _refit_stage(stage, weights, pins)
        pins |= free_values(problem.coordinates, v)
    return problem.coordinates.parameters(v)


def _refit_stage(
    stage: Stage, weights: FloatArray, pins: dict[str, FloatArray]
) -> tuple[Problem, FloatArray]:
    """The stage with an earlier one's refitted parameters in place of its fitted ones."""
    problem = stage.problem
    if pins:
        median = float(np.median(stage.runs.cross_entropy))
        fixed = {**stage.fixed, **pins}
        at = coordinates(stage.coordinates.law, stage.runs.x, median, fixed)
        problem = replace(problem, coordinates=at)
    starts = np.repeat(stage.v[None], len(weights), axis=0)
    return problem, minimise(problem, weights[:, stage.rows], starts).v
