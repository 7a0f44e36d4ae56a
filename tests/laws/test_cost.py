"""Forward FLOPs per token: published numbers, exact recoveries, the ladder's own counts."""

import numpy as np
import pytest

from kdlaws.laws import fit, published
from kdlaws.laws.cost import TWO_N, ForwardFlops, fitted_forward
from kdlaws.shapes import shape

SIZES = ("64/2", "96/3", "128/4", "160/5", "192/6", "256/8")


@pytest.mark.parametrize(("n", "gflops"), [(103e6, 0.340), (12.6e9, 27.23)])
def test_busbridge_et_al_count_as_their_table_13_says(n: float, gflops: float) -> None:
    forward = published("busbridge2025").forward_flops
    assert forward is not None
    assert float(forward(n)) / 1e9 == pytest.approx(gflops, rel=2e-3)


@pytest.mark.parametrize("name", ["kaplan2020", "hoffmann2022", "besiroglu2024", "muennighoff2023"])
def test_the_others_count_six_n_per_training_token(name: str) -> None:
    forward = published(name).forward_flops
    assert forward is not None
    assert 3 * float(forward(7e9)) == 6 * 7e9


def test_a_fitted_function_recovers_its_own() -> None:
    true = ForwardFlops(2.0, 155.0, 4000.0)
    n = np.geomspace(1e5, 1e9, 7)
    found = fitted_forward(np.repeat(n, 3), np.repeat(true(n), 3))
    assert found is not None
    assert (found.per_n, found.attention, found.head) == pytest.approx((2.0, 155.0, 4000.0))
    assert found.largest_error < 1e-9


def test_the_ladder_is_of_that_form() -> None:
    shapes = [shape(size) for size in SIZES]
    n = np.array([each.n_params_non_embedding for each in shapes], dtype=np.float64)
    flops = np.array([each.forward_flops_per_token for each in shapes], dtype=np.float64)
    found = fitted_forward(n, flops)
    assert found is not None
    assert found.largest_error < 0.02
    between = shape("224/7")
    assert float(found(between.n_params_non_embedding)) == pytest.approx(
        between.forward_flops_per_token, rel=0.02
    )


def test_one_size_gives_a_multiple_of_n() -> None:
    found = fitted_forward(np.array([1e6, 1e6, np.nan]), np.array([5e6, 5e6, 1.0]))
    assert found == ForwardFlops(pytest.approx(5.0), 0.0, 0.0, pytest.approx(0.0))


def test_what_is_not_known_is_none() -> None:
    assert fitted_forward(np.array([1e6]), np.array([np.nan])) is None


def test_a_fit_keeps_what_its_table_says() -> None:
    n = np.repeat(np.geomspace(1e6, 1e8, 4), 4)
    d = np.tile(np.geomspace(1e7, 1e9, 4), 4)
    columns = {
        "n_params": n,
        "n_tokens": d,
        "cross_entropy": 1.8 + 480 / n**0.35 + 2000 / d**0.37,
    }
    plain = fit(columns, "chinchilla", n_column="n_params", bootstrap=0)
    assert plain.forward_flops is None
    priced = fit(
        {**columns, "forward_flops_per_token": TWO_N(n) * 1.5},
        "chinchilla",
        n_column="n_params",
        bootstrap=0,
    )
    assert priced.forward_flops is not None
    assert float(priced.forward_flops(1e7)) == pytest.approx(3e7, rel=1e-6)
