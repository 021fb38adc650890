"""Batches on their way from the worker that made them: in shared memory, or through a pipe where there is too little.

Shared memory (/dev/shm) is 64 MB in many containers, and other programs may fill it. A batch that does not fit is sent
as bytes, which takes two copies more. Its place is reserved before it is filled, so no worker is ended by SIGBUS.
"""

from __future__ import annotations

import logging
import multiprocessing.queues
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mvl_auto.arrays import Array
from mvl_auto.errors import MvlError
from mvl_auto.jobs.parent import CANNOT_SEND
from mvl_auto.training.patches import Batch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bytes:
    """A batch as arrays, which multiprocessing sends through its pipe. reason: why it is not in shared memory."""

    image: Array
    label: Array
    cases: Array
    reason: str


def as_sent(batch: Any) -> Batch | Bytes | MvlError:
    """In the worker: the batch (a Batch or an MvlError) in shared memory, or as bytes where it does not fit."""
    if not isinstance(batch, Batch):
        return batch
    tensors = (batch.image, batch.label, batch.cases)
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except (RuntimeError, OSError) as error:
        image, label, cases = (tensor.numpy().copy() for tensor in tensors)
        return Bytes(image, label, cases, " ".join(str(error).split()))
    return batch


def receiver() -> Callable[[Batch | Bytes | MvlError], Batch | MvlError]:
    """In the training process: a function that makes a batch of what was sent, and says once that it came as bytes."""
    told = False

    def receive(sent: Batch | Bytes | MvlError) -> Batch | MvlError:
        nonlocal told
        if not isinstance(sent, Bytes):
            return sent
        if not told:
            log.warning("batches come through a pipe, which is slower: shared memory cannot be had (%s)", sent.reason)
            told = True
        return Batch(*(torch.from_numpy(array) for array in (sent.image, sent.label, sent.cases)))

    return receive


def end_where_nothing_can_be_sent() -> None:
    """In the worker: end it when a batch cannot be sent, for want of descriptors; or its batch is waited for for ever.

    A queue of multiprocessing sends in a thread, which prints the error, forgets what it had, and goes on.
    """

    def end(error: Exception, sent: object) -> None:
        os.kill(os.getpid(), CANNOT_SEND)

    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]
