"""From a model's states to its logits: the two steps that losses, caches and measures take apart.

A head is a linear map from what it is given to the logits; what it is given is the model's last
hidden state, or in masked models a transform of it. Both are made only where there is a label.

Legend: b sequences, m positions of each that have a label, d width of the hidden state, e of what
the head is given, n = b m, v vocabulary.
"""

from typing import NamedTuple, cast

from torch import Tensor, nn
from transformers import BertForMaskedLM, GraniteForCausalLM

from kdlaws.lab.kernels import hidden_states, matmul_nt
from kdlaws.lab.objectives import CROSS_ENTROPY, TokenLoss, linear_loss
from kdlaws.lab.streams import Batch
from kdlaws.lab.targets import Targets


class Head(NamedTuple):
    """logits = given weight^T / logits_scaling + bias."""

    weight_vd: Tensor
    logits_scaling: float = 1.0
    bias_v: Tensor | None = None

    def logits(self, given_ne: Tensor) -> Tensor:
        """[n, v]."""
        logits_nv = matmul_nt(given_ne / self.logits_scaling, self.weight_vd)
        return logits_nv if self.bias_v is None else logits_nv.add_(self.bias_v)


def head(model: nn.Module) -> Head:
    if isinstance(model, GraniteForCausalLM):
        return Head(model.lm_head.weight, model.config.logits_scaling)
    if isinstance(model, BertForMaskedLM):
        return Head(model.cls.predictions.decoder.weight, bias_v=model.cls.predictions.bias)
    return cast(Head, model.head)


def states(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Last hidden states [b, m, d] and what the head is given [b, m, e], where there is a label."""
    if not isinstance(model, GraniteForCausalLM | BertForMaskedLM):
        hidden_btd, given_bte = model(batch.inputs_bt)
        return batch.of(hidden_btd), batch.of(given_bte)
    hidden_bmd = batch.of(hidden_states(model, batch.inputs_bt))
    if isinstance(model, BertForMaskedLM):
        return hidden_bmd, model.cls.predictions.transform(hidden_bmd)
    return hidden_bmd, hidden_bmd


def logits(model: nn.Module, batch: Batch) -> Tensor:
    """[b, m, v]."""
    _, given_bme = states(model, batch)
    return head(model).logits(given_bme.flatten(0, 1)).unflatten(0, batch.labels_bm.shape)


def loss(
    to_head: Head,
    given_bme: Tensor,
    labels_bm: Tensor,
    targets: Targets | None = None,
    token_loss: TokenLoss = CROSS_ENTROPY,
    *,
    n_tokens: int | None = None,
) -> Tensor:
    """``objectives.linear_loss`` of a head, over all labels of a batch."""
    return linear_loss(
        given_bme.flatten(0, 1),
        to_head.weight_vd,
        labels_bm.flatten(),
        targets,
        token_loss,
        logits_scaling=to_head.logits_scaling,
        bias_v=to_head.bias_v,
        n_tokens=n_tokens,
    )
