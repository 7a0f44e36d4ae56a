"""Records appear whole or not at all."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from kdlaws import records
from kdlaws.errors import ArtefactError


def test_infinities_become_null(tmp_path: Path) -> None:
    records.write_json(tmp_path / "a.json", {"x": [float("nan"), 1.5], "y": float("inf")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [None, 1.5], "y": None}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    records.write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        records.write_json(tmp_path / "a.json", {"x": object()})
    assert records.read_json(tmp_path / "a.json") == {"x": 1}


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert records.digest({"a": 1, "b": 2}) == records.digest({"b": 2, "a": 1})


def test_digest_of_a_known_text() -> None:
    """SHA-256 of the two bytes {} from the published test tools."""
    empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert records.digest({}) == empty


def test_numbers_survive_bit_for_bit(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 2**-1074, 1.7976931348623157e308]
    records.write_json(tmp_path / "a.json", values)
    assert records.read_json(tmp_path / "a.json") == values


@pytest.mark.parametrize("content", ["{", "\xff"])
def test_damaged_json_names_its_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ArtefactError, match=r"a\.json"):
        records.read_json(tmp_path / "a.json")


def test_a_run_is_its_record_with_its_evaluation_over_it(tmp_path: Path) -> None:
    records.write_json(tmp_path / "r" / records.RECORD, {"run_id": "r", "status": "done"})
    records.write_json(tmp_path / "r" / records.EVALUATION, {"cross_entropy": 3.0})
    (tmp_path / "unfinished").mkdir()
    folders = list(records.run_folders(tmp_path))
    assert [records.read_run(folder)["cross_entropy"] for folder in folders] == [3.0]


def test_losses_come_back_in_single_precision(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    losses = {f"token-{number}": rng.gamma(9, 0.4, 50) for number in range(3)}
    records.write_losses(tmp_path, losses)
    found = records.read_losses(tmp_path)
    assert list(found) == list(losses)
    for run_id, nll in losses.items():
        assert found[run_id].dtype == np.float64
        # Half a unit in the last of float32's 24 bits.
        np.testing.assert_allclose(found[run_id], nll, rtol=2**-24)
    assert [path.name for path in tmp_path.iterdir()] == [records.LOSSES]


def test_no_runs_have_no_losses(tmp_path: Path) -> None:
    assert records.read_losses(tmp_path) == {}
    records.write_losses(tmp_path, {})
    assert records.read_losses(tmp_path) == {}


def test_losses_that_are_not_of_the_same_text_leave_the_old_file(tmp_path: Path) -> None:
    records.write_losses(tmp_path, {"a": np.ones(4)})
    with pytest.raises(ValueError, match="inhomogeneous"):
        records.write_losses(tmp_path, {"a": np.ones(4), "b": np.ones(3)})
    assert list(records.read_losses(tmp_path)) == ["a"]


def damage(file: Path, how: str) -> None:
    whole = file.read_bytes()
    if how == "empty":
        file.write_bytes(b"")
    elif how == "text":
        file.write_text("not an archive")
    elif how == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif how == "turned":
        # The local header is 30 bytes, the name and an extra field; deflate has no block type 3.
        start = whole.index(b"nll.npy") - 30
        name, extra = struct.unpack("<HH", whole[start + 26 : start + 30])
        data = start + 30 + name + extra
        file.write_bytes(whole[:data] + b"\xff" + whole[data + 1 :])
    elif how == "array":
        with file.open("wb") as target:
            np.save(target, np.ones(3))
    elif how == "lacking":
        np.savez(file, run_id=np.array(["a"]))
    elif how == "unequal":
        np.savez(file, run_id=np.array(["a", "b"]), nll=np.ones((3, 4)))


@pytest.mark.parametrize("how", ["empty", "text", "cut", "turned", "array", "lacking", "unequal"])
def test_damaged_losses_name_their_file(tmp_path: Path, how: str) -> None:
    records.write_losses(tmp_path, {"a": np.random.default_rng(0).gamma(9, 0.4, 900)})
    damage(tmp_path / records.LOSSES, how)
    with pytest.raises(ArtefactError, match=r"losses\.npz"):
        records.read_losses(tmp_path)
