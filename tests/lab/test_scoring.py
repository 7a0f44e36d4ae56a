"""Scores against plain loops of transformers, lm-evaluation-harness's windows, exact values."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BertForMaskedLM, GraniteForCausalLM

from kdlaws.errors import InputError
from kdlaws.lab import heads, scoring, students
from kdlaws.lab.scoring import PlainText, Score, read_plain_text, rolling_batches, score
from kdlaws.lab.streams import Batch, Masks
from kdlaws.shapes import shape

N_VOCAB, N_CTX = 64, 16
MASKS = Masks(share=0.15, replicas=1, mask_id=4, never=(0, 1, 2, 3, 4), n_vocab=N_VOCAB, seed=0)


@pytest.fixture
def causal() -> GraniteForCausalLM:
    return opinionated(students.build(shape("32/1", n_vocab=N_VOCAB, n_ctx=N_CTX), seed=1).eval())


@pytest.fixture
def masked() -> BertForMaskedLM:
    built = shape("32/1", n_vocab=N_VOCAB, n_ctx=N_CTX, objective="masked")
    return opinionated(students.build(built, seed=1).eval())


def opinionated(model: torch.nn.Module) -> torch.nn.Module:
    """With weights large enough that no distribution is nearly uniform."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.3)
    return model


def tokens(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(5, N_VOCAB, n)


# -- causal ----------------------------------------------------------------------------------


def pairs(batches: Iterator[Batch]) -> Iterator[tuple[list[int], list[int]]]:
    for batch in batches:
        yield from zip(batch.inputs_bt.tolist(), batch.labels_bm.tolist(), strict=True)


def test_windows_are_those_of_the_harness() -> None:
    """Its own test, get_rolling_token_windows of 34 tokens, at most 10, context 1, first -100."""
    found = list(pairs(rolling_batches(np.arange(34), -100, 10)))
    assert found == [
        ([-100, *range(9)], list(range(10))),
        (list(range(9, 19)), list(range(10, 20))),
        (list(range(19, 29)), list(range(20, 30))),
        (list(range(23, 33)), list(range(30, 34))),
    ]


@pytest.mark.parametrize("n_tokens", [1, 5, 10, 11, 20, 4097])
def test_every_token_is_a_label_once_after_what_stands_before_it(n_tokens: int) -> None:
    labels = []
    for batch in rolling_batches(np.arange(n_tokens), -100, 10):
        labels += batch.labels_bm.flatten().tolist()
        read = batch.of(batch.inputs_bt[..., None])[..., 0]
        assert torch.equal(read, torch.where(batch.labels_bm > 0, batch.labels_bm - 1, -100))
        assert batch.inputs_bt.shape[1] == min(10, n_tokens)
    assert labels == list(range(n_tokens))


@pytest.mark.parametrize("n_tokens", [7, 64, 75])
def test_a_causal_score_is_that_of_the_stock_model_token_by_token(
    causal: GraniteForCausalLM, n_tokens: int
) -> None:
    ids = tokens(n_tokens)
    scored = score(causal, rolling_batches(ids, 0, N_CTX))
    stream = torch.tensor([0, *ids])
    expected = 0.0
    for place in range(1, n_tokens + 1):
        end = min(n_tokens, math.ceil(place / N_CTX) * N_CTX)
        window = stream[max(0, end - N_CTX) : place]
        with torch.inference_mode():
            logits = causal(window[None]).logits[0, -1].double()
        expected -= float(logits.log_softmax(-1)[stream[place]])
    assert scored.n_tokens == n_tokens
    assert scored.nll == pytest.approx(expected, rel=1e-5)


def test_a_model_without_an_opinion_has_the_entropy_of_the_vocabulary(
    causal: GraniteForCausalLM,
) -> None:
    with torch.no_grad():
        causal.lm_head.weight.zero_()
    scored = score(causal, rolling_batches(tokens(75), 0, N_CTX))
    assert scored.cross_entropy == pytest.approx(math.log(N_VOCAB), rel=1e-6)
    assert scored.cross_entropy_se == pytest.approx(0, abs=1e-6)


def test_logits_exist_in_small_chunks(
    causal: GraniteForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = tokens(75)
    whole = score(causal, rolling_batches(ids, 0, N_CTX))
    monkeypatch.setattr(scoring, "LOGITS_BYTES", 5 * 4 * N_VOCAB)
    made, logits = [], heads.Head.logits

    def spy(self: heads.Head, given_ne: Tensor) -> Tensor:
        made.append(len(given_ne))
        return logits(self, given_ne)

    monkeypatch.setattr(heads.Head, "logits", spy)
    chunked = score(causal, rolling_batches(ids, 0, N_CTX))
    assert (max(made), sum(made)) == (5, 75)
    np.testing.assert_allclose(chunked.nll_w, whole.nll_w, rtol=1e-6)


# -- masked ----------------------------------------------------------------------------------


def test_sequences_are_framed_and_a_rest_is_left_out() -> None:
    framed = scoring.framed(np.arange(10, 19), 6, 2, 3)
    assert framed.tolist() == [[2, 10, 11, 12, 13, 3], [2, 14, 15, 16, 17, 3]]
    assert scoring.framed(np.arange(3), 6, 2, 3).shape == (0, 6)


def test_a_masked_score_is_the_loss_of_transformers(masked: BertForMaskedLM) -> None:
    ids_wt = scoring.framed(tokens(30 * (N_CTX - 2)), N_CTX, 2, 3)
    scored = score(masked, scoring.masked_batches(ids_wt, MASKS))
    inputs, labels = torch.from_numpy(ids_wt.copy()), torch.full(ids_wt.shape, -100)
    for window, ids_t in enumerate(ids_wt):
        places, inputs_t = MASKS.draw(ids_t, window, 0)
        inputs[window] = torch.from_numpy(inputs_t)
        labels[window, places] = torch.from_numpy(ids_t[places])
    with torch.inference_mode():
        loss = float(masked(input_ids=inputs, labels=labels).loss)
    assert scored.cross_entropy == pytest.approx(loss, rel=1e-5)
    assert scored.n_tokens == 30 * 2  # .15 of 14


def test_pseudo_perplexity_masks_each_token_in_turn(masked: BertForMaskedLM) -> None:
    ids_wt = scoring.framed(tokens(3 * (N_CTX - 2)), N_CTX, 2, 3)
    scored = score(masked, scoring.one_masked_batches(ids_wt, 4))
    expected = []
    for ids_t in torch.from_numpy(ids_wt):
        for place in range(1, N_CTX - 1):
            hidden = ids_t.clone()
            hidden[place] = 4
            with torch.inference_mode():
                logits = masked(hidden[None]).logits[0, place]
            expected.append(float(F.cross_entropy(logits, ids_t[place])))
    assert scored.n_tokens == len(expected) == 3 * 14
    assert scored.cross_entropy == pytest.approx(np.mean(expected), rel=1e-5)


# -- scores and texts ------------------------------------------------------------------------


def test_the_standard_error_of_equal_windows_is_the_usual_one() -> None:
    nll = np.random.default_rng(0).normal(50, 3, 40)
    scored = Score(nll, np.full(40, 16))
    assert scored.cross_entropy_se == pytest.approx(np.std(nll / 16, ddof=1) / math.sqrt(40))


def test_the_standard_error_of_unequal_windows_is_the_bootstraps() -> None:
    rng = np.random.default_rng(0)
    n_labels = rng.integers(5, 30, 200)
    nll = n_labels * rng.normal(3, 0.4, 200)
    drawn = rng.integers(200, size=(4000, 200))
    bootstrap = np.std(nll[drawn].sum(axis=1) / n_labels[drawn].sum(axis=1))
    assert Score(nll, n_labels).cross_entropy_se == pytest.approx(bootstrap, rel=0.05)


def test_one_window_has_no_standard_error() -> None:
    assert Score(np.array([3.0]), np.array([2])).cross_entropy_se is None


def test_words_and_bytes_are_counted_as_the_harness_counts_them() -> None:
    """len(re.split(r"\\s+", text)) has the empty pieces before the first and after the last."""
    text = PlainText(Path("a.txt"), " \n café au\tlait \n".encode())
    assert (text.n_words, text.n_bytes) == (5, 18)


@pytest.mark.parametrize(
    ("content", "said"), [(b"caf\xe9", "not UTF-8"), (b" \n", "no text"), (None, "no such file")]
)
def test_a_text_that_cannot_be_read(content: bytes | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_plain_text(file)


def test_line_ends_stay(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"a\r\nb\n")
    assert read_plain_text(file).text == "a\r\nb\n"
