"""A Study becomes runs: which there are, how long each is, and what it is called.

``runs_of`` expands the study file. ``plan`` resolves each run against the text and the teachers,
giving step counts, FLOPs and identities. A run's name is a readable label and eight hex digits of
the SHA-256 of everything that changes its numbers; never of paths, names, device or workers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from kdlaws.config import Cache, Divergence, HeldOut, Method, Quality, Students, Study
from kdlaws.errors import ArtefactError, ConfigError
from kdlaws.records import RECORD, SCHEMA, WEIGHTS, digest, file_digest, read_record, read_run
from kdlaws.shapes import MASKED_SHARE, Costs, Flops, Objective, Shape, run_flops, shape

RECIPE = 2
"""Raised whenever the numerics of training change, so that old runs are not mistaken for new."""

BYTES_PER_TOKEN = 3.6
"""Assumed before any token stream exists: English text, small byte-level BPE."""


@dataclass(frozen=True)
class Run:
    """One run as the study file names it.

    ``passes`` is its length in epochs of its fraction, ``learning_rate`` the peak at base width.
    """

    role: Literal["student", "teacher"]
    size: str
    method: Method
    teacher: str | None
    kd_weight: float | None
    temperature: float | None
    divergence: Divergence | None
    jsd_beta: float | None
    embedding_weight: float | None
    fraction: float
    noise: float
    quality: Quality
    seed: int
    learning_rate: float
    batch_tokens: int
    passes: float


@dataclass(frozen=True)
class TextFacts:
    """What planning needs to know of the text.

    Tokens are estimated where ``bytes_per_token`` is given. ``kept`` is the curated tier's share of
    the students' text, ``curation`` the identity of all that decides which.
    """

    corpus: str
    corpus_sha256: str
    tokenizer: str
    tokenizer_sha256: str
    n_vocab: int
    n_student_tokens: int
    n_teacher_tokens: int
    bytes_per_token: float | None = None
    n_tier_tokens: Mapping[tuple[float, Quality], int] = field(default_factory=dict)
    kept: float = 1.0
    curation: str = ""

    @property
    def exact(self) -> bool:
        return self.bytes_per_token is None

    def student_tokens(self, noise: float, quality: Quality) -> int:
        """Tokens of the student's stream: scrambled text loses its line breaks, curated blocks."""
        share = self.kept if quality == "curated" else 1.0
        return self.n_tier_tokens.get((noise, quality), int(share * self.n_student_tokens))


@dataclass(frozen=True)
class TeacherFacts:
    """What planning needs to know of a teacher. ``identity`` enters the hash of its students.

    ``folder`` has its record, ``given`` is the folder of a model from elsewhere, and None where the
    model is a run's; a run's teacher is known not to have read the test text, or it is refused.
    ``n_tokens`` is None where nobody said what it was trained on.
    """

    run_id: str
    identity: str
    shape: Costs
    n_tokens: int | None
    tokenizer_sha256: str
    folder: Path
    given: Path | None = None
    heldout: HeldOut = "yes"
    hub_id: str | None = None
    revision: str | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether it comes from another study; its identity is then the hash of its weights."""
        return self.identity != self.run_id

    @property
    def model_folder(self) -> Path:
        return self.given or self.folder / "model"

    def weights_sha256(self) -> str | None:
        """What is recorded of its weights, None before it has been trained."""
        if self.given is not None:
            return self.identity
        sha256: str | None = read_record(self.folder).get("weights_sha256")
        return sha256


@dataclass(frozen=True)
class PlannedRun:
    """A run with everything resolved that can be known before it is paid for."""

    run: Run
    run_id: str
    trunk: str
    shape: Shape
    n_windows: int
    n_steps: int
    warmup_steps: int
    n_tokens: int
    n_unique_tokens: int
    teacher: TeacherFacts | None
    is_online: bool
    n_replicas: int

    @property
    def epochs(self) -> float:
        return self.n_tokens / self.n_unique_tokens

    @property
    def flops(self) -> Flops:
        """A learned map, if there is one, is taken to give all of the teacher's state."""
        is_mapped = self.run.method == "embedding"
        return self.flops_with_map(self.teacher.shape.d_model if self.teacher and is_mapped else 0)

    def flops_with_map(self, n_components: int) -> Flops:
        """With a learned map to that many components of the teacher's hidden state."""
        return run_flops(
            self.shape,
            self.n_tokens,
            self.n_unique_tokens,
            teacher=self.teacher.shape.at(self.shape.n_ctx) if self.teacher else None,
            teacher_n_tokens=self.teacher.n_tokens if self.teacher else 0,
            map_params=n_components * self.shape.d_model,
            is_online=self.is_online,
            n_replicas=self.n_replicas,
        )


