"""What a study's table knows of the teachers that its students learned from."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdlaws.advice.columns import N
from kdlaws.quantities import human

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Teacher:
    """A teacher that students of the study learned from; NaN is unknown.

    ``stream_cross_entropy`` is on all of the text that its students read. ``heldout`` is whether
    a model from elsewhere has never seen the test text (yes, no or unknown); None for any other.
    """

    run_id: str
    n_params_non_embedding: float
    cross_entropy: float
    stream_cross_entropy: float
    heldout: str | None = None

    @property
    def may_know_test(self) -> bool:
        """Whether its cross-entropy is not known to be held out."""
        return self.heldout not in (None, "yes")

    @property
    def label(self) -> str:
        n = self.n_params_non_embedding
        return "teacher of unknown N" if math.isnan(n) else f"teacher {human(n)}"


def teacher_of(runs: "DataFrame", run_id: str) -> Teacher:
    """From its students' rows, or from its own where theirs do not say."""
    rows = runs[(runs["role"] != "teacher") & (runs["teacher"] == run_id)]
    own = runs[runs["run_id"] == run_id]
    return Teacher(
        run_id,
        _first_known(rows["teacher_n_params_non_embedding"], own[N]),
        _first_known(rows["teacher_cross_entropy"], own["cross_entropy"]),
        _first_known(_most_text_first(rows)["teacher_stream_cross_entropy"]),
        _heldout(own, rows),
    )


def _most_text_first(rows: "DataFrame") -> "DataFrame":
    """The runs on clean text: a fraction's teacher has read the fraction only."""
    clean = rows[rows["noise"].fillna(0) == 0]
    return clean.sort_values("fraction", ascending=False, kind="stable")


def _heldout(own: "DataFrame", rows: "DataFrame") -> str | None:
    """What its own row says if it came from elsewhere; its students', where it has no row."""
    if own.empty:
        known = rows["teacher_heldout"].dropna()
        return str(known.iloc[0]) if len(known) else None
    if not own["init"].eq("given").any():
        return None
    known = own["teacher_heldout"].dropna()
    return str(known.iloc[0]) if len(known) else "unknown"


def _first_known(*columns: Iterable[float]) -> float:
    return next((float(v) for column in columns for v in column if not math.isnan(v)), math.nan)
