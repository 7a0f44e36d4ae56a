"""The ladder of students, and what each shape costs: arithmetic only.

Every size is a transformer of constant aspect ratio, d_model / n_layers = 32, so that N alone
describes it: Llama-shaped for the causal objective, BERT-shaped for the masked one. Two names for
a size:

- ``"96/3"``: d_model / n_layers with heads of 32, the micro sizes that a laptop trains;
- ``"2M"`` ... ``"100M"``: heads of 64, named by their total parameters at a 32k vocabulary.

Counts follow one convention, stated once: *non-embedding* leaves out the input embeddings (of
words, positions and segments) and the LM head with its transform, tied or not. FLOPs count a
multiply-add as two and follow Kaplan et al. 2020 (2001.08361), section 2.1, with the head added,
at the positions that have a loss, and causal attention counted as half.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self, cast

from kdlaws.errors import ConfigError

Objective = Literal["causal", "masked"]

MICRO_SIZES = ("32/1", "64/2", "96/3", "128/4", "160/5", "192/6", "256/8")
NAMED_SIZES = {
    "2M": (64, 2),
    "5M": (128, 4),
    "10M": (192, 6),
    "25M": (320, 10),
    "50M": (448, 14),
    "100M": (576, 18),
}
MICRO_HEAD_DIM, NAMED_HEAD_DIM = 32, 64
MICRO_VOCAB = 1024
NAMED_VOCAB: dict[Objective, int] = {"causal": 32_000, "masked": 30_522}
MASKED_SHARE = 0.15
"""Of a sequence's tokens, as in BERT (Devlin et al. 2019, 1810.04805, section 3.1)."""


class Costs(Protocol):
    """What is known of a language model's cost: of a shape of the ladder, and of any other model.

    ``n_targets`` of the ``n_ctx`` positions of a sequence reach the head. ``d_attention`` is the
    width of all heads together.
    """

    @property
    def name(self) -> str: ...
    @property
    def objective(self) -> Objective: ...
    @property
    def d_model(self) -> int: ...
    @property
    def d_attention(self) -> int: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def n_vocab(self) -> int: ...
    @property
    def n_ctx(self) -> int: ...
    @property
    def n_targets(self) -> int: ...
    @property
    def n_params(self) -> int: ...
    @property
    def n_params_non_embedding(self) -> int: ...
    @property
    def n_params_head(self) -> int: ...
    @property
    def forward_flops_per_token(self) -> int: ...
    @property
    def training_flops_per_token(self) -> int: ...
    def at(self, n_ctx: int) -> Self: ...


class _WithFlops:
    """FLOPs per token of the input, from the counts."""

    @property
    def forward_flops_per_token(self: Costs) -> int:
        """2 N_non_embedding + 2 n_layers n_ctx d_attention + 2 N_head n_targets / n_ctx.

        The second term is twice that where attention looks both ways.
        """
        attention = 2 * self.n_layers * self.n_ctx * self.d_attention
        if self.objective == "masked":
            attention *= 2
        head = 2 * self.n_params_head * self.n_targets // self.n_ctx
        return 2 * self.n_params_non_embedding + attention + head

    @property
    def training_flops_per_token(self: Costs) -> int:
        """Forward, and a backward pass of twice its cost."""
        return 3 * self.forward_flops_per_token

    def at(self, n_ctx: int) -> Self:
        """The same model reading sequences of another length."""
        return cast(Self, replace(cast(Any, self), n_ctx=n_ctx))


@dataclass(frozen=True)
class Shape(_WithFlops):
    """A size of the ladder. ``n_vocab`` entries share one matrix between embedding and head."""

    name: str
    d_model: int
    n_layers: int
    head_dim: int
    n_vocab: int
    n_ctx: int
    objective: Objective = "causal"
    masked_share: float = MASKED_SHARE

    @property
    def n_targets(self) -> int:
        return self.n_ctx if self.objective == "causal" else n_masked(self.n_ctx, self.masked_share)

    @property
    def d_attention(self) -> int:
        return self.d_model

    @property
    def n_heads(self) -> int:
        return self.d_model // self.head_dim

    @property
    def d_intermediate(self) -> int:
        """Width of the MLP: 4 d_model; gated, two thirds of that in multiples of eight."""
        return 4 * self.d_model if self.objective == "masked" else 8 * round(self.d_model / 3)

    @property
    def n_params_matrices(self) -> int:
        """All layers' weights of attention, 4 d^2, and of the MLP, 3 d d_ff gated, 2 d d_ff not."""
        attention = 4 * self.d_model**2
        n_maps = 2 if self.objective == "masked" else 3
        return self.n_layers * (attention + n_maps * self.d_model * self.d_intermediate)

    @property
    def n_params_vectors(self) -> int:
        """Causal: two RMSNorm gains a layer and the final one.

        Masked: 13 widths of biases, gains and offsets a layer, and the norm of the embeddings.
        """
        if self.objective == "masked":
            return (13 * self.n_layers + 2) * self.d_model
        return (2 * self.n_layers + 1) * self.d_model

    @property
    def n_params_head(self) -> int:
        """The LM head, here the input embedding's matrix; masked also its bias and transform."""
        tied = self.n_vocab * self.d_model
        if self.objective == "masked":
            return tied + self.n_vocab + self.d_model**2 + 3 * self.d_model
        return tied

    @property
    def n_params_non_embedding(self) -> int:
        return self.n_params_matrices + self.n_params_vectors

    @property
    def n_params(self) -> int:
        """With BERT's embeddings of ``n_ctx`` positions and of two segments, if masked."""
        places = (self.n_ctx + 2) * self.d_model if self.objective == "masked" else 0
        return self.n_params_non_embedding + self.n_params_head + places


