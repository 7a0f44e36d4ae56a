"""What students cost, with their share of the teacher's FLOPs, and the best loss at each cost."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from kdlaws.advice.evidence import Evidence, measured
from kdlaws.advice.findings import one_pass_curves
from kdlaws.advice.planning.costs import Scenario
from kdlaws.advice.serving import pareto

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Curve = Mapping[float, "DataFrame"]
"""Cost, ascending -> the runs of that cell, a row a seed."""
Cost = Callable[["DataFrame"], float]
"""What a cell costs, in FLOPs or seconds; NaN where it is not known."""
EQUAL = 1e-9
"""Relative difference below which two losses or costs are one."""


@dataclass(frozen=True)
class Payer:
    """Who pays for the teacher: the ``scenario``, and the students that share what it costs."""

    scenario: Scenario
    n_students: int = 1

    def flops(self, rows: "DataFrame") -> float:
        """Total FLOPs of a cell, the same for its seeds; NaN where a part is not recorded.

        The student's own training, and of the teacher what the scenario charges: each run's
        columns are of that run alone. Of the teacher's inference only stored outputs are shared.
        """
        total = _mean(rows, "student_flops") + self.fixed(rows)
        if self.scenario not in ("inference", "both"):
            return total
        reads = 1 if is_online(rows).any() else self.n_students
        return total + _mean(rows, "teacher_inference_flops") / reads

    def fixed(self, rows: "DataFrame") -> float:
        """What a cell costs however short its runs: the teacher's training, where it is paid."""
        if self.scenario not in ("pretraining", "both"):
            return 0.0
        return _mean(rows, "teacher_training_flops") / self.n_students


def is_online(rows: "DataFrame") -> "Series[bool]":
    """Which runs had a teacher of their own that read with them, its outputs not stored."""
    return rows["teacher_outputs"].eq("online")


def _mean(rows: "DataFrame", column: str) -> float:
    return float(rows[column].mean()) if column in rows else math.nan


def seconds(rows: "DataFrame") -> float:
    """Wall-clock time of training the student."""
    return _mean(rows, "wall_s")


@dataclass(frozen=True)
class Priced:
    """A method's cells, one pass with the main teacher: N -> cost -> runs, those of known cost."""

    sizes: Mapping[float, Curve]

    @classmethod
    def of(cls, evidence: Evidence, method: str, cost: Cost) -> "Priced":
        curves = one_pass_curves(evidence, method)
        return cls({n: by_cost(curve, cost) for n, curve in curves.items()})

    @cached_property
    def frontier(self) -> dict[float, "DataFrame"]:
        """Each cost at which no cheaper run, of whatever N and D, has a lower loss; cheapest first.

        Along it cross-entropy falls.
        """
        cells = [cell for curve in self.sizes.values() for cell in curve.items()]
        best = pareto([cost for cost, _ in cells], [loss_of(rows) for _, rows in cells])
        return {cells[k][0]: cells[k][1] for k in best}

    def may_be_cheaper(self, loss: float, cost: float) -> bool:
        """Whether a size might reach the loss for less, in runs longer or shorter than measured.

        It might if its longest run stopped short of the loss at less cost, or its shortest run is
        already below the loss.
        """
        for curve in filter(None, self.sizes.values()):
            (_, first), *_, (spent, last) = [*curve.items(), *curve.items()]
            began_below = loss_of(first) < loss * (1 - EQUAL)
            stopped_short = loss_of(last) > loss * (1 + EQUAL) and spent < cost * (1 - EQUAL)
            if began_below or stopped_short:
                return True
        return False


def loss_of(rows: "DataFrame") -> float:
    """Of a cell: the mean over its seeds, nats per token."""
    return float(rows["cross_entropy"].mean())


def by_cost(curve: Mapping[float, "DataFrame"], cost: Cost) -> dict[float, "DataFrame"]:
    """One size's curve over tokens as one over cost, without cells of unknown cost."""
    priced = ((cost(rows), rows) for rows in curve.values())
    return {at: rows for at, rows in priced if math.isfinite(at)}


def n_students(evidence: Evidence) -> int:
    """Students of the main teacher that read its stored outputs, branches counted each.

    These are outputs on the usual text, of which every fraction is a part: noisy and curated text
    is other text, and an online teacher stores none.
    """
    teacher = evidence.main_teacher
    rows = measured(evidence.students)
    is_curated = rows["quality"].eq("curated")
    usual_text = rows["noise"].fillna(0).eq(0) & (
        is_curated == (evidence.usual_quality == "curated")
    )
    sharing = rows[usual_text & ~is_online(rows)]
    return int(sharing["teacher"].eq(teacher.run_id).sum()) if teacher else 0
