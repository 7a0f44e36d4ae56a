"""Which runs are scaling points: rules on what was measured, applied to records, not stored.

- A trunk that repeats its text is over once validation has risen from one branch to the next.
- Of its branches, the one with the best validation is ``selected``.
- A point is ``undertrained`` with fewer than 300 optimiser steps, unless validation has turned up
  after it, or where it does not beat a smoothed bigram table of the tokens it saw.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

MIN_STEPS = 300
_JUDGED_BY = ("trunk", "n_steps", "epochs", "n_unique_tokens", "status")

Run = Mapping[str, Any]


def trunk_is_over(done: Sequence[Run], n_branches: int) -> bool:
    """Whether a trunk, its finished branches given shortest first, needs no further branch."""
    if len(done) == n_branches or any(run["status"] == "diverged" for run in done):
        return True
    repeated = [run for run in done if run["epochs"] > 1]
    return any(_validation(after) > _validation(before) for before, after in pairwise(repeated))


def _validation(run: Run) -> float:
    value = run.get("validation_cross_entropy")
    return math.inf if value is None else float(value)


def apply_gates(runs: Sequence[Run], reference: Run | None) -> list[dict[str, Any]]:
    """The runs with ``selected`` and the final ``status``.

    ``reference`` is the study's reference.json, or None where it has not been measured. A record
    from elsewhere that lacks what the rules read cannot be judged, and stays as it is.
    """
    trunks: dict[str, list[Run]] = {}
    for run in sorted(filter(_can_be_judged, runs), key=lambda run: run["n_steps"]):
        trunks.setdefault(run["trunk"], []).append(run)
    return [
        _gated(run, trunks[run["trunk"]], reference) if _can_be_judged(run) else dict(run)
        for run in runs
    ]


def _can_be_judged(run: Run) -> bool:
    return all(run.get(column) is not None for column in _JUDGED_BY)


def _gated(run: Run, trunk: Sequence[Run], reference: Run | None) -> dict[str, Any]:
    status = run["status"]
    if status == "done" and not _trained_enough(run, trunk, reference):
        status = "undertrained"
    return {**run, "selected": _is_selected(run, trunk), "status": status}


def _is_selected(run: Run, trunk: Sequence[Run]) -> bool:
    if run["epochs"] <= 1:
        return True
    return run is min((each for each in trunk if each["epochs"] > 1), key=_validation)


def _trained_enough(run: Run, trunk: Sequence[Run], reference: Run | None) -> bool:
    longer = [each for each in trunk if each["n_steps"] > run["n_steps"]]
    turned = any(_validation(run) < _validation(each) < math.inf for each in longer)
    return (run["n_steps"] >= MIN_STEPS or turned) and _beats_bigram(run, reference)


def _beats_bigram(run: Run, reference: Run | None) -> bool:
    """The line is of raw text, so a run on curated text is not judged by it."""
    if run.get("quality") == "curated":
        return True
    bigram = {
        row["n_unique_tokens"]: row["cross_entropy"] for row in (reference or {}).get("bigram", [])
    }
    line = bigram.get(run["n_unique_tokens"])
    measured = run.get("cross_entropy")
    return line is None or measured is None or measured < line
