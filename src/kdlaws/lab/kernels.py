"""The backbone's slow parts, swapped in place in a stock Hugging Face model.

``accelerate`` gives some modules of a model a class of this file with the same weights and, up to
rounding, the same results: linear layers of any architecture; attention and norms of Granite.
``hidden_states`` runs Granite's own layers without what training never needs (masks, caches).
What is not known to be faster runs as it was: other devices, other precisions, small products.
Which way is taken depends on shapes, precision and processor only, never on a timing, so the same
training step gives the same bits again. Measured gains: benchmarks/training.md.

Legend: m, n, k sides of a matrix product; b sequences, t positions, d width, h heads, e width of a
head, s = b h sequences of heads, r query rows of a block.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import GraniteForCausalLM, PreTrainedModel
from transformers.models.granite import modeling_granite as granite

MIN_PRODUCT = 2**22
"""Multiply-adds from which oneDNN's product, and a Function around it, are worth their overhead."""

MIN_ELEMENTS = 2**14
"""Activations, tokens x width, from which our norm and attention are worth their overhead."""

BLOCK = 64
"""Query rows of attention at a time: keys after a block are never multiplied."""

MAX_POSITIONS = 512
"""Longest sequence whose attention probabilities are kept for the backward pass."""


def accelerate(model: nn.Module) -> None:
    """Swap the classes of a stock model's parts in place; names, weights and config stay."""
    for module in model.modules():
        module.__class__ = _SWAPS.get(type(module), type(module))


def hidden_states(model: PreTrainedModel, inputs_bt: Tensor) -> Tensor:
    """Last hidden state after the final norm [b, t, d] of whole sequences, without padding."""
    if type(model) is not GraniteForCausalLM or model.config._attn_implementation != "sdpa":
        output = model.base_model(input_ids=inputs_bt, use_cache=False)
        return output.last_hidden_state
    backbone = model.model
    x_btd = backbone.embed_tokens(inputs_bt) * backbone.embedding_multiplier
    rotary = _rotary_tables(backbone, x_btd)
    for layer in backbone.layers:
        x_btd = layer(x_btd, position_embeddings=rotary)
    return backbone.norm(x_btd)


def _rotary_tables(backbone: Any, x_btd: Tensor) -> tuple[Tensor, Tensor]:
    """The library's cosines and sines [1, t, e], kept on the module for the next step."""
    t, dtype, device = key = (x_btd.shape[1], x_btd.dtype, x_btd.device)
    kept = getattr(backbone, "_kept_rotary_tables", None)
    if kept is None or kept[0] != key:
        # Tables made in inference mode could not be saved for a later backward pass.
        with torch.inference_mode(False):
            positions_1t = torch.arange(t, device=device)[None]
            like = torch.empty(0, dtype=dtype, device=device)
            kept = (key, backbone.rotary_emb(like, position_ids=positions_1t))
        backbone._kept_rotary_tables = kept
    cos_and_sin: tuple[Tensor, Tensor] = kept[1]
    return cos_and_sin


# -- products ------------------------------------------------------------------------------------


def matmul_nt(a_mk: Tensor, b_nk: Tensor) -> Tensor:
    """a b^T [m, n]; either may be a transposed view.

    Torch's fp32 products go through MKL, which runs AVX2 code on AMD processors (110 GFLOP/s a
    core here); oneDNN's, which torch has for its compiler, run AVX-512 (up to 270).
    """
    (m, k), n = a_mk.shape, len(b_nk)
    if not _is_worth_onednn(a_mk, b_nk, m * n * k):
        return a_mk @ b_nk.t()
    # oneDNN copies a column-major first operand: better the other one, if it is smaller by more
    # than the copy of the result.
    if a_mk.stride(0) == 1 and m * k > n * k + m * n:
        return _onednn_nt(b_nk, a_mk).t().contiguous()
    return _onednn_nt(a_mk, b_nk)


def _onednn_nt(a_mk: Tensor, b_nk: Tensor, bias_n: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a_mk, b_nk, bias_n, "none", [], "")
    return product


def _is_worth_onednn(a: Tensor, b: Tensor, n_multiply_adds: int) -> bool:
    return (
        n_multiply_adds >= MIN_PRODUCT
        and a.dtype == b.dtype == torch.float32
        and a.device.type == b.device.type == "cpu"
        and _has_onednn()
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def _has_onednn() -> bool:
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class _LinearFunction(torch.autograd.Function):
    """y = x W^T + bias; dx = g W, dW = g^T x, dbias = the sum of g over tokens."""

    @staticmethod
    def forward(ctx: Any, x_md: Tensor, weight_nd: Tensor, bias_n: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_md, weight_nd)
        return _onednn_nt(x_md, weight_nd, bias_n)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_mn: Tensor) -> tuple[Tensor | None, ...]:
        x_md, weight_nd = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            matmul_nt(grad_mn, weight_nd.t()) if wants_x else None,
            matmul_nt(grad_mn.t(), x_md.t()) if wants_weight else None,
            grad_mn.sum(0) if wants_bias else None,
        )


