"""progress.png: the loss and the Dice on validation patches over the steps of a run, drawn anew on the way."""

from __future__ import annotations

import csv
from pathlib import Path

from mvl_auto.extras import is_installed
from mvl_auto.files import writing
from mvl_auto.training.record import PROGRESS

PLOT = "progress.png"
INCHES, DOTS_PER_INCH = (8, 4.5), 100


def draw_progress(folder: Path) -> Path | None:
    """Write progress.png of a fold's progress.csv; None where that has no lines yet, or matplotlib is not installed.

    Raises MvlError when it cannot be written.
    """
    if not is_installed("matplotlib"):
        return None
    from matplotlib.figure import Figure  # without pyplot: no window system is asked for, nothing global is left

    steps, losses, looks = read_progress(folder)
    if not steps:
        return None
    figure = Figure(INCHES, DOTS_PER_INCH, layout="constrained")
    left = figure.subplots()
    left.plot(steps, losses, color="tab:blue", linewidth=1)
    left.set_xlabel("step")
    left.set_ylabel("training loss", color="tab:blue")
    if looks:
        right = left.twinx()
        right.plot(*zip(*looks, strict=True), color="tab:orange", linewidth=1.5)
        right.set_ylabel("Dice on validation patches", color="tab:orange")
        right.set_ylim(0, 1)
    left.set_title(f"{folder.parent.name}, {folder.name}")
    with writing(folder / PLOT) as beside:
        figure.savefig(beside)
    return folder / PLOT


def read_progress(folder: Path) -> tuple[list[int], list[float], list[tuple[int, float]]]:
    """Steps, losses, and (step, Dice) where it was measured."""
    path = folder / PROGRESS
    if not path.is_file():
        return [], [], []
    with open(path, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    looks = [(int(row["step"]), float(row["dice"])) for row in rows if row.get("dice")]
    return [int(row["step"]) for row in rows], [float(row["loss"]) for row in rows], looks
