"""What a run tells of itself: progress.csv, and the time of day."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.files import cannot_write, open_own, write_text
from mvl_auto.runs import COLUMNS, HISTORY, read_history

if TYPE_CHECKING:
    from mvl_auto.training.session import Session


def append_progress(session: Session, loss: float, rate: float, share_waited: float, dice: float | None) -> None:
    """One line: the mean loss since the last, the share of the time spent waiting for batches, the Dice on validation
    patches where it was measured. Raises MvlError when the disk is full.
    """
    path = session.folder / HISTORY
    new = not path.exists()
    line = [session.step, f"{session.elapsed:.2f}", f"{loss:.6f}", f"{rate:.3e}", f"{share_waited:.3f}"]
    try:
        with open(path, "a", newline="", encoding="utf-8", opener=open_own) as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(COLUMNS)
            writer.writerow([*line, "" if dice is None else f"{dice:.4f}"])
    except OSError as error:
        raise cannot_write(path, error) from error


def cut_progress(folder: Path, step: int) -> None:
    """Drop the lines of progress.csv after `step`, which a resumed run writes again."""
    path = folder / HISTORY
    if not path.is_file():
        return
    header, lines = ",".join(COLUMNS) + "\n", read_history(path, step)[1:]
    write_text(path, "".join([header, *lines]))


def clock_in(seconds: float) -> str:
    """The time of day in so many seconds."""
    return time.strftime("%H:%M", time.localtime(time.time() + seconds))
