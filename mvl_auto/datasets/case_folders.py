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

CASE = "{case}"
KEY = "case_pattern"
MOST_FOLDERS = 100  # that are looked into for what they have in common
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


def find_single_images(folder: Path) -> list[tuple[str, Path]]:
    """Case and image, where every folder below has one image, and what else they have in common are labels."""
    images = [path for path in _common_files(folder) if not LABEL_WORD.search(_kind(path))]
    if len(images) != 1:
        return []
    names = names_by_pattern(folder, images[0])
    return [(composed(name), files_by_pattern(folder, images[0], name=name)[0]) for name in names]


def find_pattern(folder: Path, channels: Sequence[str]) -> tuple[Pattern | None, Pattern | None]:
    """What the folders of the cases have in common, and that again if there is no doubt that it is meant.

    channels: their names in dataset.json. Returns (proposed, certain); None for no proposal, and for doubt.
    """
    common = _common_files(folder)
    labels = [path for path in common if LABEL_WORD.search(_kind(path))]
    images = [path for path in common if path not in labels]
    if not labels or not images:
        return None, None
    ordered = _by_channel(images, channels)
    proposed = Pattern(tuple(ordered or images), labels[0])
    return proposed, proposed if ordered and len(labels) == 1 else None


def pattern_for_json(pattern: Pattern) -> str:
    """As a line for dataset.json."""
    value = json.dumps({KEY: {"images": list(pattern.images), "label": pattern.label}}, ensure_ascii=False)
    return value[1:-1]


def _common_files(folder: Path) -> list[str]:
    """Image files that at least half of the case folders have, as patterns, sorted."""
    below = [entry for entry in entries(folder) if entry.is_dir() and not entry.name.startswith(".")]
    below = [entry for entry in below if entry.name not in OTHER_FOLDERS][:MOST_FOLDERS]
    found: Counter[str] = Counter()
    for case in below:
        files = (entry.name for entry in entries(case) if file_ending(entry) and not entry.name.startswith("."))
        found.update(f"{CASE}/{name.replace(case.name, CASE)}" for name in files)
    return sorted(path for path, count in found.items() if 2 * count >= len(below))


def _by_channel(images: list[str], channels: Sequence[str]) -> list[str] | None:
    """The images in the order of the channels; None where the names do not tell."""
    if len(images) != len(channels):
        return None
    if len(images) == 1:
        return images
    by_kind = {_contrast(_kind(path)): path for path in images}
    wanted = [_contrast(name) for name in channels]
    if len(by_kind) < len(images) or set(wanted) != set(by_kind):
        return None
    return [by_kind[kind] for kind in wanted]


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
