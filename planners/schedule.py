"""How long to train, and along which axes an image may be mirrored: what follows from the task."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from mvl_auto.planners.presets import EASY_STEPS, LONGEST, REFERENCE_BATCH, Ladder
from mvl_auto.plans import LabelScheme, Shape

RIGHT_LEFT = 2  # the canonical axis (Z Y X of RAS+) along which left and right lie
WORDS = re.compile(r"[a-z]+")
OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l", "lt": "rt", "rt": "lt", "lh": "rh", "rh": "lh"}


def iterations(dataset_voxels: float, ladder: Ladder) -> int:
    """Training steps without a time budget: those of an easy task, times how hard this one is."""
    return round(ladder.iterations * difficulty(dataset_voxels))


def least_iterations(dataset_voxels: float, ladder: Ladder) -> float:
    """Training steps that a time budget must buy before it is spent on a larger network."""
    return ladder.least_iterations * difficulty(dataset_voxels)


def iterations_in(seconds: float, step_seconds: float) -> int:
    """Training steps that a time buys, to two digits: measured seconds are not better than that, and plans repeat."""
    steps = seconds / step_seconds
    unit = 10 ** max(0, math.floor(math.log10(max(steps, 1))) - 1)
    return max(1, round(steps / unit) * unit)


def difficulty(dataset_voxels: float) -> float:
    """1 (easy) to 10, by how many batches of 2 x 128^3 voxels hold the whole dataset.

    On the Medical Segmentation Decathlon this parts the tasks that are within 3 % of their end after a tenth of
    nnU-Net's schedule (Hippocampus 3, Prostate 15, Heart 40 batches) from those that are not (Lung 990, Colon 1200,
    Pancreas 1700, Liver 3900); in between it grows in proportion.
    """
    return min(max(dataset_voxels / REFERENCE_BATCH / EASY_STEPS, 1.0), LONGEST)


def mirror_axes(labels: LabelScheme, axes: Sequence[int], volumetric: bool, ladder: Ladder) -> Shape:
    """The axes of a patch to mirror: those along which a mirrored image could be another patient's.

    A body is as good as mirrored from left to right, unless the labels tell the sides apart; head to foot it is not,
    and a short training has no steps to spare for images that do not occur (docs/experiments.md: 0.840 against 0.791
    Dice after 600 steps on Hippocampus). A long one mirrors all axes, as nnU-Net does, and so do flat images, which
    have no head and foot.
    axes: the canonical axis (Z Y X) of each axis of the patch.
    """
    sided = volumetric and tells_sides_apart(labels)
    anatomical = volumetric and ladder.mirror == "right_left"
    return tuple(
        position
        for position, axis in enumerate(axes)
        if not (sided and axis == RIGHT_LEFT) and not (anatomical and axis != RIGHT_LEFT)
    )


def tells_sides_apart(labels: LabelScheme) -> bool:
    """Whether a label is another's name with left and right exchanged ("kidney_left", "kidney_right")."""
    names = {name.casefold() for name in (*labels.class_names, *labels.region_names)}
    return any(other != name and other in names for name, other in ((name, _other_side(name)) for name in names))


def _other_side(name: str) -> str:
    return WORDS.sub(lambda word: OTHER_SIDE.get(word.group(), word.group()), name)
