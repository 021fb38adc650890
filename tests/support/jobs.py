"""Jobs for worker processes, in a module that they can import."""

from __future__ import annotations

import os
import signal
import sys
import time

import psutil

from mvl_auto.errors import MvlError


def square(job):
    return job * job, os.getpid()


def fussy(job):
    if job == 2:
        raise MvlError("is odd", file="two.nii.gz", remedy="Remove it.")
    if job == 3:
        raise KeyError("three")
    return job


def mortal(job, folder, after=0.0):
    """Job 1 kills its process the first time, job 2 each time, after so many seconds.

    Dask's nanny forgets a worker that dies before it has said that it runs, and starts no other.
    """
    deaths = folder / f"{job}"
    if job == 2 or (job == 1 and not deaths.exists()):
        deaths.write_text(deaths.read_text() + "x" if deaths.exists() else "x")
        time.sleep(after)
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def lingering(job, folder):
    """Job 2 kills its process after a while, in which the others are not done."""
    time.sleep(4 if job == 2 else 6)  # as in `mortal`: Dask's nanny needs its time
    return mortal(job, folder) if job == 2 else job


def threads_and_modules(_):
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    return max(pool["num_threads"] for pool in threadpool_info()), "torch" in sys.modules


def sleep(seconds):
    time.sleep(seconds)


def large(job):
    """More than any pipe takes at once, as a batch or a volume is."""
    return bytes([job]) * (4 << 20)


def large_after(seconds):
    time.sleep(seconds)
    return bytes(64 << 20)


def talkative(_):
    raise ValueError("first line\n" + "x" * 10_000 + "\nthe last line")


def workers_of(process: psutil.Process) -> set[psutil.Process]:
    """Its worker processes, without multiprocessing's own two: the tracker, and the server that forks the workers."""
    words = {child: " ".join(child.cmdline()) for child in process.children()}
    servers = {child for child, line in words.items() if "forkserver" in line}
    own = {child for child, line in words.items() if "resource_tracker" not in line} - servers
    return own.union(*(server.children() for server in servers))
