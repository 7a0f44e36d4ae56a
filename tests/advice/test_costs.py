"""The cost model against its own formula in the paper, exact shares and exact prices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdlaws.advice.planning.costs import (
    NO_TEACHER,
    SCENARIOS,
    Costs,
    Rate,
    Scenario,
    TeacherCost,
    budget_flops,
    shares,
)
from kdlaws.errors import InputError
from kdlaws.laws.cost import TWO_N


@pytest.mark.parametrize(
    ("scenario", "inference", "training"),
    [("free", 0, 0), ("inference", 1, 0), ("pretraining", 0, 1), ("both", 1, 1)],
)
def test_the_buckets_are_those_of_busbridge_equation_9(
    scenario: Scenario, inference: int, training: int
) -> None:
    n, d, n_t, d_t, k, served = 1e9, 2e10, 7e9, 1.4e11, 4.0, 1e12
    costs = Costs(TWO_N, scenario, serve_tokens=served, n_students=k)
    spent = costs.spent(n, d, TeacherCost(2 * n_t, d_t))
    assert float(spent["student_training"]) == 6 * n * d
    assert float(spent["teacher_inference"]) == pytest.approx(inference * 2 * n_t * d / k)
    assert float(spent["teacher_training"]) == pytest.approx(training * 6 * n_t * d_t / k)
    assert float(spent["serving"]) == 2 * n * served


@given(
    scenario=st.sampled_from(SCENARIOS),
    n=st.floats(1e3, 1e11),
    ratio=st.floats(0.1, 100),
    corpus=st.floats(1e3, 1e14),
    k=st.integers(1, 50),
    served=st.floats(0, 1e12),
    is_online=st.booleans(),
    price=st.floats(0, 1e15),
)
def test_the_tokens_spend_the_budget(
    scenario: Scenario,
    n: float,
    ratio: float,
    corpus: float,
    k: int,
    served: float,
    is_online: bool,
    price: float,
) -> None:
    costs = Costs(TWO_N, scenario, served, k, corpus, is_online=is_online, flops_per_gigabyte=price)
    teacher = TeacherCost(2 * n * ratio, 20 * n * ratio)
    budget = 1e4 * n * (served + 20 * n * ratio**2 + 1e6)
    tokens = costs.tokens(budget, n, teacher)
    spent = sum(float(part) for part in costs.spent(n, tokens, teacher).values())
    assert spent == pytest.approx(budget, rel=1e-9)


@pytest.mark.parametrize(("r", "share"), [(1.3, 0.30), (10, 0.77)])
def test_the_teachers_share_is_r_over_three_plus_r(r: float, share: float) -> None:
    """science.md, hypothesis H7: 30 % only at r = 1.3, 77 % at 10."""
    spent = Costs(TWO_N, "inference").spent(1e9, 1e10, TeacherCost(2e9 * r))
    assert shares(spent)["teacher_inference"] == pytest.approx(share, abs=0.005)


def test_stored_outputs_are_read_once_and_online_ones_every_time() -> None:
    teacher, corpus, tokens = TeacherCost(8e9), 1e9, 4e9
    stored = Costs(TWO_N, n_students=2, n_unique_tokens=corpus).spent(1e9, tokens, teacher)
    online = Costs(TWO_N, n_students=2, n_unique_tokens=corpus, is_online=True)
    assert float(stored["teacher_inference"]) == 8e9 * corpus / 2
    assert float(online.spent(1e9, tokens, teacher)["teacher_inference"]) == 8e9 * tokens


def test_storage_costs_what_its_price_buys_in_flops() -> None:
    rate = Rate(flops_per_second=1e12, price_per_hour=3.6, price_per_gigabyte=0.02)
    assert rate.flops_per_gigabyte == pytest.approx(0.02 / 3.6 * 3600e12)
    costs = Costs(TWO_N, "free", flops_per_gigabyte=rate.flops_per_gigabyte)
    spent = costs.spent(1e9, 1e9, TeacherCost(1e10))
    assert costs.gigabytes(1e9) == pytest.approx(113)
    assert rate.money(float(spent["cache_storage"])) == pytest.approx(113 * 0.02)
    assert float(costs.spent(1e9, 1e9, NO_TEACHER)["cache_storage"]) == 0


def test_budgets_in_hours_and_money_become_flops() -> None:
    rate = Rate(flops_per_second=4e14, price_per_hour=2.5)
    assert budget_flops(rate, hours=10) == pytest.approx(4e14 * 36_000)
    assert budget_flops(rate, money=25) == pytest.approx(4e14 * 36_000)
    assert budget_flops(Rate(), flops=1e20) == 1e20
    assert (rate.hours(4e14 * 3600), rate.money(4e14 * 3600)) == (1.0, 2.5)
    assert (Rate().hours(1e20), Rate(1e12).money(1e20)) == (None, None)


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        ({}, "0 budgets"),
        ({"flops": 1e20, "hours": 3}, "2 budgets"),
        ({"hours": 3}, "flops_per_second"),
        ({"money": 3}, "price_per_hour"),
        ({"flops": 0}, "no budget"),
        ({"flops": np.nan}, "no budget"),
    ],
)
def test_a_budget_that_cannot_be_used_is_refused(budget: dict[str, float], told: str) -> None:
    with pytest.raises(InputError, match=told):
        budget_flops(Rate(), **budget)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"scenario": "gratis"}, "scenario"),
        ({"serve_tokens": -1}, "serve_tokens"),
        ({"n_students": 0.5}, "n_students"),
        ({"n_unique_tokens": 0}, "n_unique_tokens"),
        ({"cache_bytes_per_token": -1}, "cache_bytes_per_token"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, float], where: str) -> None:
    with pytest.raises(InputError, match=where):
        Costs(TWO_N, **settings)  # type: ignore[arg-type]


def test_a_price_of_storage_needs_a_price_of_flops() -> None:
    with pytest.raises(InputError, match="storage has a price"):
        _ = Rate(price_per_gigabyte=0.02).flops_per_gigabyte
