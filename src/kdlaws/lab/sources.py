"""Reading files of text: plain text, JSON lines and Parquet, one by one or a folder of one kind.

What comes out are names and texts; which of them make up which split is decided in ``corpus.py``.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kdlaws.errors import ConfigError, MissingExtraError

Named = tuple[str, str]
"""A document's name and its text."""


def read_file(file: Path, field: str, name: str) -> Iterator[Named]:
    """The texts of one file: each record's of a .jsonl or .parquet file, else all of it as one.

    Records are counted from 1 (in JSON lines that is the line), and named ``name#record``. Raises
    ConfigError where the file is not what it should be, MissingExtraError without pyarrow.
    """
    records = RECORDS.get(file.suffix)
    if records is None:
        yield name, _read_text(file)
        return
    for number, text in records(file, field):
        yield f"{name}#{number}", text


def read_folder(folder: Path, field: str) -> Iterator[Named]:
    """The texts of all .txt, .jsonl or .parquet files below the folder, by path.

    Raises ConfigError where there are several kinds: one may be made from the other.
    """
    kinds = {kind: sorted(folder.rglob(f"*{kind}")) for kind in (".txt", *RECORDS)}
    there = [kind for kind, files in kinds.items() if files]
    if len(there) > 1:
        raise ConfigError(
            f"corpus.source: {folder} holds {' and '.join(there)} files, and their texts may be "
            "the same",
            remedy="give a folder that holds one kind",
        )
    for file in (file for kind in there for file in kinds[kind]):
        yield from read_file(file, field, str(file.relative_to(folder)))


def not_text(file: Path, reason: str) -> ConfigError:
    """The error for a file whose bytes are not UTF-8."""
    return ConfigError(
        f"corpus.source: {file} is not UTF-8 text ({reason})",
        remedy="convert it, for example with iconv -t utf-8",
    )


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise not_text(file, f"{error.reason} at byte {error.start}") from None


def _json_records(file: Path, field: str) -> Iterator[tuple[int, str]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _field_of(_parsed(line, file, number), field, file, number)


def _parsed(line: bytes, file: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:  # also of bytes that are not UTF-8
        raise ConfigError(
            f"corpus.source: line {number} of {file} is not JSON ({error})",
            remedy="a .jsonl file holds one JSON object a line",
        ) from None
    if not isinstance(record, dict):
        raise ConfigError(
            f"corpus.source: line {number} of {file} is not a JSON object",
            remedy="write each record as {...}, with its text in corpus.field",
        )
    return record


def _field_of(record: dict[str, Any], field: str, file: Path, number: int) -> str:
    if field not in record:
        raise _no_field(f"record {number} of {file}", field, list(record))
    text = record[field]
    if not isinstance(text, str):
        raise ConfigError(
            f"corpus.field: {field!r} of record {number} of {file} is not text but "
            f"{type(text).__name__}",
            remedy="name the field that holds text, or leave such records out of the file",
        )
    if not _is_unicode(text):
        raise ConfigError(
            f"corpus.field: {field!r} of record {number} of {file} holds half a surrogate pair",
            remedy="write that character whole, or leave the record out of the file",
        )
    return text


def _is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: JSON's escapes can spell halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_field(where: str, field: str, there: list[str]) -> ConfigError:
    return ConfigError(
        f"corpus.field: {where} has no field {field!r}; it has {', '.join(there) or 'none'}",
        remedy="set corpus.field to the one that holds the text",
    )


def _parquet_records(file: Path, field: str) -> Iterator[tuple[int, str]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError(
            f"corpus.source: reading {file} needs pyarrow", remedy="pip install 'kdlaws[parquet]'"
        ) from None
    try:
        table = pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"corpus.source: {file} is not a Parquet file ({error})") from None
    with table:
        if field not in table.schema_arrow.names:
            raise _no_field(f"record 1 of {file}", field, table.schema_arrow.names)
        batches = table.iter_batches(columns=[field])
        records = (record for batch in batches for record in batch.to_pylist())
        for number, record in enumerate(records, start=1):
            yield number, _field_of(record, field, file, number)


RECORDS: dict[str, Callable[[Path, str], Iterator[tuple[int, str]]]] = {
    ".jsonl": _json_records,
    ".parquet": _parquet_records,
}
