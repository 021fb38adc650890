"""All metrics by name: what each is computed from, its unit, and whether more is better.

    METRICS["nsd"].of(measured) -> value        choose_metrics("dice,hd95") -> ("dice", "hd95_mm")

The formulas are in overlap.py, surfaces.py, boundary.py and lesions.py. Another metric is one more entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mvl_auto.errors import MvlError
from mvl_auto.evaluation import boundary, lesions, overlap, surfaces
from mvl_auto.evaluation.boundary import BoundaryCounts
from mvl_auto.evaluation.lesions import LesionCounts
from mvl_auto.evaluation.overlap import Counts
from mvl_auto.evaluation.surfaces import DEFAULT_TOLERANCE_MM, SurfaceDistances

Part = Literal["counts", "surfaces", "voxel_surfaces", "boundary", "lesions"]
NO_SURFACES = SurfaceDistances(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0), diagonal_mm=0.0)
NO_BOUNDARY = BoundaryCounts(0, 0)
NO_LESIONS = LesionCounts(0, 0, 0)


@dataclass(frozen=True)
class Measured:
    """What was counted and measured of one label in one case: the metrics are functions of it.

    Parts that no chosen metric needs keep what two empty masks have.
    """

    counts: Counts
    voxel_ml: float = 0.001
    tolerance_mm: float = DEFAULT_TOLERANCE_MM
    surfaces: SurfaceDistances = field(default=NO_SURFACES)
    voxel_surfaces: SurfaceDistances = field(default=NO_SURFACES)
    boundary: BoundaryCounts = field(default=NO_BOUNDARY)
    lesions: LesionCounts = field(default=NO_LESIONS)


@dataclass(frozen=True)
class Metric:
    """name: as in tables. needs: the part of `Measured` it is computed from. unit: "" for a share.

    higher_is_better: None where the best value is 0, with errors to both sides. meaning: a title that stands alone.
    """

    name: str
    of: Callable[[Measured], float]
    needs: Part = "counts"
    unit: str = ""
    higher_is_better: bool | None = True
    meaning: str = ""


def _all() -> Iterable[Metric]:
    yield Metric("dice", lambda m: overlap.dice(m.counts), meaning="Dice similarity coefficient")
    yield Metric("jaccard", lambda m: overlap.jaccard(m.counts), meaning="intersection over union")
    yield Metric("precision", lambda m: overlap.precision(m.counts), meaning="positive predictive value")
    yield Metric("recall", lambda m: overlap.recall(m.counts), meaning="sensitivity")
    yield Metric("specificity", lambda m: overlap.specificity(m.counts), meaning="true negative rate")
    yield Metric("accuracy", lambda m: overlap.accuracy(m.counts), meaning="share of voxels that are right")
    yield Metric("volume_similarity", lambda m: overlap.volume_similarity(m.counts), meaning="similarity of volumes")
    yield Metric(
        "volume_error_ml",
        lambda m: overlap.volume_error_ml(m.counts, m.voxel_ml),
        unit="ml",
        higher_is_better=None,
        meaning="volume error, prediction minus reference",
    )
    yield Metric(
        "absolute_volume_error_ml",
        lambda m: abs(overlap.volume_error_ml(m.counts, m.voxel_ml)),
        unit="ml",
        higher_is_better=False,
        meaning="absolute volume error",
    )
    yield _distance("hd_mm", lambda m: surfaces.hd_mm(m.surfaces), "Hausdorff distance")
    yield _distance("hd95_mm", lambda m: surfaces.hd95_mm(m.surfaces), "95th percentile of the Hausdorff distance")
    yield _distance("assd_mm", lambda m: surfaces.assd_mm(m.surfaces), "average symmetric surface distance")
    yield Metric(
        "nsd",
        lambda m: surfaces.nsd(m.surfaces, m.tolerance_mm),
        "surfaces",
        meaning="normalized surface Dice",
    )
    yield _distance(
        "hd_voxel_mm", lambda m: surfaces.hd_mm(m.voxel_surfaces), "Hausdorff distance between voxels", "voxel_surfaces"
    )
    yield _distance(
        "hd95_voxel_mm",
        lambda m: surfaces.hd95_voxel_mm(m.voxel_surfaces),
        "95th percentile of the Hausdorff distance between voxels",
        "voxel_surfaces",
    )
    yield _distance(
        "assd_voxel_mm",
        lambda m: surfaces.assd_mm(m.voxel_surfaces),
        "average symmetric surface distance between voxels",
        "voxel_surfaces",
    )
    yield Metric(
        "boundary_iou",
        lambda m: boundary.boundary_iou(m.boundary),
        "boundary",
        meaning="intersection over union near the surface",
    )
    yield Metric(
        "lesion_recall",
        lambda m: lesions.lesion_recall(m.lesions),
        "lesions",
        meaning="share of the lesions that were found",
    )
    yield Metric(
        "lesion_precision",
        lambda m: lesions.lesion_precision(m.lesions),
        "lesions",
        meaning="share of the predicted lesions that are there",
    )
    yield Metric("lesion_f1", lambda m: lesions.lesion_f1(m.lesions), "lesions", meaning="F1 of lesions")


def _distance(name: str, of: Callable[[Measured], float], meaning: str, needs: Part = "surfaces") -> Metric:
    return Metric(name, of, needs, unit="mm", higher_is_better=False, meaning=meaning)


METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _all()}
ONLY_IN_FILES = frozenset({"accuracy"})  # near 1 for any small label: beside a Dice of 0 it looks as if all were well
OVERLAP_METRICS = ("dice", "jaccard", "precision", "recall", "accuracy")  # cheap: what training's validation computes
DEFAULT_METRICS = (*OVERLAP_METRICS, "hd95_mm", "nsd")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "all": tuple(METRICS),
    "default": DEFAULT_METRICS,
    "overlap": OVERLAP_METRICS,
    "surface": ("hd_mm", "hd95_mm", "assd_mm", "nsd"),
    "volume": ("volume_similarity", "volume_error_ml", "absolute_volume_error_ml"),
    "lesion": ("lesion_recall", "lesion_precision", "lesion_f1"),
}
OTHER_NAMES = {
    "iou": "jaccard",
    "sensitivity": "recall",
    "hd": "hd_mm",
    "hd95": "hd95_mm",
    "assd": "assd_mm",
    "lesion_sensitivity": "lesion_recall",
}


def choose_metrics(wanted: str | Iterable[str]) -> tuple[str, ...]:
    """Names of metrics, each once, in the order wanted. wanted: "dice,hd95" or names; a group stands for its members.

    Raises MvlError, listing the names, for one that does not exist or when none is left.
    """
    names = [name.strip().lower() for name in (wanted.split(",") if isinstance(wanted, str) else wanted)]
    chosen: list[str] = []
    for name in filter(None, names):
        name = OTHER_NAMES.get(name, name)
        if name not in METRICS and name not in GROUPS:
            known = ", ".join([*METRICS, *GROUPS])
            raise MvlError(f"unknown metric '{name}'", remedy=f"Choose from {known}.")
        chosen += GROUPS.get(name, (name,))
    if not chosen:
        raise MvlError("no metric was named", remedy=f"Choose from {', '.join([*METRICS, *GROUPS])}.")
    return tuple(dict.fromkeys(chosen))


def on_screen(metrics: Sequence[str]) -> list[str]:
    """The metrics that tables show on a screen; files have all."""
    return [metric for metric in metrics if metric not in ONLY_IN_FILES] or list(metrics)
