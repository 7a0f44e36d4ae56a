"""H3: how many times larger than its student is the best teacher?"""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from kdlaws.advice.captions import listed
from kdlaws.advice.judging.grounds import Grounds
from kdlaws.advice.judging.joint import Joint, derived, not_identified, parameter
from kdlaws.advice.judging.known import Known, sentence, shown
from kdlaws.advice.judging.verdicts import (
    BOTH_METHODS,
    BOTH_WAYS,
    LARGER,
    OPPOSITE,
    About,
    Claimed,
    Reading,
    Side,
    Verdict,
    both_ways,
    by_convention,
    by_n,
    depends_on_n,
    reading,
    sides,
    unopposed,
)
from kdlaws.laws import Fit
from kdlaws.laws.dual import FloatArray

RATIO = Claimed(10.0, 20.0)


def best_ratio(grounds: Grounds) -> Verdict:
    """r* = r_c (eta/kappa)^(w/(eta + kappa)) of the joint law, inside the ratios that were tried.

    Needs three teachers a factor of 8 apart, and kappa > 0 with confidence: else g has no minimum.
    Both ways to count N must agree. r* is of a teacher that costs nothing; the ratio of the best
    plan that pays for its inference, and a second method, may only object.
    """
    methods = grounds.evidence.distilled
    fitted = {m: grounds.knowing(m) for m in methods}
    free = {m: [_best(joint, m) for joint in fitted[m]] for m in methods}
    paid = {m: [_planned(grounds, joint, m) for joint in fitted[m]] for m in methods}
    said = [unopposed(both_ways(by_n(free[m])), sides(paid[m])) for m in methods]
    verdict: Side = unopposed(said[0], said[1:]) if said else "undetermined"
    return Verdict(
        id="H3",
        claim="The best teacher is 10 to 20 times as large as its student.",
        claimed="a best ratio of teacher N to student N of 10 to 20",
        verdict=verdict,
        reason=_reason(grounds, free, paid),
        would_settle="" if verdict != "undetermined" else _would_settle(grounds, free, paid),
        readings=tuple(
            each
            for m in methods
            for each in (*free[m], *paid[m], *(_kappa(joint, m) for joint in fitted[m]))
        ),
    )


def _planned(grounds: Grounds, joint: Joint, method: str) -> Reading:
    found = grounds.plans[method, joint.n_column]
    what = f"ratio of the best plan that pays for the teacher's inference, {method}"
    about = About(quantity="planned_ratio", unit="times", method=method, scenario="inference")
    return joint.read(what, found.ratio, RATIO, note=found.note, **about)


def _best(joint: Joint, method: str) -> Reading:
    fitted = joint.fit
    assert fitted is not None
    known, note = _inside(joint, fitted, method)
    what = f"best ratio of teacher to student, {method}"
    about = About(quantity="best_ratio", unit="times", method=method)
    return joint.read(what, known, RATIO, note=note, **about)


def _inside(joint: Joint, fitted: Fit, method: str) -> tuple[Known, str]:
    """r* among the ratios that were tried, or the edge at which it lies, and why."""
    name = f"kappa_{method}"
    why, _ = not_identified(fitted, name, f"r_c_{method}")
    if why:
        return Known(), why
    least, most = tried(joint, method)
    kappa = parameter(fitted, name)
    if kappa.sign() < 0:
        return Known(lo=most), f"edge: the best is the largest tried, {most:.3g}"
    if kappa.sign() == 0:
        return Known(), f"kappa = {shown(kappa)} may be zero: no ratio is known to be too large"
    log_ratio = derived(fitted, lambda u: _log_best(fitted, method, u))
    return log_ratio.mapped(math.exp).clipped(least, most), f"tried were {least:.3g} to {most:.3g}"


def _log_best(fitted: Fit, method: str, u: FloatArray) -> float:
    at = dict(zip(fitted.form.parameters, map(float, u), strict=True))
    eta, kappa = at[f"eta_{method}"], at[f"kappa_{method}"]
    if kappa <= 0 or eta <= 0:  # a refit without a minimum
        return math.inf
    return at[f"r_c_{method}"] + math.exp(at["w"]) / (eta + kappa) * math.log(eta / kappa)


def tried(joint: Joint, method: str) -> tuple[float, float]:
    """The smallest and largest ratio of teacher to student among the method's runs."""
    rows = joint.of(method)
    ratios = np.asarray(rows[f"teacher_{joint.n_column}"] / rows[joint.n_column], dtype=np.float64)
    return float(ratios.min()), float(ratios.max())


def _kappa(joint: Joint, method: str) -> Reading:
    fitted = joint.fit
    assert fitted is not None
    return reading(
        f"kappa of {method}",
        parameter(fitted, f"kappa_{method}"),
        quantity="kappa",
        method=method,
        n_column=joint.n_column,
        runs=joint.rows["run_id"],
        note="above 0 a teacher can be too large",
    )


# --- words --------------------------------------------------------------------------------------


def _reason(
    grounds: Grounds, free: Mapping[str, list[Reading]], paid: Mapping[str, list[Reading]]
) -> str:
    if not free:
        return "The study has no distilled runs."
    if not any(free.values()):
        return f"There is no joint law ({grounds.why_not_fitted})."
    parts = [f"with {m} is {by_convention(each)}" for m, each in free.items() if each]
    plans = [each[0] for each in paid.values() if each and not each[0].known.is_open]
    best = listed([f"{each} with {each.method}" for each in plans])
    beside = (
        f" In the best plan that pays for the teacher's inference it is {best}." if best else ""
    )
    text = f"The best ratio {listed(parts)}.{beside}"
    return f"{text} {grounds.lacking({*by_n(next(iter(free.values())))})}".strip()


def _would_settle(
    grounds: Grounds, free: Mapping[str, list[Reading]], paid: Mapping[str, list[Reading]]
) -> str:
    if not any(free.values()):
        return BOTH_METHODS
    remedies = list(dict.fromkeys(_remedies(grounds, free)))
    if remedies:
        return sentence(remedies[0])
    if any(map(depends_on_n, free.values())):
        return LARGER
    verdicts = {m: {both_ways(by_n(free[m])), *sides(paid[m])} for m in free}
    if any({*OPPOSITE} <= each for each in verdicts.values()):
        return "A claim that says whether the teacher's inference is paid."
    if any(grounds.lacking({*by_n(each)}) for each in free.values()):
        return BOTH_WAYS
    return "Teachers on both sides of the best ratio, further apart, with more seeds."


def _remedies(grounds: Grounds, found: Mapping[str, list[Reading]]) -> Iterator[str]:
    for method in found:
        for joint in grounds.fitted:
            if joint.fit:
                yield from filter(
                    None, [not_identified(joint.fit, f"kappa_{method}", f"r_c_{method}")[1]]
                )
