"""progress.png: the loss and the Dice on validation patches over the steps of a run, drawn anew on the way."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.extras import is_installed
from mvl_auto.files import writing
from mvl_auto.runs import HISTORY, read_curves

PLOT = "progress.png"
INCHES, DOTS_PER_INCH = (8, 4.5), 100

log = logging.getLogger(__name__)


def draw_progress(folder: Path) -> Path | None:
    """Write progress.png of a fold's progress.csv; None where that has no lines yet, or matplotlib is not installed.

    Raises MvlError when it cannot be written.
    """
    if not is_installed("matplotlib"):
        return None
    if not (folder / HISTORY).is_file():
        return None
    from matplotlib.figure import Figure  # without pyplot: no window system is asked for, nothing global is left

    try:
        curves = read_curves(folder / HISTORY)
    except MvlError as error:  # a picture is no reason to stop a training
        log.warning("%s %s is not drawn.", error, PLOT)
        return None
    steps, losses = curves["step"], curves["loss"]
    if not steps:
        return None
    looks = [(step, dice) for step, dice in zip(steps, curves.get("dice", ()), strict=False) if math.isfinite(dice)]
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
