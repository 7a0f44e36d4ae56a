"""Runs as one table: a folder of runs, or anybody's file, in the contract's columns.

Every column is described in ``docs/table.md``. In memory numbers are float64, so that counts
cannot overflow; text and booleans are objects; what is unknown is NaN or None. Which rows are used,
and what a law reads of them, is in ``selection``.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdlaws import quantities, records
from kdlaws.errors import ArtefactError, MissingExtraError, TableError
from kdlaws.exports import contract_names, find_column, in_our_words, told_apart
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
    *("embedding_weight", "learning_rate", "teacher_stream_cross_entropy"),
    *("divergence", "jsd_beta", "teacher_outputs"),
    *("n_targets", "teacher_heldout", "pseudo_perplexity", "masked_share"),
)

TEXT_COLUMNS = frozenset(
    (
        *("run_id", "study", "role", "objective", "method", "init", "corpus", "tokenizer"),
        *("quality", "trunk", "teacher", "device", "status", "divergence", "teacher_outputs"),
        "teacher_heldout",
    )
)
_NAMES = (*COLUMNS, "flops")  # of foreign tables only
_SORTED_BY = ["role", "n_params", "method", "fraction", "n_tokens", "seed", "run_id"]

_NOT_AVAILABLE = frozenset({"", "-", "na", "n/a", "nan", "none", "null"})
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?")
_TRUTHS = {"true": True, "false": False}


@dataclass(frozen=True)
class LoadedTable:
    """A table, where it came from, and a readable line for each row of it that is empty."""

    frame: pd.DataFrame
    source: Mapping[str, str | None]
    dropped: tuple[str, ...]


# --- reading ------------------------------------------------------------------------------------


def study_table(folder: Path) -> pd.DataFrame:
    """The table of a study's folder: one row for each run in it that has a record.

    Raises TableError when no run is finished, or naming the record that cannot be read.
    """
    return _study_frame(_read_runs(Path(folder)))


def read_table(path: Path, *, columns: str = "") -> LoadedTable:
    """Read a CSV, .parquet or .jsonl file, an export (see ``exports``), or a folder of runs.

    ``columns`` is read by ``rename_columns``. Columns that the contract does not know stay. Raises
    TableError for what cannot be read or has no rows, or for a column that two could be, and
    MissingExtraError for a Parquet file without pyarrow.
    """
    path = Path(path)
    frame, sha256 = _read_folder(path) if path.is_dir() else _read_file(path)
    frame = rename_columns(in_our_words(frame), columns)
    # Before the cells are typed: the contract's text columns are known by their names.
    frame = _typed_frame(contract_names(frame, _NAMES))
    is_empty = frame.isna().all(axis=1)
    if is_empty.all():
        raise TableError("the table has no rows", where=str(path))
    dropped = tuple(f"{label}: is empty" for label in row_labels(frame[is_empty]))
    return LoadedTable(frame[~is_empty], {"file": path.resolve().name, "sha256": sha256}, dropped)


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
        return records.read_run(folder)
    except ArtefactError as error:
        raise TableError(error.what, where=error.where, remedy=error.remedy) from None


def _read_file(path: Path) -> tuple[pd.DataFrame, str]:
    read = _READERS.get(path.suffix.lower(), _read_csv)
    try:
        content = path.read_bytes()
        return read(content), hashlib.sha256(content).hexdigest()
    except FileNotFoundError:
        raise TableError("there is no such file or folder", where=str(path)) from None
    except (OSError, ValueError) as error:
        raise TableError(
            f"cannot be read as a table: {str(error).strip()}",
            where=str(path),
            remedy="a table is a CSV, .parquet or .jsonl file, or a folder of runs",
        ) from None


def _read_csv(content: bytes) -> pd.DataFrame:
    """Cells as text: pandas would guess types, and its default reading of floats rounds."""
    import pandas as pd

    text = content.decode("utf-8-sig")
    cells: dict[str, Any] = {"dtype": object, "keep_default_na": False, "skipinitialspace": True}
    frame: pd.DataFrame = pd.read_csv(io.StringIO(text), **cells)
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError("the rows have more cells than the header")
    if len(frame.columns) == 1 and (found := re.search(r"[;\t|]", str(frame.columns[0]))):
        raise ValueError(f"its cells are separated by {found[0]!r}, not by commas")
    header: pd.DataFrame = pd.read_csv(io.StringIO(text), header=None, nrows=1, **cells)
    return frame.set_axis(told_apart(header.iloc[0].tolist()), axis=1)


def _read_json_lines(content: bytes) -> pd.DataFrame:
    import pandas as pd

    rows = [json.loads(line) for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    for index, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"row {index} is not a JSON object")
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


# --- renaming -----------------------------------------------------------------------------------


def rename_columns(frame: pd.DataFrame, text: str) -> pd.DataFrame:
    """Give columns the contract's names: ``"n_params=N,n_tokens=D,cross_entropy=loss"``.

    An export's prefix may be left out: ``loss`` for ``metrics.loss``. Raises TableError for a name
    that the contract, or the table, does not have, and for one that two columns could be.
    """
    renamed: dict[str, str] = {}
    for part in split_list(text):
        ours, equals, theirs = (each.strip() for each in part.partition("="))
        if not equals:
            raise _bad_rename(part, "is not a pair of names")
        if ours not in _NAMES:
            raise _bad_rename(part, f"the contract has no column {ours!r}", ours, COLUMNS)
        column = find_column(frame, theirs, ours)
        if column is None:
            raise _bad_rename(part, f"the table has no column {theirs!r}", theirs, frame)
        renamed[ours] = column
    return frame.drop(columns=list(renamed.values())).assign(
        **{ours: frame[theirs] for ours, theirs in renamed.items()}
    )


def _bad_rename(part: str, what: str, name: str = "", known: Iterable[Any] = ()) -> TableError:
    hint = f"; {did_you_mean(name, known)}" if name else ""
    remedy = f"write the contract's name = the table's, such as n_params=N{hint}"
    return TableError(what, where=f"--columns {part!r}", remedy=remedy)


# --- cells --------------------------------------------------------------------------------------


def _typed_frame(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(**{name: _typed(name, frame[name].tolist()) for name in map(str, frame)})


def _typed(name: str, cells: Sequence[Any]) -> pd.Series[Any]:
    """Booleans or numbers where every known cell is one, else text; the contract's text is text."""
    import pandas as pd

    cells = [_known(cell) for cell in cells]
    if name not in TEXT_COLUMNS:
        words = {str(cell).lower() for cell in cells if cell is not None}
        if words and words <= _TRUTHS.keys():
            return pd.Series([_TRUTHS.get(str(cell).lower()) for cell in cells], dtype=object)
        with contextlib.suppress(ValueError):
            return pd.Series(list(map(parse_cell, _ungrouped(cells))), dtype=np.float64)
    return pd.Series([None if cell is None else str(cell) for cell in cells], dtype=object)