@dataclass(frozen=True)
class GivenModel(_WithFlops):
    """A model from elsewhere: counts that were taken from the model itself."""

    name: str
    objective: Objective
    d_model: int
    n_layers: int
    d_attention: int
    n_vocab: int
    n_ctx: int
    n_targets: int
    n_params: int
    n_params_non_embedding: int
    n_params_head: int


def n_masked(n_ctx: int, share: float) -> int:
    """Positions of a sequence that are masked: of those between the two that frame it."""
    return max(1, round(share * (n_ctx - 2)))


def shape(
    size: str,
    *,
    n_vocab: int | None = None,
    n_ctx: int = 128,
    objective: Objective = "causal",
    masked_share: float = MASKED_SHARE,
) -> Shape:
    """The shape of a size such as ``"96/3"`` or ``"25M"``.

    Raises ConfigError for a name that is neither on the ladder nor ``d_model/n_layers``.

    >>> shape("32/1").n_params_non_embedding
    12640
    >>> shape("2M").n_params
    2145600
    >>> shape("2M", objective="masked").n_params
    2096634
    """
    if size in NAMED_SIZES:
        (d_model, n_layers), head_dim = NAMED_SIZES[size], NAMED_HEAD_DIM
        default_vocab = NAMED_VOCAB[objective]
    else:
        (d_model, n_layers), head_dim = _parse_micro(size), MICRO_HEAD_DIM
        default_vocab = MICRO_VOCAB
    return Shape(
        *(size, d_model, n_layers, head_dim, n_vocab or default_vocab, n_ctx),
        objective=objective,
        masked_share=masked_share,
    )


def _parse_micro(size: str) -> tuple[int, int]:
    width, slash, depth = size.partition("/")
    if not (slash and width.isdecimal() and depth.isdecimal() and int(width) and int(depth)):
        raise ConfigError(
            f"unknown size {size!r}",
            remedy=f"sizes are {', '.join([*MICRO_SIZES, *NAMED_SIZES])}, or d_model/n_layers",
        )
    if int(width) % MICRO_HEAD_DIM:
        raise ConfigError(
            f"size {size!r}: d_model is not a multiple of the head size {MICRO_HEAD_DIM}",
            remedy=f"the nearest is {max(1, round(int(width) / MICRO_HEAD_DIM)) * MICRO_HEAD_DIM}"
            f"/{depth}",
        )
    return int(width), int(depth)


def ladder(objective: Objective = "causal") -> list[Shape]:
    """Every size with a name of its own, at the vocabulary that its group is named for."""
    return [shape(size, objective=objective) for size in (*MICRO_SIZES, *NAMED_SIZES)]


@dataclass(frozen=True)
class Flops:
    """FLOPs of one run alone, in the four buckets of the run table."""

    student: float
    teacher_inference: float
    teacher_training: float
    cache_saved: float


def run_flops(
    student: Costs,
    n_tokens: int,
    n_unique_tokens: int,
    *,
    teacher: Costs | None = None,
    teacher_n_tokens: int | None = 0,
    map_params: int = 0,
    is_online: bool = False,
    n_replicas: int = 1,
) -> Flops:
    """What a run costs if nothing is shared (Busbridge et al. 2025, 2502.08606, section 3.3).

    ``map_params`` is the size of the learned map of embedding-level distillation. The teacher
    reads each unique token once for each replica of its masks (one, if nothing is masked), its
    outputs being stored, or every token online; ``cache_saved``
    is what an online teacher would have spent beyond that. The teacher's training is NaN where
    ``teacher_n_tokens`` is None, not known.
    """
    per_token = student.training_flops_per_token + 3 * 2 * map_params
    if teacher is None:
        return Flops(float(per_token) * n_tokens, 0.0, 0.0, 0.0)
    n_read = n_tokens if is_online else min(n_tokens, n_replicas * n_unique_tokens)
    return Flops(
        student=float(per_token) * n_tokens,
        teacher_inference=float(teacher.forward_flops_per_token) * n_read,
        teacher_training=(
            math.nan
            if teacher_n_tokens is None
            else float(teacher.training_flops_per_token) * teacher_n_tokens
        ),
        cache_saved=float(teacher.forward_flops_per_token) * (n_tokens - n_read),
    )
