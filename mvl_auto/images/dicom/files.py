"""Which files below a folder are DICOM, by their first bytes and not by their names.

pydicom is not imported here: looking through the folders of a dataset stays quick.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mvl_auto.files import entries, reading

MAGIC_AT = 128
HEAD = MAGIC_AT + 4  # bytes of a file that tell whether it is DICOM
ENDINGS = (".dcm", ".dicom", ".ima")
INDEX = "DICOMDIR"  # the table of contents of a medium: DICOM, but no image
APPLE_DOUBLE = b"\x00\x05\x16\x07"  # macOS keeps attributes of a file in a second one, `._NAME`
LITTLE, BIG = re.compile(rb"[\x02\x08]\x00..", re.DOTALL), re.compile(rb"\x00[\x02\x08]..", re.DOTALL)
LONGEST_FIRST_VALUE = 1024  # bytes; the first element of a DICOM file is a short one


def is_dicom_folder(folder: Path) -> bool:
    """Whether there is a DICOM file in `folder` or below it. Raises MvlError when a folder cannot be looked into."""
    return any(starts_as_dicom(path) for path in visible_files(folder))


def dicom_files(folder: Path) -> list[Path]:
    """Files in `folder` and below that are DICOM, or have an ending that says so, in the order of their names.

    Hidden files (`._IM1.dcm` of macOS) and a DICOMDIR are left out.
    Raises MvlError when a file or folder cannot be read.
    """
    return [path for path in visible_files(folder) if path.suffix.lower() in ENDINGS or starts_as_dicom(path)]


def visible_files(folder: Path) -> Iterator[Path]:
    """Files in `folder` and below, none hidden, no DICOMDIR; links are followed, each folder is entered once.

    Raises MvlError when a folder cannot be looked into.
    """
    seen: set[str] = set()

    def below(inner: Path) -> Iterator[Path]:
        real = os.path.realpath(inner)
        if real in seen:
            return
        seen.add(real)
        for path in entries(inner):
            if _is_hidden(path) or path.name.upper() == INDEX:
                continue
            if path.is_dir():
                yield from below(path)
            elif path.is_file():
                yield path

    yield from below(Path(folder))


def starts_as_dicom(path: Path) -> bool:
    """Whether the first bytes of a file are those of DICOM, with or without the preamble of 128 bytes.

    Raises MvlError when it cannot be read.
    """
    if path.name.upper() == INDEX:
        return False
    with reading(path), open(path, "rb") as stream:
        head = stream.read(HEAD)
    return head[MAGIC_AT:] == b"DICM" or _starts_with_element(head)


def _starts_with_element(head: bytes) -> bool:
    """Whether the bytes begin with a data element of group 0002 or 0008, in any of DICOM's three encodings."""
    big = BIG.match(head) is not None
    if len(head) < 8 or head.startswith(APPLE_DOUBLE) or not (big or LITTLE.match(head)):
        return False
    explicit = re.fullmatch(rb"[A-Z]{2}", head[4:6]) is not None
    length = int.from_bytes(head[4:8], "little")
    return explicit or (not big and 0 < length <= LONGEST_FIRST_VALUE and length % 2 == 0)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")
