"""Resampling of a volume as matrix products, one for each axis.

Spline interpolation on a grid is separable, and along each axis the new voxels are linear in the old ones: new = M old.
In a row of M only the entries near its own place matter: the influence of a voxel on a cubic spline falls by the factor
0.27 with each voxel of distance. So M is stored as bands (a block of rows, and the columns that matter for it) and
applied by BLAS. The results are those of scipy.ndimage.zoom(grid_mode=True, mode="nearest") and of
skimage.transform.resize(mode="edge").

Both grids have the same outer borders: new voxel i lies at (i + 0.5) old / new - 0.5 of the old ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mvl_auto.arrays import Floats, Integers

Doubles = NDArray[np.float64]

ROWS_PER_BAND = 64  # many enough for a fast product, few enough to leave out zeros
REACH_OF_SPLINE = 16  # voxels: 0.27 ** 16 = 7e-10, below the last bit of float32
EDGE = 12  # copies of the border voxel that are added before the spline is fitted, as in scipy's zoom

CUBIC, LINEAR = 3, 1


@dataclass(frozen=True, eq=False)
class Band:
    """Some rows of the matrix. new, old: start and stop along the axis. weights: (new, old) float32."""

    new: tuple[int, int]
    old: tuple[int, int]
    weights: Floats


def resample_axis(array: Floats, axis: int, size: int, order: int) -> Floats:
    """`array` with `size` voxels along `axis`, by interpolation of `order` (1 or 3)."""
    if array.shape[axis] == size:
        return array
    return apply_bands(make_bands(array.shape[axis], size, order), array, axis)


def apply_bands(matrix: tuple[Band, ...], array: Floats, axis: int) -> Floats:
    """The product of the matrix with `array` along `axis`; the first new voxel is that of the matrix's first row."""
    array = np.ascontiguousarray(array, np.float32)
    first, last = matrix[0].new[0], matrix[-1].new[1]
    before, after = int(np.prod(array.shape[:axis])), int(np.prod(array.shape[axis + 1 :]))
    result = np.empty((*array.shape[:axis], last - first, *array.shape[axis + 1 :]), np.float32)
    old = array.reshape(before, -1, after)
    new = result.reshape(before, -1, after)
    for band in matrix:
        source = slice(*band.old)
        target = slice(band.new[0] - first, band.new[1] - first)
        if after == 1:
            np.matmul(old[:, source, 0], band.weights.T, out=new[:, target, 0])
        else:
            np.matmul(band.weights, old[:, source], out=new[:, target])
    return result


def find_nearest(old: int, new: int) -> Integers:
    """Interpolation of order 0: number of the old voxel for each new one, (new,)."""
    return np.clip(np.floor(map_voxels(old, new) + 0.5), 0, old - 1).astype(np.int64)


def map_voxels(old: int, new: int) -> Doubles:
    """Positions of the new voxels, in old voxels, (new,)."""
    return (np.arange(new, dtype=np.float64) + 0.5) * (old / new) - 0.5


@lru_cache(maxsize=32)
def make_bands(
    old: int, new: int, order: int, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None
) -> tuple[Band, ...]:
    """The matrix from `old` to `new` voxels.

    rows: only these new voxels. columns: the array has only these old voxels, the others are zero (linear
    interpolation only).
    """
    return tuple(_make_bands(old, new, order, rows or (0, new), columns or (0, old)))


def _make_bands(old: int, new: int, order: int, rows: tuple[int, int], columns: tuple[int, int]) -> Iterator[Band]:
    assert order == LINEAR or columns == (0, old)
    margin = REACH_OF_SPLINE if order == CUBIC else 0
    where = map_voxels(old, new)
    for start in range(rows[0], rows[1], ROWS_PER_BAND):
        stop = min(start + ROWS_PER_BAND, rows[1])
        place = where[start:stop]
        low = max(int(np.floor(place[0])) - margin, columns[0])
        high = min(int(np.floor(place[-1])) + 2 + margin, columns[1])
        low, high = min(low, columns[1] - 1), max(high, columns[0] + 1)
        if order == CUBIC:
            weights = _weigh_cubic(place - low, high - low)
        else:
            weights = _weigh_linear(np.clip(place, 0, old - 1) - low, high - low)
        yield Band((start, stop), (low - columns[0], high - columns[0]), weights.astype(np.float32))


def _weigh_linear(place: Doubles, size: int) -> Doubles:
    """(places, size): the weights of the two neighbours of each place, as far as they exist."""
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(size)))


def _weigh_cubic(place: Doubles, size: int) -> Doubles:
    """(places, size): the weight of each of `size` voxels in the cubic spline through all of them, at each place.

    The coefficients of the spline are the voxels after a recursive filter (Unser 1999, IEEE Signal Processing
    Magazine 16(6)); filtered unit vectors are the columns of the matrix of that filter.
    """
    from scipy import ndimage

    units = np.pad(np.eye(size), ((EDGE, EDGE), (0, 0)), mode="edge")
    coefficients = ndimage.spline_filter1d(units, CUBIC, axis=0, output=np.float64, mode="nearest")
    distance = np.abs(place[:, None] + EDGE - np.arange(size + 2 * EDGE))
    return _cubic_b_spline(distance) @ coefficients


def _cubic_b_spline(distance: Doubles) -> Doubles:
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(0, 2 - distance) ** 3 / 6
    return np.where(distance < 1, near, far)
