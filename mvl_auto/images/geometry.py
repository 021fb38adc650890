"""Where the voxels of an image lie, and how every image is turned into one orientation and back.

A file's grid (`FileGrid`) has its own index order i, j, k and an affine from there to millimetres
in the patient (RAS+: right, anterior, superior). Everything in MVL-Auto sees the canonical array
instead: axes permuted and flipped, never resampled, so that x, y, z run as closely as possible to
right, anterior, superior, and stored as Z, Y, X. So an image that someone turned gives the same
array. A single slice is always the Y, X plane (Z = 1), whatever its orientation in the patient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from typing import Any

import numpy as np

from mvl_auto.arrays import Array
from mvl_auto.errors import MvlError
from mvl_auto.images.nibabel_alone import import_nibabel
from mvl_auto.text import shape_text

File = str | PathLike[str]

SMALLEST_SPACING = 1e-8  # mm: a tenth of an angstrom, below electron microscopy
LARGEST_SPACING = 100.0  # mm: no scanner has such voxels; a unit was taken for another
SPACING_DIGITS = 6  # significant ones: 32-bit floats hold seven, a square root of three squares six
TIES_UP = 3e-7  # relative: more than the noise of 32-bit headers, so that 0.9765625 is rounded one way in all of them
# Radians about x, y, z, 0.03 degrees in all: the world is turned by so much before an image's axes are compared with
# it. An axis exactly between two of the world's is then nearer to one of them, whatever the order in the file.
TIE_BREAK = (1e-4, 2e-4, 4e-4)
SPACING_TOLERANCE = 1e-3  # relative: headers hold 32-bit floats, or a few decimals
DIRECTION_TOLERANCE = 1e-3  # of a direction cosine: 0.06 degrees
ORIGIN_TOLERANCE = 1e-2  # of a voxel


@dataclass(frozen=True, eq=False)
class FileGrid:
    """The grid of one image as its file has it, with all that is needed to write another on it."""

    shape: tuple[int, int, int]  # voxels along the file's i, j, k; k is 1 in a 2D file
    affine: Array  # (4, 4): index i, j, k -> mm, RAS+
    dimensions: int = 3  # axes in the file: 2 or 3
    dtype: np.dtype[Any] | None = None  # as stored; None where the file has no type of its own to keep
    nifti_header: Any = None  # nibabel's header, for a NIfTI file
    itk_frame: tuple[tuple[float, ...], ...] | None = None  # SimpleITK's spacing, origin, direction, to the last bit
    has_frame: bool = True  # False for PNG and its like, which do not say where in the patient they are
    is_placed: bool = True  # False for NIfTI with neither sform nor qform: the affine is nibabel's choice
    quantum: float = 0.0  # step between the values that a header's slope can give; 0 where there is no slope
    header_fault: str = ""  # a fault of the header that the header itself corrects; empty for none
    label_names: Mapping[int, str] | None = None  # value -> name, for a label map that is to be written
    tilt_degrees: float = 0.0  # of a DICOM series with a tilted gantry: by so much its affine leans
    unknown_unit: str = ""  # in which a TIFF states its voxel size, which is 1 mm here instead; empty for none


@dataclass(frozen=True, eq=False)
class Geometry:
    """The grid of a canonical array, and the way back into its file's own."""

    shape: tuple[int, int, int]  # voxels along Z, Y, X
    affine: Array  # (4, 4): index x, y, z of the canonical array -> mm, RAS+
    axes: tuple[int, int, int]  # the file's axis that became x, y, z
    flips: tuple[bool, bool, bool]  # whether x, y, z run against the file's axis
    file: FileGrid

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along Z, Y, X; the Z of a 2D file is 1.

        Rounded, so that copies whose headers went through other 32-bit numbers have the same.
        """
        lengths = column_lengths(self.affine) * (1 + TIES_UP)
        x, y, z = (float(f"{length:.{SPACING_DIGITS}g}") for length in lengths)
        return z, y, x

    @property
    def dimensions(self) -> int:
        """2 for a single slice, else 3."""
        return 2 if self.shape[0] == 1 else 3


def column_lengths(affine: Array) -> Array:
    """Voxel size in mm along the axes of an affine, also where it is sheared. Returns (3,)."""
    return np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


def skew_degrees(affine: Array) -> float:
    """How far the worst pair of axes of an affine is from a right angle; 0 where it is as good as one.

    A gantry that was tilted leaves its tilt here. NIfTI, NRRD and MetaImage can say so, and are read as they are, with
    the distances along the axes; ITK refuses such a NIfTI file.
    """
    directions = affine[:3, :3] / column_lengths(affine)
    cosine = float(np.abs(directions.T @ directions - np.eye(3)).max())
    return float(np.degrees(np.arcsin(min(cosine, 1.0)))) if cosine > DIRECTION_TOLERANCE else 0.0


def canonical_geometry(grid: FileGrid, file: File) -> Geometry:
    """The canonical geometry of a file's grid.

    Raises MvlError naming `file` when the grid holds no voxels or its spacing makes no sense.
    """
    if 0 in grid.shape:
        raise MvlError(f"holds no voxels ({shape_text(grid.shape)})", file=file, remedy="Remove it or export it again.")
    _check_spacing(grid, file)
    axes, flips = _closest_to_ras(np.asarray(grid.affine, dtype=float)[:3, :3].tobytes())
    axes, flips = _single_slice_as_z(grid.shape, axes, flips)
    x, y, z = (grid.shape[axis] for axis in axes)
    return Geometry((z, y, x), _turned_affine(grid, axes, flips), axes, flips, grid)


def to_canonical(array_ijk: Array, geometry: Geometry) -> Array:
    """Turn an array in its file's index order (..., i, j, k) into canonical (..., Z, Y, X); a view."""
    lead = array_ijk.ndim - 3
    turned = array_ijk.transpose(*range(lead), *(lead + axis for axis in geometry.axes))
    turned = np.flip(turned, _flipped_axes(geometry, lead))
    return turned.swapaxes(lead, lead + 2)