@dataclass(frozen=True)
class Plan:
    """Every run of a study, resolved: teachers first, then students in the file's order."""

    study: Study
    text: TextFacts
    teachers: Mapping[str, TeacherFacts]
    runs: tuple[PlannedRun, ...]

    def trunks(self) -> dict[str, list[PlannedRun]]:
        """The branches of each trunk, shortest first."""
        grouped: dict[str, list[PlannedRun]] = {}
        for planned in self.runs:
            grouped.setdefault(planned.trunk, []).append(planned)
        return {trunk: sorted(each, key=lambda r: r.n_steps) for trunk, each in grouped.items()}

    def columns(self, planned: PlannedRun) -> dict[str, Any]:
        """The contract's columns that are known before training, and what identifies the run."""
        return _columns(self, planned)


def runs_of(study: Study) -> list[Run]:
    """Every student run that the blocks ask for, each once, in the order of the file."""
    runs: dict[Run, None] = {}
    for block in study.students:
        for each in _runs_of_block(block, study):
            runs.setdefault(each)
    return list(runs)


def _runs_of_block(block: Students, study: Study) -> Iterable[Run]:
    batches = block.batch_tokens or (study.optimiser.batch_tokens,)
    models = product(block.sizes, block.methods, block.fractions)
    texts = product(block.noise, block.quality, block.seeds, batches)
    for (size, method, fraction), (noise, quality, seed, batch_tokens) in product(models, texts):
        rates = block.learning_rate or (_peak_rate(study, size, method),)
        for setting, rate, passes in product(
            _settings(block, method), rates, study.epochs[fraction]
        ):
            yield Run(
                role="student",
                size=size,
                method=method,
                **setting,
                fraction=fraction,
                noise=noise,
                quality=quality,
                seed=seed,
                learning_rate=rate,
                batch_tokens=batch_tokens,
                passes=passes,
            )


def _peak_rate(study: Study, size: str, method: Method) -> float:
    """Causal rates carry over from the base width; each masked size has its own."""
    if study.objective == "causal":
        return study.optimiser.learning_rate[method]
    if size not in study.optimiser.masked_rate:
        raise ConfigError(
            f"optimiser.masked_rate: there is none for {size}, and nobody has tuned it",
            remedy=f"give optimiser.masked_rate.{size}",
        )
    return study.optimiser.masked_rate[size]


_NO_TEACHER: dict[str, Any] = dict.fromkeys(
    (*("teacher", "kd_weight", "temperature"), *("divergence", "jsd_beta", "embedding_weight"))
)


def _settings(block: Students, method: Method) -> Iterable[dict[str, Any]]:
    """Combinations of the settings that the method reads; the others are None."""
    lists: dict[str, Iterable[Any]] = {}
    if method != "scratch":
        lists["teacher"] = block.teachers
    if method == "token":
        lists |= {"kd_weight": block.kd_weight, "temperature": block.temperature}
        lists["divergence"] = block.divergence
    if method == "embedding":
        lists["embedding_weight"] = block.embedding_weight
    for values in product(*lists.values()):
        setting = _NO_TEACHER | dict(zip(lists, values, strict=True))
        betas = block.jsd_beta if setting["divergence"] == "jensen_shannon" else [None]
        yield from ({**setting, "jsd_beta": beta} for beta in betas)


def load_teacher_facts(
    name: str,
    folder: Path,
    objective: Objective = "causal",
    masked_share: float = MASKED_SHARE,
) -> TeacherFacts:
    """A teacher that is a finished run's folder: its record, and the hash of its weights."""
    weights = folder / WEIGHTS
    if not (folder / RECORD).exists() or not weights.exists():
        raise ConfigError(
            f"teachers.{name}.run: {folder} is not the folder of a finished run",
            remedy=f"it needs {RECORD} and {WEIGHTS}; `make teachers` makes ours",
        )
    record, sha256 = read_run(folder), file_digest(weights)
    if record.get("weights_sha256") != sha256:
        raise ArtefactError(
            f"these are not the weights that {RECORD} was written for",
            where=str(weights),
            remedy="restore the file, or train the teacher again",
        )
    if record.get("objective") != objective:
        raise ConfigError(
            f"teachers.{name}.run: {folder} is {record.get('objective')}, the study {objective}",
            remedy="set objective, or take another teacher",
        )
    try:
        return TeacherFacts(
            run_id=record["run_id"],
            identity=sha256,
            shape=shape(
                record["size"],
                n_vocab=record["n_vocab"],
                n_ctx=record["n_ctx"],
                objective=objective,
                masked_share=masked_share,
            ),
            n_tokens=record["n_tokens"],
            tokenizer_sha256=record["tokenizer_sha256"],
            folder=folder,
        )
    except KeyError as error:
        raise ArtefactError(f"has no {error}", where=str(folder / RECORD)) from None


