"""What a student is given of its teacher's next-token distribution, one class a form.

Legend: n tokens (sequences and positions flattened), k ids, v vocabulary, d width of a hidden
state. All are at the temperature of the loss.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Tensors that have a row for each token, but for the teacher's head."""

    def rows(self, rows: Tensor | slice) -> Self:
        return replace(self, **{name: tensor[rows] for name, tensor in self._by_token().items()})

    def to(self, device: torch.device) -> Self:
        return replace(self, **{name: t.to(device) for name, t in self._by_token().items()})

    def _by_token(self) -> dict[str, Tensor]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True)
class Sampled(Targets):
    """Ids drawn from the teacher and their shares of the draws; unused places have share 0.

    ``entropy_n`` is that of the teacher's whole distribution, so that the loss is a divergence.
    """

    ids_nk: Tensor
    p_nk: Tensor
    entropy_n: Tensor


@dataclass(frozen=True)
class TopK(Targets):
    """The teacher's k most likely ids; all others are one bucket that holds the rest."""

    ids_nk: Tensor
    p_nk: Tensor


@dataclass(frozen=True)
class Dense(Targets):
    """The whole distribution."""

    p_nv: Tensor
    entropy_n: Tensor


@dataclass(frozen=True)
class Online(Targets):
    """The teacher's last hidden states and its head: logits are made chunk by chunk."""

    hidden_nd: Tensor
    weight_vd: Tensor
    logits_scaling: float
    bias_v: Tensor | None = None

    def _by_token(self) -> dict[str, Tensor]:
        return {"hidden_nd": self.hidden_nd}
