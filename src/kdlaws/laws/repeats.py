"""The noise of runs that were repeated, and the delta of Huber's loss that goes with it."""

import numpy as np

from kdlaws.laws.columns import Runs
from kdlaws.laws.estimate import EFFICIENT
from kdlaws.laws.solve import DELTA

FEWEST_DEGREES = 4  # of freedom, below which a standard deviation may be off by a factor of two

ROUNDING = 1e-12  # of log cross-entropy: rows that differ by less are copies of one run


def huber_delta(runs: Runs) -> float:
    """1.345 standard deviations of log cross-entropy where runs were repeated, else 1e-3.

    The first is 95 % efficient for normal noise (Huber 1964); the second is what published fits
    used (Hoffmann et al. 2022).
    """
    sigma = repeat_deviation(runs)
    return DELTA if sigma is None else EFFICIENT * sigma


def repeat_deviation(runs: Runs) -> float | None:
    """Pooled standard deviation of log cross-entropy over runs that a law cannot tell apart."""
    numbers = np.stack(
        [np.nan_to_num(np.round(v, 9)) for v in runs.x.values() if v.dtype.kind == "f"]
    )
    labels = [v for v in runs.x.values() if v.dtype.kind != "f"]
    keys = np.vstack([numbers, *(np.unique(v, return_inverse=True)[1] for v in labels)])
    _, group = np.unique(keys, axis=1, return_inverse=True)
    sizes = np.bincount(group)
    degrees = len(runs) - len(sizes)
    if degrees < FEWEST_DEGREES:
        return None
    means = np.bincount(group, weights=runs.log_y) / sizes
    deviation = runs.log_y - means[group]
    sigma = float(np.sqrt(deviation @ deviation / degrees))
    return sigma if sigma > ROUNDING else None
