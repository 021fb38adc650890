"""A dataset on disk: dataset.json and its files, in any of three layouts, as one `Dataset`.

    MSD          Task04_Hippocampus/      imagesTr/case.nii.gz       labelsTr/case.nii.gz, "training": [...]
    nnU-Net v1   Task004_Hippocampus/     imagesTr/case_0000.nii.gz  labelsTr/case.nii.gz, "training": [...]
    nnU-Net v2   Dataset004_Hippocampus/  imagesTr/case_0000.nii.gz  labelsTr/case.nii.gz, "channel_names"

They are read as they are and never changed; one dataset in any layout gives the same `Dataset`. A
channel is a file of its own, or all channels are in one file (4D NIfTI, RGB picture). An image may
be a folder of DICOM slices.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvl_auto.cases import Case, channel_files, files_behind, find_cases, join_channels, series_below
from mvl_auto.errors import MvlError, all_noted, noting
from mvl_auto.files import Hashes, entries, is_there, read_json, reading, sha256_of_file
from mvl_auto.images import Volume, check_finite, check_same_geometry, file_ending, read_image, read_label, stem
from mvl_auto.labels import read_scheme, to_classes, to_values
from mvl_auto.paths import dataset_id
from mvl_auto.plans import Channel, LabelScheme

__all__ = [
    "Case",
    "Dataset",
    "find_cases",
    "hash_files",
    "inspect_dataset",
    "load_case",
    "read_dataset",
    "to_classes",
    "to_values",
]

DICOM_PREDICTION_ENDING = ".nii.gz"  # DICOM images have no ending; their segmentations are written as this
GROUPS_FILE = "groups.csv"
OF_THE_WHOLE = ("dataset.json", GROUPS_FILE)  # what is wrong with them is wrong with no single case
DESCRIBE = "See docs/dataset.md for an example."
LISTED = 5  # names in a message

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """What the stages know of a raw dataset: no voxels are read for it."""

    id: str  # Dataset004_Hippocampus
    folder: Path
    channels: tuple[Channel, ...]
    labels: LabelScheme
    file_ending: str  # of the images, with the dot
    cases: tuple[Case, ...]  # by name
    groups: dict[str, str]  # case -> patient, for the cases that groups.csv lists
    unlisted: int = 0  # whole cases in the folders that dataset.json, listing others, leaves out


def read_dataset(folder: Path, problems: list[MvlError] | None = None) -> Dataset:
    """Read dataset.json and find the files of every training case.

    problems: takes up what is wrong with single cases, which are then left out, as long as any is left.
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
        log.warning("%s: %d cases are not listed under training and not used", description, dataset.unlisted)
    return dataset


def inspect_dataset(folder: Path) -> tuple[Dataset, tuple[MvlError, ...]]:
    """As `read_dataset`, but with the cases that are whole and all that is wrong with the others; cases may be none.

    Raises MvlError when dataset.json is missing, is no JSON or lacks something.
    """
    folder = Path(folder).absolute()
    description = folder / "dataset.json"
    content = read_json(description, remedy=DESCRIBE)
    if not isinstance(content, dict):
        raise MvlError("is a list, not an object with channels and labels", file=description, remedy=DESCRIBE)
    channels = _channels(content, description)
    labels = read_scheme(content, description)
    problems: list[MvlError] = []
    found = sorted(_find_training_cases(folder, content, len(channels), problems), key=lambda case: case.name)
    unlisted = _left_over(folder, found, problems) if _lists_cases(content) else 0
    cases = _whole_cases(found, len(channels), folder, problems)
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
        unlisted=unlisted,
    )
    return dataset, tuple(problems)


def load_case(
    case: Case, labels: LabelScheme, num_channels: int | None = None, hashes: Hashes | None = None
) -> tuple[Volume, NDArray[np.int16] | None]:
    """Read a case and check all that can be wrong with it.

    Returns the image and its classes (Z, Y, X), or None for a case without a label. hashes: takes up the sha256 of
    the files whose bytes were in hand, for `hash_files`.
    Raises MvlError when a file cannot be read, the image holds NaN or infinity, has another number of
    channels than `num_channels`, or the label's size, place or values do not fit; its `others` are what else is wrong.
    """
    volume = label = classes = None
    problems: list[MvlError] = []
    with noting(problems):
        volume = read_image(case.images, hashes)
        with noting(problems):
            _check_channels(volume, num_channels, case.images[0])
        check_finite(volume, case.images)
    if case.label is not None:
        with noting(problems):
            label, geometry = read_label(case.label, hashes)
            if volume is not None:
                with noting(problems):
                    check_same_geometry(volume.geometry, geometry, case.images[0], case.label)
            classes = to_classes(label, labels, case.label)
    if problems:
        raise all_noted(problems)
    assert volume is not None
    return volume, classes


