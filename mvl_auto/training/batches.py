"""Batches one after the other: made in this process, or ahead of their use in worker processes.

A worker that dies is named with its cause, and the batches are then made in this process: the same ones. Workers end
with this process, however it ends.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader

from mvl_auto.errors import MvlError
from mvl_auto.jobs import available_cores
from mvl_auto.jobs.parent import cause_of_end, end_with_parent, starting_workers
from mvl_auto.ranks import SINGLE, Rank, rank_here
from mvl_auto.training.patches import Batch, Patches

BATCHES_AHEAD = 3  # per worker
MOST_WORKERS = 12
FEW_CORES = 2  # with no more than these, a worker would take from the steps what it gives

log = logging.getLogger(__name__)


@contextmanager
def batches_ahead(patches: Patches, first_step: int, workers: int, device: torch.device) -> Iterator[Iterator[Batch]]:
    """The batches from `first_step` on, without end, made in `workers` processes (0: in this one).

    The iterator raises MvlError when a case cannot be read.
    """
    batches = _batches(patches, first_step, workers, device)
    try:
        yield batches
    finally:
        batches.close()


def _batches(patches: Patches, first_step: int, workers: int, device: torch.device) -> Generator[Batch, None, None]:
    step = first_step
    if workers:
        with _loader(patches, first_step, workers, device) as (loaded, processes):
            while True:
                try:
                    batch = next(loaded)
                except (RuntimeError, OSError, EOFError):
                    if not (died := _causes(processes)):
                        raise
                    log.warning(
                        "a worker that makes batches died (%s): from step %d on, batches are made in the training "
                        "process, which is slower",
                        died,
                        step + 1,
                    )
                    break
                yield _checked(batch)
                step += 1
        del loaded  # it still holds what its processes had sent
    for later in itertools.count(step):
        yield _checked(patches[later])


def _checked(batch: Batch | MvlError) -> Batch:
    if isinstance(batch, MvlError):
        raise batch
    return batch


@contextmanager
def _loader(
    patches: Patches, first_step: int, workers: int, device: torch.device
) -> Iterator[tuple[Iterator[Any], list[BaseProcess]]]:
    """The iterator of a DataLoader over the steps, and its processes, which have ended after the block."""
    methods = multiprocessing.get_all_start_methods()
    before = set(multiprocessing.active_children())
    with starting_workers():
        loaded = iter(
            DataLoader(
                patches,
                batch_size=None,
                sampler=itertools.count(first_step),  # all that it needs is to be iterable
                num_workers=workers,
                prefetch_factor=BATCHES_AHEAD,
                worker_init_fn=_start_worker,
                multiprocessing_context="forkserver" if "forkserver" in methods else "spawn",
                pin_memory=device.type == "cuda",
                collate_fn=_as_it_is,
            )
        )
    processes = [process for process in multiprocessing.active_children() if process not in before]
    try:
        yield loaded, processes
    finally:
        for process in processes:
            process.kill()  # some ignore SIGTERM
        del loaded


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training process
    if rank_here().ranks > 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it to a whole process group
    end_with_parent()


def _causes(processes: list[BaseProcess]) -> str:
    """Why the processes that are dead died; empty when all are alive or have ended well."""
    for process in processes:
        process.join(0.1)  # its exit code may arrive a moment after its pipe has closed
    return ", ".join(cause_of_end(process.exitcode) for process in processes if process.exitcode)


def default_workers(device: torch.device, rank: Rank = SINGLE) -> int:
    """None on few cores, where they would take from the steps; a GPU leaves the cores free, and wants one at least.

    rank: of this process; those of one machine share its cores.
    """
    cores = available_cores() // rank.local_ranks
    if device.type == "cpu" and cores <= FEW_CORES:
        return 0
    return max(1, min(MOST_WORKERS, cores - 1))
