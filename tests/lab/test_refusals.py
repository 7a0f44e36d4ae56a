"""Studies that cannot be: what the command says of each, and that it exits with 2."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as FastTokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kdlaws.cli import main
from kdlaws.lab.corpus import Document
from kdlaws.lab.tokens import END_OF_TEXT, train_tokenizer

N_VOCAB = 280


@pytest.fixture(scope="module")
def tokenizer(corpus_folder: Path) -> FastTokenizer:
    text = "".join(file.read_text() for file in sorted(corpus_folder.glob("*.txt")))
    return train_tokenizer([Document("all", text)], N_VOCAB)


@pytest.fixture
def teacher(tmp_path: Path, tokenizer: FastTokenizer) -> Path:
    """A Llama as its authors would publish it."""
    folder = tmp_path / "teacher"
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = LlamaConfig(vocab_size=N_VOCAB, num_attention_heads=2, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    specials = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials).save_pretrained(folder)
    return folder


@pytest.fixture
def refused(
    tmp_path: Path, corpus_folder: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What ``kdlaws train`` says of a study with that teacher."""

    def run(model: Path | str, **changes: str) -> str:
        keys = {"source": str(corpus_folder), "path": "null", "fraction": "0.5", **changes}
        file = tmp_path / "study.yaml"
        file.write_text(
            f"""
name: refused
folder: {tmp_path / "runs"}
n_ctx: 32
corpus: {{source: {keys["source"]}, validation_share: 0.1, test_share: 0.1}}
tokenizer: {{path: {keys["path"]}}}
teachers: {{given: {{model: {model}}}}}
epochs: {{{keys["fraction"]}: [1]}}
students: [{{sizes: 32/1, methods: token, teachers: given, fractions: {keys["fraction"]}}}]
"""
        )
        with pytest.raises(SystemExit) as stopped:
            main(["train", str(file)])
        assert stopped.value.code == 2
        said = capsys.readouterr()
        assert not said.out
        assert said.err.count("error:") == 1
        assert not list((tmp_path / "runs").glob("*/record.json"))
        return said.err

    return run


def test_wrong_vocabulary(teacher: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    other = train_tokenizer([Document("other", "quite another text " * 50)], 270)
    other.save(str(tmp_path / "tokenizer.json"))
    said = refused(teacher, path=str(tmp_path / "tokenizer.json"))
    assert f"{N_VOCAB} entries and the study's 270" in said
    assert "leave tokenizer.path out" in said


def test_unreachable_hub(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = refused("nobody/has-this-model")
    assert "nobody/has-this-model" in said
    assert "local folder" in said or "--local-dir" in said


def test_pickles_only(teacher: Path, refused: Callable[..., str]) -> None:
    weights = teacher / "model.safetensors"
    torch.save({}, teacher / "pytorch_model.bin")
    weights.unlink()
    said = refused(teacher)
    assert "pickles only (pytorch_model.bin)" in said
    assert "save_pretrained" in said


def test_remote_code_wanted(teacher: Path, refused: Callable[..., str]) -> None:
    config = json.loads((teacher / "config.json").read_text())
    config |= {"model_type": "homemade", "auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}
    (teacher / "config.json").write_text(json.dumps(config))
    (teacher / "modeling.py").write_text("raise SystemExit('this was run')")
    said = refused(teacher)
    assert "auto_map" in said
    assert "never run" in said


def test_corpus_too_small_for_the_fraction(teacher: Path, refused: Callable[..., str]) -> None:
    said = refused(teacher, fraction="0.001")
    assert "fraction 0.001" in said
    assert "less than one batch" in said


def test_a_folder_that_is_not_there_is_asked_for_by_name(refused: Callable[..., str]) -> None:
    said = refused("$NOT_SET_ANYWHERE/model")
    assert "NOT_SET_ANYWHERE is not set" in said
