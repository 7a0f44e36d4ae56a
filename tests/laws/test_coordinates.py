"""The affine map: centring, pins, ties, and what a fit may not notice of them."""

from typing import Any

import numpy as np
import pytest

from kdlaws.laws import LAWS, Law, find
from kdlaws.laws.coordinates import Coordinates, coordinates, log_curve, plain_coordinates
from kdlaws.laws.dual import FloatArray
from kdlaws.laws.law import D_MID, L_T, METHOD, N_MID, RATIO, TEACHER_N, C, D, N, U

MEDIAN = 3.2
EVERY = [*LAWS.values(), find("spec", ["scratch", "token"]), find("spec_additive", ["token"])]
every_law = pytest.mark.parametrize(
    "law", EVERY, ids=[*LAWS, "spec of two", "spec_additive of one"]
)


def some_runs() -> dict[str, Any]:
    """Log columns of 12 runs of realistic sizes, half of them with a teacher."""
    rng = np.random.default_rng(4)
    taught = np.arange(12) % 2 == 0
    x: dict[str, Any] = {N: rng.uniform(9, 14, 12), D: rng.uniform(12, 16, 12)}
    x |= {C: np.log(6) + x[N] + x[D], U: x[D] - rng.exponential(1.5, 12)}
    x[L_T] = np.where(taught, rng.uniform(0.7, 1.1, 12), np.nan)
    x[TEACHER_N] = np.where(taught, x[N] + rng.uniform(0.5, 4, 12), np.nan)
    x[RATIO] = x[TEACHER_N] - x[N]
    x[METHOD] = np.where(taught, "token", "scratch")
    return x


def some_v(at: Coordinates, n_fits: int = 4) -> FloatArray:
    """Inside the box, near the law's own starts."""
    starts = at.law.starts(some_runs(), np.linspace(3.0, 5.0, 12))[:n_fits, at.free]
    rng = np.random.default_rng(5)
    return np.resize(starts, (n_fits, len(at.free))) + rng.uniform(0.0, 0.1, (n_fits, len(at.free)))


def of(law: Law | str, fixed: dict[str, Any] | None = None) -> Coordinates:
    """The map of a law for some runs, its own pins and ties under ``fixed``."""
    form = find(law) if isinstance(law, str) else law
    return coordinates(form, some_runs(), MEDIAN, {**form.fixed, **(fixed or {})})


def named(at: Coordinates, u: FloatArray, name: str) -> FloatArray:
    column: FloatArray = u[:, at.law.parameters.index(name)]
    return column


@every_law
def test_going_to_parameters_and_back_changes_nothing(law: Law) -> None:
    at = of(law)
    v = some_v(at)
    np.testing.assert_allclose(at.of(at.parameters(v)), v, rtol=1e-9, atol=1e-11)


@every_law
def test_the_curve_is_that_of_the_parameters(law: Law) -> None:
    """``log_curve`` takes u one by one, without a map."""
    at, x = of(law), some_runs()
    v = some_v(at)
    np.testing.assert_allclose(log_curve(law, at.parameters(v), x), at.value(v, x), rtol=1e-13)
    u = at.parameters(v)
    assert (plain_coordinates(law).parameters(u) == u).all()


@every_law
def test_the_unit_of_a_column_does_not_matter(law: Law) -> None:
    """Counted in thousands, the same centred coordinates give the same curve."""
    x = some_runs()
    unit = {N: 3.0, TEACHER_N: 3.0, D: -2.0, U: -2.0, C: 5.0}
    moved = {name: column + unit[name] if name in unit else column for name, column in x.items()}
    at, at_moved = of(law), coordinates(law, moved, MEDIAN, law.fixed)
    v = some_v(at)
    np.testing.assert_allclose(at_moved.value(v, moved), at.value(v, x), rtol=1e-10)


@every_law
def test_the_derivative_is_a_difference_quotient(law: Law) -> None:
    at, x = of(law), some_runs()
    v = some_v(at)
    value, jacobian = at.linearise(v, x)
    np.testing.assert_array_equal(value, at.value(v, x))
    assert jacobian.shape == (4, len(at.free), 12)
    for j in range(len(at.free)):
        step = np.zeros(len(at.free))
        step[j] = 1e-6
        expected = (at.value(v + step, x) - at.value(v - step, x)) / 2e-6
        np.testing.assert_allclose(jacobian[:, j], expected, rtol=1e-6, atol=1e-8)


def test_a_centred_scale_is_what_its_term_costs_at_the_geometric_mean() -> None:
    at, x = of("chinchilla"), some_runs()
    v = some_v(at)
    floor, size, data = np.exp(v[:, :3].T[:, :, None])
    alpha, beta = v[:, 3:].T[:, :, None]
    n, d = (np.exp(x[name] - x[name].mean()) for name in (N, D))
    expected = np.log(floor + size / n**alpha + data / d**beta)
    np.testing.assert_allclose(at.value(v, x), expected, rtol=1e-12)


def test_scales_and_exponents_are_no_longer_entangled() -> None:
    """L = A/C^a: by A and by a the log curve has slopes 1 and -log C, nearly one direction; centred
    they are at right angles."""
    x, at = some_runs(), of("compute", {"E": 1e-30})
    v = some_v(at)
    _, jacobian = at.linearise(v, x)
    _, plain = plain_coordinates(at.law).linearise(at.parameters(v), x)
    for fit in range(4):
        assert _cosine(*plain[fit, 1:]) > 0.99
        assert _cosine(*jacobian[fit]) < 1e-9