def hash_files(case: Case, hashes: Hashes | None = None) -> str:
    """sha256 over the bytes of all files of a case, in a fixed order, whatever their names.

    hashes: of files that need not be read again. Raises MvlError naming a file that cannot be read.
    """
    known = hashes or {}
    digest = hashlib.sha256()
    for path in (*case.images, case.label):
        for file in [] if path is None else files_behind(path):
            with reading(file):
                digest.update(bytes.fromhex(known.get(file) or sha256_of_file(file)))
    return digest.hexdigest()


def _check_channels(volume: Volume, expected: int | None, file: Path) -> None:
    if expected is not None and volume.num_channels != expected:
        raise MvlError(
            f"has {volume.num_channels} channel{'s' * (volume.num_channels != 1)}, expected {expected}",
            file=file,
            remedy="Give every case the channels that dataset.json names.",
        )


# ------------------------------------------------------------------------------- dataset.json


def _channels(content: dict[str, Any], description: Path) -> tuple[Channel, ...]:
    """`channel_names` of nnU-Net v2, or `modality` of MSD and v1: {"0": "MRI"}."""
    names = content.get("channel_names", content.get("modality"))
    if not isinstance(names, dict) or sorted(names) != sorted(map(str, range(len(names)))) or not names:
        raise MvlError(
            "names no channels",
            file=description,
            remedy='Add "channel_names": {"0": "CT"}, numbered from 0. See docs/dataset.md.',
        )
    return tuple(Channel(name=str(names[str(n)])) for n in range(len(names)))


def _find_training_cases(
    folder: Path, content: dict[str, Any], num_channels: int, problems: list[MvlError]
) -> list[Case]:
    """Cases whose files may still be missing; what is wrong with others goes to `problems`."""
    if isinstance(content.get("dataset"), dict):
        return _explicit_cases(folder, content["dataset"], problems)
    if _lists_cases(content):
        return _listed_cases(folder, content["training"], problems)
    return _cases_in_folders(folder, num_channels, problems)


def _lists_cases(content: dict[str, Any]) -> bool:
    """Whether the cases are those of MSD's and nnU-Net v1's "training"."""
    explicit = isinstance(content.get("dataset"), dict)
    return isinstance(content.get("training"), list) and "file_ending" not in content and not explicit


def _explicit_cases(folder: Path, entries: dict[str, Any], problems: list[MvlError]) -> list[Case]:
    """nnU-Net v2's "dataset": {"case": {"images": [paths], "label": path}}."""
    cases = []
    for name, entry in entries.items():
        images: Any = entry.get("images") if isinstance(entry, dict) else None
        label: Any = entry.get("label") if isinstance(entry, dict) else None
        if not _are_names(images) or not _are_names([label]):
            problems.append(MvlError(f"the case '{name}' has no images or no label", file=folder / "dataset.json"))
            continue
        cases.append(Case(name, tuple(folder / path for path in images), folder / label))
    return cases


def _are_names(files: Any) -> bool:
    return isinstance(files, list) and bool(files) and all(isinstance(file, str) and file for file in files)


def _listed_cases(folder: Path, entries: list[Any], problems: list[MvlError]) -> list[Case]:
    """MSD's and nnU-Net v1's "training": [{"image": path, "label": path}]."""
    cases = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not entry.get("label"):
            what = f"has a training entry without image or label: {entry}"
            problems.append(MvlError(what, file=folder / "dataset.json"))
            continue
        image, label = folder / entry["image"], folder / str(entry["label"])
        name = stem(label) if join_channels(image) == stem(label) else stem(image)
        cases.append(Case(name, _listed_images(image), label))
    return cases


def _listed_images(image: Path) -> tuple[Path, ...]:
    """The listed image, or the channel files case_0000, case_0001, ... that nnU-Net v1 means by it."""
    if is_there(image):
        return (image,)
    return channel_files(image.parent, stem(image), file_ending(image)) or (image,)


def _left_over(folder: Path, cases: list[Case], problems: list[MvlError]) -> int:
    """What lies in imagesTr and labelsTr unlisted: half a case is a problem; whole ones are counted."""
    listed = {path.absolute() for case in cases for path in (*case.images, case.label) if path is not None}
    named = {stem(path) for path in _image_files(folder / "labelsTr")}
    images, labels = (
        {
            stem(path) if stem(path) in named else join_channels(path): path
            for path in _image_files(folder / part)
            if path.absolute() not in listed
        }
        for part in ("imagesTr", "labelsTr")
    )
    problems += [_no_label(images[name]) for name in sorted(images.keys() - labels.keys())]
    problems += [_no_image(labels[name]) for name in sorted(labels.keys() - images.keys())]
    return len(images.keys() & labels.keys())


