"""Repairs of a file's grid: headers slightly off, axes that are not at right angles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mvl_auto.errors import MvlError, noting
from mvl_auto.images import check_same_geometry
from mvl_auto.images.geometry import (
    FileGrid,
    agree_by_index,
    canonical_geometry,
    column_lengths,
    frame_difference,
    skew_degrees,
)
from mvl_auto.planners.doctor.piece import Piece
from mvl_auto.planners.doctor.straighten import on_grid, straight_grid
from mvl_auto.text import shape_text

# How far a label's frame may be from its image's, of the same number of voxels, to be taken for the same one: what
# other programs' rounding, or their other idea of where a voxel starts, comes to. Beyond it may be another scan.
NEAR_ORIGIN_VOXELS = 1.0  # along each axis, or
NEAR_ORIGIN_MM = 1.0
NEAR_DIRECTION_DEGREES = 1.0
NEAR_SPACING = 0.01  # relative


def take_grid_of(piece: Piece, image: Piece) -> Piece:
    """A label or further channel that lies almost where the image lies, in its order of axes and with its header.

    Where one of the two headers has neither sform nor qform, the voxels are matched by their indices: a program that
    draws on such an image gives it a place of its own. The image's header stays, and images that are predicted later
    without a place are read like it.
    Unchanged where the two places are the same within rounding, or differ by more than the tolerances above.
    """
    if _is_on_grid(piece, image):
        return piece
    if agree_by_index(image.grid, piece.grid):
        placeless = piece if image.grid.is_placed else image
        return piece.repaired(
            f"lies differently in space from {image.name}: the header of {placeless.name} has neither sform nor qform",
            "takes the image's header, voxel by voxel",
            grid=replace(image.grid, dtype=piece.grid.dtype),
        )
    turned = reoriented(piece, image.grid)
    if turned is None or turned.grid.shape != image.grid.shape or not _is_near(image.grid, turned.grid):
        return piece
    moved = _farthest_mm(image.grid, turned.grid)
    return turned.repaired(
        f"lies differently in space from {image.name}: {frame_difference(image.grid.affine, turned.grid.affine)}",
        f"takes the image's place in space; its voxels move by at most {moved:.3g} mm",
        grid=replace(image.grid, dtype=piece.grid.dtype),
    )


def _is_on_grid(piece: Piece, image: Piece) -> bool:
    """Whether reading finds nothing wrong with the two."""
    mine, its = (canonical_geometry(each.grid, each.name) for each in (image, piece))
    problems: list[MvlError] = []
    with noting(problems):
        check_same_geometry(mine, its, image.name, piece.name)
    return not problems


def reoriented(piece: Piece, onto: FileGrid) -> Piece | None:
    """The same voxels in the order of axes that is closest to another grid's; None where there is none."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(np.linalg.inv(onto.affine) @ piece.grid.affine)
    if np.isnan(orientation).any():
        return None
    array = np.moveaxis(apply_orientation(np.moveaxis(piece.array, 0, -1), orientation), -1, 0)
    i, j, k = array.shape[1:]
    affine = piece.grid.affine @ inv_ornt_aff(orientation, piece.grid.shape)
    return replace(piece, array=array, grid=replace(piece.grid, shape=(i, j, k), affine=affine))


def _is_near(image: FileGrid, other: FileGrid) -> bool:
    """Whether two frames of as many voxels along the same axes are so close that they are taken for one."""
    spacing, its = column_lengths(image.affine), column_lengths(other.affine)
    cosines = ((image.affine[:3, :3] / spacing) * (other.affine[:3, :3] / its)).sum(axis=0).clip(-1, 1)
    apart_mm = other.affine[:3, 3] - image.affine[:3, 3]
    apart_voxels = np.abs(np.linalg.solve(image.affine[:3, :3], apart_mm)).max()
    return bool(
        (np.abs(its / spacing - 1) <= NEAR_SPACING).all()
        and np.degrees(np.arccos(cosines)).max() <= NEAR_DIRECTION_DEGREES
        and (apart_voxels <= NEAR_ORIGIN_VOXELS or np.linalg.norm(apart_mm) <= NEAR_ORIGIN_MM)
    )


def _farthest_mm(image: FileGrid, other: FileGrid) -> float:
    """How far apart the two frames put a voxel, at most: at one of the corners."""
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(n - 1 for n in image.shape), 1]
    return float(np.linalg.norm((image.affine - other.affine)[:3] @ corners.T, axis=0).max())


def straighten_case(images: list[Piece | None], label: Piece | None) -> tuple[list[Piece | None], Piece | None]:
    """All files of a case on one right-angled grid, if they are on one sheared one now."""
    first = images[0]
    assert first is not None
    degrees = skew_degrees(first.grid.affine)
    everything = [*images, label]
    # NaN and infinity would spread
    if not degrees or not all(
        piece is not None and _is_on_grid(piece, first) and np.isfinite(piece.array).all() for piece in everything
    ):
        return images, label
    new = straight_grid(first.grid)
    found = f"axes {degrees:.3g} degrees off a right angle"
    straight = [
        _resampled(piece, first.grid, new, found, is_label=piece is label) for piece in everything if piece is not None
    ]
    return list(straight[:-1]), straight[-1]


def _resampled(piece: Piece, old: FileGrid, new: FileGrid, found: str, is_label: bool) -> Piece:
    turned = reoriented(piece, old)
    assert turned is not None
    channels = [
        on_grid(channel, old, new, fill=0 if is_label else channel.min(), is_label=is_label) for channel in turned.array
    ]
    how = "nearest voxel" if is_label else "cubic splines, within the range of its values"
    done = f"resampled to {shape_text(new.shape)} voxels at right angles ({how})"
    return turned.repaired(found, done, array=np.stack(channels), grid=replace(new, dtype=piece.grid.dtype))
