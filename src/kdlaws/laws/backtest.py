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
from kdlaws.laws.repeats import huber_delta
from kdlaws.laws.resample import FEWEST_CLUSTERS
from kdlaws.laws.result import Holdout
from kdlaws.laws.uncertainty import Interval

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
    """Hold out the ``share`` of largest compute; None where the others cannot say what it will be:
    they are too few to fit both laws, or of other methods."""
    baseline = LAWS["compute"]
    rows, held_out = split(runs, share)
    train, test = runs[rows], runs[held_out]
    if not len(test) or len(train) <= max(len(law.unknowns), len(baseline.unknowns)):
        return None
    if not train.knows_methods_of(test):
        return None
    try:
        fitted = estimate(law, train, fixed, loss, huber_delta(train))
    except TableError:  # a stage of the law has too few of the cheaper runs
        return None
    baseline_fit = estimate(baseline, train, {}, loss, huber_delta(train))
    return Holdout(
        mape=mape(fitted.log_prediction(test), test),
        baseline_mape=mape(baseline_fit.log_prediction(test), test),
        coverage_90=coverage(interval(fitted, test, loss, rng), test),
        n_test=len(test),
    )


def mape(log_prediction: FloatArray, test: Runs) -> float:
    """Mean absolute error in percent of cross-entropy."""
    return float(100 * np.mean(np.abs(np.exp(log_prediction) / test.cross_entropy - 1)))


def interval(fitted: Estimate, test: Runs, loss: Loss, rng: np.random.Generator) -> Interval | None:
    """New-run interval of log cross-entropy at ``LEVEL``, with the drift that training shows.

    None where the cheaper runs are of too few trunks for one.
    """
    if fitted.runs.n_clusters < FEWEST_CLUSTERS:
        return None
    uncertainty = quick_uncertainty(fitted, RESAMPLES, rng)
    return outlook(fitted, uncertainty, loss).new_runs(test, LEVEL)


def coverage(ends: Interval | None, test: Runs) -> float | None:
    """Share of the runs whose log cross-entropy is inside its interval; None without intervals."""
    if ends is None or not np.isfinite(ends[0]).all():
        return None
    lo, hi = ends
    return float(np.mean((lo <= test.log_y) & (test.log_y <= hi)))
