"""The rule of the verdicts, how they combine, and intervals of what follows from a fit."""

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdlaws.advice.columns import N
from kdlaws.advice.contrasts import Estimate, SeedNoise
from kdlaws.advice.evidence import Evidence
from kdlaws.advice.judging.collapse import TOO_LARGE, WORSE, Beyond
from kdlaws.advice.judging.joint import derived
from kdlaws.advice.judging.known import Known, shown
from kdlaws.advice.judging.reach import reached
from kdlaws.advice.judging.verdicts import (
    Claimed,
    both_ways,
    by_convention,
    conjunction,
    depends_on_n,
    doubted,
    reading,
    unanimous,
    unopposed,
)
from kdlaws.laws import Fit
from kdlaws.laws.uncertainty import Linear, Resampled

# --- the rule -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lo", "hi", "side"),
    [
        (0.55, 0.65, "supported"),
        (0.50, 0.70, "supported"),  # the range is closed
        (0.45, 0.65, "undetermined"),
        (0.55, 0.75, "undetermined"),
        (0.40, 0.80, "undetermined"),
        (0.30, 0.50, "undetermined"),  # it touches
        (0.30, 0.49, "contradicted"),
        (0.71, 0.90, "contradicted"),
        (None, 0.49, "contradicted"),  # a bound can contradict ...
        (0.71, None, "contradicted"),
        (0.55, None, "undetermined"),  # ... and never support
        (None, 0.65, "undetermined"),
        (None, None, "undetermined"),
    ],
)
def test_a_reading_is_judged_by_its_interval(lo: float | None, hi: float | None, side: str) -> None:
    assert Claimed(0.5, 0.7).verdict(Known(0.6, lo, hi)) == side


def test_a_range_without_an_end_is_not_supported_by_a_bound() -> None:
    assert Claimed(lo=1.0).verdict(Known(1.2, 1.1, 1.3)) == "supported"
    assert Claimed(lo=1.0).verdict(Known(None, 1.1, None)) == "undetermined"
    assert Claimed(hi=0.0).verdict(Known(None, 0.1, None)) == "contradicted"


def test_an_estimate_has_the_interval_of_students_t() -> None:
    """A tenth, with a standard error of .01 from seeds alone on 3 degrees of freedom."""
    known = Known.of(Estimate(0.1, math.nan, 0.01, 3))
    half = float(stats.t.ppf(0.95, 3)) * 0.01
    assert (known.lo, known.hi) == pytest.approx((0.1 - half, 0.1 + half))
    assert known.sign() == 1
    assert known.negated().sign() == -1


def test_without_seeds_an_estimate_has_no_interval() -> None:
    """The standard error over test sequences is known, and is the smaller part."""
    assert Known.of(Estimate(0.1, 0.001, math.nan, math.nan)) == Known(0.1)


def test_what_lies_outside_the_measured_range_is_no_end() -> None:
    assert Known(5.0, 3.0, 12.0).clipped(2.0, 10.0) == Known(5.0, 3.0, None)
    assert Known(5.0, 1.0, 6.0).clipped(2.0, 10.0) == Known(5.0, None, 6.0)
    assert Known(20.0, 15.0, 30.0).clipped(2.0, 10.0) == Known(None, 10.0, None)
    assert Known(1.0, 0.5, 1.5).clipped(2.0, 10.0) == Known(None, None, 2.0)


def test_a_ratio_takes_the_far_ends() -> None:
    assert Known(6.0, 6.0, 6.0).over(Known(2.0, 1.5, 3.0)) == Known(3.0, 2.0, 4.0)
    assert Known(6.0, 6.0, 6.0).over(Known(None, None, 2.0)) == Known(None, 3.0, None)


# --- combining ----------------------------------------------------------------------------------


def test_how_verdicts_combine() -> None:
    assert unanimous(["supported", "supported"]) == "supported"
    assert unanimous(["supported", "undetermined"]) == "undetermined"
    assert unanimous([]) == "undetermined"
    assert conjunction(["supported", "undetermined", "contradicted"]) == "contradicted"
    assert conjunction(["supported", "undetermined"]) == "undetermined"
    assert conjunction(["supported", "supported"]) == "supported"
    assert unopposed("supported", ["undetermined"]) == "supported"
    assert unopposed("supported", ["contradicted"]) == "undetermined"
    assert unopposed("contradicted", ["supported"]) == "undetermined"


def test_both_ways_to_count_n_must_speak_and_agree() -> None:
    total = "n_params"
    assert both_ways({N: "supported", total: "supported"}) == "supported"
    assert both_ways({N: "contradicted", total: "contradicted"}) == "contradicted"
    assert both_ways({N: "supported", total: "contradicted"}) == "undetermined"
    assert both_ways({N: "supported", total: "undetermined"}) == "undetermined"
    assert both_ways({N: "supported"}) == "undetermined"
    assert both_ways({total: "contradicted"}) == "undetermined"


def test_a_doubted_reading_keeps_its_numbers_and_judges_nothing() -> None:
    found = doubted(reading("alpha", Known(0.6, 0.55, 0.65), Claimed(0.5, 0.7)), "why")
    assert (found.estimate, found.lo, found.hi) == (0.6, 0.55, 0.65)
    assert (found.verdict, found.note) == ("undetermined", "why")


def test_both_ways_to_count_n_are_said_where_they_disagree() -> None:
    both = [
        reading("alpha", known, Claimed(0.5, 0.7), n_column=n_column)
        for n_column, known in (
            ("n_params_non_embedding", Known(0.6, 0.55, 0.65)),
            ("n_params", Known(0.9, 0.8, 1.0)),
        )
    ]
    assert depends_on_n(both)
    assert by_convention(both) == (
        "0.600 [0.550, 0.650] (supported) by N without embeddings but "
        "0.900 [0.800, 1.000] (contradicted) by total N"
    )
    assert by_convention(both[:1]) == "0.600 [0.550, 0.650] (supported)"


