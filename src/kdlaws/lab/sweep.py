"""A study's pending work, in order: teachers, their stored outputs, students, longest first."""

import fcntl
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

import torch
import yaml

from kdlaws.config import Study
from kdlaws.errors import AllDivergedError, ConfigError, InputError, KdlawsError
from kdlaws.lab import cache_build, teachers, tokens
from kdlaws.lab.cache import CacheSpec, is_complete
from kdlaws.lab.corpus import Split
from kdlaws.lab.executors import LocalProcesses, Task, n_workers
from kdlaws.lab.hooks import require_tensorboard
from kdlaws.lab.memory import PROCESS_MB, limit_mb, reading_mb, require_room, training_mb
from kdlaws.lab.online import OnlineSpec
from kdlaws.lab.probe import Rates, seconds_of_reading, seconds_per_token
from kdlaws.lab.progress import Reporter
from kdlaws.lab.streams import TokenStream
from kdlaws.lab.tokens import Text
from kdlaws.lab.trainer import TrunkJob, train_trunk
from kdlaws.records import PLAN, RECORD, read_record, write_json, write_text
from kdlaws.shapes import Costs, Shape
from kdlaws.study import Plan, PlannedRun, plan


def dry_run(study: Study) -> tuple[Plan, Rates]:
    """Every run, and the measured seconds per token of each shape, before anything is trained.

    Where no token stream exists yet, tokens are estimated from bytes. Teachers from elsewhere are
    fetched for it.
    """
    if tokens.tokens_exist(study):
        planned = plan_study(study, Text(study))
    else:
        estimated = tokens.estimated_facts(study)
        given = teachers.given_facts(
            study, None, n_vocab=estimated.n_vocab, tokenizer_sha256=estimated.tokenizer_sha256
        )
        planned = plan(study, estimated, given)
    return planned, seconds_per_token(map(_batch, planned.runs))


def _batch(run: PlannedRun) -> tuple[Shape, int]:
    return run.shape, run.run.batch_tokens


def train(study: Study, reporter: Reporter) -> Plan:
    """Train whatever the study lacks. Finished runs are never touched.

    Raises StoppedError when interrupted, AllDivergedError when no run reached its end, and
    KdlawsError when some runs failed; runs that landed are kept in each case.
    """
    if study.tensorboard:
        require_tensorboard()
    with _tasks(study) as tasks:
        _run(study, tasks.pending(), reporter)
        _raise_if_all_diverged(tasks.planned)
        return tasks.planned


def build_caches(study: Study, reporter: Reporter) -> list[CacheSpec]:
    """Store the outputs of the study's teachers, training those that are to be trained."""
    with _tasks(study) as tasks:
        _run(study, tasks.for_caches(), reporter)
        return tasks.cache_specs()


def cache_specs(study: Study) -> list[CacheSpec]:
    """The stored outputs that the study's students read. Raises InputError before any training."""
    if not (study.folder / PLAN).exists():
        raise InputError(
            "no study was started there", where=str(study.folder), remedy="run train.py first"
        )
    text = Text(study)
    return Tasks(plan_study(study, text), text, {}).cache_specs()


@contextmanager
def _tasks(study: Study) -> Iterator["Tasks"]:
    """The study's tasks, planned and written down, with its folder locked."""
    if study.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: torch finds no CUDA device", remedy="set device=cpu")
    study.folder.mkdir(parents=True, exist_ok=True)
    with study_lock(study.folder):
        text = Text(study)
        planned = plan_study(study, text)
        rates = seconds_per_token(map(_batch, planned.runs))
        _describe(planned, rates)
        yield Tasks(planned, text, rates)


def _run(study: Study, tasks: Sequence[Task], reporter: Reporter) -> None:
    limit = limit_mb(study)
    for task in tasks:
        require_room(task.name, task.memory_mb, limit)
    if tasks:
        with reporter.following(tasks) as on_tokens:
            failed = LocalProcesses(n_workers(study), limit, study.device).run(tasks, on_tokens)
        raise_for(failed)


def plan_study(study: Study, text: Text) -> Plan:
    """The plan against the text itself; the teachers' stream is made only if any is trained."""
    trains_teachers = any(teacher.size for teacher in study.teachers.values())
    tiers = {
        tier
        for block in study.students
        for tier in product(block.noise, block.quality)
        if tier != (0.0, "raw")
    }
    # Before a tier is made: its reference may be one of them.
    given = teachers.given_facts(
        study,
        text.tokenizer,
        n_vocab=len(text.tokenizer),
        tokenizer_sha256=text.tokenizer_sha256,
    )
    facts = text.facts(with_teachers=trains_teachers, tiers=sorted(tiers))
    planned = plan(study, facts, given)
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


