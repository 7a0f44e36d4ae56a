"""What evaluation measures, against independent computations."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from kdlaws.config import Study
from kdlaws.errors import InputError
from kdlaws.lab import latency, students
from kdlaws.lab.evaluate import Subject, evaluate, measure_group
from kdlaws.lab.measures import EvaluationSet, Measures, TeacherOutput
from kdlaws.lab.progress import Reporter
from kdlaws.lab.tokens import Text
from kdlaws.records import WEIGHTS, file_digest, write_json
from kdlaws.shapes import shape
from kdlaws.study import TeacherFacts


@pytest.fixture
def test_set(tiny_study: Study) -> EvaluationSet:
    return EvaluationSet(Text(tiny_study).stream("test"), n_windows=20, n_ctx=32)


def subject(folder: Path, seed: int) -> Subject:
    each = shape("32/1", n_vocab=300, n_ctx=32)
    students.build(each, seed).save_pretrained(folder / "model")
    weights = folder / WEIGHTS
    record = {"run_id": folder.name, "status": "done", "weights_sha256": file_digest(weights)}
    write_json(folder / "record.json", record)
    return Subject(each, folder / "model", folder, {"extra": 1})


def measured(folder: Path) -> dict[str, float]:
    return json.loads((folder / "evaluation.json").read_text())


def test_cross_entropy_is_that_of_the_librarys_loss(
    test_set: EvaluationSet, tmp_path: Path
) -> None:
    each = subject(tmp_path / "s", seed=0)
    measure_group(None, [each], test_set, lambda _: None)
    inputs, targets = test_set.stream.windows(np.arange(20), 32)
    model = students.build(each.shape, 0)
    with torch.no_grad():
        logits = model(torch.from_numpy(inputs)).logits
    expected = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())
    found = measured(tmp_path / "s")
    assert found["cross_entropy"] == pytest.approx(float(expected), abs=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(expected), rel=1e-4)
    assert found["kl_to_teacher"] is None
    assert found["extra"] == 1


def test_the_standard_error_is_that_of_the_kept_losses(
    test_set: EvaluationSet, tmp_path: Path
) -> None:
    measure_group(None, [subject(tmp_path / "s", 0)], test_set, lambda _: None)
    losses = np.load(tmp_path / "s" / "evaluation.npz")["nll"]
    found = measured(tmp_path / "s")
    assert losses.shape == (20,)
    assert found["cross_entropy"] == pytest.approx(losses.mean(), abs=1e-12)
    assert found["cross_entropy_se"] == pytest.approx(losses.std(ddof=1) / 20**0.5, abs=1e-12)


def test_bits_per_byte_of_a_uniform_guess(test_set: EvaluationSet) -> None:
    """log2 V bits a token, by the stream's own tokens per byte of text."""
    measures = Measures()
    for batch in test_set.batches(300):
        measures.add(torch.zeros(*batch.labels_bm.shape, 300), batch.labels_bm, None)
    n_bytes = test_set.stream.n_bytes / test_set.stream.n_tokens
    expected = math.log2(300) / n_bytes
    assert measures.columns(test_set)["bits_per_byte"] == pytest.approx(expected, rel=1e-6)


def test_a_student_that_is_its_teacher_agrees_wholly(
    test_set: EvaluationSet, tmp_path: Path
) -> None:
    each = subject(tmp_path / "s", 3)
    twin = TeacherFacts("s", "s", each.shape, 1, "", tmp_path / "s")
    measure_group(twin, [each, subject(tmp_path / "other", 4)], test_set, lambda _: None)
    same, other = measured(tmp_path / "s"), measured(tmp_path / "other")
    assert same["agreement"] == 1
    assert same["kl_to_teacher"] == pytest.approx(0, abs=1e-6)
    assert same["teacher_cross_entropy"] == pytest.approx(same["cross_entropy"], abs=1e-9)
    assert other["agreement"] < 1
    assert other["kl_to_teacher"] > 0


def test_kl_to_the_teacher_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = (
        torch.randn(2, 3, 7, dtype=torch.float64, generator=generator) for _ in "ts"
    )
    expected = kl_divergence(Categorical(logits=teacher), Categorical(logits=student))
    found = TeacherOutput.of(teacher).kl_to(F.log_softmax(student, dim=-1))
    torch.testing.assert_close(found, expected)


def test_calibration_error_of_a_known_case() -> None:
    """Confidence .8 on tokens of which .6 are right: an error of .2 (Guo et al. 2017, eq. 3)."""
    n = 1000
    logits = torch.zeros(1, n, 2)
    logits[..., 0] = math.log(4)  # p = .8 for token 0
    targets = torch.zeros(1, n, dtype=torch.long)
    targets[:, : int(0.4 * n)] = 1
    measures = Measures()
    measures.add(logits, targets, None)
    assert float(measures.calibration.abs().sum()) / n == pytest.approx(0.2, abs=1e-4)


def test_over_and_underconfidence_in_one_bin_cancel_but_not_across_bins() -> None:
    logits = torch.zeros(1, 200, 2)
    logits[:, :100, 0], logits[:, 100:, 0] = math.log(4), math.log(9)
    targets = torch.zeros(1, 200, dtype=torch.long)
    targets[:, :40] = 1
    measures = Measures()
    measures.add(logits, targets, None)
    expected = (100 * 0.2 + 100 * 0.1) / 200
    assert float(measures.calibration.abs().sum()) / 200 == pytest.approx(expected, abs=1e-4)


def test_evaluating_before_training_says_what_to_do(tiny_study: Study) -> None:
    with pytest.raises(InputError, match="nothing has been trained yet"):
        evaluate(tiny_study, Reporter("evaluate"))


def test_latency_names_every_column(tmp_path: Path) -> None:
    each = subject(tmp_path / "s", 0)
    found = latency.measure(each.source, "causal", n_ctx=32)
    for phase in ("prefill", "decode"):
        assert 0 < found[f"{phase}_ms_p50"] <= found[f"{phase}_ms_p95"]  # type: ignore[operator]
