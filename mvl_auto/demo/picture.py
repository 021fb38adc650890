"""The demo's picture: each held-out subject from another side, and truth and prediction over the scan.

One column a subject, one row each for the scan, the true labels and the predicted ones. All arrays are
canonical (Z, Y, X), so up is superior or anterior, and right is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvl_auto.files import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLANES = ("axial", "coronal", "sagittal")  # the slice is taken across axis Z, Y, X
ROWS = ("scan", "truth", "prediction")
STRIP = 0.6  # a plane is left out whose shorter side is this much shorter than that of the best plane
BACKGROUND, FOREGROUND, MUTED = "#0b0e14", "#e8eaed", "#9aa3af"
COLOURS = ("#ffb000", "#4cc9f0", "#f15bb5", "#9be564", "#ff6b35", "#b388ff")  # of the labels, told apart on grey
PANEL_INCHES = 2.5
DICE_GAP = 0.16  # of a panel's width
MARGIN_MM = 8.0  # around the largest head
DARKEST, BRIGHTEST = 80, 99.7  # percentiles, of the air around the labels and of the scan, shown black and white
FILL = 0.25  # opacity of a label, so that the scan is seen through it


@dataclass(frozen=True)
class Shown:
    """One column of the picture."""

    name: str
    image: NDArray[np.floating]  # (Z, Y, X)
    truth: NDArray[np.integer]  # classes, (Z, Y, X)
    prediction: NDArray[np.integer]
    spacing_mm: tuple[float, float, float]  # Z Y X
    dice: Mapping[str, float]  # of each label


def draw_picture(shown: Sequence[Shown], labels: Sequence[str], path: Path, caption: str = "") -> None:
    """Draw the subjects side by side into an image file.

    labels: names of the classes 1, 2, ... caption: a line below. Raises MvlError when it cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    slices = [_middle(each, _plane(each, number)) for number, each in enumerate(shown)]
    side_mm = max(each.side_mm for each in slices) + 2 * MARGIN_MM
    columns = len(shown)
    figure = Figure((PANEL_INCHES * columns + 0.3, PANEL_INCHES * len(ROWS) + 0.85), facecolor=BACKGROUND)
    grid: Any = figure.subplots(len(ROWS), columns, squeeze=False)
    for column, (each, cut) in enumerate(zip(shown, slices, strict=True)):
        grid[0, column].set_title(f"{each.name}, {cut.plane}", color=FOREGROUND, fontsize=10, pad=5)
        _write_dice(grid[-1, column], each.dice)
        for row, overlay in enumerate((None, cut.truth, cut.prediction)):
            _draw_panel(grid[row, column], cut, overlay, side_mm)
    for row, what in enumerate(ROWS):
        grid[row, 0].set_ylabel(what, color=FOREGROUND, fontsize=11)
    figure.subplots_adjust(
        left=0.3 / figure.get_figwidth(), right=0.995, top=0.955, bottom=0.083, wspace=0.02, hspace=0.02
    )
    patches = [Patch(color=_colour(number), label=name) for number, name in enumerate(labels, start=1)]
    figure.legend(
        handles=patches, loc="lower left", bbox_to_anchor=(0.3 / figure.get_figwidth(), 0.005), ncols=len(labels),
        frameon=False, labelcolor=FOREGROUND, fontsize=9, handlelength=1, handleheight=1, borderaxespad=0.3,
    )  # fmt: skip
    figure.text(0.99, 0.018, caption, color=MUTED, fontsize=8, ha="right")
    with writing(path) as beside:
        figure.savefig(beside, dpi=130, facecolor=BACKGROUND)


