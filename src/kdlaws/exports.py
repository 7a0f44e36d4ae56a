"""Runs that were exported from Weights & Biases or MLflow, in our words.

An export is known by its columns. Their shapes, and where each is documented:

- W&B, the page's runs table as CSV (documented nowhere; as in an export of 2025 that its owner
  published): ``Name, Agent, State, Notes, User, Tags, Created, Runtime, Sweep``, older ones without
  ``Agent``, then configuration and summary by their own names, a nested one with dots. All cells
  are quoted; an unknown one is empty, or ``-``.
- W&B, ``wandb.Api().runs(...)`` (docs.wandb.ai, "Import and export data"): each run's ``name``,
  ``config`` and ``summary``, which that page's script writes to a CSV as Python prints them; with
  ``id`` and ``state`` where they were asked for. States: docs.wandb.ai, "Run states", and the class
  Run in wandb/apis/public/runs.py.
- MLflow, ``mlflow.search_runs()`` (mlflow.org, "Search Runs"; seen with 3.17): ``run_id,
  experiment_id, status, artifact_uri, start_time, end_time``, then ``metrics.*``, ``params.*``
  (text) and ``tags.*``. Its databases hold an infinite metric as the largest float64
  (``sanitize_metric_value`` in mlflow/store/tracking/sqlalchemy_store.py).
- MLflow, the page's CSV (``runInfosToCsv`` in mlflow/server/js/src/experiment-tracking/utils/
  CsvUtils.ts): ``Start Time, Duration, Run ID, Name, Source Type, Source Name, User, Status``, then
  parameters, metrics and tags by their own names, so that a name may occur twice. Newer versions
  put an apostrophe before a cell that begins with one of ``= + - @``.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdlaws.errors import TableError

if TYPE_CHECKING:
    import pandas as pd

UNFINISHED: tuple[str, ...] = (
    *("crashed", "failed", "killed", "pending", "preempted", "preempting"),
    *("running", "scheduled"),
)

# What other people call the columns, in lower case with underscores.
_ALIASES = {
    "n_params": ("n", "params", "parameters", "num_params", "model_size", "size"),
    "n_params_non_embedding": ("n_non_embedding", "non_embedding_params"),
    "n_tokens": ("d", "tokens", "num_tokens", "training_tokens", "train_tokens", "data"),
    "n_unique_tokens": ("u", "unique_tokens", "u_d"),
    "cross_entropy": ("loss", "l", "test_loss", "val_loss", "eval_loss", "final_loss"),
    "flops": ("c", "compute", "flop", "training_flops", "training_flop", "total_flops"),
}

_PREFIX = re.compile(r"(?:config|summary|params|metrics|tags)\.(?=.)")
_TWIN = re.compile(r" \(column \d+\)$")
_ESCAPED = re.compile(r"'[=+\-@]")
_CLAMPED = re.compile(r"(-?)1\.79769313\d*e\+308")
_BARE_FLOAT = re.compile(r"(?<=[:\[,] )(-?(?:nan|inf))(?=[,\]}])")


@dataclass(frozen=True)
class _Export:
    """The columns that an export is known by, and those that name a run and say how it ended."""

    known_by: frozenset[str]
    name: str
    id: str
    state: str
    nested: tuple[str, ...] = ()


_EXPORTS = (
    _Export(frozenset({"Name", "State", "Created"}), "Name", "ID", "State"),
    _Export(frozenset({"name", "config", "summary"}), "name", "id", "state", ("config", "summary")),
    _Export(
        frozenset({"run_id", "experiment_id", "status", "artifact_uri"}),
        *("tags.mlflow.runName", "run_id", "status"),
    ),
    _Export(frozenset({"Run ID", "Name", "Source Type", "Status"}), "Name", "Run ID", "Status"),
)


def in_our_words(frame: pd.DataFrame) -> pd.DataFrame:
    """An export with ``run_id`` and ``status``, its nested columns spread; another table as it is.

    ``run_id`` is a run's name where no other run has it, else its ID. ``status`` is ``done`` for a
    run that finished, unless the run itself logged a ``status``, and else one of ``UNFINISHED``.
    Raises TableError for a configuration or summary that cannot be read.
    """
    export = next((each for each in _EXPORTS if each.known_by <= set(frame)), None)
    if export is None:
        return frame
    frame = _spread(frame.map(_as_logged), export.nested)
    run_ids, status = _run_ids(frame, export), _status(frame, export)
    frame["run_id"], frame["status"] = run_ids, status
    return frame


def _as_logged(cell: Any) -> Any:
    """The cell without an escape, and infinite where a database could not hold that."""
    if isinstance(cell, str) and _ESCAPED.match(cell):
        cell = cell[1:]
    clamped = _CLAMPED.fullmatch(str(cell))
    return float(f"{clamped[1]}inf") if clamped else cell


def _spread(frame: pd.DataFrame, nested: Sequence[str]) -> pd.DataFrame:
    """Columns of objects as a column for each of their keys, ``config.optimizer.lr``."""
    import pandas as pd

    for name in nested:
        objects = [_object(cell, name, row) for row, cell in enumerate(frame[name], start=1)]
        keys = pd.json_normalize(objects).add_prefix(f"{name}.").set_axis(frame.index)
        frame = pd.concat([frame.drop(columns=name), keys], axis=1)
    return frame


def _object(cell: Any, name: str, row: int) -> dict[str, Any]:
    """What a cell holds as an object, or as JSON's or Python's text of one; empty if missing."""
    if isinstance(cell, dict):
        return cell
    if cell is None or cell != cell or not str(cell).strip():
        return {}
    # Python prints what it cannot read: a float that is not a number.
    for read, text in ((json.loads, cell), (ast.literal_eval, _BARE_FLOAT.sub(r"'\1'", str(cell)))):
        try:
            value = read(text)
        except (TypeError, ValueError, SyntaxError):
            continue
        if isinstance(value, dict):
            return value
    raise TableError(
        f"{name} is neither a JSON object nor Python's text of a dictionary",
        where=f"row {row}",
        remedy="write it as a JSON object, or each of its values as a column",
    )


def _texts(frame: pd.DataFrame, column: Any) -> list[str | None]:
    """The cells as text without margins; None for a missing one, or a missing column."""
    if column not in frame:
        return [None] * len(frame)
    cells = frame[column].astype(object)
    return [str(cell).strip() or None for cell in cells.where(cells.notna(), "")]


def _run_ids(frame: pd.DataFrame, export: _Export) -> list[str | None]:
    names, ids = _texts(frame, export.name), _texts(frame, export.id)
    n_runs = Counter(names)
    numbered = [f"{name} (row {row})" if name else None for row, name in enumerate(names, start=1)]
    return [
        name if name and n_runs[name] == 1 else run_id or fallback
        for name, run_id, fallback in zip(names, ids, numbered, strict=True)
    ]


def _status(frame: pd.DataFrame, export: _Export) -> list[str | None]:
    logged: list[Any] = [
        name for name in frame if bare_name(name) == "status" and name != export.state
    ]
    own = _texts(frame, logged[0] if logged else None)
    return [_ended(*each) for each in zip(_texts(frame, export.state), own, strict=True)]


def _ended(state: str | None, own: str | None) -> str | None:
    if state is None:
        return own
    state = state.lower()
    if state == "finished":
        return own or "done"
    return state if state in UNFINISHED else "failed"


# --- names --------------------------------------------------------------------------------------


def told_apart(header: Sequence[Any]) -> list[str]:
    """The names of columns; a blank one, or one that occurs twice, with the column's number."""
    names = [str(name).strip() for name in header]
    n_columns = Counter(names)
    return [
        name if name and n_columns[name] == 1 else f"{name} (column {number})".strip()
        for number, name in enumerate(names, start=1)
    ]


