"""The reference pages name what the code has: all of it, and nothing else."""

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command

from kdlaws import cli, errors
from kdlaws.config import (
    Cache,
    Corpus,
    Masking,
    Optimiser,
    Students,
    Study,
    Teacher,
    Tokenizer,
    load_study,
)

ROOT = Path(__file__).parents[1]
PAGES = {page.name: page.read_text(encoding="utf-8") for page in ROOT.glob("docs/*.md")}


def backticked(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


# --- cli.md -------------------------------------------------------------------------------------


def options(command: Any) -> dict[str, Any]:
    """A command's options with their defaults; ``--help`` is everywhere."""
    found = {each.opts[0]: each.default for each in command.params}
    return {name: value for name, value in found.items() if name.startswith("--")}


def all_options(command: Any) -> dict[str, Any]:
    """Of a group: those of all its commands."""
    subcommands = getattr(command, "commands", {"": command})
    return {name: x for each in subcommands.values() for name, x in options(each).items()}


GROUP: Any = get_command(cli.app)
COMMANDS = {name: all_options(command) for name, command in GROUP.commands.items()}
SECTION = re.compile(r"^### `kdlaws (\w+).*?\n(.*?)(?=^##)", re.MULTILINE | re.DOTALL)
SECTIONS: dict[str, str] = dict(SECTION.findall(PAGES["cli.md"]))
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def test_every_command_has_its_section() -> None:
    assert set(SECTIONS) == set(COMMANDS)


def test_the_section_of_a_group_names_its_commands() -> None:
    assert set(re.findall(r"`kdlaws cache (\w+)`", SECTIONS["cache"])) == set(
        GROUP.commands["cache"].commands
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_section_names_the_options_of_its_command(command: str) -> None:
    assert set(OPTION.findall(SECTIONS[command])) == set(COMMANDS[command])


def test_the_page_names_no_option_that_does_not_exist() -> None:
    known = {"--help", *options(GROUP), *(name for each in COMMANDS.values() for name in each)}
    assert set(OPTION.findall(PAGES["cli.md"])) <= known


def test_the_defaults_of_fit_are_those_shown() -> None:
    row = re.compile(r"^\| `(--[a-z]+)[^|]*\|([^|]*)\|", re.MULTILINE)
    shown = {name: cell.strip(" `") for name, cell in row.findall(SECTIONS["fit"])}
    assert shown == {
        name: "" if value is None or value is False else str(value)
        for name, value in COMMANDS["fit"].items()
    }


def test_every_exit_code_is_in_the_page() -> None:
    shown = set(re.findall(r"^\| (\d+) \|", PAGES["cli.md"], re.MULTILINE))
    assert shown == {"0"} | {str(each.exit_code) for each in error_classes()}


BY_NAME = {"parameters", "counts", "domain"}  # their keys are names, states, columns


def keys(document: Any, parent: str = "") -> Iterator[str]:
    """Every key of a JSON document, but for those that are data."""
    if isinstance(document, dict):
        for key, value in document.items():
            if parent not in BY_NAME:
                yield key
            yield from keys(value, key if parent not in BY_NAME else "")
    elif isinstance(document, list):
        for each in document:
            yield from keys(each)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished study of made-up runs, tiny.yaml beside it; its folder."""
    monkeypatch.chdir(tmp_path)
    made_up = runpy.run_path(str(ROOT / "tests" / "torch_free.py"))
    Path("tiny.yaml").write_text(made_up["STUDY"])
    folder: Path = made_up["write_study"](load_study(Path("tiny.yaml"))).study.folder
    return folder


@pytest.mark.parametrize("command", ["models", "runs", "fit"])
def test_the_keys_of_a_document_are_those_shown(
    command: str, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {
        "models": [],
        "runs": [str(study)],
        "fit": [str(study), "--where", "method=scratch", "--bootstrap", "50"],
    }
    with pytest.raises(SystemExit) as ended:
        cli.main([command, *arguments[command], "--json"])
    assert ended.value.code == 0
    document = json.loads(capsys.readouterr().out)
    shown = re.search(r"^(`--json`: .*?)\n\n", SECTIONS[command], re.MULTILINE | re.DOTALL)
    assert shown
    assert backticked(shown[1]) - {"--json"} == set(keys(document)) - {"schema", "kdlaws"}


DEFAULT = str(ROOT / "results" / "default")
PILOTS = f"{DEFAULT}/fits/chinchilla-token.json"
PLANS = {
    "plan": ["published:busbridge2025", "flops=1e21", "scenario=both"],
    "plan by pilots": [PILOTS, "flops=1e12"],
    "design": ["--runs", DEFAULT, "law=chinchilla", "--where", "method=scratch"],
    "design by pilots": [PILOTS, "flops=1e12"],
    "recommend": [DEFAULT, "max_latency_ms=0.5"],
    "recommend nothing": [DEFAULT, "max_latency_ms=0.001"],
}


@pytest.mark.parametrize("what", PLANS)
def test_every_key_of_an_answer_is_in_the_page(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = what.partition(" ")[0]
    with pytest.raises(SystemExit) as ended:
        cli.main([command, *PLANS[what], "--json"])
    assert ended.value.code == 0
    document = json.loads(capsys.readouterr().out)
    told = {"schema", "kdlaws", "value", "lo", "hi", "identified", "code", "message", "remedy"}
    assert set(keys(document)) <= backticked(SECTIONS[command]) | told


# --- messages.md --------------------------------------------------------------------------------


def error_classes(base: type[errors.KdlawsError] = errors.KdlawsError) -> Iterator[Any]:
    yield base
    for each in base.__subclasses__():
        yield from error_classes(each)


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """The table under a heading: its first cell, without backticks, to the other cells."""
    section = PAGES[page].partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (`.*) \|$", section, re.MULTILINE)
    return {cells[0].strip("`"): cells[1:] for cells in (line.split(" | ") for line in lines)}


def test_every_error_is_in_the_page_with_its_exit_code() -> None:
    shown = rows("messages.md", "Errors")
    for each in error_classes():
        assert shown[each.__name__][0] == str(each.exit_code)


def test_the_tree_of_errors_is_the_one_in_the_code() -> None:
    drawn = re.compile(r"^([│├└─ ]*)(\w+Error)", re.MULTILINE)
    assert drawn.findall(PAGES["messages.md"]) == drawn.findall(errors.__doc__ or "")


A_NOTICE, OR_ITS_TUPLE = r"\bNotice\(", r"(?:\bNotice\(|\(\()"


def notice_codes(opening: str, *patterns: str) -> set[str]:
    """The code of every warning in the sources."""
    code = re.compile(opening + r'\s*"([a-z0-9_]+)",')
    sources = [path for pattern in patterns for path in (ROOT / "src" / "kdlaws").glob(pattern)]
    return {each for path in sources for each in code.findall(path.read_text(encoding="utf-8"))}


def test_every_warning_of_a_fit_is_in_the_page() -> None:
    codes = notice_codes(OR_ITS_TUPLE, "laws/*.py", "selection.py", "tables.py")
    assert {"flops_6nd", "not_identified", "pooled_methods"} <= codes
    assert set(rows("messages.md", "Warnings of a fit")) == codes


def test_every_warning_of_advice_is_in_the_page() -> None:
    codes = notice_codes(A_NOTICE, "advice/**/*.py")
    assert {"direct_is_better", "flops_6nd"} <= codes
    assert set(rows("messages.md", "Warnings of advice")) == codes


# --- quickstart.md ------------------------------------------------------------------------------

LEAST, THE_REST = (
    yaml.safe_load(block)
    for block in re.findall(r"^```yaml\n(.*?)^```$", PAGES["quickstart.md"], re.M | re.S)
)


def merged(one: Any, other: Any) -> Any:
    """Mappings merged key by key, lists place by place."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one | {k: merged(one[k], v) if k in one else v for k, v in other.items()}
    if isinstance(one, list) and isinstance(other, list):
        return [merged(a, b) for a, b in zip(one, other, strict=False)] + one[len(other) :]
    return other


def load(document: Any, folder: Path) -> Study:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(document))
    return load_study(file)


def test_the_defaults_shown_add_nothing_to_the_study_shown(tmp_path: Path) -> None:
    study = load(LEAST, tmp_path)
    assert len(study.students) == 2
    assert load(merged(LEAST, THE_REST), tmp_path) == study


@pytest.mark.parametrize(
    ("model", "at"),
    [
        (Study, ()),
        (Corpus, ("corpus",)),
        (Tokenizer, ("tokenizer",)),
        (Teacher, ("teachers", "big")),
        (Students, ("students", 0)),
        (Masking, ("masking",)),
        (Optimiser, ("optimiser",)),
        (Cache, ("cache",)),
    ],
)
def test_the_study_shown_has_every_field(model: type[BaseModel], at: tuple[Any, ...]) -> None:
    shown = merged(LEAST, THE_REST)
    for key in at:
        shown = shown[key]
    assert set(shown) == set(model.model_fields)


# --- all pages ----------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
