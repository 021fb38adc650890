"""What a cascade's second stage sees of the first while it trains: one channel of 0 and 1 per label, made worse.

The first stage has made its mistakes on the training cases already, but always the same ones; changed each time
anew, they cannot be learned by heart. The changes are nnU-Net v2's (cascade_transforms.py, Isensee et al. 2021): with
its probability every label is dilated, eroded, opened or closed by a ball, and one component of it, if small, is
left out. Randomness stands apart from effect: `draw_change(rng)` gives the parameters, `apply_change` applies them.

    k labels or regions; axes are those of the patch
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvl_auto.arrays import Mask
from mvl_auto.cache import PreviousReader, open_previous
from mvl_auto.datasets import one_hot
from mvl_auto.plans import LabelScheme, Shape

MORPHOLOGY_PROBABILITY = 0.4
RADIUS = (1.0, 8.0)  # voxels, of the ball
PATCH_OF_RADIUS = 128  # voxels a side of a patch for which that is meant; smaller patches get smaller balls
REMOVAL_PROBABILITY = 0.2
LARGEST_REMOVED = 0.15  # of the patch: larger components stay


@dataclass(frozen=True)
class Operation:
    """One of OPERATIONS on one channel, by a ball."""

    channel: int
    name: str
    radius: float  # voxels


@dataclass(frozen=True)
class Change:
    """What happens to the channels of one patch: the operations in their order, then the removals."""

    operations: tuple[Operation, ...]
    removals: tuple[float, ...]  # for each channel which of its components, from 0 to 1; or empty


@dataclass(frozen=True)
class PreviousChannels:
    """The first stage's segmentations in the cache, and how they become channels."""

    folder: Path
    labels: LabelScheme
    readers: dict[str, PreviousReader] = field(default_factory=dict, compare=False)

    def reader(self, name: str) -> PreviousReader:
        if name not in self.readers:
            self.readers[name] = open_previous(self.folder, name)
        return self.readers[name]

    def channels(self, rng: np.random.Generator, classes: NDArray[np.int16]) -> NDArray[np.float32]:
        """(b, k, *patch) float32 of the classes (b, *patch) that the first stage found, each patch with a change."""
        return np.stack([self._of_one(rng, patch) for patch in classes])

    def _of_one(self, rng: np.random.Generator, classes: NDArray[np.int16]) -> NDArray[np.float32]:
        masks = one_hot(classes, self.labels) > 0
        change = draw_change(rng, len(masks), classes.shape)
        return apply_change(masks, change, exclusive=not self.labels.has_regions).astype(np.float32)


def draw_change(rng: np.random.Generator, channels: int, patch_size: Shape) -> Change:
    """Which operations and removals, each kind with its probability; every channel has its own."""
    operations: list[Operation] = []
    removals: tuple[float, ...] = ()
    if rng.random() < MORPHOLOGY_PROBABILITY:
        for channel in rng.permutation(channels):
            name = str(rng.choice(list(OPERATIONS)))
            operations.append(Operation(int(channel), name, rng.uniform(RADIUS[0], largest_radius(patch_size))))
    if rng.random() < REMOVAL_PROBABILITY:
        removals = tuple(rng.random(channels))
    return Change(tuple(operations), removals)


def largest_radius(patch_size: Shape) -> float:
    """Of a ball that does to this patch what nnU-Net's does to one of 128 voxels a side."""
    side = math.prod(patch_size) ** (1 / len(patch_size))
    return float(np.clip(RADIUS[1] * side / PATCH_OF_RADIUS, *RADIUS))


def apply_change(masks: Mask, change: Change, exclusive: bool) -> Mask:
    """The masks (k, *patch) after a change. exclusive: what one mask gains the others lose (classes, not regions)."""
    masks = masks.copy()
    for operation in change.operations:
        mask = masks[operation.channel]
        if not mask.any():
            continue
        after = OPERATIONS[operation.name](mask, operation.radius)
        if exclusive:
            masks &= ~(after & ~mask)
        masks[operation.channel] = after
    for mask, which in zip(masks, change.removals, strict=False):
        remove_component(mask, which)
    return masks


def remove_component(mask: Mask, which: float) -> None:
    """Clear, in place, one of the components that are no larger than LARGEST_REMOVED of the patch.

    which: from 0 to 1, their first to their last. Voxels that share a corner are connected.
    """
    from scipy import ndimage

    components, number = ndimage.label(mask, np.ones((3,) * mask.ndim))
    sizes = np.bincount(components.ravel(), minlength=number + 1)[1:]
    small = 1 + np.flatnonzero(sizes < LARGEST_REMOVED * mask.size)
    if len(small):
        mask[components == small[int(which * len(small))]] = False


# ------------------------------------------------------------- morphology by a ball, any number of axes


def dilated(mask: Mask, radius: float) -> Mask:
    """All voxels within `radius` voxels of the mask. By distances: however large the ball, it costs the same."""
    return _near_it(mask, radius, _dilate)


def eroded(mask: Mask, radius: float) -> Mask:
    """The voxels of the mask that are farther than `radius` from what is not; beyond the patch is no such thing."""
    return _near_it(mask, radius, _erode)


def opened(mask: Mask, radius: float) -> Mask:
    return _near_it(mask, radius, lambda near, r: _dilate(_erode(near, r), r))


def closed(mask: Mask, radius: float) -> Mask:
    return _near_it(mask, radius, lambda near, r: _erode(_dilate(near, r), r))


OPERATIONS: dict[str, Callable[[Mask, float], Mask]] = {
    "dilation": dilated,
    "erosion": eroded,
    "opening": opened,
    "closing": closed,
}


def _near_it(mask: Mask, radius: float, operation: Callable[[Mask, float], Mask]) -> Mask:
    """The operation where it can change anything: in the box around the mask, grown by the ball and a voxel."""
    from scipy import ndimage

    (box,) = ndimage.find_objects(mask.astype(np.uint8)) or (None,)
    if box is None:
        return mask.copy()
    reach = math.ceil(radius) + 1
    grown = tuple(slice(max(side.start - reach, 0), side.stop + reach) for side in box)
    result = np.zeros_like(mask)
    result[grown] = operation(mask[grown], radius)
    return result


def _dilate(mask: Mask, radius: float) -> Mask:
    from scipy import ndimage

    return ndimage.distance_transform_edt(~mask) <= radius if mask.any() else mask


def _erode(mask: Mask, radius: float) -> Mask:
    from scipy import ndimage

    return mask if mask.all() else ndimage.distance_transform_edt(mask) > radius
