"""Load a teacher and check that it is the one the study was planned with."""

from pathlib import Path

import torch
from transformers import GraniteForCausalLM

from kdlaws.errors import ArtefactError
from kdlaws.lab.kernels import accelerate
from kdlaws.records import RECORD, WEIGHTS, file_digest, read_run
from kdlaws.study import TeacherFacts


def load_model(folder: Path) -> GraniteForCausalLM:
    """A finished run's model in fp32 for inference, with the parts that are faster here."""
    model = load_stock_model(folder)
    accelerate(model)
    return model


def load_stock_model(folder: Path) -> GraniteForCausalLM:
    """As everybody loads it, but in fp32, whatever precision it was saved in."""
    model = GraniteForCausalLM.from_pretrained(
        folder / "model", dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return model.eval().requires_grad_(False)


def load_teacher(facts: TeacherFacts) -> GraniteForCausalLM:
    """Raises ArtefactError if the weights are absent, or not those that were planned with."""
    weights = facts.folder / WEIGHTS
    record = read_run(facts.folder)
    if not weights.exists():
        diverged = record.get("status") == "diverged"
        raise ArtefactError(
            f"teacher {facts.run_id} diverged"
            if diverged
            else f"the weights of teacher {facts.run_id} are missing",
            where=str(weights),
            remedy="lower optimiser.learning_rate"
            if diverged
            else f"remove {facts.folder / RECORD}, and it will be trained again",
        )
    sha256 = file_digest(weights)
    if facts.identity not in (facts.run_id, sha256) or record.get("weights_sha256") != sha256:
        raise ArtefactError(
            f"the weights of teacher {facts.run_id} have changed since the study was planned",
            where=str(weights),
            remedy="restore the file, or start the study again",
        )
    return load_model(facts.folder)


def overlap(facts: TeacherFacts, student_documents: dict[str, int]) -> float | None:
    """Share of the student's text, by bytes, in documents that the teacher was trained on.

    ``student_documents`` maps SHA-256 to bytes. None where the teacher's reading is not recorded.
    """
    read = read_run(facts.folder).get("training_documents")
    if read is None:
        return None
    known = set(read)
    shared = sum(n for sha256, n in student_documents.items() if sha256[:16] in known)
    return shared / sum(student_documents.values())
