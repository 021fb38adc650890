"""Images whose axes are not at right angles, on a grid whose axes are.

Two of the three axes are at right angles wherever a tilted gantry is the cause: they stay, and with them every slice
and its voxels' size; the third becomes their normal, with the slices' true distance. So nothing is interpolated across
slices, which are thick (dcm2niix corrects a tilt the same way). Where no two axes are, the grid is the one of the
closest right-angled axes (the polar decomposition), with the voxel size as it is. It holds the whole image.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from mvl_auto.arrays import Array
from mvl_auto.images.geometry import DIRECTION_TOLERANCE, FileGrid, column_lengths

SAME_PLACE = 1e-3  # voxels: what lies this close beyond the last voxel needs no other
HALF_VOXEL = 0.5  # an image ends at its voxels' edges; beyond their centres the nearest one counts
IMAGE_ORDER, LABEL_ORDER = 3, 0  # of the splines


def straight_grid(grid: FileGrid) -> FileGrid:
    """The right-angled grid that holds a sheared one; the headers are the old one's, but for their place in space."""
    axes = _straight_axes(grid.affine)
    corners = np.array(list(itertools.product(*((0, voxels - 1) for voxels in grid.shape))))
    places = (np.linalg.inv(axes) @ grid.affine[:3, :3] @ corners.T).T  # in voxels of the new grid, from its old origin
    first = np.floor(places.min(axis=0) + SAME_PLACE)
    last = np.ceil(places.max(axis=0) - SAME_PLACE)
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = grid.affine[:3, 3] + axes @ first
    i, j, k = (int(voxels) for voxels in last - first + 1)
    return replace(
        grid,
        shape=(i, j, k),
        affine=affine,
        nifti_header=_header_in_place(grid.nifti_header, affine),
        itk_frame=None,
    )


def on_grid(array_ijk: Array, old: FileGrid, new: FileGrid, fill: float, is_label: bool = False) -> Array:
    """An image (cubic splines, within its own range) or a label map (nearest voxel) on another grid, in its own type.

    fill: where the old grid has no voxels.
    """
    from scipy import ndimage

    to_old = np.linalg.inv(old.affine) @ new.affine  # index of a voxel -> where it lies in the old array, in voxels
    real = array_ijk if is_label else array_ijk.astype(np.float64)
    moved = ndimage.affine_transform(
        real,
        to_old[:3, :3],
        to_old[:3, 3],
        output_shape=new.shape,
        order=LABEL_ORDER if is_label else IMAGE_ORDER,
        mode="nearest",
    )
    if not is_label:
        moved = moved.clip(real.min(), real.max())
    moved[_outside(to_old, old.shape, new.shape)] = fill
    return (np.rint(moved) if array_ijk.dtype.kind in "iu" else moved).astype(array_ijk.dtype.newbyteorder("="))


def _straight_axes(affine: Array) -> Array:
    """(3, 3): the columns are the steps from voxel to voxel along the new grid's axes, in mm."""
    steps = affine[:3, :3]
    spacing = column_lengths(affine)
    directions = steps / spacing
    for third in np.argsort(-spacing, kind="stable"):  # the thickest is most likely that of the slices
        first, second = ((third + 1) % 3, (third + 2) % 3)
        if abs(directions[:, first] @ directions[:, second]) <= DIRECTION_TOLERANCE:
            straight = steps.copy()
            normal = np.cross(directions[:, first], directions[:, second])
            normal /= np.linalg.norm(normal)
            straight[:, third] = normal * (normal @ steps[:, third])  # its sign and the distance of the slices
            second_direction = np.cross(normal, directions[:, first])  # what is left of the tolerance is taken out
            straight[:, second] = second_direction * spacing[second]
            return straight
    u, _, v = np.linalg.svd(directions)
    return (u @ v) * spacing


def _outside(to_old: Array, old_shape: tuple[int, ...], new_shape: tuple[int, ...]) -> Array:
    """Which voxels of the new grid lie beyond the old one's edges."""
    index = np.ogrid[tuple(slice(voxels) for voxels in new_shape)]
    outside = np.zeros(new_shape, bool)
    for axis, voxels in enumerate(old_shape):
        place = sum(to_old[axis, n] * index[n] for n in range(3)) + to_old[axis, 3]
        outside |= (place < -HALF_VOXEL - SAME_PLACE) | (place > voxels - 1 + HALF_VOXEL + SAME_PLACE)
    return outside


def _header_in_place(header: Any, affine: Array) -> Any:
    """A NIfTI header with another affine, in mm, under the code that it has; None for None."""
    if header is None:
        return None
    moved = header.copy()
    code = int(moved["sform_code"]) or int(moved["qform_code"])
    moved.set_xyzt_units("mm", moved.get_xyzt_units()[1])
    moved.set_sform(affine, code=code)
    moved.set_qform(affine, code=code)
    return moved
