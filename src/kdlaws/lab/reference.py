"""Lines that a student must beat: unigram and smoothed-bigram tables of the tokens it saw."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from kdlaws.lab.streams import Batch, Masks

_PRIOR_TOKENS = (3.0, 10.0, 30.0, 100.0, 300.0)
_TABLE_ENTRIES = 2**23  # of tokens by vocabulary at a time


@dataclass(frozen=True)
class Bigram:
    """Counts of a token stream: unigram with one added to each, bigram shrunk towards it.

    P(b | a) = (count(a b) + m P(b)) / (count(a) + m), the Dirichlet-smoothed table of MacKay and
    Peto 1995, with m pseudo-tokens.
    """

    unigram: np.ndarray  # probabilities, [n_vocab]
    first: np.ndarray  # count of each token as the first of a pair, [n_vocab]
    pairs: np.ndarray  # codes a * n_vocab + b of the pairs seen, sorted
    counts: np.ndarray  # of each of ``pairs``

    @classmethod
    def of(cls, ids: np.ndarray, n_vocab: int) -> "Bigram":
        ids = ids.astype(np.int64)
        seen = np.bincount(ids, minlength=n_vocab) + 1.0
        pairs, counts = np.unique(ids[:-1] * n_vocab + ids[1:], return_counts=True)
        first = np.bincount(ids[:-1], minlength=n_vocab).astype(float)
        return cls(seen / seen.sum(), first, pairs, counts)

    def unigram_cross_entropy(self, targets: np.ndarray) -> float:
        """Nats per token."""
        return float(-np.log(self.unigram[targets]).mean())

    def cross_entropy(self, inputs: np.ndarray, targets: np.ndarray, prior_tokens: float) -> float:
        """Nats per token of ``targets`` given the token before, both of any one shape."""
        codes = inputs * len(self.unigram) + targets
        places = np.minimum(np.searchsorted(self.pairs, codes), len(self.pairs) - 1)
        counts = np.where(self.pairs[places] == codes, self.counts[places], 0)
        shrunk = counts + prior_tokens * self.unigram[targets]
        return float(-np.log(shrunk / (self.first[inputs] + prior_tokens)).mean())

    def given_neighbours(
        self, neighbours: "Neighbours", masks: Masks, prior_tokens: float | None
    ) -> float:
        """Nats per masked token of a Markov chain's own answer, from both neighbours.

        P(x | left, right) is proportional to P(x | left) P(right | x), a factor being left out
        where that neighbour is masked or there is none; without ``prior_tokens`` both are. What
        stands in the token's place tells of it, too: BERT leaves one token in ten of those that it
        asks for, and puts a random one in the place of another, so its odds are by Bayes' rule.
        """
        total = 0.0
        for rows in neighbours.chunks(len(self.unigram)):
            p_nv = np.tile(self.unigram, (len(rows.labels), 1))
            if prior_tokens is not None:
                p_nv = self._rows(rows.left, prior_tokens, p_nv)
                p_nv *= self._columns(rows.right, prior_tokens)
                p_nv /= p_nv.sum(axis=1, keepdims=True)
            p_nv = _told_by_place(p_nv, rows.place, masks)
            total -= float(np.log(p_nv[np.arange(len(rows.labels)), rows.labels]).sum())
        return total / len(neighbours.labels)

    def _rows(self, left_n: np.ndarray, m: float, unknown_nv: np.ndarray) -> np.ndarray:
        """P(x | left), the unigram's where left is -1: [n, v]."""
        known = left_n >= 0
        counts_nv = self._by_first[np.maximum(left_n, 0)].toarray()
        shrunk = (counts_nv + m * self.unigram) / (self.first[np.maximum(left_n, 0)] + m)[:, None]
        return np.where(known[:, None], shrunk, unknown_nv)

    def _columns(self, right_n: np.ndarray, m: float) -> np.ndarray:
        """P(right | x), 1 where right is -1: [n, v]."""
        known, right = right_n >= 0, np.maximum(right_n, 0)
        counts_nv = self._by_second[right].toarray()
        shrunk = (counts_nv + m * self.unigram[right][:, None]) / (self.first + m)
        return np.where(known[:, None], shrunk, 1.0)

    @cached_property
    def _by_first(self) -> Any:
        from scipy.sparse import csr_array

        n_vocab = len(self.unigram)
        places = np.divmod(self.pairs, n_vocab)
        return csr_array((self.counts.astype(float), places), shape=(n_vocab, n_vocab))

    @cached_property
    def _by_second(self) -> Any:
        return self._by_first.T.tocsr()


