"""Surface elements (surfels) of a mask, and how large each is.

Marching cubes (Lorensen and Cline 1987), as Nikolov et al. (J Med Internet Res 2021) define the surface of a mask:
every corner where 2x2x2 voxels meet, some inside the mask and some outside, holds one element. Its area follows from
which of the eight voxels are inside (256 patterns) and from the voxel size. A pattern and its complement have the same
area. In 2D the elements are pieces of the outline where 2x2 pixels meet, with a length; in 1D they are points.
Outside the image everything is outside the mask.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def surfels(mask: NDArray[np.bool_], spacing_mm: tuple[float, ...]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Where the elements of the mask's surface are, and their areas.

    mask: 1 to 3 axes. spacing_mm: one per axis, in the order of the axes.
    Returns flat positions, ascending, in an array of one element more than the mask along each axis (position 0 is the
    corner ahead of the first voxel), and for each the area in mm² (3D), the length in mm (2D) or 1 (1D).
    """
    codes = patterns(mask).ravel()
    largest = 2 ** (2**mask.ndim) - 1
    places = np.flatnonzero(codes - np.uint8(1) < largest - 1)  # 0 wraps around to 255: all but 0 and the largest
    return places, areas(spacing_mm)[codes[places]]


def patterns(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """For every corner where voxels meet, which of them are inside: one bit each, `offsets` has the order."""
    codes = np.zeros([size + 2 for size in mask.shape], np.uint8)
    codes[(slice(1, -1),) * mask.ndim] = mask
    for axis in range(mask.ndim):  # along each axis, the next voxel's bits move up behind this one's
        here, next_one = ((slice(None),) * axis + (some,) for some in (slice(None, -1), slice(1, None)))
        codes = codes[here] | np.left_shift(codes[next_one], np.uint8(2 ** (mask.ndim - 1 - axis)))
    return codes


def offsets(dimensions: int) -> list[tuple[int, ...]]:
    """The voxels around a corner, as 0 or 1 along each axis; the n-th has the bit of value 2 ** n."""
    return list(itertools.product((0, 1), repeat=dimensions))


@lru_cache(maxsize=64)
def areas(spacing_mm: tuple[float, ...]) -> NDArray[np.float64]:
    """The area of the surface element of each pattern, for voxels of this size."""
    if len(spacing_mm) == 1:
        return np.array([0.0, 1.0, 1.0, 0.0])
    if len(spacing_mm) == 2:
        return np.array([_length(code, spacing_mm) for code in range(16)])
    triangles, codes = _triangles()
    edges = (triangles[:, 1:] - triangles[:, :1]) * spacing_mm
    normals = np.cross(edges[:, 0], edges[:, 1])
    areas = np.linalg.norm(normals, axis=1) / 2
    return np.bincount(codes, weights=areas, minlength=256).astype(np.float64)


def _length(code: int, spacing_mm: tuple[float, ...]) -> float:
    """Marching squares: the outline goes from the middle of a side to the middle of another."""
    pixels = _inside(code, 2)
    diagonal = 0.5 * math.hypot(*spacing_mm)
    count = int(pixels.sum())
    if count in (1, 3):
        return diagonal
    if count != 2:
        return 0.0
    if pixels[0, 0] == pixels[1, 1]:  # two opposite corners
        return 2 * diagonal
    return spacing_mm[0] if pixels[0, 0] == pixels[1, 0] else spacing_mm[1]


@lru_cache(maxsize=1)
def _triangles() -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The triangles (n, 3 corners, 3 axes) of all 256 patterns, in voxels, and the pattern of each triangle.

    Patterns of more than four voxels take the triangles of their complement: the original 15 cases, which keep the two
    sides of an ambiguous face alike. Computed by scikit-image's marching cubes.
    """
    from skimage.measure import marching_cubes

    triangles, codes = [], []
    for code in range(1, 255):
        cube = _inside(code, 3)
        if cube.sum() > 4:
            cube = ~cube
        corners, faces, _, _ = marching_cubes(cube.astype(np.float32), 0.5, method="lorensen")
        triangles.append(corners.astype(np.float64)[faces])
        codes += [code] * len(faces)
    return np.concatenate(triangles), np.array(codes)


def _inside(code: int, dimensions: int) -> NDArray[np.bool_]:
    pixels = np.zeros((2,) * dimensions, bool)
    for bit, offset in enumerate(offsets(dimensions)):
        pixels[offset] = bool(code >> bit & 1)
    return pixels
