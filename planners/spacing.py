"""Voxel sizes: what every case of a dataset is resampled to, and which axis is the coarse one.

The rules are nnU-Net's (Isensee et al. 2021, supplementary note 3; nnunetv2/experiment_planning/experiment_planners/
default_experiment_planner.py), so that its users find the spacings they know. All vectors are per axis, mm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

ANISOTROPY_FACTOR = 3.0  # an axis is anisotropic beyond this ratio, in spacing and in size (ANISO_THRESHOLD)
COARSE_AXIS_PERCENTILE = 10
LOWRES_STEP = 1.03  # factor by which the low resolution is coarsened at a time
LOWRES_EVEN = 2.0  # axes finer than the coarsest by more than this are coarsened first
DIGITS = 6  # mm: nanometres

Array = npt.NDArray[np.float64]


def target_spacing(spacings_mm: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Median over the cases; on an anisotropic axis the 10th percentile, but not finer than the other axes.

    On a much coarser axis the median would throw away the detail of the finer cases, and interpolate between slices
    that are far apart.
    spacings_mm: (cases, axes). shapes: (cases, axes), voxels after the crop to non-zero.
    """
    spacings = np.asarray(spacings_mm, float)
    target = np.median(spacings, axis=0)
    axis = coarse_axis_of_cases(spacings_mm, shapes)
    if axis is not None:
        finer = np.percentile(spacings[:, axis], COARSE_AXIS_PERCENTILE)
        target[axis] = max(finer, np.delete(target, axis).max())
    return _rounded(target)


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
    """The order of axes in which the coarsest comes first: the slices of 2d lie across it.

    An axis of one voxel comes before it: such images are 2D, whichever way they lie. Equal axes keep their order.
    """
    flat = [axis for axis, voxels in enumerate(shape) if voxels <= 1]
    first = flat[0] if flat else int(np.argmax(np.asarray(spacing_mm, float)))
    return (first, *(axis for axis in range(len(spacing_mm)) if axis != first))


def resampled_shape(shape: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float]) -> tuple[int, ...]:
    """Voxels of an image after resampling, at least one per axis."""
    return tuple(
        max(1, round(mm / target * voxels)) for voxels, mm, target in zip(shape, spacing_mm, target_mm, strict=True)
    )


def median_resampled_shape(
    shapes: Sequence[Sequence[int]], spacings_mm: Sequence[Sequence[float]], target_mm: Sequence[float]
) -> tuple[float, ...]:
    """Median over the cases of their sizes after resampling."""
    resampled = [resampled_shape(n, mm, target_mm) for n, mm in zip(shapes, spacings_mm, strict=True)]
    return tuple(float(voxels) for voxels in np.median(resampled, axis=0))


def coarser(spacing_mm: Sequence[float]) -> tuple[float, ...]:
    """One step down in resolution: the fine axes alone until they are within factor 2 of the coarsest, then all."""
    spacing = np.asarray(spacing_mm, float)
    fine = spacing.max() / spacing > LOWRES_EVEN
    return tuple(float(mm) for mm in np.where(fine if fine.any() else True, spacing * LOWRES_STEP, spacing))


def coarsened(spacing_mm: Sequence[float], steps: int) -> tuple[float, ...]:
    """The spacing after so many steps down in resolution."""
    spacing = tuple(float(mm) for mm in spacing_mm)
    for _ in range(steps):
        spacing = coarser(spacing)
    return spacing


def shape_at(spacing: Sequence[float], full_spacing: Sequence[float], full_shape: Sequence[float]) -> tuple[float, ...]:
    """Median size at another spacing than the full one, in voxels."""
    return tuple(
        float(max(1, round(n * full / mm))) for n, full, mm in zip(full_shape, full_spacing, spacing, strict=True)
    )


def _rounded(spacing: Array) -> tuple[float, ...]:
    return tuple(round(float(mm), DIGITS) for mm in spacing)
