"""Curation: exact Jaccard by brute force, planted duplicates, the best share."""

import random
import sys

import pytest

from kdlaws.config import Curation
from kdlaws.errors import MissingExtraError
from kdlaws.lab.curation import bands, best_share, curate, jaccard, near_duplicates, shingles

pytest.importorskip("datasketch")


def block_of(rng: random.Random, n_words: int = 120) -> str:
    return " ".join(f"w{rng.randrange(10_000)}" for _ in range(n_words))


def edited(block: str, n_edits: int, rng: random.Random) -> str:
    words = block.split()
    for place in rng.sample(range(len(words)), n_edits):
        words[place] = "edited"
    return " ".join(words)


def brute_force(blocks: list[str], similarity: float) -> list[int]:
    """What must be removed by definition."""
    sets = []
    for block in blocks:
        words = block.split()
        sets.append({tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))})
    kept: list[int] = []
    removed = []
    for index, own in enumerate(sets):
        known = any(len(own & sets[i]) / len(own | sets[i]) >= similarity for i in kept)
        (removed if known else kept).append(index)
    return removed


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8])
def test_near_duplicates_are_those_of_the_exact_jaccard(similarity: float) -> None:
    rng = random.Random(0)
    originals = [block_of(rng) for _ in range(30)]
    blocks = originals + [edited(block, n, rng) for block in originals for n in (0, 1, 4, 8, 20)]
    rng.shuffle(blocks)
    removed = brute_force(blocks, similarity)
    assert 30 <= len(removed) < len(blocks) - 30
    assert near_duplicates(blocks, similarity) == removed


def test_nothing_unrelated_is_removed_just_below_the_threshold() -> None:
    """One word of 120 changed leaves 111 of 121 grams: Jaccard 0.917, on both sides of which."""
    rng = random.Random(1)
    words = block_of(rng).split()
    pair = [" ".join(words), " ".join([*words[:60], "edited", *words[61:]])]
    assert jaccard(*map(shingles, pair)) == pytest.approx(111 / 121)
    assert near_duplicates(pair, 0.9) == [1]
    assert near_duplicates(pair, 0.93) == []


def test_exactly_the_planted_duplicates_go() -> None:
    rng = random.Random(2)
    stream = [(block_of(rng), False) for _ in range(210)]
    for block, _ in rng.sample(stream, 90):
        copy = (edited(block, rng.choice([0, 1]), rng), True)
        stream.insert(rng.randrange(len(stream) + 1), copy)
    blocks = [block for block, _ in stream]
    removed = near_duplicates(blocks, 0.8)
    assert len(removed) == 90 == 0.3 * len(blocks)
    assert removed == brute_force(blocks, 0.8)
    assert removed == near_duplicates(blocks, 0.8)


def test_short_blocks_are_compared_whole() -> None:
    blocks = ["one two three", "one two four", "one two three", "", "one"]
    assert shingles("one two three") == {"one two three"}
    assert near_duplicates(blocks, 0.8) == [2]
    assert near_duplicates(blocks, 1.0) == [2]


@pytest.mark.parametrize("similarity", [0.05, 0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_find_a_pair_at_the_threshold(similarity: float) -> None:
    """By simulation: two sketches agree in each place with probability equal to the Jaccard."""
    number, length = bands(similarity)
    assert number * length <= 128
    rng = random.Random(3)
    found = sum(
        any(all(rng.random() < similarity for _ in range(length)) for _ in range(number))
        for _ in range(2000)
    )
    assert found / 2000 >= 0.98


def test_the_best_share_has_the_lowest_losses_in_the_given_order() -> None:
    blocks = list("abcdef")
    assert best_share(blocks, [3.0, 1.0, 2.0, 9.0, 1.0, 5.0], 0.5) == [1, 2, 4]
    assert best_share(blocks, [1.0] * 6, 0.5) == [0, 1, 2]
    assert best_share(blocks, [1.0] * 6, 0.01) == [0]
    assert best_share(blocks, [1.0] * 6, 1.0) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="6 blocks"):
        best_share(blocks, [1.0] * 5, 0.5)


def test_curate_removes_duplicates_first_and_counts_bytes() -> None:
    """The copy has the lowest loss, and takes no place among the best half of what is left."""
    blocks = ["an old song", "a new one, é", "an old song", "words", "more words here"]
    losses = [2.0, 1.0, 0.1, 4.0, 3.0]
    kept, share = curate(blocks, losses, Curation(reference="r", keep=0.5, near_duplicates=0.8))
    assert kept == ["an old song", "a new one, é"]
    assert share == (11 + 13) / (11 + 13 + 11 + 5 + 15)


def test_without_near_duplicates_copies_stay_and_no_library_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    curation = Curation(reference="r", keep=0.5, near_duplicates=None)
    assert curate(["a", "a", "b", "c"], [1, 1, 2, 3], curation) == (["a", "a"], 0.5)
    with pytest.raises(MissingExtraError, match="datasketch") as caught:
        near_duplicates(["a"], 0.8)
    assert "kdlaws[curation]" in caught.value.remedy
