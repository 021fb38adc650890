"""Training batches: which cases, which patches, in worker processes, the same ones for the same seed.

A batch depends on (seed, step) alone: not on how many workers there are, nor on where a run was
interrupted. So a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from batchgenerators.dataloading.data_loader import SlimDataLoaderBase
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

from mvl_auto.arrays import Box
from mvl_auto.cache import CaseReader, open_case
from mvl_auto.jobs import available_cores
from mvl_auto.plans import Configuration
from mvl_auto.training.augmentation import Read, cut, draw_spatial, intensity_transforms
from mvl_auto.training.previous import PreviousChannels

BATCHES_AHEAD = 3  # per worker
MOST_WORKERS = 12


class Batches(SlimDataLoaderBase):
    """Yields {"data": (b, c, *patch) float32, "seg": (b, *patch) int16, "names": [...]} from `first_step` on.

    previous: of a cascade's second stage; what the first found follows the image in c.
    """

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...],
        configuration: Configuration,
        seed: int,
        first_step: int,
        workers: int,
        previous: PreviousChannels | None = None,
    ) -> None:
        super().__init__(None, configuration.batch_size, number_of_threads_in_multithreaded=workers)
        self.folder, self.names, self.configuration = folder, names, configuration
        self.seed, self.step, self.stride = seed, first_step, max(workers, 1)
        self.previous = previous
        self.readers: dict[str, CaseReader] = {}
        self.transform = intensity_transforms(configuration.mirror_axes)

    def set_thread_id(self, thread_id: int) -> None:
        super().set_thread_id(thread_id)
        self.step += thread_id

    def generate_train_batch(self) -> dict[str, Any]:
        batch = self.batch(self.step)
        self.step += self.stride
        return batch

    def batch(self, step: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, step])
        # batchgenerators' transforms draw from the global generators
        np.random.seed(rng.integers(2**32))  # noqa: NPY002
        random.seed(int(rng.integers(2**32)))
        size = self.configuration.batch_size
        certain = round(size * (1 - self.configuration.oversample_foreground_percent))
        chosen = rng.choice(self.names, size, replace=size > len(self.names))
        samples = [self.sample(rng, name, foreground=i >= certain) for i, name in enumerate(chosen)]
        images, labels = zip(*samples, strict=True)
        batch = self.transform(data=np.stack(images), seg=np.stack(labels))
        data = batch["data"]
        if self.previous is not None:  # after the intensities, which are none of its business
            data = np.concatenate([data, self.previous.channels(rng, batch["seg"][:, 1])], axis=1)
        return {"data": data, "seg": batch["seg"][:, 0], "names": [str(name) for name in chosen]}

    def sample(self, rng: np.random.Generator, name: str, foreground: bool) -> tuple[np.ndarray, np.ndarray]:
        """One patch of a case, image and label maps; with `foreground`, around a voxel of one of its classes, each as
        likely.
        """
        reader = self.reader(name)
        patch_size = self.configuration.patch_size
        shape = reader.cached.shape[1:]
        low, high = centres(shape[-len(patch_size) :], patch_size)
        classes = [k for k, voxels in enumerate(reader.cached.class_voxels) if k > 0 and voxels]
        spot = rng.random(len(shape)) * shape
        if foreground and classes:
            locations = reader.locations(int(rng.choice(classes)))
            spot = locations[rng.integers(len(locations))]
            centre = np.clip(spot[-len(patch_size) :], low, high)
        else:
            centre = rng.uniform(low, high)
        spatial = draw_spatial(rng, patch_size)
        maps = self.label_maps(reader)
        if len(patch_size) == len(shape):
            return cut(reader.image, maps, shape, centre, spatial, patch_size)
        z = int(spot[0])
        image = lambda box: reader.image(((z, z + 1), *box))[:, 0]  # noqa: E731
        label = lambda box: maps(((z, z + 1), *box))[:, 0]  # noqa: E731
        return cut(image, label, shape[1:], centre, spatial, patch_size)

    def label_maps(self, reader: CaseReader) -> Read:
        """Reads a box of the label, and of what the first stage found where there is one: (1, *box) or (2, *box)."""
        reads = [reader.label]
        if self.previous is not None:
            reads.append(self.previous.reader(reader.cached.name).classes)

        def read(box: Box) -> np.ndarray:
            return np.stack([each(box) for each in reads])

        return read

    def reader(self, name: str) -> CaseReader:
        if name not in self.readers:
            self.readers[name] = open_case(self.folder, name)
        return self.readers[name]


def centres(shape: tuple[int, ...], patch_size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest centre of a patch that stays inside; where it is larger than the case, the middle."""
    size, patch = np.asarray(shape), np.asarray(patch_size)
    middle = (size - 1) / 2
    low = np.minimum((patch - 1) / 2, middle)
    return low, np.maximum(size - 1 - (patch - 1) / 2, middle)


@contextmanager
def batches_ahead(batches: Batches, workers: int) -> Iterator[Iterator[dict[str, Any]]]:
    """The batches, made in `workers` processes ahead of their use (0: in this process)."""
    if workers == 0:
        yield iter(batches)
        return
    augmenter = MultiThreadedAugmenter(
        batches, None, workers, BATCHES_AHEAD, seeds=list(range(workers)), wait_time=0.002
    )
    try:
        augmenter._start()
        yield _watched(augmenter, list(augmenter._processes))
    finally:
        augmenter._finish()


def _watched(augmenter: MultiThreadedAugmenter, processes: list[BaseProcess]) -> Iterator[dict[str, Any]]:
    """The batches; when a worker dies, RuntimeError with its exit code or signal."""
    while True:
        try:
            batch = next(augmenter)
        except RuntimeError as error:
            codes = {process.pid: process.exitcode for process in processes if process.exitcode}
            ends = ", ".join(f"process {pid} with {_cause(code)}" for pid, code in codes.items())
            raise RuntimeError(f"a worker that makes training batches died ({ends or 'its error is above'})") from error
        yield batch


def _cause(exitcode: int) -> str:
    if exitcode == -9:
        return "signal 9: most likely the system ran out of memory; try --workers 1"
    return f"signal {-exitcode}" if exitcode < 0 else f"exit code {exitcode}"


def default_workers() -> int:
    """One core is left for the training loop itself; at least one worker."""
    return max(1, min(MOST_WORKERS, available_cores() - 1))
