"""Lesion-wise detection: how many separate objects of a label were found, whatever their size.

Lesions are connected components (voxels that share a face, an edge or a corner). A lesion of the reference is found
where a component of the prediction overlaps it with an intersection over union of at least `min_iou`; each is matched
to at most one of the other side, so that as many as possible are matched (Metrics Reloaded, Nature Methods 2024:
one-to-one assignment by mask IoU).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEFAULT_MIN_IOU = 0.1  # nnDetection's for 3D images: small lesions rarely overlap by half


@dataclass(frozen=True)
class LesionCounts:
    """Components of the reference, of the prediction, and pairs of them that match."""

    reference: int
    prediction: int
    matched: int


def count_lesions(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], min_iou: float = DEFAULT_MIN_IOU
) -> LesionCounts:
    """Count the components of two masks of one shape and match them."""
    from scipy import ndimage

    everyone = np.ones((3,) * reference.ndim, bool)
    (of_reference, reference_count), (of_prediction, prediction_count) = (
        ndimage.label(mask, everyone) for mask in (reference, prediction)
    )
    both = reference & prediction
    pairs, shared = np.unique(np.stack([of_reference[both], of_prediction[both]]), axis=1, return_counts=True)
    voxels, predicted_voxels = (np.bincount(components.ravel()) for components in (of_reference, of_prediction))
    rows, columns = pairs
    iou = shared / (voxels[rows] + predicted_voxels[columns] - shared)
    enough = iou >= min_iou
    matched = _most_pairs(rows[enough], columns[enough])
    return LesionCounts(int(reference_count), int(prediction_count), matched)


def lesion_recall(counts: LesionCounts) -> float:
    """The share of the reference's lesions that were found (sensitivity)."""
    return counts.matched / counts.reference if counts.reference else math.nan


def lesion_precision(counts: LesionCounts) -> float:
    """The share of the predicted lesions that are there; 0 where none was predicted and there are some."""
    if counts.reference and not counts.prediction:
        return 0.0
    return counts.matched / counts.prediction if counts.prediction else math.nan


def lesion_f1(counts: LesionCounts) -> float:
    """2 matched / (lesions of the reference + predicted lesions)."""
    both = counts.reference + counts.prediction
    return 2 * counts.matched / both if both else math.nan


def _most_pairs(rows: NDArray[np.integer], columns: NDArray[np.integer]) -> int:
    """The size of the largest one-to-one matching among allowed pairs."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    if not rows.size:
        return 0
    graph = csr_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(rows.max() + 1, columns.max() + 1))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
