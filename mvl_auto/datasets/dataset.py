"""A dataset on disk: dataset.json and its files, in any layout, as one `Dataset`.

    MSD          Task04_Hippocampus/      imagesTr/case.nii.gz       labelsTr/case.nii.gz, "training": [...]
    nnU-Net v1   Task004_Hippocampus/     imagesTr/case_0000.nii.gz  labelsTr/case.nii.gz, "training": [...]
    nnU-Net v2   Dataset004_Hippocampus/  imagesTr/case_0000.nii.gz  labelsTr/case.nii.gz, "channel_names"

They are read as they are and never changed; one dataset in any layout gives the same `Dataset`. A channel is a file of
its own, or all channels are in one file (4D NIfTI, RGB picture). An image may be a folder of DICOM slices. Lists of
files are in layouts.py, folders for each case (KiTS, BraTS) in case_folders.py.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from mvl_auto.datasets.cases import Case
from mvl_auto.datasets.labels import read_scheme
from mvl_auto.datasets.layouts import (
    DESCRIBE,
    complete_cases,
    count_unlisted,
    find_folds,
    find_training_cases,
    lists_cases,
)
from mvl_auto.datasets.template import propose_description
from mvl_auto.errors import MvlError, all_noted, noting
from mvl_auto.files import is_there, read_json, reading
from mvl_auto.images import composed, file_ending
from mvl_auto.paths import dataset_id, guide
from mvl_auto.plans import MOST_CHANNELS, Channel, LabelScheme, build
from mvl_auto.text import count_text, list_text

DICOM_PREDICTION_ENDING = ".nii.gz"  # DICOM images have no ending; their segmentations are written as this
GROUPS_FILE = "groups.csv"
OF_THE_WHOLE = ("dataset.json", GROUPS_FILE)  # their faults belong to no single case
NEEDED = {"channel_names": ("channel_names", "modality"), "labels": ("labels",)}  # keys of dataset.json
EXAMPLE = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "tumour": 1}, "file_ending": ".nii.gz"}
LISTED = 5  # names in a message
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """A raw dataset: its description and the files of its cases. No voxels are read for it."""

    id: str  # Dataset004_Hippocampus
    folder: Path
    channels: tuple[Channel, ...]
    labels: LabelScheme
    file_ending: str  # of the images, with the dot
    cases: tuple[Case, ...]  # by name
    groups: dict[str, str]  # case -> patient, for the cases that groups.csv lists
    folds: dict[str, int] = field(default_factory=dict)  # case -> the fold that validates on it; empty: not given
    unlisted: int = 0  # whole cases in the folders that dataset.json, listing others, leaves out


def paths_read(dataset: Dataset) -> list[Path]:
    """dataset.json, groups.csv, and the images and labels of the cases as it names them: files or folders."""
    listed = [path for case in dataset.cases for path in (*case.images, case.label) if path is not None]
    return [*(dataset.folder / name for name in OF_THE_WHOLE), *listed]


def read_dataset(folder: Path, problems: list[MvlError] | None = None) -> Dataset:
    """Read dataset.json and find the files of every training case.

    problems: receives the errors of single cases, which are then left out, as long as one case is left.
    Raises MvlError when dataset.json is missing, is no JSON or lacks something; when a listed file is
    missing; when an image has no label or a label no image; when cases differ in the number of
    channel files; when groups.csv names unknown cases.
    """
    dataset, found = inspect_dataset(folder)
    of_cases = [problem for problem in found if problem.file not in {dataset.folder / name for name in OF_THE_WHOLE}]
    raised = list(found)
    if problems is not None and dataset.cases:
        problems += of_cases
        raised = [problem for problem in found if problem not in of_cases]
    if raised:
        raise all_noted(raised)
    if dataset.unlisted:
        description = dataset.folder / "dataset.json"
        log.warning("%s: not listed under training and not used: %s", description, count_text(dataset.unlisted, "case"))
    return dataset


def inspect_dataset(folder: Path) -> tuple[Dataset, tuple[MvlError, ...]]:
    """As `read_dataset`, but gives the complete cases (maybe none) and the errors of all others.

    Raises MvlError when dataset.json is missing, is no JSON or lacks something.
    """
    folder = Path(folder).absolute()
    description = folder / "dataset.json"
    if not is_there(description):
        raise MvlError("is missing", file=description, remedy=_proposal(folder))
    content = read_json(description, remedy=DESCRIBE)
    if not isinstance(content, dict):
        raise MvlError("is a list, not an object with channels and labels", file=description, remedy=DESCRIBE)
    if lacking := [key for key, keys in NEEDED.items() if not any(content.get(name) for name in keys)]:
        what = " and ".join(f"no {key.replace('_names', 's')}" for key in lacking)
        raise MvlError(f"has {what}", file=description, remedy=_proposal(folder, lacking))
    channels = _channels(content, description)
    labels = read_scheme(content, description)
    problems: list[MvlError] = []
    found = sorted(
        find_training_cases(folder, content, [each.name for each in channels], problems), key=attrgetter("name")
    )
    unlisted = count_unlisted(folder, found, problems) if lists_cases(content) else 0
    cases = complete_cases(found, len(channels), folder, problems)
    groups: dict[str, str] = {}
    with noting(problems):
        groups = _read_groups(folder / GROUPS_FILE, {case.name for case in found})
    dataset = Dataset(
        id=dataset_id(folder),
        folder=folder,
        channels=channels,
        labels=labels,
        file_ending=(file_ending(cases[0].images[0]) if cases else "") or DICOM_PREDICTION_ENDING,
        cases=cases,
        groups=groups,
        folds=find_folds(folder, content),
        unlisted=unlisted,
    )
    return dataset, tuple(problems)


def _proposal(folder: Path, keys: Sequence[str] = ()) -> str:
    """What to write into dataset.json, filled in from the files that lie there. keys: only these."""
    proposed = propose_description(folder) or EXAMPLE
    proposed = {key: value for key, value in proposed.items() if not keys or key in keys}
    where = "Add" if keys else "Write"
    return (
        f"{where} this, with names of your own: {json.dumps(proposed, ensure_ascii=False)} See {guide('dataset.md')}."
    )


def _channels(content: dict[str, Any], description: Path) -> tuple[Channel, ...]:
    """`channel_names` of nnU-Net v2, or `modality` of MSD and v1: {"0": "MRI"}."""
    names = content.get("channel_names", content.get("modality"))
    if isinstance(names, list):
        names = {str(n): name for n, name in enumerate(names)}
    if not isinstance(names, dict) or sorted(names) != sorted(map(str, range(len(names)))) or not names:
        raise MvlError(
            "names no channels",
            file=description,
            remedy=f'Add "channel_names": {{"0": "CT"}}, numbered from 0. See {guide("dataset.md")}.',
        )
    if len(names) > MOST_CHANNELS:
        raise MvlError(f"names {len(names)} channels, at most {MOST_CHANNELS} are possible", file=description)
    return tuple(build(Channel, description, name=str(names[str(n)])) for n in range(len(names)))


def _read_groups(path: Path, names: set[str]) -> dict[str, str]:
    """groups.csv: columns case, group (the patient). Cases that it does not list are groups of their own."""
    if not is_there(path):
        return {}
    remedy = "Write a header line 'case,group' and one line a case."
    try:
        with reading(path), open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            columns, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise MvlError(f"is not a CSV file ({error})", file=path, remedy=remedy) from error
    if not {"case", "group"} <= set(columns):
        raise MvlError("has no columns 'case' and 'group'", file=path, remedy=remedy)
    if any(not row.get("case") or not row.get("group") for row in rows):
        raise MvlError("has a line without case or group", file=path, remedy=remedy)
    groups: dict[str, str] = {}
    for row in rows:
        case, group = composed(row["case"].strip()), composed(row["group"].strip())
        if groups.setdefault(case, group) != group:
            what = f"gives the case '{case}' to two patients, '{groups[case]}' and '{group}'"
            raise MvlError(what, file=path, remedy="Remove one of the lines.")
    unknown = sorted(groups.keys() - names)
    if unknown:
        raise MvlError(
            f"names cases that the dataset does not have: {list_text(unknown, LISTED)}",
            file=path,
            remedy="Remove these lines or correct the names.",
        )
    # a case that is not listed is a patient of its own, by its own name
    if namesakes := sorted((names - groups.keys()) & set(groups.values())):
        raise MvlError(
            f"has a patient '{namesakes[0]}', and there is a case of this name that it does not list",
            file=path,
            remedy="List the case too, with its patient.",
        )
    return groups
