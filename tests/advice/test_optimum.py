"""The search against surfaces whose lowest point is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from kdlaws.advice.planning.optimum import Surface, follow, interior, lowest, movement

Floats = NDArray[np.float64]
LO, HI = np.array([-10.0, -8.0, -5.0]), np.array([12.0, 9.0, 20.0])
AT = np.array([3.217, -1.5, 8.01])
TWIST = np.array([[1.0, 0.9, 0.0], [0.9, 1.2, -0.3], [0.0, -0.3, 0.5]])


def bowl(at: Floats, n: int) -> Surface:
    def surface(z: Floats) -> Floats:
        away = z - at[:n]
        quadratic: Floats = np.einsum("...i,ij,...j->...", away, TWIST[:n, :n], away)
        return np.log(2 + np.cosh(away[..., 0]) - 1 + quadratic)

    return surface


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_lowest_point_is_found_to_a_billionth(n: int) -> None:
    found = lowest(bowl(AT, n), LO[:n], HI[:n])
    np.testing.assert_allclose(found, AT[:n], atol=1e-8)


def test_the_lower_of_two_valleys_is_found() -> None:
    def surface(z: Floats) -> Floats:
        x = z[:, 0]
        return np.minimum((x - 4) ** 2, (x + 7) ** 2 - 0.5)

    np.testing.assert_allclose(lowest(surface, LO[:1], HI[:1]), [-7.0], atol=1e-8)


def test_a_narrow_bent_valley_is_followed() -> None:
    """Rosenbrock 1960: the lowest point is at (1, 1)."""

    def surface(z: Floats) -> Floats:
        return (1 - z[..., 0]) ** 2 + 100 * (z[..., 1] - z[..., 0] ** 2) ** 2

    np.testing.assert_allclose(lowest(surface, LO[:2], HI[:2]), [1.0, 1.0], atol=1e-4)


def test_an_end_and_a_kink_are_found_without_slopes() -> None:
    falling = lowest(lambda z: -z[:, 0], LO[:1], HI[:1])
    assert falling is not None
    np.testing.assert_allclose(falling, HI[:1])
    assert not interior(falling, LO[:1], HI[:1]).any()
    kink = lowest(lambda z: np.abs(z[:, 0] - 1.2345), LO[:1], HI[:1])
    np.testing.assert_allclose(kink, [1.2345], atol=1e-6)


def test_nothing_is_found_where_nothing_is_allowed() -> None:
    assert lowest(lambda z: np.full(len(z), np.inf), LO[:2], HI[:2]) is None
    assert lowest(lambda z: np.full(len(z), np.nan), LO[:0], HI[:0]) is None
    alone = lowest(lambda z: np.zeros(len(z)), LO[:0], HI[:0])
    assert alone is not None
    assert len(alone) == 0


def test_many_surfaces_are_followed_to_their_own_lowest_points() -> None:
    rng = np.random.default_rng(0)
    goals = AT + rng.normal(scale=1.5, size=(50, 3))

    def surfaces(z: Floats) -> Floats:
        away = z - goals[:, None]
        return np.log(1 + np.einsum("spi,ij,spj->sp", away, TWIST, away))

    begin = np.repeat(AT[None], 50, axis=0)
    found, settled = follow(surfaces, begin, LO, HI, np.arange(3))
    assert settled.all()
    np.testing.assert_allclose(found, goals, atol=1e-5)


def test_a_surface_without_values_is_not_settled() -> None:
    def surfaces(z: Floats) -> Floats:
        values = (z[..., 0] - np.array([[1.0], [2.0]])) ** 2
        return np.where(np.array([[True], [False]]), values, np.nan)

    found, settled = follow(surfaces, np.zeros((2, 1)), LO[:1], HI[:1], np.arange(1))
    assert settled.tolist() == [True, False]
    np.testing.assert_allclose(found[0], [1.0], atol=1e-6)


def test_the_lowest_point_moves_as_calculus_says() -> None:
    """(z - M u)' T (z - M u) is lowest at M u, whatever T is."""
    m = np.array([[1.0, 2.0], [0.5, -1.0], [0.0, 3.0]])
    u = np.array([0.3, -0.2])

    def surface(z: Floats) -> Floats:
        away = z - m @ u
        return np.einsum("...i,ij,...j->...", away, TWIST, away)

    def slopes(z: Floats) -> Floats:
        return -2 * (z - m @ u) @ TWIST @ m

    moved = movement(surface, slopes, m @ u, np.arange(3))
    np.testing.assert_allclose(moved, m, atol=1e-6)
    partly = movement(surface, slopes, m @ u, np.array([0, 2]))
    reduced = np.linalg.solve(TWIST[np.ix_([0, 2], [0, 2])], (TWIST @ m)[[0, 2]])
    np.testing.assert_allclose(partly[[0, 2]], reduced, atol=1e-6)
    np.testing.assert_allclose(partly[1], 0)
