"""The ladder of students, and what each shape costs: arithmetic only.

Every size is a Llama-shaped causal transformer of constant aspect ratio, d_model / n_layers = 32,
so that N alone describes it. Two names for a size:

- ``"96/3"``: d_model / n_layers with heads of 32, the micro sizes that a laptop trains;
- ``"2M"`` ... ``"100M"``: heads of 64, named by their total parameters at a 32k vocabulary.

Counts follow one convention, stated once: *non-embedding* leaves out the input embedding and the
LM head, tied or not. FLOPs count a multiply-add as two and follow Kaplan et al. 2020 (2001.08361),
section 2.1, with the head added and causal attention counted as half.
"""

from dataclasses import dataclass

from kdlaws.errors import ConfigError

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
MICRO_VOCAB, NAMED_VOCAB = 1024, 32_000


@dataclass(frozen=True)
class Shape:
    """A transformer's shape. ``n_vocab`` entries share one matrix between embedding and head."""

    name: str
    d_model: int
    n_layers: int
    head_dim: int
    n_vocab: int
    n_ctx: int

    @property
    def n_heads(self) -> int:
        return self.d_model // self.head_dim

    @property
    def d_intermediate(self) -> int:
        """Width of the gated MLP: two thirds of 4 d_model, in multiples of eight."""
        return 8 * round(self.d_model / 3)

    @property
    def n_params_matrices(self) -> int:
        """Weights of attention (4 d^2) and of the gated MLP (3 d d_ff), all layers."""
        attention = 4 * self.d_model**2
        mlp = 3 * self.d_model * self.d_intermediate
        return self.n_layers * (attention + mlp)

    @property
    def n_params_gains(self) -> int:
        """Two RMSNorm gains a layer and the final one."""
        return (2 * self.n_layers + 1) * self.d_model

    @property
    def n_params_head(self) -> int:
        """The LM head, here the same matrix as the input embedding."""
        return self.n_vocab * self.d_model

    @property
    def n_params_non_embedding(self) -> int:
        return self.n_params_matrices + self.n_params_gains

    @property
    def n_params(self) -> int:
        return self.n_params_non_embedding + self.n_params_head

    @property
    def forward_flops_per_token(self) -> int:
        """2 N_non_embedding + 2 n_layers n_ctx d_model + 2 n_vocab d_model."""
        attention = 2 * self.n_layers * self.n_ctx * self.d_model
        return 2 * self.n_params_non_embedding + attention + 2 * self.n_params_head

    @property
    def training_flops_per_token(self) -> int:
        """Forward, and a backward pass of twice its cost."""
        return 3 * self.forward_flops_per_token


def shape(size: str, *, n_vocab: int | None = None, n_ctx: int = 128) -> Shape:
    """The shape of a size such as ``"96/3"`` or ``"25M"``.

    Raises ConfigError for a name that is neither on the ladder nor ``d_model/n_layers``.

    >>> shape("32/1").n_params_non_embedding
    12640
    >>> shape("2M").n_params
    2145600
    """
    if size in NAMED_SIZES:
        d_model, n_layers = NAMED_SIZES[size]
        return Shape(size, d_model, n_layers, NAMED_HEAD_DIM, n_vocab or NAMED_VOCAB, n_ctx)
    d_model, n_layers = _parse_micro(size)
    return Shape(size, d_model, n_layers, MICRO_HEAD_DIM, n_vocab or MICRO_VOCAB, n_ctx)


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


def ladder() -> list[Shape]:
    """Every size with a name of its own, at the vocabulary that its group is named for."""
    return [shape(size) for size in (*MICRO_SIZES, *NAMED_SIZES)]


@dataclass(frozen=True)
class Flops:
    """FLOPs of one run alone, in the four buckets of the run table."""

    student: float
    teacher_inference: float
    teacher_training: float
    cache_saved: float


def run_flops(
    student: Shape,
    n_tokens: int,
    n_unique_tokens: int,
    *,
    teacher: Shape | None = None,
    teacher_n_tokens: int = 0,
    map_params: int = 0,
    is_online: bool = False,
) -> Flops:
    """What a run costs if nothing is shared (Busbridge et al. 2025, 2502.08606, section 3.3).

    ``map_params`` is the size of the learned map of embedding-level distillation. The teacher
    reads each unique token once, its outputs being stored, or every token online; ``cache_saved``
    is what an online teacher would have spent beyond that.
    """
    per_token = student.training_flops_per_token + 3 * 2 * map_params
    if teacher is None:
        return Flops(float(per_token) * n_tokens, 0.0, 0.0, 0.0)
    n_read = n_tokens if is_online else n_unique_tokens
    return Flops(
        student=float(per_token) * n_tokens,
        teacher_inference=float(teacher.forward_flops_per_token) * n_read,
        teacher_training=float(teacher.training_flops_per_token) * teacher_n_tokens,
        cache_saved=float(teacher.forward_flops_per_token) * (n_tokens - n_read),
    )
