"""A tiny study on made-up text: two documents' worth of structure, seconds to train."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kdlaws.config import Study, load_study

_WORDS = ["the", "house", "of", "Union", "and", "states", "we", "peace", "year", "law", "it", "men"]


def made_up_text(n_words: int, seed: int) -> str:
    """Sentences in which each word depends on the one before; paragraphs of five sentences."""
    rng = random.Random(seed)
    lines, word = [], 0
    for _ in range(n_words // 12):
        sentence = []
        for _ in range(12):
            word = (word * 5 + rng.choice([1, 1, 1, 2, 7])) % len(_WORDS)
            sentence.append(_WORDS[word])
        lines.append(" ".join(sentence).capitalize() + ".")
    return "\n\n".join(" ".join(lines[i : i + 5]) for i in range(0, len(lines), 5))


def onednn_flops(a_mk: list[int], b_nk: list[int], *_: object, **__: object) -> int:
    return 2 * a_mk[0] * a_mk[1] * b_nk[0]


@pytest.fixture
def new_flop_counter() -> Callable[[], FlopCounterMode]:
    """Torch's, which does not know by itself the product that ``kernels`` takes for large ones."""
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    own = {torch.ops.mkldnn._linear_pointwise: onednn_flops} if known else {}
    return lambda: FlopCounterMode(display=False, custom_mapping=own)


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for index in range(24):
        (folder / f"{index:02}.txt").write_text(made_up_text(600, seed=index))
    return folder


@pytest.fixture
def tiny_study(tmp_path: Path, corpus_folder: Path) -> Study:
    """Micro students of one small teacher; everything of a real study at a hundredth its size."""
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"""
name: tiny
folder: {tmp_path / "runs"}
n_ctx: 32
corpus:
  source: {corpus_folder}
  teacher_share: 0.4
  validation_share: 0.1
  test_share: 0.1
  slice_tokens: 4k
  validation_tokens: 512
  test_tokens: 1024
tokenizer: {{n_vocab: 300}}
teachers: {{small: {{size: 64/2, n_tokens: 4k, dtype: float16}}}}
epochs: {{0.25: [2, 4, 6], 1.0: [0.5, 1]}}
optimiser: {{batch_tokens: 64}}
students:
  - {{sizes: 32/1, methods: [scratch, token, embedding], teachers: small, fractions: [0.25, 1]}}
"""
    )
    return load_study(file)
