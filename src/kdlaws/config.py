"""The study file: YAML -> a strict, frozen Study. The only place where defaults live.

Order: the defaults below < the file < ``key=value`` overrides with dotted keys
(``optimiser.weight_decay=0``, ``students.0.sizes=[32/1]``).
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from kdlaws.errors import ConfigError
from kdlaws.quantities import parse_number
from kdlaws.shapes import MASKED_SHARE, Objective, shape

Method = Literal["scratch", "token", "embedding"]
Outputs = Literal["sampled", "top_k", "online"]
Precision = Literal["float32", "bfloat16"]
METHODS: tuple[Method, ...] = ("scratch", "token", "embedding")
Quality = Literal["raw", "curated"]
HeldOut = Literal["yes", "no", "unknown"]
Divergence = Literal["forward_kl", "reverse_kl", "jensen_shannon"]


def _count(value: Any) -> int:
    number = parse_number(value)
    if not number.is_integer():
        raise ValueError("a whole number is needed")
    return int(number)


def _listed(value: Any) -> Any:
    """A single value stands for a list of one."""
    return value if isinstance(value, (list, tuple)) else (value,)


Count = Annotated[int, BeforeValidator(_count)]
Number = Annotated[float, BeforeValidator(parse_number), Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Number, Field(gt=0)]
PositiveCount = Annotated[Count, Field(gt=0)]
Seed = Annotated[Count, Field(ge=0)]


def _checked_size(size: Any) -> str:
    if not isinstance(size, str):
        raise ValueError("a size is text such as 96/3 or 25M")
    try:
        return shape(size).name
    except ConfigError as error:
        raise ValueError(f"{error.what}; {error.remedy}") from None


Size = Annotated[str, BeforeValidator(_checked_size)]
Several = BeforeValidator(_listed)
Passes = Annotated[tuple[Positive, ...], Several, Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


NAMED_CORPORA = ("sotu", "wikitext-2", "wikitext-103")


class Curation(Strict):
    """The curated tier of the students' text: its best blocks, and each of them once."""

    reference: str = Field(description="the teacher whose loss ranks the blocks: one not trained")
    keep: Annotated[Share, Field(gt=0)] = Field(0.5, description="share of the blocks, best first")
    near_duplicates: Annotated[Share, Field(gt=0)] | None = Field(
        0.8, description="Jaccard similarity from which a block is a duplicate; null: none is"
    )


class Corpus(Strict):
    """Where the text comes from, and how its documents are divided."""

    source: str = Field(
        "sotu",
        description="sotu, wikitext-2, wikitext-103; or a text, JSON-lines or Parquet file, or a "
        "folder of them, or of WikiText's own files",
    )
    field: str = Field("text", description="of JSON-lines and Parquet records")
    seed: Seed = Field(0, description="of the split, and of the order of the blocks")
    teacher_share: Share = Field(0.0, description="share of the text kept for teachers")
    validation_share: Annotated[Share, Field(gt=0)] = Field(
        0.03, description="share of the text that steers choices"
    )
    test_share: Annotated[Share, Field(gt=0)] = Field(
        0.05, description="share of the text that is reported"
    )
    block_tokens: PositiveCount = Field(256, description="blocks end at the next paragraph end")
    slice_tokens: PositiveCount | None = Field(
        None, description="tokens that fraction 1 stands for; null: all that students may read"
    )
    validation_tokens: PositiveCount = Field(16_384, description="tokens of it that are used")
    test_tokens: PositiveCount = Field(65_536, description="tokens of it that are used")
    curation: Curation | None = Field(None, description="what quality: curated means")

    @model_validator(mode="after")
    def _leaves_text_for_students(self) -> Self:
        taken = self.teacher_share + self.validation_share + self.test_share
        if taken >= 1:
            raise ValueError(
                f"the three shares leave nothing for students: they add up to {taken:g}"
            )
        return self


class Tokenizer(Strict):
    """That of a teacher from elsewhere, or a given one, or a BPE trained on the training text."""

    path: Path | None = Field(None, description="a tokenizer.json, or a folder that holds one")
    n_vocab: Annotated[PositiveCount, Field(ge=258, le=65_536)] = Field(
        1024, description="entries, when it is trained"
    )