def from_canonical(array_zyx: Array, geometry: Geometry) -> Array:
    """Undo `to_canonical`: (..., Z, Y, X) back into the file's index order (..., i, j, k); a view."""
    lead = array_zyx.ndim - 3
    turned = array_zyx.swapaxes(lead, lead + 2)
    turned = np.flip(turned, _flipped_axes(geometry, lead))
    return turned.transpose(*range(lead), *(lead + int(axis) for axis in np.argsort(geometry.axes)))


def check_same_geometry(
    image: Geometry, label: Geometry, image_file: File, label_file: File, what: str = "label"
) -> None:
    """Raise MvlError, with both sizes or both frames, unless the two grids are the same one.

    Rounding errors of headers are allowed. what: the word for `label_file` in the message.
    """
    remedy = f"Resample the {what} onto the image's grid, or remove the case."
    if image.shape != label.shape:
        mine, its = shape_text(image.file.shape), shape_text(label.file.shape)
        raise MvlError(f"is {mine} voxels, its {what} {label_file} {its}", file=image_file, remedy=remedy)
    if not (image.file.has_frame and label.file.has_frame):
        return
    if difference := frame_difference(image.affine, label.affine):
        if agree_by_index(image.file, label.file):
            placeless = "its" if label.file.is_placed else f"the {what}'s"
            difference += f"; {placeless} header has neither sform nor qform"
            remedy = f"Run mvl_doctor --fix FOLDER if they belong together: the {what} gets the image's header."
        raise MvlError(
            f"and its {what} {label_file} lie differently in space ({difference})", file=image_file, remedy=remedy
        )


def agree_by_index(a: FileGrid, b: FileGrid) -> bool:
    """Whether one of two files does not say where it lies, and both have as many voxels of the same sizes."""
    spacing_a, spacing_b = column_lengths(a.affine), column_lengths(b.affine)
    same = a.shape == b.shape and np.allclose(spacing_a, spacing_b, rtol=SPACING_TOLERANCE, atol=0)
    return bool(same and a.is_placed != b.is_placed)