@pytest.mark.parametrize(
    ("known", "unit", "text"),
    [
        (Known(6.234, 5.8, 6.71), "times", "6.23 [5.80, 6.71]"),
        (Known(0.352, 0.3, 0.4012), "share", "35.2 % [30.0, 40.1]"),
        (Known(812_345.0, 790_000.0, None), "tokens", "812k [790k, open]"),
        (Known(0.0), "nats", "0.00 (no interval)"),
        (Known(None, None, 0.25), "share", "less than 25.0 %"),
        (Known(None, 3.14159, None), "", "more than 3.14"),
        (Known(), "", "unknown"),
    ],
)
def test_numbers_as_people_read_them(known: Known, unit: str, text: str) -> None:
    assert shown(known, unit) == text


COLLAPSE = [
    # g at each ratio beyond 20, and kappa
    ([(1.1, 1.3), (1.2, 1.4)], (0.1, 0.3), "supported"),
    ([(1.1, 1.3), (1.2, 1.4)], (-0.1, 0.3), "undetermined"),  # kappa may be zero
    ([(1.1, 1.3), (1.2, 1.4)], (None, None), "undetermined"),  # one teacher
    ([(1.1, 1.3)], (0.1, 0.3), "undetermined"),  # one size
    ([(1.1, 1.3), (1.2, 1.4), (0.7, 0.8)], (0.1, 0.3), "undetermined"),
    ([(0.7, 0.9), (0.6, 0.8)], (None, None), "contradicted"),
    ([(0.7, 0.9), (0.9, 1.1)], (0.1, 0.3), "undetermined"),
]


@pytest.mark.parametrize(("gains", "kappa", "side"), COLLAPSE)
def test_collapse_takes_two_sizes_and_kappa(
    gains: list[tuple[float, float]], kappa: tuple[float | None, float | None], side: str
) -> None:
    read = tuple(reading("g", Known(None, *ends), WORSE) for ends in gains)
    assert Beyond(read, reading("kappa", Known(None, *kappa), TOO_LARGE)).side == side


def test_a_gain_that_has_faded_is_near_one() -> None:
    kappa = reading("kappa", Known(), TOO_LARGE)
    near, far = (
        tuple(reading("g", Known(1.0, *ends), WORSE) for ends in each)
        for each in ([(0.985, 1.01), (0.99, 1.015)], [(0.985, 1.01), (0.97, 1.015)])
    )
    assert Beyond(near, kappa).has_faded
    assert not Beyond(far, kappa).has_faded


# --- what follows from a fit --------------------------------------------------------------------


def a_fit(uncertainty: Any) -> Fit:
    """Two parameters, at 2 and 3."""
    return cast(Fit, SimpleNamespace(u=np.array([2.0, 3.0]), level=0.9, uncertainty=uncertainty))


def product(u: Any) -> float:
    return float(u[0] * u[1])


def test_a_derived_quantity_has_the_interval_of_the_delta_method() -> None:
    """var(xy) = y^2 var x + x^2 var y + 2xy cov: 9*.04 + 4*.01 + 12*.006, and a normal quantile."""
    covariance = np.array([[0.04, 0.006], [0.006, 0.01]])
    none = np.zeros((2, 2))
    found = derived(a_fit(Linear(covariance, none, none, none)), product)
    half = float(stats.norm.ppf(0.95)) * math.sqrt(0.36 + 0.04 + 0.072)
    assert (found.value, found.lo, found.hi) == pytest.approx((6, 6 - half, 6 + half), rel=1e-4)


def test_refits_give_percentiles() -> None:
    samples = np.stack([np.linspace(1, 3, 201), np.full(201, 3.0)], axis=1)
    found = derived(a_fit(Resampled(samples)), product)
    assert (found.lo, found.hi) == pytest.approx((3.3, 8.7))


def test_without_uncertainty_there_is_no_interval() -> None:
    assert derived(a_fit(None), product) == Known(6.0)


# --- where curves are reached -------------------------------------------------------------------


def cell(*losses: float) -> pd.DataFrame:
    return pd.DataFrame({"run_id": [f"{x}" for x in losses], "cross_entropy": losses})


def test_a_loss_is_reached_with_a_90_percent_interval() -> None:
    """At a measured point two runs differ by root 2 of .02 nats, .8 nats a unit of ln x."""
    evidence = cast(Evidence, SimpleNamespace(losses={}))
    curve = {x: cell(12 - 0.8 * math.log(x)) for x in (1e5, 2e5, 4e5)}
    found = reached(evidence, curve, cell(12 - 0.8 * math.log(2e5)), SeedNoise(0.02, 4))
    half = float(stats.t.ppf(0.95, 4)) * 0.02 * math.sqrt(2) / 0.8
    ends = (2e5 * math.exp(-half), 2e5 * math.exp(half))
    assert (found.value, found.lo, found.hi) == pytest.approx((2e5, *ends))


def test_beyond_a_curve_there_is_a_bound_where_it_is_sure() -> None:
    """The ends are .02 and .2 nats away from the target, whose noise is .02 nats."""
    evidence = cast(Evidence, SimpleNamespace(losses={}))
    curve, noise = {1e5: cell(4.0), 2e5: cell(3.0)}, SeedNoise(0.02, 4)
    assert reached(evidence, curve, cell(4.2), noise) == Known(None, None, 1e5)
    assert reached(evidence, curve, cell(2.8), noise) == Known(None, 2e5, None)
    assert reached(evidence, curve, cell(4.02), noise) == Known()
    assert reached(evidence, curve, cell(2.98), noise) == Known()
