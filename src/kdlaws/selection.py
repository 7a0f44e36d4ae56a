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
from kdlaws.exports import UNFINISHED, rename_hint
from kdlaws.tables import (
    TEXT_COLUMNS,
    LoadedTable,
    did_you_mean,
    parse_cell,
    row_labels,
    split_list,
)

if TYPE_CHECKING:
    import pandas as pd

_FORWARD = "forward_flops_per_token"
_NEVER_POOLED = ("objective", "masked_share", "corpus", "tokenizer", "quality", "init")
_NOT_A_POINT = ("diverged", "undertrained", *UNFINISHED)
_N_COLUMNS = {"total": "n_params", "non_embedding": "n_params_non_embedding"}
_TEACHER = (
    *("teacher", "teacher_cross_entropy", "teacher_n_tokens"),
    *("teacher_n_params", "teacher_n_params_non_embedding"),
)

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
Cells = NDArray[Any]  # float64, or text


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
    """What a law reads: one value a run and column, ``cross_entropy`` among them.

    Numbers are float64, text is an array of str. ``n_column`` names the N in use; ``trunk`` the
    unit of resampling of each run, or None where every run stands alone. ``source`` is the table's
    file and its SHA-256. ``dropped`` has readable lines for the ``n_dropped`` rows that were left
    out; ``notices``, each (code, message, remedy), what the fit has to warn of. ``method`` is that
    of all runs, None where they have several or do not say.
    """

    columns: Mapping[str, Cells]
    n_column: str
    trunk: list[str] | None
    source: Mapping[str, str | None]
    dropped: tuple[str, ...]
    n_dropped: int
    notices: tuple[tuple[str, str, str], ...]
    method: str | None = None

    def arguments(self) -> dict[str, Any]:
        """What fitting takes beside the columns and the notices, by name."""
        return {
            "n_column": self.n_column,
            "trunk": self.trunk,
            "source": {**self.source, "method": self.method},
            "n_dropped": self.n_dropped,
        }


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
                remedy=f"{did_you_mean(comparison.column, frame)} "
                "(a column that --columns renames goes by our name)",
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


def law_columns(
    table: LoadedTable,
    reads: Sequence[str],
    *,
    n: str | None = None,
    optional: Sequence[str] = (),
) -> LawInput:
    """The columns that a law reads: those of ``reads`` without a gap, ``optional`` where known.

    ``N``, or either parameter count, stands for the N in use, and ``teacher_N`` for the teacher's
    count of that kind; both come under their own names. What is not known of an ``optional`` column
    is NaN, or the empty text; a run of unknown method without a teacher is ``scratch``.
    ``flops`` comes along where every row has it, for the compute-only baseline, and
    ``forward_flops_per_token`` where it is known, for plans. Left out and listed: runs that
    diverged, did not finish or are undertrained; runs that repeat data, unless the law reads
    ``n_unique_tokens``; rows without a value in a column that is needed. Teachers stay with
    students: a teacher is a run from scratch. Several methods in one fit are noticed, unless the
    law reads ``method``.

    Raises TableError when a column is missing, when rows must not be pooled, or none is left.
    """
    file = table.source["file"] or ""
    frame, failures = _without_failures(table.frame)
    frame, repeats = _without_repeats(frame, reads, file)
    frame = _with_flops(frame, file)
    n_column = choose_n_column(frame, n)
    values = _values(frame, _needed(frame, reads, n_column), file)
    dropped = (*table.dropped, *failures, *repeats, *_gaps(row_labels(frame), values))
    complete = np.all([_is_known(cells) for cells in values.values()], axis=0)
    frame = frame[complete]
    if frame.empty:
        raise TableError("no row is left for the law", where=file, remedy=_shortened(dropped))
    _refuse_to_pool(frame, file)
    columns = {name: cells[complete] for name, cells in values.items()}
    columns |= {x: _where_known(frame, x, file) for x in _real_names(optional, n_column)}
    if "flops" in frame and np.isfinite(flops := _numbers(frame, "flops", file)).all():
        columns["flops"] = flops
    if _FORWARD in frame:
        columns[_FORWARD] = _where_known(frame, _FORWARD, file)
    n_dropped = len(table.frame) + len(table.dropped) - len(frame)
    notices = () if "method" in columns else _notices(frame)
    trunk = _trunks(frame, n_column)
    told = set(_kinds(frame, "method")) - {""}
    method = told.pop() if len(told) == 1 else None
    return LawInput(columns, n_column, trunk, table.source, dropped, n_dropped, notices, method)


