"""Which files of a folder make up which case.

Channels are files of one name with `_0000`, `_0001`, ... behind it (nnU-Net's convention), or all in
one file. A subfolder with DICOM slices, in it or below it, is an image; `split_volumes` makes several of one that holds
several. Everything else in the folder is left alone.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from mvl_auto.datasets.case_folders import (
    find_images,
    images_of_case,
    is_dicom_file,
    is_dicom_folder,
    split_channels,
)
from mvl_auto.errors import MvlError, noting
from mvl_auto.files import entries, is_there
from mvl_auto.images import composed, file_ending, known_formats, stem
from mvl_auto.names import checked_name

log = logging.getLogger(__name__)
SEGMENTATION_ENDING = ".seg.nrrd"
CHANNEL_NAME = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")


@dataclass(frozen=True)
class Case:
    """One image, in one file or one file per channel, and its label if there is one.

    dicom_volume: which volume of a DICOM folder that holds several, such as `echo2`.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    dicom_volume: str = ""


def find_cases(
    folder: Path,
    num_channels: int,
    what: str = "images",
    problems: list[MvlError] | None = None,
    channels: Sequence[str] | None = None,
) -> tuple[Case, ...]:
    """The cases of a folder, by name; also of one image file or one folder of DICOM slices.

    With several channels, `case_0000`, `case_0001`, ... are one case; with one channel, `_0000` is taken off a name,
    but where `case_0001` or `case` is another image of the folder. A case may have a folder of its own, with a file or
    a folder of DICOM for each channel. what: the word for messages. problems: receives the errors of single cases,
    which are then left out; without it the first error is raised. channels: their names, as many as num_channels.
    Raises MvlError when there is nothing to read, a channel is missing, or two files claim one name.
    """
    folder = Path(folder)
    there = is_there(folder)
    if folder.is_file() and file_ending(folder):
        return _case_of_file(folder, num_channels)
    if is_dicom_file(folder):
        remedy = f"Give the folder that it lies in: {folder.parent}."
        raise MvlError("is one file of DICOM, which is read by the folder", file=folder, remedy=remedy)
    if not folder.is_dir():
        what_is_wrong = "is not a known image format" if there else "does not exist"
        raise MvlError(what_is_wrong, file=folder, remedy=f"Give a folder of {what}: {known_formats()}.")
    visible = [entry for entry in entries(folder) if not entry.name.startswith(".")]
    for entry in visible:
        with nullcontext() if problems is None else noting(problems):
            check_link(entry)
    images = [entry for entry in visible if _is_image_file(entry) or is_dicom_folder(entry)]
    if any(is_dicom_file(entry) for entry in visible):
        if not any(entry.is_file() for entry in images):  # slices of its own, and those below
            return (Case(folder.absolute().name, (folder,)),)
        log.warning("%s: its DICOM files are not used, since there are images in other formats", folder)
    names = [f"channel {n}" for n in range(num_channels)] if channels is None else list(channels)
    if not images and (inside := find_images(folder, names)):  # KiTS: case_00000/imaging.nii.gz
        return _complete(inside, problems)
    if images and (ordered := images_of_case(folder, images, names)):  # the folder of one case
        return (Case(composed(folder.absolute().name), ordered),)
    if not images and problems and all(is_link_to_nothing(entry) for entry in visible):
        return ()  # each is named among the problems
    if not images:
        found = f"only {_some(visible)}" if visible else "nothing"
        raise MvlError(f"holds no {what}, {found}", file=folder, remedy=f"Put {what} there: {known_formats()}.")
    return _with_channels(_grouped(images, num_channels, folder, problems), names, problems)


def check_link(path: Path) -> None:
    """Raise MvlError for an image file that is a link to nothing, as git-annex and DVC leave them."""
    if is_link_to_nothing(path):
        what = f"is a link to {os.readlink(path)}, which is not there"
        raise MvlError(what, file=path, remedy="Fetch the file (git annex get, dvc pull), or remove the link.")


def is_link_to_nothing(path: Path) -> bool:
    """Whether a path with an image's ending is a link to a file that is not there."""
    return path.is_symlink() and bool(file_ending(path)) and not is_there(path)


def files_of(case: Case) -> list[Path]:
    """Every file of a case: slices of DICOM folders, the data of a `.mhd`, the spacing beside a TIFF, the label.

    Of a folder or header that cannot be read, only its own path is given.
    """
    files: list[Path] = []
    for path in (*case.images, case.label):
        if path is not None:
            try:
                files += files_behind(path, case.dicom_volume if path != case.label else "")
            except MvlError:  # reported when the case is read
                files.append(path)
    return files


def channel_files(folder: Path, name: str, ending: str) -> tuple[Path, ...]:
    """The files name_0000, name_0001, ... in the order of their channels; none if there are none."""
    found = (entry for entry in (os.listdir(folder) if os.path.isdir(folder) else ()) if file_ending(entry) == ending)
    channels = (entry for entry in found if (match := CHANNEL_NAME.match(stem(entry))) and match["case"] == name)
    return tuple(folder / entry for entry in sorted(channels, key=stem))


