"""What a fit says of runs that it has not seen: the curve's interval, and a new run's.

The variance of a new run has three parts: its own and its trunk's deviation, the uncertainty of the
curve, and the law's own error, which grows with the distance beyond the runs as
(drift * log10(C/C_max))^2. The drift is measured by rolling back-tests inside the runs of the fit.
"""

from dataclasses import dataclass

import numpy as np

from kdlaws.errors import TableError
from kdlaws.laws.columns import Runs
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.estimate import Estimate, Loss, estimate
from kdlaws.laws.law import C, D, N
from kdlaws.laws.newrun import NewRun
from kdlaws.laws.repeats import huber_delta
from kdlaws.laws.resample import refit
from kdlaws.laws.uncertainty import Interval, Resampled, Uncertainty, linear

CONSTANT = 0.02  # spread of the logarithm of FLOPs / 6ND below which they are proportional
ORIGINS = (0.5, 0.65, 0.8)  # shares of the runs, in order of compute, that a rolling test fits


@dataclass(frozen=True)
class Outlook:
    """A fit, how sure its curve is, and what a new run adds."""

    fitted: Estimate
    uncertainty: Uncertainty
    new_run: NewRun

    def new_runs(self, runs: Runs, level: float) -> Interval:
        """Interval of log cross-entropy of each run ``[runs]``."""
        extra = self.new_run.at(runs.x[C])
        return self.uncertainty.new_run(self.fitted.law, self.fitted.u, runs.x, level, extra)


def outlook(fitted: Estimate, uncertainty: Uncertainty, loss: Loss) -> Outlook:
    """With the drift that rolling back-tests inside the fit's own runs show."""
    return Outlook(fitted, uncertainty, new_run(fitted, measured_drift(fitted, loss)))


def new_run(fitted: Estimate, drift: float | None) -> NewRun:
    """What a run that the fit has not seen adds to the curve."""
    largest = float(np.exp(fitted.runs.x[C].max()))
    found = fitted.stages[-1].variances
    trunk = 0.0 if found is None else found.trunk
    return NewRun(run_variance(fitted), drift, largest, _flops_per_6nd(fitted.runs), trunk)


def _flops_per_6nd(runs: Runs) -> float | None:
    """None where the runs' FLOPs are no constant multiple of 6*N*D, or N or D is not known."""
    if N not in runs.x or D not in runs.x:
        return None
    log_multiple = runs.x[C] - runs.x[N] - runs.x[D]
    constant = float(np.ptp(log_multiple)) < CONSTANT
    return float(np.exp(np.median(log_multiple))) / 6 if constant else None


def run_variance(fitted: Estimate) -> float:
    """Of a run of a new trunk around the curve."""
    found = fitted.stages[-1].variances
    if found is not None:
        return found.run + found.trunk
    residual = fitted.residual()
    return float(residual @ residual) / max(len(residual) - fitted.n_free, 1)


def quick_uncertainty(fitted: Estimate, n_resamples: int, rng: np.random.Generator) -> Uncertainty:
    """Linear for one stage; of two stages, refits to resamples."""
    if len(fitted.stages) == 1:
        return linear(fitted.stages[0])
    return Resampled(refit(fitted, n_resamples, rng))


def measured_drift(whole: Estimate, loss: Loss) -> float | None:
    """What rolling back-tests err by beyond their own interval, per decade of compute.

    Least squares of (error^2 - variance) on decades^2: zero for a law that holds, None where the
    runs are too few for a back-test.
    """
    law, runs = whole.law, whole.runs
    excess, decades = [np.empty(0)], [np.empty(0)]
    order = runs.by_compute
    for share in ORIGINS:
        cut = round(share * len(runs))
        train, test = runs[order[:cut]], runs[order[cut:]]
        enough = cut > len(law.unknowns) + 2 and len(test) > 0
        if not enough or not train.knows_methods_of(test):
            continue
        try:
            fitted = estimate(law, train, whole.fixed, loss, huber_delta(train), whole.u)
        except TableError:  # too few runs of one stage before this origin
            continue
        error = fitted.log_prediction(test) - test.log_y
        excess.append(error**2 - _variance(fitted, test))
        decades.append((test.x[C] - train.x[C].max()) / np.log(10))
    d2 = np.concatenate(decades) ** 2
    weight = float(d2 @ d2)
    if not weight > 0:
        return None
    slope = float(d2 @ np.concatenate(excess)) / weight
    return float(np.sqrt(max(slope, 0.0)))


def _variance(fitted: Estimate, test: Runs) -> FloatArray:
    """Of a new run, as the fit itself knows it; of two stages, the last one's."""
    known = linear(fitted.stages[-1])
    return known.curve_variance(fitted.law, fitted.u, test.x) + run_variance(fitted)
