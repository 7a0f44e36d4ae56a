"""An unfinished trunk's checkpoints: safetensors and JSON, each whole or absent, last few kept."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from kdlaws.records import file_digest, read_json, write_json


def save(
    folder: Path, step: int, tensors: dict[str, Tensor], progress: Mapping[str, Any], keep: int
) -> None:
    """Weights first, then the small file that names their hash; older ones go last."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{step}.safetensors"
    partial = weights.with_suffix(".partial")
    save_file(tensors, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    sha256 = file_digest(partial)
    partial.replace(weights)
    write_json(weights.with_suffix(".json"), {"sha256": sha256, "progress": progress})
    _keep_last(folder, step, keep)


def _keep_last(folder: Path, step: int, keep: int) -> None:
    """Those of later steps go, too: training went on from before them."""
    every = steps(folder)
    kept = [each for each in every if each <= step][-keep:]
    for old in set(every).difference(kept):
        (folder / f"{old}.json").unlink()
        (folder / f"{old}.safetensors").unlink(missing_ok=True)


def load(folder: Path, latest: int) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and progress of the last sound checkpoint from no later than step ``latest``.

    None where there is none. One whose weights are absent or damaged is passed over.
    """
    for step in reversed([step for step in steps(folder) if step <= latest]):
        weights = folder / f"{step}.safetensors"
        document = read_json(folder / f"{step}.json")
        if weights.exists() and file_digest(weights) == document["sha256"]:
            return load_file(weights), document["progress"]
    return None


def steps(folder: Path) -> list[int]:
    """Steps that have a checkpoint, ascending."""
    return sorted(int(file.stem) for file in folder.glob("[0-9]*.json"))
