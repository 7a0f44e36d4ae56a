"""The losses, in nats per token, fused with the linear head that makes the logits.

No tensor of tokens x vocabulary is ever held, nor an autograd graph over one: logits exist for a
chunk of tokens at a time, and the gradient of each loss with respect to them is known in closed
form, so loss and gradients come out of one pass.

Under autocast the products are in half precision; the loss, its gradient with respect to the
logits, and the sum of the weight's gradient over chunks are not.

Legend: n tokens (sequences and positions flattened), c tokens of a chunk, k ids, v vocabulary,
d width of a hidden state; z logits, p the teacher's and q the student's distribution, T the
softmax temperature.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlaws.config import Divergence
from kdlaws.lab.kernels import matmul_nt
from kdlaws.lab.targets import Dense, Online, Sampled, Targets, TopK

IGNORED = -100
"""The label of a token that is not in the loss, as in Hugging Face models."""

CHUNK_BYTES = 16 * 2**20
"""Of logits held at a time; more does not pay (benchmarks/training.md)."""


@dataclass(frozen=True)
class TokenLoss:
    """kd_weight T^2 divergence + (1 - kd_weight) CE (Hinton et al. 2015, 1503.02531, section 2).

    T^2 keeps the teacher term's gradient at the scale of the text's as T changes. The divergence
    of p and q, both at temperature T, is forward KL(p || q), reverse KL(q || p), or the generalised
    Jensen-Shannon divergence beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q
    (Agarwal et al. 2024, 2306.13649, equation 1).
    """

    kd_weight: float = 1.0
    temperature: float = 1.0
    divergence: Divergence = "forward_kl"
    beta: float = 0.5


CROSS_ENTROPY = TokenLoss(kd_weight=0.0)


def linear_loss(
    hidden_nd: Tensor,
    weight_vd: Tensor,
    labels_n: Tensor,
    targets: Targets | None = None,
    loss: TokenLoss = CROSS_ENTROPY,
    *,
    logits_scaling: float = 1.0,
    bias_v: Tensor | None = None,
    n_tokens: int | None = None,
) -> Tensor:
    """The loss of logits z = hidden weight^T / logits_scaling + bias, as a scalar.

    Its sum over tokens is divided by ``n_tokens``, by default the number of labels that are not
    ``IGNORED``; with gradient accumulation that of the whole batch. Differentiable once, with
    respect to ``hidden_nd``, ``weight_vd`` and ``bias_v``.

    Raises ValueError for a divergence that is not linear in p where p is only stored: a sample's
    or a top-k's reverse KL does not estimate the whole distribution's.
    """
    _require_sound(targets, loss)
    counted = labels_n != IGNORED
    if not bool(counted.all()):
        hidden_nd, labels_n = hidden_nd[counted], labels_n[counted]
        targets = targets and targets.rows(counted)
    scale = 1 / max(1, len(labels_n) if n_tokens is None else n_tokens)
    value: Tensor = _LinearLoss.apply(
        hidden_nd, weight_vd, bias_v, labels_n, targets, loss, logits_scaling, scale
    )
    return value


def _require_sound(targets: Targets | None, loss: TokenLoss) -> None:
    if (targets is None) != (loss.kd_weight == 0):
        raise ValueError("a teacher's targets belong to a kd_weight above 0, and only to such")
    if loss.divergence != "forward_kl" and not isinstance(targets, Online):
        raise ValueError(f"{loss.divergence} needs the whole distribution of the teacher")


class _LinearLoss(torch.autograd.Function):
    """Value and gradients in the forward pass; backward only hands the gradients out."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_nd: Tensor,
        weight_vd: Tensor,
        bias_v: Tensor | None,
        labels_n: Tensor,
        targets: Targets | None,
        loss: TokenLoss,
        logits_scaling: float,
        scale: float,
    ) -> Tensor:
        wants_grad = any(ctx.needs_input_grad[:3])
        total = hidden_nd.new_zeros((), dtype=torch.promote_types(hidden_nd.dtype, torch.float32))
        grad_hidden_nd = torch.empty_like(hidden_nd) if wants_grad else None
        grad_weight_vd: Tensor | None = None
        grad_bias_v = None if bias_v is None else torch.zeros_like(bias_v)
        for rows in _chunks(len(hidden_nd), weight_vd):
            scaled_cd = hidden_nd[rows] / logits_scaling
            z_cv = matmul_nt(scaled_cd, weight_vd).to(total.dtype)
            if bias_v is not None:
                z_cv += bias_v
            given = targets and targets.rows(rows)
            loss_c, grad_cv = _value_and_grad(z_cv, labels_n[rows], given, loss)
            total += loss_c.sum() * scale
            if grad_bias_v is not None:
                grad_bias_v += grad_cv.sum(dim=0) * scale
            grad_cv = grad_cv.to(scaled_cd.dtype)
            if grad_hidden_nd is not None:
                factor = scale / logits_scaling
                grad_hidden_nd[rows] = matmul_nt(grad_cv, weight_vd.t()) * factor
                part_vd = matmul_nt(grad_cv.t(), (scaled_cd * scale).t()).to(weight_vd.dtype)
                grad_weight_vd = part_vd if grad_weight_vd is None else grad_weight_vd.add_(part_vd)
        if wants_grad:
            if grad_weight_vd is None:
                grad_weight_vd = torch.zeros_like(weight_vd)
            ctx.save_for_backward(grad_hidden_nd, grad_weight_vd, grad_bias_v)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = (each if each is None else each.mul_(grad) for each in ctx.saved_tensors)
        return *grads, None, None, None, None, None


