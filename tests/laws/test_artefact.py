"""Results as JSON: plain values, one head, whole files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kdlaws
from kdlaws.errors import ArtefactError, InputError
from kdlaws.laws import artefact


def test_a_document_begins_with_its_schema_and_version() -> None:
    document = artefact.document({"b": 1, "a": None})
    assert list(document.items()) == [
        ("schema", 1),
        ("kdlaws", kdlaws.__version__),
        ("b", 1),
        ("a", None),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        (np.float64("inf"), None),
        (np.float64(0.1), 0.1),
        (1e300, 1e300),
        (True, True),
        (10**20, 10**20),
        ("nan", "nan"),
        ((1, 2.5, (None, "x")), [1, 2.5, [None, "x"]]),
        (np.array([[1.0, np.nan], [np.inf, 0.1]]), [[1.0, None], [None, 0.1]]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, 2]), [1, 2]),
        ({"a": {"b": (float("nan"),)}}, {"a": {"b": [None]}}),
    ],
)
def test_values_are_what_json_has(value: Any, expected: Any) -> None:
    found = artefact.plain(value)
    assert found == expected
    assert json.loads(json.dumps(found, allow_nan=False)) == expected


def test_floats_keep_every_digit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(100) * 10.0 ** np.arange(-50, 50)
    path = tmp_path / "values.json"
    artefact.write(path, artefact.document({"values": values}))
    np.testing.assert_array_equal(artefact.read(path, "list")["values"], values)


def test_a_file_is_one_line_of_strict_json_in_a_folder_made_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "document.json"
    artefact.write(path, artefact.document({"text": "naïve\n"}))
    assert [entry.name for entry in path.parent.iterdir()] == ["document.json"]
    (line,) = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["text"] == "naïve\n"
    assert artefact.read(str(path), "document") == json.loads(line)


def test_writing_that_is_cut_off_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "document.json"
    artefact.write(path, artefact.document({"value": 1}))
    before = path.read_bytes()
    whole = Path.write_text

    def half(self: Path, data: str, encoding: str) -> int:
        whole(self, data[: len(data) // 2], encoding=encoding)
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(InputError, match="no space"):
        artefact.write(path, artefact.document({"value": 2}))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_place_of_the_file_is_named_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(InputError) as caught:
        artefact.write(folder, artefact.document({"value": 1}))
    assert caught.value.where == str(folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_number_that_json_has_not_is_never_written(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    with pytest.raises(ValueError, match="JSON"):
        artefact.write(path, {"schema": 1, "value": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "JSONDecodeError"),
        (b"\xff\xfe\x00", "UnicodeDecodeError"),
        (b'{"schema": 1', "JSONDecodeError"),
        (b"[]", "TypeError"),
        (b"3", "TypeError"),
        (b"{}", "KeyError: 'schema'"),
        (b'{"schema": 2}', "schema 2"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_reason(
    content: bytes, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "document.json"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=f"not a plan.*{why}") as caught:
        artefact.read(path, "plan")
    assert caught.value.where == str(path)
    assert "schema 1" in caught.value.remedy
    assert isinstance(caught.value, InputError)
    assert caught.value.exit_code == 2


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="FileNotFoundError"):
        artefact.read(tmp_path / "nothing.json", "plan")
    with pytest.raises(ArtefactError, match="IsADirectoryError"):
        artefact.read(tmp_path, "plan")
