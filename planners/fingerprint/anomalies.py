"""Problems and anomalies of a dataset as a whole, whose cases are fine one by one."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mvl_auto.datasets import Case, Dataset
from mvl_auto.errors import MvlError
from mvl_auto.planners.fingerprint.case import name_in
from mvl_auto.plans import Anomaly, CaseFingerprint
from mvl_auto.text import list_text

NAMED = 5  # files that a message names
THE_WHOLE = "the dataset"  # in place of a file


def left_out(problems: Iterable[MvlError], folder: Path) -> tuple[Anomaly, ...]:
    """The problems of the cases that cannot be used, as the fingerprint lists them."""
    return tuple(anomaly_of(each, folder) for problem in problems for each in (problem, *problem.others))


def anomaly_of(problem: MvlError, folder: Path) -> Anomaly:
    """A problem with a file of the dataset in `folder`; paths are relative to it, in the text too."""
    what, remedy = (" ".join(text.replace(f"{folder}{os.sep}", "").split()) for text in (problem.what, problem.remedy))
    place = folder if problem.file is None else Path(problem.file)
    return Anomaly(file=THE_WHOLE if place == folder else name_in(folder, place), what=what, remedy=remedy)


def problems_between(dataset: Dataset, cases: Sequence[CaseFingerprint]) -> Iterator[MvlError]:
    """Why cases that are fine one by one cannot be used together."""
    if not any(sum(case.class_voxels[1:]) for case in cases):
        yield MvlError(
            f"none of its {len(cases)} cases has a labelled voxel",
            file=dataset.folder,
            remedy="Check the values in labelsTr against the labels in dataset.json.",
        )
    single = [case.name for case in cases if min(case.shape) == 1]
    if single and len(single) < len(cases):
        several = next(case.name for case in cases if min(case.shape) > 1)
        yield MvlError(
            f"mixes images of one slice ({single[0]}, {len(single)} in all) and of several ({several})",
            file=dataset.folder,
            remedy="Keep 2D and 3D images in datasets of their own.",
        )


def anomalies_between(
    dataset: Dataset, cases: dict[str, Case], fingerprints: Sequence[CaseFingerprint]
) -> Iterator[Anomaly]:
    """Copies of images, and labels that occur in one case or in none."""
    images = {name: name_in(dataset.folder, case.images[0]) for name, case in cases.items()}
    copies = defaultdict(list)
    for fingerprint in fingerprints:
        copies[fingerprint.image_hash].append(fingerprint)
    for first, *others in copies.values():
        for other in others:
            label = "the same label" if other.label_hash == first.label_hash else "another label"
            yield Anomaly(
                file=images[other.name],
                what=f"is the same image as {images[first.name]}, with {label}",
                remedy="Remove one of them; until then both are kept in the same fold.",
            )
    yield from _rare_labels(dataset, images, fingerprints)


def _rare_labels(
    dataset: Dataset, images: dict[str, str], fingerprints: Sequence[CaseFingerprint]
) -> Iterator[Anomaly]:
    holders: dict[str, list[str]] = defaultdict(list)  # the only case (or none) -> labels
    for k, name in list(enumerate(dataset.labels.class_names))[1:]:
        holding = [fingerprint.name for fingerprint in fingerprints if fingerprint.class_voxels[k]]
        if not holding:
            holders[""].append(f"'{name}' ({dataset.labels.class_values[k]})")
        elif len(holding) == 1 and len(fingerprints) > 1:
            holders[holding[0]].append(f"'{name}' ({dataset.labels.class_values[k]})")
    for case, labels in sorted(holders.items()):
        listed = list_text(labels, NAMED)
        where = f"only in {images[case]}" if case else "in no case"
        yield Anomaly(
            file="dataset.json",
            what=f"label{'s' * (len(labels) > 1)} {listed} occur{'s' * (len(labels) == 1)} {where}",
            remedy="Add cases with it, or remove the label."
            if len(labels) == 1
            else "Add cases, or remove the labels.",
        )
