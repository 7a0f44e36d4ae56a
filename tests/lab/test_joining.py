"""Checkpoints that join a table: exact values, and tables that must survive."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from kdlaws.config import Study
from kdlaws.errors import ConfigError, InputError, TableError
from kdlaws.lab import latency, students
from kdlaws.lab.export import save_model
from kdlaws.lab.joining import Request, append_row, evaluate_model, find_model
from kdlaws.lab.tokens import Text, tokenizer_label
from kdlaws.records import write_json
from kdlaws.selection import law_columns
from kdlaws.shapes import shape
from kdlaws.tables import COLUMNS, read_table

TEXT = "We the people. " * 20
N_BYTES = 15 * 20
NO_SPEED = dict.fromkeys(
    ("prefill_ms_p50", "prefill_ms_p95", "decode_ms_p50", "decode_ms_p95", "peak_memory_mb")
)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "people.txt"
    file.write_text(TEXT)
    return file


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "measure", lambda *_: NO_SPEED)


def byte_tokenizer(**names: str) -> PreTrainedTokenizerFast:
    """Every byte a token, and special tokens before them."""
    entries = [*names.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({each: i for i, each in enumerate(entries)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if "cls_token" in names:
        frame = [(names[each], entries.index(names[each])) for each in ("cls_token", "sep_token")]
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=frame
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 32, "max_position_embeddings": 32}


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A causal model without an opinion: every logit is 0. It has rows beyond its 257 entries."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=300, **SIZES))
    torch.nn.init.zeros_(model.lm_head.weight)
    model.save_pretrained(tmp_path / "plain")
    byte_tokenizer(eos_token="<|endoftext|>").save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=261, **SIZES, tie_word_embeddings=False))
    torch.nn.init.zeros_(model.cls.predictions.decoder.weight)
    model.save_pretrained(tmp_path / "cloze")
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    byte_tokenizer(**names).save_pretrained(tmp_path / "cloze")
    return tmp_path / "cloze"


@pytest.mark.usefixtures("untimed")
def test_a_guess_among_257_bytes_has_log2_of_257_bits_per_byte(llama: Path, text: Path) -> None:
    found = evaluate_model(Request(str(llama), text))
    assert found["bits_per_byte"] == pytest.approx(math.log2(257), rel=1e-6)
    assert found["byte_perplexity"] == pytest.approx(257, rel=1e-5)
    assert found["word_perplexity"] == pytest.approx(257 ** (N_BYTES / 61), rel=1e-4)
    assert (found["n_test_tokens"], found["n_windows"], found["n_ctx"]) == (N_BYTES, 10, 32)
    assert found["run_id"].startswith("plain-")
    assert found["corpus"].startswith("people.txt-")


@pytest.mark.usefixtures("untimed")
def test_costs_are_counted_from_the_model(llama: Path, text: Path) -> None:
    """Llama, by hand: 4 d^2 + 3 d d_ff and two norms a layer, the last norm, two matrices."""
    found = evaluate_model(Request(str(llama), text, n_tokens=1e6))
    body = 4 * 16**2 + 3 * 16 * 32 + 3 * 16
    assert found["n_params_non_embedding"] == body
    assert found["n_params"] == body + 2 * 300 * 16
    assert found["n_params_head"] == 300 * 16
    assert found["forward_flops_per_token"] == 2 * body + 2 * 32 * 16 + 2 * 300 * 16
    assert found["student_flops"] == 3e6 * found["forward_flops_per_token"]
    assert found["teacher_inference_flops"] == 0


@pytest.mark.usefixtures("untimed")
def test_a_masked_model_has_no_bits_per_byte(bert: Path, text: Path) -> None:
    found = evaluate_model(Request(str(bert), text, n_ctx=16, max_windows=2))
    assert found["objective"] == "masked"
    assert found["perplexity"] == pytest.approx(261, rel=1e-5)
    assert found["pseudo_perplexity"] == pytest.approx(261, rel=1e-5)
    assert found["n_pseudo_tokens"] == 2 * 14
    assert found["n_test_tokens"] == 2 * (N_BYTES // 14)
    assert "bits_per_byte" not in found


def test_a_model_is_timed(llama: Path, bert: Path, text: Path) -> None:
    causal = evaluate_model(Request(str(llama), text, n_ctx=16))
    assert 0 < causal["prefill_ms_p50"] <= causal["prefill_ms_p95"]
    assert 0 < causal["decode_ms_p50"] <= causal["decode_ms_p95"]
    masked = evaluate_model(Request(str(bert), text, n_ctx=16))
    assert masked["prefill_ms_p50"] > 0
    assert masked["decode_ms_p50"] is None


def test_a_run_is_found_by_its_folder_and_goes_by_its_name(
    tiny_study: Study, tmp_path: Path
) -> None:
    text = Text(tiny_study)
    model = students.build(shape("32/1", n_vocab=300, n_ctx=32), seed=0)
    record = {"run_id": "mine-12345678"}
    card = dict.fromkeys(("study", "role", "method", "corpus", "tokenizer", "teacher"), "")
    numbers = ("n_params", "n_params_non_embedding", "n_params_head", "n_tokens", "n_ctx", "epochs")
    buckets = ("student", "teacher_inference", "teacher_training", "cache_saved")
    flops = [f"{each}_flops" for each in buckets]
    amounts = (*numbers, *flops, "n_unique_tokens", "forward_flops_per_token")
    card |= record | {"objective": "causal", "validation_cross_entropy": 1.0}
    card |= dict.fromkeys(amounts, 1)
    save_model(model, text.tokenizer, tmp_path / "run" / "model", card, "float32")
    write_json(tmp_path / "run" / "record.json", record)
    found = find_model(str(tmp_path / "run"))
    assert (found.label, found.folder) == ("mine-12345678", tmp_path / "run" / "model")
    planned = text.facts(with_teachers=False).tokenizer
    assert tokenizer_label(found.tokenizer, found.objective) == planned


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_ctx": 33}, "reads 32 tokens at once"),
        ({"max_windows": 2}, "masked models"),
        ({"model": "nobody/nothing/never"}, "--model"),
    ],
)
def test_requests_that_cannot_be_met(
    llama: Path, text: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluate_model(Request(**{"model": str(llama), "text": text} | changes))


@pytest.mark.usefixtures("untimed")
def test_too_little_text_for_a_masked_sequence(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(InputError, match="too few for a sequence of 32"):
        evaluate_model(Request(str(bert), tmp_path / "short.txt"))


# -- the table -------------------------------------------------------------------------------


def row(run_id: str, cross_entropy: float = 3.0, corpus: str = "a-1") -> dict[str, Any]:
    numbers = {"n_params": 1e6, "n_params_non_embedding": 9e5, "n_tokens": 2e7}
    words = {"method": "scratch", "objective": "causal", "tokenizer": "bpe", "status": "done"}
    return {"run_id": run_id, "corpus": corpus, "cross_entropy": cross_entropy, **numbers, **words}


def test_a_row_is_in_the_contracts_columns_and_a_law_reads_it(tmp_path: Path) -> None:
    table = tmp_path / "new" / "table.csv"
    append_row(row("one") | {"word_perplexity": 7.0}, table)
    append_row(row("two", 2.5), table)
    loaded = read_table(table)
    assert list(loaded.frame) == list(COLUMNS)
    read = law_columns(loaded, ("N", "n_tokens"))
    assert read.columns["cross_entropy"].tolist() == [3.0, 2.5]


def test_the_same_run_on_the_same_text_is_replaced_never_doubled(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    for each in (row("one"), row("two"), row("one", 1 / 3), row("one", 4.0, corpus="b-2")):
        append_row(each, table)
    frame = read_table(table).frame
    assert frame["run_id"].tolist() == ["two", "one", "one"]
    assert frame["cross_entropy"].tolist() == [3.0, 1 / 3, 4.0]


def test_what_a_table_has_of_its_own_stays(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("name,n_params,selected,cross_entropy\nx,2.8B,true,2.25\n")
    append_row(row("one") | {"pseudo_perplexity": 6.5}, table)
    frame = read_table(table).frame
    assert frame["name"].tolist() == ["x", None]
    assert frame["n_params"].tolist() == [2.8e9, 1e6]
    assert frame["selected"].tolist() == [True, None]
    np.testing.assert_equal(frame["pseudo_perplexity"].tolist(), [math.nan, 6.5])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a,b\n1,2,3\n", b"a,b\n"])
def test_a_table_that_cannot_be_read_is_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(content)
    with pytest.raises(TableError):
        append_row(row("one"), table)
    assert table.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["table.csv"]


def test_only_a_csv_file_is_added_to(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a \.csv"):
        append_row(row("one"), tmp_path / "table.parquet")
