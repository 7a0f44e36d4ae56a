"""A study's pending work, in order: teachers, their stored outputs, students, longest first."""

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from kdlaws.config import Study
from kdlaws.errors import AllDivergedError, ConfigError, KdlawsError
from kdlaws.lab import cache, teachers, tokens
from kdlaws.lab.cache import CacheSpec
from kdlaws.lab.corpus import Split
from kdlaws.lab.executors import LocalProcesses, Task
from kdlaws.lab.probe import seconds_per_token
from kdlaws.lab.progress import Reporter
from kdlaws.lab.tokens import Text
from kdlaws.lab.trainer import TrunkJob, train_trunk
from kdlaws.records import PLAN, RECORD, read_record, write_json, write_text
from kdlaws.shapes import Shape
from kdlaws.study import Plan, PlannedRun, plan


def dry_run(study: Study) -> tuple[Plan, Mapping[Shape, float]]:
    """Every run, and the measured seconds per token of each shape, before anything is spent.

    Where no token stream exists yet, tokens are estimated as bytes / 3.6.
    """
    if tokens.tokens_exist(study):
        planned = plan_study(study, Text(study))
    else:
        planned = plan(study, tokens.estimated_facts(study))
    shapes = (run.shape for run in planned.runs)
    return planned, seconds_per_token(shapes, study.optimiser.batch_tokens)


def train(study: Study, reporter: Reporter) -> Plan:
    """Train whatever the study lacks. Finished runs are never touched.

    Raises StoppedError when interrupted, AllDivergedError when no run reached its end, and
    KdlawsError when some runs failed; runs that landed are kept in each case.
    """
    if study.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: torch finds no CUDA device", remedy="set device=cpu")
    study.folder.mkdir(parents=True, exist_ok=True)
    with study_lock(study.folder):
        text = Text(study)
        planned = plan_study(study, text)
        rates = seconds_per_token((r.shape for r in planned.runs), study.optimiser.batch_tokens)
        _describe(planned, rates)
        tasks = Tasks(planned, text, rates).pending()
        if tasks:
            with reporter.following(tasks) as on_tokens:
                failed = LocalProcesses(study.workers).run(tasks, on_tokens)
            raise_for(failed)
        _raise_if_all_diverged(planned)
    return planned


def plan_study(study: Study, text: Text) -> Plan:
    """The plan against the text itself; the teachers' stream is made only if any is trained."""
    trains_teachers = any(teacher.size for teacher in study.teachers.values())
    noise = {level for block in study.students for level in block.noise if level}
    planned = plan(study, text.facts(with_teachers=trains_teachers, noise=sorted(noise)))
    _check_long_enough(study, text)
    _check_held_out(planned, text)
    return planned


def _check_long_enough(study: Study, text: Text) -> None:
    splits: tuple[Split, ...] = ("validation", "test")
    for split in splits:
        if not text.stream(split).n_windows(study.n_ctx):
            raise ConfigError(
                f"corpus.{split}_share: its text is shorter than one sequence of {study.n_ctx}",
                remedy="take a larger share or corpus, or a smaller n_ctx",
            )


def _check_held_out(planned: Plan, text: Text) -> None:
    """A loaded teacher must not have read the text that runs are measured on."""
    measured_on = [*text.documents["validation"], *text.documents["test"]]
    n_bytes = {document.sha256: document.n_bytes for document in measured_on}
    for name, facts in planned.teachers.items():
        if facts.is_loaded and (share := teachers.overlap(facts, n_bytes)):
            raise ConfigError(
                f"teachers.{name}.run: {facts.run_id} was trained on {share:.0%} of this study's "
                "validation and test text",
                remedy="divide the corpus (its seed and shares) as the teacher's study did",
            )


