"""What the table needs of a finished run, measured on the test split; redone without retraining.

Students of one teacher are measured together, so that the teacher reads the test split once.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdlaws import tables
from kdlaws.config import Study
from kdlaws.errors import InputError
from kdlaws.lab import heads, latency, teachers
from kdlaws.lab.executors import LocalProcesses, Task, n_workers
from kdlaws.lab.export import CARD, rewrite_card
from kdlaws.lab.given import weights_of
from kdlaws.lab.headless import load_given
from kdlaws.lab.measures import EvaluationSet, Measures, TeacherOutput
from kdlaws.lab.probe import seconds_of_reading
from kdlaws.lab.progress import Reporter
from kdlaws.lab.reference import reference_lines
from kdlaws.lab.sweep import plan_study, raise_for, study_lock
from kdlaws.lab.teachers import load_model, load_teacher
from kdlaws.lab.tokens import Text
from kdlaws.records import (
    EVALUATION,
    PLAN,
    RECORD,
    REFERENCE,
    digest,
    read_json,
    read_losses,
    read_record,
    write_json,
    write_losses,
)
from kdlaws.shapes import Costs, GivenModel
from kdlaws.study import Plan, TeacherFacts, record_of_given

EVALUATION_RECIPE = 1
"""Raised whenever the numerics of evaluation change."""

GROUP_RUNS, GROUP_PARAMS = 24, 100_000_000  # measured together; what they hold in memory


@dataclass(frozen=True)
class Subject:
    """A finished run to measure: the folder of its model, where the result goes, what is known."""

    shape: Costs
    source: Path
    folder: Path
    columns: dict[str, Any]


def evaluate(study: Study, reporter: Reporter) -> Path:
    """Measure what has not been measured, and write table.csv; its path.

    Raises InputError where nothing has been trained.
    """
    if not (study.folder / PLAN).exists():
        raise InputError(
            "nothing has been trained yet", where=str(study.folder), remedy="run train.py first"
        )
    with study_lock(study.folder):
        text = Text(study)
        planned = plan_study(study, text)
        stream = text.stream("test")
        n_windows = stream.n_windows(study.n_ctx, study.corpus.test_tokens)
        test = EvaluationSet(stream, n_windows, study.n_ctx)
        write_json(study.folder / REFERENCE, _reference(planned, text, test))
        _adopt_teachers(planned)
        _measure_missing(planned, text, test, reporter)
        return _write_table(planned)


def _write_table(planned: Plan) -> Path:
    """The study's runs and teachers; runs of other settings may lie in the same folder."""
    folder = planned.study.folder
    frame = tables.study_table(folder)
    ours = {run.run_id for run in planned.runs} | {t.run_id for t in planned.teachers.values()}
    is_ours = frame["run_id"].isin(ours)
    if not is_ours.all():
        n_others = int((~is_ours).sum())
        print(f"{n_others} runs of other settings are left out of the table", file=sys.stderr)
    write_losses(folder, _losses(folder, list(frame["run_id"][is_ours])))
    tables.write_table(frame[is_ours], folder / "table.csv")
    return folder / "table.csv"


