"""Which rows of a table are used, and what a law reads of them.

``select`` is ``--where``; ``law_columns`` leaves out what is no point of the law, chooses the N and
refuses to pool what no law describes together. Each row left out is listed, none is guessed.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdlaws import quantities
from kdlaws.errors import TableError
from kdlaws.tables import (
    LoadedTable,
    did_you_mean,
    parse_cell,
    rename_hint,
    row_labels,
    split_list,
)

if TYPE_CHECKING:
    import pandas as pd

_NEVER_POOLED = ("objective", "corpus", "tokenizer", "quality", "init")
_NOT_A_POINT = ("diverged", "failed", "undertrained")
_N_COLUMNS = {"total": "n_params", "non_embedding": "n_params_non_embedding"}

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARISON = re.compile(r"([^=!<>]*[^=!<>\s])\s*(!=|<=|>=|=|<|>)\s*([^=!<>]+)")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """One part of ``--where``. The value is text until the column says what it holds."""

    column: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.column}{self.operator}{self.value}"


@dataclass(frozen=True)
class LawInput:
    """What a law reads: one float64 value a run and column, ``cross_entropy`` among them.

    ``n_column`` names the N in use; ``trunk`` the unit of resampling of each run, or None where
    every run stands alone. ``dropped`` has readable lines for the ``n_dropped`` rows that were left
    out; ``notices``, each (code, message, remedy), what the fit has to warn of.
    """

    columns: Mapping[str, Floats]
    n_column: str
    trunk: list[str] | None
    dropped: tuple[str, ...]
    n_dropped: int
    notices: tuple[tuple[str, str, str], ...]


# --- which rows: --where ------------------------------------------------------------------------


def select(table: LoadedTable, where: str) -> LoadedTable:
    """The rows for which every comparison of ``where`` holds; a missing value satisfies none.

    Raises TableError for an unknown column, a value that the column cannot hold, or no row left.
    """
    frame = table.frame
    for comparison in parse_where(where):
        if comparison.column not in frame:
            raise TableError(
                f"the table has no column {comparison.column!r}",
                where=f"--where {str(comparison)!r}",
                remedy=did_you_mean(comparison.column, frame),
            )
        frame = frame[_holds(frame[comparison.column], comparison)]
    if frame.empty:
        raise TableError(
            f"no row is left after --where {where!r}",
            where=table.source["file"] or "",
            remedy=_values_hint(table.frame, where),
        )
    return replace(table, frame=frame)


def parse_where(text: str) -> list[Comparison]:
    """The comparisons of ``"method=token,n_tokens>=1e6"``, all of which must hold.

    Raises TableError for a part that is not column, one of ``= != < <= > >=``, value.
    """
    return [_parse_comparison(part) for part in split_list(text)]


def _parse_comparison(part: str) -> Comparison:
    match = _COMPARISON.fullmatch(part)
    if match is None:
        raise TableError(
            "is not a comparison",
            where=f"--where {part!r}",
            remedy='write for example --where "method=token,n_tokens>=1e6"; '
            f"the comparisons are {' '.join(_OPERATORS)}",
        )
    return Comparison(*match.groups())


def _holds(column: pd.Series[Any], comparison: Comparison) -> NDArray[np.bool_]:
    known = column.notna().to_numpy(copy=True)
    cells = column[known].infer_objects()
    if len(cells):
        value = _value_for(cells, comparison)
        known[known] = _OPERATORS[comparison.operator](cells, value).to_numpy(dtype=bool)
    return known


def _value_for(cells: pd.Series[Any], comparison: Comparison) -> bool | float | str:
    """The comparison's value, as what the column holds."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    value, where = comparison.value, f"--where {str(comparison)!r}"
    if is_numeric_dtype(cells) and not is_bool_dtype(cells):
        try:
            return quantities.parse_number(value)
        except ValueError as error:
            raise TableError(str(error), where=where, remedy="the column holds numbers") from None
    if comparison.operator not in ("=", "!="):
        raise TableError(
            f"{comparison.column} holds no numbers", where=where, remedy="compare with = or !="
        )
    if not is_bool_dtype(cells):
        return value
    if value.lower() not in ("true", "false"):
        raise TableError(f"{value!r} is neither true nor false", where=where)
    return value.lower() == "true"


