"""Which prediction belongs to which reference: two folders of label files, matched by name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.files import entries
from mvl_auto.images import FILE_ENDINGS, file_ending, stem
from mvl_auto.text import list_text

NAMES_IN_MESSAGE = 5


@dataclass(frozen=True)
class Pair:
    """The two files of one case. prediction: None counts as an empty one (`missing_as_zero`)."""

    name: str
    reference: Path
    prediction: Path | None


def match_cases(
    references: Path, predictions: Path, *, only_common: bool = False, missing_as_zero: bool = False
) -> list[Pair]:
    """The files of two folders that have the same name up to their ending, sorted by it.

    Two Unicode forms of one name are the same name. only_common: leave out cases that only one folder has.
    missing_as_zero: a reference without a prediction is paired with nothing.
    Raises MvlError, naming them, for other cases that only one folder has, for names that differ in upper and lower
    case only, and where there is nothing to compare.
    """
    expected = label_files(references, "reference")
    found = label_files(predictions, "prediction", may_be_empty=missing_as_zero)
    _refuse_other_case(expected, found)
    common = expected.keys() & found.keys()
    if not only_common:
        if not missing_as_zero:
            remedy = (
                "Add them, or use --only-common to leave these cases out, or --missing-as-zero to score them as empty."
            )
            _refuse_lonely(expected.keys() - found.keys(), predictions, "prediction", len(expected), remedy)
        remedy = "Add them, or use --only-common to leave these cases out."
        _refuse_lonely(found.keys() - expected.keys(), references, "reference", len(found), remedy)
    chosen = expected.keys() if missing_as_zero else common
    if not chosen:
        raise MvlError(
            f"no file has the name of one in {references}",
            file=predictions,
            remedy="Give each prediction the name of its reference.",
        )
    return [Pair(name, expected[name], found.get(name)) for name in sorted(chosen)]


def label_files(folder: Path, what: str, may_be_empty: bool = False) -> dict[str, Path]:
    """Name without ending, in Unicode's composed form (NFC) -> file. what: "reference" or "prediction".

    Raises MvlError when the folder is missing or holds none, or two files have one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MvlError(f"is not a folder of {what}s", file=folder, remedy="Give the folder that holds them.")
    files: dict[str, Path] = {}
    for path in entries(folder):
        if not file_ending(path) or path.name.startswith(".") or path.is_dir():
            continue
        name = unicodedata.normalize("NFC", stem(path))
        if other := files.get(name):
            raise MvlError(f"there are two {what}s of one name, {other.name} too", file=path, remedy="Remove one.")
        files[name] = path
    if not files and not may_be_empty:
        raise MvlError(f"holds no {what}s", file=folder, remedy=f"Files may end in {', '.join(FILE_ENDINGS)}.")
    return files


def some_names(names: Iterable[str]) -> str:
    """The first few of some names, sorted, for messages."""
    return list_text(sorted(names), NAMES_IN_MESSAGE)


def _refuse_other_case(expected: dict[str, Path], found: dict[str, Path]) -> None:
    """Names that match only when upper and lower case are taken alike are most likely a mistake."""
    lower = {name.casefold(): name for name in expected.keys() - found.keys()}
    for name in sorted(found.keys() - expected.keys()):
        if twin := lower.get(name.casefold()):
            raise MvlError(
                f"its name differs from that of {expected[twin]} in upper and lower case only",
                file=found[name],
                remedy="Rename one of them.",
            )


def _refuse_lonely(names: Iterable[str], folder: Path, what: str, of: int, remedy: str) -> None:
    lonely = list(names)
    if lonely:
        raise MvlError(
            f"has no {what} for {len(lonely)} of {of} cases: {some_names(lonely)}", file=folder, remedy=remedy
        )
