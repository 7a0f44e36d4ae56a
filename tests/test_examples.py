"""The examples run as a reader would run them, and print what they are meant to show."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
MADE_UP = runpy.run_path(str(ROOT / "tests" / "advice" / "conftest.py"))


def run_example(name: str, folder: Path, *arguments: str) -> str:
    """What the example prints when it is run in ``folder``; warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(line: str) -> list[float]:
    """The numbers of a line that stand alone."""
    found = re.findall(r"(?<!\S)[+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?(?=[\s,:%]|$)", line)
    return [float(each.replace(",", "")) for each in found]


def test_the_fit_of_a_table_finds_the_law_that_made_it(tmp_path: Path) -> None:
    truth = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
    lines = run_example("fit_a_table", tmp_path).splitlines()
    printed = {line.split()[0]: numbers(line) for line in lines if line.startswith("  ")}
    for name, value in truth.items():
        _, lo, hi = printed[name]
        assert lo < value < hi, name
    prediction, lo, hi = (float(each) for each in re.findall(r"\d\.\d{3}", lines[-1]))
    expected = 1.8 + 480 / 300e6**0.35 + 2100 / 20e9**0.37
    assert lo < expected < hi
    assert prediction == pytest.approx(expected, abs=0.01)


def test_the_costs_of_the_ladder(tmp_path: Path) -> None:
    rows = [line.split() for line in run_example("ladder_costs", tmp_path).splitlines()[1:]]
    # 32/1 by hand: weights 4*32^2 + 3*32*88 and 3 gains of 32, head 1024*32, context 128.
    forward = 2 * (4 * 32**2 + 3 * 32 * 88 + 3 * 32) + 2 * 128 * 32 + 2 * 1024 * 32
    student = next(row for row in rows if row[0] == "32/1")
    assert student[1:3] == ["45,408", "12,640"]
    assert float(student[3]) == pytest.approx(3 * forward * 2e6, rel=5e-3)
    # 500k unique tokens are read by the teacher once; a teacher beside it would read 1.5M more
    teacher, training, saved = map(float, student[4:])
    assert saved == pytest.approx(3 * teacher, rel=5e-3)
    assert training == pytest.approx(3 * teacher / 500e3 * 8e6, rel=5e-3)


def test_the_gains_of_a_study(tmp_path: Path) -> None:
    study = MADE_UP["_write_study"](tmp_path / "study")
    lines = run_example("read_a_study", tmp_path, str(study)).splitlines()[1:]
    gains = {line.split(":")[0]: float(line.split()[-3]) for line in lines}
    by_main_teacher = [gain for name, gain in gains.items() if "192x6" in name]
    assert by_main_teacher == pytest.approx(MADE_UP["GAINS"]["token"], abs=1e-3)
    weaker = [gain for name, gain in gains.items() if "96x3" in name]
    assert weaker == pytest.approx([0.06, 0.11], abs=1e-3)


def test_the_choice_of_a_teacher(tmp_path: Path) -> None:
    """Busbridge et al. 2025: a free teacher's student wins early, a paid one's never."""
    rows = [line.split() for line in run_example("choose_a_teacher", tmp_path).splitlines()[1:]]
    assert [row[:2] for row in rows[:2]] == [["1e+21", "inference"], ["1e+21", "both"]]
    for _, pays_for, *_, distilled, directly in rows:
        if pays_for == "both":
            assert float(distilled) >= float(directly)
    assert float(rows[0][-2]) < float(rows[0][-1])
    assert rows[0][4] == "10B"