def bare_name(column: Any) -> str:
    """``loss`` for ``metrics.loss``, and for ``loss (column 9)``."""
    return _PREFIX.sub("", _TWIN.sub("", str(column)), count=1)


def find_column(frame: pd.DataFrame, name: str, ours: str) -> str | None:
    """The column that is meant by ``name``: itself, or the one with that bare name, if any.

    Raises TableError where several have it and differ; ``ours`` is what the column is wanted for.
    """
    if name in frame:
        return name
    found = [str(column) for column in frame if bare_name(column) == name]
    if any(not frame[column].equals(frame[found[0]]) for column in found[1:]):
        raise TableError(
            f"may be {' or '.join(found)}, which differ",
            where=f"column {name}",
            remedy=f'say which: --columns "{ours}={found[0]}"',
        )
    return found[0] if found else None


def contract_names(frame: pd.DataFrame, contract: Iterable[str]) -> pd.DataFrame:
    """The table with each name of the contract that it has under a prefix, without the prefix."""
    found = {find_column(frame, name, name): name for name in contract}
    return frame.rename(columns={column: name for column, name in found.items() if column})


def rename_hint(frame: pd.DataFrame, missing: Sequence[str]) -> str:
    """The ``--columns`` that probably names the columns that a table seems to lack."""
    theirs = {re.sub(r"\W+", "_", bare_name(name).lower()): name for name in frame}
    likely = {
        name: theirs[alias]
        for name in missing
        for alias in reversed(_ALIASES.get(name, ()))
        if alias in theirs
    }
    renames = ",".join(f"{ours}={column}" for ours, column in likely.items())
    return f'try --columns "{renames}"' if likely else "name them: --columns ours=theirs,..."