def _values_hint(frame: pd.DataFrame, where: str) -> str:
    """What the columns that ``where`` compares do hold."""
    lines = []
    for column in dict.fromkeys(each.column for each in parse_where(where)):
        values = [str(value) for value in sorted(frame[column].dropna().unique())]
        lines.append(f"{column} holds {_shortened(values, ', ')}")
    return "\n  ".join(lines)


def _shortened(lines: Sequence[str], between: str = "\n  ") -> str:
    more = [f"and {len(lines) - 8} more"] if len(lines) > 8 else []
    return between.join([*lines[:8], *more])


# --- what a law reads ---------------------------------------------------------------------------


def choose_n_column(frame: pd.DataFrame, n: str | None) -> str:
    """Which N a law reads: without embeddings where every row has it, else the total.

    ``n`` overrides: ``total`` or ``non_embedding``. Raises TableError for anything else.
    """
    if n not in (None, *_N_COLUMNS):
        raise TableError(f"unknown N {n!r}", where="--n", remedy="give total or non_embedding")
    if n is not None:
        return _N_COLUMNS[n]
    preferred, other = _N_COLUMNS["non_embedding"], _N_COLUMNS["total"]
    usable = preferred in frame and (other not in frame or frame[preferred].notna().all())
    return preferred if usable else other


def law_columns(table: LoadedTable, reads: Sequence[str], *, n: str | None = None) -> LawInput:
    """The columns that a law reads, as float64 without a gap.

    ``N``, or either parameter count, stands for the N in use, which comes under its own name.
    ``flops`` comes along where every row has it, for the compute-only baseline. Left out and
    listed: runs that diverged, failed or are undertrained; runs that repeat data, unless the law
    reads ``n_unique_tokens``; rows without a finite value in a column that is needed. Teachers
    stay with students: a teacher is a run from scratch. Several methods in one fit are noticed.

    Raises TableError when a column is missing, when rows must not be pooled, or none is left.
    """
    file = table.source["file"] or ""
    frame, failures = _without_failures(table.frame)
    frame, repeats = _without_repeats(frame, reads, file)
    frame = _with_flops(frame, file)
    n_column = choose_n_column(frame, n)
    values = _values(frame, _needed(frame, reads, n_column), file)
    dropped = (*table.dropped, *failures, *repeats, *_gaps(row_labels(frame), values))
    complete = np.all([np.isfinite(cells) for cells in values.values()], axis=0)
    frame = frame[complete]
    if frame.empty:
        raise TableError("no row is left for the law", where=file, remedy=_shortened(dropped))
    _refuse_to_pool(frame, file)
    columns = {name: cells[complete] for name, cells in values.items()}
    if "flops" in frame and np.isfinite(flops := _numbers(frame, "flops", file)).all():
        columns["flops"] = flops
    n_dropped = len(table.frame) + len(table.dropped) - len(frame)
    return LawInput(columns, n_column, _trunks(frame), dropped, n_dropped, _notices(frame))