def plan(study: Study, text: TextFacts, given: Mapping[str, TeacherFacts] | None = None) -> Plan:
    """Resolve every run of the study. Raises ConfigError where the text is too small for it.

    ``given`` are the teachers that are models from elsewhere, by their names in the study.
    """
    teacher_runs = [_plan_teacher(study, text, name) for name in study.teachers]
    teachers = {
        name: (given or {}).get(name) or _teacher_facts(study, text, name, planned)
        for name, planned in zip(study.teachers, teacher_runs, strict=True)
    }
    students = [_plan_student(study, text, teachers, run) for run in runs_of(study)]
    trained = [planned for planned in teacher_runs if planned is not None]
    return Plan(study, text, teachers, (*trained, *students))


def _teacher_facts(
    study: Study, text: TextFacts, name: str, planned: PlannedRun | None
) -> TeacherFacts:
    if planned is not None:
        return TeacherFacts(
            planned.run_id,
            planned.run_id,
            planned.shape,
            planned.n_tokens,
            text.tokenizer_sha256,
            study.folder / planned.run_id,
        )
    folder = study.teachers[name].run
    assert folder is not None
    facts = load_teacher_facts(name, folder, study.objective, study.masking.share)
    _check_teacher(name, facts, study, text)
    return facts


def _check_teacher(name: str, facts: TeacherFacts, study: Study, text: TextFacts) -> None:
    if text.exact and facts.tokenizer_sha256 != text.tokenizer_sha256:
        raise ConfigError(
            f"teachers.{name}.run: {facts.run_id} was trained with another tokenizer "
            f"({facts.tokenizer_sha256[:8]}) than the study's ({text.tokenizer_sha256[:8]})",
            remedy=f"set tokenizer.path to {facts.folder / 'model'}, or train the teacher again",
        )
    if facts.shape.n_ctx < study.n_ctx:
        raise ConfigError(
            f"teachers.{name}.run: {facts.run_id} reads {facts.shape.n_ctx} tokens at once, fewer "
            f"than n_ctx = {study.n_ctx}",
            remedy=f"set n_ctx to {facts.shape.n_ctx} or less",
        )


