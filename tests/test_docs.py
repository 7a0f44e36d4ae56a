"""The documentation is executed: what a page or a docstring shows is what happens.

In README.md and docs/*.md every ``>>>`` in a python block is run, a page's blocks in one session.
A console block under the comment ``<!-- run -->`` has its commands run, all of a page's in one
folder that looks like the repository's root: each must succeed, and the first line shown under it
must be in what it prints.
"""

import doctest
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import kdlaws

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = [
    found.name
    for found in pkgutil.walk_packages(kdlaws.__path__, "kdlaws.")
    if not found.name.startswith("kdlaws.lab") and found.name != "kdlaws.__main__"
]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONSOLE_BLOCK = re.compile(r"^<!-- run -->\n```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# a command, with its continuation lines, and the lines shown under it
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
PROGRAMS = {"kdlaws": [sys.executable, "-m", "kdlaws"], "python": [sys.executable]}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


class Command(NamedTuple):
    words: list[str]
    lines_shown: list[str]


def commands(page: str) -> list[Command]:
    return [
        Command(
            shlex.split(line.replace("\\\n", ""), comments=True),
            [line.strip() for line in shown.splitlines() if line.strip() not in ("", "...")],
        )
        for block in CONSOLE_BLOCK.findall(page)
        for line, shown in COMMAND.findall(block)
    ]


def run_examples(test: doctest.DocTest) -> None:
    complaints: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=complaints.append)
    assert not complaints, "".join(complaints)


@each_page
def test_the_python_of_a_page(page: Path) -> None:
    session = "\n".join(PYTHON_BLOCK.findall(page.read_text(encoding="utf-8")))
    run_examples(doctest.DocTestParser().get_doctest(session, {}, page.name, str(page), 0))


@each_page
def test_the_commands_of_a_page(page: Path, tmp_path: Path) -> None:
    for entry in ROOT.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    for words, lines_shown in commands(page.read_text(encoding="utf-8")):
        done = subprocess.run(
            [*PROGRAMS[words[0]], *words[1:]],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "100"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
        printed = " ".join(done.stdout.split())
        for line in lines_shown:  # a shown line may end in an ellipsis
            shown = " ".join(line.removesuffix("...").split())
            assert shown in printed, f"{shlex.join(words)}\n{done.stdout}"


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module(module: str) -> None:
    for test in doctest.DocTestFinder().find(importlib.import_module(module)):
        run_examples(test)


def test_commands_are_found_with_what_is_shown_under_them() -> None:
    page = """
```console
$ pip install .
```

<!-- run -->
```console
$ kdlaws models --objective causal \\
    --json
{
 "schema": 1
$ python models.py  # the same
```
"""
    assert commands(page) == [
        (["kdlaws", "models", "--objective", "causal", "--json"], ["{", '"schema": 1']),
        (["python", "models.py"], []),
    ]
