"""Jobs for worker processes, in a module that they can import."""

from __future__ import annotations

import os
import signal
import sys
import time

from mvl_auto.errors import MvlError


def square(job):
    return job * job, os.getpid()


def fussy(job):
    if job == 2:
        raise MvlError("is odd", file="two.nii.gz", remedy="Remove it.")
    if job == 3:
        raise KeyError("three")
    return job


def mortal(job, folder):
    """Job 1 kills its process the first time, job 2 each time."""
    deaths = folder / f"{job}"
    if job == 2 or (job == 1 and not deaths.exists()):
        deaths.write_text(deaths.read_text() + "x" if deaths.exists() else "x")
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def threads_and_modules(_):
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    return max(pool["num_threads"] for pool in threadpool_info()), "torch" in sys.modules


def sleep(seconds):
    time.sleep(seconds)
