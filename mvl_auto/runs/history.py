"""progress.csv of a fold: the loss, the rate and the time of every so many steps, for people and pictures.

The checkpoint does not need it: a line that is damaged is dropped, and an intact checkpoint goes on.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.files import read_bytes

HISTORY = "progress.csv"
COLUMNS = ("step", "seconds", "loss", "learning_rate", "share_waited", "dice")
LARGEST_HISTORY = 256 << 20  # bytes: a billion steps

log = logging.getLogger(__name__)


def read_history(path: Path, last_step: int) -> list[str]:
    """The lines of progress.csv, each with its end, up to `last_step`: a resumed run writes those after it again.

    The first is the header. Lines that are damaged, or not behind the one before, are left out, with a warning in the
    log; without a readable file there are none. A damaged header stands for a damaged file.
    """
    if not path.is_file():
        return []
    try:
        text = read_bytes(path, most=LARGEST_HISTORY).decode("utf-8", errors="replace")
    except MvlError as error:
        log.warning("%s It is started anew.", error)
        return []
    header, *lines = text.splitlines() or [""]
    if header.split(",") != list(COLUMNS):
        log.warning("%s: is damaged (it does not begin with its header). It is started anew.", path)
        return []
    kept, damaged, before = [header], 0, -1
    for line in lines:
        step = _step(line)
        if step is None or step <= before:
            damaged += 1
        elif step <= last_step:
            kept.append(line)
            before = step
    if damaged:
        log.warning("%s: %d damaged lines are left out", path, damaged)
    return [f"{line}\n" for line in kept]


def read_curves(path: Path) -> dict[str, tuple[float, ...]]:
    """The columns of a progress.csv, a value per line, NaN where a cell is empty; damaged lines are left out.

    Raises MvlError when the file is missing, cannot be read, or has no column "step".
    """
    text = read_bytes(path, most=LARGEST_HISTORY).decode("utf-8", errors="replace")
    header, *rows = [line.removesuffix("\r").split(",") for line in text.split("\n")[:-1]] or [[]]
    if "step" not in header:
        raise MvlError("has no column 'step'", file=path)
    whole = [[_number(cell) for cell in row] for row in rows if len(row) == len(header)]
    whole = [row for row in whole if math.isfinite(row[header.index("step")])]
    return {column: tuple(row[place] for row in whole) for place, column in enumerate(header)}


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _step(line: str) -> int | None:
    """The step of a line; None where it is damaged."""
    parts = line.split(",")
    first = parts[0]
    if len(parts) != len(COLUMNS) or not (first.isascii() and first.isdigit() and len(first) < 16):
        return None
    try:
        list(map(float, filter(None, parts[1:])))  # Dice is not measured at every line
    except ValueError:
        return None
    return int(first)
