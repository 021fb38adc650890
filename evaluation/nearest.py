"""From each of some places on a grid to the nearest of some others: exact, and fast where most are near.

Two surfaces that agree well are a voxel or two apart almost everywhere. So the places around each start are looked at
first, the nearest first, on a map of the end places; only what is farther goes into a tree.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

REACH = 4  # voxels along each axis that are looked at
MOST_STEPS = 70
BRUTE_FORCE = 100_000  # pairs up to which comparing all with all is faster than building a tree

Places = NDArray[np.intp]
Array = NDArray[np.float64]


def mutual_distances(
    first: Places, second: Places, grid: tuple[int, ...], spacing_mm: tuple[float, ...]
) -> tuple[Array, Array]:
    """The distance from each of the first places to the nearest of the second, and the other way, mm.

    Infinite where there are none. first, second: flat positions on a grid of this shape. spacing_mm: one per axis, in
    the order of the axes.
    """
    if not (first.size and second.size):
        return np.full(len(first), np.inf), np.full(len(second), np.inf)
    padded_grid = tuple(size + 2 * REACH for size in grid)  # so that no step leaves the grid
    padded = [_padded(places, grid, padded_grid) for places in (first, second)]
    there, back = (_near(start, end, padded_grid, spacing_mm) for start, end in (padded, padded[::-1]))
    for distances, start, end in ((there, first, second), (back, second, first)):
        far = np.isinf(distances)
        if far.any():
            distances[far] = _far(start[far], end, grid, spacing_mm)
    return there, back


def _near(start: Places, end: Places, grid: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Array:
    """The distances as far as the steps of `shells` go; infinity beyond."""
    distances = np.full(len(start), np.inf)
    there = np.zeros(math.prod(grid), bool)
    there[end] = True
    left = np.arange(len(start))
    strides = np.array([math.prod(grid[axis + 1 :]) for axis in range(len(grid))])
    for length, steps in shells(spacing_mm):
        nearest, *others = (steps @ strides).tolist()
        found = there.take(start + nearest)
        for step in others:
            found |= there.take(start + step)
        distances[left[found]] = length
        start, left = start[~found], left[~found]
        if not left.size:
            break
    return distances


@lru_cache(maxsize=64)
def shells(spacing_mm: tuple[float, ...]) -> list[tuple[float, NDArray[np.intp]]]:
    """Steps (n, axes) to the places around one, in groups of one length in mm, the shortest first, without a gap."""
    axes = len(spacing_mm)
    steps = np.array(list(itertools.product(range(-REACH, REACH + 1), repeat=axes)))
    lengths = _lengths(steps, spacing_mm)
    complete = lengths < (REACH + 1) * min(spacing_mm)  # all steps of these lengths are among the steps
    order = np.argsort(lengths[complete], kind="stable")[:MOST_STEPS]
    steps, lengths = steps[complete][order], lengths[complete][order]
    return [(float(length), steps[lengths == length]) for length in np.unique(lengths)]


def _padded(places: Places, grid: tuple[int, ...], padded_grid: tuple[int, ...]) -> Places:
    """The same places, flat positions on the padded grid."""
    along = tuple(axis + REACH for axis in np.unravel_index(places, grid))
    return np.ravel_multi_index(along, padded_grid)


def _far(start: Places, end: Places, grid: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Array:
    from scipy.spatial import KDTree
    from scipy.spatial.distance import cdist

    starts, ends = (np.stack(np.unravel_index(places, grid), 1) for places in (start, end))
    if len(starts) * len(ends) <= BRUTE_FORCE:
        nearest = cdist(starts * spacing_mm, ends * spacing_mm, "sqeuclidean").argmin(1)
    else:
        _, nearest = KDTree(ends * spacing_mm).query(starts * spacing_mm)
    return _lengths(starts - ends[nearest], spacing_mm)


def _lengths(steps: NDArray[np.integer], spacing_mm: tuple[float, ...]) -> Array:
    """In mm, from whole steps: three steps of 0.7 mm are as long everywhere in the image, to the last bit."""
    return np.asarray(np.sqrt(((steps * spacing_mm) ** 2).sum(1)))
