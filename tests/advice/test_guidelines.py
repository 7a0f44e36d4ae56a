"""Guidelines: every number in them is one of the readings', and nothing is said without one."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kdlaws.advice.judging.claims import Claims, judge
from kdlaws.advice.judging.guidelines import HEADINGS, Guideline, guidelines, to_markdown

from .simulated import SIZES, TOKENS, Simulation
from .studies import SMALL_ONES, THRIFTY, WITHOUT_LAW, grounds_of, judged

DISTIL, DATA, TEACHER, SIZE, COMPUTE, UNKNOWN = HEADINGS
NUMBER = re.compile(r"(?<![\w.])(-?\d+(?:\.(\d+))?(?:e[+-]?\d+)?)([kMBT]?)(?![\w])( %)?")
SCALE = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def numbers(text: str) -> Iterator[tuple[float, float]]:
    """Each number and half a unit of its last place; inside brackets percent goes on."""
    text = re.sub(r"(\d) % \[([\d.]+|open), ([\d.]+|open)\]", r"\1 % [\2 %, \3 %]", text)
    for match in NUMBER.finditer(text):
        unit = SCALE[match[3]] * (0.01 if match[4] else 1.0)
        digits = len(match[2] or "")
        value = float(match[1]) * unit
        # Amounts and powers of ten have three significant digits.
        yield (
            value,
            max(
                0.51 * 10.0**-digits * unit, 0.005 * abs(value) * bool(match[3] or "e" in match[1])
            ),
        )


def known_numbers(each: Guideline) -> list[float]:
    """Of the readings behind a sentence, and of what they are of."""
    ends = [x for r in each.readings for x in (r.estimate, r.lo, r.hi) if x is not None]
    named = [value for r in each.readings for value, _ in numbers(f"{r.what}; {r.note}")]
    return [*ends, *(-x for x in ends), *named]


@pytest.fixture(scope="module")
def studies() -> list[Claims]:
    """One with three teachers and a law, one in which the model-free claims are determined."""
    return [judged(SMALL_ONES), judge(grounds_of(THRIFTY))]


def test_every_number_is_one_of_the_readings_behind_it(studies: list[Claims]) -> None:
    told = [each for study in studies for each in guidelines(study)]
    assert {each.heading for each in told} == set(HEADINGS)
    n_checked = 0
    for each in told:
        if each.heading == UNKNOWN:
            continue
        known = known_numbers(each)
        for value, tolerance in numbers(each.sentence):
            assert any(abs(value - x) <= tolerance for x in known), (value, each.sentence)
            n_checked += 1
        assert each.readings
        assert each.claim
    assert n_checked > 50


def test_intervals_are_said_beside_the_numbers(studies: list[Claims]) -> None:
    for each in (g for study in studies for g in guidelines(study) if g.heading != UNKNOWN):
        assert re.search(r"\[[^]]+\]|less than|more than", each.sentence), each.sentence
        assert each.scope in {str(study.scope) for study in studies}
        assert each.scope in str(each)


def test_what_is_not_known_is_listed_with_what_would_settle_it(studies: list[Claims]) -> None:
    for study in studies:
        open_claims = [v for v in study.verdicts if v.verdict == "undetermined"]
        told = [each for each in guidelines(study) if each.heading == UNKNOWN]
        assert [each.claim for each in told] == [v.id for v in open_claims]
        for each, verdict in zip(told, open_claims, strict=True):
            assert each.sentence.endswith(verdict.would_settle)


def test_nothing_is_said_of_what_the_study_lacks(studies: list[Claims]) -> None:
    """The second has no law: no best teacher, no split; it never ran curated text either."""
    headings = {each.heading for each in guidelines(studies[1])}
    assert headings == {DISTIL, DATA, SIZE, UNKNOWN}
    for study in studies:
        determined = {v.id for v in study.verdicts if v.verdict != "undetermined"}
        for each in guidelines(study):
            assert "urated" not in each.sentence or each.heading == UNKNOWN
            always = ("ahead of scratch", "behind scratch", "not told apart", "each halving")
            if each.heading != UNKNOWN and not any(words in each.sentence for words in always):
                assert each.claim in determined


def test_a_study_from_scratch_alone_carries_no_advice() -> None:
    found = judge(grounds_of(Simulation({}, [], sizes=SIZES[:2], tokens=TOKENS[:2])))
    assert {each.heading for each in guidelines(found)} == {UNKNOWN}


def test_a_break_even_says_who_pays_and_for_which_size() -> None:
    told = [each.sentence for each in guidelines(judge(grounds_of(WITHOUT_LAW["overtaken"])))]
    wins = [text for text in told if "wins up to" in text and text.startswith("With a free")]
    assert len(wins) == 3
    assert "tokens at N = 20k, and training directly wins beyond." in wins[0]


@dataclass(frozen=True)
class APlan:
    sentence: str = "Spend 1e21 FLOPs on a student of 1B."


def test_plans_are_told_with_the_compute_and_markdown_has_its_sections(
    studies: list[Claims],
) -> None:
    told = guidelines(studies[0], [APlan()])
    assert APlan().sentence in [each.sentence for each in told if each.heading == COMPUTE]
    text = to_markdown(told)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == list(HEADINGS)
    assert text.startswith("What these runs carry, and nothing beyond them: simulated: 78 runs")
    assert all(f"- {each.sentence}\n" in text for each in told)
