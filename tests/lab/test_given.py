"""Models from elsewhere: published counts, refusals, identities, tokenizers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import (
    BertConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from kdlaws import cli
from kdlaws.errors import ConfigError
from kdlaws.lab import given
from kdlaws.lab.headless import load_given
from kdlaws.shapes import Objective, Shape

WHERE = "teachers.big.model"

SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
)


def word_tokenizer(*words: str) -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(words)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token=words[0]))
    )


def described(folder: Path, config: PreTrainedConfig, objective: Objective) -> given.GivenFacts:
    """Facts of a folder with that config, and weights that nobody reads."""
    config.save_pretrained(folder)
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    found = given.find(WHERE, str(folder), None, None, folder / "imports")
    return given.describe(WHERE, found, objective, n_vocab=config.vocab_size, n_targets=20)


def small_llama(folder: Path, **changes: object) -> LlamaForCausalLM:
    settings: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**(settings | changes)))
    model.save_pretrained(folder)
    return model


# -- counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "objective", "n_params", "n_params_head", "n_params_non_embedding", "n_ctx"),
    [
        # The published totals; GPT-2's 85 M without embeddings is that of Kaplan et al. 2020.
        (SMOLLM2, "causal", 134_515_008, 28_311_552, 106_203_456, 8192),
        (GPT2Config(), "causal", 124_439_808, 38_597_376, 85_056_000, 1024),
        (BertConfig(), "masked", 109_514_298, 24_063_546, 85_056_000, 512),
    ],
)
def test_published_counts(
    config: PreTrainedConfig,
    objective: Objective,
    n_params: int,
    n_params_head: int,
    n_params_non_embedding: int,
    n_ctx: int,
    tmp_path: Path,
) -> None:
    model = described(tmp_path, config, objective).model
    assert model.n_params == n_params
    assert model.n_params_head == n_params_head
    assert model.n_params_non_embedding == n_params_non_embedding
    assert (model.n_ctx, model.d_attention) == (n_ctx, config.hidden_size)


def test_a_model_costs_what_a_shape_of_its_sizes_does(tmp_path: Path) -> None:
    model = described(tmp_path, BertConfig(), "masked").model
    shape = Shape("", 768, 12, 64, n_vocab=30_522, n_ctx=512, objective="masked")
    for count in ("n_params", "n_params_non_embedding", "n_params_head"):
        assert getattr(model, count) == getattr(shape, count)
    # 2 N + 4 n_layers n_ctx d, and the head at 20 of the 128 positions.
    expected = 2 * 85_056_000 + 4 * 12 * 128 * 768 + 2 * 24_063_546 * 20 // 128
    assert model.at(128).forward_flops_per_token == expected


def test_heads_and_widths_of_other_architectures(tmp_path: Path) -> None:
    untied = LlamaConfig(vocab_size=64, hidden_size=32, num_attention_heads=4, head_dim=16)
    model = described(tmp_path / "llama", untied, "causal").model
    assert (model.d_model, model.d_attention, model.n_params_head) == (32, 64, 32 * 64)
    projected = OPTConfig(
        vocab_size=64, hidden_size=32, word_embed_proj_dim=16, num_attention_heads=4
    )
    model = described(tmp_path / "opt", projected, "causal").model
    assert (model.d_model, model.d_attention) == (16, 32)
    recurrent = MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2)
    model = described(tmp_path / "mamba", recurrent, "causal").model
    assert (model.d_model, model.d_attention) == (32, 0)
    roberta = RobertaConfig(max_position_embeddings=514, vocab_size=64, hidden_size=24)
    assert described(tmp_path / "roberta", roberta, "masked").n_ctx == 512


def test_identity_is_of_contents_alone(tmp_path: Path) -> None:
    small_llama(tmp_path / "SmolLM2 tiny")
    small_llama(tmp_path / "elsewhere")
    one, same = (
        given.describe(
            WHERE,
            given.find(WHERE, str(tmp_path / name), None, None, tmp_path),
            "causal",
            n_vocab=64,
            n_targets=8,
        )
        for name in ("SmolLM2 tiny", "elsewhere")
    )
    assert one.identity == same.identity
    assert one.label == f"smollm2-tiny-{one.identity[:8]}"
    small_llama(tmp_path / "elsewhere", rope_theta=5e4)
    assert given.identity_of(tmp_path / "elsewhere") != one.identity


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    model = small_llama(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(given.weights_of(tmp_path / "shards")) > 1
    found = given.find(WHERE, str(tmp_path / "shards"), None, None, tmp_path)
    read = load_given(found.folder, "causal", 64)
    assert torch.equal(read.head.weight_vd, model.lm_head.weight)
    given.weights_of(tmp_path / "shards")[0].unlink()
    with pytest.raises(ConfigError, match="lacks model-00001-of"):
        given.find(WHERE, str(tmp_path / "shards"), None, None, tmp_path)


# -- refusals ------------------------------------------------------------------------------------


def bare(folder: Path) -> None:
    (folder / "notes.txt").write_text("")


def pickled(folder: Path) -> None:
    SMOLLM2.save_pretrained(folder)
    torch.save({}, folder / "pytorch_model.bin")


def weightless(folder: Path) -> None:
    SMOLLM2.save_pretrained(folder)


def of_config(**changes: object) -> Any:
    def write(folder: Path) -> None:
        small_llama(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return write


def bert(folder: Path) -> None:
    described(folder, BertConfig(), "masked")


def two_gguf(folder: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (folder / name).write_bytes(b"")


REFUSED = {
    bare: ("has no config.json", "save_pretrained"),
    pickled: (r"pickles only \(pytorch_model.bin\)", "save_pretrained"),
    weightless: ("has no weights as safetensors", "GGUF"),
    two_gguf: ("several GGUF files", "a.gguf, b.gguf"),
    of_config(model_type="mine", auto_map={"AutoConfig": "mine.Config"}): (
        r"code of its own \(auto_map\), which is never run",
        "transformers",
    ),
    of_config(model_type="mine"): ("knows no model_type mine", "newer transformers"),
    of_config(quantization_config={"quant_method": "gptq"}): (r"quantised \(gptq\)", "fp32|GGUF"),
    of_config(model_type="t5"): ("an encoder with a decoder", "one stack"),
    of_config(model_type="llava"): ("reads more than text", "language model"),
    bert: ("predicts masked tokens, and the study's objective is causal", "objective: masked"),
}


def _found_and_described(folder: Path) -> None:
    found = given.find(WHERE, str(folder), None, None, folder / "imports")
    given.describe(WHERE, found, "causal", n_vocab=64, n_targets=8)


@pytest.mark.parametrize("write", REFUSED, ids=[message for message, _ in REFUSED.values()])
def test_refusals(write: Any, tmp_path: Path) -> None:
    write(tmp_path)
    what, remedy = REFUSED[write]
    with pytest.raises(ConfigError, match=what) as raised:
        _found_and_described(tmp_path)
    assert raised.value.where == WHERE
    assert any(part in raised.value.remedy for part in remedy.split("|"))


def test_a_causal_model_is_no_masked_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not predict masked tokens"):
        described(tmp_path, GPT2Config(), "masked")


def test_the_command_line_ends_with_2_and_one_message(
    tmp_path: Path, corpus_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pickled(tmp_path / "old")
    study = tmp_path / "study.yaml"
    study.write_text(
        f"""
