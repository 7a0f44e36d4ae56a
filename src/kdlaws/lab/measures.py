"""What is measured of a model's output on the test windows, batch by batch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdlaws.lab.streams import Batch, MaskedStream, TokenStream

CALIBRATION_BINS = 15
BATCH_WINDOWS = 16
_LOGITS_BYTES = 2**26  # of a batch of one model; several are held


@dataclass(frozen=True)
class EvaluationSet:
    """The windows that every run is scored on."""

    stream: TokenStream
    n_windows: int
    n_ctx: int

    @property
    def n_tokens(self) -> int:
        return self.n_windows * self.n_ctx

    @property
    def n_labels(self) -> int:
        return self.n_windows * self.stream.n_labels(self.n_ctx)

    @property
    def tokens_per_byte(self) -> float | None:
        """None of a masked stream: a masked token's loss is no code length of the text."""
        if isinstance(self.stream, MaskedStream):
            return None
        return self.stream.n_tokens / self.stream.n_bytes

    def batches(self, n_vocab: int) -> Iterator[Batch]:
        """As many windows at a time as logits of ``n_vocab`` entries have room for."""
        of_window = 4 * n_vocab * self.stream.n_labels(self.n_ctx)
        size = max(1, min(BATCH_WINDOWS, _LOGITS_BYTES // of_window))
        for start in range(0, self.n_windows, size):
            rows = np.arange(start, min(start + size, self.n_windows))
            yield self.stream.batch(rows, self.n_ctx)


@dataclass(frozen=True)
class TeacherOutput:
    """What every student is compared with, computed once a batch."""

    p_btv: Tensor
    negative_entropy_bt: Tensor
    choice_bt: Tensor

    @classmethod
    def of(cls, logits_btv: Tensor) -> Self:
        log_p_btv = F.log_softmax(logits_btv, dim=-1)
        p_btv = log_p_btv.exp()
        return cls(p_btv, (p_btv * log_p_btv).sum(dim=-1), logits_btv.argmax(dim=-1))

    def kl_to(self, log_p_btv: Tensor) -> Tensor:
        """KL(teacher || student) at each position, nats, from the student's log p: [b, t]."""
        return self.negative_entropy_bt - torch.einsum("btv,btv->bt", self.p_btv, log_p_btv)


@dataclass
class Measures:
    """Sums over test windows, batch by batch."""

    nll: list[Tensor] = field(default_factory=list)  # mean nats per token, one a window
    kl: list[Tensor] = field(default_factory=list)
    n_agreed: int = 0
    calibration: Tensor = field(default_factory=lambda: torch.zeros(CALIBRATION_BINS))

    def add(self, logits_btv: Tensor, targets_bt: Tensor, teacher: TeacherOutput | None) -> None:
        log_p_btv = F.log_softmax(logits_btv, dim=-1)
        nll_bt = -log_p_btv.gather(-1, targets_bt[..., None])[..., 0]
        self.nll.append(nll_bt.double().mean(dim=1))
        confidence_bt, choice_bt = log_p_btv.max(dim=-1)
        correct_bt = choice_bt == targets_bt
        self.calibration += _confidence_minus_accuracy(confidence_bt.exp(), correct_bt)
        if teacher is not None:
            self.kl.append(teacher.kl_to(log_p_btv).double().mean(dim=1))
            self.n_agreed += int((teacher.choice_bt == choice_bt).sum())

    def columns(self, test: EvaluationSet) -> dict[str, float | None]:
        nll = torch.cat(self.nll)
        cross_entropy, tokens_per_byte = float(nll.mean()), test.tokens_per_byte
        bits = None if tokens_per_byte is None else cross_entropy / math.log(2) * tokens_per_byte
        return {
            "cross_entropy": cross_entropy,
            "cross_entropy_se": float(nll.std()) / math.sqrt(len(nll)),
            "perplexity": math.exp(cross_entropy),
            "bits_per_byte": bits,
            "kl_to_teacher": float(torch.cat(self.kl).mean()) if self.kl else None,
            "agreement": self.n_agreed / test.n_labels if self.kl else None,
            "calibration_error": float(self.calibration.abs().sum()) / test.n_labels,
        }


def _confidence_minus_accuracy(confidence_bt: Tensor, correct_bt: Tensor) -> Tensor:
    """Per bin of confidence, the sum of confidence minus correctness: [CALIBRATION_BINS].

    Summed over all tokens, absolute and divided by their number this is the expected calibration
    error (Guo et al. 2017, 1706.04599, equation 3).
    """
    bins = (confidence_bt * CALIBRATION_BINS).long().clamp_(max=CALIBRATION_BINS - 1)
    excess = confidence_bt - correct_bt.float()
    return torch.zeros(CALIBRATION_BINS).scatter_add_(0, bins.flatten(), excess.flatten())
