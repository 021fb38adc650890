"""Boundary IoU (Cheng et al., CVPR 2021): the overlap of two masks, but only of their voxels near their own surface."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARE_OF_DIAGONAL = 0.02  # Cheng et al.: how wide the boundary is where nobody says


@dataclass(frozen=True)
class BoundaryCounts:
    """Voxels of the two boundaries."""

    both: int
    either: int


def count_boundaries(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing_mm: tuple[float, ...], width_mm: float
) -> BoundaryCounts:
    """How far the boundaries of two masks of one shape coincide.

    spacing_mm: one per axis, in the order of the axes. A voxel of a mask is
    in its boundary where the centre of a voxel outside the mask, or outside the image, is no farther than `width_mm`.
    """
    inner, outer = (boundary(mask, spacing_mm, width_mm) for mask in (reference, prediction))
    return BoundaryCounts(both=int((inner & outer).sum()), either=int((inner | outer).sum()))


def boundary_iou(counts: BoundaryCounts) -> float:
    """Intersection over union of the boundaries."""
    return counts.both / counts.either if counts.either else math.nan


def default_width_mm(image_shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> float:
    """2 % of the image's diagonal, at least the longest side of a voxel, mm."""
    sides = [size * mm for size, mm in zip(image_shape, spacing_mm, strict=True)]
    return max(SHARE_OF_DIAGONAL * math.hypot(*sides), *spacing_mm)


def boundary(mask: NDArray[np.bool_], spacing_mm: tuple[float, ...], width_mm: float) -> NDArray[np.bool_]:
    """The voxels of a mask that are no farther than `width_mm` from the outside."""
    from scipy import ndimage

    if not mask.any():
        return mask
    inside = np.pad(mask, 1)
    depth = ndimage.distance_transform_edt(inside, sampling=spacing_mm)
    near = inside & (depth <= width_mm * (1 + 1e-9))  # rounding does not take a voxel away
    return np.asarray(near[tuple(slice(1, -1) for _ in mask.shape)])
