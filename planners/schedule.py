"""What follows from the difficulty and the labels of a task: how long to train, and which axes to mirror."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from mvl_auto.planners.presets import EASY_PATCHES, HARD_PATCHES, LONGEST, RARE, REFERENCE_PATCH, SearchOrder
from mvl_auto.plans import CaseFingerprint, LabelScheme, Shape

RIGHT_LEFT = 2  # the canonical axis (Z Y X of RAS+) along which left and right lie
WORDS = re.compile(r"[a-z]+")
CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # where a word of "KidneyLeft" begins
OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l", "lt": "rt", "rt": "lt", "lh": "rh", "rh": "lh"}


@dataclass(frozen=True)
class Difficulty:
    """How hard a task is.

    patches: voxels of the median image divided by 128^3. object_share: share of the image that an object takes, of the
    class whose objects are smallest; None where no object is known.
    """

    patches: float
    object_share: float | None = None

    @property
    def rarity(self) -> float:
        """1 at 0.3 % of the image or more; below, sqrt(0.3 % / share)."""
        return 1.0 if self.object_share is None else max(1.0, math.sqrt(RARE / self.object_share))

    @property
    def degree(self) -> float:
        """1 (easy) to 10 (hard), by patches x rarity: 1 up to 5, 10 from 12 on, by the logarithm in between.

        On the Medical Segmentation Decathlon this separates the tasks that come within 3 % of their final Dice after a
        tenth of nnU-Net's schedule (Hippocampus 0.03, Prostate 1, Heart 4 patches) from those that do not (Pancreas
        12, Colon 19, Lung 31, Liver 60). The number of cases does not count: nobody has shown that a task is easier
        when fewer of its cases are labelled.
        """
        way = math.log(self.patches * self.rarity / EASY_PATCHES) / math.log(HARD_PATCHES / EASY_PATCHES)
        return 1.0 + (LONGEST - 1.0) * min(max(way, 0.0), 1.0)


def rate_difficulty(median_shape: Sequence[float], object_share: float | None = None) -> Difficulty:
    """Of a dataset whose median image has this shape (voxels) at full resolution; it is the same at a lower one."""
    return Difficulty(math.prod(median_shape) / REFERENCE_PATCH, object_share)


def object_share(cases: Sequence[CaseFingerprint]) -> float | None:
    """Share of the cropped image that an object takes, of the class where it is smallest; None without objects.

    A class's object in a case is its largest connected component, or all its voxels where components are not known;
    the share of a class is the median over the cases that have it.
    """
    shares: dict[int, list[float]] = {}
    for case in cases:
        cropped = sum(case.class_voxels) * math.prod(case.shape_after_crop) / math.prod(case.shape)
        for position, voxels in enumerate(case.largest_object or case.class_voxels[1:]):
            if voxels:
                shares.setdefault(position, []).append(voxels / cropped)
    return min((median(of_class) for of_class in shares.values()), default=None)


def choose_steps(difficulty: Difficulty, order: SearchOrder) -> int:
    """Training steps without a time budget: those of an easy task, times the degree of difficulty."""
    return round(order.steps * difficulty.degree)


def min_steps(difficulty: Difficulty, order: SearchOrder, whole_schedule: bool = False) -> float:
    """Minimum number of steps that a time budget must allow before it is spent on a larger network."""
    return (order.steps if whole_schedule else order.min_steps) * difficulty.degree


def steps_in(seconds: float, step_seconds: float) -> int:
    """Training steps that fit into a time, to two digits: measured seconds are no more exact, and plans repeat."""
    steps = seconds / step_seconds
    unit = 10 ** max(0, math.floor(math.log10(max(steps, 1))) - 1)
    return max(1, round(steps / unit) * unit)


def mirror_axes(labels: LabelScheme, axes: Sequence[int], volumetric: bool, order: SearchOrder) -> Shape:
    """The axes of a patch to mirror: those along which a mirrored image could be another patient's.

    A body mirrored from left to right could be another patient's, unless the labels tell the sides apart. Mirrored from
    head to foot it could not, and a short training gains nothing from images that do not occur (docs/experiments.md:
    0.840 against 0.791 Dice after 600 steps on Hippocampus). A long training mirrors all axes, as nnU-Net does; so do
    2D images, which have no head and foot.
    axes: the canonical axis (Z Y X) of each axis of the patch.
    """
    sided = volumetric and tells_sides_apart(labels)
    anatomical = volumetric and order.mirror == "right_left"
    return tuple(
        position
        for position, axis in enumerate(axes)
        if not (sided and axis == RIGHT_LEFT) and not (anatomical and axis != RIGHT_LEFT)
    )


def tells_sides_apart(labels: LabelScheme) -> bool:
    """Whether a label is another's name with left and right exchanged ("kidney_left", "RightLung", "leftkidney")."""
    names = {CAPITAL.sub(" ", name).casefold() for name in (*labels.class_names, *labels.region_names)}
    return any(other != name and other in names for name, other in ((name, _other_side(name)) for name in names))


def _other_side(name: str) -> str:
    return WORDS.sub(lambda match: _other_word(match.group()), name)


def _other_word(word: str) -> str:
    """Also of a word that begins with a side; one that ends with it may mean another thing ("copyright")."""
    for side in ("left", "right"):
        if word.startswith(side):
            return OTHER_SIDE[side] + word.removeprefix(side)
    return OTHER_SIDE.get(word, word)
