"""Where the files of each training case lie: the layouts of the Decathlon and nnU-Net, lists, a folder per case."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvl_auto.datasets.case_folders import (
    Pattern,
    files_by_pattern,
    find_pattern,
    is_dicom_file,
    names_by_pattern,
    pattern_for_json,
    read_pattern,
)
from mvl_auto.datasets.cases import Case, channel_files, check_link, find_cases, join_channels
from mvl_auto.errors import MvlError, noting
from mvl_auto.files import entries, is_there
from mvl_auto.images import composed, file_ending, stem
from mvl_auto.names import checked_name
from mvl_auto.paths import guide
from mvl_auto.printable import shown
from mvl_auto.text import count_text

MOST_DIGITS = 9  # of a fold that is written as text

log = logging.getLogger(__name__)
DESCRIBE = f"See {guide('dataset.md')} for an example."


def find_training_cases(
    folder: Path, content: dict[str, Any], channels: Sequence[str], problems: list[MvlError]
) -> list[Case]:
    """Cases whose files may still be missing; errors of other cases go to `problems`. channels: their names."""
    if isinstance(content.get("dataset"), dict):
        return _explicit_cases(folder, content["dataset"], problems)
    if pattern := read_pattern(content, folder / "dataset.json"):
        return _cases_by_pattern(folder, pattern)
    if lists_cases(content):
        return [case for case, _ in _listed_cases(folder, content["training"], problems)]
    if not is_there(folder / "imagesTr"):
        return _cases_in_case_folders(folder, channels, problems)
    return _cases_in_folders(folder, channels, problems)


def _cases_in_case_folders(folder: Path, channels: Sequence[str], problems: list[MvlError]) -> list[Case]:
    """A folder for each case, where no pattern is given; the message proposes one where there is a doubt."""
    proposed, certain = find_pattern(folder, channels)
    if certain is not None:
        return _cases_by_pattern(folder, certain)
    if proposed is None:
        return _cases_in_folders(folder, channels, problems)
    what = "does not say which files of its case folders are channels and which is the label"
    remedy = f"Add {pattern_for_json(proposed)} with the images in the order of the channels ({', '.join(channels)})."
    problems.append(MvlError(what, file=folder / "dataset.json", remedy=remedy))
    return []


def _cases_by_pattern(folder: Path, pattern: Pattern) -> list[Case]:
    """Other files than the one that gave a case its name may be missing."""
    cases = []
    for name in names_by_pattern(folder, *pattern.images, pattern.label):
        *images, label = files_by_pattern(folder, *pattern.images, pattern.label, name=name)
        cases.append(Case(composed(name), tuple(images), label))
    return cases


def find_folds(folder: Path, content: dict[str, Any]) -> dict[str, int]:
    """Case -> the fold that validates on it, of MONAI's "training": [{"image", "label", "fold"}]; empty for none.

    A fold may be written as text or with a decimal point. Folds that not all cases have, that are no whole numbers, or
    a single one, are not used, with a warning.
    """
    if not lists_cases(content) or read_pattern(content, folder / "dataset.json"):
        return {}
    listed = _listed_cases(folder, content["training"], [])
    given = {case.name: fold for case, fold in listed if fold is not None}
    folds = {name: number for name, fold in given.items() if (number := _fold_number(fold)) is not None}
    if not given:
        return {}
    why = ""
    if len(given) < len(listed):
        why = f"{len(given)} of {len(listed)} cases have one"
    elif len(folds) < len(given):
        why = f"{shown(next(fold for name, fold in given.items() if name not in folds))} is no whole number"
    elif len(set(folds.values())) < 2:
        why = "all cases are in one"
    if why:
        log.warning("%s: its folds are not used: %s", folder / "dataset.json", why)
        return {}
    return folds


def _fold_number(fold: Any) -> int | None:
    """A number from 0 on; None for anything else."""
    if isinstance(fold, float) and fold.is_integer():
        fold = int(fold)
    if isinstance(fold, str) and fold.isdecimal() and len(fold) <= MOST_DIGITS:
        fold = int(fold)
    return fold if isinstance(fold, int) and not isinstance(fold, bool) else None


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
        cases.append(Case(composed(name), tuple(folder / path for path in images), folder / label))
    return cases


def _are_names(files: Any) -> bool:
    return isinstance(files, list) and bool(files) and all(isinstance(file, str) and file for file in files)


def _listed_cases(folder: Path, entries: list[Any], problems: list[MvlError]) -> list[tuple[Case, Any]]:
    """MSD's, nnU-Net v1's and MONAI's "training": [{"image": path or paths, "label": path}], and the "fold" of each."""
    found = []
    for entry in entries:
        images: Any = entry.get("image") if isinstance(entry, dict) else None
        label: Any = entry.get("label") if isinstance(entry, dict) else None
        images = [images] if isinstance(images, str) else images
        label = label[0] if isinstance(label, list) and len(label) == 1 else label
        if not _are_names(images) or not _are_names([label]):
            what = f"has a training entry without image or label: {entry}"
            problems.append(MvlError(what, file=folder / "dataset.json"))
            continue
        paths, label = tuple(_listed_path(folder, image) for image in images), _listed_path(folder, label)
        channels = paths if len(paths) > 1 else _listed_images(paths[0])
        found.append((Case(_listed_name(paths, label), channels, label), entry.get("fold")))
    return _named_by_folder(found)


