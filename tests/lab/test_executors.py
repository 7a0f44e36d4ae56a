"""The pool of worker processes: order, failures, and what depends on them."""

import pytest

from kdlaws.lab.executors import LocalProcesses, Task
from kdlaws.lab.progress import Reporter, duration


def succeed(name: str, requires: str | None = None) -> Task:
    return Task(name, print, (), 0.5, 10, requires)


def fail(name: str, requires: str | None = None) -> Task:
    return Task(name, divmod, (1, 0), 0.5, 10, requires)


def test_failures_stop_what_needs_them_and_nothing_else() -> None:
    tasks = [fail("a"), succeed("b", requires="a"), succeed("c"), succeed("d", requires="c")]
    failed = LocalProcesses(2).run(tasks, lambda *_: None)
    assert set(failed) == {"a", "b"}
    assert isinstance(failed["a"], TypeError)  # divmod is given the reporter as a third argument


def test_a_requirement_that_is_no_task_is_met_already() -> None:
    assert LocalProcesses(1).run([succeed("a", requires="made long ago")], lambda *_: None) == {}


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
