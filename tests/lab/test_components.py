"""Principal components against numpy's singular value decomposition."""

import numpy as np
import pytest
import torch

from kdlaws.lab.components import Components, principal_components

N, D = 500, 6


@pytest.fixture
def states_nd() -> np.ndarray:
    """Correlated, of unequal variances, and not centred."""
    rng = np.random.default_rng(0)
    mixed_nd = rng.normal(size=(N, D)) * [5, 3, 2, 1, 0.5, 0.1]
    return mixed_nd @ rng.normal(size=(D, D)) + rng.normal(size=D)


def components_of(states_nd: np.ndarray, kept_variance: float) -> Components:
    """From batches of unequal length."""
    return principal_components(np.split(states_nd, [7, 300]), kept_variance)


def test_basis_and_shares_are_those_of_the_singular_values(states_nd: np.ndarray) -> None:
    found = components_of(states_nd, 1.0)
    centred_nd = states_nd - states_nd.mean(axis=0)
    _, singular, right_dd = np.linalg.svd(centred_nd, full_matrices=False)
    np.testing.assert_allclose(found.variance_shares, singular**2 / (singular**2).sum(), rtol=1e-9)
    np.testing.assert_allclose(np.abs(right_dd @ found.basis_dc), np.eye(D), atol=1e-5)
    np.testing.assert_allclose(found.mean_d, states_nd.mean(axis=0), rtol=1e-5)


def test_one_scale_makes_the_mean_square_of_a_dimension_one(states_nd: np.ndarray) -> None:
    given_btd = torch.from_numpy(states_nd).view(5, 100, D)
    standard_btd = components_of(states_nd, 1.0).of(given_btd)
    assert standard_btd.shape == given_btd.shape
    assert float(standard_btd.square().mean()) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(standard_btd.mean(dim=(0, 1)), np.zeros(D), atol=1e-6)


def test_the_fewest_components_that_keep_the_variance_are_kept(states_nd: np.ndarray) -> None:
    """The singular values' squares add up to 0.99 with ``needed`` of them, and not with fewer."""
    singular = np.linalg.svd(states_nd - states_nd.mean(axis=0), compute_uv=False)
    kept = np.cumsum(singular**2) / np.sum(singular**2)
    needed = int((kept < 0.99).sum()) + 1
    found = components_of(states_nd, 0.99)
    assert 1 < needed < D
    assert found.n == needed
    assert found.dropped == pytest.approx(1 - kept[needed - 1], rel=1e-6)
    assert components_of(states_nd, 1.0).n == D


def test_all_of_the_variance_is_every_component_even_one_that_is_empty() -> None:
    """Rounding must not decide how many rows a learned map has."""
    rng = np.random.default_rng(1)
    flat_nd = rng.normal(size=(N, 3)) @ rng.normal(size=(3, D))
    found = components_of(flat_nd, 1.0)
    assert found.n == D
    assert found.rank_floor(3) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_floor_of_a_rank_is_eckart_and_youngs(states_nd: np.ndarray, rank: int) -> None:
    """What the best matrix of that rank leaves (1936, Psychometrika 1, 211); others leave more."""
    found = components_of(states_nd, 0.9)
    centred_nd = states_nd - states_nd.mean(axis=0)
    left, singular, right = np.linalg.svd(centred_nd, full_matrices=False)
    best_nd = left[:, :rank] * singular[:rank] @ right[:rank]
    share = np.square(centred_nd - best_nd).sum() / np.square(centred_nd).sum()
    assert found.rank_floor(rank) == pytest.approx(share, rel=1e-9)
    narrow_nr = centred_nd @ np.random.default_rng(2).normal(size=(D, rank))
    mapped_nd = narrow_nr @ np.linalg.lstsq(narrow_nr, centred_nd)[0]
    left_over = np.square(centred_nd - mapped_nd).sum() / np.square(centred_nd).sum()
    assert left_over > found.rank_floor(rank)