class Teacher(Strict):
    """A teacher: a finished run, a model from elsewhere, or a size that the study trains."""

    run: Path | None = Field(None, description="folder of a finished run")
    model: str | None = Field(
        None, description="a Hugging Face model: a local folder, or the id of one on the Hub"
    )
    revision: str | None = Field(None, description="of model on the Hub: a commit, tag or branch")
    gguf_file: str | None = Field(None, description="file of model that holds its weights as GGUF")
    heldout: HeldOut = Field("unknown", description="whether model has never seen the test text")
    size: Size | None = Field(None, description="a size to train")
    n_tokens: PositiveCount | None = Field(
        None, description="tokens to train it on; of model: those it was trained on, if known"
    )
    seed: Seed = 0
    dtype: Literal["float32", "float16"] = Field("float32", description="of the saved weights")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(way is not None for way in (self.run, self.model, self.size)) != 1:
            raise ValueError(
                "give one of run (a finished run's folder), model (a Hugging Face model), or size "
                "and n_tokens"
            )
        if self.size is not None and self.n_tokens is None:
            raise ValueError("a teacher that is trained needs n_tokens")
        for key in ("revision", "gguf_file"):
            if getattr(self, key) is not None and self.model is None:
                raise ValueError(f"{key} belongs to model")
        return self


class Students(Strict):
    """A block of runs: every combination of its lists. Blocks may overlap; a run is done once."""

    sizes: Annotated[tuple[Size, ...], Several, Field(min_length=1)]
    methods: Annotated[tuple[Method, ...], Several, Field(min_length=1)]
    fractions: Annotated[
        tuple[Annotated[Number, Field(gt=0, le=1)], ...], Several, Field(min_length=1)
    ] = (1.0,)
    teachers: Annotated[tuple[str, ...], Several] = ()
    kd_weight: Annotated[
        tuple[Annotated[Share, Field(gt=0)], ...], Several, Field(min_length=1)
    ] = (1.0,)
    temperature: Annotated[tuple[Positive, ...], Several, Field(min_length=1)] = (1.0,)
    divergence: Annotated[tuple[Divergence, ...], Several, Field(min_length=1)] = Field(
        ("forward_kl",), description="of the teacher's distribution and the student's"
    )
    jsd_beta: Annotated[
        tuple[Annotated[Number, Field(gt=0, lt=1)], ...], Several, Field(min_length=1)
    ] = Field((0.5,), description="the teacher's share in jensen_shannon's mixture")
    embedding_weight: Annotated[tuple[Positive, ...], Several, Field(min_length=1)] = (3.0,)
    noise: Annotated[tuple[Share, ...], Several, Field(min_length=1)] = (0.0,)
    quality: Annotated[tuple[Quality, ...], Several, Field(min_length=1)] = ("raw",)
    seeds: Annotated[tuple[Seed, ...], Several, Field(min_length=1)] = (0,)
    learning_rate: Annotated[tuple[Positive, ...], Several] = Field(
        (), description="peak rates; if none is given, optimiser.learning_rate or masked_rate"
    )
    batch_tokens: Annotated[tuple[PositiveCount, ...], Several] = Field(
        (), description="optimiser.batch_tokens if none is given"
    )


MASKED_RATES: dict[str, float] = {"32/1": 0.002, "64/2": 0.001, "96/3": 0.001, "128/4": 0.001}
"""Tried on the embedded corpus; how far each is tuned: benchmarks/masked.md."""


