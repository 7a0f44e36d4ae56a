"""The tasks of a sweep: which there are, what each waits for, and how much memory it takes."""

from collections import defaultdict
from pathlib import Path

import pytest

from kdlaws.config import Study, load_study
from kdlaws.lab.executors import Task
from kdlaws.lab.probe import Rates
from kdlaws.lab.sweep import Tasks, plan_study
from kdlaws.lab.tokens import Text
from kdlaws.shapes import shape


def pending(tmp_path: Path, *overrides: str) -> dict[str, Task]:
    study = load_study(tmp_path / "tiny.yaml", overrides)
    text = Text(study)
    rates: Rates = defaultdict(lambda: 1e-6)
    return {task.name: task for task in Tasks(plan_study(study, text), text, rates).pending()}


def requirements(tasks: dict[str, Task]) -> dict[str, set[str]]:
    """By the first word of their names, the first words of what tasks wait for."""
    found: dict[str, set[str]] = {}
    for name, task in tasks.items():
        needed = found.setdefault(name.split("-")[0], set())
        needed.update(each.split("-")[0] for each in task.requires)
    return found


def test_students_wait_for_the_cache_and_the_cache_for_the_teacher(
    tiny_study: Study, tmp_path: Path
) -> None:
    assert requirements(pending(tmp_path)) == {
        "teacher": set(),
        "cache of teacher": {"teacher"},
        "scratch": set(),
        "token": {"cache of teacher"},
        "embedding": {"cache of teacher"},
    }


def test_beside_an_online_teacher_students_wait_for_the_teacher(
    tiny_study: Study, tmp_path: Path
) -> None:
    assert requirements(pending(tmp_path, "cache.outputs=online")) == {
        "teacher": set(),
        "scratch": set(),
        "token": {"teacher"},
        "embedding": {"teacher"},
    }


def test_an_online_teachers_weights_count_as_its_students_memory(
    tiny_study: Study, tmp_path: Path
) -> None:
    """Four bytes each, in single precision."""
    sizes = ("64/2", "25M")

    def of_students(size: str, outputs: str) -> int:
        tasks = pending(tmp_path, f"teachers.small.size={size}", f"cache.outputs={outputs}")
        (memory_mb,) = {task.memory_mb for name, task in tasks.items() if name.startswith("token")}
        return memory_mb

    small, large = (shape(size, n_vocab=300).n_params for size in sizes)
    beside_small, beside_large = (of_students(size, "online") for size in sizes)
    assert beside_large - beside_small == pytest.approx(4 * (large - small) / 1e6, abs=1)
    assert of_students("64/2", "sampled") < beside_small
