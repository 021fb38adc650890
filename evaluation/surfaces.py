"""Surface metrics: how far, in millimetres, the outlines of two masks lie apart.

A mask's surface is made of its voxels that touch the outside across a face. Distances are taken between
voxel centres, from every surface voxel of one mask to the nearest of the other, in both directions, once;
the metrics are small functions of them.

    reference   prediction   hd95_mm                    nsd
    empty       empty        NaN                        NaN
    one of them is empty     the image's diagonal       0

NaN is undefined and left out of every mean. The diagonal is the worst that is possible in that image:
leaving such cases out would reward finding nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

HD_PERCENTILE = 95.0
DEFAULT_TOLERANCE_MM = 1.0  # what the Medical Segmentation Decathlon took for Hippocampus; other organs have their own


@dataclass(frozen=True)
class SurfaceDistances:
    """From each surface voxel of one mask to the nearest surface voxel of the other."""

    reference_to_prediction_mm: NDArray[np.floating]
    prediction_to_reference_mm: NDArray[np.floating]
    diagonal_mm: float  # of the image, between the centres of its corner voxels

    @property
    def both_empty(self) -> bool:
        return not self.reference_to_prediction_mm.size and not self.prediction_to_reference_mm.size

    @property
    def one_empty(self) -> bool:
        return not self.both_empty and not (
            self.reference_to_prediction_mm.size and self.prediction_to_reference_mm.size
        )


def surface_distances(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing_mm: tuple[float, ...]
) -> SurfaceDistances:
    """The distances between the surfaces of two masks of one shape.

    spacing_mm: one per axis, in the order of the axes. An axis of a single voxel is dropped: a flat image has an
    outline, not two faces. Where one mask is empty the distances of the other's surface are infinite.
    """
    real = tuple(axis for axis, size in enumerate(reference.shape) if size > 1) or (0,)
    flat = tuple(axis for axis in range(reference.ndim) if axis not in real)
    spacing = tuple(spacing_mm[axis] for axis in real)
    diagonal = math.hypot(*((reference.shape[axis] - 1) * spacing_mm[axis] for axis in real))

    reference, prediction = reference.squeeze(flat), prediction.squeeze(flat)
    box = _bounding_box(reference | prediction)
    reference_surface, prediction_surface = surface(reference[box]), surface(prediction[box])
    return SurfaceDistances(
        reference_to_prediction_mm=_distances(reference_surface, prediction_surface, spacing),
        prediction_to_reference_mm=_distances(prediction_surface, reference_surface, spacing),
        diagonal_mm=diagonal,
    )


def hd95_mm(distances: SurfaceDistances, percentile: float = HD_PERCENTILE) -> float:
    """Hausdorff distance, mm: the percentile of each direction's distances, the larger of the two.

    percentile 100 is the Hausdorff distance proper; 95 lets single stray voxels pass.
    """
    if distances.both_empty:
        return math.nan
    if distances.one_empty:
        return distances.diagonal_mm
    there = np.percentile(distances.reference_to_prediction_mm, percentile)
    back = np.percentile(distances.prediction_to_reference_mm, percentile)
    return float(max(there, back))


def nsd(distances: SurfaceDistances, tolerance_mm: float = DEFAULT_TOLERANCE_MM) -> float:
    """Normalised surface Dice: the share of both surfaces that lies within the tolerance of the other one.

    Nikolov et al., J Med Internet Res 2021, where surface elements are weighted by their area; here each surface
    voxel counts once.
    """
    both = np.concatenate([distances.reference_to_prediction_mm, distances.prediction_to_reference_mm])
    return float(np.mean(both <= tolerance_mm)) if both.size else math.nan


def surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The voxels of a mask that have a face in common with the outside, or with the image's border."""
    return mask & ~ndimage.binary_erosion(mask)


def _distances(
    from_surface: NDArray[np.bool_], to_surface: NDArray[np.bool_], spacing_mm: tuple[float, ...]
) -> NDArray[np.floating]:
    if not to_surface.any():
        return np.full(int(from_surface.sum()), np.inf)
    distance_mm = ndimage.distance_transform_edt(~to_surface, sampling=spacing_mm or None)
    return np.asarray(distance_mm[from_surface])


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box around a mask; the surfaces and their distances in it are those in the whole image."""
    box = ndimage.find_objects(mask.astype(np.uint8), max_label=1)[0] if mask.ndim else None
    return box if box is not None else (slice(None),) * mask.ndim
