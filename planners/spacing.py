"""Target spacing: the voxel size that every case of a dataset is resampled to, and which axis is the coarse one.

The rules are nnU-Net's (Isensee et al. 2021, supplementary note 3; nnunetv2/experiment_planning/experiment_planners/
default_experiment_planner.py), so that its users find the spacings they know. All vectors are per axis, mm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mvl_auto.images.spacing import ANISOTROPY_FACTOR, resampled_shape, round_spacing

COARSE_AXIS_PERCENTILE = 10
LOWRES_STEP = 1.03  # factor by which the low resolution is coarsened at a time
LOWRES_EVEN = 2.0  # axes finer than the coarsest by more than this are coarsened first

Array = npt.NDArray[np.float64]


def target_spacing(spacings_mm: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Median over the cases; on an anisotropic axis the 10th percentile, but not finer than the other axes.

    On a much coarser axis the median would lose the detail of the finer cases.
    spacings_mm: (cases, axes). shapes: (cases, axes), voxels after the crop to non-zero.
    """
    spacings = np.asarray(spacings_mm, float)
    target = np.median(spacings, axis=0)
    axis = coarse_axis_of_cases(spacings_mm, shapes)
    if axis is not None:
        finer = np.percentile(spacings[:, axis], COARSE_AXIS_PERCENTILE)
        target[axis] = max(finer, np.delete(target, axis).max())
    return round_spacing(target.tolist())


def coarse_axis_of_cases(spacings_mm: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]) -> int | None:
    """The coarse axis of the median case, before its target spacing is chosen."""
    return coarse_axis(median_spacing(spacings_mm), np.median(np.asarray(shapes, float), axis=0))


def median_spacing(spacings_mm: Sequence[Sequence[float]]) -> Array:
    """Median over the cases, per axis."""
    return np.asarray(np.median(np.asarray(spacings_mm, float), axis=0), float)


def coarse_axis(spacing_mm: Sequence[float] | Array, shape: Sequence[float] | Array) -> int | None:
    """The axis that is much coarser than the others and has far fewer voxels; None when there is none."""
    spacing, voxels = np.asarray(spacing_mm, float), np.asarray(shape, float)
    axis = int(spacing.argmax())
    coarser = spacing[axis] > ANISOTROPY_FACTOR * np.delete(spacing, axis).max()
    fewer = voxels[axis] * ANISOTROPY_FACTOR < np.delete(voxels, axis).min()
    return axis if coarser and fewer else None


def transpose_forward(spacing_mm: Sequence[float], shape: Sequence[float]) -> tuple[int, ...]:
    """The order of axes in which the coarsest comes first: the slices of 2d are cut across it.

    An axis of one voxel comes before it: such images are 2D. Axes of equal spacing keep their order.
    """
    single = [axis for axis, voxels in enumerate(shape) if voxels <= 1]
    first = single[0] if single else int(np.argmax(np.asarray(spacing_mm, float)))
    return (first, *(axis for axis in range(len(spacing_mm)) if axis != first))


def median_resampled_shape(
    shapes: Sequence[Sequence[int]], spacings_mm: Sequence[Sequence[float]], target_mm: Sequence[float]
) -> tuple[float, ...]:
    """Median over the cases of their shapes after resampling, in voxels."""
    resampled = [resampled_shape(n, mm, target_mm) for n, mm in zip(shapes, spacings_mm, strict=True)]
    return tuple(float(voxels) for voxels in np.median(resampled, axis=0))


def coarser(spacing_mm: Sequence[float]) -> tuple[float, ...]:
    """One step of 3 % to a lower resolution: the fine axes alone until they are within factor 2 of the coarsest."""
    spacing = np.asarray(spacing_mm, float)
    fine = spacing.max() / spacing > LOWRES_EVEN
    return tuple(float(mm) for mm in np.where(fine if fine.any() else True, spacing * LOWRES_STEP, spacing))


def coarsened(spacing_mm: Sequence[float], steps: int) -> tuple[float, ...]:
    """The spacing after so many steps to a lower resolution."""
    spacing = tuple(float(mm) for mm in spacing_mm)
    for _ in range(steps):
        spacing = coarser(spacing)
    return spacing
