"""EXPLAINS runs: fits scaling laws to a table's columns, and says how sure it is.

Needs numpy only. ``fit(columns, law)`` returns a ``Fit``; ``LAWS`` is the registry.
"""

from kdlaws.laws.fit import fit
from kdlaws.laws.forms import LAWS, Law
from kdlaws.laws.result import Fit, Holdout, Notice, Parameter

__all__ = ["LAWS", "Fit", "Holdout", "Law", "Notice", "Parameter", "fit"]