@contextmanager
def study_lock(folder: Path) -> Iterator[None]:
    """One sweep at a time in a folder; the lock goes with the process that holds it."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KdlawsError(
                "another process is working on this study",
                where=str(folder),
                remedy="wait for it, or give this one another folder=...",
            ) from None
        yield


def _describe(planned: Plan, rates: Mapping[Shape, float]) -> None:
    """study.yaml as it was resolved, and plan.json for those who ask what is missing."""
    folder = planned.study.folder
    settings = planned.study.model_dump(mode="json")
    write_text(folder / "study.yaml", yaml.safe_dump(settings, sort_keys=False))
    write_json(folder / PLAN, plan_rows(planned, rates))


def plan_rows(planned: Plan, rates: Mapping[Shape, float]) -> list[dict[str, Any]]:
    """What is known of each run before training, with the seconds it would take alone."""
    return [
        planned.columns(run) | {"seconds": run.n_tokens * rates[run.shape]} for run in planned.runs
    ]


def raise_for(failed: Mapping[str, BaseException]) -> None:
    if failed:
        lines = [f"{name}: {type(error).__name__}: {error}" for name, error in failed.items()]
        raise KdlawsError(
            "\n  ".join([f"{len(failed)} tasks failed:", *lines]),
            remedy="the runs that landed are kept; the same command tries the others again",
        )


def _raise_if_all_diverged(planned: Plan) -> None:
    runs = [planned.study.folder / run.run_id for run in planned.runs]
    statuses = {read_record(run)["status"] for run in runs if (run / RECORD).exists()}
    if statuses == {"diverged"}:
        raise AllDivergedError("every run diverged", remedy="lower optimiser.learning_rate")


@dataclass(frozen=True)
class Tasks:
    planned: Plan
    text: Text
    rates: Mapping[Shape, float]

    @property
    def study(self) -> Study:
        return self.planned.study

    def pending(self) -> list[Task]:
        """Caches first, since students wait for them; teachers before all; then longest first."""
        jobs = [self.job(branches) for branches in self.planned.trunks().values()]
        open_jobs: list[TrunkJob] = []
        for job in jobs:
            if job.is_over():  # its sweep may have been killed just after the last record
                shutil.rmtree(job.trunk_folder, ignore_errors=True)
            else:
                open_jobs.append(job)
        specs = {job.cache.name: job.cache for job in open_jobs if job.cache}
        parent = self.study.folder / "cache"
        caches = [self._cache_task(s) for s in specs.values() if not (parent / s.name).exists()]
        trunks = [self._trunk_task(job) for job in open_jobs]
        teachers_first = [task for task in trunks if self._is_teacher(task)]
        students = [task for task in trunks if not self._is_teacher(task)]
        return [
            *sorted(teachers_first, key=lambda task: -task.seconds),
            *sorted(caches, key=lambda task: -task.seconds),
            *sorted(students, key=lambda task: -task.seconds),
        ]

    @staticmethod
    def _is_teacher(task: Task) -> bool:
        return bool(task.arguments[0].first.run.role == "teacher")

    def _trunk_task(self, job: TrunkJob) -> Task:
        cooldown = self.study.optimiser.cooldown_share
        missing = [branch for branch in job.branches if not job.is_done(branch)]
        n_tokens = sum(cooldown * branch.n_tokens for branch in missing)
        n_tokens += (1 - cooldown) * missing[-1].n_tokens
        return Task(
            name=job.first.run_id if job.first.run.role == "teacher" else job.first.trunk,
            function=train_trunk,
            arguments=(job,),
            seconds_per_token=self.rates[job.first.shape],
            n_tokens=int(n_tokens),
            requires=f"cache of {job.cache.name}" if job.cache else None,
        )

    def _cache_task(self, spec: CacheSpec) -> Task:
        size = spec.teacher.shape
        forward_share = size.forward_flops_per_token / size.training_flops_per_token
        rate = seconds_per_token([size], self.study.optimiser.batch_tokens)[size]
        return Task(
            name=f"cache of {spec.name}",
            function=cache.build,
            arguments=(spec, self.study.folder / "cache"),
            seconds_per_token=rate * forward_share,
            n_tokens=spec.n_tokens,
            requires=None if spec.teacher.is_loaded else spec.teacher.run_id,
        )

    def job(self, branches: list[PlannedRun]) -> TrunkJob:
        run = branches[0].run
        is_teacher = run.role == "teacher"
        stream = self.text.stream("teacher" if is_teacher else "student", run.noise)
        return TrunkJob(
            branches=tuple(branches),
            columns={branch.run_id: self._columns(branch) for branch in branches},
            folder=self.study.folder,
            stream=stream,
            validation=self.text.stream("validation"),
            validation_tokens=self.study.corpus.validation_tokens,
            tokenizer=self.text.folder / "tokenizer.json",
            optimiser=self.study.optimiser,
            cache=self._cache_spec(branches[0]),
            dtype=self._dtype(branches[0]),
            device=self.study.device,
        )

    def _dtype(self, planned: PlannedRun) -> str:
        if planned.run.role == "student":
            return "float32"
        return next(
            self.study.teachers[name].dtype
            for name, facts in self.planned.teachers.items()
            if facts.run_id == planned.run_id
        )

    def _columns(self, planned: PlannedRun) -> dict[str, Any]:
        columns = self.planned.columns(planned)
        if planned.run.role == "teacher":
            read = [document.sha256[:16] for document in self.text.documents["teacher"]]
            columns["training_documents"] = read
        return columns

    def _cache_spec(self, planned: PlannedRun) -> CacheSpec | None:
        """One cache for all the runs that share a teacher and a stream."""
        if planned.teacher is None:
            return None
        sharing = [
            other
            for other in self.planned.runs
            if other.teacher == planned.teacher and other.run.noise == planned.run.noise
        ]
        validation = self.text.stream("validation")
        temperatures = {r.run.temperature for r in sharing if r.run.temperature is not None}
        return CacheSpec(
            teacher=planned.teacher,
            stream=self.text.stream("student", planned.run.noise),
            validation=validation,
            n_validation_windows=validation.n_windows(
                self.study.n_ctx, self.study.corpus.validation_tokens
            ),
            prefixes=tuple(sorted({other.n_windows for other in sharing})),
            n_ctx=self.study.n_ctx,
            temperatures=tuple(sorted(temperatures)),
            with_hidden=any(other.run.method == "embedding" for other in sharing),
            draws=self.study.cache.draws,
            slices=self.study.cache.slices,
        )
