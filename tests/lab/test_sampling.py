"""Stored forms of a distribution: unbiased samples, the k likeliest, and all of it."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kdlaws.lab.sampling import Draws, Form, Likeliest, Whole, as_whole, form_of, systematic
from kdlaws.lab.targets import Dense, Sampled, TopK


def counts_of(drawn_nmd: Tensor, n_vocab: int) -> Tensor:
    """How often each id was drawn in each slice: [n, m, v]."""
    counts_nmv = torch.zeros(*drawn_nmd.shape[:2], n_vocab, dtype=torch.int64)
    return counts_nmv.scatter_add_(-1, drawn_nmd, torch.ones_like(drawn_nmd))


def distributions(n: int, n_vocab: int) -> Tensor:
    """As different as a teacher's: from nearly certain to nearly uniform."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(n, n_vocab, generator=generator, dtype=torch.float64)
    return (logits * torch.linspace(0.1, 6, n, dtype=torch.float64)[:, None]).softmax(dim=-1)


def entropy(p_nv: Tensor) -> Tensor:
    return -torch.xlogy(p_nv.double(), p_nv.double()).sum(dim=-1)


def uniform(n: int) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def test_every_slice_is_unbiased_exactly() -> None:
    """All places of U that differ, for probabilities in multiples of 1 / (draws x places)."""
    draws, places, slices = 8, 16, 4
    p = torch.tensor([1, 50, 3, 0, 17, 40, 2, 15], dtype=torch.float64) / (draws * places)
    every_u = (torch.arange(places, dtype=torch.float64) + 0.5) / places
    drawn = systematic(p.expand(places, -1), every_u, draws, slices)
    mean_mv = counts_of(drawn, len(p)).double().mean(dim=0)
    assert torch.equal(mean_mv, (draws * p).expand(slices, -1))


def test_counts_are_the_expected_ones_rounded_down_or_up() -> None:
    p_nv, draws, slices = distributions(400, 50), 32, 3
    counts_nmv = counts_of(systematic(p_nv, uniform(400), draws, slices), 50)
    for counts, expected in (
        (counts_nmv, draws * p_nv[:, None]),
        (counts_nmv.sum(dim=1), slices * draws * p_nv),  # the slices interleave
    ):
        assert bool((counts >= (expected - 1e-9).floor()).all())
        assert bool((counts <= (expected + 1e-9).ceil()).all())


def test_variance_is_below_that_of_independent_draws() -> None:
    """Of a cross-entropy; independent draws have the variance of one draw / draws."""
    p_v, draws, n = distributions(3, 200)[1], 32, 20_000
    q_v = distributions(7, 200)[2]
    values = -q_v.log()
    drawn = systematic(p_v.expand(n, -1), uniform(n), draws, 1)[:, 0]
    estimates = values[drawn].mean(dim=-1)
    truth = float((p_v * values).sum())
    independent = float((p_v * (values - truth) ** 2).sum()) / draws
    assert float(estimates.mean()) == pytest.approx(truth, abs=4 * (independent / n) ** 0.5)
    # The sum of squared errors of 20,000 independent estimates would be within 5 % of its mean.
    assert float((estimates - truth).square().mean()) < 0.8 * independent


def stored(form: Form, p_nv: Tensor, n_windows: int) -> dict[str, np.ndarray]:
    kept = form.of_positions(p_nv, p_nv.log(), uniform(len(p_nv))) | {"entropy": entropy(p_nv)}
    return form.of_windows(
        {name: each.view(n_windows, -1, *each.shape[1:]).numpy() for name, each in kept.items()}
    )


@pytest.mark.parametrize("n_vocab", [50, 70_000])
@pytest.mark.parametrize("draws", [16, 300])
def test_each_epoch_reads_the_shares_of_its_slice(n_vocab: int, draws: int) -> None:
    p_nv = distributions(12, n_vocab).float()
    form = Draws(n_vocab, draws, slices=2)
    arrays = stored(form, p_nv, n_windows=4)
    counts_nmv = counts_of(systematic(p_nv, uniform(12), draws, 2), n_vocab)
    read = form.read([(arrays, 3, 0), (arrays, 1, 1), (arrays, 1, 2)])  # windows of 3 positions
    expected = torch.cat([counts_nmv[9:, 0], counts_nmv[3:6, 1], counts_nmv[3:6, 0]])
    assert isinstance(read, Sampled)
    torch.testing.assert_close(as_whole(read, n_vocab), (expected / draws).float())
    assert read.ids_nk.shape[1] == int((expected > 0).sum(dim=-1).max())
    assert torch.equal(read.entropy_n, entropy(p_nv)[[9, 10, 11, 3, 4, 5, 3, 4, 5]])


def test_the_likeliest_ids_and_what_their_bucket_hides() -> None:
    p_nv, k = distributions(12, 50).float(), 4
    form = Likeliest(50, k)
    arrays = stored(form, p_nv, n_windows=4)
    read = form.read([(arrays, row, 0) for row in range(4)])
    assert isinstance(read, TopK)
    top = torch.topk(p_nv, k)
    assert torch.equal(read.ids_nk, top.indices)
    torch.testing.assert_close(read.p_nk, top.values, rtol=2**-10, atol=0)
    torch.testing.assert_close(read.p_nk.sum(dim=-1), top.values.sum(dim=-1))
    rest = 1 - top.values.double().sum(dim=-1)
    within = p_nv.double().scatter(-1, top.indices, 0) / rest[:, None]
    expected = (rest * (math.log(46) - entropy(within))).float()
    hidden = torch.from_numpy(arrays["hidden_divergence"]).flatten()
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-4)


def test_a_bucket_of_nothing_hides_nothing() -> None:
    form = form_of("top_k", n_vocab=50, draws=1, slices=1, k=64)
    arrays = stored(form, distributions(4, 50).float(), n_windows=1)
    assert arrays["ids"].shape == (1, 4, 50)
    assert float(arrays["hidden_divergence"].max()) < 1e-5


def test_the_whole_distribution_comes_back_in_half_precision_and_sums_to_one() -> None:
    p_nv = distributions(12, 50).float()
    arrays = stored(Whole(), p_nv, n_windows=4)
    read = Whole().read([(arrays, row, 5) for row in range(4)])
    assert isinstance(read, Dense)
    torch.testing.assert_close(read.p_nv, p_nv, rtol=2**-9, atol=1e-7)
    torch.testing.assert_close(read.p_nv.sum(dim=-1), torch.ones(12))


def test_the_whole_distribution_is_stored_where_that_is_smaller() -> None:
    """2 bytes an id, against 3 a draw and 1 a slice: 2 x 97 = 194 = 2 x (32 x 3 + 1)."""
    at_most = {n: form_of("sampled", n_vocab=n, draws=32, slices=2, k=1) for n in (97, 98)}
    assert [form.name for form in at_most.values()] == ["dense", "sampled"]
