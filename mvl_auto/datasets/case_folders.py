"""Datasets with a folder for each case, such as KiTS and BraTS, and the pattern that says which file is what.

    "case_pattern": {
      "images": ["{case}/{case}-t1n.nii.gz", "{case}/{case}-t1c.nii.gz"],
      "label": "{case}/{case}-seg.nii.gz"
    }

`{case}` stands for the name of the case, and is the same everywhere in a line. Where dataset.json has no pattern, the
files that all folders have in common make one, if there is no doubt which is the label and which is which channel.
"""

from __future__ import annotations

import glob
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mvl_auto.errors import MvlError
from mvl_auto.files import entries
from mvl_auto.images import composed, file_ending, stem
from mvl_auto.text import list_text

CASE = "{case}"
KEY = "case_pattern"
MOST_FOLDERS = 100  # that are looked into for what they have in common
MOST_TOLD = 6  # files in a message
SHORTEST_IN_WORD = 3  # letters of a case's name that is looked for inside of words too
LABEL_WORD = re.compile(r"(^|[-_. ])(seg|label|mask|annotation|gt)[a-z]*([-_. ]|$)", re.IGNORECASE)
OTHER_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
# names of MR contrasts in BraTS before and since 2023, and what people call the channels
SAME_CONTRAST = {
    "t1": "t1n",
    "t1ce": "t1c",
    "t1gd": "t1c",
    "t1post": "t1c",
    "t2": "t2w",
    "flair": "t2f",
    "t2flair": "t2f",
}


@dataclass(frozen=True)
class Pattern:
    """Paths below the dataset's folder, with `{case}` for the name of the case. images: one for each channel."""

    images: tuple[str, ...]
    label: str


def read_pattern(content: dict[str, Any], description: Path) -> Pattern | None:
    """The pattern of a dataset.json; None where it has none. Raises MvlError for one that makes no sense."""
    found = content.get(KEY)
    if found is None:
        return None
    images: Any = found.get("images") if isinstance(found, dict) else None
    images = [images] if isinstance(images, str) else images
    label: Any = found.get("label") if isinstance(found, dict) else None
    remedy = f'Write "{KEY}": {{"images": ["{CASE}/image.nii.gz"], "label": "{CASE}/label.nii.gz"}}.'
    if not isinstance(images, list) or not images or not all(isinstance(path, str) for path in (*images, label)):
        raise MvlError(f"its {KEY} lacks images or a label", file=description, remedy=remedy)
    for path in (*images, label):
        if CASE not in path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\0" in path:
            what = f"its {KEY} has '{path}', which is no path below its folder with {CASE} in it"
            raise MvlError(what, file=description, remedy=remedy)
    if not file_ending(label):
        raise MvlError(f"its {KEY} has the label '{label}', which is no image file", file=description, remedy=remedy)
    return Pattern(tuple(images), label)


def names_by_pattern(folder: Path, *paths: str) -> list[str]:
    """The names of the cases for which at least one of the paths of a pattern is there, sorted."""
    return sorted({name for path in paths for name in _names_matching(folder, path)})


def files_by_pattern(folder: Path, *paths: str, name: str) -> tuple[Path, ...]:
    return tuple(folder / path.replace(CASE, name) for path in paths)


def find_images(folder: Path, channels: Sequence[str]) -> list[tuple[str, tuple[Path, ...]]]:
    """Case and images (one for each channel) of a folder with a folder for each case; labels are left out.

    channels: their names. Files of a case may be missing. Empty where the folders have no images in common.
    Raises MvlError when the names of the files do not tell which channel each is.
    """
    images = [path for path in _common_files(folder) if not LABEL_WORD.search(_kind(path))]
    if not images:
        return []
    ordered = order_by_channel(images, channels)
    if ordered is None:
        raise _unclear(folder, [path.replace(CASE, "CASE") for path in images], channels)
    names = names_by_pattern(folder, *ordered)
    return [(composed(name), files_by_pattern(folder, *ordered, name=name)) for name in names]


def images_of_case(folder: Path, files: Sequence[Path], channels: Sequence[str]) -> tuple[Path, ...] | None:
    """The files or DICOM folders of one case's folder in the order of the channels; None where names do not tell."""
    by_pattern = {_as_pattern(folder, file): file for file in files}
    images = [path for path in by_pattern if not LABEL_WORD.search(_kind(path))]
    ordered = order_by_channel(images, channels) if len(channels) > 1 else None
    return None if ordered is None else tuple(by_pattern[path] for path in ordered)


def split_channels(folder: Path, channels: Sequence[str]) -> tuple[Path, ...]:
    """The DICOM folders of the channels in a case's folder, or that folder where it has none or there is one channel.

    Raises MvlError when there is one for each channel, but their names do not tell which.
    """
    below = [] if len(channels) < 2 or any(map(is_dicom_file, entries(folder))) else _dicom_folders(folder)
    if len(below) != len(channels):
        return (folder,)
    ordered = images_of_case(folder, below, channels)
    if ordered is None:
        raise _unclear(folder, [entry.name for entry in below], channels)
    return ordered


