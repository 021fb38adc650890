"""One case of a dataset, repaired where that needs no guessing; everything else stays as it is.

- A label, or a further channel, whose header puts it slightly elsewhere than the image takes the image's header; so
  does one where either header does not say at all where it lies.
- Label values: whole numbers stored as floating point, or behind a slope, become integers; a scaling that was copied
  from another header is taken out; where dataset.json names a single label, the
  only other value of a file becomes that label's, and a soft mask is cut at one half.
- An sform of zeros becomes the qform.
- NaN becomes the channel's least value (air in CT, background in MR: a value that the image has where there is
  nothing, which 0 is not in CT); infinity becomes its greatest or least.
- Axes that are not at right angles: straighten.py.

A repaired file is of the same format and, where it can be, of the same type as before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mvl_auto.datasets import Case, files_behind
from mvl_auto.datasets.segments import read_segmentation, segments_of
from mvl_auto.errors import MvlError
from mvl_auto.files import copy_file
from mvl_auto.images import file_ending, read_file, write_file
from mvl_auto.images.geometry import canonical_geometry
from mvl_auto.planners.doctor.piece import Piece, Repair
from mvl_auto.planners.doctor.repair_grid import straighten_case, take_grid_of
from mvl_auto.planners.doctor.repair_values import repair_label_values, replace_nonfinite
from mvl_auto.planners.fingerprint.case import name_in
from mvl_auto.plans import LabelScheme

NIFTI = ".nii.gz"


def repair_case(case: Case, labels: LabelScheme, targets: Mapping[Path, Path], folder: Path) -> tuple[Repair, ...]:
    """Write all files of a case to their targets, repaired where they need it and can be, else as they are.

    targets: where each file goes, under its own name, for images and label as the case names them. folder: the
    dataset's, for messages.
    Raises MvlError when a target cannot be written.
    """
    pieces = _repair_files(case, labels, folder)
    left = [repair for path, piece in pieces.items() for repair in _write(path, piece, targets[path], folder)]
    return (*_list_repairs(pieces), *left)


def copy_or_report(file: Path, target: Path, folder: Path) -> tuple[Repair, ...]:
    """Copy a file of the dataset in `folder`; returns that it was left out where it cannot be read.

    Raises MvlError when the target cannot be written.
    """
    try:
        copy_file(file, target)
    except MvlError as error:
        if error.file != file:
            raise
        return (Repair(file=name_in(folder, file), found=error.what, done="the copy is without it", outcome="left"),)
    return ()


def place_of_repaired(target: Path) -> Path:
    """Where a repaired file goes: a folder of DICOM slices becomes one NIfTI file beside its place."""
    return target if file_ending(target) else target.with_name(f"{target.name}{NIFTI}")


def propose_repairs(case: Case, labels: LabelScheme, folder: Path) -> tuple[Repair, ...]:
    """What `repair_case` would do, without writing anything."""
    return _list_repairs(_repair_files(case, labels, folder))


def _repair_files(case: Case, labels: LabelScheme, folder: Path) -> dict[Path, Piece | None]:
    """Every file of a case after all possible repairs; None for one that cannot be read."""
    images = [_read(path, folder) for path in case.images]
    label = None if case.label is None else _read(case.label, folder, labels)
    if label is not None:
        label = repair_label_values(label, labels)
    if (first := images[0]) is not None:
        images[1:] = [piece and take_grid_of(piece, first) for piece in images[1:]]
        label = label and take_grid_of(label, first)
        images = [piece and replace_nonfinite(piece, label) for piece in images]
        images, label = straighten_case(images, label)
    pieces: dict[Path, Piece | None] = dict(zip(case.images, images, strict=True))
    if case.label is not None:
        pieces[case.label] = label
    return pieces


def _list_repairs(pieces: Mapping[Path, Piece | None]) -> tuple[Repair, ...]:
    return tuple(repair for piece in pieces.values() if piece is not None for repair in piece.repairs)


def _read(path: Path, folder: Path, labels: LabelScheme | None = None) -> Piece | None:
    """None for a file that cannot be read: it is copied, and reported when the copy is examined. labels: of a label."""
    name = name_in(folder, path)
    try:
        segments = () if labels is None else segments_of(path)
        if labels is not None and segments:
            array, grid = read_segmentation(path, labels, segments)
            array = array[None]
        else:
            array, grid = read_file(path, as_label=labels is not None)
        canonical_geometry(grid, name)
    except MvlError:
        return None
    piece = Piece(path, name, array, grid)
    return piece.repaired(grid.header_fault, "has the qform in its place") if grid.header_fault else piece


def _write(path: Path, piece: Piece | None, target: Path, folder: Path) -> tuple[Repair, ...]:
    """Write a repaired file, or copy it with all files that belong to it. Returns those that could not be read."""
    try:
        files = files_behind(path)
    except MvlError as error:  # a folder that may not be looked into
        return (Repair(file=name_in(folder, path), found=error.what, done="the copy is without it", outcome="left"),)
    files = [Path(os.path.normpath(file)) for file in files]
    here = Path(os.path.normpath(path if path.is_dir() else path.parent))
    below = [file for file in files if file.is_relative_to(here)]  # else a header whose voxels lie elsewhere
    if piece is None or (not piece.is_changed and below == files):
        there = target if path.is_dir() else target.parent
        copied = [copy_or_report(file, there / file.relative_to(here), folder) for file in below]
        return tuple(repair for left in copied for repair in left)
    target = place_of_repaired(target)
    native = piece.array.astype(piece.array.dtype.newbyteorder("="), copy=False)
    write_file(target, native[0] if len(native) == 1 else np.moveaxis(native, 0, -1), piece.grid)
    return ()
