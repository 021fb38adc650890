"""Jobs for worker processes, in a module that they can import."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager

import psutil

from mvl_auto.errors import MvlError

LONGEST = 60  # s until someone must have killed a job


def square(job):
    return job * job, os.getpid()


def fussy(job):
    if job == 2:
        raise MvlError("is odd", file="two.nii.gz", remedy="Remove it.")
    if job == 3:
        raise KeyError("three")
    return job


def mortal(job, folder, waits=False):
    """Job 1 kills its process the first time, job 2 each time; waits: for `killed_when_ready` to do it."""
    deaths = folder / f"{job}"
    if job == 2 or (job == 1 and not deaths.exists()):
        deaths.write_text(deaths.read_text() + "x" if deaths.exists() else "x")
        if not waits:
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / f"{os.getpid()}.pid").touch()
        time.sleep(LONGEST)
    return job


@contextmanager
def killed_when_ready(cluster, folder):
    """Kill the workers of a Dask cluster that wait for it in `mortal`.

    Dask's nanny forgets a worker that dies before it has said that it runs, and starts no other: so not before.
    """
    over = threading.Event()

    def watch():
        while not over.wait(0.05):
            running = {nanny.pid for nanny in cluster.workers.values() if nanny.status.name == "running"}
            for file in folder.glob("*.pid"):
                if int(file.stem) in running:
                    file.unlink()
                    os.kill(int(file.stem), signal.SIGKILL)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def lingering(job, folder):
    """The process is killed over job 2, while the others are not done."""
    if job == 2:
        return mortal(job, folder, waits=True)
    time.sleep(5)
    return job


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
