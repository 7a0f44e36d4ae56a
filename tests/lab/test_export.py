"""Saved models and their cards, read by other programs: transformers, and the Hub's own parser."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kdlaws.errors import ArtefactError
from kdlaws.lab import students
from kdlaws.lab.export import model_card, rewrite_card, save_model
from kdlaws.records import write_json
from kdlaws.shapes import Objective, shape

RECORD: dict[str, Any] = {
    "run_id": "token-32x1-s0-e1-12345678",
    "study": "tiny",
    "role": "student",
    "objective": "causal",
    "method": "token",
    "teacher": "teacher-64x2-s0-87654321",
    "teacher_n_params": 116_800,
    "teacher_n_params_non_embedding": 97_600,
    "corpus": "sotu-b10004e2",
    "tokenizer": "bpe-300-48d547ab",
    "n_params": 22_240,
    "n_params_non_embedding": 12_640,
    "n_params_head": 9_600,
    "n_tokens": 89_984,
    "n_unique_tokens": 44_992,
    "epochs": 2.0,
    "n_ctx": 32,
    "student_flops": 6.7e10,
    "teacher_inference_flops": 2.2e10,
    "teacher_training_flops": None,
    "cache_saved_flops": 2.2e10,
    "forward_flops_per_token": 249_984,
    "validation_cross_entropy": 2.7,
}
EVALUATION = {"cross_entropy": 2.5, "cross_entropy_se": 0.0125, "teacher_cross_entropy": 2.25}
SCRATCH = dict.fromkeys(("teacher", "teacher_n_params", "teacher_n_params_non_embedding"))


def tokenizer_for(objective: Objective) -> PreTrainedTokenizerFast:
    """Every byte a token, and special tokens before them."""
    names = {"eos_token": "<|endoftext|>"}
    if objective == "masked":
        names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    entries = [*names.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({each: i for i, each in enumerate(entries)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def student(objective: Objective) -> PreTrainedModel:
    return students.build(shape("32/1", n_vocab=300, n_ctx=32, objective=objective), seed=0)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("objective", "loaded_by"), [("causal", AutoModelForCausalLM), ("masked", AutoModelForMaskedLM)]
)
def test_a_saved_model_is_the_model(
    objective: Objective, loaded_by: Any, dtype: str, tmp_path: Path
) -> None:
    model = student(objective).eval()
    run = RECORD | {"objective": objective}
    save_model(model, tokenizer_for(objective), tmp_path / "model", run, dtype)
    loaded = loaded_by.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    ids = torch.arange(16)[None]
    with torch.inference_mode():
        logits, expected = loaded(ids).logits, model(ids).logits
    tolerance = 1e-6 if dtype == "float32" else 1e-2  # ten bits of mantissa
    torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance)
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_the_code_of_a_card_runs(
    objective: Objective, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RECORD | {"objective": objective}
    save_model(student(objective), tokenizer_for(objective), tmp_path / "model", run, "float32")
    card = (tmp_path / "model" / "README.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) == {"transformers"}
    exec(code, {"folder": tmp_path / "model"})
    assert capsys.readouterr().out.strip()


def test_the_head_is_what_the_hub_reads() -> None:
    head = ModelCard(model_card(RECORD | {"teacher_model": "owner/big"})).data
    assert head.library_name == "transformers"
    assert head.pipeline_tag == "text-generation"
    assert head.base_model == "owner/big"
    assert head.tags == ["kdlaws", "scaling-laws", "knowledge-distillation"]


def test_a_masked_student_from_scratch_has_no_base_and_fills_masks() -> None:
    card = ModelCard(model_card(RECORD | SCRATCH | {"objective": "masked", "method": "scratch"}))
    assert card.data.pipeline_tag == "fill-mask"
    assert card.data.base_model is None
    assert card.data.tags == ["kdlaws", "scaling-laws"]
    assert "trained from scratch" in card.text
    assert "AutoModelForMaskedLM" in card.text
    assert "perplexity per masked token: 14.88" in card.text  # exp 2.7
    assert "teacher's card" not in card.text


def test_a_card_says_what_the_run_read_and_cost() -> None:
    card = ModelCard(model_card(RECORD)).text
    assert "22,240 in total, 12,640 non-embedding, 9,600 in the head" in card
    assert "89,984 tokens of `sotu-b10004e2`, 44,992 of them unique (epochs: 2)" in card
    assert (
        "FLOPs: student 6.7e+10, teacher inference 2.2e+10, teacher training unknown, "
        "cache saved 2.2e+10" in card
    )
    assert "116,800 parameters, 97,600 non-embedding" in card


@pytest.mark.parametrize(
    ("corpus", "licence"),
    [
        ("sotu-b10004e2", "public-domain"),
        ("wikitext-2-00000000", "CC BY-SA 3.0 and GFDL"),
        ("wikitext-103-00000000", "CC BY-SA 3.0 and GFDL"),
        ("mine.txt-00000000", "not known"),
    ],
)
def test_the_licence_is_the_corpuss(corpus: str, licence: str) -> None:
    section = model_card(RECORD | {"corpus": corpus}).partition("## Licence")[2]
    assert licence in section
    assert "see the teacher's card" in section


def test_a_card_is_written_again_when_the_run_is_evaluated(tmp_path: Path) -> None:
    write_json(tmp_path / "record.json", RECORD)
    rewrite_card(tmp_path)
    file = tmp_path / "model" / "README.md"
    assert "validation split: 2.7000 nats per token; the test split has not" in file.read_text()
    write_json(tmp_path / "evaluation.json", EVALUATION)
    rewrite_card(tmp_path)
    card = ModelCard(file.read_text()).text
    assert "test split: 2.5000 nats per token (standard error 0.0125)" in card
    assert "perplexity per token: 12.18" in card  # exp 2.5
    assert "its teacher's, on the same text: 2.2500" in card
    assert "validation" not in card


def test_without_a_record_there_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"record\.json"):
        rewrite_card(tmp_path)


def test_special_tokens_are_in_the_configuration(tmp_path: Path) -> None:
    save_model(student("causal"), tokenizer_for("causal"), tmp_path / "c", RECORD, "float32")
    generation = json.loads((tmp_path / "c" / "generation_config.json").read_text())
    assert (generation["bos_token_id"], generation["eos_token_id"]) == (0, 0)
    masked = tokenizer_for("masked")
    run = RECORD | {"objective": "masked"}
    save_model(student("masked"), masked, tmp_path / "m", run, "float32")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["pad_token_id"] == masked.pad_token_id == 0