@dataclass(frozen=True)
class Slice:
    """One plane of a subject, (up, right)."""

    plane: str
    image: NDArray[np.floating]
    truth: NDArray[np.integer]
    prediction: NDArray[np.integer]
    spacing_mm: tuple[float, float]
    window: tuple[float, float]  # intensities shown black and white

    @property
    def extent_mm(self) -> tuple[float, float, float, float]:
        """left, right, bottom, top of the outermost voxels' edges, around the middle of the true labels."""
        up, right = _middle_of(self.truth)
        (height, width), (dy, dx) = self.image.shape, self.spacing_mm
        return ((-0.5 - right) * dx, (width - 0.5 - right) * dx, (-0.5 - up) * dy, (height - 0.5 - up) * dy)

    @property
    def side_mm(self) -> float:
        """Length of the square that holds the true labels."""
        there = np.nonzero(self.truth)
        lengths = [
            (axis.max() - axis.min() + 1) * mm for axis, mm in zip(there, self.spacing_mm, strict=True) if axis.size
        ]
        return float(max(lengths, default=0.0)) or max(
            n * mm for n, mm in zip(self.image.shape, self.spacing_mm, strict=True)
        )


def _plane(shown: Shown, number: int) -> str:
    """The plane of the subject of this number: all in turn, without those in which the scan is a mere strip."""
    height, depth, width = (n * mm for n, mm in zip(shown.image.shape, shown.spacing_mm, strict=True))
    sides = {"axial": (depth, width), "coronal": (height, width), "sagittal": (height, depth)}
    shorter = {plane: min(lengths) for plane, lengths in sides.items()}
    broad = [plane for plane in PLANES if shorter[plane] >= STRIP * max(shorter.values())]
    return broad[number % len(broad)]


def _middle(shown: Shown, plane: str) -> Slice:
    """The slice with the most true label in it."""
    axis = PLANES.index(plane)
    others = tuple(each for each in range(3) if each != axis)
    number = int((shown.truth > 0).sum(axis=others).argmax())
    image, truth, prediction = (np.take(each, number, axis) for each in (shown.image, shown.truth, shown.prediction))
    spacing = (shown.spacing_mm[others[0]], shown.spacing_mm[others[1]])
    air = shown.image[shown.truth == 0]
    darkest = np.percentile(air, DARKEST) if air.size else shown.image.min()
    window = (float(darkest), float(np.percentile(shown.image, BRIGHTEST)))
    return Slice(plane, image, truth, prediction, spacing, window)


def _draw_panel(axes: Axes, cut: Slice, classes: NDArray[np.integer] | None, side_mm: float) -> None:
    axes.set_facecolor("black")
    axes.imshow(
        cut.image,
        cmap="gray",
        vmin=cut.window[0],
        vmax=cut.window[1],
        origin="lower",
        extent=cut.extent_mm,
        interpolation="bicubic",
    )
    left, _, bottom, _ = cut.extent_mm
    (height, width), (dy, dx) = cut.image.shape, cut.spacing_mm
    x, y = left + dx * (np.arange(width) + 0.5), bottom + dy * (np.arange(height) + 0.5)
    for label in [] if classes is None else np.unique(classes[classes > 0]):
        mask = (classes == label).astype(float)
        axes.contourf(x, y, mask, levels=[0.5, 1.5], colors=[_colour(label)], alpha=FILL)
        axes.contour(x, y, mask, levels=[0.5], colors=[_colour(label)], linewidths=1.0)
    axes.set(xlim=(-side_mm / 2, side_mm / 2), ylim=(-side_mm / 2, side_mm / 2), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _write_dice(axes: Axes, dice: Mapping[str, float]) -> None:
    """A figure for each label, in its colour, below the panel."""
    words = [("Dice", FOREGROUND), *((f"{value:.2f}", _colour(n)) for n, value in enumerate(dice.values(), start=1))]
    for number, (word, colour) in enumerate(words):
        place = 0.5 + DICE_GAP * (number - (len(words) - 1) / 2)
        axes.text(place, -0.03, word, color=colour, fontsize=10, ha="center", va="top", transform=axes.transAxes)


def _middle_of(mask: NDArray[np.integer]) -> tuple[float, float]:
    """Index of the middle of the box around a mask; of the whole slice where it is empty."""
    there = np.nonzero(mask)
    if not there[0].size:
        return (mask.shape[0] - 1) / 2, (mask.shape[1] - 1) / 2
    up, right = ((axis.min() + axis.max()) / 2 for axis in there)
    return float(up), float(right)


def _colour(label: int) -> str:
    return COLOURS[(int(label) - 1) % len(COLOURS)]
