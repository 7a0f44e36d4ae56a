"""How far a sweep is, and the time left: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from kdlaws.lab.executors import Task

_PLAIN_SECONDS = 15


class Reporter:
    """Follows tasks by the seconds that they were expected to take."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.console = Console(stderr=True)

    @contextmanager
    def following(self, tasks: Sequence[Task]) -> Iterator[Callable[[Task, int], None]]:
        """A callback ``on_tokens(task, n)`` while the tasks run."""
        total = sum(task.seconds for task in tasks)
        self.console.print(
            f"{self.title}: {len(tasks)} tasks, about {duration(total)} of one core's time",
            highlight=False,
        )
        if self.console.is_terminal:
            with self._bar(total) as on_tokens:
                yield on_tokens
        else:
            yield _PlainLines(self.title, total, self.console)

    @contextmanager
    def _bar(self, total: float) -> Iterator[Callable[[Task, int], None]]:
        columns = (
            TextColumn(self.title),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left  {task.description}"),
        )
        started = time.monotonic()
        with Progress(*columns, console=self.console, transient=True) as bar:
            followed = bar.add_task("", total=total, left="?")

            def on_tokens(task: Task, n_tokens: int) -> None:
                bar.advance(followed, n_tokens * task.seconds_per_token)
                done = bar.tasks[0].completed
                left = _time_left(done, total, time.monotonic() - started)
                bar.update(followed, description=task.name, left=left)

            yield on_tokens


class _PlainLines:
    def __init__(self, title: str, total: float, console: Console) -> None:
        self.title, self.total, self.console = title, total, console
        self.done = 0.0
        self.started = self.printed = time.monotonic()

    def __call__(self, task: Task, n_tokens: int) -> None:
        self.done += n_tokens * task.seconds_per_token
        now = time.monotonic()
        if now - self.printed > _PLAIN_SECONDS:
            self.printed = now
            share = min(1.0, self.done / self.total)
            left = _time_left(self.done, self.total, now - self.started)
            self.console.print(
                f"{self.title}: {share:4.0%} done, {duration(now - self.started)} gone, "
                f"about {left} left",
                highlight=False,
            )


def _time_left(done: float, total: float, gone: float) -> str:
    return duration(gone * max(0.0, total - done) / done) if done > 0 else "?"


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(42), duration(200), duration(9000)
    ('42 s', '3 min 20 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
