"""What to do, in plain words, made from the readings behind the eight claims.

A sentence is made only of what has an interval, and says its number; what the runs leave open is
listed with the runs that would settle it.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kdlaws.advice.captions import listed
from kdlaws.advice.judging.claims import Claims, claims
from kdlaws.advice.judging.known import Known, sentence, shown
from kdlaws.advice.judging.verdicts import N_NAMES, Reading, Verdict, extremes
from kdlaws.advice.judging.words import at_equal, who_pays
from kdlaws.laws.artefact import Document
from kdlaws.quantities import human

DISTIL, DATA, TEACHER, SIZE, COMPUTE, UNKNOWN = HEADINGS = (
    "Should I distil?",
    "How much data?",
    "Which teacher?",
    "How small?",
    "How to split the compute?",
    "What is not known",
)
QUESTIONS = {
    "H1": "Whether a distilled student's exponent of N is smaller",
    "H2": "How much cheaper a loss is by distilling",
    "H3": "Which ratio of teacher to student is best",
    "H4": "What share of the tokens distilling needs at every size",
    "H5": "Whether curated text improves the exponent of N",
    "H6": "Whether distilling fails below a twentieth of the teacher's size",
    "H7": "Which share of a budget the teacher's inference should take",
    "H8": "Up to how many tokens distilling wins",
}


class HasSentence(Protocol):
    """A plan, which knows how to say what it recommends."""

    @property
    def sentence(self) -> str: ...


@dataclass(frozen=True)
class Guideline(Document):
    """One sentence under its heading, the runs that it holds for, and the readings behind it.

    ``claim`` is the claim whose readings these are; empty for a plan's sentence.
    """

    heading: str
    sentence: str
    scope: str
    claim: str = ""
    readings: tuple[Reading, ...] = ()

    def __str__(self) -> str:
        return f"{self.sentence} ({self.scope})" if self.scope else self.sentence


def guidelines(source: Path | Claims, plans: Sequence[HasSentence] = ()) -> list[Guideline]:
    """By heading, in the order of ``HEADINGS``, from a study's folder or from its claims.

    ``plans`` are told under the split of the compute. Raises what ``claims`` raises.
    """
    found = source if isinstance(source, Claims) else claims(source)
    scope = str(found.scope)
    told = [
        Guideline(heading, sentence(text), scope, claim, tuple(readings))
        for heading, rules in RULES.items()
        for claim, rule in rules
        for text, readings in rule(_of(found, claim))
    ]
    told += [Guideline(COMPUTE, plan.sentence, "") for plan in plans]
    told += [
        Guideline(UNKNOWN, f"{QUESTIONS[v.id]}. Would settle it: {v.would_settle}", scope, v.id)
        for v in found.verdicts
        if v.verdict == "undetermined"
    ]
    return sorted(told, key=lambda each: HEADINGS.index(each.heading))


def to_markdown(told: Sequence[Guideline]) -> str:
    """The runs that all of it holds for, then a section for each heading that has a sentence."""
    scopes = dict.fromkeys(each.scope for each in told if each.scope)
    parts = [f"What these runs carry, and nothing beyond them: {listed(list(scopes))}."]
    for heading, sentences in by_heading(told):
        parts.append("\n".join([f"## {heading}", "", *(f"- {each}" for each in sentences)]))
    return "\n\n".join(parts) + "\n"


def by_heading(told: Sequence[Guideline]) -> list[tuple[str, list[str]]]:
    """The sentences under each heading that has any."""
    found = [(each, [one.sentence for one in told if one.heading == each]) for each in HEADINGS]
    return [(heading, sentences) for heading, sentences in found if sentences]


# --- what each claim's readings say -------------------------------------------------------------

Told = tuple[str, Sequence[Reading]]
"""A sentence, and the readings that it is made of."""


def _gains(verdict: Verdict) -> Iterator[Told]:
    """Whatever becomes of the claim."""
    for each in _read(verdict, "gain_at_equal_tokens", "gain_at_equal_flops"):
        known = each.known
        if known.sign() == 0 and (known.lo is None or known.hi is None):
            continue
        where = at_equal(each.quantity, each.scenario)
        yield f"{_level(each)} distilling is {_lead(known)} {where}, {each.note}", [each]


def _lead(known: Known) -> str:
    """Ahead or behind by so many nats, or not told apart."""
    sign = known.sign()
    if sign == 0:
        return f"not told apart from scratch ({shown(known)} nats ahead)"
    if sign > 0:
        return f"ahead of scratch by {shown(known)} nats"
    return f"behind scratch by {shown(known.negated())} nats"


def _flops(verdict: Verdict) -> Iterator[Told]:
    alone = [each for each in _settled(verdict, "flops_ratio") if each.n_students == 1]
    for ratios in _groups(alone, lambda each: each.method):
        times = [
            f"{r.known_text} times {_payer(r)} (at {r.at_cross_entropy:.3g} nats)" for r in ratios
        ]
        yield (
            f"for equal loss, scratch takes the FLOPs of {_level(ratios[0])} distilling "
            f"{listed(times)}",
            ratios,
        )


def _payer(found: Reading) -> str:
    paid = who_pays(found.scenario, "the teacher's")
    return paid if found.scenario == "free" else f"{paid} by one student"


def _break_even(verdict: Verdict) -> Iterator[Told]:
    for each in _settled(verdict, "break_even"):
        if each.verdict == "supported" and each.estimate is not None:
            yield (
                f"{_payer(each)}, {_level(each)} distilling wins up to {each.known_text} "
                f"tokens at N = {_size_of(each)}, and training directly wins beyond",
                [each],
            )
    behind = [r for r in _settled(verdict, "break_even") if r.verdict == "contradicted"]
    for those in _groups(behind, lambda each: (each.method, each.scenario)):
        yield (
            f"{_payer(those[0])}, {_level(those[0])} distilling is behind at every measured number "
            f"of tokens at N = {listed(list(map(_size_of, those)))}",
            those,
        )


def _shares(verdict: Verdict) -> Iterator[Told]:
    shares = _settled(verdict, "token_share")
    for those in _groups([r for r in shares if r.estimate is not None], lambda each: each.method):
        yield (
            f"{_level(those[0])} distilling reaches scratch's loss with {_range(those)} of the "
            f"tokens, at N = {listed(list(map(_size_of, those)))}",
            those,
        )
    bounds = [each for each in shares if each.estimate is None]
    for those in _groups(bounds, lambda each: (each.method, each.known_text)):
        yield (
            f"{_level(those[0])} distilling needs {those[0].known_text} of scratch's tokens at "
            f"N = {listed(list(map(_size_of, those)))}",
            those,
        )


def _curation(verdict: Verdict) -> Iterator[Told]:
    for those, counted in _alike(_settled(verdict, "exponent_improvement")):
        yield (
            f"curated text adds {those[0].known_text} to the exponent of N of {those[0].method}, "
            f"{counted}",
            those,
        )


def _ratios(verdict: Verdict) -> Iterator[Told]:
    whose = {"best_ratio": "a free teacher", "planned_ratio": "a teacher whose inference is paid"}
    for quantity, teacher in whose.items():
        for those, counted in _alike(_settled(verdict, quantity)):
            yield (
                f"with {_level(those[0])} distilling {teacher} is best at {those[0].known_text} "
                f"times the student's size, {counted}",
                those,
            )


def _degradation(verdict: Verdict) -> Iterator[Told]:
    """Whatever becomes of the claim."""
    for each in _read(verdict, "degradation"):
        is_less = each.estimate is not None and each.estimate < 0
        known, more = (each.known.negated(), "less") if is_less else (each.known, "more")
        yield (
            f"with each halving of N {_level(each)} distilling loses {shown(known)} nats {more} "
            "than scratch",
            [each],
        )


def _alphas(verdict: Verdict) -> Iterator[Told]:
    for those, counted in _alike(_settled(verdict, "alpha")):
        yield f"{those[0].what} is {those[0].known_text}, {counted}", those


def _collapse(verdict: Verdict) -> Iterator[Told]:
    stems: dict[str, list[Reading]] = {}
    for those in _groups(_settled(verdict, "g"), lambda each: (each.method, each.n_column)):
        ratios = [f"{each.at_ratio:.3g}" for each in those]
        stem = (
            f"with teachers {listed(ratios)} times as large, {_level(those[0])} distilling has "
            f"{_range(those)} times scratch's loss above the floor"
        )
        stems.setdefault(stem, []).extend(those)
    for stem, readings in stems.items():
        yield f"{stem}, {_counted(readings)}", readings


def _split(verdict: Verdict) -> Iterator[Told]:
    for those, counted in _alike(_settled(verdict, "planned_share")):
        yield (
            f"the best plan with {_level(those[0])} distilling spends {those[0].known_text} on the "
            f"teacher's inference ({those[0].note}), {counted}",
            those,
        )


RULES: dict[str, tuple[tuple[str, Callable[[Verdict], Iterator[Told]]], ...]] = {
    DISTIL: (("H2", _gains), ("H2", _flops), ("H8", _break_even)),
    DATA: (("H4", _shares), ("H5", _curation)),
    TEACHER: (("H3", _ratios),),
    SIZE: (("H1", _degradation), ("H1", _alphas), ("H6", _collapse)),
    COMPUTE: (("H7", _split),),
}


# --- readings -----------------------------------------------------------------------------------


def _of(found: Claims, claim: str) -> Verdict:
    return next(each for each in found.verdicts if each.id == claim)


def _read(verdict: Verdict, *quantities: str) -> list[Reading]:
    """Those with an interval or a bound."""
    return [r for r in verdict.readings if r.quantity in quantities and not r.known.is_open]


def _settled(verdict: Verdict, quantity: str) -> list[Reading]:
    """The same of a claim that is determined; none of one that is not."""
    return [] if verdict.verdict == "undetermined" else _read(verdict, quantity)


def _groups(readings: Iterable[Reading], key: Callable[[Reading], Hashable]) -> list[list[Reading]]:
    groups: dict[Hashable, list[Reading]] = {}
    for each in readings:
        groups.setdefault(key(each), []).append(each)
    return list(groups.values())


def _alike(readings: Iterable[Reading]) -> Iterator[tuple[list[Reading], str]]:
    """Readings that differ only in how N is counted, one where they read the same."""
    for those in _groups(readings, lambda each: (each.method, each.known_text)):
        yield those, _counted(those)


# --- words --------------------------------------------------------------------------------------


def _counted(readings: Sequence[Reading]) -> str:
    return f"by {listed(list(dict.fromkeys(N_NAMES[each.n_column] for each in readings)))}"


def _level(found: Reading) -> str:
    return f"{found.method}-level"


def _size_of(found: Reading) -> str:
    return human(found.at_n) if found.at_n is not None else ""


def _range(readings: Sequence[Reading]) -> str:
    return " to ".join(extremes(readings))
