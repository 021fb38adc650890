"""volumes.csv: the volume of every label in every prediction, and the mean intensities of the image in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mvl_auto.datasets import Case, cases_to_predict, load_case, to_classes
from mvl_auto.errors import MvlError
from mvl_auto.files import write_text
from mvl_auto.images import read_label
from mvl_auto.inference.predictor import prediction_file
from mvl_auto.plans import Plan
from mvl_auto.progress import Progress, silent

VOLUMES = "volumes.csv"
MM3_PER_ML = 1000


def find_pairs(input: Path, output: Path, names: Sequence[str], plan: Plan) -> list[tuple[Case, Path]]:
    """The cases of these names in a folder of images, each with the file of its prediction."""
    cases = cases_to_predict(input, plan.channels, [])
    return [(case, output / prediction_file(case)) for case in cases if case.name in set(names)]


def write_volumes(pairs: Sequence[tuple[Case, Path]], folder: Path, plan: Plan, progress: Progress = silent) -> Path:
    """Write volumes.csv of cases and their predictions; returns its path.

    One row per case and label (or region): voxels, volume_ml (10^3 mm^3), and for each channel the mean of the image's
    own values, empty where the label is. Raises MvlError, naming the file, for one that cannot be read.
    """
    means = [f"mean_{channel.name}" for channel in plan.channels]
    text = io.StringIO()
    table = csv.DictWriter(text, ["case", "label", "voxels", "volume_ml", *means], lineterminator="\n")
    table.writeheader()
    with progress("measuring volumes", len(pairs)) as advance:
        for case, prediction in pairs:
            table.writerows(measure_case(case, prediction, plan))
            advance(1, note=case.name)
    write_text(folder / VOLUMES, text.getvalue())
    return folder / VOLUMES


def measure_case(case: Case, prediction: Path, plan: Plan) -> Iterator[dict[str, Any]]:
    """The rows of one case. Raises MvlError when image and prediction differ in shape."""
    volume, _ = load_case(replace(case, label=None), plan.labels, len(plan.channels))
    classes = to_classes(read_label(prediction)[0], plan.labels, prediction)
    if classes.shape != volume.array.shape[1:]:
        raise MvlError("has another shape than its image", file=prediction, remedy="Predict it again with --overwrite.")
    for name, members in zip(plan.labels.foreground_names, plan.labels.foreground_classes, strict=True):
        inside = np.isin(classes, members)
        voxels = int(inside.sum())
        row: dict[str, Any] = {"case": case.name, "label": name, "voxels": voxels}
        row["volume_ml"] = f"{voxels * np.prod(volume.spacing) / MM3_PER_ML:.6g}"
        for channel, array in zip(plan.channels, volume.array, strict=True):
            row[f"mean_{channel.name}"] = f"{array[inside].mean(dtype=np.float64):.6g}" if voxels else ""
        yield row
