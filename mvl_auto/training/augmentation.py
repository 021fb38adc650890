"""What a training patch goes through: one spatial resampling from the cached case, then intensities, then mirroring.

Randomness stands apart from effect: `draw_spatial(rng)` gives the parameters, `cut` applies them, reading only the
voxels that the patch needs. Intensities are batchgenerators' transforms with nnU-Net's probabilities and ranges
(Isensee et al. 2021, supplementary note 4).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from batchgenerators.transforms.abstract_transforms import AbstractTransform, Compose
from batchgenerators.transforms.color_transforms import (
    BrightnessMultiplicativeTransform,
    ContrastAugmentationTransform,
    GammaTransform,
)
from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
from numpy.typing import NDArray

from mvl_auto.arrays import Box, Classes, Floats
from mvl_auto.plans import IGNORE, Shape

if TYPE_CHECKING:
    import torch

ROTATION_PROBABILITY = 0.2
ROTATION = np.deg2rad(30)
ROTATION_ELONGATED = np.deg2rad(15)  # in the plane of a patch that is much longer than wide
ELONGATED = 1.5  # ratio of the sides of such a plane
SCALING_PROBABILITY = 0.2
SCALING = (0.7, 1.4)
ANISOTROPY = 3  # beyond this ratio of the patch's sides, nothing is resampled along the coarse axis (nnU-Net's rule)

Read = Callable[[Box], np.ndarray]


@dataclass(frozen=True)
class Spatial:
    """An affine map from patch offsets to case offsets, both from their centres, in voxels; then the mirroring."""

    matrix: NDArray[np.float64]
    flips: tuple[int, ...] = ()  # axes of the patch

    @property
    def is_identity(self) -> bool:
        return np.array_equal(self.matrix, np.eye(len(self.matrix)))


def coarse_axis(patch_size: Shape) -> int | None:
    """The axis of an anisotropic 3D patch along which its voxels are few and thick."""
    if len(patch_size) == 3 and max(patch_size) / min(patch_size) > ANISOTROPY:
        return int(np.argmin(patch_size))
    return None


def largest_angle(patch_size: Shape, plane: tuple[int, int], mirror_axes: Shape) -> float:
    """Of a rotation in a plane, in radians: any angle where mirroring says that the orientation is free.

    nnU-Net's rule for 2D and for the plane of anisotropic patches; a 3D patch with cubic voxels turns by 30 degrees.
    """
    if len(patch_size) == 3 and coarse_axis(patch_size) is None:
        return float(ROTATION)
    sides = [patch_size[axis] for axis in plane]
    if max(sides) > ELONGATED * min(sides):
        return float(ROTATION_ELONGATED)
    return float(np.pi if set(plane) <= set(mirror_axes) else ROTATION)


def draw_spatial(rng: np.random.Generator, patch_size: Shape, mirror_axes: Shape = ()) -> Spatial:
    """Rotation, scaling and mirroring, each with its probability; in plane only where the patch is anisotropic."""
    axes = len(patch_size)
    matrix = np.eye(axes)
    coarse = coarse_axis(patch_size)
    if rng.random() < ROTATION_PROBABILITY:
        planes = [(a, b) for a in range(axes) for b in range(a + 1, axes) if coarse not in (a, b)]
        for a, b in planes:
            largest = largest_angle(patch_size, (a, b), mirror_axes)
            angle = rng.uniform(-largest, largest)
            rotation = np.eye(axes)
            rotation[[a, b], [a, b]] = np.cos(angle)
            rotation[a, b], rotation[b, a] = -np.sin(angle), np.sin(angle)
            matrix = matrix @ rotation
    if rng.random() < SCALING_PROBABILITY:
        # nnU-Net's two halves: as often smaller as larger
        low, high = (SCALING[0], 1.0) if rng.random() < 0.5 else (1.0, SCALING[1])
        scale = np.full(axes, rng.uniform(low, high))
        if coarse is not None:
            scale[coarse] = 1.0
        matrix = matrix @ np.diag(scale)
    return Spatial(matrix, tuple(axis for axis in mirror_axes if rng.random() < 0.5))


@dataclass(frozen=True)
class Source:
    """Where a patch is read from. A read takes a box and returns (..., *box), zeros are what lies beyond `shape`."""

    image: Read  # (c, *box) float32
    label: Read  # (m, *box) int16, maps of classes and IGNORE
    shape: Shape
    classes: Sequence[int]  # that the maps may hold, without the background


def cut(source: Source, centre: NDArray[Any], spatial: Spatial, patch_size: Shape) -> tuple[Floats, Classes]:
    """The patch around `centre`, in voxels of the case, may be fractional; axes are those of patch_size.

    Image (c, *patch_size) float32, linear; label (m, *patch_size) int16, each class linear and the largest wins.
    Beyond the case both are 0.
    """
    size = np.asarray(patch_size)
    middle = (size - 1) / 2
    if spatial.is_identity:
        start = np.round(centre - middle).astype(int)
        box = tuple((int(a), int(a + n)) for a, n in zip(start, size, strict=True))
        image, label = (read_padded(read, box, source.shape) for read in (source.image, source.label))
    else:
        reach = np.abs(spatial.matrix) @ middle
        start, stop = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int) + 2
        box = tuple(zip(start.tolist(), stop.tolist(), strict=True))
        offset = centre - start - spatial.matrix @ middle
        image, label = (read_padded(read, box, source.shape) for read in (source.image, source.label))
        image, label = _resampled(image, label, source.classes, spatial.matrix, offset, patch_size)
    flips = tuple(axis - len(patch_size) for axis in spatial.flips)
    return np.flip(image, flips), np.flip(label, flips)


def _resampled(
    image: Floats,
    label: Classes,
    classes: Sequence[int],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    patch_size: Shape,
) -> tuple[Floats, Classes]:
    """Image and one-hot label maps through one grid_sample; a voxel of the patch lies at matrix @ index + offset."""
    import torch
    import torch.nn.functional as F

    masks = [(number, k, label[number] == k) for number in range(len(label)) for k in classes]
    masks = [(number, k, mask) for number, k, mask in masks if mask.any()]
    stacked = np.empty((len(image) + len(masks), *image.shape[1:]), np.float32)
    stacked[: len(image)] = image
    for place, (_, _, mask) in enumerate(masks, start=len(image)):
        stacked[place] = mask
    grid = _sampling_grid(matrix, offset, image.shape[1:], patch_size)
    # grid_sample has a thread for each member of a batch: the patch in as many slabs as there are threads
    threads = torch.get_num_threads()
    slabs = threads if patch_size[0] % threads == 0 else 1
    source = torch.from_numpy(stacked).expand(slabs, *stacked.shape)
    sampled = F.grid_sample(source, grid.unflatten(0, (slabs, -1)), align_corners=True)
    sampled = sampled.transpose(0, 1).flatten(1, 2)
    patch = np.zeros((len(label), *patch_size), label.dtype)
    for number in range(len(label)):
        mine = [(place, k) for place, (of, k, _) in enumerate(masks, start=len(image)) if of == number]
        if mine:
            shares = sampled[mine[0][0] : mine[-1][0] + 1]
            share, best = shares.max(dim=0)
            values = torch.tensor([k for _, k in mine], dtype=torch.int16)
            patch[number] = torch.where(share > 1 - shares.sum(dim=0), values[best], 0).numpy()
    return sampled[: len(image)].numpy(), patch


def _sampling_grid(
    matrix: NDArray[np.float64], offset: NDArray[np.float64], box: Sequence[int], patch_size: Shape
) -> torch.Tensor:
    """(*patch_size, axes) for grid_sample: x first, the centres of the first and the last voxel at -1 and 1."""
    import torch

    axes = len(patch_size)
    grid = np.empty((*patch_size, axes), np.float32)
    for axis in range(axes):
        scale = 2 / (box[axis] - 1)
        line: Any = np.float32(offset[axis] * scale - 1)
        for other in range(axes):
            steps = (np.arange(patch_size[other]) * (matrix[axis, other] * scale)).astype(np.float32)
            line = line + steps.reshape([-1 if place == other else 1 for place in range(axes)])
        grid[..., axes - 1 - axis] = line
    return torch.from_numpy(grid)


def read_padded(read: Read, wanted: Box, shape: Shape) -> NDArray[Any]:
    """Read a box that may reach beyond the case; what lies beyond is 0."""
    inside = tuple((min(max(a, 0), n), max(min(b, n), 0)) for (a, b), n in zip(wanted, shape, strict=True))
    size = [b - a for a, b in wanted]
    if any(b <= a for a, b in inside):
        there = read(tuple((0, 1) for _ in shape))
        return np.zeros((*there.shape[: there.ndim - len(shape)], *size), there.dtype)
    there = read(inside)
    if list(there.shape[there.ndim - len(shape) :]) == size:
        return there
    lead = [(0, 0)] * (there.ndim - len(shape))
    pad = [(i - a, b - j) for (a, b), (i, j) in zip(wanted, inside, strict=True)]
    return np.pad(there, lead + pad)


@dataclass(frozen=True)
class Intensities:
    """What happens to the intensities of a patch. masked: channels whose zeros are no image and stay zero."""

    transform: AbstractTransform
    masked: tuple[int, ...] = ()

    def apply(self, rng: np.random.Generator, image: Floats) -> Floats:
        """(c, *patch) -> (c, *patch), changed by what rng draws."""
        outside = image[list(self.masked)] == 0 if self.masked else None
        with _global_generators_from(rng):
            changed: Floats = self.transform(data=np.array(image[None], np.float32))["data"][0]
        if outside is not None:
            changed[list(self.masked)] = np.where(outside, 0, changed[list(self.masked)])
        return changed


def intensities(patch_size: Shape, masked: Sequence[bool] = ()) -> Intensities:
    """For patches of this size. masked: for each channel, whether it was normalized inside a mask."""
    coarse = coarse_axis(patch_size)
    transforms: list[AbstractTransform] = [
        GaussianNoiseTransform(p_per_sample=0.1),
        GaussianBlurTransform((0.5, 1.0), different_sigma_per_channel=True, p_per_sample=0.2, p_per_channel=0.5),
        BrightnessMultiplicativeTransform(multiplier_range=(0.75, 1.25), p_per_sample=0.15),
        ContrastAugmentationTransform(p_per_sample=0.15),
        SimulateLowResolutionTransform(
            zoom_range=(0.5, 1),
            per_channel=True,
            p_per_channel=0.5,
            order_downsample=0,
            order_upsample=1,
            p_per_sample=0.25,
            ignore_axes=None if coarse is None else (coarse,),
        ),
        GammaTransform((0.7, 1.5), True, True, retain_stats=True, p_per_sample=0.1),
        GammaTransform((0.7, 1.5), False, True, retain_stats=True, p_per_sample=0.3),
    ]
    return Intensities(Compose(transforms), tuple(channel for channel, mask in enumerate(masked) if mask))


@contextmanager
def _global_generators_from(rng: np.random.Generator) -> Iterator[None]:
    """batchgenerators draws from the global generators: inside they follow rng, afterwards they are as before."""
    numpys, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(rng.integers(2**32))  # noqa: NPY002
    random.seed(int(rng.integers(2**32)))
    try:
        yield
    finally:
        np.random.set_state(numpys)  # noqa: NPY002
        random.setstate(pythons)


def label_values(num_classes: int, masked: bool) -> tuple[int, ...]:
    """The values of a label map without the background."""
    return (*range(1, num_classes), *([IGNORE] if masked else []))
