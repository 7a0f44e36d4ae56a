"""Lines that a student must beat: unigram and smoothed-bigram tables of the tokens it saw."""

from dataclasses import dataclass

import numpy as np

_PRIOR_TOKENS = (3.0, 10.0, 30.0, 100.0, 300.0)


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


def bigram_line(
    ids: np.ndarray,
    n_vocab: int,
    validation: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
) -> float:
    """Test cross-entropy of the bigram table of ``ids``, its smoothing chosen on validation."""
    table = Bigram.of(ids, n_vocab)
    best = min(_PRIOR_TOKENS, key=lambda m: table.cross_entropy(*validation, m))
    return table.cross_entropy(*test, best)
