"""Where the files of each training case lie, in the three layouts of the Decathlon and of nnU-Net."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mvl_auto.datasets.cases import Case, channel_files, find_cases, join_channels
from mvl_auto.errors import MvlError, noting
from mvl_auto.files import entries, is_there
from mvl_auto.images import file_ending, stem

DESCRIBE = "See docs/dataset.md for an example."


def find_training_cases(
    folder: Path, content: dict[str, Any], num_channels: int, problems: list[MvlError]
) -> list[Case]:
    """Cases whose files may still be missing; what is wrong with others goes to `problems`."""
    if isinstance(content.get("dataset"), dict):
        return _explicit_cases(folder, content["dataset"], problems)
    if lists_cases(content):
        return _listed_cases(folder, content["training"], problems)
    return _cases_in_folders(folder, num_channels, problems)


def lists_cases(content: dict[str, Any]) -> bool:
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


def count_unlisted(folder: Path, cases: list[Case], problems: list[MvlError]) -> int:
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


def _no_image(label: Path) -> MvlError:
    return MvlError("is a label without its image", file=label, remedy="Add its image or remove it.")


def _cases_in_folders(folder: Path, num_channels: int, problems: list[MvlError]) -> list[Case]:
    """nnU-Net v2: what lies in imagesTr and labelsTr."""
    try:
        images = {case.name: case for case in find_cases(folder / "imagesTr", num_channels, problems=problems)}
    except MvlError as error:  # of the whole folder: it says nothing about single labels
        problems.append(error)
        return []
    incomplete = {stem(problem.file) for problem in problems if problem.file is not None}
    labels = _labels_by_name(folder / "labelsTr", problems)
    for name in sorted(images.keys() - labels.keys()):
        file = images[name].images[0]
        if join_channels(file) in labels:
            what = f"is one channel more than the {num_channels} of dataset.json"
            problems.append(MvlError(what, file=file, remedy="Remove it."))
        else:
            problems.append(_no_label(file, where=f" (labelsTr has no '{name}')"))
    for name in sorted(labels.keys() - images.keys() - incomplete):
        problems.append(_no_image(labels[name]))
    return [Case(name, images[name].images, labels[name]) for name in images if name in labels]


def _labels_by_name(folder: Path, problems: list[MvlError]) -> dict[str, Path]:
    """The first of each name; a second one is a problem."""
    labels: dict[str, Path] = {}
    for path in _image_files(folder):
        name = stem(path)
        if name in labels:
            what = f"{labels[name].name} and {path.name} are both labels of the case '{name}'"
            problems.append(MvlError(what, file=folder, remedy="Remove one of them."))
        labels.setdefault(name, path)
    return labels


def complete_cases(cases: list[Case], num_channels: int, folder: Path, problems: list[MvlError]) -> tuple[Case, ...]:
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
