"""Work on many cases: in this process, in processes of our own, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import TypeVar

from mvl_auto.errors import MvlError
from mvl_auto.jobs.outcome import JobFailed, outcome_of

J = TypeVar("J")
R = TypeVar("R")

BYTES_WORTH_A_WORKER = 16 << 20  # of files: working on them takes about as long as starting another process


def run_jobs(
    function: Callable[[J], R], jobs: Iterable[J], workers: int, scheduler: str | None = None
) -> Generator[tuple[J, R | MvlError | JobFailed], None, None]:
    """Yield each job with its result, as they come; where there is none, with the MvlError raised, or a JobFailed.

    function: importable by name, or a functools.partial of such a one. workers: processes; 1: all is done in this one.
    scheduler: the address of a Dask cluster to work on instead. Closing the iterator, or an exception in the caller,
    ends the workers at once.
    """
    if scheduler is not None:
        from mvl_auto.jobs.dask import run_on_cluster

        yield from run_on_cluster(function, jobs, scheduler)
    elif workers == 1:
        for job in jobs:
            yield job, outcome_of(function, job)
    else:
        from mvl_auto.jobs.processes import run_in_processes

        yield from run_in_processes(function, jobs, workers)


def available_cores() -> int:
    """Cores that this process may use: fewer than the machine has where its affinity or a container's quota says so."""
    from joblib import cpu_count

    return max(1, cpu_count())


def worthwhile_workers(files: Iterable[Path], jobs: int) -> int:
    """Worker processes for `jobs` that read `files`: one per core, fewer where the work is shorter than their start."""
    size = sum(file.stat().st_size for file in files if file.is_file())
    return max(1, min(available_cores(), jobs, size // BYTES_WORTH_A_WORKER))
