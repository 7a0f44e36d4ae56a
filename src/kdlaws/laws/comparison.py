"""A comparison of laws as a value: back-tests of each, what was chosen and why; saved as JSON."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdlaws.laws import artefact
from kdlaws.laws.result import Holdout, Notice, holdout_text, percent_text


@dataclass(frozen=True)
class Group:
    """Error of a law on one group of runs, fitted to the others."""

    group: str
    n_test: int
    mape: float | None


@dataclass(frozen=True)
class Compared:
    """One law's back-tests; ``rolling`` is the mean error of those inside the training part."""

    law: str
    n_parameters: int
    aic: float | None
    rolling: float | None
    holdout: Holdout | None
    groups: tuple[Group, ...]
    warnings: tuple[Notice, ...]


@dataclass(frozen=True)
class Chosen:
    """A law alone, or a combination (``law`` is None); its back-test on runs it never saw."""

    law: str | None
    weights: Mapping[str, float]
    holdout: Holdout | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Comparison(artefact.Document):
    """What ``compare`` found; ``baseline`` is the power law in compute."""

    laws: tuple[Compared, ...]
    chosen: Chosen
    baseline: Compared
    n_column: str
    n_runs: int
    n_dropped: int
    inputs: Mapping[str, str | None]
    warnings: tuple[Notice, ...]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Comparison":
        """Read what ``save`` wrote; ArtefactError where the file is no comparison."""
        content = artefact.read(path, "comparison")
        try:
            values = {name: content[name] for name in cls.__dataclass_fields__}
            values["laws"] = tuple(map(_compared, content["laws"]))
            values["baseline"] = _compared(content["baseline"])
            values["chosen"] = _chosen(content["chosen"])
            values["warnings"] = tuple(Notice(**notice) for notice in content["warnings"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise artefact.foreign(path, "comparison", error) from error

    def __str__(self) -> str:
        width = max(18, *(len(each.law) + 1 for each in self.laws))
        lines = [f"{'law':<{width}}{'parameters':>10}{'rolling':>9}{'held out':>10}{'in 90%':>8}"]
        lines += [_row(each, width) for each in self.laws]
        chosen = self.chosen
        name = chosen.law or " + ".join(f"{w:.2f} {law}" for law, w in chosen.weights.items() if w)
        lines += [f"chosen: {name}", *(f"  {reason}" for reason in chosen.reasons)]
        if chosen.holdout is not None:
            lines.append(f"  {holdout_text(chosen.holdout)}")
        lines.append(f"{self.n_runs} runs ({self.n_dropped} dropped), N = {self.n_column}")
        for each in self.laws:
            lines += [f"{each.law} without {g.group}: {percent_text(g.mape)}" for g in each.groups]
        for notice in (*self.warnings, *(n for each in self.laws for n in each.warnings)):
            lines.append(f"{notice.code}: {notice.message}\n    {notice.remedy}")
        return "\n".join(lines)


def _row(each: Compared, width: int) -> str:
    held, covered = None, None
    if each.holdout is not None:
        held, covered = each.holdout.mape, each.holdout.coverage_90
    inside = "-" if covered is None else f"{covered:.0%}"
    return (
        f"{each.law:<{width}}{each.n_parameters:>10}{percent_text(each.rolling):>9}"
        f"{percent_text(held):>10}"
        f"{inside:>8}"
    )


def _compared(content: Mapping[str, Any]) -> Compared:
    parts = {
        "holdout": content["holdout"] and Holdout(**content["holdout"]),
        "groups": tuple(Group(**group) for group in content["groups"]),
        "warnings": tuple(Notice(**notice) for notice in content["warnings"]),
    }
    return Compared(**{**content, **parts})


def _chosen(content: Mapping[str, Any]) -> Chosen:
    holdout = content["holdout"] and Holdout(**content["holdout"])
    return Chosen(**{**content, "holdout": holdout, "reasons": tuple(content["reasons"])})
