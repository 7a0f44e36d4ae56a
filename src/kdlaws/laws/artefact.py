"""Results as JSON: plain values, one head, written whole or not at all."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any, cast

import numpy as np

from kdlaws import __version__
from kdlaws.errors import ArtefactError, InputError

SCHEMA = 1


def document(body: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON contract: the head, then the body in plain values."""
    result: dict[str, Any] = plain({"schema": SCHEMA, "kdlaws": __version__, **body})
    return result


def plain(value: Any) -> Any:
    """The same value in what JSON has; a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    return value


class Document:
    """A result, a frozen dataclass whose fields are its JSON contract."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract: plain values, None for what is unknown."""
        return document(asdict(cast(Any, self)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the contract; the file appears whole or not at all."""
        write(path, self.to_dict())


def write(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a document; the file appears whole or not at all. InputError where it cannot be."""
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise InputError(
            f"cannot be written ({error.strerror or error})",
            where=str(path),
            remedy="give another file",
        ) from error


def read(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """A document of this schema; ArtefactError says why a file is none."""
    try:
        content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise foreign(path, kind, error) from error
    return content


def foreign(path: str | os.PathLike[str], kind: str, error: Exception) -> ArtefactError:
    """The file is not what it should be."""
    return ArtefactError(
        f"not a {kind} that this version reads ({type(error).__name__}: {error})",
        where=str(path),
        remedy=f"give a file that kdlaws wrote with schema {SCHEMA}",
    )
