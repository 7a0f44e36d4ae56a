"""Fit a law to runs: robust, from several starts, with intervals that respect the trunks."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from kdlaws.errors import InputError, TableError
from kdlaws.laws.backtest import HELD_OUT_SHARE, back_test
from kdlaws.laws.columns import N_COLUMNS, Runs, read_runs
from kdlaws.laws.estimate import Estimate, estimate, refit
from kdlaws.laws.forms import FloatArray, Law, find
from kdlaws.laws.intervals import (
    cluster_notices,
    identification_notices,
    parameters,
    undetermined_by_design,
)
from kdlaws.laws.result import Fit, Holdout, Notice
from kdlaws.laws.solve import OBJECTIVE_NAME

FEWEST_RESAMPLES = 50  # fewer have no tail to read an interval's end from


def fit(
    columns: Mapping[str, ArrayLike],
    law: str,
    *,
    n_column: str = "n_params_non_embedding",
    trunk: Sequence[str] | None = None,
    level: float = 0.9,
    bootstrap: int = 400,
    seed: int = 0,
    source: Mapping[str, str | None] | None = None,
    n_dropped: int = 0,
    notices: Sequence[Notice] = (),
) -> Fit:
    """Fit ``law`` to runs, one value of each column per run.

    ``columns`` holds ``cross_entropy`` (nats per token) and what the law reads: ``n_column`` and
    ``n_tokens``, or ``flops`` (6*N*D where it is absent, with a warning). Runs of one ``trunk``
    share their training and are resampled together; without it every run is its own. ``level``
    is the intervals', ``bootstrap`` the number of refits (0: no intervals). ``source`` (file,
    sha256), ``n_dropped`` and ``notices`` (the first of the warnings) are only carried along.

    Raises InputError for an unknown law or argument, TableError for columns that cannot be fitted.
    """
    form = find(law)
    _check_arguments(n_column, level, bootstrap, seed)
    runs = read_runs(columns, form, n_column, trunk)
    _check_enough(form, runs)
    back_test_rng, refit_rng = np.random.default_rng(seed).spawn(2)
    fitted = estimate(form, runs, n_column)
    refits = refit(fitted, runs.cluster, bootstrap, refit_rng)
    undetermined = undetermined_by_design(form, runs, n_column)
    estimates = parameters(fitted, refits, level, undetermined)
    holdout = back_test(form, runs, n_column, bootstrap, back_test_rng)
    found = (
        *_flops_notices("flops" in columns, form, n_column),
        *_convergence_notices(fitted),
        *cluster_notices(int(runs.cluster.max()) + 1, trunk is not None),
        *identification_notices(fitted, estimates, undetermined, level),
        *_holdout_notices(holdout, len(runs)),
    )
    return Fit(
        law=law,
        n_column=n_column,
        parameters=estimates,
        level=level,
        objective=float(fitted.solution.objective[fitted.best]),
        objective_name=OBJECTIVE_NAME,
        n_runs=len(runs),
        n_dropped=n_dropped,
        converged=fitted.converged,
        starts_agree=fitted.starts_agree,
        domain={name: _range(runs.columns[name]) for name in form.reads(n_column)},
        holdout=holdout,
        seed=seed,
        inputs={"file": None, "sha256": None, **(source or {})},
        warnings=(*notices, *found),
        samples=fitted.values(refits),
    )


def _check_arguments(n_column: str, level: float, bootstrap: int, seed: int) -> None:
    enough = bootstrap == 0 or bootstrap >= FEWEST_RESAMPLES
    checks = {
        "n_column": (n_column in N_COLUMNS, n_column, f"choose one of {', '.join(N_COLUMNS)}"),
        "level": (0 < level < 1, level, "give a share between 0 and 1, such as 0.9"),
        "bootstrap": (enough, bootstrap, f"give {FEWEST_RESAMPLES} or more, or 0: no intervals"),
        "seed": (seed >= 0, seed, "give 0 or more"),
    }
    for where, (good, value, remedy) in checks.items():
        if not good:
            raise InputError(f"{value!r} cannot be used", where=where, remedy=remedy)


def _check_enough(law: Law, runs: Runs) -> None:
    fewest = len(law.unknowns) + 1
    if len(runs) < fewest:
        raise TableError(
            f"{len(runs)} runs cannot determine {fewest - 1} parameters",
            where=f"law {law.name}",
            remedy=f"give {fewest} runs or more, or a law with fewer parameters",
        )


def _range(values: FloatArray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _flops_notices(given: bool, law: Law, n_column: str) -> list[Notice]:
    if given:
        return []
    reader = "the law" if "flops" in law.columns else "the back-test"
    message = f"there is no column flops: {reader} takes 6 * {n_column} * n_tokens"
    remedy = "give the training FLOPs of each run, with the head and attention, as column flops"
    return [Notice("flops_6nd", message, remedy)]


def _convergence_notices(fitted: Estimate) -> list[Notice]:
    if fitted.converged:
        return []
    message = "the gradient is not zero at the best point found"
    remedy = "do not use the parameters; give more runs, or a law with fewer parameters"
    return [Notice("not_converged", message, remedy)]


def _holdout_notices(holdout: Holdout | None, n_runs: int) -> list[Notice]:
    if holdout is not None:
        return []
    message = f"{n_runs} runs are too few to hold out the largest {HELD_OUT_SHARE:.0%} by compute"
    return [Notice("no_holdout", message, "give more runs to learn how well the law extrapolates")]
