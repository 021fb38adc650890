"""The folder that results are written to: never that of the images or of the network, under whatever name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mvl_auto.datasets import Case, files_of
from mvl_auto.errors import MvlError
from mvl_auto.outputs import check_not_read, identify
from mvl_auto.runs import TrainedRun

ANOTHER = "Choose another folder for -o."


def check_output_folder(
    input: Path, output: Path, cases: Sequence[Case], names: Iterable[str], trained: TrainedRun, blocks: Path
) -> None:
    """Raise MvlError where results would lie beside the images, in the run or the bank, or replace one of the images.

    Folders and files are compared by device and inode, so links are followed. input: as the user gave it. names: the
    files that will be written, relative to `output`. blocks: the folder of the block bank.
    """
    if identify(output) is None:
        return
    written = [output / name for name in names]
    images = [file for case in cases for file in files_of(case)]
    folders = {input if input.is_dir() else input.parent}
    folders |= {parent for file in images for parent in (file.parent, Path(os.path.realpath(file)).parent)}
    targets = {identify(folder): folder for folder in {output, *(path.parent for path in written)}}
    for what, taken in (
        ("of the images, or of files that they are links to", folders),
        ("of the network", {trained.folder, blocks, *(folder for folder, _ in trained.folds)}),
    ):
        for folder in taken:
            if (there := identify(folder)) is not None and there in targets:
                raise MvlError(f"is the folder {what}", file=targets[there], remedy=ANOTHER)
    check_not_read(written, images, ANOTHER)
