"""Token streams on disk, what a model is given of them, and a stateless sampler over them.

Legend: b sequences of a batch, t positions of a sequence, m of them that have a label, d a width.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from kdlaws.records import digest
from kdlaws.shapes import n_masked


@dataclass(frozen=True)
class Batch:
    """Inputs, the positions that have a label (None: all of them, in order), and their labels."""

    inputs_bt: Tensor
    labels_bm: Tensor
    places_bm: Tensor | None = None

    def of(self, states_btd: Tensor) -> Tensor:
        """The states at the positions that have a label: [b, m, d]."""
        if self.places_bm is None:
            return states_btd
        return states_btd.gather(1, self.places_bm[..., None].expand(-1, -1, states_btd.shape[-1]))

    def to(self, device: torch.device | str) -> Self:
        places_bm = None if self.places_bm is None else self.places_bm.to(device)
        return replace(
            self,
            inputs_bt=self.inputs_bt.to(device),
            labels_bm=self.labels_bm.to(device),
            places_bm=places_bm,
        )


@dataclass(frozen=True)
class TokenStream:
    """Token ids of one split on disk, blocks ended by the end-of-text token; next-token prediction.

    The stream is read in windows of ``n_ctx`` inputs; window i starts at token i * n_ctx, and its
    last target is the next window's first input.
    """

    path: Path
    sha256: str
    n_tokens: int
    n_bytes: int

    @cached_property
    def ids(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")

    @property
    def identity(self) -> str:
        """Of all that a model is given of the stream."""
        return self.sha256

    @property
    def n_inputs(self) -> int:
        """Tokens that can be an input with a label."""
        return self.n_tokens - 1

    @property
    def n_replicas(self) -> int:
        """Ways in which a window is read, by the epoch."""
        return 1

    def replica(self, index: int) -> Self:
        """The stream as every epoch e with e mod n_replicas = index reads it."""
        return self

    def n_windows(self, n_ctx: int, max_tokens: int | None = None) -> int:
        available = self.n_inputs
        return (available if max_tokens is None else min(available, max_tokens)) // n_ctx

    def n_labels(self, n_ctx: int) -> int:
        """Labels of a window."""
        return n_ctx

    def windows(self, indices: np.ndarray, n_ctx: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets, each [len(indices), n_ctx], int64."""
        rows = indices[:, None] * n_ctx + np.arange(n_ctx + 1)
        ids = self.ids[rows].astype(np.int64)
        return ids[:, :-1], ids[:, 1:]

    def batch(self, windows: np.ndarray, n_ctx: int, epochs: np.ndarray | None = None) -> Batch:
        """What a model reads of the windows, each in its epoch; epoch 0 if none are given."""
        inputs, labels = self.windows(windows, n_ctx)
        return Batch(torch.from_numpy(inputs), torch.from_numpy(labels))


@dataclass(frozen=True)
class Masks:
    """BERT's rule (Devlin et al. 2019, 1810.04805, section 3.1) and what its draws depend on.

    Of the tokens that are predicted, 80 % are masked, 10 % replaced by a random one, 10 % left.
    """

    share: float
    replicas: int
    mask_id: int
    never: tuple[int, ...]  # ids of special tokens
    n_vocab: int
    seed: int

    def draw(self, ids_t: np.ndarray, window: int, replica: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions to predict, ascending, [m], and the window with them masked, [t].

        A pure function of window and replica.
        """
        rng = np.random.Generator(np.random.Philox(key=[self.seed, (replica << 40) + window]))
        order = rng.random(len(ids_t)) + np.isin(ids_t, self.never)
        m = n_masked(len(ids_t), self.share)
        places_m = np.sort(np.argpartition(order, m - 1)[:m])
        chance_m, random_m = rng.random(m), rng.integers(self.n_vocab, size=m)
        masked_t = ids_t.copy()
        masked_t[places_m] = np.where(
            chance_m < 0.8, self.mask_id, np.where(chance_m < 0.9, random_m, ids_t[places_m])
        )
        return places_m, masked_t


@dataclass(frozen=True)
class MaskedStream(TokenStream):
    """The ids of whole sequences of ``n_ctx`` tokens, framed as BERT's are; masked prediction.

    Epoch e reads the masks of replica e mod K; ``only`` is given where one replica is all.
    """

    masks: Masks
    only: int | None = None

    @property
    def identity(self) -> str:
        masks = {name: value for name, value in asdict(self.masks).items() if name != "replicas"}
        return digest([self.sha256, masks, self.only])

    @property
    def n_inputs(self) -> int:
        return self.n_tokens

    @property
    def n_replicas(self) -> int:
        return self.masks.replicas

    def replica(self, index: int) -> Self:
        return replace(self, only=index)

    def n_labels(self, n_ctx: int) -> int:
        return n_masked(n_ctx, self.masks.share)

    def batch(self, windows: np.ndarray, n_ctx: int, epochs: np.ndarray | None = None) -> Batch:
        epochs = np.zeros_like(windows) if epochs is None else epochs
        replicas = (
            epochs % self.n_replicas if self.only is None else np.full_like(epochs, self.only)
        )
        ids_bt = self.ids[windows[:, None] * n_ctx + np.arange(n_ctx)].astype(np.int64)
        drawn = [
            self.masks.draw(ids_t, int(window), int(replica))
            for ids_t, window, replica in zip(ids_bt, windows, replicas, strict=True)
        ]
        places_bm = np.stack([places for places, _ in drawn])
        inputs_bt = np.stack([inputs for _, inputs in drawn])
        labels_bm = np.take_along_axis(ids_bt, places_bm, axis=1)
        return Batch(*map(torch.from_numpy, (inputs_bt, labels_bm, places_bm)))


def stream_of(path: Path, facts: Mapping[str, Any], masks: Masks | None) -> TokenStream:
    """The stream that a manifest's facts describe, for the objective that the masks belong to."""
    if masks is None:
        return TokenStream(path=path, **facts)
    return MaskedStream(path=path, **facts, masks=masks)


@dataclass(frozen=True)
class Sampler:
    """Which windows are in the batch at step k: a pure function of (seed, k).

    Every epoch visits all windows once, in an order of its own.
    """

    n_windows: int
    batch_windows: int
    seed: int

    def indices(self, step: int) -> np.ndarray:
        """Window indices at a step, counted from 0: [batch_windows]."""
        places = np.arange(step * self.batch_windows, (step + 1) * self.batch_windows)
        epochs, offsets = np.divmod(places, self.n_windows)
        orders = {e: _order(self.n_windows, self.seed, int(e)) for e in np.unique(epochs)}
        pairs = zip(epochs, offsets, strict=True)
        return np.array([orders[epoch][offset] for epoch, offset in pairs])

    def epochs(self, step: int) -> np.ndarray:
        """The epoch that each window of the batch belongs to: [batch_windows]."""
        places = np.arange(step * self.batch_windows, (step + 1) * self.batch_windows)
        return places // self.n_windows


@lru_cache(maxsize=4)
def _order(n_windows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n_windows)
