"""Processes that fail, die or are interrupted, for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from jobs import mortal, sleep, threads_and_modules, workers_of

from mvl_auto.jobs import WorkerDied, available_cores, run_jobs, worthwhile_workers

PATIENCE = 60  # s


def test_a_job_whose_worker_dies_gets_a_second_chance_and_the_others_never_notice(tmp_path):
    found = dict(run_jobs(partial(mortal, folder=tmp_path), range(6), 2))
    assert {job: result for job, result in found.items() if job != 2} == {0: 0, 1: 1, 3: 3, 4: 4, 5: 5}
    assert isinstance(found[2], WorkerDied)
    assert "SIGKILL" in str(found[2])
    assert "fewer workers" in str(found[2])
    assert (tmp_path / "2").read_text() == "xx"


def test_a_worker_that_cannot_import_its_function_says_why(tmp_path, monkeypatch, capfd):
    """As where the memory ends while it imports."""
    (tmp_path / "fits_once.py").write_text(
        "import multiprocessing\n"
        "if multiprocessing.parent_process() is not None:\n    raise MemoryError\n"
        "def work(job):\n    return job\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import fits_once

    found = dict(run_jobs(fits_once.work, range(3), 2))
    assert [str(found[job]).partition(".")[0] for job in range(3)] == ["the memory ran out"] * 3
    assert capfd.readouterr().err == ""


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


SUPPORT = Path(__file__).parents[1] / "support"
SCRIPT = """
from jobs import {function}
from mvl_auto.jobs import run_jobs
for job, result in run_jobs({function}, {jobs}, 2):
    print(job, flush=True)
"""


def script(function: str, jobs: list[float]) -> list[str]:
    """A user's script, without the guard that multiprocessing asks for."""
    return [sys.executable, "-c", SCRIPT.format(function=function, jobs=jobs)]


@pytest.mark.parametrize("function", ["sleep", "large_after"])
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_workers_end_with_their_parent(ending, function):
    """Ctrl-C reaches the whole group, as from a terminal; the other signals reach the parent alone."""
    with subprocess.Popen(
        script(function, [0, 0, 1000, 1000]),
        cwd=SUPPORT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(ending, signal.SIG_DFL) if ending != signal.SIGKILL else None,
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.stdout.readline()
        workers = workers_of(psutil.Process(parent.pid))
        assert len(workers) == 2, "there must be someone to end"
        if ending == signal.SIGINT:
            os.killpg(parent.pid, ending)
        else:
            parent.send_signal(ending)
        _, complaints = parent.communicate(timeout=PATIENCE)
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE)
    assert not alive
    if ending == signal.SIGINT:
        assert complaints.count("Traceback") == 1, "the parent's own"
        assert complaints.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")
def test_workers_end_with_a_parent_that_does_not_read_what_they_have_for_it():
    """Their results fill the pipe, the parent stands still and is killed: they wait for nobody."""
    with subprocess.Popen(
        script("large_after", [0, 1, 1]), cwd=SUPPORT, start_new_session=True, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        workers = workers_of(psutil.Process(parent.pid))
        assert workers
        parent.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        parent.kill()
    assert not psutil.wait_procs(workers, timeout=PATIENCE)[1]


def test_a_script_without_a_guard_runs_once_and_its_workers_do_not_run_it(tmp_path):
    file = tmp_path / "users.py"
    file.write_text("print('begun', flush=True)\n" + SCRIPT.format(function="square", jobs=[1, 2, 3]))
    environment = os.environ | {"PYTHONPATH": str(SUPPORT)}
    done = subprocess.run(
        [sys.executable, file], capture_output=True, text=True, env=environment, timeout=PATIENCE, check=True
    )
    assert done.stderr == ""
    assert sorted(done.stdout.split()) == ["1", "2", "3", "begun"]


def test_a_long_temporary_folder_is_no_obstacle(tmp_path):
    """Sockets have paths of at most 107 bytes."""
    long = tmp_path / ("x" * 100) / ("y" * 100)
    long.mkdir(parents=True)
    done = subprocess.run(
        script("square", [1, 2, 3]),
        cwd=SUPPORT,
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": str(long)},
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["1", "2", "3"]
    assert not list(long.iterdir())


def test_cores_are_those_of_the_affinity():
    program = "from mvl_auto.jobs import available_cores; print(available_cores())"
    command = [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{0}}); {program}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.strip() == "1"


def test_no_more_workers_than_are_worth_their_start(tmp_path):
    for n, size in enumerate([10, 200 << 20]):
        with open(tmp_path / str(n), "wb") as file:
            file.truncate(size)
    assert worthwhile_workers([tmp_path / "0"], 100) == 1
    assert worthwhile_workers([tmp_path / "1"], 100) == min(available_cores(), 12)
    assert worthwhile_workers([tmp_path / "1"], 1) == 1
