"""What to know of image files that can be used all the same: told once for all files that have it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from mvl_auto.images.geometry import FileGrid
from mvl_auto.printable import shown
from mvl_auto.text import list_text

LONGEST_UNIT = 20  # letters of a name in a message

Remarks = dict[str, list[Path]]  # what to know -> the files


def remark_on(grid: FileGrid) -> str:
    """In the same words for every such file; empty for most."""
    if grid.unknown_unit:
        unit = shown(grid.unknown_unit, LONGEST_UNIT)
        return f"states its voxel size in {unit}, a unit that is not known: 1 mm is assumed"
    if grid.tilt_degrees:
        return "was taken with the gantry tilted: a segmentation leans as its slices do, which ITK may refuse"
    return ""


def tell_remarks(log: logging.Logger, remarks: Mapping[str, Sequence[Path]]) -> None:
    """A warning for each remark that is not empty, with a count and the first three files."""
    for remark, files in remarks.items():
        if not remark:
            continue
        if len(files) == 1:
            log.warning("%s: %s", files[0], remark)
        else:
            log.warning("%d images (%s): each %s", len(files), list_text(files), remark)