def _losses(folder: Path, run_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Nats per token on every test sequence; runs that diverged have none.

    Runs that were measured on another machine have theirs in the file that came with them.
    """
    measured: dict[str, np.ndarray] = {}
    for run_id in run_ids:
        file = folder / run_id / "evaluation.npz"
        if file.exists():
            with np.load(file) as arrays:
                measured[run_id] = arrays["nll"]
    lengths = {len(nll) for nll in measured.values()}
    elsewhere = set(run_ids) - measured.keys()
    for run_id, nll in read_losses(folder).items():
        if run_id in elsewhere and lengths <= {len(nll)}:
            measured[run_id] = nll
    return measured


def _reference(planned: Plan, text: Text, test: EvaluationSet) -> dict[str, Any]:
    """Unigram and bigram lines at every amount of unique tokens that a student saw.

    Blocks are in random order, so the stream's first n tokens stand for any n of them.
    """
    n_vocab, n_ctx = planned.text.n_vocab, planned.study.n_ctx
    student, validation = text.stream("student"), text.stream("validation")
    n_validation = validation.n_windows(n_ctx, planned.study.corpus.validation_tokens)
    seen = sorted({r.n_unique_tokens for r in planned.runs if r.run.role == "student"})
    return reference_lines(
        student.ids,
        seen or [student.n_inputs],
        n_vocab,
        validation.batch(np.arange(n_validation), n_ctx),
        test.stream.batch(np.arange(test.n_windows), n_ctx),
        text.masks,
    )


def _adopt_teachers(planned: Plan) -> None:
    """A loaded teacher joins the study as a run of its own; its weights stay where they are."""
    for facts in planned.teachers.values():
        target = planned.study.folder / facts.run_id / RECORD
        if facts.given is not None:
            write_json(target, record_of_given(planned, facts))
        elif facts.is_loaded:
            write_json(target, read_json(facts.folder / RECORD))


def _measure_missing(planned: Plan, text: Text, test: EvaluationSet, reporter: Reporter) -> None:
    groups = list(_groups(planned, text, test))
    if not groups:
        return
    speed = _latency(planned, {each.shape: each.source for _, group in groups for each in group})
    batch_tokens = planned.study.optimiser.batch_tokens
    shapes = dict.fromkeys(_all_shapes(groups))
    seconds = {shape: seconds_of_reading(shape, batch_tokens) for shape in shapes}
    tasks = [_group_task(teacher, group, test, speed, seconds) for teacher, group in groups]
    tasks.sort(key=lambda task: -task.seconds)
    with reporter.following(tasks) as on_tokens:
        on_cpu = planned.study.model_copy(update={"device": "cpu"})
        raise_for(LocalProcesses(n_workers(on_cpu)).run(tasks, on_tokens))


def _all_shapes(groups: Sequence[tuple[TeacherFacts | None, list[Subject]]]) -> Iterator[Costs]:
    for teacher, group in groups:
        if teacher is not None:
            yield teacher.shape
        yield from (subject.shape for subject in group)


def _groups(
    planned: Plan, text: Text, test: EvaluationSet
) -> Iterator[tuple[TeacherFacts | None, list[Subject]]]:
    """Unmeasured runs by teacher, the teachers themselves among those that have none."""
    read = {document.sha256: document.n_bytes for document in text.documents["student"]}
    overlaps = {facts: teachers.overlap(facts, read) for facts in planned.teachers.values()}
    by_teacher: dict[TeacherFacts | None, list[Subject]] = {}
    for run in planned.runs:
        folder = planned.study.folder / run.run_id
        if (folder / RECORD).exists():
            columns = {"teacher_overlap": overlaps[run.teacher] if run.teacher else None}
            subject = Subject(run.shape, folder / "model", folder, columns)
            by_teacher.setdefault(run.teacher, []).append(subject)
    for facts in planned.teachers.values():
        if facts.is_loaded:
            folder = planned.study.folder / facts.run_id
            subject = Subject(facts.shape, facts.model_folder, folder, {})
            by_teacher.setdefault(None, []).append(subject)
    for teacher, subjects in by_teacher.items():
        missing = [each for each in subjects if not _is_measured(each, teacher, test)]
        yield from ((teacher, group) for group in _divide(missing))


def _divide(subjects: Sequence[Subject]) -> Iterator[list[Subject]]:
    group: list[Subject] = []
    for subject in subjects:
        n_params = sum(each.shape.n_params for each in [*group, subject])
        if group and (len(group) == GROUP_RUNS or n_params > GROUP_PARAMS):
            yield group
            group = []
        group.append(subject)
    if group:
        yield group


def _is_measured(subject: Subject, teacher: TeacherFacts | None, test: EvaluationSet) -> bool:
    """Measured on this test set by this code, or beyond measuring because it diverged."""
    if read_record(subject.folder)["status"] == "diverged":
        return True
    file = subject.folder / EVALUATION
    return file.exists() and read_json(file).get("evaluation_sha256") == _identity(
        subject, teacher, test
    )


def _identity(subject: Subject, teacher: TeacherFacts | None, test: EvaluationSet) -> str:
    """Of what an evaluation depends on: the text, the weights, and the teacher's."""
    folders = [subject.folder, *([teacher.folder] if teacher else [])]
    weights = [read_record(folder).get("weights_sha256") for folder in folders]
    return digest([EVALUATION_RECIPE, test.stream.identity, test.n_windows, test.n_ctx, weights])


def _latency(planned: Plan, sources: Mapping[Costs, Path]) -> dict[str, dict[str, float | None]]:
    """Latency of each shape by its key, measured now in a process of its own."""
    file = planned.study.folder / "latency.json"
    known = read_json(file) if file.exists() else {}
    models = {_latency_key(shape): source for shape, source in sources.items()}
    models = {key: source for key, source in models.items() if key not in known}
    if models:
        study = planned.study
        arguments = (models, study.objective, study.n_ctx, file.with_suffix(".new.json"))
        task = Task("latency", latency.measure_shapes, arguments, 1e-6, 1)
        raise_for(LocalProcesses(1).run([task], lambda *_: None))
        known |= read_json(file.with_suffix(".new.json"))
        write_json(file, known)
        file.with_suffix(".new.json").unlink()
    return known


def _latency_key(shape: Costs) -> str:
    return f"{shape.name} of {shape.n_vocab} words, {shape.n_ctx} tokens"


def _group_task(
    teacher: TeacherFacts | None,
    group: list[Subject],
    test: EvaluationSet,
    speed: Mapping[str, Mapping[str, float | None]],
    seconds: Mapping[Costs, float],
) -> Task:
    """Every model of the group reads the test windows, and so does its teacher."""
    shapes = [subject.shape for subject in group] + ([teacher.shape] if teacher else [])
    with_speed = [
        replace(each, columns={**each.columns, **speed[_latency_key(each.shape)]}) for each in group
    ]
    return Task(
        name=f"evaluation of {group[0].folder.name} and {len(group) - 1} more",
        function=measure_group,
        arguments=(teacher, with_speed, test),
        seconds_per_token=sum(seconds[shape] for shape in shapes),
        n_tokens=test.n_tokens,
    )


def measure_group(
    teacher: TeacherFacts | None,
    group: Sequence[Subject],
    test: EvaluationSet,
    on_tokens: Callable[[int], None],
) -> None:
    """Score every run of a group on the test windows and write what was measured beside it."""
    torch.set_num_threads(1)
    taught_by = load_teacher(teacher) if teacher else None
    models = [_load(subject) for subject in group]
    measures = [Measures() for _ in group]
    of_teacher = Measures()
    for batch in test.batches(group[0].shape.n_vocab):
        with torch.inference_mode():
            said = None
            if taught_by is not None:
                teacher_bmv = heads.logits(taught_by, batch)
                of_teacher.add(teacher_bmv, batch.labels_bm, None)
                said = TeacherOutput.of(teacher_bmv)
            for model, measure in zip(models, measures, strict=True):
                measure.add(heads.logits(model, batch), batch.labels_bm, said)
        on_tokens(batch.inputs_bt.numel())
    shared = {
        "teacher_cross_entropy": of_teacher.columns(test)["cross_entropy"] if teacher else None,
        "n_test_tokens": test.n_tokens,
    }
    for subject, measure in zip(group, measures, strict=True):
        identity = {"evaluation_sha256": _identity(subject, teacher, test)}
        _write(subject, measure.columns(test) | shared | identity, measure)


def _load(subject: Subject) -> torch.nn.Module:
    objective = subject.shape.objective
    if isinstance(subject.shape, GivenModel):
        return load_given(subject.source, objective, subject.shape.n_vocab)
    return load_model(subject.source, objective)


def _write(subject: Subject, columns: dict[str, Any], measure: Measures) -> None:
    size_mb = sum(file.stat().st_size for file in weights_of(subject.source)) / 2**20
    losses = {"nll": torch.cat(measure.nll).numpy()}
    if measure.kl:
        losses["kl"] = torch.cat(measure.kl).numpy()
    partial = subject.folder / ".evaluation.partial.npz"
    np.savez(partial, **losses)  # type: ignore[arg-type]
    (subject.folder / EVALUATION).unlink(missing_ok=True)
    partial.replace(subject.folder / "evaluation.npz")
    write_json(subject.folder / EVALUATION, columns | subject.columns | {"size_mb": size_mb})
    if (subject.folder / CARD).exists():
        rewrite_card(subject.folder)
