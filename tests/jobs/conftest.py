"""A Dask cluster of real processes, and the three ways in which jobs are run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import dask
import pytest
from distributed import LocalCluster
from jobs import killed_when_ready

from mvl_auto.jobs import run_jobs

WORKERS = 2
PROCESSES = {"processes": True, "memory_limit": 0, "dashboard_address": ":0"}


@contextmanager
def local_cluster() -> Iterator[LocalCluster]:
    """Two workers of one thread, restarted when they die; a task whose workers died twice is given up."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(WORKERS, threads_per_worker=1, **PROCESSES) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def address():
    """Of a cluster for tests that kill nobody."""
    with local_cluster() as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def doomed(tmp_path):
    """A cluster for one test that kills workers: those that wait for it in `mortal`, with its folder tmp_path."""
    with local_cluster() as cluster, killed_when_ready(cluster, tmp_path):
        yield cluster


@pytest.fixture(params=["in this process", "in processes", "on Dask"])
def run(request):
    """(function, jobs) -> what `run_jobs` yields, in each of the three ways."""
    if request.param == "on Dask":
        return partial(run_jobs, workers=1, scheduler=request.getfixturevalue("address"))
    return partial(run_jobs, workers=1 if request.param == "in this process" else WORKERS)


@pytest.fixture(params=["in processes", "on Dask"])
def run_elsewhere(request):
    """As `run`, where a job may kill its process, since that is not this one."""
    if request.param == "on Dask":
        return partial(run_jobs, workers=1, scheduler=request.getfixturevalue("doomed").scheduler_address)
    return partial(run_jobs, workers=WORKERS)
