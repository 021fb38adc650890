"""Work on many cases in worker processes, one case at a time each.

Unlike concurrent.futures' pool, this one knows which case a worker was working on when it died: that case is tried
once more in a new process, and the other cases are not affected. Workers are forked by a server that only imports
what cases need (where there is no such server, they are spawned). So they start in milliseconds and inherit none of
the parent's threads and locks. Each has one thread for linear algebra, ignores Ctrl-C (its parent ends it), and ends
when its parent does, in whichever way that happens (parent.py).
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mvl_auto.errors import MvlError
from mvl_auto.jobs.outcome import JobFailed, WorkerDied, outcome_of
from mvl_auto.jobs.parent import cause_of_end, end_with_parent, starting_workers

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

J = TypeVar("J")
R = TypeVar("R")

ATTEMPTS = 2  # when two workers in a row die over a job, the job is the reason
IMPORTED = ("numpy", "scipy.ndimage", "nibabel", "blosc2", "threadpoolctl", "mvl_auto.datasets", "mvl_auto.cache")
LONGEST_GOODBYE = 5.0  # s for a worker to end by itself


def run_in_processes(
    function: Callable[[J], R], jobs: Iterable[J], workers: int
) -> Generator[tuple[J, R | MvlError | JobFailed], None, None]:
    """Yield each job with its outcome, as they come. Closing the iterator ends the workers at once."""
    pending = deque((job, 1) for job in jobs)
    idle: list[_Worker[J, R]] = []
    busy: dict[Any, _Worker[J, R]] = {}
    try:
        while pending or busy:
            while pending and len(busy) < workers:
                worker = idle.pop() if idle else _start(function)
                worker.begin(*pending.popleft())
                busy[worker.pipe] = worker
            for pipe in wait(list(busy)):
                worker = busy.pop(pipe)
                outcome = worker.outcome()
                if not isinstance(outcome, WorkerDied):
                    idle.append(worker)
                elif worker.attempt < ATTEMPTS:
                    pending.append((worker.job, worker.attempt + 1))
                    continue
                yield worker.job, outcome
    finally:
        _stop(idle, busy.values())


@dataclass(eq=False)
class _Worker(Generic[J, R]):
    """A process and the job that it works on."""

    process: BaseProcess
    pipe: Connection
    job: J = field(init=False)
    attempt: int = field(init=False)

    def begin(self, job: J, attempt: int) -> None:
        self.job, self.attempt = job, attempt
        with suppress(OSError):  # it died idle: outcome() finds out
            self.pipe.send(job)

    def outcome(self) -> R | MvlError | JobFailed:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            self.pipe.close()
            return WorkerDied(f"its worker process died ({cause_of_end(self.process.exitcode)})")


def _start(function: Callable[[J], R]) -> _Worker[J, R]:
    context: ForkServerContext | SpawnContext
    if "forkserver" in get_all_start_methods():
        context = get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
    else:
        context = get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_work, args=(its,), daemon=True)
    with starting_workers():
        process.start()
    its.close()
    with suppress(OSError):  # it died at once: outcome() finds out
        ours.send(function)
    return _Worker(process, ours)


def _stop(idle: Iterable[_Worker[J, R]], busy: Iterable[_Worker[J, R]]) -> None:
    workers = [*idle, *busy]
    for worker in busy:
        worker.process.terminate()
    for worker in workers:
        worker.pipe.close()
    for worker in workers:
        worker.process.join(LONGEST_GOODBYE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


# --------------------------------------------------------------------------------- in the worker


def _work(pipe: Connection) -> None:
    """The function comes through the pipe, then jobs: where its modules cannot be imported, their outcome says why."""
    import numpy  # noqa: F401  the limit applies to libraries that are loaded
    from threadpoolctl import threadpool_limits

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a server that others started, too
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    end_with_parent()
    with threadpool_limits(1), suppress(EOFError, BrokenPipeError):
        function = outcome_of(Connection.recv, pipe)
        while True:
            job = pipe.recv()
            pipe.send(function if isinstance(function, MvlError | JobFailed) else outcome_of(function, job))