def _without_failures(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    if "status" not in frame:
        return frame, []
    out = frame["status"].map(lambda status: str(status).lower()).isin(_NOT_A_POINT)
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
    names = _real_names(reads, n_column)
    if "flops" in names and "flops" not in frame and {n_column, "n_tokens"} <= set(frame):
        names[names.index("flops")] = n_column
        names.append("n_tokens")
    return list(dict.fromkeys((*names, "cross_entropy")))


def _real_names(names: Iterable[str], n_column: str) -> list[str]:
    stands_for = dict.fromkeys(("N", *_N_COLUMNS.values()), n_column)
    stands_for["teacher_N"] = f"teacher_{n_column}"
    return [stands_for.get(name, name) for name in names]


def _values(frame: pd.DataFrame, needed: Sequence[str], file: str) -> dict[str, Cells]:
    missing = [name for name in needed if name not in frame]
    if missing:
        raise TableError(
            f"the table has no column {', '.join(missing)}; it has {', '.join(map(str, frame))}",
            where=file,
            remedy=rename_hint(frame, missing),
        )
    return {name: _cells(frame, name, file) for name in needed}


def _where_known(frame: pd.DataFrame, column: str, file: str) -> Cells:
    """The cells of a column that the table need not have."""
    whole = frame if column in frame else frame.assign(**{column: None})
    cells = _cells(whole, column, file)
    return cells if cells.dtype == object else np.where(np.isfinite(cells), cells, np.nan)


def _cells(frame: pd.DataFrame, column: str, file: str) -> Cells:
    if column not in TEXT_COLUMNS:
        return _numbers(frame, column, file)
    text = frame[column].fillna("").astype(str).to_numpy(dtype=object, copy=True)
    if column == "method":
        text[(text == "") & ~_has_teacher(frame)] = "scratch"
    return text


def _has_teacher(frame: pd.DataFrame) -> NDArray[np.bool_]:
    return frame.reindex(columns=list(_TEACHER)).notna().any(axis=1).to_numpy(dtype=bool)


def _is_known(cells: Cells) -> NDArray[np.bool_]:
    return np.asarray(cells != "" if cells.dtype == object else np.isfinite(cells))


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


def _gaps(labels: Iterable[str], values: Mapping[str, Cells]) -> Iterator[str]:
    known = {name: _is_known(cells) for name, cells in values.items()}
    for row, label in enumerate(labels):
        gaps = {name: cells[row] for name, cells in values.items() if not known[name][row]}
        if gaps:
            each = (f"{name} is {_gap(cell)}" for name, cell in gaps.items())
            yield f"{label}: {', '.join(each)}"


def _gap(cell: object) -> str:
    return str(cell) if cell in (np.inf, -np.inf) else "missing"


def _trunks(frame: pd.DataFrame, n_column: str) -> list[str] | None:
    """What each run is resampled with: its trunk, else its size and seed; else it stands alone."""
    units = _by_trunk(frame) or _by_seed(frame, n_column)
    if units is None:
        return None
    return [unit or label for unit, label in zip(units, row_labels(frame), strict=True)]


def _by_trunk(frame: pd.DataFrame) -> list[str | None] | None:
    if "trunk" not in frame or frame["trunk"].isna().all():
        return None
    trunks: pd.Series[Any] = frame["trunk"].astype(object)
    return trunks.where(trunks.notna(), None).tolist()


def _by_seed(frame: pd.DataFrame, n_column: str) -> list[str | None] | None:
    """The runs of one size and seed, which share initial weights and the order of batches.

    Of one method and teacher too, where those are known. A run of unknown size or seed has no unit,
    and where no two runs share one, there are none.
    """
    import pandas as pd

    runs = frame.reindex(columns=[n_column, "seed", "method", "teacher"]).to_dict("records")
    known = [{name: cell for name, cell in run.items() if pd.notna(cell)} for run in runs]
    units = [
        ", ".join(f"{name} {cell}" for name, cell in run.items())
        if {n_column, "seed"} <= set(run)
        else None
        for run in known
    ]
    is_shared = any(count > 1 for unit, count in Counter(units).items() if unit)
    return units if is_shared else None


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
    return Counter(frame[column].astype(object).fillna("")) if column in frame else Counter()


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{value or 'unknown'}: {count} rows" for value, count in counts.items())
