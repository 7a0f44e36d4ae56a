"""Any model's states and head against the stock model's own logits."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from kdlaws.errors import ConfigError
from kdlaws.lab import heads
from kdlaws.lab.headless import load_given
from kdlaws.lab.streams import Batch
from kdlaws.shapes import Objective

N_VOCAB = 96
SMALL: dict[str, Any] = {
    "vocab_size": N_VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}


def make(name: str, **changes: object) -> PreTrainedModel:
    """A random model of the class ``name``, small enough for a test, with weights of order one."""
    model_class = getattr(transformers, name)
    torch.manual_seed(0)
    model: PreTrainedModel = model_class(model_class.config_class(**{**SMALL, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            # As drawn, biases are zero and logits all but equal: nothing would show.
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def save(folder: Path, name: str, **changes: object) -> Path:
    make(name, **changes).save_pretrained(folder)
    return folder


MASKED: dict[str, dict[str, object]] = {
    "BertForMaskedLM": {"vocab_size": N_VOCAB + 8},
    "RobertaForMaskedLM": {},
    "DistilBertForMaskedLM": {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
    "AlbertForMaskedLM": {"embedding_size": 16},
    "ElectraForMaskedLM": {"embedding_size": 16},
    "ModernBertForMaskedLM": {"pad_token_id": 0, "local_attention": 8},
}
CAUSAL: dict[str, dict[str, object]] = {
    "LlamaForCausalLM": {"num_key_value_heads": 2},
    "GPT2LMHeadModel": {},
    "GPTNeoXForCausalLM": {},
    "OPTForCausalLM": {"word_embed_proj_dim": 16, "ffn_dim": 48, "pad_token_id": 1},
    "Qwen2ForCausalLM": {"vocab_size": N_VOCAB + 32, "num_key_value_heads": 2},
    "GraniteForCausalLM": {"logits_scaling": 3.0, "embedding_multiplier": 2.0},
    "CohereForCausalLM": {"logit_scale": 0.25, "pad_token_id": 0},
}


@pytest.mark.parametrize("name", [*MASKED, *CAUSAL])
def test_states_and_head_are_the_stock_model(name: str, tmp_path: Path) -> None:
    objective: Objective = "masked" if name in MASKED else "causal"
    folder = save(tmp_path, name, **(MASKED | CAUSAL)[name])
    inputs_bt = torch.randint(2, N_VOCAB, (3, 24), generator=torch.manual_seed(1))
    stock = getattr(transformers, name).from_pretrained(folder).eval()
    with torch.no_grad():
        expected = stock(input_ids=inputs_bt, output_hidden_states=True)
        model = load_given(folder, objective, N_VOCAB)
        hidden_btd, given_bte = model(inputs_bt)
    logits_btv = model.head.logits(given_bte.flatten(0, 1)).unflatten(0, (3, 24))
    expected_btv = expected.logits[..., :N_VOCAB]
    torch.testing.assert_close(logits_btv, expected_btv, rtol=1e-4, atol=1e-4)
    assert logits_btv.std() > 0.1
    assert hidden_btd.shape[:2] == (3, 24)
    if name != "OPTForCausalLM":  # lists its states before the projection that ends it
        torch.testing.assert_close(hidden_btd, expected.hidden_states[-1], rtol=1e-4, atol=1e-4)
    assert not logits_btv.requires_grad
    assert not model._seen


def test_logits_are_made_only_where_there_is_a_label(tmp_path: Path) -> None:
    folder = save(tmp_path, "BertForMaskedLM")
    model = load_given(folder, "masked", N_VOCAB)
    inputs_bt = torch.arange(24).view(2, 12)
    places_bm = torch.tensor([[1, 5], [0, 11]])
    batch = Batch(inputs_bt, labels_bm=torch.zeros(2, 2, dtype=torch.long), places_bm=places_bm)
    stock = transformers.BertForMaskedLM.from_pretrained(folder).eval()
    with torch.no_grad():
        expected_btv = stock(input_ids=inputs_bt).logits
        logits_bmv = heads.logits(model, batch)
    assert logits_bmv.shape == (2, 2, N_VOCAB)
    torch.testing.assert_close(logits_bmv[1, 1], expected_btv[1, 11], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits_bmv[0, 0], expected_btv[0, 1], rtol=1e-4, atol=1e-4)


def test_a_tied_matrix_stays_one(tmp_path: Path) -> None:
    model = load_given(save(tmp_path, "GPT2LMHeadModel"), "causal", N_VOCAB)
    weight = model.to(torch.float64).head.weight_vd
    assert weight.data_ptr() == model.stock.get_input_embeddings().weight.data_ptr()
    assert weight.dtype == torch.float64


def test_half_precision_is_read_in_single(tmp_path: Path) -> None:
    make("LlamaForCausalLM").to(torch.bfloat16).save_pretrained(tmp_path)
    model = load_given(tmp_path, "causal", N_VOCAB)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def unnamed(folder: Path) -> Path:
    """A configuration that does not say which class was saved."""
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("make_it", "objective", "message"),
    [
        (lambda f: save(f, "Gemma2ForCausalLM", head_dim=8), "causal", "final_logit_softcapping"),
        (lambda f: save(f, "BertModel"), "masked", "saved as BertModel, without"),
        (lambda f: unnamed(save(f, "BertModel")), "masked", "no weights for 6 of the parameters"),
        (lambda f: unnamed(save(f, "LlamaModel")), "causal", "no weights for 1 of the parameters"),
        (lambda f: save(f, "BertForMaskedLM"), "causal", "predicts masked tokens"),
        (lambda f: save(f, "LlamaForCausalLM"), "masked", "does not predict masked tokens"),
        (
            lambda f: save(f, "BartForConditionalGeneration", d_model=32),
            "masked",
            "an encoder with a decoder",
        ),
    ],
)
def test_refusals(
    make_it: Callable[[Path], Path], objective: Objective, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load_given(make_it(tmp_path), objective, N_VOCAB)
    assert raised.value.remedy
    assert raised.value.exit_code == 2


def test_a_refusal_is_one_message(tmp_path: Path) -> None:
    level, told = transformers.logging.get_verbosity(), []
    handler = logging.Handler()
    handler.emit = told.append  # type: ignore[method-assign]
    transformers.logging.add_handler(handler)
    unnamed(save(tmp_path, "BertModel"))
    with pytest.raises(ConfigError, match="no weights for"):
        load_given(tmp_path, "masked", N_VOCAB)
    transformers.logging.remove_handler(handler)
    assert not told
    assert transformers.logging.get_verbosity() == level


def test_logits_that_are_changed_afterwards_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path, "LlamaForCausalLM")
    forward = transformers.LlamaForCausalLM.forward

    def shifted(self: PreTrainedModel, **inputs: object) -> Any:
        output = forward(self, **inputs)
        output.logits = output.logits + 0.01 * output.logits.square()
        return output

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", shifted)
    with pytest.raises(ConfigError, match="not a linear map"):
        load_given(folder, "causal", N_VOCAB)


def test_a_causal_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, "Gemma3ForCausalLM", head_dim=8, use_bidirectional_attention=True)
    with pytest.raises(ConfigError, match="sees the tokens after a position"):
        load_given(folder, "causal", N_VOCAB)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    weights = save(tmp_path, "LlamaForCausalLM") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="cannot be read"):
        load_given(tmp_path, "causal", N_VOCAB)
