"""Surface metrics: how far, in millimetres, the surfaces of two masks lie apart.

Two steps. `surface_distances` finds for every element of each surface its area and the distance to the nearest element
of the other one; the metrics are small functions of these. Elements are marching cubes' (surfels.py), weighted by area
as in Nikolov et al. (J Med Internet Res 2021) and their package surface-distance. `voxel_surface_distances` counts
surface voxels instead, all alike, as MONAI and MedPy do: the metrics named _voxel.

What an empty mask gives is in docs/evaluation.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvl_auto.evaluation.nearest import mutual_distances
from mvl_auto.evaluation.surfels import surfels

HD_PERCENTILE = 95.0
DEFAULT_TOLERANCE_MM = 1.0  # what the Medical Segmentation Decathlon took for Hippocampus; other organs have their own

Array = NDArray[np.float64]
Elements = tuple[NDArray[np.intp], Array]  # flat positions on a grid, ascending, and the area of each
FindElements = Callable[[NDArray[np.bool_], tuple[float, ...]], Elements]


@dataclass(frozen=True)
class SurfaceDistances:
    """For each element of a surface its distance to the nearest element of the other surface, and its area."""

    reference_mm: Array  # from the reference's elements to the prediction's surface
    reference_areas: Array  # mm² (3D), mm (2D), or 1 each
    prediction_mm: Array
    prediction_areas: Array
    diagonal_mm: float  # of the image, between the centres of its corner voxels

    @property
    def both_empty(self) -> bool:
        return not self.reference_mm.size and not self.prediction_mm.size

    @property
    def one_empty(self) -> bool:
        return not self.both_empty and not (self.reference_mm.size and self.prediction_mm.size)


def surface_distances(
    reference: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    spacing_mm: tuple[float, ...],
    image_shape: tuple[int, ...] | None = None,
) -> SurfaceDistances:
    """The distances between the surfaces of two masks of one shape, each surface element with its area.

    spacing_mm: one per axis, in the order of the axes. image_shape: of the whole image, where the masks are a part cut
    out of it. An axis along which the image has a single voxel is dropped: a 2D image has an outline, not two faces.
    Where one mask is empty the distances of the other's surface are infinite.
    """
    return _measure(reference, prediction, spacing_mm, image_shape or reference.shape, surfels)


def voxel_surface_distances(
    reference: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    spacing_mm: tuple[float, ...],
    image_shape: tuple[int, ...] | None = None,
) -> SurfaceDistances:
    """As `surface_distances`, between the centres of the surface voxels, which all have the area 1."""
    return _measure(reference, prediction, spacing_mm, image_shape or reference.shape, surface_voxels)


def hd_mm(distances: SurfaceDistances) -> float:
    """Hausdorff distance, mm: the largest distance from either surface to the other."""
    return _largest(distances, lambda mm, areas: float(mm.max()))


def hd95_mm(distances: SurfaceDistances, percentile: float = HD_PERCENTILE) -> float:
    """Robust Hausdorff distance, mm: 95 % of each surface's area are no farther than this; the larger of the two."""
    return _largest(distances, lambda mm, areas: _area_percentile(mm, areas, percentile))


def hd95_voxel_mm(distances: SurfaceDistances, percentile: float = HD_PERCENTILE) -> float:
    """The percentile of the distances in each direction, interpolated, areas ignored; the larger of the two. mm."""
    return _largest(distances, lambda mm, areas: float(np.percentile(mm, percentile)))


def assd_mm(distances: SurfaceDistances) -> float:
    """Average symmetric surface distance, mm: the mean over the area of both surfaces together."""
    if distances.both_empty:
        return math.nan
    if distances.one_empty:
        return distances.diagonal_mm
    there = float(distances.reference_mm @ distances.reference_areas)
    back = float(distances.prediction_mm @ distances.prediction_areas)
    return (there + back) / _total_area(distances)


def nsd(distances: SurfaceDistances, tolerance_mm: float = DEFAULT_TOLERANCE_MM) -> float:
    """Normalized surface Dice: the share of the area of both surfaces within the tolerance of the other one."""
    if distances.both_empty:
        return math.nan
    there = float(distances.reference_areas[distances.reference_mm <= tolerance_mm].sum())
    back = float(distances.prediction_areas[distances.prediction_mm <= tolerance_mm].sum())
    return (there + back) / _total_area(distances)


def surface_voxels(mask: NDArray[np.bool_], spacing_mm: tuple[float, ...]) -> Elements:
    """The voxels of a mask that share a face with the outside, or with the image's border, and 1 for each.

    Flat positions in the mask.
    """
    from scipy import ndimage

    places = np.flatnonzero(mask & ~ndimage.binary_erosion(mask))
    return places, np.ones(len(places))


def _measure(
    reference: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    spacing_mm: tuple[float, ...],
    image_shape: tuple[int, ...],
    find: FindElements,
) -> SurfaceDistances:
    real = tuple(axis for axis, size in enumerate(image_shape) if size > 1) or (0,)
    flat = tuple(axis for axis in range(len(image_shape)) if axis not in real)
    spacing = tuple(float(spacing_mm[axis]) for axis in real)
    diagonal = math.hypot(*((image_shape[axis] - 1) * spacing_mm[axis] for axis in real))

    reference, prediction = (np.ascontiguousarray(mask.squeeze(flat)) for mask in (reference, prediction))
    grid = tuple(size + 1 for size in reference.shape) if find is surfels else reference.shape
    (in_reference, reference_areas), (in_prediction, prediction_areas) = (
        find(reference, spacing),
        find(prediction, spacing),
    )
    reference_mm, prediction_mm = mutual_distances(in_reference, in_prediction, grid, spacing)
    return SurfaceDistances(
        reference_mm=reference_mm,
        reference_areas=reference_areas,
        prediction_mm=prediction_mm,
        prediction_areas=prediction_areas,
        diagonal_mm=diagonal,
    )


def _largest(distances: SurfaceDistances, of_direction: Callable[[Array, Array], float]) -> float:
    """The larger one of both directions' figures."""
    if distances.both_empty:
        return math.nan
    if distances.one_empty:
        return distances.diagonal_mm
    return max(
        of_direction(distances.reference_mm, distances.reference_areas),
        of_direction(distances.prediction_mm, distances.prediction_areas),
    )


def _area_percentile(mm: Array, areas: Array, percentile: float) -> float:
    """The smallest distance that this percentage of the area does not exceed."""
    order = np.lexsort((areas, mm))
    shares = np.cumsum(areas[order]) / areas.sum()
    place = int(np.searchsorted(shares, percentile / 100))
    return float(mm[order][min(place, len(mm) - 1)])


def _total_area(distances: SurfaceDistances) -> float:
    return float(distances.reference_areas.sum() + distances.prediction_areas.sum())
