"""Batches where shared memory or descriptors are scarce: the same ones, by another road, and said once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from mvl_auto.errors import MvlError
from mvl_auto.training.batches import batches_ahead
from mvl_auto.training.patches import Batch
from mvl_auto.training.sending import Bytes, as_sent, receiver

resource = pytest.importorskip("resource")


@contextmanager
def limited(kind: int, most: int):
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def batch() -> Batch:
    image = torch.arange(2 * 1 * 40 * 50 * 60, dtype=torch.float32).reshape(2, 1, 40, 50, 60)
    return Batch(image, (image[:, 0] % 3).to(torch.int16), torch.tensor([4, 1], dtype=torch.int32))


def test_a_batch_that_shared_memory_cannot_hold_arrives_as_bytes_and_is_told_once(caplog):
    made = batch()
    with limited(resource.RLIMIT_FSIZE, 1 << 16):  # for files in /dev/shm too
        sent = [as_sent(made), as_sent(made)]
    assert all(isinstance(each, Bytes) for each in sent)
    receive = receiver()
    for each in sent:
        received = receive(each)
        for name in ("image", "label", "cases"):
            assert torch.equal(getattr(received, name), getattr(made, name))
            assert getattr(received, name).dtype == getattr(made, name).dtype
    assert caplog.text.count("batches come through a pipe") == 1
    assert "File too large" in caplog.text


def test_a_batch_that_fits_is_shared_and_an_error_passes():
    made, error = batch(), MvlError("damaged")
    assert as_sent(made) is made
    assert made.image.is_shared()
    assert as_sent(error) is error
    assert receiver()(made) is made


class Steps(torch.utils.data.Dataset):
    """The step itself as its batch."""

    def __getitem__(self, step: int) -> Batch:
        return Batch(torch.full((1, 1, 2), float(step)), torch.zeros(1, 2), torch.zeros(1))


def test_too_few_descriptors_for_workers_are_told_and_the_batches_are_made_here(caplog):
    used = len(os.listdir("/dev/fd"))
    with limited(resource.RLIMIT_NOFILE, used + 20), batches_ahead(Steps(), 3, 2, torch.device("cpu")) as ahead:
        assert [int(next(ahead).image[0, 0, 0]) for _ in range(3)] == [3, 4, 5]
    assert caplog.text.count("cannot be started (too few files can be opened") == 1
    assert "in the training process" in caplog.text


READ_ONLY = """
import logging, torch
from mvl_auto.training.batches import batches_ahead
from mvl_auto.training.patches import Batch
logging.basicConfig(format="%(message)s")
class Steps:
    def __getitem__(self, step):
        return Batch(torch.full((1, 1, 2), float(step)), torch.zeros(1, 2), torch.zeros(1))
with batches_ahead(Steps(), 3, 2, torch.device("cpu")) as ahead:
    print([int(next(ahead).image[0, 0, 0]) for _ in range(3)])
"""


def test_training_goes_on_where_dev_shm_is_read_only():
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")
    words = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o ro none /dev/shm && exec "$0" -c "$1"']
    done = subprocess.run([*words, sys.executable, READ_ONLY], capture_output=True, text=True)
    if "permission denied" in done.stderr or "not permitted" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert done.stdout == "[3, 4, 5]\n", done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("the workers that make batches cannot be started")
    assert "Read-only" in line


def test_a_worker_that_cannot_send_ends():
    """Its queue's thread would print the error and go on, and its batch would be waited for for ever."""
    code = (
        "from multiprocessing import Queue\nfrom mvl_auto.training.sending import end_where_nothing_can_be_sent\n"
        "end_where_nothing_can_be_sent()\nqueue = Queue()\nqueue.put(lambda: None)\nimport time\ntime.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGUSR2
