"""Load models, and check that a teacher is the one that the study was planned with."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kdlaws.config import Study, Teacher
from kdlaws.errors import ArtefactError, ConfigError
from kdlaws.lab import given
from kdlaws.lab.architectures import AUTO_CLASSES
from kdlaws.lab.headless import load_given
from kdlaws.lab.kernels import accelerate
from kdlaws.records import RECORD, WEIGHTS, file_digest, read_run
from kdlaws.shapes import Objective, n_masked
from kdlaws.study import TeacherFacts

# -- our own runs ----------------------------------------------------------------------------


def load_model(folder: Path, objective: Objective = "causal") -> PreTrainedModel:
    """A run's model, from its Hugging Face folder, for inference, with its faster parts."""
    model = load_stock_model(folder, objective)
    accelerate(model)
    return model


def load_stock_model(folder: Path, objective: Objective = "causal") -> PreTrainedModel:
    """As everybody loads it, but in fp32, whatever precision it was saved in."""
    model = AUTO_CLASSES[objective].from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return model.eval().requires_grad_(False)


# -- models from elsewhere -------------------------------------------------------------------


@cache
def _found(name: str, teacher: Teacher, imports: Path) -> given.Found:
    assert teacher.model is not None
    where = f"teachers.{name}.model"
    return given.find(where, teacher.model, teacher.revision, teacher.gguf_file, imports)


def _found_of(study: Study) -> Mapping[str, given.Found]:
    """The study's teachers from elsewhere, by name; downloaded, and GGUF converted, if need be."""
    imports = study.folder / "imports"
    return {
        name: _found(name, teacher, imports)
        for name, teacher in study.teachers.items()
        if teacher.model is not None
    }


def given_tokenizer(study: Study) -> PreTrainedTokenizerFast | None:
    """That of the first teacher from elsewhere, which is the study's unless it names its own."""
    if study.tokenizer.path is not None:
        return None
    for found in _found_of(study).values():
        return given.tokenizer_of(found.folder)
    return None


def given_facts(
    study: Study,
    tokenizer: PreTrainedTokenizerFast | None,
    *,
    n_vocab: int,
    tokenizer_sha256: str,
) -> dict[str, TeacherFacts]:
    """What planning needs of each teacher from elsewhere; its vocabulary is compared with the
    tokenizer's, once there is one.

    Raises ConfigError where one has another vocabulary, reads too little at once, or is no language
    model of the study's objective.
    """
    return {
        name: _given_facts(study, name, found, tokenizer, n_vocab, tokenizer_sha256)
        for name, found in _found_of(study).items()
    }


def _given_facts(
    study: Study,
    name: str,
    found: given.Found,
    tokenizer: PreTrainedTokenizerFast | None,
    n_vocab: int,
    tokenizer_sha256: str,
) -> TeacherFacts:
    where, teacher = f"teachers.{name}.model", study.teachers[name]
    described = given.describe(
        where, found, study.objective, n_vocab=n_vocab, n_targets=_n_targets(study)
    )
    if tokenizer is not None:
        own = given.tokenizer_of(found.folder)
        given.check_vocabulary(where, own, tokenizer, described.n_rows)
    if described.n_ctx < study.n_ctx:
        raise ConfigError(
            f"{where}: {teacher.model} reads {described.n_ctx} tokens at once, fewer than "
            f"n_ctx = {study.n_ctx}",
            remedy=f"set n_ctx to {described.n_ctx} or less",
        )
    label = f"{name}-{described.identity[:8]}"
    return TeacherFacts(
        run_id=label,
        identity=described.identity,
        shape=replace(described.model, name=label, n_ctx=study.n_ctx),
        n_tokens=teacher.n_tokens,
        tokenizer_sha256=tokenizer_sha256,
        folder=study.folder / label,
        given=found.folder,
        heldout=teacher.heldout,
        hub_id=None if Path(str(teacher.model)).is_dir() else teacher.model,
        revision=found.revision,
    )


def _n_targets(study: Study) -> int:
    is_masked = study.objective == "masked"
    return n_masked(study.n_ctx, study.masking.share) if is_masked else study.n_ctx


# -- teachers ---------------------------------------------------------------------------------


def load_teacher(facts: TeacherFacts) -> nn.Module:
    """For ``heads.states`` and ``heads.head``, in fp32 and for inference.

    Raises ArtefactError if the weights are absent, or not those that were planned with.
    """
    if facts.given is not None:
        if current_weights_sha256(facts) != facts.identity:
            raise _changed(facts, facts.given)
        return load_given(facts.given, facts.shape.objective, facts.shape.n_vocab)
    weights = facts.folder / WEIGHTS
    record = read_run(facts.folder)
    if not weights.exists():
        diverged = record.get("status") == "diverged"
        raise ArtefactError(
            f"teacher {facts.run_id} diverged"
            if diverged
            else f"the weights of teacher {facts.run_id} are missing",
            where=str(weights),
            remedy="lower its learning rate"
            if diverged
            else f"remove {facts.folder / RECORD}, and it will be trained again",
        )
    sha256 = current_weights_sha256(facts)
    if facts.identity not in (facts.run_id, sha256) or record.get("weights_sha256") != sha256:
        raise _changed(facts, weights)
    return load_model(facts.model_folder, facts.shape.objective)


def _changed(facts: TeacherFacts, where: Path) -> ArtefactError:
    return ArtefactError(
        f"the weights of teacher {facts.run_id} have changed since the study was planned",
        where=str(where),
        remedy="restore the file, or start the study again",
    )


def current_weights_sha256(facts: TeacherFacts) -> str:
    """Of the weights as they lie there now."""
    if facts.given is not None:
        return given.identity_of(facts.given)
    return file_digest(facts.folder / WEIGHTS)


def overlap(facts: TeacherFacts, student_documents: Mapping[str, int]) -> float | None:
    """Share of the student's text, by bytes, in documents that the teacher was trained on.

    ``student_documents`` maps SHA-256 to bytes. None where the teacher's reading is not recorded.
    """
    if facts.given is not None:
        return None
    read = read_run(facts.folder).get("training_documents")
    if read is None:
        return None
    known = set(read)
    shared = sum(n for sha256, n in student_documents.items() if sha256[:16] in known)
    return shared / sum(student_documents.values())


# -- the reference of a curated tier ------------------------------------------------------------


def reference_identity(study: Study) -> str:
    """Of the weights of the model that ranks blocks."""
    return given.identity_of(_reference_folder(study))


def load_reference(study: Study, n_vocab: int) -> nn.Module:
    """The model that ranks blocks, for ``heads.states`` and ``heads.head``."""
    folder = _reference_folder(study)
    if _reference(study).run is not None:
        return load_model(folder, study.objective)
    return load_given(folder, study.objective, n_vocab)


def _reference(study: Study) -> Teacher:
    assert study.corpus.curation is not None
    return study.teachers[study.corpus.curation.reference]


def _reference_folder(study: Study) -> Path:
    teacher = _reference(study)
    if teacher.run is not None:
        return teacher.run / "model"
    assert study.corpus.curation is not None
    return _found_of(study)[study.corpus.curation.reference].folder
