"""One run, one record: a JSON file that is written last, to a temporary name, then renamed.

A run is done when its ``record.json`` exists. Resuming, skipping and merging folders from several
machines need nothing more.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdlaws.errors import ArtefactError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA = 1
RECORD, EVALUATION = "record.json", "evaluation.json"
PLAN, REFERENCE, LOSSES = "plan.json", "reference.json", "losses.npz"
WEIGHTS = Path("model") / "model.safetensors"


def write_text(path: Path, text: str) -> None:
    """Write all of ``path`` or nothing: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, document: object) -> None:
    """Atomic, human-readable JSON; NaN and infinities become null."""
    write_text(path, json.dumps(finite(document), indent=1, allow_nan=False) + "\n")


def finite(document: Any) -> Any:
    """The document with every number that JSON cannot hold replaced by None."""
    if isinstance(document, Mapping):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [finite(value) for value in document]
    if isinstance(document, float) and not math.isfinite(document):
        return None
    return document


def read_json(path: Path) -> Any:
    """Raises ArtefactError naming the file when it is absent or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError("there is no such file", where=str(path)) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtefactError(
            f"not valid JSON ({error})", where=str(path), remedy="remove it, or put it back"
        ) from None


def digest(document: object) -> str:
    """SHA-256 of a document's canonical JSON: equal content, equal identity."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_folders(folder: Path) -> Iterator[Path]:
    """The folders below ``folder`` that hold a record, by name."""
    return (path.parent for path in sorted(folder.glob(f"*/{RECORD}")))


def read_record(folder: Path) -> dict[str, Any]:
    """A run's record. Raises ArtefactError where it is none."""
    record = read_json(folder / RECORD)
    if not isinstance(record, dict) or not record.get("run_id"):
        raise ArtefactError(
            "is not the record of a run: it has no run_id",
            where=str(folder / RECORD),
            remedy="remove it, or put back what `kdlaws train` wrote",
        )
    return {"status": "done", **record}


def read_run(folder: Path) -> dict[str, Any]:
    """A run's record with its evaluation, where there is one, laid over it."""
    run = read_record(folder)
    if (folder / EVALUATION).exists():
        run |= read_json(folder / EVALUATION)
    return run


def write_losses(folder: Path, losses: "Mapping[str, NDArray[np.float64]]") -> None:
    """Every run's nats per token on each test sequence, in one small file, single precision."""
    import numpy as np

    partial = folder / f".{LOSSES}.{os.getpid()}.partial.npz"
    np.savez_compressed(
        partial,
        run_id=np.array(list(losses)),
        nll=np.array(list(losses.values()), dtype=np.float32),
    )
    partial.replace(folder / LOSSES)


_DAMAGED = (OSError, EOFError, TypeError, ValueError, KeyError, NotImplementedError)


def read_losses(folder: Path) -> "dict[str, NDArray[np.float64]]":
    """What ``write_losses`` wrote, by run_id; empty where there is no such file.

    Raises ArtefactError where the file is none of ours.
    """
    import zipfile
    import zlib

    import numpy as np

    file = folder / LOSSES
    if not file.exists():
        return {}
    try:
        # opened here: numpy leaves a damaged archive open
        with file.open("rb") as opened, np.load(opened) as arrays:
            pairs = zip(arrays["run_id"], arrays["nll"].astype(np.float64), strict=True)
            return {str(run_id): nll for run_id, nll in pairs}
    except (*_DAMAGED, zipfile.BadZipFile, zlib.error) as error:
        raise ArtefactError(
            f"cannot be read ({error})", where=str(file), remedy="run evaluate again"
        ) from None
