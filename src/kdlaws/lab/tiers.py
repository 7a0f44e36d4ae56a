"""The curated tier of the students' text: its blocks ranked by a reference model's loss."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from kdlaws.config import Curation, Study
from kdlaws.errors import ConfigError
from kdlaws.lab import heads
from kdlaws.lab.curation import curate
from kdlaws.lab.scoring import label_nll
from kdlaws.lab.streams import Batch, TokenStream
from kdlaws.lab.teachers import load_reference, reference_identity
from kdlaws.records import digest

_LOGITS_BYTES = 2**26


_RECIPE = 1
"""Raised whenever the ranking changes for the same reference and text."""


def identity(study: Study) -> str:
    """Of all that decides which blocks of the study's text are kept."""
    settings = _curation(study).model_dump(exclude={"reference"})
    masking = study.masking.model_dump() if study.objective == "masked" else None
    decides = [_RECIPE, settings, reference_identity(study), study.n_ctx, study.objective, masking]
    return digest(decides)


def key(study: Study) -> str:
    """Names the tier's files."""
    return f"curated-{identity(study)[:8]}"


def _curation(study: Study) -> Curation:
    assert study.corpus.curation is not None
    return study.corpus.curation


def curated(
    study: Study,
    stream: TokenStream,
    n_vocab: int,
    blocks: Sequence[str],
    lengths: Sequence[int],
) -> tuple[list[str], float]:
    """The kept blocks of those that the stream was made of, in their order; the share of bytes.

    ``lengths`` are the blocks' tokens, with the one that ends each.
    A block's loss is the reference's mean over its tokens that have a label in the stream's first
    epoch. A block without one, at the stream's end, counts as the worst.
    """
    model = load_reference(study, n_vocab)
    n_known = len(heads.head(model).weight_vd)
    if n_known != n_vocab:
        raise ConfigError(
            f"corpus.curation.reference: it knows {n_known} entries, the study's tokenizer has "
            f"{n_vocab}",
            remedy="take a reference with the study's tokenizer",
        )
    sums, counts = np.zeros(len(blocks)), np.zeros(len(blocks))
    of_tokens = _blocks_of_tokens(study, lengths)
    for places_n, losses_n in _losses(model, stream, study.n_ctx):
        inside = places_n < len(of_tokens)
        rows = of_tokens[places_n[inside]]
        real = rows >= 0
        np.add.at(sums, rows[real], losses_n[inside][real])
        np.add.at(counts, rows[real], 1)
    means = np.divide(sums, counts, out=np.full(len(blocks), np.inf), where=counts > 0)
    return curate(blocks, means, _curation(study))


def _blocks_of_tokens(study: Study, lengths: Sequence[int]) -> np.ndarray:
    """The block that each token of the stream is of; -1 for what frames a masked sequence."""
    of_tokens = np.repeat(np.arange(len(lengths)), lengths)
    if study.objective == "causal":
        return of_tokens
    inside = study.n_ctx - 2
    n = len(of_tokens) // inside
    framed = of_tokens[: n * inside].reshape(n, inside)
    return np.pad(framed, ((0, 0), (1, 1)), constant_values=-1).ravel()


def _losses(
    model: nn.Module, stream: TokenStream, n_ctx: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places in the stream of the labels of a batch, and the model's loss there, nats: each [n]."""
    per_window = stream.n_labels(n_ctx) * len(heads.head(model).weight_vd) * 4
    n_windows, size = stream.n_windows(n_ctx), max(1, _LOGITS_BYTES // per_window)
    for start in range(0, n_windows, size):
        windows = np.arange(start, min(start + size, n_windows))
        batch = stream.batch(windows, n_ctx)
        with torch.inference_mode():
            losses_n = label_nll(model, batch).flatten()
        yield _places(windows, n_ctx, batch).ravel(), losses_n.double().numpy()


def _places(windows: np.ndarray, n_ctx: int, batch: Batch) -> np.ndarray:
    """Of the labels in the stream: [b, m]. Causal labels are the tokens after the inputs."""
    starts = windows[:, None] * n_ctx
    if batch.places_bm is None:
        return starts + np.arange(1, n_ctx + 1)
    places: np.ndarray = starts + batch.places_bm.numpy()
    return places
