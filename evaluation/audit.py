"""Label audit of one case: how likely its label is wrong, and in which way.

After cross-validation every case has a prediction by a network that never saw it. Where the label disagrees with it,
either may be wrong. So each of a few simple corrections of the label is tried (two labels swapped, the label shifted
or flipped, slices filled, an object added or removed): if one of them makes the label agree much better with the
prediction, the label has most likely just that fault. A label that is right, of a case that is merely hard, gains
little from any of them.

Agreement is the soft Dice, 2 sum(p g) / (sum(p) + sum(g)), of the predicted probability p and the mask g of a label.
The score to compare with is the soft minimum of the probability of the given label (arXiv 2307.05080).

    k foreground labels or regions; z y x voxels
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mvl_auto.arrays import Classes, Floats, Mask
from mvl_auto.datasets import one_hot
from mvl_auto.plans import IGNORE, LabelScheme

TEMPERATURE = 0.1  # of the soft minimum (arXiv 2307.05080)
MARGIN = 8  # voxels around label and prediction that are looked at: a label may be shifted by as much
CONFIDENT = 0.5  # probability from which a voxel counts as predicted
SMALLEST_OBJECT = 8  # voxels
LEAST_GAIN = 0.02  # soft Dice: a correction that gains less is no reason; reading noise of healthy labels stays below
MOST_PAIRS = 45  # pairs of labels that are tried for a swap, those confused most

Reason = Literal[
    "labels swapped",
    "label shifted",
    "label flipped",
    "slices missing",
    "object missing",
    "object extra",
    "disagreement",
]


@dataclass(frozen=True)
class Suspicion:
    """One way in which a label may be wrong.

    gain: by how much the agreement of the case (mean soft Dice over its labels) would rise if the label were corrected
    so. place: voxel (Z, Y, X, canonical orientation) in the middle of what would change, and one of those voxels.
    """

    reason: Reason
    labels: tuple[str, ...]
    detail: str
    gain: float
    place: tuple[int, int, int]


@dataclass(frozen=True)
class CaseAudit:
    """What the audit of one case found.

    agreement: mean soft Dice over the labels. per_label: of each label that label or prediction have.
    soft_minimum: per label, of the probability of the given label. suspicions: largest gain first.
    """

    case: str
    agreement: float
    per_label: dict[str, float]
    soft_minimum: dict[str, float]
    suspicions: tuple[Suspicion, ...]


def audit_case(case: str, classes: Classes, probabilities: Floats, labels: LabelScheme) -> CaseAudit:
    """Compare a label with the probabilities that a network gave which did not see the case.

    classes: (Z, Y, X), the given label, IGNORE included. probabilities: (K, Z, Y, X), of all classes with the
    background first, or of the regions, on the same voxels.
    """
    foreground = probabilities if labels.has_regions else probabilities[1:]
    given = one_hot(classes, labels) > 0
    counted = classes != IGNORE
    box = _box(given.any(axis=0) | (foreground.max(axis=0) >= CONFIDENT))
    masks, chances = (given & counted)[:, *box], (foreground * counted)[:, *box]
    names = labels.foreground_names
    each = soft_dice(masks, chances)
    present = np.flatnonzero(masks.any(axis=(1, 2, 3)) | (chances.max(axis=(1, 2, 3), initial=0) >= CONFIDENT))
    now = float(each[present].mean()) if present.size else 1.0
    corner = tuple(part.start for part in box)

    found = []
    for reason, involved, detail, corrected in corrections(masks, chances, names):
        later = soft_dice(corrected, chances)
        gain = float(later[present].mean()) - now if present.size else 0.0
        if gain >= LEAST_GAIN:
            place = _middle((corrected != masks).any(axis=0), corner)
            found.append(Suspicion(reason, involved, detail, round(gain, 4), place))
    return CaseAudit(
        case=case,
        agreement=round(now, 4),
        per_label={names[k]: round(float(each[k]), 4) for k in present},
        soft_minimum={names[k]: round(soft_minimum(masks[k], chances[k]), 4) for k in present},
        suspicions=tuple(sorted(found, key=lambda suspicion: -suspicion.gain)),
    )


def soft_dice(masks_kzyx: Mask, chances_kzyx: Floats) -> Floats:
    """Per label 2 sum(p g) / (sum(p) + sum(g)); 1 where both are empty."""
    axes = (1, 2, 3)
    both = (chances_kzyx * masks_kzyx).sum(axis=axes, dtype=np.float64)
    sizes = chances_kzyx.sum(axis=axes, dtype=np.float64) + masks_kzyx.sum(axis=axes, dtype=np.float64)
    return np.where(sizes > 0, 2 * both / np.maximum(sizes, 1e-12), 1.0).astype(np.float32)


def soft_minimum(mask: Mask, chance: Floats) -> float:
    """Soft minimum of the probability of the given label, over the voxels of the label and of its prediction.

    sum(x exp(-x / T)) / sum(exp(-x / T)) with x = p inside the label and 1 - p outside (arXiv 2307.05080, T = 0.1).
    """
    where = mask | (chance >= CONFIDENT)
    if not where.any():
        return 1.0
    x = np.where(mask, chance, 1 - chance)[where].astype(np.float64)
    weights = np.exp(-x / TEMPERATURE)
    return float((x * weights).sum() / weights.sum())


def suspicion_score(per_label: Mapping[str, float], gain: float, usual: Mapping[str, float]) -> float:
    """How suspicious a case is: what its best correction gains, and half of what it lacks to the usual agreement.

    per_label, usual: soft Dice of the case, and the median over all cases. gain: of the best correction, 0 for none.
    """
    lacks = [max(0.0, usual[name] - value) for name, value in per_label.items() if name in usual]
    return round(gain + 0.5 * (sum(lacks) / len(lacks) if lacks else 0.0), 4)


def usual_agreement(per_label_of_cases: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Per label the median of its agreement over the cases that have it."""
    names = dict.fromkeys(name for each in per_label_of_cases for name in each)
    return {name: float(np.median([each[name] for each in per_label_of_cases if name in each])) for name in names}


