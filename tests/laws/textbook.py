"""Laws so small that a textbook says what their fits and intervals are."""

import numpy as np

from kdlaws.laws import Law
from kdlaws.laws.dual import Dual
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
