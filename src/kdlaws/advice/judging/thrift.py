"""H4: what share of scratch's tokens does distilling need?"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from kdlaws.advice.captions import counted, listed
from kdlaws.advice.evidence import Evidence
from kdlaws.advice.findings import one_pass_curves, seed_noise
from kdlaws.advice.judging.grounds import Grounds
from kdlaws.advice.judging.joint import Joint, derived
from kdlaws.advice.judging.known import number
from kdlaws.advice.judging.reach import reached
from kdlaws.advice.judging.verdicts import (
    BOTH_METHODS,
    SEEDS,
    Claimed,
    Reading,
    Side,
    Verdict,
    extremes,
    reading,
    sides,
    unanimous,
    unopposed,
)
from kdlaws.laws.dual import FloatArray
from kdlaws.quantities import human

if TYPE_CHECKING:
    from pandas import DataFrame

SHARE = Claimed(0.10, 0.20)


def thrift(grounds: Grounds) -> Verdict:
    """The tokens with which distilling equals scratch's longest pass, as a share of that pass.

    By size, between measured token counts; all sizes must say the same. 1/xi = D_method/D_scratch
    of the joint law, where both are identified, may only object, as may a second method.
    """
    evidence = grounds.evidence
    measured = {m: _by_size(evidence, m) for m in evidence.distilled}
    fitted = {m: list(_by_law(grounds, m)) for m in evidence.distilled}
    said = [_judged(measured[m], fitted[m]) for m in evidence.distilled]
    verdict: Side = unopposed(said[0], said[1:]) if said else "undetermined"
    return Verdict(
        id="H4",
        claim="Distilling needs 10 to 20 % of the tokens that training from scratch needs.",
        claimed="10 to 20 % of scratch's tokens, at equal size and loss",
        verdict=verdict,
        reason=_reason(measured, fitted),
        would_settle="" if verdict != "undetermined" else _would_settle(evidence, measured),
        readings=tuple(each for m in evidence.distilled for each in (*measured[m], *fitted[m])),
    )


def _judged(measured: list[Reading], fitted: list[Reading]) -> Side:
    return unopposed(unanimous(sides(measured)), sides(fitted))


def _by_size(evidence: Evidence, method: str) -> list[Reading]:
    scratch, distilled = (one_pass_curves(evidence, m) for m in ("scratch", method))
    shared = sorted(scratch.keys() & distilled.keys())
    return [_share(evidence, method, n, scratch[n], distilled[n]) for n in shared]


def _share(
    evidence: Evidence,
    method: str,
    n: float,
    scratch: Mapping[float, "DataFrame"],
    distilled: Mapping[float, "DataFrame"],
) -> Reading:
    longest = max(scratch)
    tokens = reached(evidence, distilled, scratch[longest], seed_noise(evidence))
    runs = [run_id for rows in (scratch[longest], *distilled.values()) for run_id in rows["run_id"]]
    return reading(
        f"{method}'s tokens over scratch's at equal loss, N = {human(n)}",
        tokens.mapped(lambda x: x / longest),
        SHARE,
        quantity="token_share",
        unit="share",
        method=method,
        at_n=n,
        runs=runs,
        note=_note(evidence, longest),
    )


def _note(evidence: Evidence, longest: float) -> str:
    """The tokens that the teacher took, beside those saved."""
    teacher = evidence.main_teacher
    rows = evidence.runs
    tokens = rows["teacher_n_tokens"] if "teacher_n_tokens" in rows else rows["n_tokens"][:0]
    known = tokens[rows["teacher"] == teacher.run_id].dropna() if teacher else tokens[:0]
    own = f"; its teacher read {human(float(known.iloc[0]))}" if len(known) else ""
    return f"scratch read {human(longest)} tokens{own}"


def _by_law(grounds: Grounds, method: str) -> Iterator[Reading]:
    for joint in grounds.fitted:
        fitted = joint.fit
        assert fitted is not None
        names = {f"D_{method}", "D_scratch"} & fitted.parameters.keys()
        if len(names) == 2 and all(fitted.parameters[name].identified for name in names):
            yield _by_one_law(joint, method)


def _by_one_law(joint: Joint, method: str) -> Reading:
    fitted = joint.fit
    assert fitted is not None
    ours, theirs = (fitted.form.parameters.index(f"D_{m}") for m in (method, "scratch"))

    def log_share(u: FloatArray) -> float:
        return float(u[ours] - u[theirs])

    return joint.read(
        f"1/xi = D_{method}/D_scratch of the joint law",
        derived(fitted, log_share).mapped(math.exp),
        SHARE,
        quantity="token_share_by_law",
        unit="share",
        method=method,
        note="what tokens cost in the law, the teacher's effect on the size term apart",
    )


def _reason(measured: Mapping[str, list[Reading]], fitted: Mapping[str, list[Reading]]) -> str:
    if not any(measured.values()):
        return "No size has both one-pass runs from scratch and distilled ones."
    parts = [f"{m} {_range(found)}" for m, found in measured.items() if found]
    law = [f"{each} by the law of {m}" for m, found in fitted.items() for each in found[:1]]
    beside = f"; 1/xi is {listed(law)}" if law else ""
    return f"At scratch's loss after its longest pass, {listed(parts)} of its tokens{beside}."


def _range(found: list[Reading]) -> str:
    """``needs 31 % [28, 35] to 45 % [40, 51] (5 sizes)``, and what is only bounded."""
    inside = [each for each in found if each.estimate is not None]
    above = [each.lo for each in found if each.estimate is None and each.lo is not None]
    below = [each.hi for each in found if each.estimate is None and each.hi is not None]
    parts = {
        " to ".join(extremes(inside)): len(inside),
        f"more than {number(min(above, default=0.0), 'share')}": len(above),
        f"less than {number(max(below, default=0.0), 'share')}": len(below),
        "an unknown share": len(found) - len(inside) - len(above) - len(below),
    }
    said = [f"{what} ({counted(number, 'size')})" for what, number in parts.items() if number]
    return f"needs {listed(said)}"


def _would_settle(evidence: Evidence, measured: Mapping[str, list[Reading]]) -> str:
    found = next(iter(measured.values()), [])
    if not found:
        return BOTH_METHODS
    if seed_noise(evidence) is None:
        return SEEDS
    shorter = any(r.estimate is None and r.hi is not None for r in found)
    if shorter:
        return (
            "Shorter distilled runs of the same sizes: branches at 5, 10 and 20 % of the tokens of "
            "scratch's longest run."
        )
    return (
        "More seeds at every size, and distilled branches at 5, 10, 15, 20 and 30 % of the tokens "
        "of scratch's longest run."
    )
