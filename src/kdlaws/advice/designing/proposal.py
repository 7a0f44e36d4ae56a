"""Runs that somebody thinks of making: read from a study or a table, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdlaws.advice.planning.costs import TRAINING, Floats
from kdlaws.errors import TableError
from kdlaws.laws.cost import TWO_N, ForwardFlops, fitted_forward
from kdlaws.laws.law import L_T, METHOD, SCRATCH, D
from kdlaws.records import PLAN
from kdlaws.selection import LawInput, law_columns, select
from kdlaws.tables import LoadedTable, read_table

if TYPE_CHECKING:
    import pandas as pd

TABLE = "table.csv"
COOLDOWN = 0.2  # share of a branch that it does not have in common with longer ones


THE_SAME = ""  # as the runs of a fit that does not tell methods apart


@dataclass(frozen=True)
class ProposedTrunk:
    """Runs that share their training: one size and method, ended after each of ``n_tokens``.

    N, and the teacher's, by the proposal's convention; ``seed`` tells repeats apart.
    """

    method: str
    n_params: float
    n_tokens: tuple[float, ...]
    teacher_n_params: float | None = None
    teacher_cross_entropy: float | None = None
    seed: int = 0

    @property
    def is_taught(self) -> bool:
        return self.method not in (SCRATCH, THE_SAME)


@dataclass(frozen=True)
class Proposal:
    """Trunks, the N that they count, and what a token takes.

    ``dropped`` are readable lines on the rows of a table that no fit would use.
    """

    trunks: tuple[ProposedTrunk, ...]
    n_column: str = "n_params_non_embedding"
    forward: ForwardFlops = TWO_N
    dropped: tuple[str, ...] = ()

    @property
    def n_runs(self) -> int:
        return sum(len(trunk.n_tokens) for trunk in self.trunks)

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(sorted({trunk.method for trunk in self.trunks}))

    @cached_property
    def index(self) -> NDArray[np.int64]:
        """Which trunk each run belongs to, ``[runs]``."""
        return np.repeat(np.arange(len(self.trunks)), [len(t.n_tokens) for t in self.trunks])

    @property
    def labels(self) -> list[str]:
        """A name of the trunk of each run."""
        return [f"trunk {k}" for k in self.index]

    def columns(self) -> dict[str, Any]:
        """What a law reads of each run ``[runs]``; NaN where it has no teacher, or unknown."""
        runs = [self.trunks[k] for k in self.index]
        return {
            self.n_column: np.array([run.n_params for run in runs]),
            D: np.concatenate([trunk.n_tokens for trunk in self.trunks]),
            METHOD: np.array([run.method for run in runs]),
            f"teacher_{self.n_column}": _known(run.teacher_n_params for run in runs),
            L_T: _known(run.teacher_cross_entropy for run in runs),
        }

    @cached_property
    def flops(self) -> Floats:
        """Of each trunk ``[trunks]``: its own training, and its teacher reading the text once.

        The longest branch is paid in full, of each other one its cooldown alone. A teacher of
        unknown N costs nothing.
        """
        longest = np.array([max(trunk.n_tokens) for trunk in self.trunks])
        rest = np.array([sum(trunk.n_tokens) for trunk in self.trunks]) - longest
        n = np.array([trunk.n_params for trunk in self.trunks])
        teacher = np.nan_to_num(_known(trunk.teacher_n_params for trunk in self.trunks))
        training = TRAINING * self.forward(n) * (longest + COOLDOWN * rest)
        flops: Floats = training + self.forward(teacher) * longest
        return flops


def _known(values: Iterable[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


# --- reading ------------------------------------------------------------------------------------


def proposal_of(
    path: str | Path, *, n: str | None = None, where: str = "", columns: str = ""
) -> Proposal:
    """The students of a study's folder, of any run table, or of what a dry run prints as JSON.

    A folder is read by its table.csv, else its plan.json. ``cross_entropy`` is not needed. Runs on
    clean text that is read once, as a fit of them would use them: rows that it leaves out, such as
    undertrained ones, are listed in ``dropped``. ``n`` (total, non_embedding), ``where`` and
    ``columns`` (renames) are as of ``kdlaws fit``.

    Raises TableError where the file holds no runs, or a trunk's runs are of several kinds.
    """
    table = _table(Path(path), columns)
    if where:
        table = select(table, where)
    table = LoadedTable(_students(table), table.source, table.dropped)
    found = law_columns(table, ("N", D), n=n, optional=(METHOD, "teacher_N", L_T))
    return Proposal(tuple(_trunks(found)), found.n_column, _forward(found), found.dropped)


def _table(path: Path, columns: str) -> LoadedTable:
    if path.is_dir():
        there = [path / name for name in (TABLE, PLAN) if (path / name).exists()]
        path = there[0] if there else path
    rows = _planned(path) if path.suffix == ".json" else None
    if rows is None:
        return read_table(path, columns=columns)
    import pandas as pd

    frame = pd.DataFrame(rows, dtype=object)
    return LoadedTable(frame, {"file": path.name, "sha256": None}, ())


def _planned(path: Path) -> list[Mapping[str, Any]] | None:
    """The rows of a plan, or of a dry run's document; None where the file is neither."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    rows = document.get("runs") if isinstance(document, dict) else document
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise TableError(
            "holds no list of runs",
            where=str(path),
            remedy="give a study's folder, a run table, or what `kdlaws train CONFIG --dry-run "
            "--json` prints",
        )
    return rows


