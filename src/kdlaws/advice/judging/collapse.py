"""H6: does distilling fail below a twentieth of the teacher's size?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdlaws.advice.captions import counted, listed
from kdlaws.advice.columns import N
from kdlaws.advice.evidence import Evidence, by_size, done, one_pass
from kdlaws.advice.judging.grounds import Grounds
from kdlaws.advice.judging.joint import Joint, joints, parameter
from kdlaws.advice.judging.known import Known, sentence
from kdlaws.advice.judging.verdicts import (
    BOTH_METHODS,
    BOTH_WAYS,
    LARGER,
    N_NAMES,
    OPPOSITE,
    Claimed,
    Reading,
    Side,
    Verdict,
    both_ways,
    extremes,
    reading,
    unopposed,
)
from kdlaws.quantities import human

if TYPE_CHECKING:
    from pandas import DataFrame

BELOW = 20.0
"""Ratio of teacher to student beyond which the claim speaks: 5 % of the teacher."""
FEWEST_SIZES = 2
WORSE, TOO_LARGE, FADED = Claimed(lo=1.0), Claimed(lo=0.0), Claimed(0.98, 1.02)
WEIGHTS = (1.0, 0.5)
"""kd_weight: a weak teacher may want the second."""


@dataclass(frozen=True)
class Beyond:
    """By one way to count N: g at each size beyond the ratio, and kappa."""

    gains: tuple[Reading, ...]
    kappa: Reading

    @property
    def side(self) -> Side:
        said = [each.verdict for each in self.gains]
        worse, better = said.count("supported"), said.count("contradicted")
        if worse >= FEWEST_SIZES and not better and self.kappa.verdict == "supported":
            return "supported"
        return "contradicted" if better >= FEWEST_SIZES and not worse else "undetermined"

    @property
    def has_faded(self) -> bool:
        return bool(self.gains) and all(FADED.verdict(g.known) == "supported" for g in self.gains)


def collapse(grounds: Grounds) -> Verdict:
    """g, the loss above the floor over that of scratch at equal N, at ratios beyond 20.

    Collapse is g > 1 with confidence at two sizes or more, and none with g < 1, and kappa > 0 with
    confidence; g < 1 at two sizes or more contradicts. Both ways to count N must agree; a second
    method may only object. g in [0.98, 1.02] is a gain that has faded: neither. Where a kd_weight
    of 1 and of .5 were both run, the better counts.
    """
    evidence = grounds.evidence
    found = {m: _beyond(evidence, grounds.joints, m) for m in evidence.distilled}
    said = [both_ways({n: b.side for n, b in by_n.items()}) for by_n in found.values()]
    verdict: Side = unopposed(said[0], said[1:]) if said else "undetermined"
    return Verdict(
        id="H6",
        claim="Below 5 % of its teacher's size distilling fails: it is worse than no teacher.",
        claimed="g above 1 where the teacher is more than 20 times as large, and kappa above 0",
        verdict=verdict,
        reason=_reason(grounds, found),
        would_settle="" if verdict != "undetermined" else _would_settle(found),
        readings=tuple(
            each for by_n in found.values() for b in by_n.values() for each in (*b.gains, b.kappa)
        ),
    )


def _beyond(evidence: Evidence, fits: Mapping[str, Joint], method: str) -> dict[str, Beyond]:
    """By N column, with the better weight where two were run."""
    better = better_weight(evidence, method)
    fits = fits if better is None else joints(evidence, better)
    return {
        n: Beyond(tuple(_gains(joint, method)), _kappa(joint, method))
        for n, joint in fits.items()
        if joint.fit is not None and method in joint.fit.methods
    }


def _gains(joint: Joint, method: str) -> Iterator[Reading]:
    """At each size, with the largest teacher that has taught it; only where scratch was run."""
    fitted, n_column = joint.fit, joint.n_column
    assert fitted is not None
    teacher_column = f"teacher_{n_column}"
    alone = set(joint.of("scratch")[n_column])
    largest = joint.of(method).groupby(n_column)[teacher_column].max()
    for n, teacher_n in zip(largest.index, largest, strict=True):
        if teacher_n / n <= BELOW or n not in alone:
            continue
        columns = {n_column: n, "n_tokens": 1.0, teacher_column: teacher_n, "method": method}
        g, (lo, hi) = fitted.efficiency(columns)
        yield joint.read(
            f"g of {method} at N = {human(n)}, a teacher {teacher_n / n:.3g} times as large",
            Known(float(g), float(lo), float(hi)) if fitted.uncertainty else Known(float(g)),
            WORSE,
            quantity="g",
            method=method,
            at_n=float(n),
            at_ratio=float(teacher_n / n),
        )


def _kappa(joint: Joint, method: str) -> Reading:
    assert joint.fit is not None
    return reading(
        f"kappa of {method}",
        parameter(joint.fit, f"kappa_{method}"),
        TOO_LARGE,
        quantity="kappa",
        method=method,
        n_column=joint.n_column,
        runs=joint.rows["run_id"],
        note="above 0 the gain is lost as the teacher gets larger",
    )


# --- the better weight --------------------------------------------------------------------------


def better_weight(evidence: Evidence, method: str) -> "DataFrame | None":
    """The rows of the joint fit with each size at its better kd_weight; None where none changes."""
    import pandas as pd

    usual = done(one_pass(evidence.comparable))
    ours = usual[(usual["method"] == method) & usual["kd_weight"].isin(WEIGHTS)]
    rows = done(one_pass(evidence.students))
    rows = rows[(rows["noise"].fillna(0) == 0) & (rows["quality"] == evidence.usual_quality)]
    other = rows[(rows["method"] == method) & rows["kd_weight"].isin(WEIGHTS)]
    other = other.drop(index=other.index.intersection(ours.index))
    swapped = [
        (mine, theirs)
        for n, theirs in by_size(other).items()
        for mine in [ours[(ours[N] == n) & ours["teacher"].isin(theirs["teacher"])]]
        if len(mine) and _is_better(theirs, mine)
    ]
    if not swapped:
        return None
    out = [index for mine, _ in swapped for index in mine.index]
    return pd.concat([usual.drop(index=out), *(theirs for _, theirs in swapped)])


def _is_better(rows: "DataFrame", than: "DataFrame") -> bool:
    """On average over the token counts that both have."""
    ours, theirs = (each.groupby("n_tokens")["cross_entropy"].mean() for each in (rows, than))
    return bool((ours - theirs).mean() < 0)


# --- words --------------------------------------------------------------------------------------


def _reason(grounds: Grounds, found: Mapping[str, Mapping[str, Beyond]]) -> str:
    if not found:
        return "The study has no distilled runs."
    if not any(found.values()):
        return f"There is no joint law: {grounds.why_not_fitted}."
    parts = [_said(m, list(by_n.values())) for m, by_n in found.items() if by_n]
    return " ".join([*parts, grounds.lacking(next(iter(found.values())))]).strip()


def _said(method: str, found: Sequence[Beyond]) -> str:
    first = found[0]
    text = f"{sentence(_gain_text(method, first))}"
    if len({each.side for each in found}) > 1:
        beside = [f"{each.side} by {N_NAMES[each.kappa.n_column]}" for each in found]
        return f"{text} It depends on how N is counted: {listed(beside)}."
    return text


def _gain_text(method: str, found: Beyond) -> str:
    """``token's loss above the floor is 0.8 [0.7, 0.9] to 0.9 [0.8, 1.0] times scratch's ...``."""
    sizes = counted(len(found.gains), "size")
    where = f"where its teacher is over {BELOW:g} times as large ({sizes})"
    if not found.gains:
        return f"{method} was not run with scratch {where}"
    text = (
        f"{method}'s loss above the floor is {' to '.join(extremes(found.gains))} times scratch's"
    )
    faded = ", a gain that has faded" if found.has_faded else ""
    kappa = found.kappa
    known = "not identified" if kappa.known.is_open else kappa.known_text
    few = f"; {FEWEST_SIZES} sizes are needed" if len(found.gains) < FEWEST_SIZES else ""
    doubt = f"; {found.gains[0].note}" if found.gains[0].note else ""
    return f"{text} {where}{faded}{few}; kappa is {known}{doubt}"


def _would_settle(found: Mapping[str, Mapping[str, Beyond]]) -> str:
    beyond = [b for by_n in found.values() for b in by_n.values()]
    if not beyond:
        return BOTH_METHODS
    wanted = []
    if any(len(b.gains) < FEWEST_SIZES for b in beyond):
        wanted.append(
            "two sizes or more, scratch and distilled, below a twentieth of a teacher by both ways "
            "to count N"
        )
    if any(b.kappa.known.is_open for b in beyond):
        wanted.append("three teachers, a factor of 8 apart, for the same students")
    if any({*OPPOSITE} <= {b.side for b in by_n.values()} for by_n in found.values()):
        return LARGER
    if not wanted and any(len(by_n) == 1 for by_n in found.values()):
        return BOTH_WAYS
    return sentence(listed(wanted) or "more sizes below a twentieth of a teacher, and more seeds")
