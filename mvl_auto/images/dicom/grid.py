"""Where the voxels of a DICOM volume lie in the patient; a volume with missing or uneven slices is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvl_auto.arrays import Array
from mvl_auto.errors import MvlError
from mvl_auto.images.dicom.headers import Frame
from mvl_auto.images.dicom.sorting import DicomVolume, contradicts_itself, normal_of, places, same_place
from mvl_auto.images.geometry import DIRECTION_TOLERANCE, FileGrid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
UNEVEN_SLICES = 0.05  # slice distances of a volume may differ by this share of their median
SIDEWAYS = 0.5  # of a pixel: slices may be this far beside the line through the first and the last
STEEPEST_TILT = 45.0  # degrees; CT gantries tilt by up to 30
NAMED = 3  # places in a message
EXPORT = "Export the whole series again, or convert it to an evenly spaced NIfTI."


@dataclass(frozen=True, eq=False)
class _Stack:
    """origin: centre of the first voxel. step: from slice to slice. Both (3,), mm, LPS+."""

    origin: Array
    step: Array
    tilt_degrees: float = 0.0
    has_frame: bool = True


def grid_of(volume: DicomVolume, folder: Path) -> FileGrid:
    """The grid of a volume: index i along a row, j along a column, k from slice to slice.

    Slices of a tilted gantry give an affine whose third column leans; `tilt_degrees` says by how much.
    Raises MvlError when the header does not say where the slices lie or contradicts itself, when slices are missing,
    unevenly spaced, twice at one place or displaced sideways, and for a mosaic.
    """
    first = volume.frames[0]
    rows, columns, _ = first.shape
    if first.is_mosaic:
        what = "is a mosaic of Siemens: the slices of a whole volume side by side in one picture"
        raise MvlError(what, file=first.file, remedy="Convert the series to NIfTI with dcm2niix.")
    if first.spacing is None or min(first.spacing) <= 0:
        what = "its header gives no pixel spacing"
        raise MvlError(what, file=first.file, remedy="Add PixelSpacing to it, or convert it to NIfTI or PNG.")
    along_row, along_column = _directions(first)
    stack = _stack(volume, folder) if len(volume.frames) > 1 else _single(first, along_row, along_column)
    affine = np.eye(4)
    affine[:3, 0] = along_row * first.spacing[1]
    affine[:3, 1] = along_column * first.spacing[0]
    affine[:3, 2] = stack.step
    affine[:3, 3] = stack.origin
    affine[:3] = LPS_TO_RAS @ affine[:3]
    return FileGrid(
        shape=(columns, rows, len(volume.frames)),
        affine=affine,
        has_frame=stack.has_frame,
        tilt_degrees=stack.tilt_degrees,
    )


def _directions(frame: Frame) -> tuple[Array, Array]:
    """Unit vectors along a row and along a column, LPS+; those of an axial slice where a single one does not say."""
    if frame.orientation is None:
        return np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    along_row, along_column = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
    lengths = float(np.linalg.norm(along_row)), float(np.linalg.norm(along_column))
    cosine = along_row @ along_column / max(lengths[0] * lengths[1], DIRECTION_TOLERANCE)
    if min(lengths) < DIRECTION_TOLERANCE or abs(cosine) > DIRECTION_TOLERANCE:
        what = "its ImageOrientationPatient is not of two directions at right angles"
        raise MvlError(what, file=frame.file, remedy="Correct the header or export it again.")
    return along_row / lengths[0], along_column / lengths[1]


def _single(frame: Frame, along_row: Array, along_column: Array) -> _Stack:
    """One slice: its thickness is the step, 1 mm where it has none, which is not used in 2D."""
    normal = np.cross(along_row, along_column)
    has_frame = frame.position is not None and frame.orientation is not None
    origin = np.array(frame.position) if has_frame else np.zeros(3)
    return _Stack(origin, normal * (frame.thickness or 1.0), has_frame=has_frame)


def _stack(volume: DicomVolume, folder: Path) -> _Stack:
    frames = volume.frames
    where = places(frames)
    normal = normal_of(frames[0])
    if where is None or normal is None:
        raise _placeless(frames, folder)
    if contradicts_itself(where, frames):
        raise MvlError(
            f"its {len(frames)} slices have different SliceLocations at one ImagePositionPatient: one of the two is "
            "wrong",
            file=folder,
            remedy="Export the series again with its positions, or convert it to NIfTI.",
        )
    if pairs := same_place(where, frames):
        named = _listed([f"{_name(a)} and {_name(b)}" for a, b in pairs])
        what = f"has slices at one place that nothing in their headers tells apart: {named}"
        raise MvlError(what, file=folder, remedy="Remove those that do not belong to the image.")
    _check_even(where, frames, folder)
    distance = float(where[-1] - where[0]) / (len(frames) - 1)
    if any(frame.position is None for frame in frames):
        return _Stack(np.zeros(3), normal * distance, has_frame=False)
    corners = np.array([frame.position for frame in frames], dtype=float)
    leaning = (corners[-1] - corners[0]) / (len(frames) - 1)
    _check_line(corners, leaning, frames, folder)
    sideways = np.linalg.norm(leaning - normal * distance)
    tilt = float(np.arctan2(sideways, distance))
    if tilt <= DIRECTION_TOLERANCE:
        return _Stack(corners[0], normal * distance)
    if np.degrees(tilt) > STEEPEST_TILT:
        what = f"its slices are displaced sideways, by {sideways:.4g} mm every {distance:.4g} mm"
        raise MvlError(what, file=folder, remedy="Keep the slices of one image in the folder.")
    return _Stack(corners[0], leaning, tilt_degrees=float(np.degrees(tilt)))


def _placeless(frames: tuple[Frame, ...], folder: Path) -> MvlError:
    if frames[0].frames_in_file == len(frames):
        return MvlError(
            f"its {len(frames)} frames do not say where they lie: no position of each, no first one with "
            "SpacingBetweenSlices",
            file=frames[0].file,
            remedy="Save the frames of a film as PNG, one file for each; "
            "else export the series again with its positions, or convert it to NIfTI.",
        )
    return MvlError(
        f"its {len(frames)} slices do not say where they lie: no ImagePositionPatient (or no "
        "ImageOrientationPatient), no SliceLocation",
        file=folder,
        remedy="Export the series again with its positions, or convert it to NIfTI.",
    )


def _check_even(where: Array, frames: tuple[Frame, ...], folder: Path) -> None:
    """Raise MvlError, with the places, when distances between neighbours differ by more than UNEVEN_SLICES."""
    steps = np.diff(where)
    usual = float(np.median(steps))
    bad = np.flatnonzero(np.abs(steps - usual) > UNEVEN_SLICES * usual)
    if bad.size == 0:
        return
    named = _listed([f"{steps[n]:.4g} mm between {_name(frames[n])} and {_name(frames[n + 1])}" for n in bad])
    what = f"slices are missing or unevenly spaced: {steps.min():.4g} to {steps.max():.4g} mm apart"
    raise MvlError(f"{what}, mostly {usual:.4g} mm; {named}", file=folder, remedy=EXPORT)


def _check_line(corners: Array, step: Array, frames: tuple[Frame, ...], folder: Path) -> None:
    """Raise MvlError when the corners of slices do not follow one line."""
    assert frames[0].spacing is not None
    off = np.linalg.norm(corners - (corners[0] + np.arange(len(corners))[:, None] * step), axis=1)
    allowed = max(SIDEWAYS * min(frames[0].spacing), UNEVEN_SLICES * float(np.linalg.norm(step)))
    if off.max() > allowed:
        what = f"the slice {_name(frames[int(off.argmax())])} lies {off.max():.4g} mm beside where the others put it"
        raise MvlError(what, file=folder, remedy="Keep the slices of one image in the folder.")


def _name(frame: Frame) -> str:
    return frame.file.name + (f" (frame {frame.index + 1})" if frame.frames_in_file > 1 else "")


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more
