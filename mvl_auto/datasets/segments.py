"""Label files in the values of dataset.json. In the segmentations of 3D Slicer the names of the segments decide.

Slicer numbers segments in the order in which they were made, so that one value may mean liver in one file and tumour
in the next. The name in the file's header is looked up in dataset.json, whatever the value in the file is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mvl_auto.arrays import Array
from mvl_auto.datasets.labels import BACKGROUND_VALUE, IGNORE_NAME
from mvl_auto.errors import MvlError
from mvl_auto.files import Hashes
from mvl_auto.images import file_ending, read_file, read_label, smallest_type, whole_numbers
from mvl_auto.images.geometry import FileGrid, Geometry, canonical_geometry, frame_difference, to_canonical
from mvl_auto.images.seg_nrrd import NRRD_ENDINGS, Segment, place_on_grid, read_segments
from mvl_auto.plans import LabelScheme


def read_values(
    path: Path, labels: LabelScheme | None, image: Geometry | None = None, hashes: Hashes | None = None
) -> tuple[Array, Geometry]:
    """Read a label file. Returns integers (Z, Y, X), in the values of dataset.json, and the geometry.

    labels: None for the values in the file, whatever its segments are called. image: the grid that the label belongs
    to. A segmentation of 3D Slicer that covers a part of it is padded with background; one of a single empty voxel is
    empty. hashes: as in `read_image`.
    Raises MvlError as `read_label` does, and for segments that dataset.json does not name or that overlap.
    """
    path = Path(path)
    segments = () if labels is None else segments_of(path)
    if labels is not None and segments:
        array_ijk, grid = read_segmentation(path, labels, segments)
        own = canonical_geometry(grid, path)
        values, geometry = np.array(to_canonical(array_ijk, own), order="C"), own
    else:
        values, geometry = read_label(path, hashes)
        array_ijk, grid = values, geometry.file
    if image is None or (geometry.shape == image.shape and not frame_difference(geometry.affine, image.affine)):
        return values, geometry
    if file_ending(path) in NRRD_ENDINGS and values.size == 1 and not values.any():
        return np.zeros(image.shape, values.dtype), image
    if segments and (placed := place_on_grid(array_ijk, grid, image)) is not None:
        return placed, image
    return values, geometry


def segments_of(path: Path) -> tuple[Segment, ...]:
    """The segments of a 3D Slicer segmentation; none for any other file."""
    return read_segments(path) if file_ending(path) in NRRD_ENDINGS and path.is_file() else ()


def read_segmentation(path: Path, labels: LabelScheme, segments: tuple[Segment, ...]) -> tuple[Array, FileGrid]:
    """A 3D Slicer segmentation as one label map (i, j, k), in the values of dataset.json, and its own grid.

    segments: of its header. Raises MvlError for segments that overlap or that dataset.json does not name.
    """
    layers, grid = read_file(path, as_label=True)
    layers = whole_numbers(layers, grid, path)
    _check_values(layers, segments, path)
    named = _values_by_folded_name(labels)
    dtype = smallest_type(min(named.values()), max(named.values()))
    merged = np.zeros(layers.shape[1:], dtype)
    owner = np.zeros(layers.shape[1:], np.int16)  # the number of a voxel's segment, from 1
    unknown: list[str] = []
    for number, segment in enumerate(segments, start=1):
        mask = layers[segment.layer] == segment.value
        if not mask.any():
            continue
        value = named.get(_folded(segment.name))
        if value is None:
            unknown.append(segment.name)
            continue
        overlap = mask & (owner > 0) & (merged != value)
        if overlap.any():
            other = segments[int(owner[overlap].flat[0]) - 1].name
            what = f"its segments '{other}' and '{segment.name}' overlap in {int(overlap.sum())} voxels"
            raise MvlError(what, file=path, remedy="Take the voxels out of one of them in 3D Slicer.")
        merged[mask] = value
        owner[mask] = number
    if unknown:
        raise _unknown_segments(unknown, labels, path)
    return merged, grid


def _check_values(layers: Array, segments: tuple[Segment, ...], path: Path) -> None:
    """Raise MvlError where segments and voxels do not fit together."""
    for segment in segments:
        if not 0 <= segment.layer < len(layers):
            what = f"its segment '{segment.name}' is in layer {segment.layer}, of {len(layers)}"
            raise MvlError(what, file=path, remedy="Save it again in 3D Slicer.")
    for number, layer in enumerate(layers):
        known = {segment.value for segment in segments if segment.layer == number} | {BACKGROUND_VALUE}
        if nameless := [int(value) for value in np.unique(layer) if int(value) not in known]:
            what = f"holds the value {nameless[0]}, which is none of its segments"
            raise MvlError(what, file=path, remedy="Save it again in 3D Slicer.")


def _values_by_folded_name(labels: LabelScheme) -> dict[str, int]:
    """Value of each label, by its name without upper and lower case; not of names that differ in nothing else."""
    names: list[tuple[str, int]] = list(zip(labels.class_names, labels.class_values, strict=True))
    if labels.ignore_value is not None:
        names.append((IGNORE_NAME, labels.ignore_value))
    folded = [_folded(name) for name, _ in names]
    return {_folded(name): value for name, value in names if folded.count(_folded(name)) == 1}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def _unknown_segments(names: Iterable[str], labels: LabelScheme, path: Path) -> MvlError:
    listed = [f"'{name}'" for name in names]
    known = ", ".join(labels.class_names[1:])
    segments = f"segment{'s' * (len(listed) > 1)} {', '.join(listed)}"
    return MvlError(
        f"has the {segments}, which dataset.json does not name (it names {known})",
        file=path,
        remedy="Rename it in 3D Slicer, or give the label in dataset.json this name."
        if len(listed) == 1
        else "Rename them in 3D Slicer, or give the labels in dataset.json these names.",
    )
