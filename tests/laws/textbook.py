"""Laws so small that a textbook says what their fits and intervals are."""

import numpy as np
from numpy.typing import NDArray

from kdlaws.laws import Law
from kdlaws.laws.columns import Runs
from kdlaws.laws.dual import Dual, FloatArray
from kdlaws.laws.estimate import Loss, Stage, estimate
from kdlaws.laws.law import Columns, N, Parameters, exponent, floor, term


def power_form(u: Parameters, x: Columns) -> Dual:
    return u["A"] - u["alpha"] * x[N]


def mean_form(u: Parameters, x: Columns) -> Dual:
    return u["A"]


POWER = Law(
    name="power",
    equation="L = A/N^alpha: a straight line in logarithms",
    source="the textbook",
    unknowns=(term("A", "alpha", N), exponent("alpha", N)),
    reads=(N,),
    form=power_form,
    starts=lambda x, loss: np.array([[np.log(np.median(loss)), 0.3]]),
)
MEAN = Law(
    name="mean",
    equation="L = A",
    source="the textbook",
    unknowns=(floor("A"),),
    reads=(N,),
    form=mean_form,
    starts=lambda x, loss: np.array([[np.log(np.median(loss))]]),
)


def fitted(
    law: Law,
    x: Columns,
    log_y: FloatArray,
    loss: Loss = "squares",
    cluster: NDArray[np.int64] | None = None,
    delta: float = 1e-3,
    fixed: dict[str, float | str] | None = None,
) -> Stage:
    """The one stage of a fit to these log columns and log cross-entropies."""
    runs = Runs(x, np.exp(log_y), np.arange(len(log_y)) if cluster is None else cluster)
    (stage,) = estimate(law, runs, {**law.fixed, **(fixed or {})}, loss, delta).stages
    return stage