def _students(table: LoadedTable) -> pd.DataFrame:
    """On clean text; with a cross-entropy, which a fit asks for and a proposal does not have."""
    import pandas as pd

    frame = table.frame
    role, noise = (frame.get(name, pd.Series(dtype=object)) for name in ("role", "noise"))
    is_teacher = role.eq("teacher").reindex(frame.index, fill_value=False)
    is_noisy = pd.to_numeric(noise, errors="coerce").gt(0).reindex(frame.index, fill_value=False)
    students = frame[~is_teacher & ~is_noisy]
    if students.empty:
        raise TableError(
            "no student on clean text is in it",
            where=table.source["file"] or "",
            remedy="give a table with students of noise 0",
        )
    return students.assign(cross_entropy=1.0)


def _trunks(found: LawInput) -> Iterable[ProposedTrunk]:
    columns, labels = found.columns, found.trunk
    rows: dict[str, list[int]] = {}
    for row in range(len(columns[D])):
        rows.setdefault(labels[row] if labels else f"{row}", []).append(row)
    seeds: dict[tuple[Any, ...], int] = {}
    for label, each in rows.items():
        kind = _kind(found, label, each)
        tokens = tuple(sorted(float(columns[D][row]) for row in each))
        seeds[kind, tokens] = seed = seeds.get((kind, tokens), -1) + 1
        method, n_params, teacher_n, teacher_loss = kind
        yield ProposedTrunk(method, n_params, tokens, teacher_n, teacher_loss, seed)


def _kind(
    found: LawInput, label: str, rows: Sequence[int]
) -> tuple[str, float, float | None, float | None]:
    """Method, N and teacher, which all runs of a trunk have in common; TableError otherwise."""
    columns = found.columns
    names = (METHOD, found.n_column, f"teacher_{found.n_column}", L_T)
    kinds = {tuple(_cell(columns[name][row]) for name in names) for row in rows}
    if len(kinds) > 1:
        raise TableError(
            f"trunk {label!r} has runs of {len(kinds)} methods, sizes or teachers",
            where=found.source["file"] or "",
            remedy="let the column trunk name what shares its training, or leave it out",
        )
    [kind] = kinds
    return kind


def _cell(value: Any) -> Any:
    """Text, a number, or None for what is not known."""
    if isinstance(value, str):
        return value
    return float(value) if np.isfinite(value) else None


def _forward(found: LawInput) -> ForwardFlops:
    flops = found.columns.get("forward_flops_per_token")
    fitted = None if flops is None else fitted_forward(found.columns[found.n_column], flops)
    return fitted or TWO_N