def _unclear(folder: Path, found: Sequence[str], channels: Sequence[str]) -> MvlError:
    what = f"has {list_text(found, MOST_TOLD)}, whose names do not tell the channels ({', '.join(channels)})"
    last = f" to CASE_{len(channels) - 1:04d}" if len(channels) > 1 else ""
    return MvlError(what, file=folder, remedy=f"Name them as the channels, or CASE_0000{last}.")


def find_pattern(folder: Path, channels: Sequence[str]) -> tuple[Pattern | None, Pattern | None]:
    """What the folders of the cases have in common, and that again if there is no doubt that it is meant.

    The folders may lie in one folder below, as in the repositories of KiTS (`dataset/case_00000`).
    channels: their names in dataset.json. Returns (proposed, certain); None for no proposal, and for doubt.
    """
    found = _pattern_in(folder, channels)
    if found[0] is not None:
        return found
    below = [(entry.name, *_pattern_in(entry, channels)) for entry in _plain_folders(folder)]
    below = [each for each in below if each[1] is not None]
    if len(below) != 1:
        return None, None
    name, proposed, certain = below[0]
    return _moved(proposed, name), _moved(certain, name)


def _moved(pattern: Pattern | None, below: str) -> Pattern | None:
    if pattern is None:
        return None
    return Pattern(tuple(f"{below}/{path}" for path in pattern.images), f"{below}/{pattern.label}")


def _pattern_in(folder: Path, channels: Sequence[str]) -> tuple[Pattern | None, Pattern | None]:
    common = _common_files(folder)
    labels = [path for path in common if LABEL_WORD.search(_kind(path))]
    images = [path for path in common if path not in labels]
    if not labels or not images:
        return None, None
    ordered = order_by_channel(images, channels)
    proposed = Pattern(tuple(ordered or images), labels[0])
    return proposed, proposed if ordered and len(labels) == 1 else None


def is_dicom_folder(entry: Path) -> bool:
    """Whether there is a DICOM file in the folder or below it."""
    from mvl_auto.images.dicom import files

    return entry.is_dir() and files.is_dicom_folder(entry)


def is_dicom_file(entry: Path) -> bool:
    """Whether it is a DICOM file, and none that is hidden."""
    from mvl_auto.images.dicom.files import starts_as_dicom

    is_candidate = entry.is_file() and not file_ending(entry) and not entry.name.startswith(".")
    return is_candidate and starts_as_dicom(entry)


def pattern_for_json(pattern: Pattern) -> str:
    """As a line for dataset.json."""
    value = json.dumps({KEY: {"images": list(pattern.images), "label": pattern.label}}, ensure_ascii=False)
    return value[1:-1]


def _common_files(folder: Path) -> list[str]:
    """Image files that at least half of the case folders have, as patterns, sorted; or DICOM folders in them."""
    below = _plain_folders(folder)
    found: Counter[str] = Counter()
    for case in below:
        files = [entry for entry in entries(case) if file_ending(entry) and not entry.name.startswith(".")]
        if all(LABEL_WORD.search(stem(file)) for file in files):
            files += _dicom_folders(case)
        found.update(_as_pattern(case, file) for file in files)
    return sorted(path for path, count in found.items() if 2 * count >= len(below))


def _plain_folders(folder: Path) -> list[Path]:
    below = [entry for entry in entries(folder) if entry.is_dir() and not entry.name.startswith(".")]
    return [entry for entry in below if entry.name not in OTHER_FOLDERS][:MOST_FOLDERS]


def _as_pattern(case: Path, file: Path) -> str:
    """The name of a file in a case's folder, with {case} for the name of the case where that is no part of a word."""
    bounds = (r"(?<![^\W_])", r"(?![^\W_])") if len(case.name) < SHORTEST_IN_WORD else ("", "")
    return f"{CASE}/{re.sub(bounds[0] + re.escape(case.name) + bounds[1], CASE, file.name)}"


def _dicom_folders(folder: Path) -> list[Path]:
    return [entry for entry in entries(folder) if not entry.name.startswith(".") and is_dicom_folder(entry)]


def order_by_channel(images: Sequence[str], channels: Sequence[str]) -> list[str] | None:
    """The images in the order of the channels: by their names, or by 0000, 0001, ...; None where these do not tell."""
    if len(images) != len(channels):
        return None
    if len(images) == 1:
        return list(images)
    by_kind = {_contrast(_kind(path)): path for path in images}
    for wanted in ([_contrast(name) for name in channels], [f"{n:04d}" for n in range(len(channels))]):
        if len(by_kind) == len(images) and set(wanted) == set(by_kind):
            return [by_kind[kind] for kind in wanted]
    return None


def _kind(path: str) -> str:
    """What tells the files of one case apart: `t1n` of {case}/{case}-t1n.nii.gz."""
    return stem(path).replace(CASE, "").strip("-_. ")


def _contrast(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return SAME_CONTRAST.get(plain, plain)


def _names_matching(folder: Path, path: str) -> Iterator[str]:
    """The names of the cases for which a file of the pattern is there."""
    literal = path.split(CASE)
    first, *others = map(re.escape, literal)
    expression = re.compile(first + r"(?P<case>[^/]+)" + "(?P=case)".join(others))
    for found in glob.iglob("*".join(map(glob.escape, literal)), root_dir=folder):
        match = expression.fullmatch(Path(found).as_posix())
        if match and not match["case"].startswith("."):
            yield match["case"]
