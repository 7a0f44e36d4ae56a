"""Records appear whole or not at all."""

import json
from pathlib import Path

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
