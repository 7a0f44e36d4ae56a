"""What a study's saved artefacts say: its runs, which of them compare, and the fitted laws.

Everything that the figures, the summary and the page tell comes through here, so that they cannot
disagree. pandas is loaded by the functions that need it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdlaws.errors import TableError
from kdlaws.laws import Fit
from kdlaws.quantities import human
from kdlaws.records import read_json, read_losses
from kdlaws.tables import LoadedTable, read_table

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

METHODS = ("scratch", "token", "embedding")
N = "n_params_non_embedding"

# What the report reads; a table that lacks one of these has it empty, and the report says so.
_TEXT_SETTINGS = ("divergence", "teacher_outputs")
_NUMBER_SETTINGS = (
    *("jsd_beta", "kd_weight", "temperature", "embedding_weight", "learning_rate", "batch_tokens"),
)
_SETTINGS = (*_TEXT_SETTINGS, *_NUMBER_SETTINGS)
_TEXTS = (
    *("run_id", "study", "role", "method", "trunk", "teacher", "status", "device", "corpus"),
    *_TEXT_SETTINGS,
)
_NUMBERS = (
    *(N, "n_tokens", "n_unique_tokens", "fraction", "epochs", "seed", "noise", *_NUMBER_SETTINGS),
    *("teacher_n_params_non_embedding", "teacher_cross_entropy", "teacher_overlap"),
    "teacher_stream_cross_entropy",
    *("cross_entropy", "cross_entropy_se", "perplexity"),
    *("forward_flops_per_token", "decode_ms_p50", "wall_s"),
)


@dataclass(frozen=True)
class Teacher:
    """A teacher that students of the study learned from; NaN is unknown.

    ``stream_cross_entropy`` is on all of the text that its students read.
    """

    run_id: str
    n_params_non_embedding: float
    cross_entropy: float
    stream_cross_entropy: float

    @property
    def label(self) -> str:
        n = self.n_params_non_embedding
        return "teacher of unknown N" if math.isnan(n) else f"teacher {human(n)}"


@dataclass(frozen=True)
class Evidence:
    """A study's table, its unigram and bigram cross-entropies, and its fits by ``law-method``.

    ``losses`` are each run's nats per token on every test sequence, the same sequences for all.
    """

    folder: Path
    table: LoadedTable
    reference: Mapping[str, Any]
    fits: Mapping[str, Fit]
    losses: Mapping[str, "NDArray[np.float64]"]

    @property
    def runs(self) -> "DataFrame":
        return self.table.frame

    @cached_property
    def name(self) -> str:
        names = self.runs["study"].dropna()
        return str(names.iloc[0]) if len(names) else self.folder.resolve().name

    @cached_property
    def students(self) -> "DataFrame":
        return self.runs[self.runs["role"] != "teacher"]

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The study's methods, in the order in which reports show them."""
        present = self.students["method"].dropna().unique()
        return tuple(sorted(present, key=lambda method: (*METHODS, method).index(method)))

    @cached_property
    def distilled(self) -> tuple[str, ...]:
        """The methods that have a teacher."""
        return tuple(method for method in self.methods if method != "scratch")

    @cached_property
    def sizes(self) -> tuple[float, ...]:
        """The students' non-embedding parameters, ascending."""
        return tuple(sorted(map(float, self.students[N].dropna().unique())))

    @cached_property
    def fractions(self) -> tuple[float, ...]:
        """Shares of the data, largest first."""
        return tuple(sorted(map(float, self.students["fraction"].dropna().unique()), reverse=True))

    @cached_property
    def teachers(self) -> tuple[Teacher, ...]:
        """The one with most students first."""
        counts = self.students["teacher"].value_counts()
        found = [self._teacher(str(run_id)) for run_id in counts.index]
        return tuple(sorted(found, key=lambda each: (-counts[each.run_id], each.cross_entropy)))

    def _teacher(self, run_id: str) -> Teacher:
        """From its students' rows, or from its own where theirs do not say."""
        rows = self.students[self.students["teacher"] == run_id]
        own = self.runs[self.runs["run_id"] == run_id]
        return Teacher(
            run_id,
            _first_known(rows["teacher_n_params_non_embedding"], own[N]),
            _first_known(rows["teacher_cross_entropy"], own["cross_entropy"]),
            _first_known(_most_text_first(rows)["teacher_stream_cross_entropy"]),
        )

    @property
    def main_teacher(self) -> Teacher | None:
        return self.teachers[0] if self.teachers else None

    @cached_property
    def comparable(self) -> "DataFrame":
        """Students on clean data, each method at its usual settings; of any status."""
        return self.usual[self.usual["noise"].fillna(0) == 0]

    @cached_property
    def usual(self) -> "DataFrame":
        """Students at the most frequent divergence, outputs, weights, rate and batch of their kind.

        A kind is a method on a fraction of the data.
        """
        rows = self.students
        for setting in _SETTINGS:
            cells = rows.groupby(["method", "fraction"], dropna=False)[setting]
            rows = rows[(rows[setting] == cells.transform(_most_frequent)) | rows[setting].isna()]
        return rows

    def of(self, method: str, *, teacher: Teacher | None = None) -> "DataFrame":
        """Comparable rows of one method, with the main teacher unless another is named."""
        rows = self.comparable[self.comparable["method"] == method]
        chosen = teacher or self.main_teacher
        if method == "scratch" or chosen is None:
            return rows
        return rows[rows["teacher"] == chosen.run_id]

    def fit(self, law: str, method: str) -> Fit | None:
        return self.fits.get(f"{law}-{method}")

    @cached_property
    def unigram(self) -> float | None:
        """Test cross-entropy of the unigram table, nats per token."""
        value = self.reference.get("unigram")
        return None if value is None else float(value)

    @cached_property
    def bigrams(self) -> tuple[tuple[float, float], ...]:
        """(unique tokens, test cross-entropy of the smoothed bigram table), ascending."""
        rows = self.reference.get("bigram") or ()
        return tuple(sorted((float(r["n_unique_tokens"]), float(r["cross_entropy"])) for r in rows))


