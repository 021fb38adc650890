"""The cached cases that training draws from: in memory as far as they fit, the others read box by box."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mvl_auto.arrays import Box, Classes, Floats
from mvl_auto.cache import CaseReader, Voxels, open_case
from mvl_auto.plans import IGNORE, CachedCase
from mvl_auto.training.previous import PreviousChannels

Scalar = TypeVar("Scalar", bound=np.generic)

MEMORY_SHARE = 4  # one part in so many of the memory that is free may hold cases
MOST_MEMORY = 8 << 30  # bytes
MOST_ANNOTATED = 10_000  # voxels of a case, as many as the cache keeps of each class
MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class OpenCase:
    """A case to read from. Boxes are (start, stop) per axis Z Y X and lie inside the case."""

    cached: CachedCase
    image: Callable[[Box], Floats]  # (C, *box) float32
    maps: Callable[[Box], Classes]  # (1, *box) int16 label; with a first stage (2, *box), what that one found second;
    # 1 everywhere where labels are not to be seen
    locations: Callable[[int], Voxels]  # Z Y X of a sample of the voxels of a class, (n, 3)
    annotated: Callable[[], Voxels]  # of a sample of the voxels that are not IGNORE, (n, 3)


@dataclass
class Cases:
    """previous: of a cascade's second stage, what the first one found. memory: bytes for whole cases. labelled: whether
    labels are read.
    """

    folder: Path
    previous: PreviousChannels | None = None
    memory: int = 0
    labelled: bool = True
    opened: dict[str, OpenCase] = field(default_factory=dict, repr=False)

    def open(self, name: str) -> OpenCase:
        """Raises MvlError when the case is missing or damaged; so do the reads of what it returns."""
        if name not in self.opened:
            self.opened[name] = self._open(name)
        return self.opened[name]

    def card(self, name: str) -> CachedCase:
        """What is known of a case without its voxels."""
        return self.opened[name].cached if name in self.opened else open_case(self.folder, name).cached

    def _open(self, name: str) -> OpenCase:
        reader = open_case(self.folder, name)
        found = None if self.previous is None else self.previous.reader(name)

        def maps(box: Box | None = None) -> Classes:
            if not self.labelled:
                whole = tuple((0, size) for size in reader.cached.shape[1:])
                return np.ones((1, *(stop - start for start, stop in box or whole)), np.int16)
            reads = [reader.label(box)] + ([] if found is None else [found.classes(box)])
            return np.stack(reads)

        voxels = int(np.prod(reader.cached.shape[1:]))
        size = 4 * reader.cached.shape[0] * voxels + 2 * voxels * (1 if found is None else 2)
        read_image, read_maps = reader.image, maps
        if size <= self.memory:
            self.memory -= size
            image, whole_maps = reader.image(), maps()
            read_image, read_maps = partial(_cut, image), partial(_cut, whole_maps)
        return OpenCase(
            reader.cached, read_image, read_maps, _remembered(reader.locations), _once(lambda: annotated_voxels(reader))
        )

    def __getstate__(self) -> dict[str, object]:
        """Without what was read: another process reads for itself."""
        return self.__dict__ | {"opened": {}}


def annotated_voxels(reader: CaseReader) -> Voxels:
    """Z Y X of at most MOST_ANNOTATED voxels of a case that are not IGNORE, always the same ones, (n, 3)."""
    label = reader.label()
    places = np.flatnonzero(label != IGNORE)
    if len(places) > MOST_ANNOTATED:
        places = np.sort(np.random.default_rng(0).choice(places, MOST_ANNOTATED, replace=False, shuffle=False))
    return np.stack(np.unravel_index(places, label.shape), axis=1).astype(np.int32)


def memory_for_cases(workers: int) -> int:
    """Bytes that each process that makes batches may fill with cases: a share of what is free here."""
    processes = max(1, workers)
    return min(MOST_MEMORY, _free_memory() // MEMORY_SHARE) // processes


def _free_memory() -> int:
    if MEMINFO.is_file():
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _cut(array: NDArray[Scalar], box: Box) -> NDArray[Scalar]:
    """The box of an array (C, Z, Y, X)."""
    return array[(slice(None), *(slice(start, stop) for start, stop in box))]


def _remembered(read: Callable[[int], Voxels]) -> Callable[[int], Voxels]:
    known: dict[int, Voxels] = {}

    def remembered(k: int) -> Voxels:
        if k not in known:
            known[k] = read(k)
        return known[k]

    return remembered


def _once(read: Callable[[], Voxels]) -> Callable[[], Voxels]:
    known: list[Voxels] = []

    def once() -> Voxels:
        if not known:
            known.append(read())
        return known[0]

    return once