# ---------------------------------------------------------------------------------- corrections

Correction = tuple[Reason, tuple[str, ...], str, Mask]  # reason, labels, in words, the corrected masks (K, Z, Y, X)


def corrections(masks: Mask, chances: Floats, names: Sequence[str]) -> Iterator[Correction]:
    """Each correction that is worth trying. masks, chances: (K, Z, Y, X)."""
    yield from _swaps(masks, chances, names)
    if masks.any():
        yield from _shift(masks, chances)
        yield from _flips(masks, chances)
    yield from _filled_slices(masks, chances, names)
    yield from _objects(masks, chances, names)


def _swaps(masks: Mask, chances: Floats, names: Sequence[str]) -> Iterator[Correction]:
    """Two labels change places: only pairs that label and prediction confuse with each other."""
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    mass = flat @ chances.reshape(len(masks), -1).T  # (given, predicted)
    confused = [(mass[i, j] + mass[j, i], i, j) for i, j in itertools.combinations(range(len(masks)), 2)]
    for both, i, j in sorted(confused, reverse=True)[:MOST_PAIRS]:
        if both > mass[i, i] + mass[j, j]:
            swapped = masks.copy()
            swapped[[i, j]] = masks[[j, i]]
            yield "labels swapped", (names[i], names[j]), f"{names[i]} and {names[j]} have changed places", swapped


def _shift(masks: Mask, chances: Floats) -> Iterator[Correction]:
    offset = best_offset(masks, chances)
    if any(offset):
        words = ", ".join(f"{n:+d} along {axis}" for n, axis in zip(offset, "ZYX", strict=True) if n)
        yield "label shifted", (), f"moving the label by {words} voxels fits better", moved(masks, offset)


def _flips(masks: Mask, chances: Floats) -> Iterator[Correction]:
    for axis, name in enumerate("ZYX", start=1):
        if masks.shape[axis] > 1:
            flipped = np.flip(masks, axis)
            flipped = moved(flipped, best_offset(flipped, chances))
            yield "label flipped", (), f"the label is flipped along {name}", flipped


def _filled_slices(masks: Mask, chances: Floats, names: Sequence[str]) -> Iterator[Correction]:
    """Slices without the label, between or next to slices with it, are filled by the prediction. A picture has none."""
    if masks.shape[1] == 1:
        return
    for k, name in enumerate(names):
        predicted = _argmax_mask(chances, k)
        for axis, letter in enumerate("ZYX"):
            others = tuple(other for other in range(3) if other != axis)
            has, should = masks[k].any(axis=others), predicted.sum(axis=others) >= SMALLEST_OBJECT
            lacking = np.flatnonzero(should & ~has)
            if not has.any() or not lacking.size:
                continue
            corrected = masks.copy()
            index = [slice(None)] * 3
            index[axis] = lacking  # type: ignore[call-overload]
            corrected[:, *index] &= ~predicted[tuple(index)] if _exclusive(masks) else True
            corrected[k][tuple(index)] |= predicted[tuple(index)]
            count = f"{lacking.size} slice{'s' * (lacking.size > 1)}"
            yield "slices missing", (name,), f"{name} is missing in {count} along {letter}", corrected


