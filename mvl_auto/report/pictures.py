"""The pictures of a run's cases: read once, worst first, until the page's budget of bytes is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvl_auto.arrays import Array
from mvl_auto.datasets import Case, Dataset, load_case, load_label
from mvl_auto.errors import MvlError
from mvl_auto.images import check_same_geometry
from mvl_auto.plans import LabelScheme
from mvl_auto.progress import Progress, silent
from mvl_auto.report.collect import RunRecord
from mvl_auto.report.scores import CaseScore, RunScores, choose_pictured
from mvl_auto.report.slices import Slice, choose_place, slices_at
from mvl_auto.report.volumes import CASE_BYTES, CaseVolume, encode_within, make_volume


@dataclass(frozen=True)
class Picture:
    """A case with its slices. why: worst, median or best."""

    why: str
    case: CaseScore
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Pictures:
    """volumes: key -> what the page's viewer reads (`viewer_json`). missing: sentences."""

    pictures: tuple[Picture, ...]
    volumes: dict[str, dict[str, Any]]
    missing: tuple[str, ...]


def make_pictures(
    run: RunRecord, scores: RunScores, most_bytes: int, prefix: str = "", progress: Progress = silent
) -> Pictures:
    """Slices of the worst, median and best cases, and volumes of as many cases as fit, worst first.

    most_bytes: of all volumes together; 0 for none. prefix: of the keys of the volumes. A case that cannot be read is
    left out and said.
    """
    if run.raw is None or run.plan is None:
        return Pictures((), {}, ("No pictures: the raw dataset or the plan cannot be read.",))
    why = {case.name: reason for reason, case in choose_pictured(scores)}
    cases = {case.name: case for case in run.raw.cases}
    predictions = {name: path for fold in run.folds for name, path in fold.predictions.items()}
    ordered = sorted(scores.cases, key=lambda case: case.name not in why)  # stable: the pictured ones first
    pictures: dict[str, Picture] = {}
    volumes: dict[str, dict[str, Any]] = {}
    missing: list[str] = []
    left = most_bytes
    with progress("drawing cases", len(ordered)) as advance:
        for case in ordered:
            advance(1, note=case.name)
            if case.name not in why and left <= 0:
                continue
            try:
                volume = read_volume(case.name, cases, predictions.get(case.name), run.raw, run.plan.labels)
            except MvlError as error:
                missing.append(str(error))
                continue
            if case.name in why:
                pictures[case.name] = Picture(
                    why[case.name], case, slices_at(volume, choose_place(volume, why[case.name] == "worst"))
                )
            if left > 0:
                volume, text = encode_within(volume, min(CASE_BYTES, most_bytes))
                if len(text) <= left:
                    volumes[case.name] = viewer_json(case.name, volume, text, run.plan.labels)
                left -= len(text)
    drawn = tuple(pictures[name] for name in why if name in pictures)
    return Pictures(drawn, {prefix + name: value for name, value in volumes.items()}, tuple(missing))


def read_volume(
    name: str,
    cases: dict[str, Case],
    prediction: Path | None,
    raw: Dataset,
    labels: LabelScheme,
    around_mm: Sequence[float] = (),
) -> CaseVolume:
    """A case of a dataset for the page. around_mm: a place (x, y, z, RAS+) that the crop must have.

    Raises MvlError when it is not there, cannot be read, or the prediction has another grid.
    """
    if name not in cases:
        raise MvlError(f"the case '{name}' is not in the dataset any more", file=raw.folder)
    case = cases[name]
    volume, truth = load_case(case, labels, len(raw.channels))
    if truth is None:
        raise MvlError(f"the case '{name}' has no label", file=raw.folder)
    predicted: Array | None = None
    if prediction is not None:
        predicted, geometry = load_label(prediction, labels)
        check_same_geometry(volume.geometry, geometry, case.images[0], prediction, what="prediction")
    around = canonical_voxel(around_mm, volume.geometry.affine, truth.shape) if len(around_mm) else ()
    return make_volume(volume, truth, predicted, [channel.name for channel in raw.channels], around)


def canonical_voxel(position_mm: Sequence[float], affine: Array, shape: Sequence[int]) -> tuple[int, int, int]:
    """The voxel (z, y, x) of the canonical array at a position (x, y, z in mm, RAS+), inside the image."""
    import numpy as np

    x, y, z = (np.linalg.inv(affine) @ [*position_mm, 1])[:3]
    found = (min(max(round(float(n)), 0), length - 1) for n, length in zip((z, y, x), shape, strict=True))
    return tuple(found)  # type: ignore[return-value]


def viewer_json(name: str, volume: CaseVolume, text: str, labels: LabelScheme) -> dict[str, Any]:
    """What assets/viewer.js reads."""
    return {
        "name": name,
        "shape": list(volume.shape),
        "spacing": [float(mm) for mm in volume.spacing],
        "labels": list(labels.class_names),
        "prediction": volume.prediction is not None,
        "turned": volume.turned,
        "place": list(choose_place(volume)),
        "data": text,
    }
