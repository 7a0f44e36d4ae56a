"""What a masked model is given: BERT's rule, drawn again for every replica."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kdlaws.lab.streams import MaskedStream, Masks, TokenStream, stream_of
from kdlaws.shapes import n_masked

N_CTX, N_ROWS = 34, 200
PAD, CLS, SEP, MASK = range(4)
MASKS = Masks(share=0.15, replicas=3, mask_id=MASK, never=(PAD, CLS, SEP, MASK), n_vocab=50, seed=7)
ROWS = np.arange(N_ROWS)


@pytest.fixture
def stream(tmp_path: Path) -> MaskedStream:
    """Sequences of random words between CLS and SEP, now and then a SEP inside."""
    rng = np.random.default_rng(0)
    ids = rng.integers(4, 50, (N_ROWS, N_CTX), dtype=np.uint16)
    ids[:, 0], ids[:, -1], ids[::3, 10] = CLS, SEP, SEP
    np.save(tmp_path / "ids.npy", ids.ravel())
    facts = {"sha256": "0" * 64, "n_tokens": ids.size, "n_bytes": 1}
    made = stream_of(tmp_path / "ids.npy", facts, MASKS)
    assert isinstance(made, MaskedStream)
    return made


def original(stream: TokenStream) -> torch.Tensor:
    return torch.from_numpy(np.array(stream.ids).astype(np.int64).reshape(N_ROWS, N_CTX))


def test_each_sequence_has_fifteen_percent_of_its_words_as_labels(stream: MaskedStream) -> None:
    batch = stream.batch(ROWS, N_CTX)
    assert batch.labels_bm.shape == (N_ROWS, round(0.15 * 32)) == (N_ROWS, n_masked(N_CTX, 0.15))
    assert stream.n_labels(N_CTX) == batch.labels_bm.shape[1]
    assert batch.places_bm is not None
    assert (batch.places_bm.diff(dim=1) > 0).all()


def test_labels_are_the_words_that_were_there_and_nothing_else_changes(
    stream: MaskedStream,
) -> None:
    batch, ids_bt = stream.batch(ROWS, N_CTX), original(stream)
    assert batch.places_bm is not None
    assert torch.equal(ids_bt.gather(1, batch.places_bm), batch.labels_bm)
    assert not torch.isin(batch.labels_bm, torch.tensor(MASKS.never)).any()
    restored = batch.inputs_bt.scatter(1, batch.places_bm, batch.labels_bm)
    assert torch.equal(restored, ids_bt)


def test_eight_in_ten_are_masked_one_replaced_one_left(stream: MaskedStream) -> None:
    """A random word is the right one once in fifty. 3,000 labels: 3 standard errors."""
    parts = [stream.batch(ROWS, N_CTX, np.full(N_ROWS, replica)) for replica in range(3)]
    labels = torch.cat([part.labels_bm.flatten() for part in parts])
    shown = torch.cat([part.inputs_bt.gather(1, part.places_bm).flatten() for part in parts])
    n = len(labels)
    assert n == 3 * N_ROWS * 5
    for found, share in (
        (shown == MASK, 0.8 + 0.1 / 50),
        (shown == labels, 0.1 + 0.1 / 50),
        ((shown != MASK) & (shown != labels), 0.1 * 48 / 50),
    ):
        error = (share * (1 - share) / n) ** 0.5
        assert float(found.float().mean()) == pytest.approx(share, abs=3 * error)


def test_every_word_is_as_likely_to_be_a_label(stream: MaskedStream) -> None:
    counts = Counter(
        place
        for seed in range(40)
        for place in replace(MASKS, seed=seed).draw(np.full(N_CTX, 9), 0, 0)[0].tolist()
    )
    assert sum(counts.values()) == 40 * 5
    assert max(counts.values()) < 20  # of 5.9 on average


def test_masks_are_a_pure_function_of_window_and_replica(stream: MaskedStream) -> None:
    whole = stream.batch(ROWS, N_CTX, ROWS % 7)
    again = stream.batch(np.array([150, 3]), N_CTX, np.array([150 % 7, 3 + 3 * 4]))
    assert torch.equal(again.inputs_bt, whole.inputs_bt[[150, 3]])


def test_epoch_e_reads_replica_e_mod_k(stream: MaskedStream) -> None:
    epochs = [stream.batch(ROWS, N_CTX, np.full(N_ROWS, e)).inputs_bt for e in range(6)]
    for epoch in range(3):
        assert torch.equal(epochs[epoch], epochs[epoch + 3])
        alone = stream.replica(epoch)
        assert torch.equal(alone.batch(ROWS, N_CTX).inputs_bt, epochs[epoch])
        assert torch.equal(alone.batch(ROWS, N_CTX, ROWS).inputs_bt, epochs[epoch])
    assert not torch.equal(epochs[0], epochs[1])


def test_replicas_have_identities_of_their_own(stream: MaskedStream) -> None:
    others = [
        stream.replica(0),
        stream.replica(1),
        replace(stream, masks=replace(MASKS, share=0.2)),
        replace(stream, sha256="1" * 64),
    ]
    assert len({each.identity for each in [stream, *others]}) == 5


def test_states_are_taken_where_there_is_a_label(stream: MaskedStream) -> None:
    batch = stream.batch(ROWS, N_CTX)
    assert batch.places_bm is not None
    states = torch.arange(N_CTX, dtype=torch.float32)[None, :, None].expand(N_ROWS, -1, 2)
    assert torch.equal(batch.of(states)[..., 1], batch.places_bm.float())


def test_next_token_labels_follow_their_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.arange(101, dtype=np.uint16))
    stream = stream_of(tmp_path / "ids.npy", {"sha256": "", "n_tokens": 101, "n_bytes": 1}, None)
    assert (stream.n_windows(20), stream.n_windows(20, 59), stream.n_labels(20)) == (5, 2, 20)
    batch = stream.batch(np.array([4, 0]), 20)
    assert batch.places_bm is None
    assert torch.equal(batch.labels_bm, batch.inputs_bt + 1)
    assert batch.inputs_bt[:, 0].tolist() == [80, 0]
    states = batch.inputs_bt[..., None].float()
    assert torch.equal(batch.of(states), states)
