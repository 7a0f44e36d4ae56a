"""Students: counts, FLOPs, initialisation, and the coordinate check of the parametrisation."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import GraniteForCausalLM

from kdlaws.lab import heads, students
from kdlaws.lab.kernels import BLOCK, MIN_ELEMENTS
from kdlaws.lab.streams import Batch
from kdlaws.shapes import MICRO_SIZES, NAMED_SIZES, Shape, shape


def next_token_loss(model: GraniteForCausalLM, ids_bt: Tensor, labels_bt: Tensor) -> Tensor:
    _, given_bme = heads.states(model, Batch(ids_bt, labels_bt))
    return heads.loss(heads.head(model), given_bme, labels_bt)


@pytest.mark.parametrize("size", [*MICRO_SIZES, *NAMED_SIZES])
def test_counts_are_those_of_the_built_model(size: str) -> None:
    each = shape(size)
    with torch.device("meta"):
        model = GraniteForCausalLM(students.granite_config(each))
    assert sum(weight.numel() for weight in model.parameters()) == each.n_params
    assert model.lm_head.weight.numel() == each.n_params_head


@pytest.mark.parametrize("size", ["32/1", "96/3", "2M"])
def test_forward_flops_are_those_that_torch_counts(
    size: str, new_flop_counter: Callable[[], FlopCounterMode]
) -> None:
    """The counter sees matrix products only, and the full square of attention, not the half."""
    each = shape(size, n_vocab=512, n_ctx=64)
    model = students.build(each, seed=0)
    ids = torch.zeros(2, each.n_ctx, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), new_flop_counter() as counter:
        heads.logits(model, Batch(ids, ids))
    counted = counter.get_total_flops() / ids.numel()
    causal_half = 2 * each.n_layers * each.n_ctx * each.d_model
    gains = 2 * each.n_params_vectors
    assert counted == each.forward_flops_per_token + causal_half - gains


def test_training_flops_are_those_that_torch_counts(
    new_flop_counter: Callable[[], FlopCounterMode],
) -> None:
    """Of our own norms, attention and fused loss too: four sequences are enough to be worth them.

    One block of queries, so that attention is still the full square.
    """
    each = shape("64/2", n_vocab=512, n_ctx=BLOCK)
    model = students.build(each, seed=0)
    ids = torch.zeros(4, each.n_ctx, dtype=torch.long)
    assert ids.numel() * each.d_model >= MIN_ELEMENTS
    with sdpa_kernel(SDPBackend.MATH), new_flop_counter() as counter:
        torch.autograd.backward(next_token_loss(model, ids, ids))
    counted = counter.get_total_flops() / ids.numel()
    unseen = 3 * (2 * each.n_layers * each.n_ctx * each.d_model - 2 * each.n_params_vectors)
    assert counted == pytest.approx(each.training_flops_per_token + unseen, rel=1e-3)


def test_initial_weights_have_the_stated_deviations() -> None:
    each = shape("128/4")
    for name, weight in students.build(each, seed=0).named_parameters():
        deviation = float(weight.detach().std())
        if students.is_gain(name):
            assert (weight == 1).all()
        elif students.is_embedding(name):
            assert deviation == pytest.approx(0.02, rel=0.02)
        else:
            assert deviation == pytest.approx(weight.shape[1] ** -0.5, rel=0.05)


def test_initial_weights_are_a_pure_function_of_shape_and_seed() -> None:
    each = shape("32/1")
    torch.manual_seed(1)
    first = students.build(each, seed=3).state_dict()
    torch.manual_seed(2)
    again, other = students.build(each, seed=3).state_dict(), students.build(each, 4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_attention_is_scaled_by_the_head_not_by_the_librarys_default() -> None:
    config = students.granite_config(shape("64/2"))
    assert config.attention_multiplier == pytest.approx(1 / math.sqrt(32))


def test_forward_gives_the_librarys_logits() -> None:
    model = students.build(shape("64/2"), seed=0)
    ids = torch.arange(24).view(2, 12)
    logits_btv = heads.logits(model, Batch(ids, ids))
    torch.testing.assert_close(logits_btv, model(ids).logits)


def test_the_embedding_map_is_a_group_with_its_own_rate_and_no_decay() -> None:
    each = shape("128/4")
    learned = students.new_map(each, n_components=150)
    group = students.map_group(learned, each, rate=0.02)
    assert learned.weight.shape == (150, 128)
    assert float(learned.weight.detach().abs().max()) == 0
    assert (group["peak"], group["weight_decay"]) == (0.02 / 4, 0.0)


# -- the coordinate check (Yang et al. 2022, 2203.03466, appendix D.1) ---------------------------
#
# After some Adam steps, how much each block's output and the logits have changed must not depend
# on width or depth. The batch is small beside the narrowest width, since the limit is that of
# width growing at a fixed batch: with many tokens the part that differs from token to token,
# which falls as 1/sqrt(d), hides the part that they share.

RATE, N_BATCHES = 0.02, 6
Make = Callable[[Shape], tuple[GraniteForCausalLM, torch.optim.Optimizer]]


def mup(each: Shape) -> tuple[GraniteForCausalLM, torch.optim.Optimizer]:
    model = students.build(each, seed=0)
    groups = students.parameter_groups(model.named_parameters(), each, RATE, weight_decay=0.0)
    for group in groups:
        group["lr"] = group["peak"]
    return model, torch.optim.AdamW(groups, betas=students.BETAS, eps=students.EPS)


def standard(each: Shape) -> tuple[GraniteForCausalLM, torch.optim.Optimizer]:
    """The same shapes as the library makes them: one deviation, one rate, no multipliers."""
    config = students.granite_config(each)
    config.residual_multiplier = config.embedding_multiplier = config.logits_scaling = 1.0
    torch.manual_seed(0)
    model = GraniteForCausalLM(config)
    return model, torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)


def changes(make: Make, each: Shape, n_steps: int, batch: int) -> dict[str, float]:
    """RMS of the change of every block's output and of the logits after some Adam steps."""
    model, optimiser = make(each)
    generator = torch.Generator().manual_seed(batch)
    ids = torch.randint(0, each.n_vocab, (1, 9), generator=generator)
    before = coordinates(model, ids[:, :-1])
    for _ in range(n_steps):
        optimiser.zero_grad()
        torch.autograd.backward(next_token_loss(model, ids[:, :-1], ids[:, 1:]))
        optimiser.step()
    after = coordinates(model, ids[:, :-1])
    return {name: float((after[name] - before[name]).square().mean().sqrt()) for name in before}


