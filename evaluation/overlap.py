"""Overlap metrics: how well two label maps agree, voxel by voxel.

Two steps. One pass over the voxels of a case counts how often each class meets each other class
(`confusion_matrix`); every metric is then a small function of the four counts of one label.

What an empty mask gives is in docs/evaluation.md. NaN means undefined (0/0): left out of every mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOXELS_AT_ONCE = 1 << 18  # bounds the 64-bit temporaries to a few MB, which stay in the processor's cache


@dataclass(frozen=True)
class Counts:
    """Voxels of one label in one case, those under the ignore label left out."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def reference(self) -> int:
        """Voxels of the label in the reference."""
        return self.true_positives + self.false_negatives

    @property
    def prediction(self) -> int:
        """Voxels of the label in the prediction."""
        return self.true_positives + self.false_positives

    @property
    def all(self) -> int:
        return self.reference + self.false_positives + self.true_negatives


def dice(counts: Counts) -> float:
    """2 TP / (2 TP + FP + FN)."""
    return _ratio(2 * counts.true_positives, counts.reference + counts.prediction)


def jaccard(counts: Counts) -> float:
    """TP / (TP + FP + FN)."""
    return _ratio(counts.true_positives, counts.reference + counts.false_positives)


def precision(counts: Counts) -> float:
    """TP / (TP + FP); 0 where nothing was predicted and something was there."""
    return 0.0 if counts.reference and not counts.prediction else _ratio(counts.true_positives, counts.prediction)


def recall(counts: Counts) -> float:
    """TP / (TP + FN)."""
    return _ratio(counts.true_positives, counts.reference)


def specificity(counts: Counts) -> float:
    """TN / (TN + FP). Close to 1 for any small label: look at precision first."""
    return _ratio(counts.true_negatives, counts.true_negatives + counts.false_positives)


def accuracy(counts: Counts) -> float:
    """(TP + TN) / all voxels. Close to 1 for any small label: look at Dice first."""
    return _ratio(counts.true_positives + counts.true_negatives, counts.all)


def volume_similarity(counts: Counts) -> float:
    """1 - |reference - prediction| / (reference + prediction), in voxels (Taha and Hanbury, BMC Med Imaging 2015)."""
    difference = abs(counts.reference - counts.prediction)
    return 1 - _ratio(difference, counts.reference + counts.prediction)


def volume_error_ml(counts: Counts, voxel_ml: float) -> float:
    """Volume of the prediction minus that of the reference, ml: positive where too much was predicted."""
    return (counts.prediction - counts.reference) * voxel_ml


def confusion_matrix(
    reference: NDArray[np.integer], predicted: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    """How many voxels of each reference class (rows) were predicted as each class (columns).

    reference, predicted: class maps of one shape, values 0 ... num_classes - 1; negative ones are unlabelled
    (`plans.IGNORE`): in the reference the voxel is left out, in the prediction it is background.
    """
    if reference.shape != predicted.shape:
        raise ValueError(f"class maps of shapes {reference.shape} and {predicted.shape} cannot be compared")
    matrix = np.zeros(num_classes * num_classes, np.int64)
    layers = max(1, VOXELS_AT_ONCE * len(reference) // max(reference.size, 1))
    for start in range(0, len(reference), layers):
        some = slice(start, start + layers)
        rows, columns = reference[some].ravel().astype(np.intp), predicted[some].ravel()
        if columns.size and columns.min() < 0:
            columns = np.maximum(columns, 0)
        ignored = rows.size and rows.min() < 0
        pairs = rows * num_classes + columns
        matrix += np.bincount(pairs[rows >= 0] if ignored else pairs, minlength=matrix.size)
    return matrix.reshape(num_classes, num_classes)


def foreground_box(*class_maps: NDArray[Any]) -> tuple[slice, ...]:
    """The smallest box outside of which all the maps, of one shape, are 0; an empty box where they are 0 everywhere."""
    box = [slice(0, size) for size in class_maps[0].shape]
    for axis in range(len(box)):  # each axis looks only at what the earlier ones left
        others = tuple(other for other in range(len(box)) if other != axis)
        used = np.zeros(class_maps[0].shape[axis], bool)
        for class_map in class_maps:
            used |= class_map[tuple(box)].any(axis=others)
        places = np.flatnonzero(used)
        if not places.size:
            return tuple(slice(0, 0) for _ in box)
        box[axis] = slice(int(places[0]), int(places[-1]) + 1)
    return tuple(box)


def counts_of(confusion: NDArray[np.int64], classes: Sequence[int]) -> Counts:
    """The counts of a label that consists of `classes`: one class, or the classes of a region."""
    chosen = list(classes)
    hit = int(confusion[np.ix_(chosen, chosen)].sum())
    in_reference = int(confusion[chosen].sum())
    in_prediction = int(confusion[:, chosen].sum())
    return Counts(
        true_positives=hit,
        false_positives=in_prediction - hit,
        false_negatives=in_reference - hit,
        true_negatives=int(confusion.sum()) - in_reference - in_prediction + hit,
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
