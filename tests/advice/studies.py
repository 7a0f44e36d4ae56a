"""Simulated studies that deserve each verdict, judged once."""

import math
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from kdlaws.advice.columns import N
from kdlaws.advice.evidence import load
from kdlaws.advice.judging.cheapness import cheapness
from kdlaws.advice.judging.claims import Claims, judge
from kdlaws.advice.judging.curated_exponent import curated_exponent
from kdlaws.advice.judging.grounds import Grounds
from kdlaws.advice.judging.joint import joint
from kdlaws.advice.judging.parity import parity
from kdlaws.advice.judging.thrift import thrift
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
# Judged with the joint law, by these ways to count N:
WITH_LAW = {
    STEEP_GAP: (Simulation({"token": STEEP}, [1e6, 4e5, 4e6]), (N,)),
    SMALL_ONES: (Simulation({"token": SMALL_TEACHERS}, [2.4e6, 6e5, 1.5e5]), (N,)),
    ONE_TEACHER: (Simulation({"token": GENTLE}, [4.6e5]), (N,)),
    EMBEDDINGS: (
        Simulation({"token": GENTLE}, [4.6e5, 6e6, 6e4], tokens=TOKENS[::2], embedding=4e4),
        tuple(N_NAMES),
    ),
}
BOTH_TEXTS = Simulation(
    {}, [], sizes=SIZES[:4], tokens=TOKENS[:4], is_additive=True, curated_alpha=0.15
)
# What needs none:
WITHOUT_LAW = {
    "15 % of the tokens": THRIFTY,
    "15 %, a dear teacher": replace(THRIFTY, price=1.0),
    "half of the tokens": Simulation(
        {"token": only_tokens(5e5)}, [1e6], tokens=DOUBLED, price=1e-5
    ),
    "short curves": Simulation(
        {"token": Gain(0.3, 0.1, 2.0, 3e6)}, [2e5], tokens=(1e6, 1.5e6, 2e6, 4e6)
    ),
    "overtaken": Simulation({"token": Gain(1.2, 0.3, 2.0, 1e4)}, [1e6], tokens=FINE, price=1e-5),
    "harmful": Simulation({"token": Gain(1.5, 0.1, 2.0, 3e6)}, [1e6]),
    "better text": BOTH_TEXTS,
    "same text": replace(BOTH_TEXTS, curated_alpha=0.0),
}
MODEL_FREE = {"H2": cheapness, "H4": thrift, "H5": curated_exponent, "H8": parity}


def grounds_of(simulation: Simulation, *n_columns: str) -> Grounds:
    """A study, with the joint law by these ways to count N, and without any."""
    with tempfile.TemporaryDirectory() as folder:
        evidence = load(simulation.write(Path(folder) / "study"))
    return Grounds(evidence, {n: joint(evidence, n) for n in n_columns})


@cache
def with_law(name: str) -> Grounds:
    """A study with its joint law."""
    simulation, n_columns = WITH_LAW[name]
    return grounds_of(simulation, *n_columns)


@cache
def judged(name: str) -> Claims:
    """All claims of a study with a joint law."""
    return judge(with_law(name))


@cache
def _without_law(name: str) -> Grounds:
    return grounds_of(WITHOUT_LAW[name])


@cache
def verdict_of(claim: str, name: str) -> Verdict:
    """One claim's verdict on a study."""
    if name in WITHOUT_LAW:
        return MODEL_FREE[claim](_without_law(name))
    [found] = [each for each in judged(name).verdicts if each.id == claim]
    return found


def having(verdict: Verdict, what: str, **about: str) -> list[Reading]:
    return [
        each
        for each in verdict.readings
        if what in each.what and all(getattr(each, name) == said for name, said in about.items())
    ]


def assert_holds(reading: Reading, truth: float, *, within: float) -> None:
    """The interval contains the truth, and the estimate is near it (relative)."""
    assert reading.estimate == pytest.approx(truth, rel=within)
    assert reading.lo is not None
    assert reading.hi is not None
    slack = 2 * (
        reading.hi - reading.lo
    )  # 90 % of intervals hold it; nearly all, three times wider
    assert reading.lo - slack <= truth <= reading.hi + slack
