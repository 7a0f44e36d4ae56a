"""The curated tier of a text: near-duplicate blocks once, and of the rest the best.

Pure functions of blocks and of their losses under a reference model, which are measured elsewhere.
Best by a reference model's perplexity is the ranking of Ankner et al. 2024 (2405.20541) at its
simplest; near-duplicates are found as by Lee et al. 2022 (2107.06499), with MinHash.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from kdlaws.config import Curation
from kdlaws.errors import MissingExtraError

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

_SHINGLE_WORDS = 5
_PERMUTATIONS = 128
_SEED = 1
_FOUND = 0.99
"""Least probability that a pair exactly at the threshold is looked at."""


def best_share(blocks: Sequence[str], losses: ArrayLike, keep: float) -> list[int]:
    """Indices of the ``keep`` share of the blocks, one at least, of lowest loss; in order.

    ``losses`` are mean nats per token, one for each block; of equal ones the earlier is kept.
    """
    n_kept = max(1, round(keep * len(blocks)))
    losses_n = np.asarray(losses, dtype=float)
    if losses_n.shape != (len(blocks),):
        raise ValueError(f"{len(blocks)} blocks, but losses of shape {losses_n.shape}")
    by_loss = np.argsort(losses_n, kind="stable")
    return sorted(by_loss[:n_kept].tolist())


def near_duplicates(blocks: Sequence[str], similarity: float) -> list[int]:
    """Indices of the blocks that are near-duplicates of an earlier one that is not one itself.

    That is, whose Jaccard similarity, of the sets of word 5-grams, is at least ``similarity``.
    Candidates are compared exactly, so none is false; at the threshold one in a hundred may be
    missed, above it fewer. Raises MissingExtraError without datasketch.
    """
    index = _index(similarity)
    removed = []
    for place, (block, sketch) in enumerate(zip(blocks, _sketches(blocks), strict=True)):
        own = shingles(block)
        candidates = (shingles(blocks[earlier]) for earlier in index.query(sketch))
        if any(jaccard(own, other) >= similarity for other in candidates):
            removed.append(place)
        else:
            index.insert(place, sketch)
    return removed


def curate(blocks: Sequence[str], losses: ArrayLike, curation: Curation) -> tuple[list[str], float]:
    """The blocks that ``curation`` keeps, in their order, and their share of the bytes.

    Duplicates go first, so ``keep`` is a share of the blocks that are left.
    """
    similarity = curation.near_duplicates
    duplicates = set(near_duplicates(blocks, similarity) if similarity is not None else ())
    rest = [index for index in range(len(blocks)) if index not in duplicates]
    unique = [blocks[index] for index in rest]
    chosen = best_share(unique, np.asarray(losses)[rest], curation.keep)
    kept = [unique[index] for index in chosen]
    return kept, _n_bytes(kept) / _n_bytes(blocks)


def jaccard(some: frozenset[str], other: frozenset[str]) -> float:
    """Size of the intersection over that of the union."""
    return len(some & other) / len(some | other)


def shingles(block: str) -> frozenset[str]:
    """The word 5-grams of a block; all its words as one where it has fewer."""
    words = block.split()
    n = max(1, len(words) - _SHINGLE_WORDS + 1)
    return frozenset(" ".join(words[start : start + _SHINGLE_WORDS]) for start in range(n))


def bands(similarity: float) -> tuple[int, int]:
    """Number and length of the bands of a sketch that make two blocks candidates.

    A pair agrees in one of b bands of length r with probability 1 - (1 - s^r)^b (Leskovec,
    Rajaraman and Ullman, Mining of Massive Datasets, section 3.4.2): the longest bands that find
    a pair at the threshold nearly always.
    """
    for length in range(_PERMUTATIONS // 2, 1, -1):
        number = _PERMUTATIONS // length
        if 1 - (1 - similarity**length) ** number >= _FOUND:
            return number, length
    return _PERMUTATIONS, 1


def _index(similarity: float) -> "MinHashLSH":
    try:
        from datasketch import MinHashLSH
    except ImportError:
        raise MissingExtraError(
            "corpus.curation.near_duplicates needs datasketch",
            remedy="pip install 'kdlaws[curation]', or set it to null",
        ) from None
    return MinHashLSH(num_perm=_PERMUTATIONS, params=bands(similarity))


def _sketches(blocks: Iterable[str]) -> Iterator["MinHash"]:
    from datasketch import MinHash

    encoded = ([shingle.encode() for shingle in shingles(block)] for block in blocks)
    return MinHash.generator(encoded, num_perm=_PERMUTATIONS, seed=_SEED)


def _n_bytes(blocks: Iterable[str]) -> int:
    return sum(len(block.encode()) for block in blocks)
