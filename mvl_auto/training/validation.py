"""Validation at the end of a fold: whole cases, sliding window, native space, scored like anyone's.

<fold>/validation/<case><ending>   the predictions, in the files' own values and geometry
<fold>/summary.json                the metrics per case and label, and their means
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.arrays import Classes
from mvl_auto.datasets import Case, Dataset, load_case, to_classes, to_values
from mvl_auto.errors import MvlError
from mvl_auto.files import write_json
from mvl_auto.images import read_label, write_label
from mvl_auto.plans import PLAN_AGAIN
from mvl_auto.progress import Progress
from mvl_auto.runs import SUMMARY, VALIDATION

if TYPE_CHECKING:
    import torch

    from mvl_auto.evaluation import Summary
    from mvl_auto.runs import Trained
    from mvl_auto.training.first_stage import FirstStage


def validate(
    trained: Trained,
    raw: Dataset,
    names: Sequence[str],
    folder: Path,
    device: torch.device,
    progress: Progress,
    first: FirstStage | None = None,
    mirror: bool = True,
) -> Summary:
    """Predict and score the cases called `names`; those that were predicted before are only scored.

    first: of a cascade's second stage. It gives what the one of its networks found that has not seen the case: all of
    them together, as they segment a new image, would flatter the score. mirror: average over mirrored versions.
    Raises MvlError when a case is not in the raw dataset any more.
    """
    from mvl_auto.evaluation import score_case, summarise
    from mvl_auto.evaluation.summary import as_json

    pairs = predictions(trained, raw, names, folder, device, progress, first, mirror)
    summary = summarise({name: score_case(given, found, trained.labels) for name, given, found in pairs})
    write_json(folder / SUMMARY, as_json(summary, {"steps": trained.state.step}))
    return summary


def predictions(
    trained: Trained,
    raw: Dataset,
    names: Sequence[str],
    folder: Path,
    device: torch.device,
    progress: Progress,
    first: FirstStage | None = None,
    mirror: bool = True,
) -> Iterator[tuple[str, Classes, Classes]]:
    """Each case: its name, the classes that its label gives and those that are predicted, both (z, y, x).

    The words are those of `validate`.
    """
    from mvl_auto.inference import predict_case

    cases = {case.name: case for case in raw.cases}
    network = trained.network.to(device)
    with progress("validating", len(names)) as advance:
        for name in names:
            volume, classes = load_case(case_named(name, cases, raw), trained.labels, len(raw.channels))
            assert classes is not None, "training cases have labels"
            path = folder / VALIDATION / f"{name}{raw.file_ending}"
            if path.is_file():
                predicted = to_classes(read_label(path)[0], trained.labels, path)
            else:
                previous = None if first is None else first.classes(name)
                predicted = predict_case(
                    [network],
                    trained.plan,
                    trained.configuration,
                    volume,
                    previous=previous,
                    device=device,
                    mirror=mirror,
                )
                write_label(path, to_values(predicted, trained.labels), volume.geometry, trained.labels.class_values)
            yield name, classes, predicted
            advance(1, note=name)


def case_named(name: str, cases: dict[str, Case], raw: Dataset) -> Case:
    if name not in cases:
        raise MvlError(
            f"the case {name} of the splits is not in the dataset any more",
            file=raw.folder,
            remedy=PLAN_AGAIN,
        )
    return cases[name]


def validation_figures(summary: Summary) -> dict[str, float]:
    """ "validation/dice/anterior" and so on: the mean of each metric over the cases, by label, where it is defined."""
    means = summary.per_label().xs("mean", axis=1, level=1)
    return {
        f"validation/{metric}/{label}": float(value)
        for metric in means.columns
        for label, value in means[metric].items()
        if not math.isnan(value)
    }
