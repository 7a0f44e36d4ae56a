"""Runs as one table: a folder of runs, or anybody's file, in the contract's columns.

Every column is described in ``docs/table.md``. In memory numbers are float64, so that counts
cannot overflow; text and booleans are objects; what is unknown is NaN or None.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import json
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdlaws import quantities, records
from kdlaws.errors import ArtefactError, MissingExtraError, TableError
from kdlaws.gates import apply_gates

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: tuple[str, ...] = (
    *("run_id", "study", "role", "objective", "method", "kd_weight", "temperature", "init"),
    *("corpus", "tokenizer", "fraction", "noise", "quality", "kept"),
    *("n_params", "n_params_non_embedding", "n_tokens", "n_unique_tokens", "epochs", "selected"),
    *("n_steps", "batch_tokens", "seed", "trunk"),
    *("teacher", "teacher_n_params", "teacher_n_params_non_embedding", "teacher_n_tokens"),
    *("teacher_cross_entropy", "teacher_overlap"),
    *("cross_entropy", "cross_entropy_se", "perplexity", "bits_per_byte"),
    *("kl_to_teacher", "agreement", "calibration_error"),
    *("student_flops", "teacher_inference_flops", "teacher_training_flops"),
    *("cache_saved_flops", "forward_flops_per_token"),
    *("prefill_ms_p50", "prefill_ms_p95", "decode_ms_p50", "decode_ms_p95"),
    *("peak_memory_mb", "size_mb", "device", "wall_s", "status"),
    "embedding_weight",
)

_TEXT_COLUMNS = frozenset(
    (
        *("run_id", "study", "role", "objective", "method", "init", "corpus", "tokenizer"),
        *("quality", "trunk", "teacher", "device", "status"),
    )
)
_SORTED_BY = ["role", "n_params", "method", "fraction", "n_tokens", "seed", "run_id"]
_NEVER_POOLED = ("objective", "corpus", "tokenizer", "quality", "init")
_NOT_A_POINT = ("diverged", "failed", "undertrained")

# What other people call the columns, in lower case with underscores.
_ALIASES = {
    "n_params": ("n", "params", "parameters", "num_params", "model_size", "size"),
    "n_params_non_embedding": ("n_non_embedding", "non_embedding_params"),
    "n_tokens": ("d", "tokens", "num_tokens", "training_tokens", "train_tokens", "data"),
    "n_unique_tokens": ("u", "unique_tokens", "u_d"),
    "cross_entropy": ("loss", "l", "test_loss", "val_loss", "eval_loss", "final_loss"),
    "flops": ("c", "compute", "flop", "training_flops", "training_flop", "total_flops"),
}
_NOT_AVAILABLE = frozenset({"-", "na", "n/a", "none", "null"})
_TRUTHS = {"true": True, "false": False}
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
class LoadedTable:
    """A table, where it came from, and a readable line for each row that was left out."""

    frame: pd.DataFrame
    source: Mapping[str, str | None]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class LawInput:
    """What a law reads: one float64 value a run and column, ``cross_entropy`` among them.

    ``n_column`` names the N in use; ``trunk`` the unit of resampling of each run, or None where
    every run stands alone; ``dropped`` has a readable line for what was left out.
    """

    columns: Mapping[str, Floats]
    n_column: str
    trunk: list[str] | None
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """One part of ``--where``. The value is text until the column says what it holds."""

    column: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.column}{self.operator}{self.value}"


def parse_number(text: object) -> float:
    """A number as people write it: ``2.8B``, ``1e9``, ``400k``. Raises TableError otherwise.

    >>> parse_number("400k")
    400000.0
    """
    try:
        return quantities.parse_number(text)
    except ValueError as error:
        raise TableError(str(error)) from None


# --- reading ------------------------------------------------------------------------------------


def study_table(folder: Path) -> pd.DataFrame:
    """The table of a study's folder: one row for each run in it that has a record.

    Raises TableError when no run is finished, or naming the record that cannot be read.
    """
    return _study_frame(_read_runs(Path(folder)))


def read_table(path: Path, *, columns: str = "", where: str = "") -> LoadedTable:
    """Read a CSV, .parquet or .jsonl file, or a folder of runs; rename, then select.

    ``columns`` is read by ``rename_columns`` and ``where`` by ``apply_where``. Columns that the
    contract does not know stay. Raises TableError for what cannot be read or leaves no row, and
    MissingExtraError for a Parquet file without pyarrow.
    """
    path = Path(path)
    frame, sha256 = _read_folder(path) if path.is_dir() else _read_file(path)
    frame = _typed_frame(rename_columns(frame, columns))
    blank = frame.isna().all(axis=1)
    dropped = [f"{label}: is empty" for label in _labels(frame[blank])]
    kept = apply_where(frame[~blank], where)
    if kept.empty:
        raise TableError(
            f"no row is left after --where {where!r}" if where else "the table has no rows",
            where=str(path),
            remedy=_values_hint(frame, where),
        )
    return LoadedTable(kept, {"file": path.resolve().name, "sha256": sha256}, tuple(dropped))


def _read_folder(folder: Path) -> tuple[pd.DataFrame, str]:
    runs = _read_runs(folder)
    return _study_frame(runs), records.digest(records.finite(runs))


def _study_frame(runs: Sequence[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(runs, dtype=object).reindex(columns=list(COLUMNS))
    return _typed_frame(frame).sort_values(_SORTED_BY, ignore_index=True)


def _read_runs(folder: Path) -> list[dict[str, Any]]:
    runs = [_read_run(each) for each in records.run_folders(folder)]
    if not runs:
        raise TableError(
            "no folder in it holds a finished run",
            where=str(folder),
            remedy="give the folder of a study, such as runs/default, that has been trained",
        )
    reference = folder / records.REFERENCE
    return apply_gates(runs, records.read_json(reference) if reference.exists() else None)


def _read_run(folder: Path) -> dict[str, Any]:
    try:
        run = records.read_run(folder)
    except ArtefactError as error:
        raise TableError(error.what, where=error.where, remedy=error.remedy) from None
    if not isinstance(run, dict) or not run.get("run_id"):
        raise TableError(
            "is not the record of a run: it has no run_id",
            where=str(folder / records.RECORD),
            remedy="remove it, or put back what `kdlaws train` wrote",
        )
    return run


def _read_file(path: Path) -> tuple[pd.DataFrame, str]:
    read = _READERS.get(path.suffix.lower(), _read_csv)
    try:
        content = path.read_bytes()
        return read(content), hashlib.sha256(content).hexdigest()
    except FileNotFoundError:
        raise TableError("there is no such file or folder", where=str(path)) from None
    except (OSError, ValueError) as error:
        raise TableError(
            f"cannot be read as a table: {error}",
            where=str(path),
            remedy="a table is a CSV, .parquet or .jsonl file, or a folder of runs",
        ) from None


def _read_csv(content: bytes) -> pd.DataFrame:
    """Cells as text: pandas would guess types, and its default reading of floats rounds."""
    import pandas as pd

    text = io.StringIO(content.decode("utf-8-sig"))
    frame = pd.read_csv(text, dtype=object, keep_default_na=False, skipinitialspace=True)
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError("the rows have more cells than the header")
    return frame.rename(columns=str.strip)


def _read_json_lines(content: bytes) -> pd.DataFrame:
    import pandas as pd

    rows = [json.loads(line) for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is not a JSON object")
    return pd.DataFrame(rows, dtype=object)


def _read_parquet(content: bytes) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(io.BytesIO(content), engine="pyarrow").reset_index(drop=True)
    except ImportError:
        raise MissingExtraError(
            "reading a Parquet file needs pyarrow", remedy="pip install kdlaws[parquet]"
        ) from None


_READERS: Mapping[str, Callable[[bytes], pd.DataFrame]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".json": _read_json_lines,
}


def _typed_frame(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(**{name: _typed(name, frame[name].tolist()) for name in _names(frame)})


def _typed(name: str, cells: Sequence[Any]) -> pd.Series[Any]:
    """Booleans or numbers where every known cell is one, else text; the contract's text is text."""
    import pandas as pd

    cells = [_known(cell) for cell in cells]
    if name not in _TEXT_COLUMNS:
        words = {str(cell).lower() for cell in cells if cell is not None}
        if words and words <= _TRUTHS.keys():
            return pd.Series([_TRUTHS.get(str(cell).lower()) for cell in cells], dtype=object)
        with contextlib.suppress(ValueError):
            return pd.Series([_float(cell) for cell in cells], dtype=np.float64)
    return pd.Series([None if cell is None else str(cell) for cell in cells], dtype=object)