def _no_label(image: Path, where: str = "") -> MvlError:
    return MvlError(f"is an image without its label{where}", file=image, remedy="Add its label or remove it.")


def _no_image(label: Path, images: Path | None = None) -> MvlError:
    """images: the folder to look in for a DICOM series that is one folder too deep."""
    what = "is a label without its image"
    if images is not None and (deep := series_below(images, stem(label))):
        return MvlError(f"{what}: the DICOM slices are in {deep}", file=label, remedy=f"Move them to {deep.parent}.")
    return MvlError(what, file=label, remedy="Add its image or remove it.")


def _cases_in_folders(folder: Path, num_channels: int, problems: list[MvlError]) -> list[Case]:
    """nnU-Net v2: what lies in imagesTr and labelsTr."""
    try:
        images = {case.name: case for case in find_cases(folder / "imagesTr", num_channels, problems=problems)}
    except MvlError as error:  # of the whole folder: it says nothing about single labels
        problems.append(error)
        return []
    incomplete = {stem(problem.file) for problem in problems if problem.file is not None}
    labels = {stem(path): path for path in _image_files(folder / "labelsTr")}
    for name in sorted(images.keys() - labels.keys()):
        file = images[name].images[0]
        if join_channels(file) in labels:
            what = f"is one channel more than the {num_channels} of dataset.json"
            problems.append(MvlError(what, file=file, remedy="Remove it."))
        else:
            problems.append(_no_label(file, where=f" (labelsTr has no '{name}')"))
    for name in sorted(labels.keys() - images.keys() - incomplete):
        problems.append(_no_image(labels[name], folder / "imagesTr"))
    return [Case(name, images[name].images, labels[name]) for name in images if name in labels]


def _whole_cases(cases: list[Case], num_channels: int, folder: Path, problems: list[MvlError]) -> tuple[Case, ...]:
    """Those of the cases, by name, that have a name of their own and all their files."""
    description = folder / "dataset.json"
    if not cases and not problems:
        problems.append(MvlError("has no training case", file=description, remedy=DESCRIBE))
    whole = []
    for name, namesakes in itertools.groupby(cases, key=lambda case: case.name):
        case, *others = namesakes
        with noting(problems):
            if others:
                raise MvlError(f"has two cases called '{name}'", file=description, remedy="Rename or remove one.")
            _check_files(case, num_channels, description)
            whole.append(case)
    return tuple(whole)


def _check_files(case: Case, num_channels: int, description: Path) -> None:
    for path in (*case.images, case.label):
        if path is not None and not is_there(path):
            raise MvlError(
                f"is missing; it belongs to the training case '{case.name}'",
                file=path,
                remedy=f"Add it, or take the case out of {description}.",
            )
    if len(case.images) not in (1, num_channels):
        raise MvlError(
            f"has {len(case.images)} channel files, dataset.json names {num_channels} channels",
            file=case.images[0],
            remedy="Add or remove channel files.",
        )


def _image_files(folder: Path) -> Iterable[Path]:
    """Image files, without the hidden ones that archives from macOS carry (`._case.nii.gz`)."""
    if not folder.is_dir():
        return []
    return [path for path in entries(folder) if file_ending(path) and not path.name.startswith(".")]


def _read_groups(path: Path, names: set[str]) -> dict[str, str]:
    """groups.csv: columns case, group (the patient). Cases that it does not list are groups of their own."""
    if not is_there(path):
        return {}
    remedy = "Write a header line 'case,group' and one line a case."
    try:
        with reading(path), open(path, newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise MvlError(f"is not a CSV file ({error})", file=path, remedy=remedy) from error
    if any(not row.get("case") or not row.get("group") for row in rows):
        raise MvlError("has a line without case or group", file=path, remedy=remedy)
    groups: dict[str, str] = {}
    for row in rows:
        case, group = row["case"].strip(), row["group"].strip()
        if groups.setdefault(case, group) != group:
            what = f"gives the case '{case}' to two patients, '{groups[case]}' and '{group}'"
            raise MvlError(what, file=path, remedy="Remove one of the lines.")
    unknown = sorted(groups.keys() - names)
    if unknown:
        more = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
        raise MvlError(
            f"names cases that the dataset does not have: {', '.join(unknown[:LISTED])}{more}",
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
