"""The scores of one case: one `LabelScore` for each label that is scored.

What is scored is `LabelScheme.foreground_names`: the classes without the background or, where a dataset has
regions, the regions (which overlap). Training uses this for its validation, `mvl_evaluate` for folders of files.
What takes long is measured once per label, inside the smallest box that holds the label in either map.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvl_auto.errors import MvlError
from mvl_auto.evaluation import surfaces
from mvl_auto.evaluation.boundary import count_boundaries, default_width_mm
from mvl_auto.evaluation.lesions import DEFAULT_MIN_IOU, count_lesions
from mvl_auto.evaluation.metrics import METRICS, OVERLAP_METRICS, Measured, Part, choose_metrics
from mvl_auto.evaluation.overlap import confusion_matrix, counts_of, foreground_box
from mvl_auto.evaluation.surfaces import DEFAULT_TOLERANCE_MM
from mvl_auto.images import composed
from mvl_auto.plans import IGNORE, LabelScheme

MM3_PER_ML = 1000.0
Box = tuple[slice, ...]


@dataclass(frozen=True)
class Scoring:
    """What to compute, and the choices that the metrics leave open."""

    metrics: tuple[str, ...] = OVERLAP_METRICS
    tolerance_mm: float = DEFAULT_TOLERANCE_MM  # of nsd
    tolerances_mm: Mapping[str, float] = field(default_factory=dict)  # label (NFC) -> its own
    boundary_mm: float | None = None  # width of the boundary of boundary_iou; None: boundary.default_width_mm
    lesion_iou: float = DEFAULT_MIN_IOU

    @property
    def parts(self) -> set[Part]:
        return {METRICS[name].needs for name in self.metrics}

    def tolerance_of(self, label: str) -> float:
        return self.tolerances_mm.get(composed(label), self.tolerance_mm)


def make_scoring(
    metrics: str | Iterable[str],
    tolerance_mm: float | Mapping[str, float] | None = None,
    boundary_mm: float | None = None,
    lesion_iou: float | None = None,
) -> Scoring:
    """A `Scoring` from what a user says; None stands for the default.

    metrics: as `choose_metrics` takes them. tolerance_mm: for all labels, or by label.
    Raises MvlError for an unknown metric, a length that is negative or not finite, an overlap outside 0 to 1.
    """
    by_label: Mapping[str, float] = tolerance_mm if isinstance(tolerance_mm, Mapping) else {}
    for_all = DEFAULT_TOLERANCE_MM if tolerance_mm is None or isinstance(tolerance_mm, Mapping) else tolerance_mm
    for length in (for_all, *by_label.values(), *([] if boundary_mm is None else [boundary_mm])):
        if not 0 <= length < math.inf:
            raise MvlError(f"{length} mm is not a usable length", remedy="Give a number of millimetres from 0 on.")
    if lesion_iou is not None and not 0 <= lesion_iou <= 1:
        raise MvlError(f"a lesion overlap of {lesion_iou} is not possible", remedy="Give a number from 0 to 1.")
    return Scoring(
        choose_metrics(metrics),
        for_all,
        {composed(label): mm for label, mm in by_label.items()},
        boundary_mm,
        DEFAULT_MIN_IOU if lesion_iou is None else lesion_iou,
    )


@dataclass(frozen=True)
class LabelScore:
    """How well one label of one case was predicted. metrics: name -> value; NaN where it is undefined."""

    label: str
    metrics: Mapping[str, float]
    reference_voxels: int
    prediction_voxels: int


@dataclass(frozen=True)
class Grid:
    """The image that masks are cut out of, without its axes of a single voxel."""

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    voxel_ml: float


def score_case(
    reference: NDArray[np.integer],
    predicted: NDArray[np.integer],
    labels: LabelScheme,
    scoring: Scoring | None = None,
    spacing_mm: tuple[float, ...] | None = None,
) -> tuple[LabelScore, ...]:
    """Score every label of one case.

    reference, predicted: class maps of one shape (Z, Y, X), as `to_classes` makes them. Voxels that are
    IGNORE in the reference do not count: they are taken out of both masks. scoring: default, the overlap metrics.
    spacing_mm: one per axis, in the order of the axes (default: 1 mm).
    """
    if reference.shape != predicted.shape:
        raise ValueError(f"class maps of shapes {reference.shape} and {predicted.shape} cannot be compared")
    scoring = scoring or Scoring()
    grid, reference, predicted = _without_flat_axes(reference, predicted, spacing_mm or (1.0,) * reference.ndim)
    used = foreground_box(reference, predicted)
    reference, predicted = reference[used], predicted[used]
    confusion = confusion_matrix(reference, predicted, len(labels.class_values))
    confusion[0, 0] += math.prod(grid.shape) - reference.size  # background in both
    boxes = _boxes(reference, predicted, len(labels.class_values)) if scoring.parts - {"counts"} else []
    scores = []
    for name, classes in zip(labels.foreground_names, labels.foreground_classes, strict=True):
        counts = counts_of(confusion, classes)
        parts: dict[str, Any] = {}
        if scoring.parts - {"counts"}:
            box = _around(boxes, classes, reference.ndim)
            masks = _masks(reference[box], predicted[box], classes)
            parts = _measure(*masks, grid, scoring)
        measured = Measured(counts, grid.voxel_ml, scoring.tolerance_of(name), **parts)
        values = {metric: METRICS[metric].of(measured) for metric in scoring.metrics}
        scores.append(LabelScore(name, values, counts.reference, counts.prediction))
    return tuple(scores)


def _measure(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], grid: Grid, scoring: Scoring
) -> dict[str, Any]:
    """The parts of `Measured` that the metrics need, but the counts."""
    needed = scoring.parts
    parts: dict[str, Any] = {}
    if "surfaces" in needed:
        parts["surfaces"] = surfaces.surface_distances(reference, prediction, grid.spacing_mm, grid.shape)
    if "voxel_surfaces" in needed:
        parts["voxel_surfaces"] = surfaces.voxel_surface_distances(reference, prediction, grid.spacing_mm, grid.shape)
    if "boundary" in needed:
        width = default_width_mm(grid.shape, grid.spacing_mm) if scoring.boundary_mm is None else scoring.boundary_mm
        parts["boundary"] = count_boundaries(reference, prediction, grid.spacing_mm, width)
    if "lesions" in needed:
        parts["lesions"] = count_lesions(reference, prediction, scoring.lesion_iou)
    return parts


def _without_flat_axes(
    reference: NDArray[np.integer], predicted: NDArray[np.integer], spacing_mm: tuple[float, ...]
) -> tuple[Grid, NDArray[np.integer], NDArray[np.integer]]:
    """A 2D image in three axes becomes one in two: it has an outline, not two faces."""
    real = tuple(axis for axis, size in enumerate(reference.shape) if size > 1) or (0,)
    flat = tuple(axis for axis in range(reference.ndim) if axis not in real)
    grid = Grid(
        shape=tuple(reference.shape[axis] for axis in real),
        spacing_mm=tuple(float(spacing_mm[axis]) for axis in real),
        voxel_ml=math.prod(spacing_mm) / MM3_PER_ML,
    )
    return grid, reference.squeeze(flat), predicted.squeeze(flat)


def _boxes(reference: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> list[list[Box]]:
    """For each class, background too, the boxes around it in either map; none where it is absent."""
    from scipy import ndimage

    boxes: list[list[Box]] = [[] for _ in range(classes)]
    if not reference.size or classes < 2:  # find_objects takes 0 labels for all of them
        return boxes
    for class_map in (reference, predicted):
        for number, box in enumerate(ndimage.find_objects(class_map, max_label=classes - 1), start=1):
            if box is not None:
                boxes[number].append(box)
    return boxes


def _around(boxes: list[list[Box]], classes: Sequence[int], dimensions: int) -> Box:
    """The smallest box around all boxes of these classes; one voxel where there is none."""
    found = [box for number in classes for box in boxes[number]]
    if not found:
        return (slice(0, 1),) * dimensions
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*found, strict=True))


def _masks(
    reference: NDArray[np.integer], predicted: NDArray[np.integer], classes: Sequence[int]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a label is, in both maps; voxels that nobody labelled in the reference belong to neither."""
    if len(classes) == 1:
        of_reference, of_prediction = reference == classes[0], predicted == classes[0]
    else:
        of_reference, of_prediction = np.isin(reference, classes), np.isin(predicted, classes)
    return of_reference, of_prediction & (reference != IGNORE)
