"""Which room may import which, what loads with a room, and what may not be named anywhere."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
WINGS = ("lab", "laws", "advice")
COMMANDS = (
    *("kdlaws.cli", "kdlaws.cli_advice", "kdlaws.cli_cache", "kdlaws.cli_laws"),
    "kdlaws.cli_models",
)
MAY_IMPORT_CLI = ("kdlaws.__main__", "kdlaws.cli")
LAB_ONLY = ("torch", "transformers", "tokenizers", "safetensors")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted((SOURCE / "kdlaws").rglob("*.py"))}


def room(module: str) -> str:
    """lab, laws, advice or hall for a module of ours; the package's name for another's."""
    package, _, rest = module.partition(".")
    if package != "kdlaws":
        return package
    first = rest.partition(".")[0]
    return first if first in WINGS else "hall"


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """Each thing imported, by its full name, and whether that happens inside a function."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports here are absolute"
            yield from ((f"{node.module}.{alias.name}", id(node) in inside) for alias in node.names)


def trespasses(module: str, source: str) -> Iterator[str]:
    """The imports that cross a wall."""
    here = room(module)
    open_wings = {"hall": (), "lab": ("lab",), "laws": ("laws",), "advice": ("advice", "laws")}
    for name, inside in imports(source):
        there = room(name)
        by_a_command = module in COMMANDS and inside
        shared_by_commands = module in COMMANDS and name.startswith("kdlaws.cli_common")
        open_to_laws = name.startswith("kdlaws.errors") or name == "kdlaws.__version__"
        if (
            (there in LAB_ONLY and here != "lab")
            or (there in WINGS and there not in open_wings[here] and not by_a_command)
            or (there == "hall" and here == "laws" and not open_to_laws)
            or (
                name.startswith("kdlaws.cli")
                and module not in MAY_IMPORT_CLI
                and not shared_by_commands
            )
        ):
            yield name


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    assert not list(trespasses(module, MODULES[module].read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kdlaws.tables", "import torch"),
        ("kdlaws.study", "def f():\n    from kdlaws.lab import trainer"),
        ("kdlaws.tables", "from kdlaws.cli_common import print_json"),
        ("kdlaws.cli", "from kdlaws.laws.fit import fit"),
        ("kdlaws.cli_cache", "from kdlaws import cli_laws"),
        ("kdlaws.cli_common", "def f():\n    from kdlaws.lab import sweep"),
        ("kdlaws.lab.sweep", "from kdlaws import laws"),
        ("kdlaws.lab.sweep", "from kdlaws.cli import main"),
        ("kdlaws.laws.fit", "from kdlaws.tables import read_table"),
        ("kdlaws.laws.fit", "import safetensors.numpy"),
        ("kdlaws.advice.planning.plan", "import kdlaws.lab.cache"),
    ],
)
def test_a_wall_stands(module: str, source: str) -> None:
    assert list(trespasses(module, source))


@pytest.mark.parametrize("module", COMMANDS)
def test_a_command_may_import_its_wing(module: str) -> None:
    assert not list(trespasses(module, "def f():\n    from kdlaws.lab import sweep"))


@pytest.mark.parametrize(
    ("rooms", "absent"),
    [
        ({"hall", "laws", "advice"}, LAB_ONLY),
        ({"hall"}, ("pandas", "scipy", "matplotlib")),
        ({"laws"}, ("pandas", "scipy", "matplotlib", "pydantic")),
    ],
)
def test_importing_a_room_loads_nothing_heavy(rooms: set[str], absent: tuple[str, ...]) -> None:
    modules = ", ".join(name for name in MODULES if room(name) in rooms)
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not set(absent) & set(done.stdout.split())


# Written so that this file does not match itself.
UNWANTED = re.compile(
    r"(?<![\w.])/(?:work|root|home)/\w|pypi[.](?:org|io)|python[h]osted|npm[j]s|deb[.]debian"
)


def files_of_the_repository() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout: which files belong to the repository is not known")
    return [ROOT / name for name in done.stdout.split("\0") if (ROOT / name).is_file()]


def test_no_file_names_a_machine_or_a_package_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in files_of_the_repository()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if (match := UNWANTED.search(line))
    ]
    assert not found
