"""Processes that fail, die or are interrupted, for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest
from jobs import fussy, mortal, sleep, square, threads_and_modules

from mvl_auto.errors import MvlError
from mvl_auto.jobs import JobFailed, WorkerDied, available_cores, run_jobs, worthwhile_workers

PATIENCE = 60  # s


@pytest.mark.parametrize("workers", [1, 3])
def test_every_job_is_done_once(workers):
    found = list(run_jobs(square, range(7), workers))
    assert sorted((job, result[0]) for job, result in found) == [(n, n * n) for n in range(7)]
    assert (os.getpid() in {result[1] for _, result in found}) == (workers == 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_job_raises_is_its_result(workers):
    found = dict(run_jobs(fussy, range(5), workers))
    assert [found[n] for n in (0, 1, 4)] == [0, 1, 4]
    assert isinstance(found[2], MvlError)
    assert (str(found[2]), found[2].remedy) == ("two.nii.gz: is odd. Remove it.", "Remove it.")
    assert isinstance(found[3], JobFailed)
    assert str(found[3]) == "KeyError: 'three'"
    assert "in fussy" in found[3].trace


def test_a_job_whose_worker_dies_gets_a_second_chance_and_the_others_never_notice(tmp_path):
    found = dict(run_jobs(partial(mortal, folder=tmp_path), range(6), 2))
    assert {job: result for job, result in found.items() if job != 2} == {0: 0, 1: 1, 3: 3, 4: 4, 5: 5}
    assert isinstance(found[2], WorkerDied)
    assert "SIGKILL" in str(found[2])
    assert "fewer workers" in str(found[2])
    assert (tmp_path / "2").read_text() == "xx"


def test_a_worker_has_one_thread_for_linear_algebra_and_no_torch(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert dict(run_jobs(threads_and_modules, range(2), 2)) == {0: (1, False), 1: (1, False)}


def test_closing_the_iterator_ends_the_workers_at_once():
    before = workers_of(psutil.Process())
    jobs = run_jobs(sleep, [0, 1000, 1000], 2)
    next(jobs)
    assert len(workers_of(psutil.Process()) - before) == 2
    jobs.close()
    assert not workers_of(psutil.Process()) - before


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(ending):
    """Ctrl-C reaches the whole group, as from a terminal; kill -9 the parent alone."""
    script = (
        "from jobs import sleep\n"
        "from mvl_auto.jobs import run_jobs\n"
        "if __name__ == '__main__':\n"
        "    for job, _ in run_jobs(sleep, [0, 0, 1000, 1000], 2): print(job, flush=True)\n"
    )
    command = [sys.executable, "-c", script]
    here = Path(__file__).parents[1] / "support"
    with subprocess.Popen(
        command, cwd=here, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.stdout.readline()
        workers = workers_of(psutil.Process(parent.pid))
        assert len(workers) == 2
        if ending == signal.SIGINT:
            os.killpg(parent.pid, ending)
        else:
            parent.kill()
        _, complaints = parent.communicate(timeout=PATIENCE)
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE)
    assert not alive
    if ending == signal.SIGINT:
        assert complaints.count("Traceback") == 1, "the parent's own"
        assert complaints.rstrip().endswith("KeyboardInterrupt")


def test_no_more_workers_than_are_worth_their_start(tmp_path):
    for n, size in enumerate([10, 200 << 20]):
        with open(tmp_path / str(n), "wb") as file:
            file.truncate(size)
    assert worthwhile_workers([tmp_path / "0"], 100) == 1
    assert worthwhile_workers([tmp_path / "1"], 100) == min(available_cores(), 12)
    assert worthwhile_workers([tmp_path / "1"], 1) == 1


def workers_of(process):
    """What it works with, without multiprocessing's own two: the tracker, and the server that forks the workers."""
    words = {child: " ".join(child.cmdline()) for child in process.children()}
    servers = {child for child, line in words.items() if "forkserver" in line}
    own = {child for child, line in words.items() if "resource_tracker" not in line} - servers
    return own.union(*(server.children() for server in servers))
