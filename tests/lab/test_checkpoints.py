"""Checkpoints: what is read back, what is passed over, and what is left in the folder."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdlaws.lab import checkpoints


def tensors(step: int) -> dict[str, Tensor]:
    return {
        "weight": torch.full((3, 2), float(step)),
        "step": torch.tensor(float(step)),
        "random": torch.arange(8, dtype=torch.uint8),
    }


def save(folder: Path, *steps: int, keep: int = 9) -> None:
    for step in steps:
        checkpoints.save(folder, step, tensors(step), {"step": step, "wall_s": 0.1}, keep)


def loaded_step(folder: Path, latest: int = 10**9) -> int | None:
    found = checkpoints.load(folder, latest)
    return found and found[1]["step"]


def test_what_is_saved_is_read_back_to_the_last_bit(tmp_path: Path) -> None:
    save(tmp_path, 7)
    found = checkpoints.load(tmp_path, 7)
    assert found is not None
    assert found[1] == {"step": 7, "wall_s": 0.1}
    assert found[0].keys() == tensors(7).keys()
    for name, tensor in tensors(7).items():
        assert torch.equal(found[0][name], tensor)
        assert found[0][name].dtype == tensor.dtype


def test_the_last_few_are_kept_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path, 8, 9, 10, 100, keep=2)
    assert checkpoints.steps(tmp_path) == [10, 100]
    files = {file.name for file in tmp_path.iterdir()}
    assert files == {"10.json", "10.safetensors", "100.json", "100.safetensors"}


def test_none_from_after_the_latest_step_is_read(tmp_path: Path) -> None:
    save(tmp_path, 9, 10, 100)
    assert [loaded_step(tmp_path, latest) for latest in (8, 9, 99, 100)] == [None, 9, 10, 100]


def test_there_is_none_in_a_folder_that_is_absent(tmp_path: Path) -> None:
    assert checkpoints.load(tmp_path / "none", 5) is None


def test_damaged_and_absent_weights_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    newest = tmp_path / "3.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    assert loaded_step(tmp_path) == 2
    (tmp_path / "2.safetensors").unlink()
    assert loaded_step(tmp_path) == 1
    (tmp_path / "1.safetensors").write_bytes(b"")
    assert loaded_step(tmp_path) is None


@pytest.mark.parametrize("keep", [1, 2])
def test_later_ones_go_once_training_went_on_from_before_them(tmp_path: Path, keep: int) -> None:
    """Else they would push out what is saved on the way back to them."""
    save(tmp_path, 50, 60, keep=2)
    save(tmp_path, 10, 20, keep=keep)
    assert checkpoints.steps(tmp_path) == [10, 20][-keep:]
    assert loaded_step(tmp_path, latest=30) == 20


@pytest.mark.parametrize("call", ["save_file", "write_json"])
def test_a_save_that_is_cut_short_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save(tmp_path, 1)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, call, fail)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2, keep=1)
    assert loaded_step(tmp_path) == 1
    save(tmp_path, 2, keep=1)
    assert loaded_step(tmp_path) == 2
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}
