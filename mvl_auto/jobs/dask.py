"""Work on many cases on a running Dask cluster, with the same contract as mvl_auto.jobs.processes.

The cluster's workers read and write the files themselves: they need the same version of mvl_auto, and the root and
the dataset under the same paths. Each case is a task of its own, submitted when a thread of the cluster is free for
it, so that neither this process nor the scheduler holds more cases than are being worked on.

When a worker dies, Dask gives its cases to other workers: four times in all, unless the scheduler's
`distributed.scheduler.allowed-failures` says otherwise. A worker with several threads works on several cases, and Dask
cannot know which of them killed it; so the cases that it gave up are tried again at the end, one at a time.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from mvl_auto.errors import MvlError
from mvl_auto.jobs.outcome import JobFailed, WorkerDied, outcome_of
from mvl_auto.version import __version__

if TYPE_CHECKING:
    from distributed import Client, Future

J = TypeVar("J")
R = TypeVar("R")

LONGEST_GREETING = 5.0  # s for a scheduler to answer; on a local network it takes milliseconds
ADDRESS = re.compile(r"(?:(?:tcp|tls|ws|wss|ucx)://)?[^\s/]*[^\s/:]:\d{1,5}")
GIVE = "Start one with `dask scheduler` and give the address that it prints."
GOES_ON = "Start it again, and run the same command again to resume."

log = logging.getLogger(__name__)


def run_on_cluster(
    function: Callable[[J], R], jobs: Iterable[J], scheduler: str
) -> Iterator[tuple[J, R | MvlError | JobFailed]]:
    """Yield each job with its result, as they come; where there is none, with the MvlError raised, or a JobFailed.

    function: importable by name on the workers, or a functools.partial of such a one. scheduler: tcp://host:port.
    A cluster without workers is waited for: it may be one that starts them on demand. Closing the iterator gives
    back what has not begun. Raises MvlError when the scheduler cannot be reached, or is lost on the way, or when
    its workers cannot run this version of mvl_auto.
    """
    suspects: list[J] = []
    with _connected(scheduler) as client:
        for job, outcome in _spread(client, function, jobs, scheduler):
            if isinstance(outcome, WorkerDied):
                suspects.append(job)  # or another case on the same worker killed it
            else:
                yield job, outcome
        yield from _spread(client, function, suspects, scheduler, at_once=1)


def check_address(scheduler: str) -> None:
    """Raise MvlError for text that is not the address of a scheduler.

    For "" Dask would start a cluster of its own, and for a bare word it makes a client that takes ten seconds to
    close.
    """
    if not ADDRESS.fullmatch(scheduler):
        raise MvlError(
            f"no Dask scheduler can be reached at '{scheduler}' (an address is like tcp://host:8786)", remedy=GIVE
        )


@contextmanager
def _connected(scheduler: str) -> Iterator[Client]:
    """A connection to the scheduler. Raises MvlError within seconds where there is none, or no dask.distributed."""
    check_address(scheduler)
    try:
        from distributed import Client
    except ImportError as error:
        raise MvlError(
            "working on a Dask cluster needs dask.distributed", remedy="pip install 'mvl-auto[dask]'"
        ) from error
    with _without_its_log():
        try:
            client = Client(scheduler, timeout=LONGEST_GREETING, set_as_default=False)
        except (OSError, ValueError, ImportError) as error:  # no scheduler, no address, another version of Dask
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise MvlError(
                f"no Dask scheduler can be reached at {scheduler} ({reason})",
                remedy=GIVE,
            ) from error
        try:
            yield client
        finally:
            client.close()


@contextmanager
def _without_its_log() -> Iterator[None]:
    """Dask's client writes to the screen by itself; this module says the same in one line."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _spread(
    client: Client, function: Callable[[J], R], jobs: Iterable[J], scheduler: str, at_once: int | None = None
) -> Iterator[tuple[J, R | MvlError | JobFailed]]:
    """at_once: tasks that are submitted and not done; None: as many as the cluster has threads at that moment."""
    from distributed import as_completed

    waiting = iter(jobs)
    held: dict[Any, J] = {}
    done = as_completed(loop=client.loop)
    while True:
        for job in islice(waiting, max(0, (at_once or _threads(client, scheduler)) - len(held))):
            future = client.submit(_work, __version__, function, job, pure=False)
            held[future.key] = job
            done.add(future)
        if not held:
            return
        future = next(done)
        yield held.pop(future.key), _outcome(future, scheduler)


def _threads(client: Client, scheduler: str) -> int:
    """Threads of all workers at this moment; at least one, so that an adaptive cluster starts a worker for a case."""
    try:
        threads = sum(client.nthreads().values())
    except OSError as error:
        raise _lost(scheduler, error) from error
    if not threads:
        log.info("the Dask cluster at %s has no workers yet: waiting for one", scheduler)
    return max(1, threads)


def _outcome(future: Future[Any], scheduler: str) -> Any:
    """What `_work` returned, or the reason that Dask gives: the worker died, the scheduler is lost, another version."""
    from distributed import CancelledError, KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        deaths = error.allowed_failures + 1
        return WorkerDied(f"{deaths} workers of the Dask cluster died over it; most likely they ran out of memory")
    except (CancelledError, OSError) as error:
        raise _lost(scheduler, error) from error
    except Exception as error:
        raise MvlError(
            f"a worker of the Dask cluster at {scheduler} cannot work for this process ({error})",
            remedy=f"Install mvl-auto {__version__} where the workers run.",
        ) from error


def _lost(scheduler: str, error: BaseException) -> MvlError:
    log.debug("%s: %r", scheduler, error)
    return MvlError(f"the Dask scheduler at {scheduler} stopped answering", remedy=GOES_ON)


# --------------------------------------------------------------------------------- in the worker


def _work(version: str, function: Callable[[J], R], job: J) -> R | MvlError | JobFailed:
    if version != __version__:
        raise ImportError(f"it has mvl_auto {__version__}, not {version}")
    return outcome_of(function, job)
