"""The loss: soft Dice and cross-entropy, over classes or over regions, blind to ignored voxels.

Soft Dice as nnU-Net's (Isensee et al. 2021): per sample and class, without the background, smoothed. With
deep supervision the same loss is taken at the coarser levels, each weighing half of the finer one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mvl_auto.plans import IGNORE, LabelScheme

SMOOTH = 1e-5
COARSER_WEIGHT = 0.5


def membership(scheme: LabelScheme, device: torch.device) -> Tensor:
    """(classes, outputs) of 0 and 1: which outputs a voxel of each class belongs to."""
    classes = len(scheme.class_values)
    if not scheme.has_regions:
        return torch.eye(classes, device=device)
    table = torch.zeros(classes, len(scheme.regions), device=device)
    for output, members in enumerate(scheme.regions):
        table[list(members), output] = 1
    return table


def deep_loss(logits: list[Tensor], label_bzyx: Tensor, table: Tensor, softmax: bool) -> Tensor:
    """Weighted mean of the loss over the levels. logits: finest first; label at the finest grid."""
    total, weights = logits[0].new_zeros(()), 0.0
    for level, prediction in enumerate(logits):
        weight = COARSER_WEIGHT**level
        total = total + weight * dice_and_cross_entropy(prediction, at_grid(label_bzyx, prediction), table, softmax)
        weights += weight
    return total / weights


def at_grid(label_bzyx: Tensor, prediction_bkzyx: Tensor) -> Tensor:
    """The label on a coarser grid: its value at the middle of each cell."""
    steps = [fine // coarse for fine, coarse in zip(label_bzyx.shape[1:], prediction_bkzyx.shape[2:], strict=True)]
    return label_bzyx[(slice(None), *(slice(step // 2, None, step) for step in steps))]


def dice_and_cross_entropy(logits_bkzyx: Tensor, label_bzyx: Tensor, table: Tensor, softmax: bool) -> Tensor:
    """Mean soft Dice loss plus mean cross-entropy (softmax) or binary cross-entropy (regions).

    logits: (b, k, z, y, x); label: (b, z, y, x) classes and IGNORE; table: membership().
    """
    logits = logits_bkzyx.movedim(1, -1).flatten(1, -2).float()
    label = label_bzyx.flatten(1).long()
    seen = label != IGNORE
    all_seen = bool(seen.all()) if label.device.type == "cpu" else False
    target = table[label.clamp_min(0)]
    if softmax:
        entropy = F.cross_entropy(logits.flatten(0, 1), label.flatten(), ignore_index=IGNORE)
        probability = logits.softmax(dim=-1)[..., 1:]
        target = target[..., 1:]
    else:
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=-1)
        entropy = (each * seen).sum() / seen.sum().clamp_min(1)
        probability = logits.sigmoid()
    if not all_seen:
        probability, target = probability * seen[..., None], target * seen[..., None]
    overlap = (probability * target).sum(dim=1)
    size = probability.sum(dim=1) + target.sum(dim=1)
    dice = (2 * overlap + SMOOTH) / (size + SMOOTH)
    return entropy.nan_to_num(0.0) if _nothing_seen(seen, all_seen) else entropy + 1 - dice.mean()


def _nothing_seen(seen: Tensor, all_seen: bool) -> bool:
    return not all_seen and seen.device.type == "cpu" and not bool(seen.any())