name: given
folder: {tmp_path / "runs"}
n_ctx: 32
corpus: {{source: {corpus_folder}, validation_tokens: 512, test_tokens: 1024}}
teachers: {{big: {{model: {tmp_path / "old"}}}}}
students: [{{sizes: 32/1, methods: token, teachers: big}}]
"""
    )
    with pytest.raises(SystemExit) as ended:
        cli.main(("train", str(study), "--dry-run"))
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.count("error:") == 1
    assert "teachers.big.model" in err
    assert "pickles only" in err


# -- tokenizers ----------------------------------------------------------------------------------


def test_a_tokenizer_is_read_and_never_made_up(tmp_path: Path) -> None:
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="there is no tokenizer"):
        given.tokenizer_of(tmp_path)
    word_tokenizer("<unk>", "the", "house").save_pretrained(tmp_path)
    assert given.tokenizer_of(tmp_path).get_vocab() == {"<unk>": 0, "the": 1, "house": 2}
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read"):
        given.tokenizer_of(tmp_path)


def test_vocabularies_are_compared_id_by_id() -> None:
    ours = word_tokenizer("<unk>", "the", "house", "peace")
    given.check_vocabulary(WHERE, ours, word_tokenizer("<unk>", "the", "house", "peace"), 128)
    swapped = word_tokenizer("<unk>", "the", "peace", "house")
    with pytest.raises(ConfigError, match=r"2 ids differ, first 2 \('peace', 'house'\)"):
        given.check_vocabulary(WHERE, swapped, ours, 128)
    with pytest.raises(ConfigError, match=r"has 3 entries and the study's 4; 1 ids differ"):
        given.check_vocabulary(WHERE, word_tokenizer("<unk>", "the", "house"), ours, 128)
    with pytest.raises(ConfigError, match="3 rows, fewer than the 4 entries"):
        given.check_vocabulary(WHERE, ours, ours, 3)


def test_ids_with_gaps_are_refused() -> None:
    gap = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 2}, unk_token="a"))
    )
    with pytest.raises(ConfigError, match="have gaps: 2 entries, up to 2"):
        given.check_vocabulary(WHERE, gap, gap, 8)
