"""The teacher beside its student: what it says, against the library's model and the cache."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GraniteForCausalLM

from kdlaws.config import Study
from kdlaws.lab import cache_build, students
from kdlaws.lab.cache import CacheSpec, ReplicaCaches
from kdlaws.lab.online import OnlineSpec, OnlineTeacher
from kdlaws.lab.tokens import Text
from kdlaws.records import WEIGHTS, file_digest, write_json
from kdlaws.shapes import shape
from kdlaws.study import TeacherFacts

N_VOCAB, N_CTX = 300, 32
ROWS, FIRST = np.array([33, 2]), np.zeros(2, dtype=np.int64)


@pytest.fixture
def facts(tmp_path: Path) -> TeacherFacts:
    """A teacher that was not trained; its states vary more in some directions than in others."""
    folder, size = tmp_path / "teacher", shape("64/2", n_vocab=N_VOCAB, n_ctx=N_CTX)
    model = students.build(size, seed=1)
    with torch.no_grad():
        model.model.norm.weight.copy_(torch.linspace(0.01, 2, size.d_model))
    model.save_pretrained(folder / "model")
    sha256 = file_digest(folder / WEIGHTS)
    write_json(folder / "record.json", {"run_id": "teacher", "weights_sha256": sha256})
    return TeacherFacts("teacher", "teacher", size, 1, "0" * 64, folder)


@pytest.fixture
def spec(tiny_study: Study, facts: TeacherFacts) -> OnlineSpec:
    text = Text(tiny_study)
    return OnlineSpec(facts, text.stream("student"), text.stream("validation"), N_CTX, 0.9)


def online(spec: OnlineSpec) -> OnlineTeacher:
    return OnlineTeacher(spec, torch.device("cpu"))


def librarys_logits(spec: OnlineSpec) -> Tensor:
    model = GraniteForCausalLM.from_pretrained(spec.teacher.folder / "model", dtype="float32")
    inputs, _ = spec.stream.windows(ROWS, N_CTX)
    with torch.no_grad():
        logits_btv: Tensor = model(torch.from_numpy(inputs)).logits
    return logits_btv.flatten(0, 1)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_its_states_and_head_make_the_librarys_logits(spec: OnlineSpec, temperature: float) -> None:
    """Whatever the temperature, which is the loss's to apply."""
    said = online(replace(spec, hidden_variance=None)).token(temperature, ROWS, FIRST)
    logits_nv = said.hidden_nd @ said.weight_vd.T / said.logits_scaling
    torch.testing.assert_close(logits_nv, librarys_logits(spec), rtol=1e-5, atol=1e-5)
    assert not said.hidden_nd.requires_grad
    assert not said.weight_vd.requires_grad


def test_its_components_are_those_that_a_cache_stores(spec: OnlineSpec, tmp_path: Path) -> None:
    """Of the stream and of the validation text, up to the cache's half precision."""
    cached = CacheSpec(
        teacher=spec.teacher,
        stream=spec.stream,
        validation=spec.validation,
        tokenizer_sha256="0" * 64,
        n_windows=40,
        n_validation_windows=8,
        n_ctx=N_CTX,
        temperatures=(),
        with_hidden=True,
        outputs="sampled",
        draws=1,
        slices=1,
        k=1,
        hidden_variance=0.9,
    )
    cache_build.build(cached, tmp_path, lambda _: None)
    stored, beside = ReplicaCaches(tmp_path, [cached]), online(spec)
    assert beside.n_components == stored.n_components < 64
    assert beside.hidden_dropped == pytest.approx(stored.hidden_dropped, rel=1e-6)
    assert beside.rank_floor(5) == pytest.approx(stored.rank_floor(5), rel=1e-6)
    close = partial(torch.testing.assert_close, rtol=2e-3, atol=2e-3)
    close(beside.hidden(ROWS, 0 * ROWS), stored.hidden(ROWS, 0 * ROWS))
    rows = np.array([7, 0])
    close(beside.validation_hidden(rows), stored.validation_hidden(rows))
