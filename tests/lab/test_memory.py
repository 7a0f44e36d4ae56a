"""Memory: parts of a batch, estimates against what autograd keeps, and refusal in time."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdlaws import cli
from kdlaws.config import Precision, Study
from kdlaws.lab import students
from kdlaws.lab.kernels import hidden_states
from kdlaws.lab.memory import ACTIVATION_BYTES, activation_bytes, part_windows
from kdlaws.shapes import Shape, shape

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch_windows", [1, 7, 96, 1024])
@pytest.mark.parametrize("size", ["32/1", "256/8", "100M"])
def test_parts_divide_the_batch_and_fit(
    size: str, batch_windows: int, precision: Precision
) -> None:
    each = shape(size, n_ctx=512)
    part = part_windows(each, batch_windows, precision)

    def fits(windows: int) -> bool:
        kept = windows * each.n_ctx * activation_bytes(each, precision)
        return kept <= ACTIVATION_BYTES[precision]

    assert batch_windows % part == 0
    assert fits(part) or part == 1
    larger = [n for n in range(part + 1, batch_windows + 1) if batch_windows % n == 0]
    assert not any(map(fits, larger))


def test_a_large_batch_of_a_large_shape_is_read_in_parts() -> None:
    assert 1 < part_windows(shape("100M"), 4096, "float32") < 4096
    assert part_windows(shape("32/1"), 8, "float32") == 8


def kept_bytes(each: Shape, windows: int) -> int:
    """Of every tensor that autograd keeps for the backward pass, weights and views left out."""
    model = students.build(each, seed=0)
    weights = {weight.data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids_bt = torch.zeros(windows, each.n_ctx, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden_btd = hidden_states(model, ids_bt)
    assert hidden_btd.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("n_ctx", [128, 512])
@pytest.mark.parametrize("size", ["64/2", "256/8", "2M", "10M"])
def test_activations_are_about_what_autograd_keeps(size: str, n_ctx: int) -> None:
    each = shape(size, n_vocab=300, n_ctx=n_ctx)
    expected = 4 * each.n_ctx * activation_bytes(each, "float32")
    assert kept_bytes(each, windows=4) == pytest.approx(expected, rel=0.25)


def test_a_size_that_does_not_fit_is_refused_before_anything_is_trained(
    tiny_study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", str(tmp_path / "tiny.yaml"), "memory_mb=100"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.count("error:") == 1
    parts = ("memory_mb: ", "needs about", "limit of 100", "raise memory_mb")
    assert all(part in message for part in parts)
    assert not list(tiny_study.folder.glob("*/record.json"))
    assert not (tiny_study.folder / "trunks").exists()
