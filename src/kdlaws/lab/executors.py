"""Where tasks run: local processes, one thread each, that live as long as the sweep."""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from kdlaws.config import Study
from kdlaws.errors import KdlawsError

_REPORT_SECONDS = 0.25

OnTokens = Callable[[int], None]


@dataclass(frozen=True)
class Task:
    """A call ``function(*arguments, on_tokens)`` that other tasks may wait for."""

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    seconds_per_token: float
    n_tokens: int
    requires: tuple[str, ...] = ()
    memory_mb: int = 0

    @property
    def seconds(self) -> float:
        """Expected seconds on one worker."""
        return self.n_tokens * self.seconds_per_token


class _StopRequestedError(Exception):
    pass


class _Reporter:
    """Passes on token counts from a worker, a few times a second, and ends the task on request."""

    def __init__(self, task: str) -> None:
        self.task, self.unsent, self.sent_at = task, 0, time.monotonic()

    def __call__(self, n_tokens: int) -> None:
        self.unsent += n_tokens
        if time.monotonic() - self.sent_at > _REPORT_SECONDS:
            self.flush()
            if _stop.is_set():
                raise _StopRequestedError

    def flush(self) -> None:
        _reports.put((self.task, self.unsent))
        self.unsent, self.sent_at = 0, time.monotonic()


_reports: Any = None
_stop: Any = None


def n_workers(study: Study) -> int:
    """As the study says; else one for each core, or for each GPU, and never more than GPUs.

    One where there is no GPU: a study for another machine can be planned here.
    """
    if study.device == "cuda":
        import torch

        n_gpus = max(1, torch.cuda.device_count())
        return min(study.workers or n_gpus, n_gpus)
    return study.workers or len(os.sched_getaffinity(0))


def _numbered(n_gpus: int, numbers: Any) -> Any:
    """A queue that gives each worker a GPU of its own."""
    for index in range(n_gpus):
        numbers.put(index)
    return numbers


def _start_worker(reports: Any, stop: Any, gpus: Any) -> None:
    global _reports, _stop
    _reports, _stop = reports, stop
    # A signal to the whole group is the sweep's to handle: it asks its workers to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(1)
    if gpus is not None:
        torch.cuda.set_device(gpus.get())


def _exit_with_parent() -> None:
    """A killed sweep leaves no worker behind to write beside its successor."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_task(task: Task) -> None:
    reporter = _Reporter(task.name)
    try:
        task.function(*task.arguments, reporter)
    except _StopRequestedError:
        return
    reporter.flush()


class LocalProcesses:
    """A pool of persistent worker processes, of one thread, or of one GPU, each.

    Tasks start in the given order, once they can and what runs leaves them memory.
    """

    def __init__(self, n_workers: int, memory_mb: int | None = None, device: str = "cpu") -> None:
        self.n_workers, self.memory_mb = n_workers, memory_mb
        context = multiprocessing.get_context("spawn")
        self._reports, self._stop = context.Queue(), context.Event()
        gpus = _numbered(n_workers, context.SimpleQueue()) if device == "cuda" else None
        self._pool = ProcessPoolExecutor(
            n_workers,
            mp_context=context,
            initializer=_start_worker,
            initargs=(self._reports, self._stop, gpus),
        )

    def run(
        self, tasks: Sequence[Task], on_tokens: Callable[[Task, int], None]
    ) -> dict[str, BaseException]:
        """Run every task; the errors of those that failed, or could not start, by task name.

        Raises KdlawsError when a worker dies. However it ends, running tasks are asked to stop;
        whatever was finished is on disk.
        """
        try:
            return self._run(list(tasks), on_tokens)
        except BrokenProcessPool:
            raise KdlawsError(
                "a worker process died, perhaps for want of memory",
                remedy="the same command goes on from here; try a lower memory_mb, or workers=1",
            ) from None
        finally:
            self._stop.set()
            self._pool.shutdown(cancel_futures=True)

    def _run(
        self, waiting: list[Task], on_tokens: Callable[[Task, int], None]
    ) -> dict[str, BaseException]:
        by_name = {task.name: task for task in waiting}
        unfinished = set(by_name)
        running: dict[Future[None], Task] = {}
        failed: dict[str, BaseException] = {}
        while waiting or running:
            self._submit(waiting, running, unfinished, failed)
            done, _ = wait(running, timeout=_REPORT_SECONDS, return_when=FIRST_COMPLETED)
            self._drain(by_name, on_tokens)
            for future in done:
                task = running.pop(future)
                unfinished.discard(task.name)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise error
                if error is not None:
                    failed[task.name] = error
        self._drain(by_name, on_tokens)
        return failed

    def _submit(
        self,
        waiting: list[Task],
        running: dict[Future[None], Task],
        unfinished: set[str],
        failed: dict[str, BaseException],
    ) -> None:
        for task in list(waiting):
            if len(running) == self.n_workers:
                return
            lost = [name for name in task.requires if name in failed]
            if lost:
                failed[task.name] = failed[lost[0]]
                waiting.remove(task)
            elif unfinished.isdisjoint(task.requires) and self._has_room(task, running.values()):
                running[self._pool.submit(_run_task, task)] = task
                waiting.remove(task)

    def _has_room(self, task: Task, running: Iterable[Task]) -> bool:
        taken = [each.memory_mb for each in running]
        return not taken or self.memory_mb is None or sum(taken) + task.memory_mb <= self.memory_mb

    def _drain(self, by_name: dict[str, Task], on_tokens: Callable[[Task, int], None]) -> None:
        while True:
            try:
                name, n_tokens = self._reports.get_nowait()
            except queue.Empty:
                return
            on_tokens(by_name[name], n_tokens)