def _describe(planned: Plan, rates: Rates) -> None:
    """study.yaml as it was resolved, and plan.json for those who ask what is missing."""
    folder = planned.study.folder
    settings = _without_places(planned.study.model_dump(mode="json"))
    write_text(folder / "study.yaml", yaml.safe_dump(settings, sort_keys=False))
    write_json(folder / PLAN, plan_rows(planned, rates))


def _without_places(settings: Any) -> Any:
    """Of a path of this machine only its last part: the file is shown, and may be published."""
    if isinstance(settings, dict):
        return {key: _without_places(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_without_places(value) for value in settings]
    is_place = isinstance(settings, str) and Path(settings).is_absolute()
    return Path(settings).name if is_place else settings


def plan_rows(planned: Plan, rates: Rates) -> list[dict[str, Any]]:
    """What is known of each run before training, with the seconds it would take alone."""
    return [
        planned.columns(run) | {"seconds": run.n_tokens * rates[_batch(run)]}
        for run in planned.runs
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
        raise AllDivergedError(
            "every run diverged", remedy="lower optimiser.learning_rate, or masked_rate if masked"
        )


@dataclass(frozen=True)
class Tasks:
    planned: Plan
    text: Text
    rates: Rates

    @property
    def study(self) -> Study:
        return self.planned.study

    def pending(self) -> list[Task]:
        """Teachers before all, then the caches that students wait for; each longest first."""
        jobs = self._open_jobs()
        students = [job for job in jobs if job.first.run.role == "student"]
        return [
            *self._teachers(jobs),
            *self._caches(_distinct(job.caches for job in students)),
            *_longest_first(map(self._trunk_task, students)),
        ]

    def for_caches(self) -> list[Task]:
        """The caches, and before them the teachers that are read for them."""
        specs = self.cache_specs()
        read = {spec.teacher.run_id for spec in specs}
        teachers = self._teachers(self._open_jobs())
        return [*(t for t in teachers if t.name in read), *self._caches(specs)]

    def cache_specs(self) -> list[CacheSpec]:
        return _distinct(self.job(trunk).caches for trunk in self.planned.trunks().values())

    def _open_jobs(self) -> list[TrunkJob]:
        """Trunks with branches to run; what others left behind is removed.

        Their sweep may have been killed just after the last record.
        """
        jobs = [self.job(branches) for branches in self.planned.trunks().values()]
        for job in jobs:
            if job.is_over():
                shutil.rmtree(job.trunk_folder, ignore_errors=True)
        return [job for job in jobs if not job.is_over()]

    def _teachers(self, jobs: Iterable[TrunkJob]) -> list[Task]:
        teachers = (job for job in jobs if job.first.run.role == "teacher")
        return _longest_first(map(self._trunk_task, teachers))

    def _caches(self, specs: Iterable[CacheSpec]) -> list[Task]:
        missing = (s for s in specs if not is_complete(s, self._cache_folder))
        return _longest_first(map(self._cache_task, missing))

    @property
    def _cache_folder(self) -> Path:
        return self.study.folder / "cache"

    def _trunk_task(self, job: TrunkJob) -> Task:
        cooldown = self.study.optimiser.cooldown_share
        missing = [branch for branch in job.branches if not job.is_done(branch)]
        n_tokens = sum(cooldown * branch.n_tokens for branch in missing)
        n_tokens += (1 - cooldown) * missing[-1].n_tokens
        return Task(
            name=job.first.run_id if job.first.run.role == "teacher" else job.first.trunk,
            function=train_trunk,
            arguments=(job,),
            seconds_per_token=self.rates[_batch(job.first)] + self._reading_s(job.teacher),
            n_tokens=int(n_tokens),
            memory_mb=self._memory_mb(job),
            requires=_requirements(job.teacher),
        )

    def _memory_mb(self, job: TrunkJob) -> int:
        needed = training_mb(*_batch(job.first), job.precision)
        if isinstance(job.teacher, OnlineSpec):
            needed += reading_mb(job.teacher.teacher.shape)
        return needed

    def _reading_s(self, spec: tuple[CacheSpec, ...] | OnlineSpec) -> float:
        """Seconds a token of a teacher beside its student."""
        return self._forward_s(spec.teacher.shape) if isinstance(spec, OnlineSpec) else 0.0

    def _forward_s(self, size: Costs) -> float:
        return seconds_of_reading(size, self.study.optimiser.batch_tokens)

    def _cache_task(self, spec: CacheSpec) -> Task:
        size = spec.teacher.shape
        return Task(
            name=_cache_name(spec),
            function=partial(cache_build.build, device=self.study.device),
            arguments=(spec, self._cache_folder),
            seconds_per_token=self._forward_s(size),
            n_tokens=spec.n_tokens,
            memory_mb=PROCESS_MB + reading_mb(size),
            requires=() if spec.teacher.is_loaded else (spec.teacher.run_id,),
        )

    def job(self, branches: list[PlannedRun]) -> TrunkJob:
        run = branches[0].run
        is_teacher = run.role == "teacher"
        split: Split = "teacher" if is_teacher else "student"
        stream = self.text.stream(split, run.noise, run.quality)
        return TrunkJob(
            branches=tuple(branches),
            columns={branch.run_id: self._columns(branch) for branch in branches},
            folder=self.study.folder,
            stream=stream,
            validation=self.text.stream("validation"),
            validation_tokens=self.study.corpus.validation_tokens,
            tokenizer=self.text.folder / "tokenizer.json",
            optimiser=self.study.optimiser,
            teacher=self._teacher_spec(branches),
            dtype=self._dtype(branches[0]),
            device=self.study.device,
            precision=self.study.matmul_precision,
            keep_checkpoints=self.study.keep_checkpoints,
            tensorboard=self.study.folder / "tensorboard" if self.study.tensorboard else None,
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

    def _teacher_spec(self, branches: Sequence[PlannedRun]) -> tuple[CacheSpec, ...] | OnlineSpec:
        """What the trunk reads of its teacher; of a masked stream a cache for each replica."""
        planned = branches[0]
        if planned.teacher is None:
            return ()
        stream = self.text.stream("student", planned.run.noise, planned.run.quality)
        settings = self.study.cache
        if settings.outputs == "online":
            validation = self.text.stream("validation")
            variance = settings.hidden_variance if planned.run.method == "embedding" else None
            return OnlineSpec(planned.teacher, stream, validation, self.study.n_ctx, variance)
        n_replicas = min(stream.n_replicas, max(map(_epochs_begun, branches)))
        return tuple(self._cache_spec(planned, stream, index) for index in range(n_replicas))

    def _cache_spec(self, planned: PlannedRun, stream: TokenStream, replica: int) -> CacheSpec:
        """Of a replica of a stream: all that its readers need."""
        assert planned.teacher is not None
        validation, n_ctx = self.text.stream("validation"), self.study.n_ctx
        settings, sharing = self.study.cache, self._sharing(planned, replica)
        temperatures = {r.run.temperature for r in sharing if r.run.temperature is not None}
        n_validation = validation.n_windows(n_ctx, self.study.corpus.validation_tokens)
        assert settings.outputs != "online"
        return CacheSpec(
            teacher=planned.teacher,
            stream=stream.replica(replica),
            validation=validation,
            tokenizer_sha256=self.planned.text.tokenizer_sha256,
            n_windows=max(other.n_windows for other in sharing),
            n_validation_windows=0 if replica else n_validation,
            n_ctx=n_ctx,
            temperatures=tuple(sorted(temperatures)),
            with_hidden=any(other.run.method == "embedding" for other in sharing),
            outputs=settings.outputs,
            draws=settings.draws,
            slices=settings.slices,
            k=settings.k,
            hidden_variance=settings.hidden_variance,
        )

    def _sharing(self, planned: PlannedRun, replica: int) -> list[PlannedRun]:
        """The runs that read what this one reads: those of its teacher, its stream, its replica."""
        return [
            other
            for other in self.planned.runs
            if other.teacher == planned.teacher
            and (other.run.noise, other.run.quality) == (planned.run.noise, planned.run.quality)
            and _epochs_begun(other) > replica
        ]


def _epochs_begun(planned: PlannedRun) -> int:
    """Passes over its text, the last one perhaps in part."""
    return math.ceil(planned.n_tokens / (planned.n_windows * planned.shape.n_ctx))


def _distinct(specs: Iterable[tuple[CacheSpec, ...]]) -> list[CacheSpec]:
    return list(dict.fromkeys(chain.from_iterable(specs)))


def _longest_first(tasks: Iterable[Task]) -> list[Task]:
    return sorted(tasks, key=lambda task: -task.seconds)


def _cache_name(spec: CacheSpec) -> str:
    return f"cache of {spec.name}"


def _requirements(teacher: tuple[CacheSpec, ...] | OnlineSpec) -> tuple[str, ...]:
    """The tasks that make what a student reads of its teacher."""
    if not isinstance(teacher, OnlineSpec):
        return tuple(map(_cache_name, teacher))
    return () if teacher.teacher.is_loaded else (teacher.teacher.run_id,)
