"""Back-test a law: fit the cheaper runs, predict the most expensive ones."""

import numpy as np
from numpy.typing import NDArray

from kdlaws.errors import TableError
from kdlaws.laws.catalogue import LAWS
from kdlaws.laws.columns import Runs
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.estimate import Estimate, Fixed, Loss, estimate
from kdlaws.laws.law import Law
from kdlaws.laws.outlook import outlook, quick_uncertainty
from kdlaws.laws.resample import FEWEST_CLUSTERS
from kdlaws.laws.result import Holdout

HELD_OUT_SHARE = 0.3
LEVEL = 0.9
RESAMPLES = 100  # for the intervals of laws in two stages


def split(runs: Runs, share: float = HELD_OUT_SHARE) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the cheaper runs and of the ``share`` of largest compute."""
    order = runs.by_compute
    n_test = round(share * len(runs))
    return order[: len(runs) - n_test], order[len(runs) - n_test :]


def back_test(
    law: Law, runs: Runs, fixed: Fixed, loss: Loss, rng: np.random.Generator, share: float
) -> Holdout | None:
    """Hold out the runs of largest compute; None where too few remain to fit both laws."""
    baseline = LAWS["compute"]
    rows, held_out = split(runs, share)
    train, test = runs[rows], runs[held_out]
    if not len(test) or len(train) <= max(len(law.unknowns), len(baseline.unknowns)):
        return None
    try:
        fitted = estimate(law, train, fixed, loss)
    except TableError:  # a stage of the law has too few of the cheaper runs
        return None
    baseline_fit = estimate(baseline, train, {}, loss)
    return Holdout(
        mape=mape(predictions(fitted, test), test),
        baseline_mape=mape(predictions(baseline_fit, test), test),
        coverage_90=coverage(fitted, test, loss, rng),
        n_test=len(test),
    )


def predictions(fitted: Estimate, test: Runs) -> FloatArray:
    """Cross-entropy ``[runs]``."""
    cross_entropy: FloatArray = np.exp(fitted.log_curve(fitted.u[None], test)[0])
    return cross_entropy


def mape(prediction: FloatArray, test: Runs) -> float:
    """Mean absolute error in percent of cross-entropy."""
    return float(100 * np.mean(np.abs(prediction / test.cross_entropy - 1)))


def coverage(fitted: Estimate, test: Runs, loss: Loss, rng: np.random.Generator) -> float | None:
    """Share of the held-out runs inside their new-run interval, whose drift training shows.

    None where the cheaper runs are of too few trunks for an interval.
    """
    if int(fitted.runs.cluster.max()) + 1 < FEWEST_CLUSTERS:
        return None
    uncertainty = quick_uncertainty(fitted, RESAMPLES, rng)
    lo, hi = outlook(fitted, uncertainty, loss).new_runs(test, LEVEL)
    inside = (lo <= test.log_y) & (test.log_y <= hi)
    return float(np.mean(inside)) if np.isfinite(lo).all() else None