def _without_failures(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    if "status" not in frame:
        return frame, []
    out = frame["status"].isin(_NOT_A_POINT)
    reasons = zip(row_labels(frame[out]), frame["status"][out], strict=True)
    return frame[~out], [f"{label}: {status}" for label, status in reasons]


def _without_repeats(
    frame: pd.DataFrame, reads: Sequence[str], file: str
) -> tuple[pd.DataFrame, list[str]]:
    if "epochs" not in frame or "n_unique_tokens" in reads:
        return frame, []
    out = _numbers(frame, "epochs", file) > 1 + 1e-9
    line = f"{out.sum()} rows that repeat data (epochs > 1): they need the data-constrained law"
    return frame[~out], [line] if out.any() else []


def _with_flops(frame: pd.DataFrame, file: str) -> pd.DataFrame:
    """With ``flops``, what a run alone costs: the student's, and its teacher's inference."""
    if "student_flops" not in frame:
        return frame
    flops = _numbers(frame, "student_flops", file)
    if "teacher_inference_flops" in frame:
        inference = _numbers(frame, "teacher_inference_flops", file)
        if "teacher" in frame:
            inference[frame["teacher"].isna() & np.isnan(inference)] = 0.0
        flops = flops + inference
    return frame.assign(flops=flops)


def _needed(frame: pd.DataFrame, reads: Sequence[str], n_column: str) -> list[str]:
    """The table's columns for the law's. Without ``flops``, laws compute 6 N D instead."""
    any_n = {"N", *_N_COLUMNS.values()}
    names = [n_column if name in any_n else name for name in reads]
    if "flops" in names and "flops" not in frame and {n_column, "n_tokens"} <= set(frame):
        names[names.index("flops")] = n_column
        names.append("n_tokens")
    return list(dict.fromkeys((*names, "cross_entropy")))


def _values(frame: pd.DataFrame, needed: Sequence[str], file: str) -> dict[str, Floats]:
    missing = [name for name in needed if name not in frame]
    if missing:
        raise TableError(
            f"the table has no column {', '.join(missing)}; it has {', '.join(map(str, frame))}",
            where=file,
            remedy=rename_hint(frame, missing),
        )
    return {name: _numbers(frame, name, file) for name in needed}


def _numbers(frame: pd.DataFrame, column: str, file: str) -> Floats:
    numbers = []
    for label, cell in zip(row_labels(frame), frame[column].tolist(), strict=True):
        try:
            numbers.append(parse_cell(cell))
        except ValueError:
            raise TableError(
                f"{label}: {column} is {cell!r}, which is not a number",
                where=file,
                remedy="numbers are written 1000, 1e6, 2M or 0.1B; leave unknown cells empty",
            ) from None
    return np.array(numbers, dtype=np.float64)


def _gaps(labels: Iterable[str], values: Mapping[str, Floats]) -> Iterator[str]:
    for row, label in enumerate(labels):
        gaps = {name: cells[row] for name, cells in values.items() if not np.isfinite(cells[row])}
        if gaps:
            each = (f"{name} is {'missing' if np.isnan(x) else x}" for name, x in gaps.items())
            yield f"{label}: {', '.join(each)}"


def _trunks(frame: pd.DataFrame) -> list[str] | None:
    """The trunk of each run; one that names none stands alone."""
    if "trunk" not in frame or frame["trunk"].isna().all():
        return None
    trunks: list[str] = frame["trunk"].where(frame["trunk"].notna(), row_labels(frame)).tolist()
    return trunks


# --- what is fitted together --------------------------------------------------------------------


def _refuse_to_pool(frame: pd.DataFrame, file: str) -> None:
    """Raise TableError where rows differ in what no law describes together."""
    kinds = {name: _kinds(frame, name) for name in _NEVER_POOLED}
    mixed = {name: counts for name, counts in kinds.items() if len(counts) > 1}
    if not mixed:
        return
    found = (f"{name} ({_listed(counts)})" for name, counts in mixed.items())
    [(usual, _)] = Counter(frame[list(mixed)].itertuples(index=False, name=None)).most_common(1)
    split = ",".join(f"{name}={value}" for name, value in zip(mixed, usual, strict=True) if value)
    raise TableError(
        f"rows that differ in {' and in '.join(found)} are not fitted together",
        where=file,
        remedy=f'choose, for example: --where "{split}"',
    )


def _notices(frame: pd.DataFrame) -> tuple[tuple[str, str, str], ...]:
    """What may be fitted together, but not silently: one law through several methods."""
    methods = _kinds(frame, "method")
    if len(methods) < 2:
        return ()
    message = f"one law is fitted to several methods ({_listed(methods)})"
    choices = " or ".join(f"--where method={method}" for method in methods if method)
    return (("pooled_methods", message, f"fit each alone: {choices}"),)


def _kinds(frame: pd.DataFrame, column: str) -> Counter[str]:
    """Rows by what the column says; unknown, the empty text, is a kind of its own."""
    return Counter(frame[column].fillna("")) if column in frame else Counter()


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{value or 'unknown'}: {count} rows" for value, count in counts.items())
