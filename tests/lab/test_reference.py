"""Unigram and bigram lines on texts whose entropy is known."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from kdlaws.lab.reference import Bigram, reference_lines
from kdlaws.lab.streams import Batch, Masks

V = 8


def markov(n: int, seed: int) -> np.ndarray:
    """Each token is followed by one of two with equal chance: log 2 nats per token."""
    rng = np.random.default_rng(seed)
    ids = [0]
    for step in rng.integers(1, 3, n):
        ids.append((ids[-1] * 3 + int(step)) % V)
    return np.array(ids)


def bigram_line(train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> float:
    """Of one amount of training text: all of it."""
    batches = [
        Batch(*(torch.from_numpy(x)[None] for x in (e[:-1], e[1:]))) for e in (validation, test)
    ]
    [line] = reference_lines(train, [len(train)], V, *batches, None)["bigram"]
    return float(line["cross_entropy"])


def test_a_first_order_chain_has_its_entropy_rate() -> None:
    train, validation, test = markov(50_000, 0), markov(5_000, 1), markov(20_000, 2)
    line = bigram_line(train, validation, test)
    assert line == pytest.approx(math.log(2), abs=0.01)


def test_independent_tokens_gain_nothing_from_the_token_before() -> None:
    rng = np.random.default_rng(0)
    train, validation, test = (rng.integers(0, V, n) for n in (50_000, 5_000, 20_000))
    assert Bigram.of(train, V).unigram_cross_entropy(test) == pytest.approx(math.log(V), abs=0.01)
    line = bigram_line(train, validation, test)
    assert line == pytest.approx(math.log(V), abs=0.01)


def test_probabilities_of_every_context_sum_to_one() -> None:
    table = Bigram.of(markov(200, 0), V)
    inputs, targets = np.repeat(np.arange(V), V), np.tile(np.arange(V), V)
    each = [
        table.cross_entropy(inputs[i : i + 1], targets[i : i + 1], prior_tokens=10)
        for i in range(V * V)
    ]
    totals = np.exp(-np.array(each)).reshape(V, V).sum(axis=1)
    np.testing.assert_allclose(totals, 1, rtol=1e-12)


def test_more_text_lowers_the_line() -> None:
    validation, test = markov(5_000, 1), markov(20_000, 2)
    lines = [bigram_line(markov(n, 0), validation, test) for n in (30, 300, 3_000)]
    assert lines == sorted(lines, reverse=True)


# -- a masked token, from both neighbours ------------------------------------------------------

MASK = V
MASKS = Masks(share=0.15, replicas=1, mask_id=MASK, never=(MASK,), n_vocab=V, seed=0)


def masked(ids: np.ndarray, shown: np.ndarray | None = None) -> Batch:
    """Triples of the chain, the middle one asked for; ``shown`` stands in its place."""
    triples = torch.from_numpy(np.lib.stride_tricks.sliding_window_view(ids, 3).copy())
    places = torch.ones(len(triples), 1, dtype=torch.long)
    inputs = triples.clone()
    inputs[:, 1] = MASK if shown is None else torch.from_numpy(shown)
    return Batch(inputs, triples[:, 1:2], places)


def two_sided_entropy() -> float:
    """Nats of a token given both neighbours, by enumeration: all 32 paths are as likely."""
    paths = [
        (left, x, (x * 3 + b) % V)
        for left in range(V)
        for x in ((left * 3 + 1) % V, (left * 3 + 2) % V)
        for b in (1, 2)
    ]
    ends = Counter((left, right) for left, _, right in paths)
    middles = Counter(paths)
    return float(np.mean([math.log(ends[p[0], p[2]] / middles[p]) for p in paths]))


def test_a_masked_token_of_a_chain_has_its_two_sided_entropy() -> None:
    train, validation, test = markov(50_000, 0), markov(5_000, 1), markov(20_000, 2)
    found = reference_lines(train, [len(train)], V, masked(validation), masked(test), MASKS)
    [line] = found["bigram"]
    assert two_sided_entropy() < 0.5 * math.log(2)
    assert line["cross_entropy"] == pytest.approx(two_sided_entropy(), abs=0.02)
    assert found["unigram"] == pytest.approx(math.log(V), abs=0.01)


def test_what_stands_in_the_place_counts_by_bayes_rule() -> None:
    """Left as it is, a token is as likely as all random ones together: 1/2 + 1/2 of its prior."""
    train, validation, test = markov(50_000, 0), markov(5_000, 1), markov(20_000, 2)
    found = reference_lines(
        train, [len(train)], V, masked(validation), masked(test, test[1:-1]), MASKS
    )
    uniform = 1 / V  # so prior (1 + 1/V) / (prior + 1/V)
    assert found["unigram"] == pytest.approx(-math.log((1 + 1 / V) * uniform / (2 / V)), abs=0.01)


def test_a_masked_neighbour_tells_nothing() -> None:
    train, validation, test = markov(50_000, 0), markov(5_000, 1), markov(20_000, 2)
    hidden = masked(test)
    hidden.inputs_bt[:] = MASK
    [line] = reference_lines(train, [len(train)], V, masked(validation), hidden, MASKS)["bigram"]
    assert line["cross_entropy"] == pytest.approx(math.log(V), abs=0.01)
