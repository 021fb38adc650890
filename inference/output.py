"""The folder that results are written to: never that of the images, under whatever name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mvl_auto.datasets import Case, files_of
from mvl_auto.errors import MvlError

Identity = tuple[int, int]  # device and inode: the same for all names of a file or folder

ANOTHER = "Choose another folder for -o."


def check_output_folder(input: Path, output: Path, cases: Sequence[Case], names: Iterable[str] = ()) -> None:
    """Raise MvlError where results would lie beside the images, or replace one of them.

    Folders and files are compared by device and inode, so links are followed. input: as the user gave it. names: the
    files that will be written, relative to `output`.
    """
    if (folder := _identify(output)) is None:
        return
    images = [file for case in cases for file in files_of(case)]
    folders = {input if input.is_dir() else input.parent}
    folders |= {parent for file in images for parent in (file.parent, Path(os.path.realpath(file)).parent)}
    if folder in map(_identify, folders):
        raise MvlError("is the folder of the images, or of files that they are links to", file=output, remedy=ANOTHER)
    originals = {_identify(file) for file in images}
    for name in names:
        path = output / name
        if (there := _identify(path)) is not None and there in originals:
            raise MvlError("is one of the images, under another name", file=path, remedy=ANOTHER)


def _identify(path: Path) -> Identity | None:
    """None where nothing exists."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
