"""EXPLAINS runs: fits scaling laws to a table's columns, and says how sure it is.

Needs numpy only. ``fit(columns, law)`` returns a ``Fit``; ``LAWS`` is the registry,
``find(name)`` looks a law up.
"""

from kdlaws.laws.fit import fit
from kdlaws.laws.forms import LAWS, Law, find
from kdlaws.laws.result import Fit, Holdout, Notice, Parameter

__all__ = ["LAWS", "Fit", "Holdout", "Law", "Notice", "Parameter", "find", "fit"]
