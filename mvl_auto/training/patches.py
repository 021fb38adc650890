"""Training batches as a map from the step to its batch: which cases, which patches, how they are changed.

A batch depends on (seed, step) alone, and each of its samples on its place in it besides: not on how many processes
make batches, nor on where a run was interrupted. So a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mvl_auto.arrays import Box, Classes, Floats
from mvl_auto.errors import MvlError
from mvl_auto.plans import Configuration, LabelScheme, Shape
from mvl_auto.training.augmentation import Source, Spatial, cut, draw_spatial, intensities, label_values
from mvl_auto.training.cases import Cases, OpenCase

SHIFT = 0.5  # of half a patch: how far a chosen voxel may lie from the middle of its patch
PLAIN = 0  # seed of the patches that are not augmented
CASES, FOREGROUND = -1, -2  # streams of random numbers beside those of the samples 0, 1, ...


@dataclass(frozen=True)
class Batch:
    """What one step trains on."""

    image: Tensor  # (b, c, *patch) float32
    label: Tensor  # (b, *patch) int16, classes and IGNORE
    cases: Tensor  # (b,) int32: places in the names of the training cases

    def pin_memory(self) -> Batch:
        """DataLoader calls it: page-locked, so that a GPU fetches it while it computes."""
        return Batch(self.image.pin_memory(), self.label.pin_memory(), self.cases)


class Patches(Dataset[Batch | MvlError]):
    """patches[step] is the batch of that step, or the MvlError that stands in its way (a damaged case).

    names: the training cases. share: (rank, ranks) of this process in distributed training, which makes the samples
    rank, rank + ranks, ... of each batch.
    """

    def __init__(
        self,
        cases: Cases,
        names: Sequence[str],
        configuration: Configuration,
        labels: LabelScheme,
        seed: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.cases, self.names, self.configuration = cases, tuple(names), configuration
        self.masked = labels.ignore_value is not None
        self.classes = label_values(len(labels.class_values), self.masked)
        self.seed, self.share = seed, share
        self.intensities = intensities(configuration.patch_size, configuration.use_mask_for_norm)
        self.class_weights: NDArray[np.float64] | None = None

    def __getitem__(self, step: int) -> Batch | MvlError:
        try:
            return self.batch(step)
        except MvlError as error:
            return error

    def batch(self, step: int) -> Batch:
        """Raises MvlError when a case cannot be read."""
        size = self.configuration.batch_size
        chosen = self.chosen(step)
        certain = self.certain_foreground(step)
        rank, ranks = self.share
        samples = [
            self.sample(np.random.default_rng([self.seed, step, place]), self.names[chosen[place]], place < certain)
            for place in range(rank, size, ranks)
        ]
        images, labels = zip(*samples, strict=True)
        return Batch(
            torch.from_numpy(np.stack(images)),
            torch.from_numpy(np.stack(labels)),
            torch.tensor(chosen[rank::ranks], dtype=torch.int32),
        )

    def chosen(self, step: int) -> list[int]:
        """The cases of a step: all are drawn once, in a new order, before any is drawn again."""
        size, number = self.configuration.batch_size, len(self.names)
        places = range(step * size, (step + 1) * size)
        return [int(order_of_cases(self.seed, place // number, number)[place % number]) for place in places]

    def certain_foreground(self, step: int) -> int:
        """How many samples of a step are drawn around the foreground: on average the configuration's share."""
        wanted = self.configuration.batch_size * self.configuration.oversample_foreground_percent
        return int(wanted + np.random.default_rng([self.seed, step, _stream(FOREGROUND)]).random())

    def sample(self, rng: np.random.Generator, name: str, foreground: bool) -> tuple[Floats, Classes]:
        """One patch of a case: image (c, *patch) and label (*patch).

        With `foreground` it is around a voxel of one of the case's classes; where only part of a case is annotated,
        around an annotated voxel.
        """
        case = self.cases.open(name)
        patch_size = self.configuration.patch_size
        spatial = draw_spatial(rng, patch_size, self.configuration.mirror_axes)
        spot = self.spot(rng, case, foreground)
        shape = case.cached.shape[1:]
        axes = len(patch_size)
        low, high = centres(shape[-axes:], patch_size)
        if spot is None:
            centre = rng.uniform(low, high)
        else:
            shift = rng.uniform(-SHIFT, SHIFT, axes) * (np.asarray(patch_size) - 1) / 2
            centre = np.clip(spot[-axes:] + shift, low, high)
        source = Source(case.image, case.maps, shape, self.classes)
        if axes < len(shape):
            plane = int(rng.integers(shape[0])) if spot is None else int(spot[0])
            source = slice_of(source, plane)
        image, maps = cut(source, centre, spatial, patch_size)
        image = self.intensities.apply(rng, image)
        return self._with_previous(rng, image, maps)

    def plain_sample(self, name: str) -> tuple[Floats, Classes]:
        """A patch around the foreground as it is in the cache, always the same one."""
        case, patch_size = self.cases.open(name), self.configuration.patch_size
        shape, axes = case.cached.shape[1:], len(patch_size)
        rng = np.random.default_rng(PLAIN)
        spot = self.spot(rng, case, foreground=True)
        spot = np.array(shape) // 2 if spot is None else spot
        source = Source(case.image, case.maps, shape, self.classes)
        if axes < len(shape):
            source = slice_of(source, int(spot[0]))
        centre = np.clip(spot[-axes:], *centres(shape[-axes:], patch_size))
        image, maps = cut(source, centre, Spatial(np.eye(axes)), patch_size)
        return self._with_previous(rng, image, maps)

    def _with_previous(self, rng: np.random.Generator, image: Floats, maps: Classes) -> tuple[Floats, Classes]:
        if self.cases.previous is not None:  # after the intensities, which are not for segmentations
            image = np.concatenate([image, self.cases.previous.channels(rng, maps[1:2])[0]])
        return image, np.ascontiguousarray(maps[0])

    def spot(self, rng: np.random.Generator, case: OpenCase, foreground: bool) -> NDArray[np.int32] | None:
        """Z Y X of the voxel to draw a patch around; None for anywhere."""
        there = [k for k, voxels in enumerate(case.cached.class_voxels) if k > 0 and voxels]
        if foreground and there:
            weights = self.weights()[there]
            voxels = case.locations(int(rng.choice(there, p=weights / weights.sum())))
        elif self.masked:
            voxels = case.annotated()
        else:
            return None
        return voxels[rng.integers(len(voxels))] if len(voxels) else None

    def weights(self) -> NDArray[np.float64]:
        """Of each class, the rarer the larger: 1 / the number of cases that have it."""
        if self.class_weights is None:
            there = [np.array(self.cases.card(name).class_voxels) > 0 for name in self.names]
            self.class_weights = 1 / np.maximum(np.sum(there, axis=0), 1)
        return self.class_weights


@lru_cache(maxsize=4)
def order_of_cases(seed: int, epoch: int, number: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch, _stream(CASES)]).permutation(number)


def _stream(name: int) -> int:
    """A seed must not be negative, and the samples count from 0."""
    return 2**32 + name


def slice_of(source: Source, plane: int) -> Source:
    """One slice Y X of a volume Z Y X."""

    def image(box: Box) -> Any:
        return source.image(((plane, plane + 1), *box))[:, 0]

    def label(box: Box) -> Any:
        return source.label(((plane, plane + 1), *box))[:, 0]

    return Source(image, label, source.shape[1:], source.classes)


def centres(shape: Shape, patch_size: Shape) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest centre of a patch that stays inside; where it is larger than the case, the middle."""
    size, patch = np.asarray(shape), np.asarray(patch_size)
    middle = (size - 1) / 2
    low = np.minimum((patch - 1) / 2, middle)
    return low, np.maximum(size - 1 - (patch - 1) / 2, middle)
