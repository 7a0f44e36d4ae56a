"""Unigram and bigram lines on texts whose entropy is known."""

import math

import numpy as np
import pytest
import torch

from kdlaws.lab.reference import Bigram, reference_lines
from kdlaws.lab.streams import Batch

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
