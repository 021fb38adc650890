"""The segments of a 3D Slicer segmentation (`.seg.nrrd`): their names, values and layers, from the header.

Slicer stores segments that overlap in layers of their own, numbers them by the order in which someone made them,
saves only the box around them, and a single voxel when there is none
(https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvl_auto.arrays import Array
from mvl_auto.errors import MvlError
from mvl_auto.files import reading
from mvl_auto.images.geometry import DIRECTION_TOLERANCE, ORIGIN_TOLERANCE, FileGrid, Geometry

NRRD_ENDINGS = (".nrrd", ".seg.nrrd")
LARGEST_HEADER = 1 << 20  # bytes
MOST_SEGMENTS = 1 << 15  # classes are numbers of 16 bits
KEY = re.compile(r"Segment(?P<number>\d{1,6})_(?P<field>Name|LabelValue|Layer)")
EXPORT_AGAIN = "Save it again in 3D Slicer."


@dataclass(frozen=True)
class Segment:
    """One segment: the voxels of `layer` that have this value."""

    name: str
    value: int
    layer: int


def read_segments(path: Path) -> tuple[Segment, ...]:
    """The segments that the header of a NRRD file names; none for a file that is no segmentation of 3D Slicer.

    Raises MvlError when the file cannot be read or its segments are damaged.
    """
    fields: dict[int, dict[str, str]] = {}
    for key, value in _header_pairs(path):
        if match := KEY.fullmatch(key):
            fields.setdefault(int(match["number"]), {})[match["field"]] = value
    if len(fields) > MOST_SEGMENTS:
        raise MvlError(f"names {len(fields)} segments; {MOST_SEGMENTS} are the most", file=path, remedy=EXPORT_AGAIN)
    # before Slicer 4.11 every segment was a layer of its own, of the value 1
    is_old = not any("LabelValue" in segment for segment in fields.values())
    try:
        return tuple(
            Segment(
                name=segment.get("Name", f"Segment {number}"),
                value=int(segment.get("LabelValue", 1)),
                layer=int(segment.get("Layer", place if is_old else 0)),
            )
            for place, (number, segment) in enumerate(sorted(fields.items()))
        )
    except ValueError as error:
        raise MvlError("has a damaged header (its segments)", file=path, remedy=EXPORT_AGAIN) from error


def place_on_grid(array_ijk: Array, grid: FileGrid, image: Geometry) -> Array | None:
    """A label map of a part of the image, on the image's whole grid: zeros around it.

    array_ijk: (i, j, k) on `grid`. Returns (Z, Y, X) of the image's canonical shape; None where the voxels of the
    two grids do not coincide, or where a voxel that is not zero lies outside the image.
    """
    to_image = np.linalg.solve(image.affine, grid.affine)
    turn, shift = to_image[:3, :3], to_image[:3, 3]
    axes = np.abs(turn).argmax(axis=0)  # of the image, for each axis of the file
    signs = np.sign(turn[axes, range(3)])
    expected = np.zeros((3, 3))
    expected[axes, range(3)] = signs
    whole = np.rint(shift)
    if sorted(axes) != [0, 1, 2] or np.abs(turn - expected).max() > DIRECTION_TOLERANCE:
        return None
    if np.abs(shift - whole).max() > ORIGIN_TOLERANCE:
        return None
    part_xyz = np.flip(array_ijk, tuple(int(axis) for axis in np.flatnonzero(signs < 0))).transpose(np.argsort(axes))
    last = np.rint(to_image[:3, :3] @ (np.array(grid.shape) - 1) + shift)
    start = np.minimum(whole, last).astype(int)
    shape_xyz = np.array(image.shape[::-1])
    first, stop = np.maximum(start, 0), np.minimum(start + part_xyz.shape, shape_xyz)
    placed = np.zeros(shape_xyz, array_ijk.dtype)
    if (first < stop).all():
        inside = part_xyz[tuple(map(slice, first - start, stop - start))]
        placed[tuple(map(slice, first, stop))] = inside
    if np.count_nonzero(placed) != np.count_nonzero(part_xyz):
        return None
    return placed.transpose(2, 1, 0)


def _header_pairs(path: Path) -> list[tuple[str, str]]:
    """The `key:=value` lines of a NRRD header, with their escapes undone."""
    with reading(path), open(path, "rb") as stream:
        head = stream.read(LARGEST_HEADER)
    if not head.startswith(b"NRRD"):
        return []
    text = re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0].decode("utf-8", errors="replace")
    pairs = (line.partition(":=") for line in text.splitlines())
    return [(key.strip(), _unescaped(value).strip()) for key, separator, value in pairs if separator]


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], value)
