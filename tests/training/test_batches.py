"""Batches: decided by seed and step, whoever makes them; foreground where it is promised."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal

import numpy as np
import pytest

from mvl_auto.training.batches import Batches, batches_ahead


def make(prepared, first_step=0, workers=0, seed=3, **changes):
    configuration = prepared.plan.configuration().model_copy(update=changes)
    names = tuple(sorted(path.stem for path in (prepared.folder / "3d_fullres").glob("tiny_*.json")))
    return Batches(prepared.folder / "3d_fullres", names, configuration, seed, first_step, workers)


def assert_same(one, other):
    assert one["names"] == other["names"]
    np.testing.assert_array_equal(one["data"], other["data"])
    np.testing.assert_array_equal(one["seg"], other["seg"])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_batches_that_one_process_gives_in_their_order(prepared, workers):
    alone = make(prepared)
    with batches_ahead(make(prepared, workers=workers), workers) as ahead:
        for step in range(5):
            assert_same(next(ahead), alone.batch(step))


def test_a_later_start_goes_on_where_an_earlier_one_was(prepared):
    assert_same(next(make(prepared, first_step=7)), make(prepared).batch(7))


def test_other_steps_and_other_seeds_are_other_batches(prepared):
    first = make(prepared).batch(0)["data"]
    assert not np.array_equal(first, make(prepared).batch(1)["data"])
    assert not np.array_equal(first, make(prepared, seed=4).batch(0)["data"])


def test_shapes_types_and_certain_foreground(prepared):
    batches = make(prepared, batch_size=3, oversample_foreground_percent=0.33, patch_size=(6, 6, 6))
    with_foreground = 0
    for step in range(20):
        batch = batches.batch(step)
        assert batch["data"].shape == (3, 1, 6, 6, 6)
        assert batch["data"].dtype == np.float32
        assert batch["seg"].shape == (3, 6, 6, 6)
        with_foreground += (batch["seg"][-1] > 0).any()
    assert with_foreground == 20, "the last of three is the certain one"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # batchgenerators' own thread
def test_a_dead_worker_is_named_with_its_cause(prepared):
    with batches_ahead(make(prepared, workers=1), 1) as ahead:
        next(ahead)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"worker.*signal 9"):
            list(itertools.islice(ahead, 20))


def test_slices_of_a_volume_are_batches_in_two_dimensions(prepared):
    batch = make(prepared, patch_size=(16, 8)).batch(0)
    assert batch["data"].shape == (2, 1, 16, 8)
    assert batch["seg"].shape == (2, 16, 8)
