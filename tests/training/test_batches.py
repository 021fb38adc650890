"""Batches one after the other: the same whoever makes them, and what happens when a worker dies or its parent does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from mvl_auto.cache import write_case
from mvl_auto.errors import MvlError
from mvl_auto.plans import CachedCase, Trail
from mvl_auto.training.batches import batches_ahead, default_workers
from mvl_auto.training.cases import Cases
from mvl_auto.training.patches import Patches

CPU = torch.device("cpu")
PATIENCE = 60  # s


def make(prepared, memory=0, **changes):
    configuration = prepared.plan.configuration().model_copy(update=changes)
    names = tuple(sorted(path.stem for path in (prepared.folder / "3d_fullres").glob("tiny_*.json")))
    return Patches(Cases(prepared.folder / "3d_fullres", memory=memory), names, configuration, prepared.plan.labels, 3)


@pytest.fixture
def large(prepared, tmp_path):
    """Batches of 4 MB: far more than a pipe holds."""
    shape = (48, 64, 64)
    trail = Trail(
        size=shape,
        transpose_forward=(0, 1, 2),
        crop=((0, 48), (0, 64), (0, 64)),
        spacing=(1, 1, 1),
        resampled_size=shape,
        resampled_spacing=(1, 1, 1),
        separate_axis=None,
    )
    rng = np.random.default_rng(0)
    cached = CachedCase(
        name="large", shape=(1, *shape), trail=trail, files_hash="", settings_hash="", class_voxels=(1, 0, 0)
    )
    image = rng.normal(size=(1, *shape)).astype(np.float32)
    write_case(tmp_path, image, np.zeros(shape, np.int16), cached, {})
    configuration = prepared.plan.configuration().model_copy(update={"patch_size": (40, 56, 40), "batch_size": 4})
    return Patches(Cases(tmp_path), ("large",), configuration, prepared.plan.labels, seed=0)


def assert_same(one, other):
    assert torch.equal(one.cases, other.cases)
    assert torch.equal(one.image, other.image)
    assert torch.equal(one.label, other.label)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_whoever_makes_the_batches_they_are_the_same_in_the_same_order(prepared, workers):
    alone = make(prepared)
    with batches_ahead(make(prepared, memory=1 << 20), 2, workers, CPU) as ahead:
        for step in range(2, 7):
            assert_same(next(ahead), alone.batch(step))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_dead_worker_is_named_with_its_cause_and_the_same_batches_go_on(large, caplog, number):
    others = set(multiprocessing.active_children())  # of other tests: a Dask cluster
    with batches_ahead(large, 0, 2, CPU) as ahead:
        assert_same(next(ahead), large.batch(0))
        victim = next(process for process in multiprocessing.active_children() if process not in others)
        os.kill(victim.pid, number)
        for step in range(1, 12):
            assert_same(next(ahead), large.batch(step))
    assert f"a worker that makes batches died ({number.name}" in caplog.text
    assert "in the training process" in caplog.text
    assert not set(multiprocessing.active_children()) - others


def test_all_workers_end_with_the_batches(large):
    others = set(multiprocessing.active_children())
    with batches_ahead(large, 0, 2, CPU) as ahead:
        next(ahead)
        workers = [process.pid for process in multiprocessing.active_children() if process not in others]
        assert len(workers) == 2
    wait_until_gone(workers)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent_however_it_dies(large, tmp_path, number):
    code = """
import multiprocessing, pickle, sys, time, torch
from pathlib import Path
from mvl_auto.training.batches import batches_ahead
if __name__ == "__main__":
    patches = pickle.loads(Path(sys.argv[1]).read_bytes())
    with batches_ahead(patches, 0, 2, torch.device("cpu")) as ahead:
        next(ahead)
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        time.sleep(600)
"""
    import pickle

    (tmp_path / "patches").write_bytes(pickle.dumps(large))
    (tmp_path / "program.py").write_text(code)
    with subprocess.Popen(
        [sys.executable, tmp_path / "program.py", tmp_path / "patches"], stdout=subprocess.PIPE, text=True
    ) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        time.sleep(1)  # by now they have made all they may make ahead, and wait
        process.send_signal(number)
        process.wait(PATIENCE)
    wait_until_gone(workers)


def wait_until_gone(workers):
    end = time.monotonic() + PATIENCE
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [0, 1])
def test_a_case_that_cannot_be_read_is_one_line_whoever_reads_it(prepared, workers):
    patches = make(prepared)
    patches.names = ("missing",)
    with batches_ahead(patches, 0, workers, CPU) as ahead, pytest.raises(MvlError, match=r"missing.json: is missing"):
        next(ahead)


def test_few_cores_make_batches_beside_the_steps(monkeypatch):
    from mvl_auto.training import batches

    for cores, expected in [(1, 0), (2, 0), (4, 3), (64, 12)]:
        monkeypatch.setattr(batches, "available_cores", lambda cores=cores: cores)
        assert default_workers(CPU) == expected
        assert default_workers(torch.device("cuda")) == max(1, expected)
