"""The accelerated backbone against the stock one, in double precision where rounding would hide."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, GraniteForCausalLM
from transformers.models.granite import modeling_granite as granite

from kdlaws.lab import students
from kdlaws.lab.kernels import accelerate, hidden_states, matmul_nt
from kdlaws.shapes import shape

Forward = Callable[[Any, Tensor], Tensor]


def stock(size: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model: Any = GraniteForCausalLM(students.granite_config(shape(size, n_vocab=64, n_ctx=256)))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if students.is_gain(name):
                weight.uniform_(0.5, 1.5)
    return model.to(dtype)


def accelerated(model: Any) -> Any:
    copy: Any = type(model)(model.config)
    copy.to(model.dtype)
    copy.load_state_dict(model.state_dict())
    accelerate(copy)
    return copy


def ids(b: int, t: int) -> Tensor:
    return torch.randint(64, (b, t), generator=torch.Generator().manual_seed(1))


def library_forward(model: Any, inputs_bt: Tensor) -> Tensor:
    last_hidden: Tensor = model.base_model(input_ids=inputs_bt, use_cache=False).last_hidden_state
    return last_hidden


def results(model: Any, forward: Forward, inputs_bt: Tensor) -> dict[str, Tensor]:
    """The output, and the gradient of every weight of the backbone for one random direction."""
    model.zero_grad()
    hidden_btd = forward(model, inputs_bt)
    generator = torch.Generator().manual_seed(2)
    direction_btd = torch.randn(hidden_btd.shape, generator=generator, dtype=torch.float64)
    torch.autograd.backward(hidden_btd, direction_btd.to(hidden_btd.dtype))
    grads = {
        name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }
    return {"output": hidden_btd.detach()} | grads


def exact_norm(self: Any, x: Tensor) -> Tensor:
    """The library's norm, without its detour through single precision."""
    inverse = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    weighted: Tensor = self.weight * x * inverse
    return weighted


def refuse(*_: object, **__: object) -> None:
    pytest.fail("the stock module ran")


@pytest.mark.parametrize(("b", "t"), [(3, 64), (2, 100), (1, 200)])
@pytest.mark.parametrize("forward", [hidden_states, library_forward])
def test_output_and_gradients_are_the_stock_models(
    monkeypatch: pytest.MonkeyPatch, b: int, t: int, forward: Forward
) -> None:
    model = stock("96/2", torch.float64)
    monkeypatch.setattr(granite.GraniteRMSNorm, "forward", exact_norm)
    expected = results(model, library_forward, ids(b, t))
    monkeypatch.setattr(granite.GraniteRMSNorm, "forward", refuse)
    monkeypatch.setattr(granite.GraniteAttention, "forward", refuse)
    found = results(accelerated(model), forward, ids(b, t))
    assert len(expected) == 2 + 2 * 9 + 1
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_single_precision_is_as_exact_as_the_stock_models(monkeypatch: pytest.MonkeyPatch) -> None:
    model = stock("128/2")
    found = results(accelerated(model), hidden_states, ids(2, 128))
    rounded = results(model, library_forward, ids(2, 128))
    monkeypatch.setattr(granite.GraniteRMSNorm, "forward", exact_norm)
    exact = results(model.double(), library_forward, ids(2, 128))
    for name, truth in exact.items():
        error, allowed = ((each[name] - truth).norm() for each in (found, rounded))
        assert error < 2 * allowed + 1e-7 * truth.norm(), name


@pytest.mark.parametrize(("b", "t"), [(1, 1), (2, 8), (1, 600)])
def test_sequences_too_long_or_few_for_our_kernels_run_too(
    monkeypatch: pytest.MonkeyPatch, b: int, t: int
) -> None:
    monkeypatch.setattr(granite.GraniteRMSNorm, "forward", exact_norm)
    model = stock("32/1", torch.float64)
    expected = results(model, library_forward, ids(b, t))
    found = results(accelerated(model), hidden_states, ids(b, t))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_padding_and_caches_work_as_before() -> None:
    model = stock("96/2").eval()
    ours = accelerated(model).eval()
    mask_bt = torch.ones(2, 100, dtype=torch.long)
    mask_bt[0, :30] = 0
    batch = {"input_ids": ids(2, 100), "attention_mask": mask_bt}
    with torch.inference_mode():
        visible = mask_bt.bool()
        logits = (each(**batch).logits[visible] for each in (ours, model))
        torch.testing.assert_close(*logits)
        written = (each.generate(**batch, max_new_tokens=8) for each in (ours, model))
        assert torch.equal(*written)


def test_a_step_gives_the_same_bits_again() -> None:
    first, again = (results(accelerated(stock("128/2")), hidden_states, ids(2, 128)) for _ in "ab")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_training_goes_on_after_inference_mode() -> None:
    ours = accelerated(stock("96/2"))
    with torch.inference_mode():
        before = hidden_states(ours, ids(2, 100))
    found = results(ours, hidden_states, ids(2, 100))
    torch.testing.assert_close(found["output"], before)


def test_autocast_is_the_stock_models() -> None:
    model = stock("128/2")
    with torch.autocast("cpu", torch.bfloat16):
        expected = results(model, library_forward, ids(2, 128))
        found = results(accelerated(model), hidden_states, ids(2, 128))
    torch.testing.assert_close(found, expected)


def test_names_weights_and_saved_folder_stay(tmp_path: Path) -> None:
    model, ours = stock("64/2"), stock("64/2")
    weights = dict(ours.named_parameters())
    accelerate(ours)
    assert list(ours.state_dict()) == list(model.state_dict())
    assert all(weights[name] is weight for name, weight in ours.named_parameters())
    for each, folder in ((model, "stock"), (ours, "ours")):
        each.save_pretrained(tmp_path / folder)
    for file in ("config.json", "model.safetensors"):
        saved = [(tmp_path / folder / file).read_bytes() for folder in ("stock", "ours")]
        assert saved[0] == saved[1]
    loaded = GraniteForCausalLM.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_bert_keeps_its_results() -> None:
    config = BertConfig(
        vocab_size=64,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    model = BertForMaskedLM(config)
    ours = accelerated(model)
    expected = results(model, library_forward, ids(2, 128))
    for forward in (hidden_states, library_forward):
        found = results(ours, forward, ids(2, 128))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours(ids(2, 128)).logits, model(ids(2, 128)).logits)


@pytest.mark.parametrize(
    ("m", "n", "k"), [(3, 5, 7), (256, 160, 424), (1024, 64, 256), (64, 1024, 256)]
)
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_products_are_the_exact_ones(m: int, n: int, k: int, transposed: tuple[bool, bool]) -> None:
    generator = torch.Generator().manual_seed(0)
    a_mk, b_nk = (torch.randn(rows, k, generator=generator) for rows in (m, n))
    exact_mn = a_mk.double() @ b_nk.double().t()
    a_mk, b_nk = (
        each.t().contiguous().t() if turned else each
        for each, turned in zip((a_mk, b_nk), transposed, strict=True)
    )
    product_mn = matmul_nt(a_mk, b_nk)
    assert product_mn.is_contiguous()
    torch.testing.assert_close(product_mn.double(), exact_mn, rtol=0, atol=1e-6 * k)
