"""The scores of one case: one `LabelScore` for each label that is scored.

What is scored is `LabelScheme.foreground_names`: the classes without the background or, where a dataset has
regions, the regions (which overlap). Training uses this for its validation, `mvl_evaluate` for folders of files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvl_auto.evaluation.metrics import OVERLAP_METRICS, Counts, confusion_matrix, counts_of
from mvl_auto.plans import IGNORE, LabelScheme


@dataclass(frozen=True)
class LabelScore:
    """How well one label of one case was predicted. The last two: only where surfaces were asked for."""

    label: str
    counts: Counts
    hd95_mm: float | None = None
    nsd: float | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Metric name -> value; NaN where it is undefined."""
        overlap = {name: metric(self.counts) for name, metric in OVERLAP_METRICS.items()}
        surfaces = {"hd95_mm": self.hd95_mm, "nsd": self.nsd}
        return overlap | {name: value for name, value in surfaces.items() if value is not None}


@dataclass(frozen=True)
class SurfaceSettings:
    """Ask for HD95 and NSD. They take far longer than the overlap metrics."""

    spacing_mm: tuple[float, ...]  # in the order of the arrays' axes
    tolerance_mm: float


def score_case(
    reference: NDArray[np.integer],
    predicted: NDArray[np.integer],
    labels: LabelScheme,
    surfaces: SurfaceSettings | None = None,
) -> tuple[LabelScore, ...]:
    """Score every label of one case.

    reference, predicted: class maps of one shape (Z, Y, X), as `dataset.to_classes` makes them. Voxels that are
    IGNORE in the reference do not count; for the surfaces they are taken out of both masks.
    """
    confusion = confusion_matrix(reference, predicted, len(labels.class_values))
    scores = []
    for name, classes in zip(labels.foreground_names, labels.foreground_classes, strict=True):
        counts = counts_of(confusion, classes)
        hd95, surface_dice = _surface_metrics(reference, predicted, classes, surfaces) if surfaces else (None, None)
        scores.append(LabelScore(name, counts, hd95, surface_dice))
    return tuple(scores)


def _surface_metrics(
    reference: NDArray[np.integer],
    predicted: NDArray[np.integer],
    classes: tuple[int, ...],
    settings: SurfaceSettings,
) -> tuple[float, float]:
    from mvl_auto.evaluation import surfaces

    labelled = reference != IGNORE
    distances = surfaces.surface_distances(
        np.isin(reference, classes), np.isin(predicted, classes) & labelled, settings.spacing_mm
    )
    return surfaces.hd95_mm(distances), surfaces.nsd(distances, settings.tolerance_mm)
