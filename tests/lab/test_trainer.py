"""Trunks, branches, gradients, resuming and divergence, on a study of a few seconds."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F
from transformers import GraniteForCausalLM

from kdlaws.config import Study, load_study
from kdlaws.errors import ArtefactError, ConfigError
from kdlaws.lab import cache_build, checkpoints, memory, students, trainer
from kdlaws.lab.cache import ReplicaCaches
from kdlaws.lab.streams import Sampler
from kdlaws.lab.sweep import Tasks, plan_study
from kdlaws.lab.targets import Targets
from kdlaws.lab.teachers import load_teacher
from kdlaws.lab.tokens import Text
from kdlaws.lab.trainer import TrunkJob, train_trunk
from kdlaws.records import RECORD, read_json


def silent(_: int) -> None:
    pass


def jobs(study: Study) -> dict[str, TrunkJob]:
    """The study's trunks by method and fraction."""
    text = Text(study)
    planned = plan_study(study, text)
    every = [Tasks(planned, text, {}).job(branches) for branches in planned.trunks().values()]
    return {
        f"{job.first.run.method}-{job.first.run.fraction:g}": job
        for job in every
        if job.first.run.role == "student"
    }


def teacher_job(study: Study) -> TrunkJob:
    text = Text(study)
    planned = plan_study(study, text)
    return Tasks(planned, text, {}).job([planned.runs[0]])


Prepare = Callable[..., TrunkJob]


@pytest.fixture
def prepare(tiny_study: Study, tmp_path: Path) -> Prepare:
    """A trunk of the study, changed by overrides, with what it reads of its teacher in place."""

    def prepared(key: str, *overrides: str) -> TrunkJob:
        study = load_study(tmp_path / "tiny.yaml", overrides)
        job = jobs(study)[key]
        if job.teacher:
            train_trunk(teacher_job(study), silent)
        for spec in job.caches:
            cache_build.build(spec, job.folder / "cache", silent)
        return job

    return prepared


def elsewhere(job: TrunkJob, folder: Path) -> TrunkJob:
    """The same trunk in a folder of its own, that reads the same stored outputs."""
    folder.mkdir()
    (folder / "cache").symlink_to(job.folder / "cache")
    return replace(job, folder=folder)


def weights(job: TrunkJob, index: int) -> dict[str, Tensor]:
    return load_file(job.folder / job.branches[index].run_id / "model" / "model.safetensors")


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def assert_same_runs(first: TrunkJob, second: TrunkJob) -> None:
    done = [index for index, branch in enumerate(first.branches) if first.is_done(branch)]
    assert done == [index for index, branch in enumerate(second.branches) if second.is_done(branch)]
    for index in done:
        assert_same(weights(first, index), weights(second, index))


def last_record(job: TrunkJob) -> dict[str, Any]:
    record: dict[str, Any] = read_json(job.folder / job.branches[-1].run_id / RECORD)
    return record


SAMPLED = ("cache.draws=4",)  # so few that the whole distribution would take more room
ONLINE = ("cache.outputs=online", "students.0.divergence=reverse_kl")
KINDS = [
    pytest.param("scratch", (), id="scratch"),
    pytest.param("token", SAMPLED, id="token"),
    pytest.param("token", ONLINE, id="token-online"),
    pytest.param("embedding", (), id="embedding"),
]


def test_each_branch_leaves_a_folder_that_explains_itself(tiny_study: Study) -> None:
    job = jobs(tiny_study)["scratch-1"]
    train_trunk(job, silent)
    for branch in job.branches:
        names = {file.name for file in (job.folder / branch.run_id).iterdir()}
        assert {"record.json", "metrics.jsonl", "model", "run.yaml"} <= names
        record = read_json(job.folder / branch.run_id / RECORD)
        assert record["status"] == "done"
        assert record["trunk"] == branch.trunk
    assert not job.trunk_folder.exists()


def test_a_branch_does_not_depend_on_its_siblings(tiny_study: Study, tmp_path: Path) -> None:
    """Leaving the trunk for a cooldown and coming back changes nothing, bit for bit."""
    both = jobs(tiny_study)["scratch-1"]
    train_trunk(both, silent)
    for index in (0, 1):
        alone = replace(both, branches=(both.branches[index],), folder=tmp_path / str(index))
        train_trunk(alone, silent)
        assert_same(weights(both, index), weights(alone, 0))


# -- resuming ---------------------------------------------------------------------------------