def _chunks(n_tokens: int, weight_vd: Tensor) -> list[slice]:
    size = max(1, CHUNK_BYTES // (weight_vd.shape[0] * weight_vd.element_size()))
    return [slice(start, start + size) for start in range(0, n_tokens, size)]


def _value_and_grad(
    z_cv: Tensor, labels_c: Tensor, targets: Targets | None, loss: TokenLoss
) -> tuple[Tensor, Tensor]:
    """The loss of each token [c] and its gradient with respect to the logits [c, v]."""
    if targets is None:
        return _forward_kl_of_sample(z_cv, _certain(labels_c))
    t, w = loss.temperature, loss.kd_weight
    if isinstance(targets, Sampled) and t == 1:
        return _forward_kl_of_sample(z_cv, _mixed(targets, labels_c, w))
    kl_c, grad_cv = _divergence(z_cv / t if t != 1 else z_cv, targets, loss)
    if t != 1:
        kl_c, grad_cv = t**2 * kl_c, grad_cv.mul_(t)
    if w == 1:
        return kl_c, grad_cv
    hard_c, hard_grad_cv = _forward_kl_of_sample(z_cv, _certain(labels_c))
    return w * kl_c + (1 - w) * hard_c, grad_cv.mul_(w).add_(hard_grad_cv, alpha=1 - w)


def _certain(labels_c: Tensor) -> Sampled:
    """The text as a teacher that is sure: its forward KL is the cross-entropy."""
    return Sampled(
        labels_c[:, None],
        torch.ones_like(labels_c, dtype=torch.float32)[:, None],
        torch.zeros_like(labels_c, dtype=torch.float32),
    )


def _mixed(targets: Sampled, labels_c: Tensor, kd_weight: float) -> Sampled:
    """One distribution whose forward KL is the weighted sum, up to the text's entropy of zero."""
    if kd_weight == 1:
        return targets
    ids_ck = torch.cat([targets.ids_nk, labels_c[:, None]], dim=1)
    text = torch.full_like(targets.p_nk[:, :1], 1 - kd_weight)
    p_ck = torch.cat([kd_weight * targets.p_nk, text], dim=1)
    return Sampled(ids_ck, p_ck, kd_weight * targets.entropy_n)


def _divergence(z_cv: Tensor, targets: Targets, loss: TokenLoss) -> tuple[Tensor, Tensor]:
    if isinstance(targets, Sampled):
        return _forward_kl_of_sample(z_cv, targets)
    if isinstance(targets, TopK):
        return _forward_kl_of_buckets(z_cv, targets)
    if isinstance(targets, Dense):
        return _forward_kl_of_all(z_cv, targets)
    assert isinstance(targets, Online)
    scaled_cd = targets.hidden_nd / targets.logits_scaling
    teacher_cv = matmul_nt(scaled_cd, targets.weight_vd).to(z_cv.dtype)
    if targets.bias_v is not None:
        teacher_cv += targets.bias_v
    if loss.temperature != 1:
        teacher_cv = teacher_cv / loss.temperature
    log_p_cv, log_q_cv = F.log_softmax(teacher_cv, dim=-1), F.log_softmax(z_cv, dim=-1)
    return _OF_ALL[loss.divergence](log_p_cv, log_q_cv, loss.beta)


def _forward_kl_of_sample(z_cv: Tensor, targets: Sampled) -> tuple[Tensor, Tensor]:
    """KL(p || q) with p's shares of a sample in place of p, but its own entropy; d/dz = q - p.

    Linear in p, hence unbiased (Anshumann et al. 2025, 2503.16870, section 3.4).
    """
    q_cv = F.softmax(z_cv, dim=-1)
    p_ck = targets.p_nk.to(q_cv.dtype)
    log_q_ck = q_cv.gather(-1, targets.ids_nk).clamp_min_(torch.finfo(q_cv.dtype).tiny).log_()
    loss_c = -(p_ck * log_q_ck).sum(dim=-1) - targets.entropy_n
    return loss_c, q_cv.scatter_add_(-1, targets.ids_nk, -p_ck)


def _forward_kl_of_buckets(z_cv: Tensor, targets: TopK) -> tuple[Tensor, Tensor]:
    """KL over k ids and one bucket of the rest r: d/dz = q - p on the ids, q (1 - p_r/q_r) else.

    Never more than the KL over all ids (data processing inequality).
    """
    q_cv = F.softmax(z_cv, dim=-1)
    tiny = torch.finfo(q_cv.dtype).tiny
    p_ck = targets.p_nk.to(q_cv.dtype)
    q_ck = q_cv.gather(-1, targets.ids_nk)
    p_rest_c = (1 - p_ck.sum(dim=-1)).clamp_min(0)
    q_rest_c = q_cv.scatter(-1, targets.ids_nk, 0).sum(dim=-1).clamp_min_(tiny)
    loss_c = (torch.xlogy(p_ck, p_ck) - p_ck * q_ck.clamp_min(tiny).log()).sum(dim=-1)
    loss_c += torch.xlogy(p_rest_c, p_rest_c) - p_rest_c * q_rest_c.log()
    grad_cv = q_cv.mul_((1 - p_rest_c / q_rest_c)[:, None])
    return loss_c, grad_cv.scatter_(-1, targets.ids_nk, q_ck - p_ck)


def _forward_kl_of_all(z_cv: Tensor, targets: Dense) -> tuple[Tensor, Tensor]:
    log_q_cv = F.log_softmax(z_cv, dim=-1)
    p_cv = targets.p_nv.to(log_q_cv.dtype)
    loss_c = -_dot(p_cv, log_q_cv) - targets.entropy_n
    return loss_c, log_q_cv.exp_().sub_(p_cv)


def _forward_kl(log_p_cv: Tensor, log_q_cv: Tensor, _: float) -> tuple[Tensor, Tensor]:
    """KL(p || q); d/dz = q - p."""
    p_cv = log_p_cv.exp()
    loss_c = _dot(p_cv, log_p_cv.sub_(log_q_cv))
    return loss_c, log_q_cv.exp_().sub_(p_cv)


def _reverse_kl(log_p_cv: Tensor, log_q_cv: Tensor, _: float) -> tuple[Tensor, Tensor]:
    """KL(q || p); d/dz = q (log q - log p - KL)."""
    q_cv = log_q_cv.exp()
    ratio_cv = log_q_cv.sub_(log_p_cv)
    loss_c = _dot(q_cv, ratio_cv)
    return loss_c, ratio_cv.sub_(loss_c[:, None]).mul_(q_cv)


def _jensen_shannon(log_p_cv: Tensor, log_q_cv: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """beta KL(p || m) + (1 - beta) KL(q || m); d/dz = (1 - beta) q (log q - log m - KL(q || m)).

    What the mixture's own change adds to the derivative with respect to q is the same for every
    id, -1, and softmax does not see it.
    """
    p_cv, q_cv = log_p_cv.exp(), log_q_cv.exp()
    log_m_cv = (beta * p_cv + (1 - beta) * q_cv).log_()
    of_p_c = torch.xlogy(p_cv, p_cv).sum(dim=-1) - _dot(p_cv, log_m_cv)
    ratio_cv = log_q_cv.sub_(log_m_cv)
    of_q_c = _dot(q_cv, ratio_cv)
    grad_cv = ratio_cv.sub_(of_q_c[:, None]).mul_(q_cv).mul_(1 - beta)
    return beta * of_p_c + (1 - beta) * of_q_c, grad_cv


def _dot(a_cv: Tensor, b_cv: Tensor) -> Tensor:
    """The sum over ids, in the precision of its operands: autocast would take half of it."""
    with torch.autocast(a_cv.device.type, enabled=False):
        return torch.einsum("cv,cv->c", a_cv, b_cv)


_OF_ALL: dict[Divergence, Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]] = {
    "forward_kl": _forward_kl,
    "reverse_kl": _reverse_kl,
    "jensen_shannon": _jensen_shannon,
}


def unexplained(mapped_btd: Tensor, components_btd: Tensor, d_teacher: int) -> Tensor:
    """1 - R^2 of the teacher's hidden state z_T, but for the share of it that is not stored.

    Mean over positions of |P h_S - z_T|^2 / d_T, where z_T is centred, divided by one scalar so
    that its mean square in a dimension is 1, and given by its leading principal components.
    """
    return (mapped_btd - components_btd).square().sum(dim=-1).mean() / d_teacher
