"""Stored teacher outputs: the right numbers, and refusal of the wrong ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kdlaws.config import Study
from kdlaws.errors import ArtefactError
from kdlaws.lab import cache, students
from kdlaws.lab.cache import CacheSpec, TeacherCache
from kdlaws.lab.teachers import load_teacher
from kdlaws.lab.tokens import Text
from kdlaws.records import WEIGHTS, file_digest, write_json
from kdlaws.shapes import shape
from kdlaws.study import TeacherFacts


@pytest.fixture
def spec(tiny_study: Study, tmp_path: Path) -> CacheSpec:
    text = Text(tiny_study)
    each = shape("64/2", n_vocab=300, n_ctx=32)
    folder = tmp_path / "teacher"
    students.build(each, seed=1).save_pretrained(folder / "model")
    sha256 = file_digest(folder / WEIGHTS)
    write_json(folder / "record.json", {"run_id": "teacher", "weights_sha256": sha256})
    facts = TeacherFacts("teacher", "teacher", each, 1, text.tokenizer_sha256, folder)
    return CacheSpec(
        teacher=facts,
        stream=text.stream("student"),
        validation=text.stream("validation"),
        prefixes=(10, 40),
        n_validation_windows=8,
        n_ctx=32,
        temperatures=(1.0, 2.0),
        with_hidden=True,
        draws=16,
        slices=3,
    )


@pytest.fixture
def built(spec: CacheSpec, tmp_path: Path) -> TeacherCache:
    cache.build(spec, tmp_path / "cache", lambda _: None)
    return TeacherCache(tmp_path / "cache", spec)


def teacher_outputs(spec: CacheSpec, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, _ = spec.stream.windows(rows, spec.n_ctx)
    with torch.inference_mode():
        return students.forward(load_teacher(spec.teacher), torch.from_numpy(inputs))


ROWS = np.array([33, 2])  # of two different batches


def test_entropy_is_the_teachers(spec: CacheSpec, built: TeacherCache) -> None:
    _, logits = teacher_outputs(spec, ROWS)
    for temperature in (1.0, 2.0):
        expected = torch.distributions.Categorical(logits=logits / temperature).entropy()
        torch.testing.assert_close(built.entropy(temperature, ROWS), expected, rtol=1e-4, atol=1e-4)


def test_draws_follow_the_teachers_distribution(spec: CacheSpec, built: TeacherCache) -> None:
    """Over all positions and slices, mean log p of the draws is minus the mean entropy."""
    rows = np.arange(spec.n_windows)
    _, logits = teacher_outputs(spec, rows)
    log_p = F.log_softmax(logits, dim=-1)
    values = torch.stack(
        [log_p.gather(-1, built.draws(1.0, rows, np.full(40, e))) for e in range(spec.slices)]
    )
    entropy = built.entropy(1.0, rows)
    standard_error = float(values.std()) / values.numel() ** 0.5
    assert float(values.mean()) == pytest.approx(-float(entropy.mean()), abs=4 * standard_error)


def test_outputs_do_not_depend_on_what_other_runs_need(
    spec: CacheSpec, built: TeacherCache, tmp_path: Path
) -> None:
    """A run's numbers are its own: its identity does not name the runs it shares a cache with."""
    lone = replace(spec, prefixes=(10, 35), temperatures=(1.0,))
    cache.build(lone, tmp_path / "lone", lambda _: None)
    other = TeacherCache(tmp_path / "lone", lone)
    assert torch.equal(other.draws(1.0, ROWS, ROWS * 0), built.draws(1.0, ROWS, ROWS * 0))
    assert torch.equal(other.hidden(ROWS, 10), built.hidden(ROWS, 10))
    assert other.rank_floor(8, 10) == built.rank_floor(8, 10)


def test_epochs_have_draws_of_their_own_and_come_round(built: TeacherCache) -> None:
    first, second, fourth = (built.draws(1.0, ROWS, np.full(2, e)) for e in (0, 1, 3))
    assert not torch.equal(first, second)
    assert torch.equal(first, fourth)


def test_hidden_states_are_centred_and_have_mean_square_one(
    spec: CacheSpec, built: TeacherCache
) -> None:
    hidden = built.hidden(np.arange(spec.n_windows), 40)
    assert float(hidden.mean(dim=(0, 1)).abs().max()) < 1e-3
    assert float(hidden.square().mean()) == pytest.approx(1, abs=1e-3)


def test_hidden_states_are_the_teachers_up_to_shift_and_one_scale(
    spec: CacheSpec, built: TeacherCache
) -> None:
    raw, _ = teacher_outputs(spec, ROWS)
    stored = built.hidden(ROWS, 40)
    shift = (raw - raw[:1, :1]) / built.manifest["hidden"]["40"]["scale"]
    torch.testing.assert_close(stored - stored[:1, :1], shift, rtol=1e-2, atol=5e-3)


def test_validation_states_are_centred_and_scaled_by_the_training_stream(
    spec: CacheSpec, built: TeacherCache
) -> None:
    rows = np.arange(2)
    inputs, _ = spec.validation.windows(rows, spec.n_ctx)
    with torch.inference_mode():
        raw, _ = students.forward(load_teacher(spec.teacher), torch.from_numpy(inputs))
    everywhere, _ = teacher_outputs(spec, np.arange(spec.n_windows))
    centred = raw - everywhere.mean(dim=(0, 1))
    scale = (everywhere - everywhere.mean(dim=(0, 1))).square().mean().sqrt()
    stored = built.hidden(rows, 40, validation=True)
    torch.testing.assert_close(stored, centred / scale, rtol=1e-2, atol=5e-3)


def test_the_rank_floor_is_what_the_best_projection_leaves(built: TeacherCache) -> None:
    """Eckart and Young: the residual of the rank-k truncated singular value decomposition."""
    z = built.hidden(np.arange(40), 40).flatten(0, 1).double()
    singular = torch.linalg.svdvals(z - z.mean(dim=0)).square()
    for k in (1, 8, 32):
        expected = float(singular[k:].sum() / singular.sum())
        assert built.rank_floor(k, 40) == pytest.approx(expected, rel=1e-3)
    assert built.rank_floor(64, 40) == 0


def test_building_twice_gives_the_same_bytes(spec: CacheSpec, tmp_path: Path) -> None:
    for parent in ("a", "b"):
        cache.build(spec, tmp_path / parent, lambda _: None)
    for file in (tmp_path / "a" / spec.name).iterdir():
        assert file.read_bytes() == (tmp_path / "b" / spec.name / file.name).read_bytes()


def test_an_interrupted_build_leaves_no_cache(spec: CacheSpec, tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.build(spec, tmp_path / "cache", stop)
    assert not (tmp_path / "cache" / spec.name).exists()
    cache.build(spec, tmp_path / "cache", lambda _: None)
    assert TeacherCache(tmp_path / "cache", spec).manifest["prefixes"] == [10, 40]


@pytest.mark.parametrize("key", ["teacher", "stream"])
def test_outputs_of_another_teacher_or_stream_are_refused(
    built: TeacherCache, spec: CacheSpec, key: str
) -> None:
    write_json(built.folder / "manifest.json", {**built.manifest, key: "another"})
    with pytest.raises(ArtefactError, match=f"have {key} 'another'"):
        TeacherCache(built.folder.parent, spec)


def test_a_teacher_whose_weights_changed_is_refused(spec: CacheSpec) -> None:
    changed = replace(spec.teacher, identity="0" * 64)
    with pytest.raises(ArtefactError, match="have changed since the study was planned"):
        load_teacher(changed)