def _known(cell: Any) -> Any:
    """The cell, text without its margins; None for what is missing."""
    import pandas as pd

    if isinstance(cell, str):
        return cell.strip() or None
    is_nan = isinstance(cell, float) and math.isnan(cell)
    return None if is_nan or cell is pd.NA or cell is pd.NaT else cell


def _float(cell: Any) -> float:
    if cell is None or str(cell).lower() in _NOT_AVAILABLE:
        return math.nan
    try:
        return float(cell)
    except (TypeError, ValueError):
        return quantities.parse_number(cell)


# --- writing ------------------------------------------------------------------------------------


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a CSV, all of it or nothing, that ``read_table`` reads back bit for bit."""
    records.write_text(Path(path), frame.to_csv(index=False, float_format=_exact))


def _exact(value: Any) -> str:
    """The shortest text that is this float again; whole numbers without a point."""
    whole = value.is_integer() and abs(value) < 2**53
    return f"{value:.0f}" if whole else repr(float(value))


# --- renaming and selecting ---------------------------------------------------------------------


def rename_columns(frame: pd.DataFrame, text: str) -> pd.DataFrame:
    """Give columns the contract's names: ``"n_params=N,n_tokens=D,cross_entropy=loss"``.

    Raises TableError for a name that the contract, or the table, does not have.
    """
    names: dict[str, str] = {}
    for part in _parts(text):
        ours, equals, theirs = (each.strip() for each in part.partition("="))
        if not equals:
            raise _bad_rename(part, "is not a pair of names")
        if ours not in (*COLUMNS, "flops"):
            raise _bad_rename(part, f"the contract has no column {ours!r}", ours, COLUMNS)
        if theirs not in frame:
            raise _bad_rename(part, f"the table has no column {theirs!r}", theirs, _names(frame))
        names[ours] = theirs
    return frame.drop(columns=list(names.values())).assign(
        **{ours: frame[theirs] for ours, theirs in names.items()}
    )


def _bad_rename(part: str, what: str, name: str = "", known: Sequence[str] = ()) -> TableError:
    hint = f"; {_near(name, known)}" if known else ""
    remedy = f"write the contract's name = the table's, such as n_params=N{hint}"
    return TableError(what, where=f"--columns {part!r}", remedy=remedy)


def parse_where(text: str) -> list[Comparison]:
    """The comparisons of ``"method=token,n_tokens>=1e6"``, all of which must hold.

    Raises TableError for a part that is not column, one of ``= != < <= > >=``, value.
    """
    return [_parse_comparison(part) for part in _parts(text)]


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


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []


def apply_where(frame: pd.DataFrame, text: str) -> pd.DataFrame:
    """The rows for which every comparison holds; a missing value satisfies none.

    Raises TableError for an unknown column, or a value that the column cannot hold.
    """
    for comparison in parse_where(text):
        if comparison.column not in frame:
            raise TableError(
                f"the table has no column {comparison.column!r}",
                where=f"--where {str(comparison)!r}",
                remedy=_near(comparison.column, _names(frame)),
            )
        frame = frame[_holds(frame[comparison.column], comparison)]
    return frame


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
            return parse_number(value)
        except TableError as error:
            raise TableError(error.what, where=where, remedy="the column holds numbers") from None
    if comparison.operator not in ("=", "!="):
        raise TableError(
            f"{comparison.column} holds no numbers", where=where, remedy="compare with = or !="
        )
    if not is_bool_dtype(cells):
        return value
    if value.lower() not in _TRUTHS:
        raise TableError(f"{value!r} is neither true nor false", where=where)
    return _TRUTHS[value.lower()]


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
    loaded: LoadedTable, law_columns: Sequence[str], *, n: str | None = None
) -> LawInput:
    """The columns that a law reads, as float64 without a gap.

    ``N``, or either parameter count, stands for the N in use, which comes under its own name.
    ``flops`` comes along where every row has it, for the compute-only baseline. Left out and
    listed: runs that diverged, failed or are undertrained; runs that repeat data, unless the law
    reads ``n_unique_tokens``; rows without a finite value in a column that is needed. Teachers
    stay with students: a teacher is a run from scratch.

    Raises TableError when a column is missing, when rows must not be pooled, or none is left.
    """
    where = loaded.source["file"] or ""
    frame, dropped = _without_failures(loaded.frame)
    if "n_unique_tokens" not in law_columns:
        frame, repeats = _without_repeats(frame, where)
        dropped += repeats
    frame = _with_flops(frame, where)
    n_column = choose_n_column(frame, n)
    needed = _needed(frame, law_columns, n_column)
    _require_columns(frame, needed, where)
    values = {name: _numbers(frame, name, where) for name in needed}
    complete = np.all([np.isfinite(cells) for cells in values.values()], axis=0)
    dropped += _gaps(_labels(frame), values)
    frame = frame[complete]
    if frame.empty:
        raise TableError("no row is left for the law", where=where, remedy=_shortened(dropped))
    _refuse_to_pool(frame, where)
    columns = {name: cells[complete] for name, cells in values.items()}
    if "flops" in frame and np.isfinite(flops := _numbers(frame, "flops", where)).all():
        columns["flops"] = flops
    return LawInput(columns, n_column, _trunks(frame), (*loaded.dropped, *dropped))


def _without_failures(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    if "status" not in frame:
        return frame, []
    out = frame["status"].isin(_NOT_A_POINT)
    reasons = zip(_labels(frame[out]), frame["status"][out], strict=True)
    return frame[~out], [f"{label}: {status}" for label, status in reasons]


def _without_repeats(frame: pd.DataFrame, where: str) -> tuple[pd.DataFrame, list[str]]:
    if "epochs" not in frame:
        return frame, []
    out = _numbers(frame, "epochs", where) > 1 + 1e-9
    line = f"{out.sum()} rows that repeat data (epochs > 1): they need the data-constrained law"
    return frame[~out], [line] if out.any() else []


def _with_flops(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """With ``flops``, what a run alone costs: the student's, and its teacher's inference."""
    if "student_flops" not in frame:
        return frame
    flops = _numbers(frame, "student_flops", where)
    if "teacher_inference_flops" in frame:
        inference = _numbers(frame, "teacher_inference_flops", where)
        if "teacher" in frame:
            inference[frame["teacher"].isna() & np.isnan(inference)] = 0.0
        flops = flops + inference
    return frame.assign(flops=flops)


def _needed(frame: pd.DataFrame, law_columns: Sequence[str], n_column: str) -> list[str]:
    """The table's columns for the law's. Without ``flops``, laws compute 6 N D instead."""
    any_n = {"N", *_N_COLUMNS.values()}
    names = [n_column if name in any_n else name for name in law_columns]
    if "flops" in names and "flops" not in frame and {n_column, "n_tokens"} <= set(frame):
        names[names.index("flops")] = n_column
        names.append("n_tokens")
    return list(dict.fromkeys((*names, "cross_entropy")))


def _require_columns(frame: pd.DataFrame, needed: Sequence[str], where: str) -> None:
    missing = [name for name in needed if name not in frame]
    if not missing:
        return
    theirs = {re.sub(r"\W+", "_", name.lower()): name for name in _names(frame)}
    likely = {
        name: theirs[alias]
        for name in missing
        for alias in reversed(_ALIASES.get(name, ()))
        if alias in theirs
    }
    renames = ",".join(f"{ours}={column}" for ours, column in likely.items())
    raise TableError(
        f"the table has no column {', '.join(missing)}; it has {', '.join(_names(frame))}",
        where=where,
        remedy=f'try --columns "{renames}"' if likely else "name them: --columns ours=theirs,...",
    )


def _numbers(frame: pd.DataFrame, column: str, where: str) -> Floats:
    numbers = []
    for label, cell in zip(_labels(frame), frame[column].tolist(), strict=True):
        try:
            numbers.append(_float(_known(cell)))
        except ValueError:
            raise TableError(
                f"{label}: {column} is {cell!r}, which is not a number",
                where=where,
                remedy="numbers are written 1000, 1e6, 2M or 0.1B; leave unknown cells empty",
            ) from None
    return np.array(numbers, dtype=np.float64)


def _gaps(labels: Iterable[str], values: Mapping[str, Floats]) -> Iterator[str]:
    for row, label in enumerate(labels):
        gaps = {name: cells[row] for name, cells in values.items() if not np.isfinite(cells[row])}
        if gaps:
            each = (f"{name} is {'missing' if np.isnan(x) else x}" for name, x in gaps.items())
            yield f"{label}: {', '.join(each)}"


def _refuse_to_pool(frame: pd.DataFrame, where: str) -> None:
    """Raise TableError where rows differ in what no law describes together."""
    present = [name for name in _NEVER_POOLED if name in frame]
    values = {name: Counter(frame[name].fillna("")) for name in present}
    mixed = {name: counts for name, counts in values.items() if len(counts) > 1}
    if not mixed:
        return
    found = (f"{name} ({_listed(counts)})" for name, counts in mixed.items())
    [(usual, _)] = Counter(frame[list(mixed)].itertuples(index=False, name=None)).most_common(1)
    split = ",".join(f"{name}={value}" for name, value in zip(mixed, usual, strict=True) if value)
    raise TableError(
        f"rows that differ in {' and in '.join(found)} are not fitted together",
        where=where,
        remedy=f'choose, for example: --where "{split}"',
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{value or 'unknown'}: {count} rows" for value, count in counts.items())


def _trunks(frame: pd.DataFrame) -> list[str] | None:
    """The trunk of each run; one that names none stands alone."""
    if "trunk" not in frame or frame["trunk"].isna().all():
        return None
    return [
        _known(trunk) or label for trunk, label in zip(frame["trunk"], _labels(frame), strict=True)
    ]


# --- words for messages -------------------------------------------------------------------------


def _labels(frame: pd.DataFrame) -> list[str]:
    """What a reader finds a row by: its run_id, or its number in the file."""
    rows = [f"row {index + 1}" for index in frame.index]
    if "run_id" not in frame:
        return rows
    return [_known(run_id) or row for run_id, row in zip(frame["run_id"], rows, strict=True)]


def _names(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns]


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(known)}"


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
