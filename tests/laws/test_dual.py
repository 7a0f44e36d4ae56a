"""Derivatives of every operation, against complex steps of the same expression in plain numpy."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kdlaws.laws import dual
from kdlaws.laws.dual import Dual

A, B = np.array([[0.3], [1.7]]), np.array([[-0.8], [0.4]])  # [fits, 1]
X = np.array([-2.0, 0.5, 1.1])  # [runs]
STEP = 1e-30

plain = SimpleNamespace(
    log=np.log,
    exp=np.exp,
    expm1=np.expm1,
    log_sum=lambda *terms: np.log(sum(np.exp(term) for term in terms)),
    where=np.where,
)

Expression = Callable[[Any, Any, Any], Any]
EXPRESSIONS: dict[str, Expression] = {
    "sum": lambda f, a, b: a + b + X,
    "float first": lambda f, a, b: 2.0 + a,
    "array first": lambda f, a, b: X + a * b,
    "difference": lambda f, a, b: (a - b) - X,
    "from a float": lambda f, a, b: 1.0 - a * X,
    "negative": lambda f, a, b: -(a * a),
    "product": lambda f, a, b: a * b * a,
    "times an array": lambda f, a, b: X * (a + b),
    "ratio": lambda f, a, b: a / (b * b * b),
    "over an array": lambda f, a, b: (a + b) / X,
    "under an array": lambda f, a, b: X / (a + 3.0 * b),
    "log": lambda f, a, b: f.log(a * a + b * b),
    "exp": lambda f, a, b: f.exp(a * X - b),
    "expm1": lambda f, a, b: f.expm1(b * X) * a,
    "log_sum": lambda f, a, b: f.log_sum(a * X, b - X, a * b),
    "log_sum with a constant": lambda f, a, b: f.log_sum(0.0, a * X),
    "where": lambda f, a, b: f.where(X > 0, a * X, b * b),
    "where to a float": lambda f, a, b: f.where(X > 0, f.exp(a), 0.0),
    "nested": lambda f, a, b: a / b * f.log_sum(f.exp(a) - X, -b / f.exp(b)),
}


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_value_and_slopes_are_those_of_a_complex_step(expression: Expression) -> None:
    result = expression(dual, Dual(A, {0: 1.0}), Dual(B, {7: 1.0}))
    np.testing.assert_allclose(result.value, expression(plain, A, B), rtol=1e-14)
    by_a = expression(plain, A + STEP * 1j, B).imag / STEP
    by_b = expression(plain, A, B + STEP * 1j).imag / STEP
    for k, expected in ((0, by_a), (7, by_b)):
        slope = np.broadcast_to(result.slopes.get(k, 0.0), expected.shape)
        np.testing.assert_allclose(slope, expected, rtol=1e-12, atol=1e-300)


def test_what_a_number_does_not_depend_on_is_absent() -> None:
    a, b = Dual(A, {0: 1.0}), Dual(B, {1: 1.0})
    assert set((a * X + 1.0).slopes) == {0}
    assert set(dual.log_sum(a, X).slopes) == {0}
    assert set((a * b).slopes) == {0, 1}
    assert not (Dual(A) + X).slopes


def test_a_coordinate_may_move_a_number_by_more_than_one() -> None:
    """A slope that a number begins with is carried on: d(3a)^2 / da = 18a."""
    moved = Dual(3 * A, {0: 3.0})
    np.testing.assert_allclose((moved * moved).slopes[0], 18 * A)


@pytest.mark.parametrize("shift", [-5000.0, 0.0, 5000.0])
def test_log_sum_neither_overflows_nor_vanishes(shift: float) -> None:
    """log(e^s + 3 e^s) = s + log 4, whatever s; the terms' shares are 1/4 and 3/4."""
    level = np.array([shift])
    total = dual.log_sum(Dual(level, {0: 1.0}), Dual(level + np.log(3), {1: 1.0}))
    np.testing.assert_allclose(total.value, shift + np.log(4), rtol=1e-15)
    np.testing.assert_allclose(total.slopes[0], 0.25, rtol=1e-12)
    np.testing.assert_allclose(total.slopes[1], 0.75, rtol=1e-12)


def test_log_sum_of_terms_far_apart_is_the_larger() -> None:
    total = dual.log_sum(Dual(np.array([-800.0]), {0: 1.0}), Dual(np.array([900.0]), {1: 1.0}))
    assert total.value == 900.0
    assert total.slopes[0] == 0.0
    assert total.slopes[1] == 1.0