class _Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        if not _is_worth_onednn(x, self.weight, x.numel() * self.out_features):
            return F.linear(x, self.weight, self.bias)
        x_md = x.reshape(-1, self.in_features)
        y_mn: Tensor = _LinearFunction.apply(x_md, self.weight, self.bias)
        return y_mn.view(*x.shape[:-1], self.out_features)


# -- norm ----------------------------------------------------------------------------------------


class _NormFunction(torch.autograd.Function):
    """y = x / rms(x) gain (Zhang and Sennrich 2019, 1910.07467, equation 4)."""

    @staticmethod
    def forward(ctx: Any, x_btd: Tensor, gain_d: Tensor, eps: float) -> Tensor:
        norm_bt1 = torch.linalg.vector_norm(x_btd, dim=-1, keepdim=True)
        inverse_bt1 = norm_bt1.square_().div_(len(gain_d)).add_(eps).rsqrt_()
        unit_btd = x_btd * inverse_bt1
        ctx.save_for_backward(unit_btd, inverse_bt1, gain_d)
        return unit_btd * gain_d

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_btd: Tensor) -> tuple[Tensor | None, ...]:
        """dx = (g gain - unit mean(g gain unit)) / rms(x), dgain = the sum of g unit."""
        unit_btd, inverse_bt1, gain_d = ctx.saved_tensors
        grad_unit_btd = grad_btd * unit_btd
        mean_bt1 = (grad_unit_btd @ gain_d).div_(-len(gain_d)).unsqueeze(-1)
        grad_x_btd = (grad_btd * gain_d).addcmul_(unit_btd, mean_bt1).mul_(inverse_bt1)
        return grad_x_btd, grad_unit_btd.sum((0, 1)), None


class _Norm(granite.GraniteRMSNorm):
    def forward(self, hidden_states: Tensor) -> Tensor:
        if not _is_worth_functions(hidden_states):
            return super().forward(hidden_states)
        y_btd: Tensor = _NormFunction.apply(hidden_states, self.weight, self.variance_epsilon)
        return y_btd


def _is_worth_functions(x_btd: Tensor) -> bool:
    return (
        x_btd.numel() >= MIN_ELEMENTS
        and x_btd.device.type == "cpu"
        and x_btd.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
    )


# -- attention -----------------------------------------------------------------------------------


