"""What a study's saved artefacts say: its runs, which of them compare, and the fitted laws.

Everything that the figures, the summary and the page tell comes through here, so that they cannot
disagree. pandas is loaded by the functions that need it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdlaws.advice.columns import SETTINGS, N, whole
from kdlaws.advice.teachers import Teacher, teacher_of
from kdlaws.errors import TableError
from kdlaws.laws import Fit
from kdlaws.records import read_json, read_losses
from kdlaws.tables import LoadedTable, read_table

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

METHODS = ("scratch", "token", "embedding")


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
    def is_masked(self) -> bool:
        """Whether a loss is per masked token, and most tokens of the input have none."""
        return bool(self.runs["objective"].eq("masked").any())

    @property
    def per_token(self) -> str:
        """What a cross-entropy, a perplexity and a difference of them are counted per."""
        return "per masked token" if self.is_masked else "per token"

    @cached_property
    def target_share(self) -> float | None:
        """Share of the students' input tokens that have a loss; None where it is not known."""
        rows = self.students.dropna(subset=["n_targets", "n_tokens"])
        return float(rows["n_targets"].sum() / rows["n_tokens"].sum()) if len(rows) else None

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

    @property
    def largest_fraction(self) -> float:
        """The most data that a student read: 1 in most studies."""
        return self.fractions[0] if self.fractions else 1.0

    @cached_property
    def single_passes(self) -> frozenset[float]:
        """The fractions whose runs compare after a single pass: all of the data, if any run does.

        Less data is repeated to the best number of epochs, unless no run repeats it.
        """
        rows = measured(self.comparable)
        once, again = (set(kind(rows)["fraction"]) for kind in (one_pass, repeated))
        return frozenset((once - again) | ({1.0} if 1.0 in once or 1.0 not in again else set()))

    @cached_property
    def teachers(self) -> tuple[Teacher, ...]:
        """The one with most students first."""
        counts = self.students["teacher"].value_counts()
        found = [teacher_of(self.runs, str(run_id)) for run_id in counts.index]
        return tuple(sorted(found, key=lambda each: (-counts[each.run_id], each.cross_entropy)))

    @property
    def main_teacher(self) -> Teacher | None:
        return self.teachers[0] if self.teachers else None

    @cached_property
    def comparable(self) -> "DataFrame":
        """Students on clean data, each method at its usual settings; of any status."""
        return self.usual[self.usual["noise"].fillna(0) == 0]

    @cached_property
    def curated(self) -> "DataFrame":
        """Students on clean curated text, in a study that has raw text too; they are not usual."""
        rows = self.students[self.students["noise"].fillna(0) == 0]
        is_curated = rows["quality"].eq("curated")
        return rows[is_curated & (self.usual_quality != "curated")]

    @cached_property
    def usual_quality(self) -> str:
        """Raw, unless every student's text is curated."""
        is_curated = self.students["quality"].eq("curated")
        return "curated" if len(is_curated) and is_curated.all() else "raw"

    @cached_property
    def usual(self) -> "DataFrame":
        """Students at the most frequent divergence, outputs, weights, rate and batch of their kind.

        A kind is a method on a fraction of the data, in masked studies at a size, too: those have
        rates of their own. Curated text is never among raw.
        """
        is_curated = self.students["quality"].eq("curated")
        rows = self.students[is_curated == (self.usual_quality == "curated")]
        kind = ["method", "fraction", *([N] if self.is_masked else [])]
        for setting in SETTINGS:
            cells = rows.groupby(kind, dropna=False)[setting]
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
    if folder.is_file():
        raise TableError(
            "this is a file", where=str(folder), remedy="give the folder of a study, with table.csv"
        )
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
        table=replace(table, frame=whole(table.frame)),
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


def full_pass(rows: "DataFrame", fraction: float = 1.0) -> "DataFrame":
    """The one-pass rows at that share of the data that read the most tokens."""
    rows = one_pass(rows[rows["fraction"] == fraction])
    longest: float = rows["n_tokens"].max()
    return rows[rows["n_tokens"].eq(longest)]


def final(evidence: Evidence, rows: "DataFrame", fraction: float | None = None) -> "DataFrame":
    """One measured row a trunk: the longest pass over the data, or the best of its repeats.

    Of the most data, unless a fraction is given.
    """
    share = evidence.largest_fraction if fraction is None else fraction
    rows = measured(rows[rows["fraction"] == share])
    return full_pass(rows, share) if share in evidence.single_passes else repeated(rows)


def repeated(rows: "DataFrame") -> "DataFrame":
    """Trunks that read their data more than once, each at the number of epochs that was best."""
    return rows[(rows["epochs"] > 1) & rows["selected"]]


def paired(
    evidence: Evidence, method: str, fraction: float, teacher: Teacher | None = None
) -> "DataFrame":
    """Runs of ``method`` beside scratch runs: N, seed, ``gain`` (scratch minus method, nats).

    Pairs share size and seed. After a single pass they also share ``n_tokens``, and the longest
    common branch is taken; where data repeat, each method is at its own best number of epochs.
    """
    ours = measured(evidence.of(method, teacher=teacher))
    theirs = measured(evidence.of("scratch"))
    ours, theirs = (rows[rows["fraction"] == fraction] for rows in (ours, theirs))
    is_once = fraction in evidence.single_passes
    select, keys = (one_pass, [N, "seed", "n_tokens"]) if is_once else (repeated, [N, "seed"])
    pairs: DataFrame = select(ours).merge(select(theirs), on=keys, suffixes=("", "_scratch"))
    pairs["gain"] = pairs["cross_entropy_scratch"] - pairs["cross_entropy"]
    pairs = pairs.sort_values([N, "n_tokens"])
    is_longest = ~pairs.duplicated([N, "seed"], keep="last")
    return pairs.loc[is_longest]


def _most_frequent(values: Any) -> Any:
    modes = values.mode()
    return modes.iloc[0] if len(modes) else math.nan
