"""Simulated studies that deserve each verdict, judged once."""

import math
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from kdlaws.advice.evidence import load
from kdlaws.advice.judging.claims import TESTS, Claims, judge
from kdlaws.advice.judging.grounds import Grounds
from kdlaws.advice.judging.joint import joint
from kdlaws.advice.judging.verdicts import N_NAMES, Reading, Verdict

from .simulated import SIZES, TOKENS, Gain, Simulation

STEEP, GENTLE = Gain(1.1, 1.5, 20, 3e5), Gain(0.8, 0.2, 7.5, 3e5)
SMALL_TEACHERS = Gain(0.1, 0.5, 1.62, 3e5)


def only_tokens(n_tokens: float) -> Gain:
    """g = 1 at every ratio: the teacher saves tokens, as if scratch had read more, and no more."""
    return Gain(math.sqrt(2), 0.0, 1e-4, n_tokens)


# Two steps of these tokens are a factor of 1/.15: distilled and scratch curves have equal points.
ALIGNED = tuple(1.5e4 * 0.15 ** (-k / 2) for k in range(7))
DOUBLED = tuple(1.5e4 * 2.0**k for k in range(9))
FINE = tuple(1e5 * 1.6**k for k in range(9))
THRIFTY = Simulation({"token": only_tokens(1.5e5)}, [1e6], tokens=ALIGNED, price=1e-5)

ONE_TEACHER, STEEP_GAP = "one teacher, a gentle gap", "three teachers, a steep gap"
SMALL_ONES, EMBEDDINGS = "three teachers, small ones best", "large embeddings"
FAR = TOKENS[::2]  # tokens further apart, for fits of half the time
GENTLY = Simulation({"token": GENTLE}, [4.6e5], tokens=FAR)
# Judged with the joint laws by both ways to count N, which say the same but for the last:
WITH_LAW = {
    STEEP_GAP: Simulation({"token": STEEP}, [1e6, 4e5, 4e6], tokens=FAR),
    SMALL_ONES: Simulation({"token": SMALL_TEACHERS}, [2.4e6, 6e5, 1.5e5], tokens=FAR),
    ONE_TEACHER: GENTLY,
    EMBEDDINGS: replace(GENTLY, embedding=4e4),
}
BOTH_TEXTS = Simulation({}, [], sizes=SIZES[:4], tokens=FAR, is_additive=True, curated_alpha=0.15)
# What needs none:
WITHOUT_LAW = {
    "15 % of the tokens": THRIFTY,
    "15 %, a dear teacher": replace(THRIFTY, price=1.0),
    "half of the tokens": Simulation(
        {"token": only_tokens(5e5)}, [1e6], sizes=SIZES[:3], tokens=DOUBLED, price=1e-5
    ),
    "short curves": Simulation(
        {"token": Gain(0.3, 0.1, 2.0, 3e6)}, [2e5], tokens=(1e6, 1.5e6, 2e6, 4e6)
    ),
    "overtaken": Simulation({"token": Gain(1.2, 0.3, 2.0, 1e4)}, [1e6], tokens=FINE, price=1e-5),
    "harmful": Simulation({"token": Gain(1.5, 0.1, 2.0, 3e6)}, [1e6]),
    "better text": BOTH_TEXTS,
    "same text": replace(BOTH_TEXTS, curated_alpha=0.0),
}
TESTED = dict(zip((f"H{k}" for k in range(1, 9)), TESTS, strict=True))


def grounds_of(simulation: Simulation, *n_columns: str) -> Grounds:
    """A study, with the joint law by these ways to count N, and without any."""
    with tempfile.TemporaryDirectory() as folder:
        evidence = load(simulation.write(Path(folder) / "study"))
    return Grounds(evidence, {n: joint(evidence, n) for n in n_columns})


@cache
def judged_on(name: str) -> Grounds:
    """One of the studies, with its joint laws where it is judged with them."""
    if name in WITHOUT_LAW:
        return grounds_of(WITHOUT_LAW[name])
    return grounds_of(WITH_LAW[name], *N_NAMES)


@cache
def judged(name: str) -> Claims:
    """All claims of a study."""
    return judge(judged_on(name))


@cache
def verdict_of(claim: str, name: str) -> Verdict:
    """One claim's verdict on a study."""
    return TESTED[claim](judged_on(name))


def having(verdict: Verdict, what: str, **about: str) -> list[Reading]:
    return [
        each
        for each in verdict.readings
        if what in each.what and all(getattr(each, name) == said for name, said in about.items())
    ]


def assert_holds(reading: Reading, truth: float, *, within: float) -> None:
    """The estimate is near the truth (relative), and its interval covers it."""
    assert reading.estimate == pytest.approx(truth, rel=within)
    assert_covers(reading, truth)


def assert_covers(reading: Reading, truth: float) -> None:
    """The interval, twice as wide, contains the truth.

    One of 90 % misses it once in ten times; widened by half its width on either side, once in a
    thousand. If it were three times too narrow, it would still miss it once in four.
    """
    assert reading.lo is not None
    assert reading.hi is not None
    slack = (reading.hi - reading.lo) / 2
    assert reading.lo - slack <= truth <= reading.hi + slack
