"""The pictures of a label audit: its first cases with slices through the place, label and prediction apart."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvl_auto.datasets import Dataset
from mvl_auto.errors import MvlError
from mvl_auto.plans import LabelScheme
from mvl_auto.progress import Progress, silent
from mvl_auto.report.page import write_page
from mvl_auto.report.pictures import read_volume, viewer_json
from mvl_auto.report.slices import choose_place, slices_at
from mvl_auto.report.volumes import CASE_BYTES, PAGE_BYTES, encode_within
from mvl_auto.text import shape_text
from mvl_auto.version import __version__

PAGE = "audit.html"


@dataclass(frozen=True)
class Suspect:
    """One case of the ranking. voxel: i j k of the file, position: mm, RAS+; both empty where no place is known."""

    case: str
    score: float
    reason: str
    detail: str
    voxel: tuple[int, ...]
    position: tuple[float, ...]


@dataclass(frozen=True)
class AuditedRun:
    """What the page is about. predictions: case -> file of the prediction by the fold that did not see the case."""

    name: str
    raw: Dataset
    labels: LabelScheme
    predictions: Mapping[str, Path]
    count: int  # of all audited cases


def write_audit_page(path: Path, run: AuditedRun, suspects: Sequence[Suspect], progress: Progress = silent) -> int:
    """Write the page; returns its bytes. A case without a picture is listed without one, and the page says why.

    Raises MvlError when the page cannot be written.
    """
    cases = {case.name: case for case in run.raw.cases}
    shown: list[dict[str, Any]] = []
    volumes: dict[str, Any] = {}
    problems: list[str] = []
    left = PAGE_BYTES
    with progress("drawing cases", len(suspects)) as advance:
        for suspect in suspects:
            entry = vars(suspect) | {
                "slices": (),
                "predicted": False,
                "position_text": shape_text(suspect.position, " "),
            }
            shown.append(entry)
            advance(1, note=suspect.case)
            prediction = run.predictions.get(suspect.case)
            if prediction is None:
                problems.append(f"{suspect.case}: its fold has no prediction of it in validation/: the label is alone.")
            try:
                volume = read_volume(suspect.case, cases, prediction, run.raw, run.labels, suspect.position)
            except MvlError as error:
                problems.append(str(error))
                continue
            entry["slices"] = slices_at(volume, choose_place(volume), mark=bool(suspect.position))
            entry["predicted"] = volume.prediction is not None
            volume, text = encode_within(volume, CASE_BYTES)
            if len(text) <= left:
                volumes[suspect.case] = viewer_json(suspect.case, volume, text, run.labels)
            left -= len(text)
    context = {
        "title": run.raw.id,
        "run": run.name,
        "count": run.count,
        "suspicions": shown,
        "labels": list(run.labels.class_names),
        "problem_lines": problems,
        "volumes": volumes,
        "truth_word": "given label",
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "version": __version__,
    }
    return write_page(path, "audit.html", context)
