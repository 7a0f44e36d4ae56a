"""The front door: each script is one command, says what it needs, and imports clean."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = {"train": "train", "evaluate": "evaluate", "plot": "report", "models": "models"}

each_script = pytest.mark.parametrize("script", COMMANDS)


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


@each_script
def test_a_script_is_its_command_with_the_same_arguments(script: str, tmp_path: Path) -> None:
    stand_in = tmp_path / "kdlaws"
    stand_in.mkdir()
    (stand_in / "__init__.py").touch()
    (stand_in / "cli.py").write_text("main = print")
    done = run_python(f"{script}.py", "study.yaml", "a=b c", PYTHONPATH=str(tmp_path))
    assert (done.stdout, done.stderr) == (f"['{COMMANDS[script]}', 'study.yaml', 'a=b c']\n", "")


@each_script
def test_an_old_python_gets_one_line(script: str) -> None:
    source = (ROOT / f"{script}.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    as_on_310 = (
        "import runpy, sys; sys.version_info, sys.version = (3, 10, 13), '3.10.13 (main)';"
        f"runpy.run_path('{script}.py', run_name='__main__')"
    )
    done = run_python("-c", as_on_310)
    assert done.stderr == "kdlaws needs Python 3.11 or newer; this is 3.10.13\n"
    assert done.returncode == 2


@each_script
def test_without_the_dependencies_one_line_says_what_to_install(script: str) -> None:
    done = run_python("-S", "-E", f"{script}.py")  # no site-packages
    assert done.stderr.count("\n") == 1
    assert "pip install -r requirements.txt" in done.stderr
    assert done.returncode == 2


@each_script
def test_importing_a_script_does_nothing(script: str) -> None:
    # `evaluate` is also the name of a package that others import.
    done = run_python("-c", f"import {script}, sys; print('kdlaws' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_script_and_the_module_print_the_same_document() -> None:
    by_script = run_python("models.py", "--json")
    by_module = run_python("-m", "kdlaws", "models", "--json")
    assert by_script.returncode == 0, by_script.stderr
    assert by_script.stdout == by_module.stdout
    assert json.loads(by_script.stdout)["schema"] == 1
