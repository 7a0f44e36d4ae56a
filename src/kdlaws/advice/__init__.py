"""USES laws: from a study's saved artefacts to fits, findings, figures and one page.

Needs no torch. ``summary(folder)``, ``story(folder)`` and ``figures(folder)`` read what
``fit_study`` or ``build_report`` wrote.
"""

from kdlaws.advice.figures import figures
from kdlaws.advice.report import build_report, fit_study
from kdlaws.advice.story import story
from kdlaws.advice.summary import summary

__all__ = ["build_report", "figures", "fit_study", "story", "summary"]