def coordinates(model: GraniteForCausalLM, ids: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda _m, _i, out, name=f"block {i}": seen.update({name: out}))
        for i, block in enumerate(model.model.layers)
    ]
    with torch.no_grad():
        seen["logits"] = heads.logits(model, Batch(ids, ids))
    for hook in hooks:
        hook.remove()
    return seen


def slopes(make: Make, sizes: dict[int, Shape], n_steps: int, *, last: bool) -> dict[str, float]:
    """d log RMS / d log size of each coordinate; of blocks only the ``last``, where asked."""
    measured: dict[str, list[float]] = {}
    for each in sizes.values():
        batches = [changes(make, each, n_steps, batch) for batch in range(N_BATCHES)]
        for name in batches[0]:
            if last and name.startswith("block"):
                if name != f"block {each.n_layers - 1}":
                    continue
                key = "last block"
            else:
                key = name
            mean = sum(batch[name] for batch in batches) / N_BATCHES
            measured.setdefault(key, []).append(mean)
    log_sizes = np.log(list(sizes))
    return {name: float(np.polyfit(log_sizes, np.log(rms), 1)[0]) for name, rms in measured.items()}


def custom(d_model: int, n_layers: int) -> Shape:
    return Shape(f"{d_model}/{n_layers}", d_model, n_layers, 32, n_vocab=32, n_ctx=32)


WIDTHS = {d: custom(d, 4) for d in (32, 64, 128, 256)}
DEPTHS = {n: custom(64, n) for n in (2, 4, 8)}


@pytest.mark.parametrize("n_steps", [1, 10])
def test_changes_do_not_depend_on_width(n_steps: int) -> None:
    measured = slopes(mup, WIDTHS, n_steps, last=False)
    assert max(abs(slope) for slope in measured.values()) <= 0.15, measured


@pytest.mark.parametrize("n_steps", [1, 10])
def test_changes_do_not_depend_on_depth(n_steps: int) -> None:
    """Each block adds 1/n_layers of the change, so the last block's output is what must hold."""
    measured = slopes(mup, DEPTHS, n_steps, last=True)
    assert max(abs(slope) for slope in measured.values()) <= 0.15, measured


@pytest.mark.parametrize("n_steps", [1, 10])
def test_in_the_standard_parametrisation_they_do(n_steps: int) -> None:
    """The check can fail: as the library makes them, the change of every block grows with width."""
    measured = slopes(standard, WIDTHS, n_steps, last=False)
    assert min(abs(slope) for slope in measured.values()) > 0.3, measured
