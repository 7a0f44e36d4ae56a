"""What the modules of the command line share: arguments, tables, documents."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import kdlaws
from kdlaws.errors import InputError, MissingExtraError
from kdlaws.records import SCHEMA, finite

if TYPE_CHECKING:
    from rich.table import Table

    from kdlaws.config import Study

Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [KEY=VALUE]...",
        help="A study file (config.yaml if none is given), then overrides with dotted keys.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def study_of(arguments: Sequence[str] | None, *overrides: str) -> "Study":
    """The study that ``Arguments`` name. Raises ConfigError."""
    from kdlaws.config import load_study

    given = list(arguments or [])
    first_is_file = bool(given) and "=" not in given[0]
    path = Path(given.pop(0)) if first_is_file else Path("config.yaml")
    return load_study(path, [*given, *overrides])


def require_lab() -> None:
    """Raises MissingExtraError where what the lab imports is not installed."""
    missing = [name for name in ("torch", "transformers", "tokenizers") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"training and evaluating need {', '.join(missing)}",
            remedy="pip install 'kdlaws[lab]', or pip install -r requirements.txt",
        )


def new_table(*headings: str, right_from: int = 99) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index >= right_from else "left", no_wrap=True)
    return table


def print_table(table: "Table") -> None:
    """On a terminal in its width; elsewhere nothing is cut."""
    from rich.console import Console

    console = Console()
    console.print(table) if console.is_terminal else Console(width=240).print(table)


def print_json(document: dict[str, Any]) -> None:
    head = {"schema": SCHEMA, "kdlaws": kdlaws.__version__}
    print(json.dumps(finite({**head, **document}), indent=1))


def show(result: Any, as_json: bool) -> None:
    """A result of the library, as its document or as text."""
    print(json.dumps(result.to_dict(), indent=1) if as_json else result)


def pairs(parts: Sequence[str], where: str) -> dict[str, str]:
    """Texts by name, of parts ``name=text``."""
    found: dict[str, str] = {}
    for part in parts:
        name, _, text = (each.strip() for each in part.partition("="))
        if not name or not text:
            what, remedy = f"{part!r} is no name=value", "write for example E=1.6, or n_tokens=2B"
            raise InputError(what, where=where, remedy=remedy)
        if name in found:
            raise InputError(f"{name} is given twice", where=where, remedy="give it once")
        found[name] = text
    return found
