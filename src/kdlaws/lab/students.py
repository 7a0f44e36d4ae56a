"""Shape -> Hugging Face model, in the maximal update parametrisation.

Students are stock ``GraniteForCausalLM``: Llama-shaped, with muP's multipliers in the config. The
rest of muP, initialisation and one learning-rate factor for each group of weights, is here.
Sources: Yang et al. 2022, Tensor Programs V (2203.03466), table 8, for width; Dey et al. 2025,
CompleteP (2505.01618), table 1, for depth (residual branches scaled by 1/n_layers).

With m = d_model / 32 and l = n_layers over the base shape 32/1:

===================  =======================  ====================  ==============  ============
weights              initial                  learning rate         weight decay    multiplier
===================  =======================  ====================  ==============  ============
embedding = head     N(0, 0.02^2)             eta                   0               x 25, 1 / m
hidden matrices      N(0, 1 / fan_in)         eta / m               lambda m        branch x 1/l
norm gains           1                        eta                   0
embedding map        0                        eta / m               0
===================  =======================  ====================  ==============  ============
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GraniteConfig, GraniteForCausalLM

from kdlaws.lab.kernels import accelerate, hidden_states
from kdlaws.shapes import Shape

BASE_WIDTH, BASE_DEPTH = 32, 1
EMBEDDING_STD = 0.02
EMBEDDING_MULTIPLIER = 25.0
EMBEDDING_RATE = 1.0
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


def build(shape: Shape, seed: int) -> GraniteForCausalLM:
    """A student with its initial weights: a pure function of shape and seed, fp32 on the CPU."""
    model = GraniteForCausalLM(granite_config(shape)).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            _initialise(name, weight, generator)
    accelerate(model)
    return model


def _initialise(name: str, weight: Tensor, generator: torch.Generator) -> None:
    if is_gain(name):
        weight.fill_(1.0)
    elif is_embedding(name):
        weight.normal_(0.0, EMBEDDING_STD, generator=generator)
    else:
        fan_in = weight.shape[1]
        weight.normal_(0.0, fan_in**-0.5, generator=generator)


def is_gain(name: str) -> bool:
    return name.endswith("norm.weight")


def is_embedding(name: str) -> bool:
    return name.endswith("embed_tokens.weight")


def parameter_groups(
    named: Iterable[tuple[str, Tensor]], shape: Shape, rate: float, weight_decay: float
) -> list[dict[str, object]]:
    """AdamW's groups, each with ``peak``, the rate that the schedule scales."""
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


def head(model: GraniteForCausalLM) -> tuple[Tensor, float]:
    """The LM head's weight [n_vocab, d_model], and what logits are divided by."""
    return model.lm_head.weight, model.config.logits_scaling


def forward(model: GraniteForCausalLM, inputs_bt: Tensor) -> tuple[Tensor, Tensor]:
    """Last hidden state after the final norm [b, t, d_model], and logits [b, t, n_vocab]."""
    hidden_btd = hidden_states(model, inputs_bt)
    weight_vd, scaling = head(model)
    return hidden_btd, F.linear(hidden_btd / scaling, weight_vd)


def new_map(student: Shape, n_components: int) -> nn.Linear:
    """The learned map of embedding-level distillation, zero at first; thrown away afterwards."""
    learned = nn.Linear(student.d_model, n_components, bias=False)
    nn.init.zeros_(learned.weight)
    return learned


def map_group(learned: nn.Linear, shape: Shape, rate: float) -> dict[str, object]:
    return {
        "params": list(learned.parameters()),
        "peak": rate / width_multiple(shape),
        "weight_decay": 0.0,
    }
