"""The command line of models: one checkpoint scored, joined to a table, exported."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from kdlaws import cli
from kdlaws.lab import onnx_export
from kdlaws.tables import read_table

SIZES: dict[str, Any] = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    out, err = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), out, err


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "people.txt").write_text("We the people. " * 20)
    return str(tmp_path / "people.txt")


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A GPT-2 of 257 entries, bytes and the end of text, all of them equally likely."""
    entries = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({each: i for i, each in enumerate(entries)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=257, **SIZES, tie_word_embeddings=False))
    torch.nn.init.zeros_(gpt2.lm_head.weight)
    gpt2.save_pretrained(tmp_path / "flat")
    names = {"bos_token": entries[0], "eos_token": entries[0]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.save_pretrained(tmp_path / "flat")
    return str(tmp_path / "flat")


def test_a_checkpoint_joins_a_table(
    capsys: pytest.CaptureFixture[str], model: str, text: str, tmp_path: Path
) -> None:
    table = str(tmp_path / "table.csv")
    arguments = ("evaluate", "--model", model, "--text", text, "--append", table)
    code, out, err = run(capsys, *arguments, "--n-tokens", "2M", "--json")
    document = json.loads(out)
    assert (code, list(document)[:2]) == (0, ["schema", "kdlaws"]), err
    assert document["cross_entropy"] == pytest.approx(math.log(257))
    assert document["bits_per_byte"] == pytest.approx(math.log2(257))
    assert (document["table"], document["device"], document["n_ctx"]) == (table, "cpu", 32)
    code, out, _ = run(capsys, *arguments, "--method", "token", "--role", "teacher")
    assert code == 0
    assert "5.5491 nats per token" in out
    assert f"its row is in {table}" in out
    (row,) = read_table(Path(table)).frame.to_dict("records")
    assert (row["run_id"], row["study"]) == (document["run_id"], "elsewhere")
    assert (row["role"], row["method"], row["status"]) == ("teacher", "token", "done")
    assert math.isnan(row["n_tokens"])


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"--text": None}, ["--model", "give --text FILE"]),
        ({"--model": None}, ["--text is of one model", "--model FOLDER_OR_ID"]),
        ({"--model": "no/such/folder"}, ["--model", "no/such/folder"]),
        ({"--text": "nowhere.txt"}, ["nowhere.txt", "no such file"]),
        ({"--n-tokens": "many"}, ["--n-tokens", "'many'"]),
        ({"--n-ctx": "64"}, ["reads 32 tokens at once"]),
        ({"--append": "table.parquet"}, ["not a .csv"]),
    ],
)
def test_what_cannot_be_scored_ends_with_2_and_one_message(
    capsys: pytest.CaptureFixture[str],
    model: str,
    text: str,
    changes: dict[str, str | None],
    parts: list[str],
) -> None:
    options = {"--model": model, "--text": text} | changes
    given = [word for name, value in options.items() if value for word in (name, value)]
    code, out, err = run(capsys, "evaluate", *given)
    assert (code, out) == (2, "")
    assert err.count("error:") == 1
    assert all(part in err for part in parts), err


def test_pseudo_perplexity_is_of_masked_models(
    capsys: pytest.CaptureFixture[str], model: str, text: str
) -> None:
    arguments = ("--model", model, "--text", text, "--pseudo-perplexity")
    code, _, err = run(capsys, "evaluate", *arguments)
    assert code == 2
    assert "masked models" in err


def test_what_was_exported_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = onnx_export.Exported(("input_ids",), 16, 2.0, 1.0, 3e-6, 1.25, 1.5, 4.0, 4.5)
    monkeypatch.setattr(onnx_export, "export", lambda *_: made)
    code, out, err = run(capsys, "export", "flat", "--onnx", "flat.onnx")
    assert (code, err) == (0, "")
    assert "flat.onnx: input_ids to logits, any batch, up to 16 tokens" in out
    assert "3e-06 at most" in out
    assert "1.25 ms (p95 1.50) in onnxruntime, 4.00 (4.50) in torch" in out
    _, out, _ = run(capsys, "export", "flat", "--onnx", "flat.onnx", "--json")
    document = json.loads(out)
    assert (document["file"], document["largest_difference"]) == ("flat.onnx", 3e-6)


def test_exporting_what_is_no_model_ends_with_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: name)
    code, out, err = run(capsys, "export", str(tmp_path), "--onnx", str(tmp_path / "a.onnx"))
    assert (code, out) == (2, "")
    assert err.count("error:") == 1