def load(folder: Path, *, fits: Mapping[str, Fit] | None = None) -> Evidence:
    """Read a study's artefacts; only ``table.csv`` must be there. ``fits`` replaces the saved ones.

    Raises TableError where the table cannot be read, ArtefactError where another file cannot.
    """
    file = folder / "table.csv"
    if not file.exists():
        raise TableError(
            "there is no table.csv yet", where=str(folder), remedy="run evaluate first"
        )
    table = read_table(file)
    reference = folder / "reference.json"
    if fits is None:
        fits = {path.stem: Fit.load(path) for path in sorted((folder / "fits").glob("*.json"))}
    return Evidence(
        folder=folder,
        table=replace(table, frame=_whole(table.frame)),
        reference=read_json(reference) if reference.exists() else {},
        fits=fits,
        losses=read_losses(folder),
    )


def done(rows: "DataFrame") -> "DataFrame":
    """The rows that laws may read."""
    return rows[(rows["status"] == "done") & rows["cross_entropy"].notna()]


def measured(rows: "DataFrame") -> "DataFrame":
    """The rows that comparisons at equal size and text may read: a gate guards laws only."""
    return rows[rows["status"].isin(["done", "undertrained"]) & rows["cross_entropy"].notna()]


def undertrained(rows: "DataFrame") -> "DataFrame":
    return rows[(rows["status"] == "undertrained") & rows["cross_entropy"].notna()]


def by_size(rows: "DataFrame") -> "dict[float, DataFrame]":
    """N -> its rows, the smallest N first."""
    sizes = sorted(map(float, rows[N].dropna().unique()))
    return {size: rows[rows[N] == size] for size in sizes}


def one_pass(rows: "DataFrame") -> "DataFrame":
    """No token read twice."""
    return rows[rows["epochs"] <= 1]


def full_pass(rows: "DataFrame") -> "DataFrame":
    """The one-pass rows at 100 % of the data that read the most tokens."""
    rows = one_pass(rows[rows["fraction"] == 1])
    longest: float = rows["n_tokens"].max()
    return rows[rows["n_tokens"].eq(longest)]


def repeated(rows: "DataFrame") -> "DataFrame":
    """Trunks that read their data more than once, each at the number of epochs that was best."""
    return rows[(rows["epochs"] > 1) & rows["selected"]]


def paired(
    evidence: Evidence, method: str, fraction: float, teacher: Teacher | None = None
) -> "DataFrame":
    """Runs of ``method`` beside scratch runs: N, seed, ``gain`` (scratch minus method, nats).

    Pairs share size and seed. At fraction 1 they also share ``n_tokens``, and the longest common
    branch is taken; where data repeat, each method is at its own best number of epochs.
    """
    ours = measured(evidence.of(method, teacher=teacher))
    theirs = measured(evidence.of("scratch"))
    ours, theirs = (rows[rows["fraction"] == fraction] for rows in (ours, theirs))
    select, keys = (one_pass, [N, "seed", "n_tokens"]) if fraction == 1 else (repeated, [N, "seed"])
    pairs: DataFrame = select(ours).merge(select(theirs), on=keys, suffixes=("", "_scratch"))
    pairs["gain"] = pairs["cross_entropy_scratch"] - pairs["cross_entropy"]
    pairs = pairs.sort_values([N, "n_tokens"])
    is_longest = ~pairs.duplicated([N, "seed"], keep="last")
    return pairs.loc[is_longest]


def pareto(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Indices, in ascending x, of the points that none other matches in x and y and beats in one.

    Both are costs. Of equal points the first is kept.
    """
    kept: list[int] = []
    for index in sorted(range(len(x)), key=lambda i: (x[i], y[i])):
        if not kept or y[index] < y[kept[-1]]:
            kept.append(index)
    return kept


def _whole(frame: "DataFrame") -> "DataFrame":
    """Every column that the report reads, with its type."""
    import pandas as pd

    lacking = [name for name in ("method", N, "n_tokens", "cross_entropy") if name not in frame]
    if lacking:
        raise TableError(
            f"the table has no column {', '.join(lacking)}",
            where="table.csv",
            remedy="a study's report reads the table that `kdlaws evaluate` writes",
        )
    columns = dict.fromkeys([*frame.columns, *_TEXTS, *_NUMBERS, "selected"])
    whole = frame.reindex(columns=list(columns))
    for column in _TEXTS:
        whole[column] = whole[column].astype(object)
    for column in _NUMBERS:
        whole[column] = pd.to_numeric(whole[column], errors="coerce").astype(float)
    whole["perplexity"] = whole["perplexity"].fillna(whole["cross_entropy"].map(math.exp))
    whole["selected"] = whole["selected"].eq(True)
    whole["status"] = whole["status"].fillna("done")
    return whole.copy()  # in one piece again after the columns that were set


def _most_text_first(rows: "DataFrame") -> "DataFrame":
    """The runs on clean text: a fraction's teacher has read the fraction only."""
    clean = rows[rows["noise"].fillna(0) == 0]
    return clean.sort_values("fraction", ascending=False, kind="stable")


def _first_known(*columns: Iterable[float]) -> float:
    return next((float(v) for column in columns for v in column if not math.isnan(v)), math.nan)


def _most_frequent(values: Any) -> Any:
    modes = values.mode()
    return modes.iloc[0] if len(modes) else math.nan
