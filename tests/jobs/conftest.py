"""A Dask cluster of real processes, and the three ways in which jobs are run."""

from __future__ import annotations

from functools import partial

import dask
import pytest
from distributed import LocalCluster

from mvl_auto.jobs import run_jobs

WORKERS = 2
PROCESSES = {"processes": True, "memory_limit": 0, "dashboard_address": ":0"}


@pytest.fixture(scope="package")
def cluster():
    """Two workers of one thread, restarted when they die; a task whose workers died twice is given up."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(WORKERS, threads_per_worker=1, **PROCESSES) as cluster,
    ):
        yield cluster


@pytest.fixture
def address(cluster):
    return cluster.scheduler_address


@pytest.fixture(params=["in this process", "in processes", "on Dask"])
def run(request):
    """(function, jobs) -> what `run_jobs` yields, in each of the three ways."""
    if request.param == "on Dask":
        return partial(run_jobs, workers=1, scheduler=request.getfixturevalue("address"))
    return partial(run_jobs, workers=1 if request.param == "in this process" else WORKERS)


@pytest.fixture(params=["in processes", "on Dask"])
def run_elsewhere(request):
    """As `run`, where a job may kill its process."""
    if request.param == "on Dask":
        return partial(run_jobs, workers=1, scheduler=request.getfixturevalue("address"))
    return partial(run_jobs, workers=WORKERS)