def _listed_name(images: tuple[Path, ...], label: Path) -> str:
    image = join_channels(images[0]) if len(images) > 1 else stem(images[0])
    return stem(label) if join_channels(images[0]) == stem(label) else image


def _named_by_folder(found: list[tuple[Case, Any]]) -> list[tuple[Case, Any]]:
    """Cases whose files have the same names in folders of their own (case_00000/imaging.nii.gz) are named by these."""
    names = {case.name for case, _ in found}
    parents = {composed(case.images[0].parent.name) for case, _ in found}
    has_own_names = len(found[0][0].images) == 1 if found else True
    if len(parents) < len(found) or len(found) < 2 or (len(names) == len(found) and has_own_names):
        return found
    return [(replace(case, name=composed(case.images[0].parent.name)), fold) for case, fold in found]


def _listed_path(folder: Path, name: str) -> Path:
    """The file that a list means: also with the separators of Windows, in the other form of Unicode, in capitals."""
    path = folder / name
    if is_there(path):
        return path
    if is_there(folder / name.replace("\\", "/")):
        return folder / name.replace("\\", "/")
    path = folder / name.replace("\\", "/")
    siblings = os.listdir(path.parent) if os.path.isdir(path.parent) else []
    wanted = stem(path), file_ending(path)
    return next(
        (path.with_name(other) for other in sorted(siblings) if (stem(other), file_ending(other)) == wanted), path
    )


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


def _cases_in_folders(folder: Path, channels: Sequence[str], problems: list[MvlError]) -> list[Case]:
    """nnU-Net v2: what lies in imagesTr and labelsTr."""
    try:
        _check_no_loose_dicom(folder)
        found = find_cases(folder / "imagesTr", len(channels), problems=problems, channels=channels)
        images = {case.name: case for case in found}
    except MvlError as error:  # of the whole folder: it says nothing about single labels
        problems.append(error)
        return []
    files = [Path(problem.file) for problem in problems if problem.file is not None]
    incomplete = {name for file in files for name in (stem(file), join_channels(file))}
    labels = _labels_by_name(folder / "labelsTr", problems)
    for name in sorted(images.keys() - labels.keys()):
        file = images[name].images[0]
        if join_channels(file) in labels:
            what = f"is one channel more than the {len(channels)} of dataset.json"
            problems.append(MvlError(what, file=file, remedy="Remove it."))
        else:
            problems.append(_no_label(file, where=f" (labelsTr has no '{name}')"))
    for name in sorted(labels.keys() - images.keys() - incomplete):
        problems.append(_no_image(labels[name]))
    return [Case(name, images[name].images, labels[name]) for name in images if name in labels]


def _check_no_loose_dicom(folder: Path) -> None:
    """Raise MvlError where slices lie in imagesTr itself: which of them are of which label is not known."""
    images = folder / "imagesTr"
    if not images.is_dir() or _image_files(images):
        return
    loose = [entry for entry in entries(images) if is_dicom_file(entry)]
    if loose:
        label = next(iter(_image_files(folder / "labelsTr")), None)
        name = "CASE" if label is None else stem(label)
        what = f"holds {count_text(len(loose), 'DICOM file')} outside of a case's folder (first: {loose[0].name})"
        remedy = f"Put the slices of each case into a folder with the name of its label, such as imagesTr/{name}/."
        raise MvlError(what, file=images, remedy=remedy)


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
            checked_name(name, "case", description)
            _check_files(case, num_channels, description)
            whole.append(case)
    return tuple(whole)


def _check_files(case: Case, num_channels: int, description: Path) -> None:
    for path in (*case.images, case.label):
        if path is not None and not is_there(path):
            check_link(path)
            raise MvlError(
                f"is missing; it belongs to the training case '{case.name}'",
                file=path,
                remedy=f"Add it, or leave the case out (its entry in {description.name}, or its other files).",
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
