"""Repairs of voxel values: label values, NaN and infinity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mvl_auto.arrays import Array
from mvl_auto.images import RASTER_ENDINGS, file_ending, label_tolerance, smallest_type, stored_values
from mvl_auto.images.geometry import FileGrid
from mvl_auto.planners.doctor.piece import Piece
from mvl_auto.planners.doctor.repair_grid import reoriented
from mvl_auto.plans import LabelScheme

SOFT_THRESHOLD = 0.5
SOFT_RANGE = (-0.5, 1.5)  # resampling by splines swings a mask of 0 and 1 over both


def repair_label_values(piece: Piece, labels: LabelScheme) -> Piece:
    """A label map of whole numbers that dataset.json names, where it is certain which."""
    if not (piece.array == piece.array[:1]).all() and np.isfinite(piece.array).all():
        return piece
    one = replace(piece, array=piece.array[:1])
    one = _unscaled(one, labels)
    stored_as_integers = piece.grid.dtype is not None and piece.grid.dtype.kind in "iu" and not piece.grid.quantum % 1
    if one.array.dtype.kind == "f" and not (stored_as_integers and _are_whole(one)):
        one = _as_integers(one, labels)
    if one.array.dtype.kind == "f" and not _are_whole(one):
        return replace(piece, repairs=one.repairs)
    mapped = _mapped(one, labels)
    return mapped if mapped.is_changed else replace(piece, repairs=mapped.repairs)


def replace_nonfinite(piece: Piece, label: Piece | None) -> Piece:
    """An image without NaN and infinity. label: to report how many of them lie inside it."""
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


def _unscaled(piece: Piece, labels: LabelScheme) -> Piece:
    """The stored values, where dataset.json names these and not the ones that the header makes of them."""
    if piece.array.dtype.kind != "f" or not _are_whole(piece):
        return piece
    known = [*labels.class_values, *([] if labels.ignore_value is None else [labels.ignore_value])]
    stored = stored_values(piece.array, piece.grid)
    if stored is None or np.isin(np.rint(piece.array), known).all() or not np.isin(stored, known).all():
        return piece
    return piece.repaired(
        f"values from {piece.array.min():g} to {piece.array.max():g}, by the scaling of its header",
        f"has the stored values, {stored.min()} to {stored.max()}",
        array=stored.astype(_type_for(stored, labels)),
    )


def _as_integers(piece: Piece, labels: LabelScheme) -> Piece:
    """A floating-point label map as integers; a soft one cut at one half, where dataset.json has a single label."""
    array = piece.array
    if not np.isfinite(array).all():
        return piece.left("NaN or infinity for a label", "it is unknown which label these voxels should have")
    if _are_whole(piece):
        values = np.rint(array).astype(np.int64)
        found = f"whole numbers stored as {piece.grid.dtype}"
        if piece.grid.quantum:
            found += f" behind a slope of {piece.grid.quantum:.4g}"
        integers = values.astype(_type_for(values, labels))
        return piece.repaired(found, f"stored as {integers.dtype}", array=integers)
    least, greatest = float(array.min()), float(array.max())
    found = f"a soft label, with values from {least:.4g} to {greatest:.4g}"
    if not _is_single(labels) or labels.ignore_value is not None:
        return piece.left(found, "dataset.json names more than one label: threshold each, and save one label map")
    if least < SOFT_RANGE[0] or greatest > SOFT_RANGE[1]:
        return piece.left(found, "its values do not lie between 0 and 1: threshold it")
    value = labels.class_values[1]
    mask = array >= SOFT_THRESHOLD
    values = np.where(mask, value, labels.class_values[0])
    done = f"{int(mask.sum())} voxels of {SOFT_THRESHOLD} and more are {value}, {labels.class_names[1]}; the others 0"
    return piece.repaired(found, done, array=values.astype(_type_for(values, labels)))


def _mapped(piece: Piece, labels: LabelScheme) -> Piece:
    """The only value that dataset.json does not name becomes its only label, where the file lacks that label."""
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


def _are_whole(piece: Piece) -> bool:
    array = piece.array
    return bool(np.isfinite(array).all() and (np.abs(array - np.rint(array)) <= label_tolerance(piece.grid)).all())


def _type_for(values: Array, labels: LabelScheme) -> np.dtype[np.generic]:
    """The same for all label maps of a dataset: the smallest that holds all its values."""
    named = [*labels.class_values, *([] if labels.ignore_value is None else [labels.ignore_value])]
    return smallest_type(min(int(values.min()), *named), max(int(values.max()), *named))


def _inside(bad: Array, label: Piece | None, grid: FileGrid) -> str:
    """How many of these voxels are labelled, for the report; empty where that cannot be told."""
    turned = None if label is None else reoriented(label, grid)
    if turned is None or turned.grid.shape != grid.shape:
        return ""
    return f"; {int((bad & (turned.array[0] != 0)).sum())} of them are labelled"
