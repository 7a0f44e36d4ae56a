"""The reference pages say what the code has, all of it, and nothing else."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command

from kdlaws import errors
from kdlaws.cli import app
from kdlaws.config import Cache, Corpus, Optimiser, Students, Study, Teacher, Tokenizer, load_study

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), *ROOT.glob("*.md")]


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


# --- cli.md -------------------------------------------------------------------------------------


def options(command: Any) -> set[str]:
    """A command's long options; ``--help`` is everywhere."""
    found = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    return {option for option in found if option.startswith("--")} - {"--help"}


GROUP: Any = get_command(app)
COMMANDS: dict[str, set[str]] = {name: options(each) for name, each in GROUP.commands.items()}
SECTIONS = dict(re.findall(r"^### `kdlaws (\w+).*?\n(.*?)(?=^##)", text("cli.md"), re.M | re.S))


def test_every_command_has_its_section() -> None:
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_section_names_the_options_of_its_command(command: str) -> None:
    assert set(re.findall(r"--[a-z-]+", SECTIONS[command])) == COMMANDS[command]


def test_the_page_names_no_other_option() -> None:
    known = {"--help", *options(GROUP), *(option for each in COMMANDS.values() for option in each)}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text("cli.md"))) == known


def test_defaults_of_fit_are_those_shown() -> None:
    row = r"^\| `(--[a-z]+) ?[A-Z]*` \| `?([\w.]*)`? \|"
    shown = dict(re.findall(row, SECTIONS["fit"], re.M))
    actual = {each.opts[0]: each.default for each in GROUP.commands["fit"].params}
    assert {name: str(actual[name] or "") for name in shown} == {
        name: value or "0" if name == "--seed" else value for name, value in shown.items()
    }