def _objects(masks: Mask, chances: Floats, names: Sequence[str]) -> Iterator[Correction]:
    """Objects that only the prediction has are added, those that only the label has are removed."""
    from skimage.measure import label, regionprops

    exclusive = _exclusive(masks)
    for k, name in enumerate(names):
        predicted = _argmax_mask(chances, k)
        for has, lacks, reason, words in (
            (predicted, masks[k], "object missing", "is predicted with a mean probability of"),
            (masks[k], predicted, "object extra", "is labelled where the prediction gives it"),
        ):
            for region in regionprops(label(has, connectivity=1)):
                inside = np.zeros(masks.shape[1:], bool)
                inside[tuple(region.coords.T)] = True
                if region.num_pixels < SMALLEST_OBJECT or (lacks & inside).any():
                    continue
                corrected = masks.copy()
                if reason == "object missing":
                    corrected[:, inside] &= not exclusive
                    corrected[k] |= inside
                else:
                    corrected[k] &= ~inside
                chance = float(chances[k][inside].mean())
                detail = f"an object of {int(region.num_pixels)} voxels of {name} {words} {chance:.2f}"
                yield reason, (name,), detail, corrected  # type: ignore[misc]


def best_offset(masks_kzyx: Mask, chances_kzyx: Floats) -> tuple[int, ...]:
    """The shift in voxels (Z, Y, X), of at most MARGIN each, after which the masks overlap the probabilities most.

    By cross-correlation: sum over labels of F^-1(F(p) conj(F(g))).
    """
    from scipy import fft

    shape = [fft.next_fast_len(n + MARGIN, real=True) for n in masks_kzyx.shape[1:]]
    total = np.zeros(shape)
    for mask, chance in zip(masks_kzyx, chances_kzyx, strict=True):
        if mask.any():
            product = fft.rfftn(chance, shape) * np.conj(fft.rfftn(mask.astype(np.float32), shape))
            total += fft.irfftn(product, shape)
    reach = [np.arange(-min(MARGIN, n - 1), min(MARGIN, n - 1) + 1) for n in masks_kzyx.shape[1:]]
    near = total[np.ix_(*reach)]
    peak = np.unravel_index(int(near.argmax()), near.shape)
    return tuple(int(steps[i]) for steps, i in zip(reach, peak, strict=True))


def moved(masks_kzyx: Mask, offset: Sequence[int]) -> Mask:
    """Masks shifted by whole voxels (Z, Y, X); what enters is empty."""
    result = np.zeros_like(masks_kzyx)
    to = tuple(slice(max(n, 0), size + min(n, 0)) for n, size in zip(offset, masks_kzyx.shape[1:], strict=True))
    of = tuple(slice(max(-n, 0), size + min(-n, 0)) for n, size in zip(offset, masks_kzyx.shape[1:], strict=True))
    result[:, *to] = masks_kzyx[:, *of]
    return result


def _argmax_mask(chances: Floats, k: int) -> Mask:
    """Where label k is predicted."""
    return np.asarray(chances[k] >= CONFIDENT)


def _exclusive(masks: Mask) -> bool:
    """Whether a voxel has one label at most: regions may overlap."""
    return bool((masks.sum(axis=0) <= 1).all())


def _box(interesting: Mask) -> tuple[slice, ...]:
    """The box around what is interesting, with a margin; the whole image where nothing is."""
    box = []
    for axis in range(interesting.ndim):
        others = tuple(other for other in range(interesting.ndim) if other != axis)
        inside = np.flatnonzero(interesting.any(axis=others))
        start, stop = (inside[0], inside[-1] + 1) if inside.size else (0, interesting.shape[axis])
        box.append(slice(max(0, int(start) - MARGIN), min(interesting.shape[axis], int(stop) + MARGIN)))
    return tuple(box)


def _middle(mask: Mask, corner: Sequence[int]) -> tuple[int, int, int]:
    """The voxel of a mask that is nearest to its centre of mass, which may itself lie outside."""
    voxels = np.argwhere(mask)
    nearest = voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    z, y, x = (int(n) + int(c) for n, c in zip(nearest, corner, strict=True))
    return z, y, x
