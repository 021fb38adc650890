"""Segmentations as 3D Slicer saves them (.seg.nrrd), written byte by byte, and images beside them."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPACING = (2.0, 1.0, 0.5)  # mm, Z Y X
ORIGIN = (-12.0, -15.0, 4.0)  # mm, x y z, LPS+
TYPES = {"u1": "unsigned char", "i2": "short", "u2": "unsigned short", "i4": "int"}

Array = NDArray[Any]
Segment = tuple[str, int, int]  # name, value, layer


def write_nrrd(
    path: Path,
    array: Array,
    segments: Sequence[Segment] = (),
    start: Sequence[int] = (0, 0, 0),
    directions: Sequence[int] = (1, 1, 1),
    old: bool = False,
) -> Path:
    """Write (Z, Y, X), or layers (L, Z, Y, X).

    start: the first voxel Z Y X on the grid of the whole image. directions: 1 or -1 for the file's x, y, z;
    the array is in the file's order. old: Slicer before 4.11, without values and layers of segments.
    """
    is_layered = array.ndim == 4
    sizes = array.shape[-1:-4:-1]
    steps = [
        np.eye(3)[axis] * length * sign
        for axis, (length, sign) in enumerate(zip(SPACING[::-1], directions, strict=True))
    ]
    first = [
        place if sign > 0 else place + size - 1
        for place, size, sign in zip(start[::-1], sizes, directions, strict=True)
    ]
    origin = np.array(ORIGIN) + np.array(SPACING[::-1]) * first
    lines = [
        "NRRD0004",
        f"type: {TYPES[array.dtype.str[1:]]}",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior",
        f"sizes: {f'{len(array)} ' if is_layered else ''}{' '.join(map(str, sizes))}",
        f"space directions: {'none ' if is_layered else ''}{' '.join(map(_vector, steps))}",
        f"kinds: {'list ' if is_layered else ''}domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(origin)}",
    ]
    for number, (name, value, layer) in enumerate(segments):
        lines.append(f"Segment{number}_ID:=Segment_{number + 1}")
        if not old:
            lines += [f"Segment{number}_LabelValue:={value}", f"Segment{number}_Layer:={layer}"]
        lines.append(f"Segment{number}_Name:={name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.moveaxis(array, 0, -1) if is_layered else array  # the list is the fastest axis
    path.write_bytes(("\n".join(lines) + "\n\n").encode() + gzip.compress(np.ascontiguousarray(stored).tobytes()))
    return path


def _vector(numbers: Sequence[float] | Array) -> str:
    return f"({','.join(f'{number:.17g}' for number in numbers)})"
