"""H1: is the exponent of N smaller for distilled students, and do they degrade less?"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from kdlaws.advice.captions import listed
from kdlaws.advice.contrasts import Term, contrast
from kdlaws.advice.evidence import Evidence, by_size, paired
from kdlaws.advice.findings import gain_terms, paired_noise, seed_noise
from kdlaws.advice.judging.grounds import Grounds
from kdlaws.advice.judging.joint import (
    Joint,
    derived,
    exponent_of,
    local_exponent,
    not_identified,
    parameter,
)
from kdlaws.advice.judging.known import Known, sentence, shown
from kdlaws.advice.judging.verdicts import (
    BOTH_METHODS,
    BOTH_WAYS,
    LARGER,
    SEEDS,
    About,
    Claimed,
    Reading,
    Side,
    Verdict,
    both_ways,
    by_convention,
    by_n,
    conjunction,
    depends_on_n,
    doubted,
    reading,
    sides,
    unopposed,
)
from kdlaws.laws import Fit
from kdlaws.laws.dual import FloatArray
from kdlaws.quantities import human

SCRATCH, DISTILLED, LESS = Claimed(0.5, 0.7), Claimed(0.3, 0.5), Claimed(hi=0.0)
FEWEST_SIZES = 2
"""That have a slope."""

BY_LAW = "it depends on the law"

Exponent = Callable[[Fit, FloatArray], float]


def exponents(grounds: Grounds) -> Verdict:
    """Three parts: alpha of scratch, alpha of distilled students, and that these degrade less.

    Each alpha is read for both ways to count N, which must agree; where spec_additive describes the
    runs as well and says otherwise, it is left open. A part that is contradicted contradicts the
    claim, and all three must be supported to support it. Token-level decides; a
    second distilled method that says the opposite leaves the claim undetermined. The local slope of
    log L, floor and all, is a second definition, told beside.
    """
    evidence = grounds.evidence
    scratch = [_alpha_of_scratch(joint) for joint in grounds.fitted]
    taught = {m: _alphas(grounds, m) for m in evidence.distilled}
    less = {m: _degradation(evidence, m) for m in evidence.distilled}
    parts = {m: [scratch, taught[m], [less[m]]] for m in evidence.distilled}
    said = {m: _of_parts(*each) for m, each in parts.items()}
    verdict = _overall(list(said.values()))
    return Verdict(
        id="H1",
        claim="A distilled student's exponent of N is 0.3 to 0.5, one from scratch has 0.5 to 0.7; "
        "the smaller exponent means that it loses less as it gets smaller.",
        claimed="alpha of scratch 0.5 to 0.7, of distilled students 0.3 to 0.5, and less loss per "
        "halving of N than from scratch",
        verdict=verdict,
        reason=_reason(grounds, parts, said),
        would_settle="" if verdict != "undetermined" else _would_settle(grounds, parts),
        readings=(
            *scratch,
            *(each for found in taught.values() for each in found),
            *less.values(),
            *_local(grounds),
        ),
    )


def _of_parts(
    scratch: Sequence[Reading], taught: Sequence[Reading], less: Sequence[Reading]
) -> Side:
    """Each alpha by both ways to count N; degradation needs no law, and no count."""
    return conjunction([both_ways(by_n(scratch)), both_ways(by_n(taught)), *sides(less)])


def _overall(said: Sequence[Side]) -> Side:
    return unopposed(said[0], said[1:]) if said else "undetermined"


# --- alpha --------------------------------------------------------------------------------------


def _alpha_of_scratch(joint: Joint) -> Reading:
    def alpha(fitted: Fit, u: FloatArray) -> float:
        return float(u[fitted.form.parameters.index("alpha")])

    assert joint.fit is not None
    known = parameter(joint.fit, "alpha")
    return _exponent(joint, "alpha of scratch", "scratch", known, alpha, SCRATCH)


def _alphas(grounds: Grounds, method: str) -> list[Reading]:
    """Of a distilled method, with the main teacher, at the middle N."""
    found = []
    for joint in grounds.fitted:
        teacher_n = _teacher_n(grounds.evidence, joint, method)
        assert joint.fit is not None
        if teacher_n is None:
            continue
        alpha = exponent_of(method, teacher_n)
        known = derived(joint.fit, partial(alpha, joint.fit))
        what = f"alpha of {method} at N = {human(joint.fit.parameters['N_mid'].value)}"
        found.append(_exponent(joint, what, method, known, alpha, DISTILLED))
    return found


def _teacher_n(evidence: Evidence, joint: Joint, method: str) -> float | None:
    """The main teacher's N, of a method that has runs with it among those of the fit."""
    teacher = evidence.main_teacher
    rows = joint.of(method)
    rows = rows[rows["teacher"] == teacher.run_id] if teacher else rows[:0]
    return float(rows[f"teacher_{joint.n_column}"].iloc[0]) if len(rows) else None


def _exponent(
    joint: Joint, what: str, method: str, known: Known, of: Exponent, claimed: Claimed
) -> Reading:
    """An exponent of the loss above the floor, which means nothing without the floor."""
    fitted, rival = joint.fit, joint.rival
    assert fitted is not None
    why, _ = not_identified(fitted, "L0", "alpha")
    other = of(rival, rival.u) if rival and joint.rival_is_as_good else None
    beside = "" if other is None else f"spec_additive, as good a fit, has {other:.3g}"
    found = reading(
        what,
        Known(known.value) if why else known,
        claimed,
        runs=joint.rows["run_id"],
        quantity="alpha",
        method=method,
        n_column=joint.n_column,
        note="; ".join(filter(None, [why or _turns(fitted), beside])),
    )
    if other is None or found.verdict == "undetermined":
        return found
    agrees = (claimed.lo <= other <= claimed.hi) == (found.verdict == "supported")
    return found if agrees else doubted(found, f"{BY_LAW}: {beside}")


