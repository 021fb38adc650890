"""What a training patch goes through: one spatial resampling from the cached case, then intensities.

Randomness stands apart from effect: `draw_spatial(rng)` gives the parameters, `cut` applies them, reading
just the voxels that the patch needs. Intensities, low resolution and mirroring are batchgenerators'
transforms with nnU-Net's probabilities and ranges (Isensee et al. 2021, supplementary note 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from batchgenerators.transforms.abstract_transforms import AbstractTransform, Compose
from batchgenerators.transforms.color_transforms import (
    BrightnessMultiplicativeTransform,
    ContrastAugmentationTransform,
    GammaTransform,
)
from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
from batchgenerators.transforms.spatial_transforms import MirrorTransform

from mvl_auto.arrays import Box
from mvl_auto.plans import Shape

ROTATION_PROBABILITY = 0.2
ROTATION = np.deg2rad(30)
SCALING_PROBABILITY = 0.2
SCALING = (0.7, 1.4)
ANISOTROPY = 3  # beyond this ratio of the patch's sides, the coarse axis is not rotated (nnU-Net's rule)

Read = Callable[[Box], np.ndarray]


@dataclass(frozen=True)
class Spatial:
    """An affine map from patch offsets to case offsets, both from their centres, in voxels."""

    matrix: np.ndarray

    @property
    def is_identity(self) -> bool:
        return np.array_equal(self.matrix, np.eye(len(self.matrix)))


def draw_spatial(rng: np.random.Generator, patch_size: Shape) -> Spatial:
    """Rotation and scaling, each with its probability; in plane only where the patch is anisotropic."""
    axes = len(patch_size)
    matrix = np.eye(axes)
    coarse = int(np.argmin(patch_size)) if axes == 3 and max(patch_size) / min(patch_size) > ANISOTROPY else None
    if rng.random() < ROTATION_PROBABILITY:
        planes = [(a, b) for a in range(axes) for b in range(a + 1, axes) if coarse not in (a, b)]
        for a, b in planes:
            angle = rng.uniform(-ROTATION, ROTATION)
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
    return Spatial(matrix)


def cut(
    image: Read, label: Read, shape: Shape, centre: np.ndarray, spatial: Spatial, patch_size: Shape
) -> tuple[np.ndarray, np.ndarray]:
    """The patch around `centre`: image (c, *patch_size) float32 linear, label (..., *patch_size) nearest.

    image, label: read a box of a case of `shape` voxels; of labels there may be several, on axes ahead of the box's.
    Beyond the case the image is 0, the label 0. centre: in voxels of the case, may be fractional. Axes are those of
    patch_size.
    """
    size = np.asarray(patch_size)
    middle = (size - 1) / 2
    reach = np.abs(spatial.matrix) @ middle if not spatial.is_identity else middle
    start = np.floor(centre - reach).astype(int) if not spatial.is_identity else np.round(centre - middle).astype(int)
    stop = np.ceil(centre + reach).astype(int) + 2 if not spatial.is_identity else start + size
    wanted = tuple(zip(start.tolist(), stop.tolist(), strict=True))
    source, classes = read_padded(image, wanted, shape), read_padded(label, wanted, shape)
    if spatial.is_identity:
        return source, classes
    offset = centre - start - spatial.matrix @ middle
    return (
        _resampled(source, spatial, offset, patch_size, order=1),
        _resampled(classes, spatial, offset, patch_size, order=0),
    )


def _resampled(arrays: np.ndarray, spatial: Spatial, offset: np.ndarray, patch_size: Shape, order: int) -> np.ndarray:
    """(..., *patch_size) of (..., *box), each array by itself."""
    from scipy.ndimage import affine_transform

    lead = arrays.shape[: arrays.ndim - len(patch_size)]
    patch = np.empty((*lead, *patch_size), arrays.dtype)
    for place in np.ndindex(*lead):
        affine_transform(
            arrays[place], spatial.matrix, offset, output=patch[place], output_shape=patch_size, order=order
        )
    return patch


def read_padded(read: Read, wanted: Box, shape: Shape) -> np.ndarray:
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


def intensity_transforms(mirror_axes: Shape) -> AbstractTransform:
    """batchgenerators' transforms on {"data": (b, c, *patch), "seg": (b, m, *patch)}."""
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
        ),
        GammaTransform((0.7, 1.5), True, True, retain_stats=True, p_per_sample=0.1),
        GammaTransform((0.7, 1.5), False, True, retain_stats=True, p_per_sample=0.3),
    ]
    if mirror_axes:
        transforms.append(MirrorTransform(mirror_axes))
    return Compose(transforms)
