"""What a study's folder holds and what it lacks, from its plan and its records."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kdlaws.errors import ArtefactError, InputError
from kdlaws.gates import trunk_is_over
from kdlaws.records import EVALUATION, PLAN, RECORD, read_json, read_record

State = Literal["done", "diverged", "not needed", "missing"]


@dataclass(frozen=True)
class Entry:
    """A planned run and where it stands. ``not needed``: its trunk had ended before it."""

    columns: Mapping[str, Any]
    state: State
    is_evaluated: bool

    @property
    def run_id(self) -> str:
        return str(self.columns["run_id"])


@dataclass(frozen=True)
class Inventory:
    folder: Path
    entries: tuple[Entry, ...]

    @property
    def counts(self) -> Mapping[State, int]:
        return Counter(entry.state for entry in self.entries)


def seconds_by_trunk(rows: Iterable[Mapping[str, Any]], cooldown_share: float) -> dict[str, float]:
    """Seconds of one core for each trunk: its longest branch, and the others' cooldowns."""
    trunks: dict[str, list[float]] = {}
    for row in rows:
        trunks.setdefault(row["trunk"], []).append(float(row["seconds"]))
    return {
        trunk: (1 - cooldown_share) * max(seconds) + cooldown_share * sum(seconds)
        for trunk, seconds in trunks.items()
    }


def take_inventory(folder: Path) -> Inventory:
    """Raises InputError where no study has been planned in ``folder``."""
    if not (folder / PLAN).exists():
        raise InputError(
            f"there is no {PLAN} in it, so no study was started there",
            where=str(folder),
            remedy="give the folder of a study, such as runs/default",
        )
    planned = read_json(folder / PLAN)
    if not isinstance(planned, list) or not all("trunk" in row for row in planned):
        raise ArtefactError("is not the plan of a study", where=str(folder / PLAN))
    over = _trunks_that_are_over(folder, planned)
    return Inventory(folder, tuple(_entry(folder, columns, over) for columns in planned))


def _trunks_that_are_over(folder: Path, planned: list[dict[str, Any]]) -> set[str]:
    trunks: dict[str, list[dict[str, Any]]] = {}
    for columns in sorted(planned, key=lambda columns: columns["n_steps"]):
        trunks.setdefault(columns["trunk"], []).append(columns)
    return {
        trunk
        for trunk, branches in trunks.items()
        if trunk_is_over(_finished(folder, branches), len(branches))
    }


def _finished(folder: Path, branches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    runs = [folder / columns["run_id"] for columns in branches]
    return [read_record(run) for run in runs if (run / RECORD).exists()]


def _entry(folder: Path, columns: dict[str, Any], over: set[str]) -> Entry:
    run = folder / columns["run_id"]
    if not (run / RECORD).exists():
        state: State = "not needed" if columns["trunk"] in over else "missing"
        return Entry(columns, state, is_evaluated=False)
    status = read_record(run)["status"]
    return Entry(columns, status, is_evaluated=(run / EVALUATION).exists())


def trunk_steps(folder: Path) -> dict[str, int]:
    """Steps that each unfinished trunk has saved."""
    steps: dict[str, int] = {}
    for file in folder.glob("trunks/*/checkpoint/[0-9]*.json"):
        trunk = file.parts[-3]
        steps[trunk] = max(steps.get(trunk, 0), int(file.stem))
    return dict(sorted(steps.items()))
