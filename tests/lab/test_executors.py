"""The pool of worker processes: order, failures, and what depends on them."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kdlaws.config import Study
from kdlaws.lab.executors import LocalProcesses, Task, n_workers
from kdlaws.lab.progress import Reporter, duration


def succeed(name: str, requires: tuple[str, ...] = ()) -> Task:
    return Task(name, print, (), 0.5, 10, requires)


def fail(name: str, requires: tuple[str, ...] = ()) -> Task:
    return Task(name, divmod, (1, 0), 0.5, 10, requires)


def test_failures_stop_what_needs_them_and_nothing_else() -> None:
    tasks = [fail("a"), succeed("b", requires=("a",)), succeed("c"), succeed("d", requires=("c",))]
    failed = LocalProcesses(2).run(tasks, lambda *_: None)
    assert set(failed) == {"a", "b"}
    assert isinstance(failed["a"], TypeError)  # divmod is given the reporter as a third argument


def test_a_requirement_that_is_no_task_is_met_already() -> None:
    assert LocalProcesses(1).run([succeed("a", requires=("made long ago",))], lambda *_: None) == {}


VISITS = """
import time

def meet(folder, name, other, _):
    (folder / name).touch()
    patience = time.monotonic() + 60
    while not (folder / other).exists():
        if time.monotonic() > patience:
            raise TimeoutError(f"{other} never came")
        time.sleep(0.01)

def be_alone(folder, name, _):
    mark = folder / "busy"
    mark.touch(exist_ok=False)
    time.sleep(0.2)
    mark.unlink()
"""


@pytest.fixture
def visit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:
    """Tasks that look for one another in a folder, from a module that workers can import."""
    (tmp_path / "visits.py").write_text(VISITS)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("visits")
    folder = tmp_path / "folder"
    folder.mkdir()

    def task(function: str, name: str, *others: str, memory_mb: int) -> Task:
        call = getattr(module, function)
        return Task(name, call, (folder, name, *others), 1.0, 1, memory_mb=memory_mb)

    return task


def test_tasks_that_do_not_fit_together_never_run_at_the_same_time(
    visit: Callable[..., Task],
) -> None:
    """Two that fit wait for one another; of the others each is alone, the largest as well."""
    tasks = [
        visit("meet", "a", "b", memory_mb=5),
        visit("meet", "b", "a", memory_mb=5),
    ]
    tasks += [visit("be_alone", f"large{i}", memory_mb=6) for i in range(3)]
    tasks.append(visit("be_alone", "larger than the limit", memory_mb=11))
    assert LocalProcesses(2, memory_mb=10).run(tasks, lambda *_: None) == {}


def test_expected_seconds() -> None:
    assert succeed("a").seconds == 5.0


def test_plain_lines_outside_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    tasks = [succeed("a"), succeed("b")]
    with Reporter("train").following(tasks) as on_tokens:
        on_tokens(tasks[0], 10)
    assert "train: 2 tasks, about 10 s" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3660, "1 h 1 min")]
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_there_is_a_worker_for_each_core_unless_the_study_says(tiny_study: Study) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert n_workers(tiny_study) == 1
        assert n_workers(tiny_study.model_copy(update={"workers": 3})) == 3
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("n_gpus", "workers", "expected"), [(4, None, 4), (4, 2, 2), (4, 9, 4), (0, None, 1)]
)
def test_there_are_no_more_workers_than_gpus(
    tiny_study: Study,
    monkeypatch: pytest.MonkeyPatch,
    n_gpus: int,
    workers: int | None,
    expected: int,
) -> None:
    """Where there is none, a study for another machine can still be planned."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    on_gpus = tiny_study.model_copy(update={"device": "cuda", "workers": workers})
    assert n_workers(on_gpus) == expected
