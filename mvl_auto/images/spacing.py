"""Voxel sizes: the rules that planning and preprocessing share, each in one place.

All vectors are per axis. Spacings are in mm, shapes in voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

ANISOTROPY_FACTOR = 3.0  # an axis more than this many times as coarse as another is anisotropic (nnU-Net)
SPACING_DIGITS = 6  # decimals of mm, significant ones below: turning an image does not change its spacing by a bit
FEW_DECIMALS = 0.1  # mm: below it, six decimals are fewer than six digits


def round_spacing(spacing_mm: Sequence[float]) -> tuple[float, ...]:
    """Spacings to a nanometer, and those of microscopes to six digits."""
    return tuple(
        round(float(mm), SPACING_DIGITS) if mm >= FEW_DECIMALS else float(f"{mm:.{SPACING_DIGITS}g}")
        for mm in spacing_mm
    )


def resampled_shape(
    shape: Sequence[float], spacing_mm: Sequence[float], new_spacing_mm: Sequence[float]
) -> tuple[int, ...]:
    """Voxels of an image after resampling, at least one per axis.

    nnU-Net's compute_new_shape (preprocessing/resampling/default_resampling.py), in the same order of operations: a
    product that ends in .5 is rounded differently when it is computed in another order.
    """
    return tuple(
        max(1, round(old / new * voxels)) for voxels, old, new in zip(shape, spacing_mm, new_spacing_mm, strict=True)
    )