def _turns(fitted: Fit) -> str:
    """Whether alpha changes with D, of which the law knows nothing."""
    nested = (each.message for each in fitted.warnings if each.code == "nested")
    return next((message for message in nested if "EXCLUDES" in message), "")


def _local(grounds: Grounds) -> Iterator[Reading]:
    """The second definition, told beside."""
    for joint in grounds.fitted:
        fitted = joint.fit
        assert fitted is not None
        for method in fitted.methods:
            teacher_n = _teacher_n(grounds.evidence, joint, method)
            if method != "scratch" and teacher_n is None:
                continue
            slope = local_exponent(method, None if method == "scratch" else teacher_n)
            yield reading(
                f"local slope -dlog L/dlog N of {method} at N = "
                f"{human(fitted.parameters['N_mid'].value)}",
                derived(fitted, partial(slope, fitted)),
                runs=joint.rows["run_id"],
                quantity="local_slope",
                method=method,
                n_column=joint.n_column,
                note="second definition: of the whole loss, its floor included",
            )


# --- degradation --------------------------------------------------------------------------------


def _degradation(evidence: Evidence, method: str) -> Reading:
    """[L(N/2) - L(N)] of the method minus that of scratch, by pairs of the same size and seed.

    That is how fast the gain grows with log2 N: least squares over the shared sizes, as one
    contrast, so that what the runs of a pair have in common cancels.
    """
    fraction = evidence.largest_fraction
    pairs = by_size(paired(evidence, method, fraction))
    about: About = {"quantity": "degradation", "unit": "nats", "method": method}
    what = f"what {method} loses beyond scratch with each halving of N"
    if len(pairs) < FEWEST_SIZES:
        note = f"{method} and scratch share {len(pairs)} sizes"
        return reading(what, Known(), LESS, note=note, **about)
    x = np.log2(list(pairs))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    terms: list[Term] = []
    for weight, rows in zip(map(float, weights), pairs.values(), strict=True):
        terms += [(weight * sign, runs) for sign, runs in gain_terms(rows)]
    seeds = sum(w**2 / len(rows) for w, rows in zip(weights, pairs.values(), strict=True))
    noise = paired_noise(evidence, fraction)
    slope = contrast(evidence, terms, noise, float(seeds))
    runs = [run_id for _, rows in terms for run_id in rows["run_id"]]
    return reading(what, Known.of(slope), LESS, runs=runs, **about)


# --- words --------------------------------------------------------------------------------------


def _reason(grounds: Grounds, parts: dict[str, list[list[Reading]]], said: dict[str, Side]) -> str:
    if not parts:
        return "The study has no distilled runs."
    method, [scratch, taught, [less]] = next(iter(parts.items()))
    others = [f"{m} {side}" for m, side in said.items() if side != said[method]]
    depends = f" By method: {listed([f'{method} {said[method]}', *others])}." if others else ""
    alphas, loses = _alpha_text(grounds, method, scratch, taught), _loses(method, less)
    # What decides comes first: a part that is contradicted contradicts the claim.
    first, second = (loses, alphas) if less.verdict == "contradicted" else (alphas, loses)
    text = sentence(f"{first}; {second[:1].lower()}{second[1:]}") + depends
    return f"{text} {grounds.lacking({*by_n(taught)})}".strip()


def _alpha_text(
    grounds: Grounds, method: str, scratch: Sequence[Reading], taught: Sequence[Reading]
) -> str:
    if not scratch:
        return f"There is no joint law ({grounds.why_not_fitted})"
    if all(each.known.is_open for each in (*scratch, *taught)):
        return f"No alpha is determined ({scratch[0].note})"
    return f"Alpha of scratch is {by_convention(scratch)}, of {method} {by_convention(taught)}"


def _loses(method: str, less: Reading) -> str:
    if less.estimate is None:
        return f"degradation cannot be compared ({less.note})"
    more, known = ("more", less.known) if less.estimate > 0 else ("less", less.known.negated())
    return (
        f"with each halving of N {method} loses {shown(known)} nats {more} than scratch "
        f"({less.verdict})"
    )


def _would_settle(grounds: Grounds, parts: dict[str, list[list[Reading]]]) -> str:
    if not parts or not grounds.fitted:
        return BOTH_METHODS
    if any(depends_on_n(part) for each in parts.values() for part in each):
        return LARGER
    if seed_noise(grounds.evidence) is None:
        return SEEDS
    remedies = [
        remedy
        for joint in grounds.fitted
        if joint.fit and (remedy := not_identified(joint.fit, "L0", "alpha")[1])
    ]
    if remedies:
        return sentence(remedies[0])
    if any(r.note.startswith(BY_LAW) for each in parts.values() for part in each for r in part):
        return "More sizes and token counts, further apart: they tell the two laws apart."
    if any(grounds.lacking({*by_n(taught)}) for _, taught, _ in parts.values()):
        return BOTH_WAYS
    return "More seeds, and sizes further apart."