def _cosine(one: FloatArray, other: FloatArray) -> float:
    return float(abs(one @ other) / np.linalg.norm(one) / np.linalg.norm(other))


# --- pins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["E", "A", "beta"])
def test_a_pinned_parameter_has_its_value_as_people_write_it(name: str) -> None:
    at = of("chinchilla", {name: 0.4})
    assert len(at.free) == 4
    u = named(at, at.parameters(some_v(at)), name)
    np.testing.assert_allclose(u, 0.4 if name == "beta" else np.log(0.4), rtol=1e-14)


def test_a_pinned_exponent_still_centres_its_scale() -> None:
    """A/N^.3 with v_A the logarithm of the term at the geometric mean."""
    at, x = of("chinchilla", {"alpha": 0.3}), some_runs()
    v = some_v(at)
    u = named(at, at.parameters(v), "A")
    np.testing.assert_allclose(u, v[:, 1] + 0.3 * x[N].mean(), rtol=1e-13)


@pytest.mark.parametrize("name", ["A", "alpha", "E"])
def test_each_fit_may_have_a_pin_of_its_own(name: str) -> None:
    pins = np.array([0.2, 0.3, 0.5, 0.7])
    together, x = of("chinchilla", {name: pins}), some_runs()
    v = some_v(together)
    values = together.value(v, x)
    inverted = together.of(together.parameters(v))
    np.testing.assert_allclose(inverted, v, rtol=1e-9, atol=1e-11)
    for k, pin in enumerate(pins):
        alone = of("chinchilla", {name: float(pin)})
        np.testing.assert_allclose(alone.value(v[k : k + 1], x)[0], values[k], rtol=1e-13)


def test_a_subset_of_fits_keeps_its_own_pins() -> None:
    together, x = of("chinchilla", {"beta": np.array([0.2, 0.3, 0.5, 0.7])}), some_runs()
    v, some = some_v(together), np.array([True, False, False, True])
    np.testing.assert_array_equal(together.take(some).value(v[some], x), together.value(v, x)[some])


def test_all_parameters_may_be_pinned() -> None:
    """Besiroglu et al. 2024: nothing moves, and the curve is theirs."""
    values = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
    at, x = of("chinchilla", values), some_runs()
    n, d = np.exp(x[N]), np.exp(x[D])
    expected = np.log(1.8172 + 482.01 / n**0.3478 + 2085.43 / d**0.3658)
    np.testing.assert_allclose(at.value(np.empty((1, 0)), x)[0], expected, rtol=1e-12)


# --- ties ---------------------------------------------------------------------------------------


def test_a_tied_parameter_moves_with_its_partner() -> None:
    """And its scale is centred by the exponent that it gets: Chinchilla with one exponent."""
    at, x = of("chinchilla", {"alpha": "beta"}), some_runs()
    v = some_v(at)
    floor, size, data = np.exp(v[:, :3].T[:, :, None])
    beta = v[:, 3, None]
    n, d = (np.exp(x[name] - x[name].mean()) for name in (N, D))
    expected = np.log(floor + size / n**beta + data / d**beta)
    np.testing.assert_allclose(at.value(v, x), expected, rtol=1e-12)
    u = at.parameters(v)
    np.testing.assert_array_equal(named(at, u, "alpha"), named(at, u, "beta"))


@pytest.mark.parametrize(("tied", "partner"), [("A", "B"), ("B", "A")])
def test_tied_scales_are_equal_as_people_write_them(tied: str, partner: str) -> None:
    """Although each would be centred by a column of its own."""
    at = of("chinchilla", {tied: partner})
    u = at.parameters(some_v(at))
    np.testing.assert_allclose(named(at, u, tied), named(at, u, partner), rtol=1e-14)


def test_a_tie_to_a_pinned_partner_is_a_pin() -> None:
    at = of("chinchilla", {"alpha": "beta", "beta": 0.35})
    assert [at.law.parameters[k] for k in at.free] == ["E", "A", "B"]
    assert (named(at, at.parameters(some_v(at)), "alpha") == 0.35).all()


def test_a_chain_of_ties_ends_at_its_free_partner() -> None:
    at = of("generalized", {"alpha": "beta", "beta": "gamma"})
    u = at.parameters(some_v(at))
    np.testing.assert_array_equal(named(at, u, "alpha"), named(at, u, "gamma"))
    np.testing.assert_array_equal(named(at, u, "beta"), named(at, u, "gamma"))


def test_the_spec_says_its_alpha_at_the_middle_of_the_runs() -> None:
    at, x = of(find("spec", ["scratch", "token"])), some_runs()
    u = at.parameters(some_v(at))
    np.testing.assert_allclose(named(at, u, D_MID), x[D].mean())
    np.testing.assert_allclose(named(at, u, N_MID), x[N].mean())
    np.testing.assert_array_equal(named(at, u, "eta_token"), named(at, u, "alpha"))
    np.testing.assert_allclose(np.exp(named(at, u, "w")), 0.5)


def test_runs_without_a_teacher_do_not_move_the_middle_of_the_ratios() -> None:
    at, x = of(find("spec", ["scratch", "token"])), some_runs()
    v = some_v(at)
    position = [at.law.parameters[k] for k in at.free].index("r_c_token")
    log_r_c = named(at, at.parameters(v), "r_c_token") - v[:, position]
    np.testing.assert_allclose(log_r_c, np.mean(x[RATIO][::2]))
