"""Back-test a law: fit the cheaper runs, predict the most expensive ones."""

import numpy as np

from kdlaws.laws.columns import Runs
from kdlaws.laws.estimate import Estimate, estimate, refit
from kdlaws.laws.forms import COMPUTE, FloatArray, Law
from kdlaws.laws.result import Holdout

HELD_OUT_SHARE = 0.3
LEVEL = 0.9


def back_test(
    law: Law, runs: Runs, n_column: str, n_resamples: int, rng: np.random.Generator
) -> Holdout | None:
    """Hold out the largest 30 % by FLOPs; None where too few runs remain to fit both laws."""
    order = np.argsort(runs.columns["flops"], kind="stable")
    n_test = round(HELD_OUT_SHARE * len(runs))
    n_train = len(runs) - n_test
    if not n_test or n_train <= max(len(law.unknowns), len(COMPUTE.unknowns)):
        return None
    train, test = runs[order[:n_train]], runs[order[n_train:]]
    fitted = estimate(law, train, n_column)
    refits = refit(fitted, train.cluster, n_resamples, rng)
    return Holdout(
        mape=_mape(fitted, test),
        baseline_mape=_mape(estimate(COMPUTE, train, n_column), test),
        coverage_90=_coverage(fitted, refits, train, test, rng) if len(refits) else None,
        n_test=n_test,
    )


def _mape(fitted: Estimate, test: Runs) -> float:
    prediction = np.exp(fitted.log_curve(fitted.u, test))
    return float(100 * np.mean(np.abs(prediction / test.cross_entropy - 1)))


def _coverage(
    fitted: Estimate, refits: FloatArray, train: Runs, test: Runs, rng: np.random.Generator
) -> float:
    """Share of new runs inside: uncertainty of the curve plus the scatter of the training runs."""
    residual = np.log(train.cross_entropy) - fitted.log_curve(fitted.u, train)
    scatter = np.sqrt(residual @ residual / (len(train) - len(fitted.u)))
    curves = fitted.log_curve(refits, test)
    new_runs = curves + scatter * rng.standard_normal(curves.shape)
    lo, hi = np.quantile(new_runs, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    actual = np.log(test.cross_entropy)
    return float(np.mean((lo <= actual) & (actual <= hi)))
