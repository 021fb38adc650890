"""Cases on a Dask cluster: workers in processes of their own, killed for real, and a scheduler that is not there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import dask
import pytest
from builders import make_dataset
from commands import TINY_BLOCK, refuse, succeed
from distributed import LocalCluster
from jobs import killed_when_ready, lingering, sleep, square
from walking import hashes

from mvl_auto.datasets import read_dataset
from mvl_auto.errors import MvlError
from mvl_auto.jobs import WorkerDied
from mvl_auto.jobs.dask import run_on_cluster
from mvl_auto.planners import Budget, fingerprint_dataset, plan
from mvl_auto.plans import LlmSettings
from mvl_auto.preprocessing import preprocess_dataset

PLAN = ("plan_and_preprocess", "--memory", "1GB", "--device", "cpu", "--llm", TINY_BLOCK, "-d")
WORKERS = 2  # of the fixture `cluster`
PROCESSES = {"processes": True, "memory_limit": 0, "dashboard_address": ":0"}


@pytest.fixture
def nobody():
    """An address of this machine where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{taken.getsockname()[1]}"


def test_a_job_is_not_blamed_for_sharing_its_worker_with_one_that_kills_it(tmp_path):
    """One worker of four threads: what it held with job 2 died twice as well, and is done in the end."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(1, threads_per_worker=4, **PROCESSES) as one,
        killed_when_ready(one, tmp_path),
    ):
        found = dict(run_on_cluster(partial(lingering, folder=tmp_path), range(4), one.scheduler_address))
    assert {job: result for job, result in found.items() if job != 2} == {0: 0, 1: 1, 3: 3}
    assert isinstance(found[2], WorkerDied)


def test_no_more_jobs_are_under_way_than_the_cluster_has_threads(address):
    drawn, done = [], 0
    for _ in run_on_cluster(square, (drawn.append(n) or n for n in range(50)), address):
        done += 1
        assert len(drawn) <= done - 1 + WORKERS
    assert done == 50


def test_the_same_fingerprint_plan_and_cache_as_without(address, tmp_path):
    dataset = make_dataset(tmp_path, "nnunet", cases=6, shape=(10, 12, 11), channels=2)
    for root, how in [("here", ("--workers", 1)), ("there", ("--scheduler", address))]:
        (tmp_path / root).mkdir()
        succeed(*PLAN, dataset, *how, root=tmp_path / root)
    here, there = (hashes(tmp_path / root / "preprocessed" / dataset.name) for root in ("here", "there"))
    assert "3d_fullres/tiny_005.b2nd" in here
    assert here | {"log.txt": ""} == there | {"log.txt": ""}


def test_a_worker_that_is_killed_takes_no_case_with_it(doomed, tmp_path):
    """kill -9, when the first case is done and the worker has the next one: once in either stage."""
    raw = read_dataset(make_dataset(tmp_path / "raw", "nnunet", cases=6, shape=(24, 64, 64)))
    address, killed = doomed.scheduler_address, []

    @contextmanager
    def killing(what, total, unit="case", done=0):
        def advance(amount=1, note=""):
            if len(killed) < 1 + what.startswith("preparing"):
                victim = next(nanny.pid for nanny in doomed.workers.values() if nanny.pid not in (None, *killed))
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

        yield advance

    fingerprint = fingerprint_dataset(raw, scheduler=address, progress=killing)
    assert len(killed) == 1
    assert fingerprint == fingerprint_dataset(raw, workers=1)
    planned = plan(fingerprint, Budget(10**9, device="cpu"), LlmSettings(source="none"))
    for folder, how in [("there", {"scheduler": address, "progress": killing}), ("here", {"workers": 1})]:
        report = preprocess_dataset(raw, planned, ["3d_fullres"], tmp_path / folder, **how)
        assert (len(report.done), report.failed) == (6, {})
    assert len(killed) == 2
    here, there = (hashes(tmp_path / folder / "3d_fullres") for folder in ("here", "there"))
    assert {name: there[name] for name in here} == here


def test_a_case_that_breaks_is_named_and_the_others_are_done(address, tmp_path):
    dataset = make_dataset(tmp_path / "raw", "nnunet", cases=4, shape=(10, 12, 11))
    planned = plan(fingerprint_dataset(read_dataset(dataset)), Budget(10**9, device="cpu"), LlmSettings(source="none"))
    broken = dataset / "imagesTr" / "tiny_002_0000.nii.gz"
    broken.write_bytes(broken.read_bytes()[:200])
    report = preprocess_dataset(
        read_dataset(dataset), planned, ["3d_fullres"], tmp_path / "prepared", scheduler=address
    )
    assert report.done == ("tiny_000", "tiny_001", "tiny_003")
    assert str(broken) in report.failed["tiny_002"]


# ----------------------------------------------------------------------------------- no cluster


@pytest.mark.parametrize(
    "scheduler", ["127.0.0.1:1", "nowhere://127.0.0.1:8786", "tcp://127.0.0.1", "tcp://", ":8786", "notanaddress", ""]
)
def test_an_address_that_is_none_is_refused_in_one_line(scheduler):
    with pytest.raises(MvlError, match="no Dask scheduler can be reached at") as raised:
        list(run_on_cluster(square, [1], scheduler))
    assert scheduler in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("scheduler", ["notanaddress", ""])
def test_the_command_refuses_what_is_no_address_before_it_looks_at_a_case(root, scheduler):
    make_dataset(root / "raw", "nnunet")
    line = refuse(*PLAN, 7, "--scheduler", scheduler, root=root)
    assert f"'{scheduler}'" in line
    assert not (root / "preprocessed").exists()


def test_the_command_refuses_an_address_where_nobody_listens(root, nobody):
    make_dataset(root / "raw", "nnunet", cases=3, shape=(10, 12, 11))
    line = refuse(*PLAN, 7, "--scheduler", nobody, root=root)
    assert nobody in line
    assert "dask scheduler" in line
    assert not (root / "preprocessed" / "Dataset007_Tiny" / "fingerprint.json").exists()


def test_a_scheduler_that_is_lost_on_the_way_is_named():
    with LocalCluster(1, threads_per_worker=1, **PROCESSES) as short_lived:
        address = short_lived.scheduler_address
        jobs = run_on_cluster(sleep, [0, 5], address)
        assert next(jobs) == (0, None)
        short_lived.close()
        with pytest.raises(MvlError, match="stopped answering") as raised:
            next(jobs)
    assert address in str(raised.value)


def test_without_dask_it_says_what_to_install():
    script = (
        "import sys; sys.modules['distributed'] = None\n"
        "from mvl_auto.errors import MvlError\n"
        "from mvl_auto.jobs import run_jobs\n"
        "try: list(run_jobs(abs, [1], 1, 'tcp://127.0.0.1:8786'))\n"
        "except MvlError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'mvl-auto[dask]'" in done.stdout


def test_a_worker_with_another_version_is_told_apart_from_a_broken_case(address, monkeypatch):
    monkeypatch.setattr("mvl_auto.jobs.dask.__version__", "9.9.9")
    with pytest.raises(MvlError, match=r"Install mvl-auto 9\.9\.9 where the workers run"):
        list(run_on_cluster(square, range(3), address))


def test_dask_is_imported_only_where_it_is_asked_for():
    script = (
        "import sys, mvl_auto.jobs.processes, mvl_auto.jobs.dask, mvl_auto.api; print('distributed' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
