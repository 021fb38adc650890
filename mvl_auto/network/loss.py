"""The loss: soft Dice and cross-entropy, over classes or over regions, blind to ignored voxels.

Soft Dice as nnU-Net's (Isensee et al. 2021): per sample and class, without the background, smoothed. With
deep supervision the same loss is taken at the coarser levels, each weighing half of the finer one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mvl_auto.plans import IGNORE, LabelScheme

SMOOTH = 1e-5
COARSER_WEIGHT = 0.5


@dataclass(frozen=True)
class Targets:
    """How the classes of a label map become the targets of the network's outputs."""

    table: Tensor  # (classes, outputs) of 0 and 1: which outputs a voxel of each class belongs to
    softmax: bool  # exclusive classes; otherwise overlapping regions, each with a sigmoid of its own
    masked: bool  # whether voxels may be IGNORE


def targets_of(scheme: LabelScheme, device: torch.device) -> Targets:
    return Targets(membership(scheme, device), softmax=not scheme.has_regions, masked=scheme.ignore_value is not None)


def membership(scheme: LabelScheme, device: torch.device) -> Tensor:
    """(classes, outputs) of 0 and 1: which outputs a voxel of each class belongs to."""
    classes = len(scheme.class_values)
    if not scheme.has_regions:
        return torch.eye(classes, device=device)
    table = torch.zeros(classes, len(scheme.regions), device=device)
    for output, members in enumerate(scheme.regions):
        table[list(members), output] = 1
    return table


def deep_loss(logits: list[Tensor], label_bzyx: Tensor, targets: Targets) -> Tensor:
    """Weighted mean of the loss over the levels. logits: finest first; label at the finest grid."""
    total, weights = logits[0].new_zeros(()), 0.0
    for level, prediction in enumerate(logits):
        weight = COARSER_WEIGHT**level
        total = total + weight * dice_and_cross_entropy(prediction, at_grid(label_bzyx, prediction), targets)
        weights += weight
    return total / weights


def at_grid(label_bzyx: Tensor, prediction_bkzyx: Tensor) -> Tensor:
    """The label on a coarser grid: its value at the middle of each cell."""
    steps = [fine // coarse for fine, coarse in zip(label_bzyx.shape[1:], prediction_bkzyx.shape[2:], strict=True)]
    return label_bzyx[(slice(None), *(slice(step // 2, None, step) for step in steps))]


def dice_and_cross_entropy(logits_bkzyx: Tensor, label_bzyx: Tensor, targets: Targets) -> Tensor:
    """Mean soft Dice loss plus mean cross-entropy (softmax) or binary cross-entropy (regions).

    logits: (b, k, z, y, x); label: (b, z, y, x) classes, and IGNORE where targets.masked.
    """
    # voxels run fastest: torch's softmax over a last axis of two or three entries takes five times as long
    logits_bkn = logits_bkzyx.flatten(2).float().contiguous()
    label_bn = label_bzyx.flatten(1).long()
    seen_bn = label_bn != IGNORE
    target_bkn = targets.table.T[:, label_bn.clamp_min(0)].movedim(0, 1)
    if targets.softmax:
        log_probability_bkn = logits_bkn.log_softmax(dim=1)
        entropy_bn = -(log_probability_bkn * target_bkn).sum(dim=1)
        probability_bkn, target_bkn = log_probability_bkn[:, 1:].exp(), target_bkn[:, 1:]
    else:
        entropy_bn = F.binary_cross_entropy_with_logits(logits_bkn, target_bkn, reduction="none").mean(dim=1)
        probability_bkn = logits_bkn.sigmoid()
    if targets.masked:
        entropy_bn = entropy_bn * seen_bn
        probability_bkn, target_bkn = probability_bkn * seen_bn[:, None], target_bkn * seen_bn[:, None]
    entropy = entropy_bn.sum() / seen_bn.sum().clamp_min(1)
    overlap_bk = (probability_bkn * target_bkn).sum(dim=2)
    size_bk = probability_bkn.sum(dim=2) + target_bkn.sum(dim=2)
    dice = (2 * overlap_bk + SMOOTH) / (size_bk + SMOOTH)
    return entropy + 1 - dice.mean()
