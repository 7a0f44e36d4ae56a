"""Score a model on one text: every token once, nats in float64, and never all logits at a time.

Causal models read the windows of lm-evaluation-harness's rolling log-likelihoods, so that numbers
can stand beside its numbers. Masked models read framed sequences under fixed masks, or, for
pseudo-perplexity, with one token masked at a time.

Legend: w windows of the text, b of a batch, t positions of a window, m of them that have a label,
n = b m, e width of what the head is given, v vocabulary.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kdlaws.errors import InputError
from kdlaws.lab import heads
from kdlaws.lab.streams import Batch, Masks

Ids = NDArray[np.int64]

LOGITS_BYTES = 2**25  # of one chunk, fp32; its log-softmax takes as much again
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class PlainText:
    """A text file, read as it is: no line end is translated."""

    path: Path
    content: bytes

    @cached_property
    def text(self) -> str:
        return self.content.decode("utf-8")

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def label(self) -> str:
        """What the table's column ``corpus`` calls it."""
        return f"{self.path.name}-{self.sha256[:8]}"

    @property
    def n_bytes(self) -> int:
        return len(self.content)

    @cached_property
    def n_words(self) -> int:
        """Pieces between white space, empty ones at the ends counted, as lm-evaluation-harness."""
        return len(re.split(r"\s+", self.text))


def read_plain_text(path: Path) -> PlainText:
    """Raises InputError where there is no such file, or it is empty or not UTF-8."""
    try:
        found = PlainText(path, path.read_bytes())
        is_empty = not found.text.strip()
    except FileNotFoundError:
        raise InputError("there is no such file", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"is not UTF-8 text ({error.reason} at byte {error.start})",
            where=str(path),
            remedy="convert it, for example with iconv -t utf-8",
        ) from None
    if is_empty:
        raise InputError("there is no text in it", where=str(path))
    return found


@dataclass(frozen=True)
class Score:
    """Negative log-probability of each window's labels, summed, nats; and how many they are."""

    nll_w: NDArray[np.float64]
    n_labels_w: Ids

    @property
    def n_tokens(self) -> int:
        return int(self.n_labels_w.sum())

    @property
    def nll(self) -> float:
        return float(self.nll_w.sum())

    @property
    def cross_entropy(self) -> float:
        """Nats per token that has a label."""
        return self.nll / self.n_tokens

    @property
    def cross_entropy_se(self) -> float | None:
        """Over windows, of a ratio of two sums (Cochran 1977, section 2.11); None of one window."""
        n_windows = len(self.nll_w)
        if n_windows == 1:
            return None
        residual_w = self.nll_w - self.cross_entropy * self.n_labels_w
        variance = float((residual_w**2).sum()) / (n_windows - 1)
        return math.sqrt(n_windows * variance) / self.n_tokens


def score(model: nn.Module, batches: Iterable[Batch]) -> Score:
    """Of a model that ``heads`` reads, in evaluation mode."""
    nll, n_labels = [], []
    with torch.inference_mode():
        for batch in batches:
            nll_bm = label_nll(model, batch)
            nll.append(nll_bm.double().sum(dim=1).numpy())
            n_labels.append(np.full(len(nll_bm), nll_bm.shape[1]))
    return Score(np.concatenate(nll), np.concatenate(n_labels))


def label_nll(model: nn.Module, batch: Batch) -> Tensor:
    """Nats of every label [b, m]; the logits exist in chunks of ``LOGITS_BYTES``."""
    _, given_bme = heads.states(model, batch)
    head = heads.head(model)
    rows = max(1, LOGITS_BYTES // (4 * len(head.weight_vd)))
    chunks = zip(
        given_bme.flatten(0, 1).split(rows), batch.labels_bm.flatten().split(rows), strict=True
    )
    parts = [
        F.cross_entropy(head.logits(given_ne), labels_n, reduction="none")
        for given_ne, labels_n in chunks
    ]
    return torch.cat(parts).unflatten(0, batch.labels_bm.shape)


# -- causal ----------------------------------------------------------------------------------


def rolling_batches(ids_t: Ids, first_id: int, n_ctx: int) -> Iterator[Batch]:
    """Windows in which each token of a text is the label once; ``first_id`` stands before it.

    The last window is as full as the others and labels only what is left, so that these tokens
    have their context: lm-evaluation-harness, ``get_rolling_token_windows`` with a context of one
    token, then ``make_disjoint_window``.
    """
    stream = np.concatenate([[first_id], ids_t])
    n_full, n_left = divmod(len(ids_t), n_ctx)
    for windows_b in _batches(n_full, n_ctx):
        rows_bt = windows_b[:, None] * n_ctx + np.arange(n_ctx)
        yield Batch(*map(torch.from_numpy, (stream[rows_bt], stream[rows_bt + 1])))
    if n_left:
        inputs_t = stream[max(0, len(ids_t) - n_ctx) : -1]
        places_m = np.arange(len(inputs_t) - n_left, len(inputs_t))
        arrays = (inputs_t, stream[-n_left:], places_m)
        yield Batch(*(torch.from_numpy(each)[None] for each in arrays))


def _batches(n_windows: int, n_ctx: int) -> Iterator[Ids]:
    step = max(1, BATCH_TOKENS // n_ctx)
    for start in range(0, n_windows, step):
        yield np.arange(start, min(start + step, n_windows))


# -- masked ----------------------------------------------------------------------------------


def framed(ids_t: Ids, n_ctx: int, first_id: int, last_id: int) -> Ids:
    """Whole sequences [w, n_ctx] with a special token at both ends; a rest is left out."""
    n_inside = n_ctx - 2
    n_windows = len(ids_t) // n_inside
    inside_wt = ids_t[: n_windows * n_inside].reshape(n_windows, n_inside)
    return np.pad(inside_wt, ((0, 0), (1, 1)), constant_values=((0, 0), (first_id, last_id)))


def masked_batches(ids_wt: Ids, masks: Masks) -> Iterator[Batch]:
    """The sequences under the masks of their first replica."""
    for windows_b in _batches(*ids_wt.shape):
        drawn = [masks.draw(ids_wt[window], int(window), 0) for window in windows_b]
        places_bm = np.stack([places_m for places_m, _ in drawn])
        inputs_bt = np.stack([inputs_t for _, inputs_t in drawn])
        labels_bm = np.take_along_axis(ids_wt[windows_b], places_bm, axis=1)
        yield Batch(*map(torch.from_numpy, (inputs_bt, labels_bm, places_bm)))


def one_masked_batches(ids_wt: Ids, mask_id: int) -> Iterator[Batch]:
    """Each token between the frame masked in turn (Salazar et al. 2020, 1910.14659, section 2)."""
    n_ctx = ids_wt.shape[1]
    for ids_t in ids_wt:
        for part_b in _batches(n_ctx - 2, n_ctx):
            places_b1 = part_b[:, None] + 1
            inputs_bt = np.tile(ids_t, (len(part_b), 1))
            np.put_along_axis(inputs_bt, places_b1, mask_id, axis=1)
            arrays = (inputs_bt, ids_t[places_b1], places_b1)
            yield Batch(*map(torch.from_numpy, arrays))
