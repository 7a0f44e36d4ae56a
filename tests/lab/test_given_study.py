"""A study whose teacher was trained by others: a Llama in a local folder, from end to end."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from kdlaws import advice
from kdlaws.config import Study, load_study
from kdlaws.errors import ArtefactError
from kdlaws.lab.cache_verify import verify
from kdlaws.lab.corpus import Document
from kdlaws.lab.evaluate import evaluate
from kdlaws.lab.progress import Reporter
from kdlaws.lab.sweep import cache_specs, plan_study, train
from kdlaws.lab.teachers import load_teacher
from kdlaws.lab.tokens import Text, train_tokenizer
from kdlaws.tables import read_table

N_VOCAB, N_CTX = 300, 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> Path:
    """Random weights, a chat's turn as its end of text, grouped heads, padding rows."""
    folder = tmp_path_factory.mktemp("given") / "A Llama"
    text = "".join(file.read_text() for file in sorted(corpus_folder.glob("*.txt")))
    tokenizer = train_tokenizer([Document("all", text)], N_VOCAB)
    specials = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=N_VOCAB + 2 + 20,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path, model: Path) -> Study:
    folder = tmp_path_factory.mktemp("study")
    file = folder / "study.yaml"
    file.write_text(
        f"""
name: given
folder: {folder / "runs"}
n_ctx: {N_CTX}
corpus: {{source: {corpus_folder}, validation_share: 0.1, test_share: 0.1, slice_tokens: 4k,
          validation_tokens: 512, test_tokens: 1024}}
teachers: {{llama: {{model: {model}, n_tokens: 1B, heldout: "no"}}}}
epochs: {{0.25: [2], 1.0: [1]}}
optimiser: {{batch_tokens: 64}}
students:
  - sizes: [32/1, 64/2]
    methods: [scratch, token, embedding]
    teachers: llama
    fractions: [0.25, 1]
"""
    )
    study = load_study(file)
    train(study, Reporter("train"))
    evaluate(study, Reporter("evaluate"))
    return study


def test_the_teachers_row_is_what_is_known_of_it(study: Study, model: Path) -> None:
    table = read_table(study.folder / "table.csv").frame
    [teacher] = table[table["role"] == "teacher"].to_dict("records")
    stock = AutoModelForCausalLM.from_pretrained(model)
    assert teacher["n_params"] == stock.num_parameters()
    assert teacher["n_params_non_embedding"] == sum(
        p.numel() for n, p in stock.model.named_parameters() if "embed_tokens" not in n
    )
    assert (teacher["init"], teacher["n_tokens"], teacher["method"]) == ("given", 1e9, None)
    assert teacher["run_id"].startswith("llama-")


def test_its_cross_entropy_is_that_of_a_plain_loop_without_padding_rows(
    study: Study, model: Path
) -> None:
    table = read_table(study.folder / "table.csv").frame
    stock = AutoModelForCausalLM.from_pretrained(model).eval()
    batch = Text(study).stream("test").batch(np.arange(1024 // N_CTX), N_CTX)
    with torch.no_grad():
        logits = stock(input_ids=batch.inputs_bt).logits[..., : N_VOCAB + 2]
    expected = float(F.cross_entropy(logits.flatten(0, 1), batch.labels_bm.flatten()))
    students = table[table["method"].isin(["token", "embedding"])]
    np.testing.assert_allclose(students["teacher_cross_entropy"], expected, atol=1e-4)
    own = table[table["role"] == "teacher"]["cross_entropy"]
    assert float(own.iloc[0]) == pytest.approx(expected, abs=1e-4)


def test_its_tokenizer_is_the_studys_with_the_text_ended_by_the_end_of_text(study: Study) -> None:
    text = Text(study)
    assert len(text.tokenizer) == N_VOCAB + 2
    assert text.tokenizer.eos_token == "<|endoftext|>"
    ids = np.array(text.stream("student").ids)
    assert (ids == text.tokenizer.convert_tokens_to_ids("<|endoftext|>")).sum() > 10
    assert not (ids == text.tokenizer.convert_tokens_to_ids("<|im_end|>")).any()


def test_costs_are_those_of_the_teacher(study: Study) -> None:
    table = read_table(study.folder / "table.csv").frame
    [teacher] = table[table["role"] == "teacher"].to_dict("records")
    token = table[(table["method"] == "token") & (table["fraction"] == 1)]
    forward = teacher["forward_flops_per_token"]
    np.testing.assert_allclose(token["teacher_training_flops"], 3 * forward * 1e9)
    np.testing.assert_allclose(token["teacher_inference_flops"], forward * token["n_unique_tokens"])
    assert set(table["teacher_heldout"].dropna()) == {"no"}


def test_its_stored_outputs_are_verified(study: Study) -> None:
    [spec] = cache_specs(study)
    found = verify(study.folder / "cache" / spec.name, spec)
    assert found.problems == ()
    assert found.n_windows_read_again > 0


def test_the_report_warns_that_it_may_have_read_the_test_text(study: Study) -> None:
    page = advice.build_report(study.folder).read_text()
    assert "held out: no" in page
    assert len(advice.summary(study.folder).splitlines()) == 10


def test_other_weights_in_its_folder_are_noticed(study: Study, model: Path) -> None:
    facts = plan_study(study, Text(study)).teachers["llama"]
    stock = AutoModelForCausalLM.from_pretrained(model)
    weights = (model / "model.safetensors").read_bytes()
    with torch.no_grad():
        stock.lm_head.weight.mul_(2)
    stock.save_pretrained(model)
    try:
        with pytest.raises(ArtefactError, match="have changed since the study was planned"):
            load_teacher(facts)
    finally:
        (model / "model.safetensors").write_bytes(weights)