def frame_difference(a: Array, b: Array) -> str:
    """The first of voxel size, direction, origin in which two affines differ, with both values; empty for none.

    Rounding errors of headers are no difference.
    """
    if np.array_equal(a, b):
        return ""
    spacing_a, spacing_b = column_lengths(a), column_lengths(b)
    if not np.allclose(spacing_a, spacing_b, rtol=SPACING_TOLERANCE, atol=0):
        return f"voxel size {shape_text(spacing_a)} and {shape_text(spacing_b)} mm"
    directions_a, directions_b = a[:3, :3] / spacing_a, b[:3, :3] / spacing_b
    if np.abs(directions_a - directions_b).max() > DIRECTION_TOLERANCE:
        cosine = np.clip((np.trace(directions_a.T @ directions_b) - 1) / 2, -1, 1)
        return f"directions turned by {np.degrees(np.arccos(cosine)):.2f} degrees"
    shift_in_voxels = np.linalg.solve(a[:3, :3], b[:3, 3] - a[:3, 3])
    if np.abs(shift_in_voxels).max() > ORIGIN_TOLERANCE:
        return f"origin {shape_text(a[:3, 3])} and {shape_text(b[:3, 3])} mm"
    return ""


def _check_spacing(grid: FileGrid, file: File) -> None:
    spacing = column_lengths(grid.affine)
    if not np.isfinite(grid.affine).all():
        raise MvlError("its header gives no finite position in space", file=file, remedy="Export it again.")
    if (spacing < SMALLEST_SPACING).any() or (spacing > LARGEST_SPACING).any():
        raise MvlError(
            f"its header gives a voxel size of {shape_text(spacing)} mm; {SMALLEST_SPACING:g} to "
            f"{LARGEST_SPACING:g} mm make sense",
            file=file,
            remedy="Correct the header or remove the case.",
        )
    if abs(np.linalg.det(grid.affine[:3, :3] / spacing)) < DIRECTION_TOLERANCE:
        raise MvlError("two axes of its header point the same way", file=file, remedy="Correct the header.")


@lru_cache(maxsize=256)  # of a folder, most files have one of a few orientations and voxel sizes
def _closest_to_ras(matrix: bytes) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Which axis of the file becomes x, y, z, and which of these run against it. matrix: an affine's 3 x 3 floats."""
    orientations = import_nibabel().orientations
    affine = np.eye(4)
    affine[:3, :3] = np.frombuffer(matrix).reshape(3, 3)
    turn = np.eye(4)
    turn[:3, :3] += np.cross(np.eye(3), TIE_BREAK)
    to_world = orientations.io_orientation(turn @ affine)  # per file axis: the closest world axis, and +1 or -1
    axes = np.argsort(to_world[:, 0])
    flips = to_world[axes, 1] < 0
    return (int(axes[0]), int(axes[1]), int(axes[2])), (bool(flips[0]), bool(flips[1]), bool(flips[2]))


def _single_slice_as_z(
    shape: tuple[int, int, int], axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Move the only axis of one voxel, if there is exactly one, to z; the others keep their order."""
    singles = [n for n, axis in enumerate(axes) if shape[axis] == 1]
    if len(singles) != 1:
        return axes, flips
    x, y, z = [n for n in range(3) if n != singles[0]] + singles
    return (axes[x], axes[y], axes[z]), (flips[x], flips[y], flips[z])


def _turned_affine(grid: FileGrid, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Array:
    """The affine from canonical index x, y, z: file index[axes[n]] is index n, or counted from the far end."""
    to_file = np.zeros((4, 4))
    to_file[3, 3] = 1
    for n, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        to_file[axis, n] = -1 if flip else 1
        to_file[axis, 3] = grid.shape[axis] - 1 if flip else 0
    return grid.affine @ to_file


def _flipped_axes(geometry: Geometry, lead: int) -> tuple[int, ...]:
    return tuple(lead + n for n, flip in enumerate(geometry.flips) if flip)