def _ungrouped(cells: Sequence[Any]) -> list[Any]:
    """Without the commas between thousands, where a cell shows that they are no decimal commas."""
    grouped = {str(cell) for cell in cells if _GROUPED.fullmatch(str(cell))}
    if not any(cell.count(",") > 1 or "." in cell for cell in grouped):
        return list(cells)
    return [str(cell).replace(",", "") if str(cell) in grouped else cell for cell in cells]


def _known(cell: Any) -> Any:
    """The cell, text without its margins; None for what is missing."""
    import pandas as pd

    if isinstance(cell, str):
        return None if cell.strip().lower() in _NOT_AVAILABLE else cell.strip()
    is_nan = isinstance(cell, float) and math.isnan(cell)
    return None if is_nan or cell is pd.NA or cell is pd.NaT else cell


def parse_cell(cell: Any) -> float:
    """The number in a cell, NaN where it is missing. Raises ValueError for anything else."""
    cell = _known(cell)
    if cell is None:
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


# --- words for messages -------------------------------------------------------------------------


def row_labels(frame: pd.DataFrame) -> list[str]:
    """What a reader finds a row by: its run_id, or its number in the file."""
    rows = [f"row {index + 1}" for index in frame.index]
    if "run_id" not in frame:
        return rows
    return [_known(run_id) or row for run_id, row in zip(frame["run_id"], rows, strict=True)]


def split_list(text: str) -> list[str]:
    """What an option that takes a list joins by commas."""
    return [part.strip() for part in text.split(",")] if text.strip() else []


def did_you_mean(name: str, known: Iterable[Any]) -> str:
    known = list(map(str, known))
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the columns are {', '.join(known)}"
