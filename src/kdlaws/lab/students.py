"""Shape -> Hugging Face model, with its initial weights and its groups for the optimiser.

Causal students are stock ``GraniteForCausalLM``: Llama-shaped, with the multipliers of the maximal
update parametrisation in the config. The rest of muP, initialisation and one learning-rate factor
for each group of weights, is here. Sources: Yang et al. 2022, Tensor Programs V (2203.03466), table
8, for width; Dey et al. 2025, CompleteP (2505.01618), table 1, for depth (residual branches scaled
by 1/n_layers).

With m = d_model / 32 and l = n_layers over the base shape 32/1:

===================  =======================  ====================  ==============  ============
weights              initial                  learning rate         weight decay    multiplier
===================  =======================  ====================  ==============  ============
embedding = head     N(0, 0.02^2)             eta                   0               x 25, 1 / m
hidden matrices      N(0, 1 / fan_in)         eta / m               lambda m        branch x 1/l
norm gains           1                        eta                   0
embedding map        0                        eta / m               0
===================  =======================  ====================  ==============  ============

Masked students are stock ``BertForMaskedLM`` (Devlin et al. 2019, 1810.04805) without dropout: with
norms after each branch, a tied head without a multiplier. No width can take over another's rate, so
each size has one of its own (``MASKED_RATES``), which all weights share. Matrices begin at N(0,
0.02^2) and decay, biases at 0 and gains at 1 and do not. Positions, which BERT learns, begin as
sinusoids (Vaswani et al. 2017, 1706.03762, section 3.5): from N(0, 0.02^2) the micro sizes have not
found a masked token's neighbours after millions of tokens (benchmarks/masked.md).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, GraniteConfig, GraniteForCausalLM

from kdlaws.lab.kernels import accelerate
from kdlaws.shapes import Shape

BASE_WIDTH, BASE_DEPTH = 32, 1
EMBEDDING_STD = 0.02
EMBEDDING_MULTIPLIER = 25.0
EMBEDDING_RATE = 1.0
POSITION_AMPLITUDE = 0.05
BETAS, EPS = (0.9, 0.95), 1e-15


def width_multiple(shape: Shape) -> float:
    return shape.d_model / BASE_WIDTH


def granite_config(shape: Shape) -> GraniteConfig:
    """The stock config; the library's attention_multiplier of 1.0 is not muP's 1/sqrt(head)."""
    return GraniteConfig(
        vocab_size=shape.n_vocab,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_intermediate,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_heads,
        max_position_embeddings=shape.n_ctx,
        attention_multiplier=shape.head_dim**-0.5,
        residual_multiplier=BASE_DEPTH / shape.n_layers,
        embedding_multiplier=EMBEDDING_MULTIPLIER,
        logits_scaling=width_multiple(shape),
        tie_word_embeddings=True,
        pad_token_id=None,
    )


def bert_config(shape: Shape) -> BertConfig:
    """The stock config without dropout: few passes over much text leave nothing to forget."""
    return BertConfig(
        vocab_size=shape.n_vocab,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_intermediate,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        max_position_embeddings=shape.n_ctx,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=EMBEDDING_STD,
    )


def build(shape: Shape, seed: int) -> GraniteForCausalLM | BertForMaskedLM:
    """A student with its initial weights: a pure function of shape and seed, fp32 on the CPU."""
    if shape.objective == "masked":
        model = BertForMaskedLM(bert_config(shape)).float()
    else:
        model = GraniteForCausalLM(granite_config(shape)).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            _initialise(name, weight, generator, shape)
    accelerate(model)
    return model


def _initialise(name: str, weight: Tensor, generator: torch.Generator, shape: Shape) -> None:
    if name.endswith("bias"):
        weight.zero_()
    elif is_gain(name):
        weight.fill_(1.0)
    elif name.endswith("position_embeddings.weight"):
        weight.copy_(sinusoids(shape.n_ctx, shape.d_model))
    elif is_embedding(name) or shape.objective == "masked":
        weight.normal_(0.0, EMBEDDING_STD, generator=generator)
    else:
        fan_in = weight.shape[1]
        weight.normal_(0.0, fan_in**-0.5, generator=generator)


def sinusoids(n_ctx: int, d_model: int) -> Tensor:
    """Positions as sines and cosines, of wavelengths from 2 pi to 2 pi n_ctx: [n_ctx, d_model]."""
    n_waves = (d_model + 1) // 2
    frequencies = float(n_ctx) ** -(torch.arange(n_waves) / n_waves)
    angles_tw = torch.arange(n_ctx)[:, None] * frequencies
    waves = torch.stack([angles_tw.sin(), angles_tw.cos()], dim=-1).flatten(1)
    return POSITION_AMPLITUDE * waves[:, :d_model]


def is_gain(name: str) -> bool:
    return name.lower().endswith("norm.weight")


def is_embedding(name: str) -> bool:
    return name.endswith("embed_tokens.weight")


def parameter_groups(
    named: Iterable[tuple[str, Tensor]], shape: Shape, rate: float, weight_decay: float
) -> list[dict[str, object]]:
    """AdamW's groups, each with ``peak``, the rate that the schedule scales."""
    if shape.objective == "masked":
        return _groups_at_one_rate(dict(named), rate, weight_decay)
    m = width_multiple(shape)
    weights = dict(named)
    embeddings = [weights[name] for name in weights if is_embedding(name)]
    gains = [weights[name] for name in weights if is_gain(name)]
    matrices = [weights[name] for name in weights if not (is_embedding(name) or is_gain(name))]
    return [
        {"params": embeddings, "peak": rate * EMBEDDING_RATE, "weight_decay": 0.0},
        {"params": matrices, "peak": rate / m, "weight_decay": weight_decay * m},
        {"params": gains, "peak": rate, "weight_decay": 0.0},
    ]


def _groups_at_one_rate(
    weights: dict[str, Tensor], rate: float, weight_decay: float
) -> list[dict[str, object]]:
    """Matrices decay, biases and gains do not."""
    matrices = [weight for weight in weights.values() if weight.ndim > 1]
    vectors = [weight for weight in weights.values() if weight.ndim == 1]
    return [
        {"params": matrices, "peak": rate, "weight_decay": weight_decay},
        {"params": vectors, "peak": rate, "weight_decay": 0.0},
    ]


def new_map(student: Shape, n_components: int) -> nn.Linear:
    """The learned map of embedding-level distillation, zero at first; thrown away afterwards."""
    learned = nn.Linear(student.d_model, n_components, bias=False)
    nn.init.zeros_(learned.weight)
    return learned


def map_group(learned: nn.Linear, shape: Shape, rate: float) -> dict[str, object]:
    is_masked = shape.objective == "masked"
    return {
        "params": list(learned.parameters()),
        "peak": rate if is_masked else rate / width_multiple(shape),
        "weight_decay": 0.0,
    }