def _told_by_place(p_nv: np.ndarray, place_n: np.ndarray, masks: Masks) -> np.ndarray:
    """Bayes' rule with what stands in the place: x itself as often as a random token."""
    shown = np.flatnonzero(place_n != masks.mask_id)
    told_nv = p_nv[shown] / masks.n_vocab
    told_nv[np.arange(len(shown)), place_n[shown]] += p_nv[shown, place_n[shown]]
    p_nv[shown] = told_nv / told_nv.sum(axis=1, keepdims=True)
    return p_nv


@dataclass(frozen=True)
class Neighbours:
    """What is seen at and around each masked token; -1 for what is masked or a special token."""

    labels: np.ndarray
    place: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, batch: Batch, masks: Masks) -> "Neighbours":
        assert batch.places_bm is not None
        inputs_bt, places_bm = batch.inputs_bt.numpy(), batch.places_bm.numpy()
        hidden_bt = np.where(np.isin(inputs_bt, masks.never), -1, inputs_bt)
        left, right = (
            np.take_along_axis(hidden_bt, places_bm + step, axis=1).ravel() for step in (-1, 1)
        )
        place = np.take_along_axis(inputs_bt, places_bm, axis=1).ravel()
        return cls(batch.labels_bm.numpy().ravel(), place, left, right)

    def chunks(self, n_vocab: int) -> Iterator["Neighbours"]:
        """Few enough that a table of them by the vocabulary has room."""
        size = max(1, _TABLE_ENTRIES // n_vocab)
        for start in range(0, len(self.labels), size):
            rows = slice(start, start + size)
            yield Neighbours(*(getattr(self, each.name)[rows] for each in fields(self)))


def reference_lines(
    ids: np.ndarray,
    amounts: Sequence[int],
    n_vocab: int,
    validation: Batch,
    test: Batch,
    masks: Masks | None,
) -> dict[str, Any]:
    """Unigram and bigram lines of the test batch, from the first ``amounts`` of a stream's ids.

    Blocks are in random order, so the first n tokens stand for any n of them. The bigram's
    smoothing is chosen on validation. Of a masked stream: see ``Bigram.given_neighbours``.
    """
    lines = [_lines(np.array(ids[:n]), n_vocab, validation, test, masks) for n in amounts]
    of_amounts = [
        {"n_unique_tokens": n, "cross_entropy": bigram}
        for n, (_, bigram) in zip(amounts, lines, strict=True)
    ]
    return {"unigram": lines[-1][0], "bigram": of_amounts}


def _lines(
    ids: np.ndarray, n_vocab: int, validation: Batch, test: Batch, masks: Masks | None
) -> tuple[float, float]:
    table = Bigram.of(ids, n_vocab)
    if masks is None:
        on_validation, on_test = (
            (each.inputs_bt.numpy(), each.labels_bm.numpy()) for each in (validation, test)
        )
        best = min(_PRIOR_TOKENS, key=lambda m: table.cross_entropy(*on_validation, m))
        return table.unigram_cross_entropy(on_test[1]), table.cross_entropy(*on_test, best)
    near_validation, near_test = (Neighbours.of(each, masks) for each in (validation, test))
    best = min(_PRIOR_TOKENS, key=lambda m: table.given_neighbours(near_validation, masks, m))
    unigram = table.given_neighbours(near_test, masks, None)
    return unigram, table.given_neighbours(near_test, masks, best)
