"""ONNX files under onnxruntime; skipped where the extra is not installed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdlaws.config import Study
from kdlaws.errors import ConfigError, KdlawsError, MissingExtraError
from kdlaws.lab import onnx_export, students
from kdlaws.lab.onnx_export import export
from kdlaws.lab.tokens import Text
from kdlaws.shapes import Objective, shape

needs_onnx = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    reason="onnx, onnxscript and onnxruntime are not installed: pip install 'kdlaws[onnx]'",
)


@pytest.fixture
def saved(tiny_study: Study, tmp_path: Path) -> Any:
    def save(objective: Objective) -> tuple[torch.nn.Module, str]:
        study = tiny_study.model_copy(update={"objective": objective})
        built = shape("32/1", n_vocab=300, n_ctx=32, objective=objective)
        model = students.build(built, seed=0).eval()
        model.save_pretrained(tmp_path / "model")
        Text(study).tokenizer.save_pretrained(tmp_path / "model")
        return model, str(tmp_path / "model")

    return save


@needs_onnx
@pytest.mark.parametrize(
    ("objective", "inputs"),
    [("causal", ("input_ids",)), ("masked", ("input_ids", "attention_mask"))],
)
def test_a_file_answers_as_the_model_does(
    objective: Objective, inputs: tuple[str, ...], saved: Any, tmp_path: Path
) -> None:
    import onnxruntime

    model, folder = saved(objective)
    file = tmp_path / "made" / "model.onnx"
    exported = export(folder, file)
    assert (exported.inputs, exported.n_ctx) == (inputs, 32)
    assert exported.largest_difference < 1e-4
    assert exported.size_mb == file.stat().st_size / 2**20
    assert 0 < exported.onnx_ms_p50 <= exported.onnx_ms_p95
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == list(inputs)
    for size in ((1, 32), (3, 7)):
        ids = torch.randint(300, size)
        mask = torch.ones_like(ids)
        if objective == "masked":
            mask[:, -3:] = 0  # padding: what it hides must not matter
        given = {"input_ids": ids, "attention_mask": mask}
        with torch.inference_mode():
            expected = model(**given).logits.numpy()
        arrays = {name: given[name].numpy() for name in inputs}
        (logits,) = session.run(["logits"], arrays)
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_a_file_that_answers_otherwise_is_not_kept(
    saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = saved("causal")

    def write(stock: object, file: Path, *_: object) -> tuple[str, ...]:
        file.write_bytes(b"a file")
        return ("input_ids",)

    def off_by_a_thousandth(ids_bt: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            return model(ids_bt).logits.numpy() + 1e-3

    monkeypatch.setattr(onnx_export, "find_spec", lambda name: name)
    monkeypatch.setattr(onnx_export, "_write", write)
    monkeypatch.setattr(onnx_export, "_session", lambda *_: off_by_a_thousandth)
    with pytest.raises(KdlawsError, match=r"logits are up to 0\.001 off the model's") as raised:
        export(folder, tmp_path / "made" / "model.onnx", n_ctx=16)
    assert raised.value.exit_code == 1
    assert not list((tmp_path / "made").iterdir())


def test_more_than_one_file_can_hold_is_refused(
    saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = saved("causal")
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: name)
    monkeypatch.setattr(onnx_export, "MOST_BYTES", 1000)
    with pytest.raises(ConfigError, match="one ONNX file holds 2"):
        export(folder, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_without_the_extra_there_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="onnx, onnxscript, onnxruntime") as raised:
        export("nowhere", tmp_path / "model.onnx")
    assert "kdlaws[onnx]" in raised.value.remedy
