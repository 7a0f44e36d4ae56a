"""What a claim is judged by: readings with intervals, the rule, and how verdicts combine.

The rule: a reading is supported if its 90 % interval lies inside the claimed range, contradicted if
it is disjoint from it, else undetermined. An end that the runs do not bound is None; such a reading
can be contradicted and never supported.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, Unpack

from kdlaws.advice.judging.known import Known, shown

N_NAMES = {"n_params_non_embedding": "N without embeddings", "n_params": "total N"}
"""How N is counted, the usual way first."""

Side = Literal["supported", "contradicted", "undetermined"]
OPPOSITE: dict[Side, Side] = {"supported": "contradicted", "contradicted": "supported"}


@dataclass(frozen=True)
class Claimed:
    """The claimed range, closed; an infinite end is none."""

    lo: float = -math.inf
    hi: float = math.inf

    def verdict(self, known: Known) -> Side:
        lo = -math.inf if known.lo is None else known.lo
        hi = math.inf if known.hi is None else known.hi
        if hi < self.lo or lo > self.hi:
            return "contradicted"
        bounded = known.lo is not None and known.hi is not None
        return "supported" if bounded and self.lo <= lo and hi <= self.hi else "undetermined"


@dataclass(frozen=True)
class Reading:
    """One estimate, with its 90 % interval, and what it says of the claim.

    ``quantity`` is a stable name for programs, ``what`` the same for people, with its place.
    ``method`` is that of the students, ``scenario`` who pays for the teacher (free, inference,
    pretraining or both), ``n_column`` how N is counted; each empty where none applies. ``verdict``
    is empty for what is told beside the claim. ``runs`` decided it. A None ``estimate`` with one
    end is a bound.

    Where it was read, None where that does not apply: ``at_cross_entropy`` in nats, ``at_n``
    parameters of the student (counted as ``n_column``; without embeddings where that is empty), a
    teacher ``at_ratio`` times as large. ``n_students`` share what the teacher costs.
    """

    what: str
    estimate: float | None
    lo: float | None
    hi: float | None
    quantity: str = ""
    unit: str = ""
    method: str = ""
    scenario: str = ""
    n_column: str = ""
    verdict: Side | Literal[""] = ""
    runs: tuple[str, ...] = ()
    note: str = ""
    at_cross_entropy: float | None = None
    at_n: float | None = None
    at_ratio: float | None = None
    n_students: int | None = None

    @property
    def known(self) -> Known:
        return Known(self.estimate, self.lo, self.hi)

    @property
    def known_text(self) -> str:
        return shown(self.known, self.unit)

    def __str__(self) -> str:
        """The numbers, and the verdict where it is judged; why where that is open."""
        known, judged = self.known, f" ({self.verdict})" if self.verdict else ""
        if self.verdict == "undetermined" and self.note:
            judged = f" (undetermined: {self.note})"
        if known.is_open and self.note and (self.verdict or known.value is None):
            return f"not determined ({self.note})"
        return f"{self.known_text}{judged}"


class About(TypedDict, total=False):
    """What a reading is of; as in ``Reading``."""

    quantity: str
    unit: str
    method: str
    scenario: str
    n_column: str
    at_cross_entropy: float
    at_n: float
    at_ratio: float
    n_students: int


def reading(
    what: str,
    known: Known,
    claimed: Claimed | None = None,
    *,
    runs: Iterable[str] = (),
    note: str = "",
    **about: Unpack[About],
) -> Reading:
    """Judged against ``claimed``, or told beside the claim where that is None."""
    side: Side | Literal[""] = "" if claimed is None else claimed.verdict(known)
    chosen = tuple(sorted(map(str, set(runs))))
    found = Reading(what, known.value, known.lo, known.hi, **about)
    return replace(found, verdict=side, runs=chosen, note=note)


def doubted(found: Reading, why: str) -> Reading:
    """The same estimate, from which nothing may be concluded."""
    return replace(found, verdict="undetermined", note=why)


@dataclass(frozen=True)
class Verdict:
    """A claim, what the runs say of it, and the readings behind that.

    ``would_settle`` are the runs that an undetermined claim lacks; empty for a determined one.
    """

    id: str
    claim: str
    claimed: str
    verdict: Side
    reason: str
    would_settle: str
    readings: tuple[Reading, ...]


# --- combining ----------------------------------------------------------------------------------


def sides(readings: Iterable[Reading]) -> list[Side]:
    """The verdicts of those readings that are judged."""
    return [each.verdict for each in readings if each.verdict]


def unanimous(verdicts: Iterable[Side]) -> Side:
    """What all say; undetermined where they differ, or there is none."""
    said = set(verdicts)
    return said.pop() if len(said) == 1 else "undetermined"


def conjunction(parts: Iterable[Side]) -> Side:
    """Of a claim in parts: one contradicted part contradicts it, and all support it."""
    said = list(parts)
    return "contradicted" if "contradicted" in said else unanimous(said)


def opposite(verdict: Side) -> tuple[Side, ...]:
    """The verdict that contradicts this one, if any does."""
    return tuple(side for one, side in OPPOSITE.items() if one == verdict)


def unopposed(verdict: Side, others: Iterable[Side]) -> Side:
    """The verdict, unless one of the others says the opposite."""
    return "undetermined" if set(opposite(verdict)) & set(others) else verdict


BOTH_METHODS = (
    "Runs from scratch and distilled ones of the same sizes and token counts, four or more of "
    "each, in one pass and trained enough."
)
"""What a study lacks that has no distilled runs, or no law of them."""
SEEDS = (
    "Repeats of the smallest runs with other seeds, four of each method: without them no "
    "difference of runs has an interval."
)
LARGER = (
    "Larger students and teachers: where embeddings are a small part of the parameters, both ways "
    "to count N say the same."
)


BOTH_WAYS = (
    "A law by each way to count N: the columns n_params and n_params_non_embedding, and the "
    "teacher's, in every row, and runs enough for a fit."
)
"""What a study lacks that can be read by one way to count N only."""


def both_ways(said: Mapping[str, Side]) -> Side:
    """What both ways to count N say, by column; undetermined if they differ or one is lacking."""
    return unanimous(said.values()) if {*said} == {*N_NAMES} else "undetermined"


def by_n(readings: Iterable[Reading]) -> dict[str, Side]:
    """N column -> the verdict, of those readings that are judged."""
    return {each.n_column: each.verdict for each in readings if each.verdict}


def depends_on_n(readings: Iterable[Reading]) -> bool:
    """Whether the two ways to count N say opposite things."""
    return {*OPPOSITE} <= {*sides(readings)}


def by_convention(readings: Sequence[Reading]) -> str:
    """The reading by the first way to count N; each, where they say different things."""
    if not readings:
        return "not read"
    if len({each.verdict for each in readings}) == 1:
        return str(readings[0])
    each = (f"{one} by {N_NAMES[one.n_column]}" for one in readings)
    return f"{' but '.join(each)}"


def extremes(readings: Iterable[Reading]) -> list[str]:
    """The smallest and the largest of readings with an estimate; one where they read the same."""
    ordered = sorted(readings, key=lambda each: each.estimate or 0.0)
    ends = [ordered[0], ordered[-1]] if ordered else []
    return list(dict.fromkeys(each.known_text for each in ends))
