"""One case of a dataset, repaired where that needs no guessing; all else stays as it is.

- A label, or a further channel, whose header puts it slightly elsewhere than the image takes the image's header.
- Label values: whole numbers stored as floating point become integers; where dataset.json names a single label, the
  only other value of a file becomes that label's, and a soft mask is cut at one half.
- NaN becomes the channel's least value (air in CT, background in MR: a value that the image has where there is
  nothing, which 0 is not in CT); infinity becomes its greatest or least.
- Axes that are not at right angles: straighten.py.

A repaired file is of the same format and, where it can be, of the same type as before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from mvl_auto.cases import Case, files_behind
from mvl_auto.errors import MvlError, noting
from mvl_auto.files import copy_file
from mvl_auto.geometry import (
    Array,
    FileGrid,
    canonical_geometry,
    check_same_geometry,
    column_lengths,
    frame_difference,
    skew_degrees,
)
from mvl_auto.images import RASTER_ENDINGS, ROUNDING, file_ending, read_file, smallest_type, write_file
from mvl_auto.planners.examine import name_in
from mvl_auto.planners.straighten import on_grid, straight_grid
from mvl_auto.plans import Frozen, LabelScheme

# How far a label's frame may be from its image's, of the same number of voxels, to be taken for the same one: what
# other programs' rounding, or their other idea of where a voxel starts, comes to. Beyond it may be another scan.
NEAR_ORIGIN_VOXELS = 1.0  # along each axis, or
NEAR_ORIGIN_MM = 1.0
NEAR_DIRECTION_DEGREES = 1.0
NEAR_SPACING = 0.01  # relative
SOFT_THRESHOLD = 0.5
SOFT_RANGE = (-0.5, 1.5)  # resampling by splines swings a mask of 0 and 1 over both


class Repair(Frozen):
    file: str = Field(description="relative to the dataset")
    found: str
    done: str = Field(description="what was done, or why nothing was")
    outcome: Literal["repaired", "left"]


@dataclass(frozen=True, eq=False)
class Piece:
    """One file of a case: (C, i, j, k) on its grid, and what has been done to it. name: as messages call it."""

    file: Path
    name: str
    array: Array
    grid: FileGrid
    repairs: tuple[Repair, ...] = ()

    def repaired(self, found: str, done: str, *, array: Array | None = None, grid: FileGrid | None = None) -> Piece:
        repair = Repair(file=self.name, found=found, done=done, outcome="repaired")
        return replace(
            self,
            array=self.array if array is None else array,
            grid=grid or self.grid,
            repairs=(*self.repairs, repair),
        )

    def left(self, found: str, why: str) -> Piece:
        return replace(self, repairs=(*self.repairs, Repair(file=self.name, found=found, done=why, outcome="left")))

    @property
    def is_changed(self) -> bool:
        return any(repair.outcome == "repaired" for repair in self.repairs)


def repair_case(case: Case, labels: LabelScheme, targets: Mapping[Path, Path], folder: Path) -> tuple[Repair, ...]:
    """Write all files of a case to their targets, repaired where they need it and can be, else as they are.

    targets: where each file goes, under its own name, for images and label as the case names them. folder: the
    dataset's, for messages.
    Raises MvlError when a target cannot be written.
    """
    pieces = _treated(case, labels, folder)
    left = [repair for path, piece in pieces.items() for repair in _write(path, piece, targets[path], folder)]
    return (*_told(pieces), *left)


def copy_or_tell(file: Path, target: Path, folder: Path) -> tuple[Repair, ...]:
    """Copy a file of the dataset in `folder`; of one that cannot be read, that it was left out.

    Raises MvlError when the target cannot be written.
    """
    try:
        copy_file(file, target)
    except MvlError as error:
        if error.file != file:
            raise
        return (Repair(file=name_in(folder, file), found=error.what, done="the copy is without it", outcome="left"),)
    return ()


def propose_repairs(case: Case, labels: LabelScheme, folder: Path) -> tuple[Repair, ...]:
    """What `repair_case` would do, without writing anything."""
    return _told(_treated(case, labels, folder))


def _treated(case: Case, labels: LabelScheme, folder: Path) -> dict[Path, Piece | None]:
    """Every file of a case after all that can be done to it; None for one that cannot be read."""
    images = [_read(path, folder) for path in case.images]
    label = None if case.label is None else _read(case.label, folder, as_label=True)
    if label is not None:
        label = repaired_values(label, labels)
    if (first := images[0]) is not None:
        images[1:] = [piece and in_place_of(piece, first) for piece in images[1:]]
        label = label and in_place_of(label, first)
        images = [piece and finite(piece, label) for piece in images]
        images, label = _straightened(images, label)
    pieces: dict[Path, Piece | None] = dict(zip(case.images, images, strict=True))
    if case.label is not None:
        pieces[case.label] = label
    return pieces


def _told(pieces: Mapping[Path, Piece | None]) -> tuple[Repair, ...]:
    return tuple(repair for piece in pieces.values() if piece is not None for repair in piece.repairs)


def in_place_of(piece: Piece, image: Piece) -> Piece:
    """A label or further channel whose frame is almost the image's, in the image's order of axes and with its header.

    As it is where the frames are the same to the reader, or differ by more than the tolerances above.
    """
    if _is_on_grid(piece, image):
        return piece
    turned = _turned(piece, image.grid)
    if turned is None or turned.grid.shape != image.grid.shape or not _is_near(image.grid, turned.grid):
        return piece
    moved = _farthest_mm(image.grid, turned.grid)
    return turned.repaired(
        f"lies differently in space from {image.name}: {frame_difference(image.grid.affine, turned.grid.affine)}",
        f"takes the image's place in space; its voxels move by at most {moved:.3g} mm",
        grid=replace(image.grid, dtype=piece.grid.dtype),
    )


def repaired_values(piece: Piece, labels: LabelScheme) -> Piece:
    """A label map of whole numbers that dataset.json names, where there is no doubt which."""
    if not (piece.array == piece.array[:1]).all() and np.isfinite(piece.array).all():
        return piece
    one = replace(piece, array=piece.array[:1])
    stored_as_integers = piece.grid.dtype is not None and piece.grid.dtype.kind in "iu"  # floats by scl_slope
    if one.array.dtype.kind == "f" and not (stored_as_integers and _are_whole(one.array)):
        one = _as_integers(one, labels)
    if one.array.dtype.kind == "f" and not _are_whole(one.array):
        return replace(piece, repairs=one.repairs)
    mapped = _mapped(one, labels)
    return mapped if mapped.is_changed else replace(piece, repairs=mapped.repairs)


def finite(piece: Piece, label: Piece | None) -> Piece:
    """An image without NaN and infinity. label: to tell how many of them lie inside."""
    if piece.array.dtype.kind != "f":
        return piece
    with np.errstate(over="ignore"):  # beyond float32: infinity to every reader of ours
        bad = ~np.isfinite(piece.array.astype(np.float32))
    if not bad.any():
        return piece
    found = f"{int(bad.sum())} of {bad.size} voxels are NaN or infinite"
    if bad.all(axis=(1, 2, 3)).any():
        return piece.left(found, "a channel has no other voxels: remove the case")
    if len(piece.array) > 1 and file_ending(piece.file) in RASTER_ENDINGS:
        return piece.left(found, "several channels in one picture cannot be written; convert it to .nii.gz")
    array = piece.array.copy()
    done = []
    for channel, wrong in zip(array, bad, strict=True):
        least, greatest = channel[~wrong].min(), channel[~wrong].max()
        for which, value, what in (
            (np.isnan(channel), least, "NaN"),
            (wrong & (channel < 0), least, "-infinity"),
            (wrong & (channel > 0), greatest, "+infinity"),
        ):
            if count := int(which.sum()):
                done.append(f"{count} {what} set to {value:g}")
                channel[which] = value
    inside = _inside(np.asarray(bad.any(axis=0)), label, piece.grid)
    return piece.repaired(found, ", ".join(done) + inside, array=array)


# ------------------------------------------------------------------------------- label values


def _as_integers(piece: Piece, labels: LabelScheme) -> Piece:
    """A floating-point label map as integers; a soft one cut at one half where there is one label to be in or out."""
    array = piece.array
    if not np.isfinite(array).all():
        return piece.left("NaN or infinity for a label", "no label can be told for these voxels")
    if _are_whole(array):
        values = np.rint(array).astype(np.int64)
        found = f"whole numbers stored as {piece.grid.dtype}"
        integers = values.astype(_type_for(values, labels))
        return piece.repaired(found, f"stored as {integers.dtype}", array=integers)
    least, greatest = float(array.min()), float(array.max())
    found = f"a soft label, with values from {least:.4g} to {greatest:.4g}"
    if not _is_single(labels) or labels.ignore_value is not None:
        return piece.left(found, "dataset.json names more than one label: threshold each, and save one label map")
    if least < SOFT_RANGE[0] or greatest > SOFT_RANGE[1]:
        return piece.left(found, "its values are no shares between 0 and 1: threshold it")
    value = labels.class_values[1]
    mask = array >= SOFT_THRESHOLD
    values = np.where(mask, value, labels.class_values[0])
    done = f"{int(mask.sum())} voxels of {SOFT_THRESHOLD} and more are {value}, {labels.class_names[1]}; the others 0"
    return piece.repaired(found, done, array=values.astype(_type_for(values, labels)))


def _mapped(piece: Piece, labels: LabelScheme) -> Piece:
    """The only value that dataset.json does not name becomes the only label that it names, if the file lacks that."""
    there = [int(value) for value in np.unique(np.rint(piece.array))]
    known = {*labels.class_values, *([] if labels.ignore_value is None else [labels.ignore_value])}
    unknown = [value for value in there if value not in known]
    if len(unknown) != 1 or not _is_single(labels) or labels.class_values[1] in there:
        return piece
    (value,), wanted = unknown, labels.class_values[1]
    mask = np.rint(piece.array) == value
    values = np.where(mask, wanted, np.rint(piece.array)).astype(np.int64)
    own = piece.array.dtype
    fits = own.kind in "iu" and np.can_cast(_type_for(values, labels), own)
    return piece.repaired(
        f"the label is {value}, dataset.json names {wanted}",
        f"{int(mask.sum())} voxels of {value} are {wanted}, {labels.class_names[1]}",
        array=values.astype(own.newbyteorder("=") if fits else _type_for(values, labels)),
    )


def _is_single(labels: LabelScheme) -> bool:
    return len(labels.class_values) == 2 and not labels.has_regions


def _are_whole(array: Array) -> bool:
    return bool(np.isfinite(array).all() and (np.abs(array - np.rint(array)) <= ROUNDING).all())


def _type_for(values: Array, labels: LabelScheme) -> np.dtype[np.generic]:
    """The same for all label maps of a dataset: the smallest that holds all its values."""
    named = [*labels.class_values, *([] if labels.ignore_value is None else [labels.ignore_value])]
    return smallest_type(min(int(values.min()), *named), max(int(values.max()), *named))


# ------------------------------------------------------------------------------------- frames


def _is_on_grid(piece: Piece, image: Piece) -> bool:
    """Whether reading finds nothing wrong with the two."""
    mine, its = (canonical_geometry(each.grid, each.name) for each in (image, piece))
    problems: list[MvlError] = []
    with noting(problems):
        check_same_geometry(mine, its, image.name, piece.name)
    return not problems


def _turned(piece: Piece, onto: FileGrid) -> Piece | None:
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


def _inside(bad: Array, label: Piece | None, grid: FileGrid) -> str:
    """How many of these voxels are labelled, for the report; empty where that cannot be told."""
    turned = None if label is None else _turned(label, grid)
    if turned is None or turned.grid.shape != grid.shape:
        return ""
    return f"; {int((bad & (turned.array[0] != 0)).sum())} of them are labelled"


def _straightened(images: list[Piece | None], label: Piece | None) -> tuple[list[Piece | None], Piece | None]:
    """All files of a case on one right-angled grid, if they are on one sheared one now."""
    first = images[0]
    assert first is not None
    degrees = skew_degrees(first.grid.affine)
    everything = [*images, label]
    # voxels that are no numbers would spread
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
    turned = _turned(piece, old)
    assert turned is not None
    channels = [
        on_grid(channel, old, new, fill=0 if is_label else channel.min(), is_label=is_label) for channel in turned.array
    ]
    how = "nearest voxel" if is_label else "cubic splines, within the range of its values"
    size = "x".join(map(str, new.shape))
    done = f"resampled to {size} voxels at right angles ({how})"
    return turned.repaired(found, done, array=np.stack(channels), grid=replace(new, dtype=piece.grid.dtype))


# ---------------------------------------------------------------------------------------- files


def _read(path: Path, folder: Path, as_label: bool = False) -> Piece | None:
    """None for what cannot be read: it is copied, and found again when the copy is examined."""
    name = name_in(folder, path)
    try:
        array, grid = read_file(path, as_label)
        canonical_geometry(grid, name)
    except MvlError:
        return None
    return Piece(path, name, array, grid)


def _write(path: Path, piece: Piece | None, target: Path, folder: Path) -> tuple[Repair, ...]:
    """Repaired, or byte for byte with all that belongs to it. Returns what could not be read, and is left out."""
    try:
        files = files_behind(path)
    except MvlError as error:  # a folder that may not be looked into
        return (Repair(file=name_in(folder, path), found=error.what, done="the copy is without it", outcome="left"),)
    files = [Path(os.path.normpath(file)) for file in files]
    here = Path(os.path.normpath(path if path.is_dir() else path.parent))
    below = [file for file in files if file.is_relative_to(here)]  # else a header whose voxels lie elsewhere
    if piece is None or (not piece.is_changed and below == files):
        there = target if path.is_dir() else target.parent
        copied = [copy_or_tell(file, there / file.relative_to(here), folder) for file in below]
        return tuple(repair for left in copied for repair in left)
    native = piece.array.astype(piece.array.dtype.newbyteorder("="), copy=False)
    write_file(target, native[0] if len(native) == 1 else np.moveaxis(native, 0, -1), piece.grid)
    return ()