def join_channels(path: Path) -> str:
    """The case that a channel file may belong to: `case` for case_0000.nii.gz and for case.nii.gz."""
    match = CHANNEL_NAME.match(stem(path))
    return match["case"] if match else stem(path)


def _case_of_file(path: Path, num_channels: int) -> tuple[Case, ...]:
    match = CHANNEL_NAME.match(stem(path))
    if match is None or (num_channels == 1 and match["channel"] != "0000"):
        return (Case(stem(path), (path,)),)
    siblings = channel_files(path.parent, match["case"], file_ending(path)) if num_channels > 1 else (path,)
    return _grouped(list(siblings), num_channels, path.parent)


def _complete(found: list[tuple[str, tuple[Path, ...]]], problems: list[MvlError] | None) -> tuple[Case, ...]:
    """The cases, by name, all of whose files are there."""
    cases = []
    for name, images in found:
        with nullcontext() if problems is None else noting(problems):
            checked_name(name, "case", images[0].parent)
            for image in images:
                check_link(image)
                if not is_there(image):
                    raise MvlError(f"is missing; it belongs to the case '{name}'", file=image, remedy="Add it.")
            cases.append(Case(name, images))
    return tuple(cases)


def _with_channels(cases: Iterable[Case], channels: list[str], problems: list[MvlError] | None) -> tuple[Case, ...]:
    """The cases, in which a folder with a DICOM folder for each channel became these."""
    whole = []
    for case in cases:
        with nullcontext() if problems is None else noting(problems):
            if len(case.images) == 1 and case.images[0].is_dir():
                case = replace(case, images=split_channels(case.images[0], channels))
            whole.append(case)
    return tuple(whole)


def _grouped(
    images: list[Path], num_channels: int, folder: Path, problems: list[MvlError] | None = None
) -> tuple[Case, ...]:
    stems = {stem(path) for path in images}
    numbered = Counter(join_channels(path) for path in images if CHANNEL_NAME.match(stem(path)))
    groups: dict[str, list[Path]] = {}
    for path in images:
        name = join_channels(path)
        alone = numbered[name] == 1 and name not in stems
        is_channel = f"{name}_0000" in stems and (num_channels > 1 or alone)
        groups.setdefault(name if is_channel else stem(path), []).append(path)
    if not groups:
        raise MvlError("has no case", file=folder, remedy=f"Put images there: {known_formats()}.")
    cases = []
    for name, files in sorted(groups.items()):
        files.sort(key=stem)  # whichever form of Unicode each of them is in
        with nullcontext() if problems is None else noting(problems):
            _check_group(name, files, num_channels, folder)
            cases.append(Case(name, tuple(files)))
    return tuple(cases)


def _check_group(name: str, files: list[Path], num_channels: int, folder: Path) -> None:
    """A case is one file with all channels, or exactly one file per channel, and may be the name of a file."""
    checked_name(name, "case", files[0])
    if len({stem(path) for path in files}) < len(files):
        names = " and ".join(path.name for path in files)
        raise MvlError(f"{names} claim the same case '{name}'", file=folder, remedy="Remove one of them.")
    if len(files) == 1:
        return
    there = [stem(path)[-4:] for path in files]
    if there != [f"{channel:04d}" for channel in range(num_channels)]:
        raise MvlError(
            f"has the channels {', '.join(there)}, expected {num_channels}: 0000 to {num_channels - 1:04d}",
            file=folder / name,
            remedy="Add or remove channel files.",
        )


def _is_image_file(entry: Path) -> bool:
    """Segmentations of 3D Slicer are not: they are saved beside the images that they belong to."""
    return file_ending(entry) not in ("", SEGMENTATION_ENDING) and entry.is_file()


def files_behind(path: Path, dicom_volume: str = "") -> list[Path]:
    """A file and all that belongs to it, or the files in a folder and below it; of a DICOM volume only its own.

    Raises MvlError when it cannot be looked into.
    """
    if path.is_dir():
        from mvl_auto.images.dicom import files_of_volume
        from mvl_auto.images.dicom.files import visible_files

        return files_of_volume(path, dicom_volume) if dicom_volume else list(visible_files(path))
    if path.suffix.lower() in (".mhd", ".mha", ".nrrd") and path.is_file():
        from mvl_auto.images.itk import data_files

        return [path, *dict.fromkeys(file for file in data_files(path) if os.path.isfile(file))]
    if path.suffix.lower() in (".tif", ".tiff"):
        from mvl_auto.images.raster import sidecars

        return [path, *dict.fromkeys(entry for entry in sidecars(path) if entry.is_file())]
    return [path]


def _some(files: Iterable[os.PathLike[str]], count: int = 3) -> str:
    names = [os.path.basename(file) for file in files]
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
