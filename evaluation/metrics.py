"""Overlap metrics: how well two label maps agree, voxel by voxel.

Two steps. One pass over the voxels of a case counts how often each class meets each other class
(`confusion_matrix`); every metric is then a small function of the four counts of one label.

Where a metric is 0/0 it is NaN: undefined, left out of every mean, and counted as left out. So:

    reference   prediction   dice   jaccard   precision   recall   accuracy
    empty       empty        NaN    NaN       NaN         NaN      1
    empty       not          0      0         0           NaN      below 1
    not         empty        0      0         0           0        below 1

These are the conventions of the Metrics Reloaded package (Maier-Hein, Reinke et al., Nature Methods 2024), but
for Dice of two empty masks, which it sets to 1 and nnU-Net to NaN: a label that most cases do not have
would then look solved. Precision of an empty prediction is 0/0 too; it counts as 0 where there was
something to find, since leaving it out would reward finding nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VOXELS_AT_ONCE = 1 << 22  # bounds the 64-bit temporaries to 64 MB whatever the image's size


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


def accuracy(counts: Counts) -> float:
    """(TP + TN) / all voxels. Close to 1 for any small label: mind Dice first."""
    return _ratio(counts.true_positives + counts.true_negatives, counts.all)


OVERLAP_METRICS: Mapping[str, Callable[[Counts], float]] = {
    "dice": dice,
    "jaccard": jaccard,
    "precision": precision,
    "recall": recall,
    "accuracy": accuracy,
}


def confusion_matrix(
    reference: NDArray[np.integer], predicted: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    """How many voxels of each reference class (rows) were predicted as each class (columns).

    reference, predicted: class maps of one shape, values 0 ... num_classes - 1; negative ones are unlabelled
    (`plans.IGNORE`): in the reference the voxel is left out, in the prediction it is background.
    """
    if reference.shape != predicted.shape:
        raise ValueError(f"class maps of shapes {reference.shape} and {predicted.shape} cannot be compared")
    flat_reference, flat_predicted = reference.ravel(), predicted.ravel()
    matrix = np.zeros(num_classes * num_classes, np.int64)
    for start in range(0, flat_reference.size, VOXELS_AT_ONCE):
        some = slice(start, start + VOXELS_AT_ONCE)
        rows, columns = flat_reference[some].astype(np.int64), flat_predicted[some].astype(np.int64)
        labelled = rows >= 0
        pairs = rows[labelled] * num_classes + np.maximum(columns[labelled], 0)
        matrix += np.bincount(pairs, minlength=matrix.size)
    return matrix.reshape(num_classes, num_classes)


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