class _AttentionFunction(torch.autograd.Function):
    """Causal attention with rotary positions (Su et al. 2021, 2104.09864), before its output map.

    The projections are one product with the three weights [f / 3, d] stacked to [f, d].
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_btd: Tensor,
        cos_1te: Tensor,
        sin_1te: Tensor,
        scaling: float,
        *weights: Tensor,
    ) -> Tensor:
        e = cos_1te.shape[-1]
        cos, sin = (table.chunk(2, dim=-1)[0].unsqueeze(1) for table in (cos_1te, sin_1te))
        x_md, weight_fd = x_btd.flatten(0, 1), torch.cat(weights)
        qkv_btf = matmul_nt(x_md, weight_fd).view(*x_btd.shape[:-1], -1)
        q, k, v = (_by_head(part, e) for part in qkv_btf.chunk(3, dim=-1))
        heads_bhte = (_rotated(q, cos, sin).mul_(scaling), _rotated(k, cos, sin), v.contiguous())
        out_btd = x_btd.new_empty(*x_btd.shape[:-1], len(weights[0]))
        kept = _attend(*heads_bhte, out=_by_head(out_btd, e))
        ctx.scaling = scaling
        ctx.save_for_backward(x_md, weight_fd, cos, sin, *heads_bhte, *kept)
        return out_btd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_btd: Tensor) -> tuple[Tensor | None, ...]:
        x_md, weight_fd, cos, sin, q, k, v, *kept = ctx.saved_tensors
        grad_bhte = _by_head(grad_btd, q.shape[-1]).contiguous()
        dq, dk, dv = _attend_backward(grad_bhte, q, k, v, kept)
        dqkv_btf = grad_btd.new_empty(*grad_btd.shape[:-1], len(weight_fd))
        q_out, k_out, v_out = (_by_head(part, q.shape[-1]) for part in dqkv_btf.chunk(3, dim=-1))
        _rotate(dq.mul_(ctx.scaling), cos, -sin, out=q_out)
        _rotate(dk, cos, -sin, out=k_out)
        v_out.copy_(dv)
        dqkv_mf = dqkv_btf.flatten(0, 1)
        dx_btd = matmul_nt(dqkv_mf, weight_fd.t()).view(*grad_btd.shape[:-1], -1)
        return dx_btd, None, None, None, *matmul_nt(dqkv_mf.t(), x_md.t()).chunk(3)


def _by_head(x_btd: Tensor, e: int) -> Tensor:
    """A view [b, h, t, e]."""
    return x_btd.unflatten(-1, (-1, e)).transpose(1, 2)


def _rotated(x_bhte: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    out_bhte = torch.empty_like(x_bhte, memory_format=torch.contiguous_format)
    _rotate(x_bhte, cos, sin, out=out_bhte)
    return out_bhte


def _rotate(x_bhte: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """Turn each pair of features (i, i + e/2) by its angle; with -sin, back again."""
    (first, second), (out_first, out_second) = x_bhte.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(first, cos, out=out_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out_second).addcmul_(first, sin)


def _attend(q_bhte: Tensor, k_bhte: Tensor, v_bhte: Tensor, out: Tensor) -> list[Tensor]:
    """Fill ``out`` [b, h, t, e] block by block; each block's probabilities [s, r, its keys].

    Half of the square of scores, the keys after a block, is neither computed nor kept.
    """
    q_ste, k_ste, v_ste = (x.flatten(0, 1) for x in (q_bhte, k_bhte, v_bhte))
    kept = []
    for rows in _blocks(q_ste.shape[1]):
        keys = slice(rows.stop)
        p_srt = torch.bmm(q_ste[:, rows], k_ste[:, keys].transpose(1, 2))
        p_srt[:, :, rows] += _future(rows.stop - rows.start, p_srt.dtype)
        torch.softmax(p_srt, dim=-1, out=p_srt)
        out[:, :, rows] = torch.bmm(p_srt, v_ste[:, keys]).view_as(out[:, :, rows])
        kept.append(p_srt)
    return kept


def _attend_backward(
    grad_bhte: Tensor, q_bhte: Tensor, k_bhte: Tensor, v_bhte: Tensor, kept: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients [b, h, t, e] of queries, keys and values."""
    grad_ste, q_ste, k_ste, v_ste = (x.flatten(0, 1) for x in (grad_bhte, q_bhte, k_bhte, v_bhte))
    dq_ste, dk_ste, dv_ste = (
        torch.empty_like(q_ste),
        torch.zeros_like(k_ste),
        torch.zeros_like(v_ste),
    )
    for rows, p_srt in zip(_blocks(q_ste.shape[1]), kept, strict=True):
        keys, grad_sre = slice(rows.stop), grad_ste[:, rows]
        dp_srt = torch.bmm(grad_sre, v_ste[:, keys].transpose(1, 2))
        ds_srt = torch.ops.aten._softmax_backward_data(dp_srt, p_srt, -1, p_srt.dtype)
        dq_ste[:, rows] = torch.bmm(ds_srt, k_ste[:, keys])
        dk_ste[:, keys] += torch.bmm(ds_srt.transpose(1, 2), q_ste[:, rows])
        dv_ste[:, keys] += torch.bmm(p_srt.transpose(1, 2), grad_sre)
    dq_bhte, dk_bhte, dv_bhte = (x.view_as(q_bhte) for x in (dq_ste, dk_ste, dv_ste))
    return dq_bhte, dk_bhte, dv_bhte


def _blocks(t: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, t)) for start in range(0, t, BLOCK)]


@cache
def _future(n_rows: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of a block against its own keys: minus infinity above."""
    return torch.full((n_rows, n_rows), -torch.inf, dtype=dtype).triu(1)


class _Attention(granite.GraniteAttention):
    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        asked = attention_mask is not None or past_key_values is not None or kwargs.keys() - _IDLE
        if asked or position_embeddings is None or not self._is_known(hidden_states):
            return super().forward(
                hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs
            )
        weights = (self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)
        out_btd: Tensor = _AttentionFunction.apply(
            hidden_states, *position_embeddings, self.scaling, *weights
        )
        return self.o_proj(out_btd), None

    def _is_known(self, x_btd: Tensor) -> bool:
        projections = (self.q_proj, self.k_proj, self.v_proj)
        return (
            _is_worth_functions(x_btd)
            and x_btd.shape[1] <= MAX_POSITIONS
            and self.is_causal
            and self.num_key_value_groups == 1
            and not (self.training and self.attention_dropout)
            and all(type(each) is _Linear and each.bias is None for each in projections)
        )


_IDLE = {"position_ids", "use_cache"}
"""What the library hands on to attention, which then does not read it."""

_SWAPS: dict[type, type] = {
    nn.Linear: _Linear,
    granite.GraniteRMSNorm: _Norm,
    granite.GraniteAttention: _Attention,
}