def _plan_teacher(study: Study, text: TextFacts, name: str) -> PlannedRun | None:
    teacher = study.teachers[name]
    if teacher.size is None or teacher.n_tokens is None:
        return None
    n_windows = text.n_teacher_tokens // study.n_ctx
    if n_windows * study.n_ctx < study.optimiser.batch_tokens:
        raise ConfigError(
            f"teachers.{name}: teachers may read {text.n_teacher_tokens} tokens, less than a batch",
            remedy="raise corpus.teacher_share, or take a larger corpus",
        )
    run = Run(
        role="teacher",
        size=teacher.size,
        method="scratch",
        **_NO_TEACHER,
        fraction=1.0,
        noise=0.0,
        quality="raw",
        seed=teacher.seed,
        learning_rate=_peak_rate(study, teacher.size, "scratch"),
        batch_tokens=study.optimiser.batch_tokens,
        passes=1.0,
    )
    n_steps = max(1, teacher.n_tokens // run.batch_tokens)
    return _planned(study, text, run, n_windows, n_steps, n_steps, None, dtype=teacher.dtype)


def _plan_student(
    study: Study, text: TextFacts, teachers: Mapping[str, TeacherFacts], run: Run
) -> PlannedRun:
    n_windows = _windows(study, text, run)
    n_tokens = n_windows * study.n_ctx
    n_steps = _steps(n_tokens, run.passes, run.batch_tokens)
    shortest = _steps(n_tokens, study.epochs[run.fraction][0], run.batch_tokens)
    teacher = teachers[run.teacher] if run.teacher else None
    return _planned(study, text, run, n_windows, n_steps, shortest, teacher)


def _windows(study: Study, text: TextFacts, run: Run) -> int:
    """Sequences in a fraction of the student's slice: a prefix of its stream."""
    available, fraction = text.student_tokens(run.noise, run.quality), run.fraction
    slice_tokens = min(study.corpus.slice_tokens or available, available)
    n_windows = int(fraction * (slice_tokens // study.n_ctx))
    if n_windows * study.n_ctx < run.batch_tokens:
        raise ConfigError(
            f"students: fraction {fraction:g} of {slice_tokens} tokens is less than one batch of "
            f"{run.batch_tokens}",
            remedy="take a larger corpus, corpus.slice_tokens or fraction",
        )
    return n_windows


def _steps(n_tokens: int, passes: float, batch_tokens: int) -> int:
    return max(1, int(passes * n_tokens / batch_tokens))


def _planned(
    study: Study,
    text: TextFacts,
    run: Run,
    n_windows: int,
    n_steps: int,
    shortest: int,
    teacher: TeacherFacts | None,
    dtype: str = "float32",
) -> PlannedRun:
    size = shape(
        run.size,
        n_vocab=text.n_vocab,
        n_ctx=study.n_ctx,
        objective=study.objective,
        masked_share=study.masking.share,
    )
    warmup_steps = max(1, int(study.optimiser.warmup_share * shortest))
    identity = _identity(study, text, run, size, n_windows, warmup_steps, teacher)
    trunk_hash = digest(identity)
    run_hash = digest({"trunk": trunk_hash, "n_steps": n_steps, "dtype": dtype})
    n_tokens = n_steps * run.batch_tokens
    label = _label(run)
    return PlannedRun(
        run=run,
        run_id=f"{label}-{_length(run, n_tokens)}-{run_hash[:8]}",
        trunk=f"{label}-{trunk_hash[:8]}",
        shape=size,
        n_windows=n_windows,
        n_steps=n_steps,
        warmup_steps=warmup_steps,
        n_tokens=n_tokens,
        n_unique_tokens=min(n_tokens, n_windows * study.n_ctx),
        teacher=teacher,
        is_online=teacher is not None and study.cache.outputs == "online",
        n_replicas=study.masking.replicas if study.objective == "masked" else 1,
    )


def _identity(
    study: Study,
    text: TextFacts,
    run: Run,
    size: Shape,
    n_windows: int,
    warmup_steps: int,
    teacher: TeacherFacts | None,
) -> dict[str, Any]:
    """Everything that changes a trunk's numbers, and nothing else."""
    optimiser = study.optimiser.model_dump()
    optimiser["learning_rate"] = run.learning_rate
    optimiser["batch_tokens"] = run.batch_tokens
    optimiser["warmup_steps"] = warmup_steps
    del optimiser["warmup_share"], optimiser["masked_rate"]
    return {
        "recipe": RECIPE,
        "objective": study.objective,
        "role": run.role,
        "shape": [size.d_model, size.n_layers, size.head_dim, size.n_vocab, size.n_ctx],
        "method": run.method,
        "weights": [run.kd_weight, run.temperature, run.embedding_weight],
        "divergence": [run.divergence, run.jsd_beta],
        "corpus": text.corpus_sha256,
        "tokenizer": text.tokenizer_sha256,
        "n_windows": n_windows,
        "noise": run.noise,
        "seed": run.seed,
        "optimiser": optimiser,
        "teacher": teacher.identity if teacher else None,
        "cache": study.cache.model_dump(include=_read_of_cache(study.cache, run.method)),
        "precision": study.matmul_precision,
        # It steers which branches are run, and which is selected.
        **({"validation_tokens": study.corpus.validation_tokens} if run.role == "student" else {}),
        **({"masking": study.masking.model_dump()} if study.objective == "masked" else {}),
        **({"curated": text.curation} if run.quality == "curated" else {}),
    }


def _read_of_cache(cache: Cache, method: Method) -> set[str]:
    """The settings of the teacher's outputs that change a run's numbers."""
    if method == "embedding":
        return {"hidden_variance"} | ({"outputs"} if cache.outputs == "online" else set())
    if method == "token":
        kinds = {"sampled": {"draws", "slices"}, "top_k": {"k"}, "online": set()}
        return {"outputs"} | kinds[cache.outputs]
    return set()


def _label(run: Run) -> str:
    parts = [
        "teacher" if run.role == "teacher" else run.method,
        run.size.replace("/", "x"),
        "" if run.role == "teacher" else f"f{run.fraction:g}",
        f"n{run.noise:g}" if run.noise else "",
        "" if run.quality == "raw" else run.quality,
        f"s{run.seed}",
    ]
    return "-".join(part for part in parts if part)


def _length(run: Run, n_tokens: int) -> str:
    return f"{n_tokens // 1000}k" if run.role == "teacher" else f"e{run.passes:g}"


def _teacher_outputs(cache: Cache, method: Method) -> str | None:
    if method == "scratch":
        return None
    return "stored" if method == "embedding" and cache.outputs != "online" else cache.outputs


def record_of_given(plan: Plan, facts: TeacherFacts) -> dict[str, Any]:
    """The record of a teacher from elsewhere: what is known of a model that others trained.

    Its text and tokenizer are those that it is measured with here.
    """
    size = facts.shape
    return {
        "schema": SCHEMA,
        "run_id": facts.run_id,
        "study": plan.study.name,
        "role": "teacher",
        "objective": plan.study.objective,
        "masked_share": plan.study.masking.share if size.objective == "masked" else None,
        "init": "given",
        "corpus": plan.text.corpus,
        "tokenizer": plan.text.tokenizer,
        "tokenizer_sha256": plan.text.tokenizer_sha256,
        "n_vocab": size.n_vocab,
        "n_ctx": size.n_ctx,
        "n_params": size.n_params,
        "n_params_non_embedding": size.n_params_non_embedding,
        "n_params_head": size.n_params_head,
        "n_tokens": facts.n_tokens,
        "teacher_heldout": facts.heldout,
        "model": facts.hub_id,
        "revision": facts.revision,
        "forward_flops_per_token": size.forward_flops_per_token,
        "weights_sha256": facts.identity,
        "status": "done",
    }


def _columns(plan: Plan, planned: PlannedRun) -> dict[str, Any]:
    run, size, teacher, flops = planned.run, planned.shape, planned.teacher, planned.flops
    return {
        "schema": SCHEMA,
        "run_id": planned.run_id,
        "study": plan.study.name,
        "role": run.role,
        "objective": plan.study.objective,
        "method": run.method,
        "kd_weight": run.kd_weight,
        "temperature": run.temperature,
        "embedding_weight": run.embedding_weight,
        "divergence": run.divergence,
        "jsd_beta": run.jsd_beta,
        "teacher_outputs": _teacher_outputs(plan.study.cache, run.method),
        "cache": plan.study.cache.model_dump(include=_read_of_cache(plan.study.cache, run.method)),
        "precision": plan.study.matmul_precision,
        "init": "random",
        "corpus": plan.text.corpus,
        "corpus_sha256": plan.text.corpus_sha256,
        "tokenizer": plan.text.tokenizer,
        "tokenizer_sha256": plan.text.tokenizer_sha256,
        "fraction": run.fraction,
        "noise": run.noise,
        "quality": run.quality,
        "kept": plan.text.kept if run.quality == "curated" else 1.0,
        "size": run.size,
        "n_vocab": size.n_vocab,
        "n_ctx": size.n_ctx,
        "n_params": size.n_params,
        "n_params_non_embedding": size.n_params_non_embedding,
        "n_params_head": size.n_params_head,
        "n_tokens": planned.n_tokens,
        "n_unique_tokens": planned.n_unique_tokens,
        "n_targets": planned.n_tokens // size.n_ctx * size.n_targets,
        "masked_share": size.masked_share if size.objective == "masked" else None,
        "mask_replicas": planned.n_replicas if size.objective == "masked" else None,
        "epochs": planned.epochs,
        "n_steps": planned.n_steps,
        "batch_tokens": run.batch_tokens,
        "learning_rate": run.learning_rate,
        "seed": run.seed,
        "trunk": planned.trunk,
        "teacher": teacher.run_id if teacher else None,
        "teacher_n_params": teacher.shape.n_params if teacher else None,
        "teacher_n_params_non_embedding": (
            teacher.shape.n_params_non_embedding if teacher else None
        ),
        "teacher_n_tokens": teacher.n_tokens if teacher else None,
        "teacher_heldout": teacher.heldout if teacher else None,
        "teacher_model": teacher.hub_id if teacher else None,
        "student_flops": flops.student,
        "teacher_inference_flops": flops.teacher_inference,
        "teacher_training_flops": flops.teacher_training,
        "cache_saved_flops": flops.cache_saved,
        "forward_flops_per_token": size.forward_flops_per_token,
        "recipe": RECIPE,
    }
