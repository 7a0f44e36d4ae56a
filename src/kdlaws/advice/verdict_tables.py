"""The readings behind a verdict, as a table of the page."""

from kdlaws.advice.captions import counted
from kdlaws.advice.grids import Cell, Table
from kdlaws.advice.judging.known import shown
from kdlaws.advice.judging.verdicts import N_NAMES, Reading, Verdict

HEAD = ("what", "estimate [90 %]", "method", "who pays", "N", "says", "runs", "note")


def readings(verdict: Verdict) -> Table:
    """A row a reading, in the order in which the claim takes them."""
    rows = [_row(each) for each in verdict.readings]
    return Table(f"{counted(len(rows), 'reading')}; claimed: {verdict.claimed}", "", HEAD, rows)


def _row(found: Reading) -> list[Cell]:
    return [
        found.what,
        shown(found.known, found.unit),
        found.method or "–",
        found.scenario or "–",
        N_NAMES.get(found.n_column, "–"),
        (found.verdict, found.verdict) if found.verdict else "–",
        str(len(found.runs)),
        found.note,
    ]
