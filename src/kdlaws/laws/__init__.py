"""EXPLAINS runs: fits scaling laws to a table's columns, and says how sure it is.

``fit(columns, law)`` returns a ``Fit``, ``compare`` back-tests several laws and chooses,
``isoflop`` finds the best size of each compute budget, ``published(name)`` is a paper's fit, and
``predict(fit, columns)`` says how good one model will be. ``LAWS`` is the registry, ``find(name)``
looks a law up. Needs numpy alone to predict, and scipy to fit.
"""

from kdlaws.laws.catalogue import LAWS, find
from kdlaws.laws.compare import combine, compare
from kdlaws.laws.comparison import Comparison
from kdlaws.laws.fit import fit
from kdlaws.laws.isoflop import IsoFlops, isoflop
from kdlaws.laws.law import Law
from kdlaws.laws.mixture import Mixture
from kdlaws.laws.prediction import Prediction, load_fit, predict
from kdlaws.laws.published import PUBLISHED, published
from kdlaws.laws.result import Fit, Holdout, Notice, Parameter

__all__ = [
    "LAWS",
    "PUBLISHED",
    "Comparison",
    "Fit",
    "Holdout",
    "IsoFlops",
    "Law",
    "Mixture",
    "Notice",
    "Parameter",
    "Prediction",
    "combine",
    "compare",
    "find",
    "fit",
    "isoflop",
    "load_fit",
    "predict",
    "published",
]
