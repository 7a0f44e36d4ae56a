"""Tokenizer, stream and sampler."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdlaws.config import Study
from kdlaws.errors import ConfigError
from kdlaws.lab import tokens
from kdlaws.lab.corpus import Document
from kdlaws.lab.streams import Sampler
from kdlaws.lab.tokens import Text, train_tokenizer
from kdlaws.records import file_digest

TRAINED = train_tokenizer([Document("a", "We the people of the United States. " * 50)], 280)


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_survives_the_byte_level_tokenizer(text: str) -> None:
    assert TRAINED.decode(TRAINED.encode(text).ids, skip_special_tokens=False) == text


def test_a_vocabulary_that_the_text_does_not_yield_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.n_vocab: the training text yields"):
        train_tokenizer([Document("a", "ab")], 500)


def test_training_the_tokenizer_twice_gives_the_same_one(tiny_study: Study) -> None:
    found = Text(tiny_study).documents["student"]
    assert train_tokenizer(found, 300).to_str() == train_tokenizer(found, 300).to_str()


def test_test_text_has_no_part_in_the_tokenizer(tiny_study: Study) -> None:
    text = Text(tiny_study)
    training = [*text.documents["student"], *text.documents["teacher"]]
    assert train_tokenizer(training, 300).get_vocab() == text.tokenizer.get_vocab()
    everything = [*training, *text.documents["validation"], *text.documents["test"]]
    assert train_tokenizer(everything, 300).get_vocab() != text.tokenizer.get_vocab()


def test_the_stream_decodes_to_its_blocks(tiny_study: Study) -> None:
    text = Text(tiny_study)
    stream = text.stream("test")
    decoded = text.tokenizer.decode(stream.ids.tolist(), skip_special_tokens=False)
    blocks = decoded.split(tokens.END_OF_TEXT)[:-1]
    whole = "".join(document.text for document in text.documents["test"])
    assert len(blocks) > 1
    assert all(block in whole for block in blocks)
    assert stream.n_bytes == sum(len(block.encode()) for block in blocks)


def test_the_stream_is_frozen_under_its_hash(tiny_study: Study) -> None:
    stream = Text(tiny_study).stream("student")
    assert stream.sha256 == file_digest(stream.path)
    modified = stream.path.stat().st_mtime_ns
    again = Text(tiny_study).stream("student")
    assert again == stream
    assert stream.path.stat().st_mtime_ns == modified


def test_targets_are_inputs_shifted_by_one(tiny_study: Study) -> None:
    stream = Text(tiny_study).stream("student")
    inputs, targets = stream.windows(np.array([3, 0]), 32)
    np.testing.assert_array_equal(inputs[1], stream.ids[:32])
    np.testing.assert_array_equal(targets[0], stream.ids[97:129])
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])


def test_the_last_window_has_its_last_target(tiny_study: Study) -> None:
    stream = Text(tiny_study).stream("test")
    last = stream.n_windows(32) - 1
    _, targets = stream.windows(np.array([last]), 32)
    assert targets.shape == (1, 32)


def test_noise_changes_the_stream_but_not_the_test(tiny_study: Study) -> None:
    text = Text(tiny_study)
    clean, noisy = text.stream("student"), text.stream("student", 0.5)
    assert clean.sha256 != noisy.sha256
    assert clean.n_bytes == pytest.approx(noisy.n_bytes, rel=0.02)


@given(
    n_windows=st.integers(1, 60),
    batch=st.integers(1, 16),
    seed=st.integers(0, 2**32),
    step=st.integers(0, 1000),
)
@settings(deadline=None)
def test_the_batch_is_a_pure_function_of_seed_and_step(
    n_windows: int, batch: int, seed: int, step: int
) -> None:
    first = Sampler(n_windows, batch, seed)
    first.indices(step + 1)
    indices = first.indices(step)
    np.testing.assert_array_equal(indices, Sampler(n_windows, batch, seed).indices(step))
    assert indices.shape == (batch,)
    assert ((indices >= 0) & (indices < n_windows)).all()


def test_every_epoch_visits_every_window_once_in_an_order_of_its_own() -> None:
    sampler = Sampler(n_windows=10, batch_windows=4, seed=1)
    visited = np.concatenate([sampler.indices(step) for step in range(5)])
    epochs = np.concatenate([sampler.epochs(step) for step in range(5)])
    for epoch in (0, 1):
        assert sorted(visited[epochs == epoch]) == list(range(10))
    assert (visited[:10] != visited[10:]).any()


def test_seeds_give_different_orders() -> None:
    orders = {tuple(Sampler(50, 50, seed).indices(0)) for seed in range(5)}
    assert len(orders) == 5


@pytest.mark.parametrize(("content", "message"), [("{}", "is not a tokenizer"), (None, "there is")])
def test_a_given_tokenizer_that_is_none(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        tokens.read_tokenizer(file)


def test_a_given_tokenizer_is_used_as_it_is(tiny_study: Study, tmp_path: Path) -> None:
    file = tmp_path / "given.json"
    TRAINED.save(str(file))
    settings = tiny_study.tokenizer.model_copy(update={"path": file})
    text = Text(tiny_study.model_copy(update={"tokenizer": settings}))
    assert text.facts(with_teachers=False).n_vocab == 280


def test_estimates_before_any_stream_say_so(tiny_study: Study) -> None:
    estimated = tokens.estimated_facts(tiny_study)
    exact = Text(tiny_study).facts(with_teachers=True)
    assert not estimated.exact
    assert exact.exact
    n_bytes = sum(d.n_bytes for d in Text(tiny_study).documents["student"])
    assert estimated.n_student_tokens == int(n_bytes / 3.6)
    assert estimated.corpus_sha256 == exact.corpus_sha256
