"""Training metrics in TensorBoard's files, as TensorBoard reads them."""

import json
import sys
from pathlib import Path

import pytest

from kdlaws import cli
from kdlaws.config import Study
from kdlaws.lab import trainer
from kdlaws.lab.sweep import Tasks, plan_study
from kdlaws.lab.tokens import Text
from kdlaws.lab.trainer import TrunkJob, train_trunk


def scratch_job(study: Study) -> TrunkJob:
    text = Text(study)
    planned = plan_study(study, text)
    trunks = planned.trunks().values()
    branches = next(b for b in trunks if b[0].run.method == "scratch" and len(b) == 2)
    return Tasks(planned, text, {}).job(branches)


def test_event_files_hold_the_metrics_at_their_steps(
    tiny_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch's metrics are its trunk's up to the cooldown, and its own from there."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(trainer, "METRICS_EVERY", 5)
    job = scratch_job(tiny_study.model_copy(update={"tensorboard": True}))
    train_trunk(job, lambda _: None)

    def written(run: str, name: str) -> dict[int, float]:
        events = reader.EventAccumulator(str(tiny_study.folder / "tensorboard" / run))
        events.Reload()
        return {event.step: event.value for event in events.Scalars(name)}

    for branch in job.branches:
        lines = (job.folder / branch.run_id / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        for name in ("loss", "grad_norm", "rate", "n_tokens"):
            expected = {row["step"]: row[name] for row in rows}
            of_branch = written(branch.run_id, name)
            of_trunk = written(branch.trunk, name)
            shared = {step: of_trunk[step] for step in expected if step < min(of_branch)}
            assert shared | of_branch == pytest.approx(expected, rel=1e-6)


def test_without_it_nothing_is_trained_and_the_message_names_the_command(
    tiny_study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", str(tmp_path / "tiny.yaml"), "tensorboard=true"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "tensorboard" in message
    assert "pip install 'kdlaws[tensorboard]'" in message
    assert not tiny_study.folder.exists()
