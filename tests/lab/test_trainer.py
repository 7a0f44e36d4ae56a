"""Trunks, branches, resuming and divergence, on a study of a few seconds."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdlaws.config import Study, load_study
from kdlaws.errors import ArtefactError, ConfigError
from kdlaws.lab import cache, trainer
from kdlaws.lab.sweep import Tasks, plan_study
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


def weights(job: TrunkJob, index: int) -> dict[str, torch.Tensor]:
    return load_file(job.folder / job.branches[index].run_id / "model" / "model.safetensors")


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


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


@pytest.mark.parametrize("stop_after", [3, 40, 63, 90])
def test_resuming_is_bitwise(
    tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """Stopped at any step, in trunk or cooldown, and started again: the same weights."""
    job = jobs(tiny_study)["scratch-0.25"]
    whole = replace(job, folder=tmp_path / "whole")
    train_trunk(whole, silent)
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    steps = 0

    def stop(_: int) -> None:
        nonlocal steps
        steps += 1
        if steps == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_trunk(job, stop)
    train_trunk(job, silent)
    done = [index for index, branch in enumerate(job.branches) if whole.is_done(branch)]
    assert done == [index for index, branch in enumerate(job.branches) if job.is_done(branch)]
    for index in done:
        assert_same(weights(whole, index), weights(job, index))


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
    """400 passes over 500 tokens overfit; whatever comes after the rise is not run."""
    text = (tmp_path / "tiny.yaml").read_text().replace("[2, 4, 6]", "[20, 200, 220, 240]")
    (tmp_path / "long.yaml").write_text(text)
    job = jobs(load_study(tmp_path / "long.yaml", ["students.0.sizes=64/2"]))["scratch-0.25"]
    train_trunk(job, silent)
    assert [job.is_done(branch) for branch in job.branches] == [True, True, False, False]
    first, second = (read_json(job.folder / b.run_id / RECORD) for b in job.branches[:2])
    assert second["validation_cross_entropy"] > first["validation_cross_entropy"]


def test_embedding_records_what_it_left_unexplained(tiny_study: Study) -> None:
    """Between what its width allows and all of it: an untrained map explains nothing."""
    job = jobs(tiny_study)["embedding-1"]
    assert job.cache is not None
    train_trunk(teacher_job(tiny_study), silent)
    cache.build(job.cache, job.folder / "cache", silent)
    train_trunk(job, silent)
    record = read_json(job.folder / job.branches[-1].run_id / RECORD)
    assert record["rank_floor"] < record["validation_unexplained"] < 1


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
