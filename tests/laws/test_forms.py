"""The forms: derivatives against complex steps, coordinates, registry."""

import numpy as np
import pytest

from kdlaws.errors import InputError
from kdlaws.laws import LAWS, Law, find

laws = pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.name)
RNG = np.random.default_rng(0)


def some_point(law: Law) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates ``[3, parameters]`` and log columns ``[columns, 7]``."""
    u = RNG.uniform(0.1, 0.9, (3, len(law.unknowns)))
    return u, RNG.normal(0.0, 2.0, (len(law.columns), 7))


@laws
def test_the_derivative_is_that_of_a_complex_step(law: Law) -> None:
    u, x = some_point(law)
    _, jacobian = law.log_form(u, x)
    assert jacobian.shape == (3, len(law.unknowns), 7)
    for i in range(len(law.unknowns)):
        step = np.zeros(len(law.unknowns), dtype=complex)
        step[i] = 1e-30j
        expected = law.log_form(u + step, x)[0].imag / 1e-30
        np.testing.assert_allclose(jacobian[:, i], expected, rtol=1e-12)


@laws
def test_centring_moves_the_coordinates_and_not_the_curve(law: Law) -> None:
    u, x = some_point(law)
    centres = RNG.uniform(5.0, 20.0, len(law.columns))
    plain = law.uncentre(u, centres)
    np.testing.assert_allclose(
        law.log_form(plain, x + centres[:, None])[0], law.log_form(u, x)[0], rtol=1e-10
    )
    np.testing.assert_allclose(law.coordinates(law.values(plain)), plain, rtol=1e-12)


@laws
def test_starts_lie_inside_the_box_and_near_the_runs(law: Law) -> None:
    cross_entropy = np.linspace(3.0, 5.0, 9)
    starts = law.starts(cross_entropy)
    lower, upper = law.bounds(cross_entropy)
    assert (starts > lower).all()
    assert (starts < upper).all()
    at_the_centre = np.exp(law.log_form(starts, np.zeros((len(law.columns), 1)))[0])
    np.testing.assert_allclose(at_the_centre, np.median(cross_entropy))


def test_the_forms_say_what_their_equations_say() -> None:
    """Plain arithmetic at coefficients of Besiroglu et al. 2024 and of Marin's envelope."""
    chinchilla = np.array([1.8172, 482.01, 2085.43, 0.3478, 0.3658])
    n, d = 1e9, 2e10
    law = LAWS["chinchilla"]
    log_loss, _ = law.log_form(law.coordinates(chinchilla), np.log([[n], [d]]))
    assert np.exp(log_loss[0]) == pytest.approx(1.8172 + 482.01 / n**0.3478 + 2085.43 / d**0.3658)
    # Marin's published forecast at 1e23 FLOPs is 2.252.
    law = LAWS["compute"]
    log_loss, _ = law.log_form(law.coordinates(np.array([1.6, 95.25, 0.0941])), np.log([[1e23]]))
    assert np.exp(log_loss[0]) == pytest.approx(2.252, abs=5e-4)


def test_a_law_names_the_columns_it_reads() -> None:
    assert LAWS["chinchilla"].reads("n_params") == ("n_params", "n_tokens")
    assert LAWS["compute"].reads("n_params") == ("flops",)


def test_an_unknown_law_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="no law 'chincilla'") as caught:
        find("chincilla")
    assert caught.value.remedy == "one of chinchilla, compute"