def stop_at(n_calls: int) -> Callable[[int], None]:
    """Interrupts training when it tells of tokens for the ``n_calls``th time."""
    calls = count(1)

    def stop(_: int) -> None:
        if next(calls) == n_calls:
            raise KeyboardInterrupt

    return stop


def train_with_stops(job: TrunkJob) -> int:
    """Train to the end, stopped after 4 steps, 8 more and so on; how often it was stopped."""
    for n_stops in count():
        try:
            train_trunk(job, stop_at(4 * (n_stops + 1)))
        except KeyboardInterrupt:
            continue
        return n_stops
    raise AssertionError


@pytest.mark.parametrize(("method", "overrides"), KINDS)
def test_resuming_is_bitwise(
    prepare: Prepare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    overrides: tuple[str, ...],
) -> None:
    """Stopped time and again, in trunk and cooldowns, in every epoch: the same weights."""
    job = prepare(f"{method}-0.25", *overrides)
    whole = elsewhere(job, tmp_path / "whole")
    train_trunk(whole, silent)
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    assert train_with_stops(job) >= 5
    assert_same_runs(whole, job)


def test_a_damaged_checkpoint_costs_its_steps_and_nothing_else(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepare("scratch-0.25")
    whole = elsewhere(job, tmp_path / "whole")
    train_trunk(whole, silent)
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        train_trunk(job, stop_at(40))
    folder = job.trunk_folder / "checkpoint"
    before, newest = checkpoints.steps(folder)
    damaged = folder / f"{newest}.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    told: list[int] = []
    train_trunk(job, told.append)
    assert told[0] == before * job.first.run.batch_tokens
    assert_same_runs(whole, job)


def test_a_finished_trunk_is_left_alone(tiny_study: Study) -> None:
    job = jobs(tiny_study)["scratch-1"]
    train_trunk(job, silent)
    before = (job.folder / job.first.run_id / RECORD).stat().st_mtime_ns

    def fail(_: int) -> None:
        raise AssertionError("it trained again")

    train_trunk(job, fail)
    assert (job.folder / job.first.run_id / RECORD).stat().st_mtime_ns == before


def test_divergence_ends_the_trunk_and_is_recorded(tiny_study: Study) -> None:
    rates = tiny_study.optimiser.learning_rate | {"scratch": 1e6}
    optimiser = tiny_study.optimiser.model_copy(update={"learning_rate": rates})
    job = jobs(tiny_study.model_copy(update={"optimiser": optimiser}))["scratch-1"]
    train_trunk(job, silent)
    record = read_json(job.folder / job.first.run_id / RECORD)
    assert record["status"] == "diverged"
    assert record["validation_cross_entropy"] is None
    assert not (job.folder / job.first.run_id / "model").exists()
    assert not job.is_done(job.branches[1])
    assert job.is_over()


def test_methods_start_from_the_same_weights_and_read_the_same_batches(tiny_study: Study) -> None:
    every = jobs(tiny_study)
    scratch, token = every["scratch-1"].first, every["token-1"].first
    assert (scratch.run.seed, scratch.n_windows) == (token.run.seed, token.n_windows)
    assert every["scratch-1"].stream == every["token-1"].stream


def test_a_repeated_trunk_stops_once_validation_rises(tmp_path: Path, tiny_study: Study) -> None:
    """100 passes over 1,000 tokens overfit; whatever comes after the rise is not run."""
    text = (tmp_path / "tiny.yaml").read_text().replace("[2, 4, 6]", "[10, 100, 110, 120]")
    (tmp_path / "long.yaml").write_text(text)
    job = jobs(load_study(tmp_path / "long.yaml", ["students.0.sizes=64/2"]))["scratch-0.25"]
    train_trunk(job, silent)
    assert [job.is_done(branch) for branch in job.branches] == [True, True, False, False]
    first, second = (read_json(job.folder / b.run_id / RECORD) for b in job.branches[:2])
    assert second["validation_cross_entropy"] > first["validation_cross_entropy"]


# -- what a teacher gives ---------------------------------------------------------------------


def gradients(job: TrunkJob) -> tuple[float, int, dict[str, Tensor]]:
    """Of the first batch: the loss, the windows read at a time, and every weight's gradient.

    The map is not zero, as it would be, so that the embedding term reaches the student.
    """
    trunk = trainer._Trunk(job, silent, lambda step, values: None)
    named = dict(trunk.model.named_parameters())
    if trunk.map is not None:
        generator = torch.Generator().manual_seed(0)
        torch.nn.init.normal_(trunk.map.weight, std=0.1, generator=generator)
        named["map"] = trunk.map.weight
    loss = trunk._gradients(0)
    return loss, trunk.part_windows, {name: torch.clone(w.grad) for name, w in named.items()}


@pytest.mark.parametrize(("method", "overrides"), KINDS)
def test_a_batch_in_parts_has_the_gradients_of_the_whole(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch, method: str, overrides: tuple[str, ...]
) -> None:
    job = prepare(f"{method}-1", *overrides, "optimiser.batch_tokens=256")
    loss, n_windows, whole = gradients(job)
    monkeypatch.setitem(memory.ACTIVATION_BYTES, "float32", 1)
    loss_in_parts, n_at_a_time, in_parts = gradients(job)
    assert (n_windows, n_at_a_time) == (8, 1)
    assert loss_in_parts == pytest.approx(loss, rel=1e-5)
    for name, gradient in whole.items():
        largest = float(gradient.abs().max())
        assert largest > 0
        torch.testing.assert_close(in_parts[name], gradient, rtol=0, atol=1e-4 * largest)


def first_loss(job: TrunkJob) -> float:
    line = (job.folder / job.first.run_id / "metrics.jsonl").read_text().splitlines()[0]
    return float(json.loads(line)["loss"])


def first_distributions(job: TrunkJob, temperature: float) -> tuple[Categorical, Categorical]:
    """Teacher's and new student's on the first batch, by the library's own models: [b, t, v]."""
    teacher = job.first.teacher
    assert teacher is not None
    student_model = GraniteForCausalLM(students.granite_config(job.first.shape))
    student_model.load_state_dict(students.build(job.first.shape, job.first.run.seed).state_dict())
    teacher_model = GraniteForCausalLM.from_pretrained(teacher.folder / "model", dtype="float32")
    ids_bt, _ = first_batch(job)
    with torch.no_grad():
        logits = [model(ids_bt).logits.double() for model in (teacher_model, student_model)]
    p, q = (Categorical(logits=logits_btv / temperature) for logits_btv in logits)
    return p, q


def first_batch(job: TrunkJob) -> tuple[Tensor, Tensor]:
    run, n_ctx = job.first.run, job.first.shape.n_ctx
    rows = Sampler(job.first.n_windows, run.batch_tokens // n_ctx, run.seed).indices(0)
    inputs, labels = job.stream.windows(rows, n_ctx)
    return torch.from_numpy(inputs), torch.from_numpy(labels)


def dense_divergence(name: str, p: Categorical, q: Categorical) -> float:
    """jensen_shannon: Agarwal et al. 2024, 2306.13649, equation 1, with beta = 0.3."""
    if name == "jensen_shannon":
        m = Categorical(probs=0.3 * p.probs + 0.7 * q.probs)
        return float((0.3 * kl_divergence(p, m) + 0.7 * kl_divergence(q, m)).mean())
    pair = (p, q) if name == "forward_kl" else (q, p)
    return float(kl_divergence(*pair).mean())


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_beside_an_online_teacher_the_loss_is_the_dense_one(
    prepare: Prepare, divergence: str
) -> None:
    """w T^2 D + (1 - w) CE of the first batch, from two models of the library."""
    settings = {"divergence": divergence, "jsd_beta": 0.3, "kd_weight": 0.7, "temperature": 2}
    overrides = [f"students.0.{name}={value}" for name, value in settings.items()]
    job = prepare("token-1", "cache.outputs=online", *overrides)
    train_trunk(job, silent)
    value = dense_divergence(divergence, *first_distributions(job, temperature=2.0))
    _, q = first_distributions(job, temperature=1.0)
    cross_entropy = F.cross_entropy(q.logits.flatten(0, 1), first_batch(job)[1].flatten())
    expected = 0.7 * 2**2 * value + 0.3 * float(cross_entropy)
    assert first_loss(job) == pytest.approx(expected, rel=1e-5)


def test_the_nth_reading_of_a_window_is_epoch_n(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that each epoch reads a slice of draws of its own."""
    job = prepare("token-0.25", *SAMPLED)
    assert job.caches[0].form.name == "sampled"
    asked: list[tuple[int, int]] = []
    token = ReplicaCaches.token

    def noting(self: ReplicaCaches, t: float, windows: np.ndarray, epochs: np.ndarray) -> Targets:
        asked.extend(zip(windows.tolist(), epochs.tolist(), strict=True))
        return token(self, t, windows, epochs)

    monkeypatch.setattr(ReplicaCaches, "token", noting)
    train_trunk(replace(job, branches=job.branches[-1:]), silent)
    times: Counter[int] = Counter()
    for window, epoch in asked:
        assert epoch == times[window]
        times[window] += 1
    assert max(times.values()) == 6


def test_stored_and_online_hidden_states_train_the_same_student(prepare: Prepare) -> None:
    """The basis is the same; what is stored is in half precision."""
    stored = prepare("embedding-1")
    online = prepare("embedding-1", "cache.outputs=online")
    for job in (stored, online):
        train_trunk(job, silent)
    assert stored.first.trunk != online.first.trunk
    assert first_loss(online) == pytest.approx(first_loss(stored), rel=1e-4)
    of_stored, of_online = last_record(stored), last_record(online)
    assert of_online["rank_floor"] == pytest.approx(of_stored["rank_floor"], rel=1e-6)
    for name in ("validation_cross_entropy", "validation_unexplained"):
        assert of_online[name] == pytest.approx(of_stored[name], rel=1e-3)


def test_embedding_records_what_it_left_unexplained(prepare: Prepare) -> None:
    """Between what its width allows and all of it: an untrained map explains nothing."""
    job = prepare("embedding-1")
    train_trunk(job, silent)
    record = last_record(job)
    assert record["rank_floor"] < record["validation_unexplained"] < 1


def test_a_map_costs_what_it_maps_to(prepare: Prepare) -> None:
    """Forward and backward, 3 x 2 FLOPs a weight and token; fewer components than dimensions."""
    job = prepare("embedding-1", "cache.hidden_variance=0.9")
    train_trunk(job, silent)
    folder = job.folder / "cache" / job.caches[0].name
    n_components = read_json(folder / "manifest.json")["hidden"]["n_components"]
    assert 1 < n_components < 64
    record = last_record(job)
    per_token = 3 * record["forward_flops_per_token"] + 3 * 2 * n_components * 32
    assert record["student_flops"] == per_token * record["n_tokens"]


def test_half_precision_of_products_ends_close_to_full(prepare: Prepare) -> None:
    """bfloat16 has three digits; weights and their moments stay in float32."""
    full, half = prepare("scratch-1"), prepare("scratch-1", "precision=bfloat16")
    for job in (full, half):
        train_trunk(job, silent)
    (loss, other) = (last_record(job)["validation_cross_entropy"] for job in (full, half))
    assert other != loss
    assert other == pytest.approx(loss, rel=0.01)
    assert all(weight.dtype == torch.float32 for weight in weights(half, -1).values())


# -- text -------------------------------------------------------------------------------------


def test_noise_on_the_whole_text_stays_inside_its_stream(tiny_study: Study, tmp_path: Path) -> None:
    """Scrambled text is a little shorter; its runs have fewer windows, and clean runs do not."""
    text = (tmp_path / "tiny.yaml").read_text()
    text = text.replace("  slice_tokens: 4k\n", "")
    text = text.replace("methods: [scratch", "noise: [0, 0.5], methods: [scratch")
    (tmp_path / "noisy.yaml").write_text(text)
    study = load_study(tmp_path / "noisy.yaml")
    planned = plan_study(study, Text(study))
    windows = {
        run.run.noise: run.n_windows
        for run in planned.runs
        if run.run.fraction == 1 and run.teacher
    }
    for noise, n_windows in windows.items():
        assert n_windows == Text(study).stream("student", noise).n_windows(study.n_ctx)


def test_a_teacher_that_has_read_the_test_text_is_refused(
    tiny_study: Study, tmp_path: Path
) -> None:
    train_trunk(teacher_job(tiny_study), silent)
    (teacher,) = tiny_study.folder.glob("teacher-*")
    divided_otherwise = [
        f"folder={tmp_path / 'other'}",
        f"teachers.small={{run: {teacher}}}",
        f"tokenizer.path={teacher / 'model'}",
        "corpus.seed=1",
    ]
    study = load_study(tmp_path / "tiny.yaml", divided_otherwise)
    with pytest.raises(ConfigError, match="of this study's validation and test text"):
        plan_study(study, Text(study))


def test_weights_that_are_not_the_records_are_refused(tiny_study: Study) -> None:
    train_trunk(teacher_job(tiny_study), silent)
    (weights,) = tiny_study.folder.glob("teacher-*/model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtefactError, match="have changed"):
        load_teacher(plan_study(tiny_study, Text(tiny_study)).teachers["small"])
