"""Faults of the same kind as one, so that a fault of a thousand cases is one line, with a count and three files."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from mvl_auto.errors import MvlError
from mvl_auto.printable import printable
from mvl_auto.text import list_text

LISTED = 3  # files that a line names
NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
MEASURED = re.compile(
    rf"{NUMBER}(?: x {NUMBER})+"  # shapes, spacings, origins
    r"|\d+\.\d+(?:e[+-]?\d+)?"
    r"|\d+(?= (?:of \d+ |labell?ed )?voxels)|(?<= of )\d+(?= voxels)"
    r"|\d+(?= (?:slices|bytes|files|label values that)\b)"
    r"|(?<=is a link to ).+(?=, which is not there)"
)
SHARED_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
CHANNEL = re.compile(r"_\d{4}$")  # at the end of a file's name

Item = TypeVar("Item")


def alike(items: Iterable[Item], told: Callable[[Item], tuple[str, str]]) -> list[list[Item]]:
    """Items of the same kind together, in the order of the first of each kind.

    told: the file of an item, and what is said of it. It is of the same kind as another when the texts agree in all but
    the names of the case's own files, where a link leads that leads to nothing, and measured figures: numbers with a
    decimal point, shapes, and counts of voxels, slices or bytes. Label values must agree.
    """
    kinds: dict[str, list[Item]] = {}
    for item in items:
        file, text = told(item)
        kinds.setdefault(MEASURED.sub("#", _without_names(text, file)), []).append(item)
    return list(kinds.values())


def where(files: Sequence[str]) -> str:
    """`labelsTr/a.nii.gz`, or `8 files: labelsTr/a.nii.gz, labelsTr/b.nii.gz, labelsTr/c.nii.gz and 5 more`."""
    return files[0] if len(files) == 1 else f"{len(files)} files: {list_text(files, LISTED)}"


def remedy_in(remedy: str, dataset: str) -> str:
    """A remedy with the dataset named in its command: what reads a file does not know of which it is."""
    return remedy.replace("Run mvl_doctor --fix", f"Run mvl_doctor -d {shlex.quote(dataset)} --fix")


def lines_of(errors: Sequence[MvlError]) -> list[str]:
    """What is wrong, with a line for each kind of error, whatever the number of files that have it."""
    return [line_of(kind) for kind in alike(errors, told_of)]


def line_of(kind: Sequence[MvlError]) -> str:
    """One line about errors of the same kind: the error itself, or a count, the first files and what they have."""
    first = kind[0]
    if len(kind) == 1 or first.file is None:
        return str(first)
    files = list_text((error.file for error in kind), LISTED)
    return printable(f"{len(kind)} files ({files}): {first.what.rstrip('.')}. {first.remedy}".strip())


def lines_of_reasons(failed: Mapping[str, str]) -> list[str]:
    """Why cases failed, with a line for each kind of reason. failed: name of a case -> the reason, in one line."""
    lines = []
    for (first, reason), *others in alike(failed.items(), lambda item: item):
        names = list_text([first, *(name for name, _ in others)], LISTED)
        lines.append(f"{1 + len(others)} cases ({names}), the first: {reason}" if others else reason)
    return lines


def told_of(error: MvlError) -> tuple[str, str]:
    """The file of an error, and what it says."""
    return "" if error.file is None else os.fspath(error.file), f"{error.what} {error.remedy}"


def _without_names(text: str, file: str) -> str:
    """`text` with `#` for the files of the case that `file` belongs to: of its name, or in a folder of its own."""
    from mvl_auto.images import stem

    folder = os.path.basename(os.path.dirname(file))
    if folder and folder not in SHARED_FOLDERS:
        text = re.sub(rf"(?<![\w-])(?:[^\s']*/)?{re.escape(folder)}/[^\s',]*", "#", text)
    name = re.escape(CHANNEL.sub("", stem(file)))
    if not name:
        return text
    of_case = rf"{name}(?:_\d{{4}})?"
    return re.sub(rf"[^\s']*/{of_case}(?:\.[\w.]*\w)?(?![\w-])|(?<![\w./-]){of_case}\.\w[\w.]*\b", "#", text)
