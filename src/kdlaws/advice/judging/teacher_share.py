"""H7: what share of the FLOPs should the teacher's inference take?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from kdlaws.advice.captions import counted, listed
from kdlaws.advice.evidence import Evidence, by_size, measured
from kdlaws.advice.judging.frontiers import is_online
from kdlaws.advice.judging.grounds import Grounds
from kdlaws.advice.judging.joint import Joint
from kdlaws.advice.judging.known import Known, number
from kdlaws.advice.judging.verdicts import (
    BOTH_WAYS,
    About,
    Claimed,
    Reading,
    Side,
    Verdict,
    both_ways,
    by_convention,
    by_n,
    reading,
    unopposed,
)
from kdlaws.laws.gaps import FEWEST_TEACHERS, TEACHER_SPAN
from kdlaws.quantities import human

if TYPE_CHECKING:
    from pandas import DataFrame

SHARE = Claimed(0.25, 0.35)
FLOPS = ("student_flops", "teacher_inference_flops")


def teacher_share(grounds: Grounds) -> Verdict:
    """F_T U/(F_T U + 3 sum_k F_S D_k), U unique tokens, k students that share the outputs;
    of an online teacher F_T sum_k D_k.

    Judged is the share of the best plan, which chooses its teacher and pays for its inference: that
    needs three teachers or more. Both ways to count N must agree; a second method may only object.
    What a study spent is its input and says nothing of the best: it is told beside.
    """
    evidence = grounds.evidence
    best = {
        m: [_best(grounds, joint, m) for joint in grounds.knowing(m)] for m in evidence.distilled
    }
    spent = [each for m in evidence.distilled for each in _spent(evidence, m)]
    said = [both_ways(by_n(best[m])) for m in evidence.distilled]
    verdict: Side = unopposed(said[0], said[1:]) if said else "undetermined"
    return Verdict(
        id="H7",
        claim="The best split of a budget is 30 % for the teacher's inference and 70 % for the "
        "student's training.",
        claimed="a best share of 25 to 35 % (how we read '30 %')",
        verdict=verdict,
        reason=_reason(grounds, best, spent),
        would_settle="" if verdict != "undetermined" else _would_settle(grounds, best),
        readings=(*(each for found in best.values() for each in found), *spent),
    )


def _best(grounds: Grounds, joint: Joint, method: str) -> Reading:
    found = grounds.plans[method, joint.n_column]
    what = f"share of the teacher's inference in the best plan, {method}"
    about = About(quantity="planned_share", unit="share", method=method, scenario="inference")
    return joint.read(what, found.share, SHARE, note=found.note, **about)


def _spent(evidence: Evidence, method: str) -> Iterator[Reading]:
    """Of the longest run of each size alone, and of all runs together."""
    rows = measured(evidence.of(method))
    if not set(FLOPS) <= set(rows):
        return
    rows = rows.dropna(subset=list(FLOPS)).sort_values("n_tokens")
    for n, runs in by_size(rows).items():
        yield _share(runs.tail(1), method, f"one student of N = {human(n)}")
    if len(rows):
        yield _share(rows, method, f"k = {len(rows)} students")


def _share(runs: "DataFrame", method: str, of: str) -> Reading:
    inference = _inference(runs)
    share = inference / (inference + float(runs["student_flops"].sum()))
    return reading(
        f"share of the teacher's inference, {method}, {of}",
        Known(share),
        quantity="spent_share",
        unit="share",
        method=method,
        scenario="inference",
        runs=runs["run_id"],
        note="what was spent: an input of the study",
        n_students=len(runs),
    )


def _inference(runs: "DataFrame") -> float:
    """FLOPs: into the stored outputs that runs share every token is read once, online by each."""
    flops, online = runs["teacher_inference_flops"], is_online(runs)
    return float(flops[online].sum()) + max(map(float, flops[~online]), default=0.0)


def _reason(
    grounds: Grounds, best: Mapping[str, Sequence[Reading]], spent: Sequence[Reading]
) -> str:
    known = {m: found for m, found in best.items() if not all(r.known.is_open for r in found)}
    parts = [f"{by_convention(found)} with {m}" for m, found in known.items()]
    notes = [each.note for found in best.values() for each in found]
    teachers = grounds.evidence.teachers
    if parts:
        lacking = grounds.lacking({*by_n(next(iter(best.values())))})
        text = f"The best plan's share is {listed(parts)}. {lacking}".strip()
    elif len(teachers) >= FEWEST_TEACHERS:
        text = f"No best share is known ({notes[0] if notes else 'there is no joint law'})."
    else:
        many = counted(len(teachers), "teacher")
        text = f"With {many} the share is an input, not an optimum."
    return f"{text} {_spent_text(spent)}".strip()


def _spent_text(spent: Sequence[Reading]) -> str:
    if not spent:
        return ""
    method = spent[0].method
    *alone, together = [each for each in spent if each.method == method]
    shares = sorted(each.estimate or 0.0 for each in alone)
    ends = list(dict.fromkeys(number(share, "share") for share in (shares[0], shares[-1])))
    return (
        f"Here the teacher's inference took {' to '.join(ends)} of the FLOPs of one {method} "
        f"student, and {number(together.estimate or 0.0, 'share')} of those of "
        f"{together.n_students} together."
    )


def _would_settle(grounds: Grounds, best: Mapping[str, Sequence[Reading]]) -> str:
    if any("outside the runs" in each.note for found in best.values() for each in found):
        return (
            "Larger and smaller students and teachers, and longer and shorter runs: the best plan "
            "has to lie between those that were run."
        )
    if any(grounds.lacking({*by_n(found)}) for found in best.values()):
        return BOTH_WAYS
    return (
        f"Teachers, {FEWEST_TEACHERS} or more and a factor of {TEACHER_SPAN:g} apart, for the same "
        "students: the best plan of a budget then chooses among them."
    )