class Optimiser(Strict):
    """AdamW in the parametrisation of ``lab/students.py``; rates are those of the base width."""

    learning_rate: dict[Method, Positive] = Field(
        {"scratch": 0.01, "token": 0.01, "embedding": 0.01},
        description="causal: peak rate, one for all methods or one each",
    )
    masked_rate: dict[Size, Positive] = Field(
        MASKED_RATES,
        description="masked: peak rate of each size; BERT's parametrisation carries none over",
    )
    batch_tokens: PositiveCount = 256
    weight_decay: Annotated[Number, Field(ge=0)] = 0.02
    clip: Positive = Field(1.0, description="norm that gradients are clipped to")
    warmup_share: Annotated[Share, Field(le=0.1)] = Field(
        0.1, description="of the shortest branch's steps"
    )
    cooldown_share: Annotated[Share, Field(gt=0, lt=1)] = Field(
        0.2, description="last share of each branch, 1-sqrt to zero"
    )

    @field_validator("learning_rate", mode="before")
    @classmethod
    def _one_for_all(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {**cls.model_fields["learning_rate"].default, **value}
        return dict.fromkeys(METHODS, value)

    @field_validator("masked_rate", mode="before")
    @classmethod
    def _beside_the_tuned(cls, value: Any) -> Any:
        return {**MASKED_RATES, **value} if isinstance(value, Mapping) else value


class Masking(Strict):
    """Which tokens a masked model predicts: BERT's rule, drawn again for every replica."""

    share: Annotated[Share, Field(gt=0, lt=1)] = Field(
        MASKED_SHARE, description="of each sequence's tokens"
    )
    replicas: PositiveCount = Field(4, description="epoch e reads the masks of replica e mod this")


class Cache(Strict):
    """Teacher outputs: computed once and stored, or beside each student."""

    outputs: Outputs = Field(
        "sampled",
        description="sampled: unbiased (Anshumann 2025, 2503.16870); top_k: biased; online",
    )
    draws: Annotated[PositiveCount, Field(le=255)] = Field(
        64, description="sampled: ids a token and epoch"
    )
    slices: PositiveCount = Field(2, description="sampled: epochs with draws of their own")
    k: PositiveCount = Field(64, description="top_k: ids a token; the others are one bucket")
    hidden_variance: Annotated[Share, Field(gt=0)] = Field(
        0.99, description="share of the hidden states' variance that is stored"
    )


class Study(Strict):
    """A study: which teachers and students, on what text, trained and measured how."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    folder: Path = Field(
        Path(), validate_default=True, description="where runs go; runs/<name> if not given"
    )
    objective: Objective = "causal"
    masking: Masking = Masking()
    n_ctx: Annotated[PositiveCount, Field(ge=8)] = Field(128, description="tokens in a sequence")
    corpus: Corpus = Corpus()
    tokenizer: Tokenizer = Tokenizer()
    teachers: dict[str, Teacher] = {}
    students: tuple[Students, ...] = ()
    epochs: dict[Annotated[Number, Field(gt=0, le=1)], Passes] = Field(
        {1.0: (0.33, 0.58, 1.0)},
        description="for each fraction, how many passes; each is a branch of one trunk",
    )
    optimiser: Optimiser = Optimiser()
    cache: Cache = Cache()
    workers: PositiveCount | None = Field(
        None, description="processes; null: one for each core, or for each GPU"
    )
    memory_mb: PositiveCount | None = Field(
        None, description="of all workers together; null: 0.8 of the machine's"
    )
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision | None = Field(
        None, description="of matrix products; null: float32 on a CPU, bfloat16 on a GPU"
    )
    keep_checkpoints: PositiveCount = Field(2, description="of an unfinished trunk")
    tensorboard: bool = Field(False, description="write training metrics for it, too")

    @property
    def matmul_precision(self) -> Precision:
        return self.precision or ("bfloat16" if self.device == "cuda" else "float32")

    @field_validator("folder", mode="after")
    @classmethod
    def _default_folder(cls, folder: Path, info: ValidationInfo) -> Path:
        return folder if folder != Path() else Path("runs") / info.data.get("name", "")

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        for index, block in enumerate(self.students):
            where = f"students.{index}"
            _require_known(f"{where}.teachers", block.teachers, self.teachers)
            _require_known(f"{where}.fractions", block.fractions, self.epochs)
            if set(block.methods) - {"scratch"} and not block.teachers:
                raise ValueError(f"{where}.teachers: {', '.join(block.methods)} need a teacher")
            _require_whole_distribution(where, block, self.cache.outputs)
            if "curated" in block.quality and self.corpus.curation is None:
                raise ValueError(f"{where}.quality: curated needs corpus.curation")
            for batch_tokens in block.batch_tokens:
                _require_whole_windows(f"{where}.batch_tokens", batch_tokens, self.n_ctx)
        for fraction, levels in self.epochs.items():
            if any(low >= high for low, high in pairwise(levels)):
                raise ValueError(f"epochs.{fraction:g}: passes must increase, not {levels}")
        _require_whole_windows("optimiser.batch_tokens", self.optimiser.batch_tokens, self.n_ctx)
        for key in ("validation_tokens", "test_tokens"):
            if getattr(self.corpus, key) < self.n_ctx:
                raise ValueError(f"corpus.{key}: is less than one sequence of {self.n_ctx}")
        trained = [name for name, teacher in self.teachers.items() if teacher.size]
        if trained and self.corpus.teacher_share == 0:
            raise ValueError(
                f"corpus.teacher_share: is 0, but teachers.{trained[0]} is to be trained on it"
            )
        _require_fixed_reference(self.corpus.curation, self.teachers)
        if not (self.students or self.teachers):
            raise ValueError("students: the study has neither students nor teachers")
        return self


def _require_known(where: str, names: Iterable[Any], known: Mapping[Any, Any]) -> None:
    for name in names:
        if name not in known:
            allowed = ", ".join(str(each) for each in known) or "none is defined"
            raise ValueError(f"{where}: unknown {name!r}; allowed: {allowed}")


def _require_fixed_reference(curation: Curation | None, teachers: Mapping[str, Teacher]) -> None:
    """Blocks are ranked when the study is planned, so by a model that is there by then."""
    if curation is None:
        return
    where = "corpus.curation.reference"
    _require_known(where, [curation.reference], teachers)
    if teachers[curation.reference].size:
        raise ValueError(f"{where}: {curation.reference} is to be trained; give one that exists")


def _require_whole_distribution(where: str, block: Students, outputs: Outputs) -> None:
    other = set(block.divergence) - {"forward_kl"}
    if "token" in block.methods and other and outputs != "online":
        raise ValueError(
            f"{where}.divergence: {', '.join(sorted(other))} is not linear in the teacher's "
            f"distribution, so its {outputs} outputs would give something else; set cache.outputs "
            "to online"
        )


def _require_whole_windows(where: str, batch_tokens: int, n_ctx: int) -> None:
    if batch_tokens % n_ctx:
        raise ValueError(f"{where}: {batch_tokens} is not a multiple of n_ctx = {n_ctx}")


def load_study(path: Path, overrides: Iterable[str] = ()) -> Study:
    """Read a study file and lay ``key=value`` overrides over it.

    Paths in the file are relative to the file's own folder; ``folder`` is relative to the
    working directory, where the results go. Raises ConfigError with the dotted key.
    """
    document = _read_yaml(path)
    for override in overrides:
        _override(document, override)
    try:
        study = Study.model_validate(document)
    except ValidationError as error:
        raise ConfigError(_explain(error), where=str(path)) from None
    return _resolve_paths(study, path.parent)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "there is no such study file", where=str(path), remedy="give the path of a .yaml file"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"cannot be read as YAML: {error}", where=str(path)) from None
    if not isinstance(document, dict):
        raise ConfigError("is not a mapping of keys to values", where=str(path))
    return document


def _override(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"{override!r} is not key=value", remedy="write for example workers=1")
    *parents, last = key.split(".")
    node: Any = document
    try:
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else _section(node, part)
        node[int(last) if isinstance(node, list) else _yaml_key(last)] = yaml.safe_load(text)
    except (ValueError, IndexError, TypeError, AttributeError):
        raise ConfigError(f"override {key}: there is no such key") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"override {key}: cannot be read: {error}") from None


def _section(node: dict[str, Any], key: str) -> Any:
    """The value of a key, a new mapping where the file leaves it out or empty."""
    if node.get(key) is None:
        node[key] = {}
    return node[key]


def _yaml_key(text: str) -> Any:
    return yaml.safe_load(text)


def _explain(error: ValidationError) -> str:
    lines = [_explain_one(each) for each in error.errors()]
    return lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} mistakes:", *lines])


def _explain_one(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return _explain_unknown(problem["loc"])
    if problem["type"] == "missing":
        return f"{key}: is missing"
    message = problem["msg"].removeprefix("Value error, ") + _near_value(problem)
    return f"{key}: {message} (it is {problem['input']!r})" if key else message


def _near_value(problem: Any) -> str:
    if problem["type"] != "literal_error":
        return ""
    allowed = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
    near = difflib.get_close_matches(str(problem["input"]), allowed, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _explain_unknown(location: tuple[Any, ...]) -> str:
    *parents, unknown = location
    allowed = list(_model_at(parents).model_fields)
    near = difflib.get_close_matches(str(unknown), allowed, n=1)
    hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(allowed)}"
    return f"{'.'.join(str(part) for part in location)}: unknown key; {hint}"


_MODELS: dict[str, type[Strict]] = {
    "corpus": Corpus,
    "curation": Curation,
    "masking": Masking,
    "tokenizer": Tokenizer,
    "teachers": Teacher,
    "students": Students,
    "optimiser": Optimiser,
    "cache": Cache,
}


def _model_at(parents: list[Any]) -> type[Strict]:
    names = [part for part in parents if part in _MODELS]
    return _MODELS[names[-1]] if names else Study


def _resolve_paths(study: Study, base: Path) -> Study:
    """Make the file's paths independent of the working directory."""
    corpus = study.corpus
    if corpus.source not in NAMED_CORPORA:
        source = base / _expand("corpus.source", corpus.source)
        corpus = corpus.model_copy(update={"source": str(source)})
    tokenizer = study.tokenizer
    if tokenizer.path is not None:
        tokenizer = tokenizer.model_copy(update={"path": base / tokenizer.path})
    teachers = {
        name: _resolve_teacher(name, teacher, base) for name, teacher in study.teachers.items()
    }
    return study.model_copy(update={"corpus": corpus, "tokenizer": tokenizer, "teachers": teachers})


def _resolve_teacher(name: str, teacher: Teacher, base: Path) -> Teacher:
    if teacher.model is None:
        return teacher.model_copy(update={"run": teacher.run and base / teacher.run})
    model = _expand(f"teachers.{name}.model", teacher.model)
    folder = base / model
    return teacher.model_copy(update={"model": str(folder) if folder.is_dir() else model})


def _expand(where: str, path: str) -> str:
    """A path with ``$NAME`` replaced by the environment's. Raises ConfigError where it is unset."""
    expanded = os.path.expandvars(os.path.expanduser(path))
    unset = re.search(r"\$\{?(\w+)", expanded)
    if unset:
        raise ConfigError(
            f"{where}: the environment variable {unset[1]} is not set",
            remedy="set it, or give the path itself",
        )
    return expanded
