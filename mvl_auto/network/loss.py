"""The loss: soft Dice and cross-entropy, over classes or over regions, blind to ignored voxels.

Soft Dice (Milletari et al. 2016; nnU-Net, Isensee et al. 2021) is a mean over the classes that are there, without the
background: a class that no voxel belongs to would only thin out the gradient of the others, and cross-entropy already
punishes its false positives. With deep supervision the same loss is taken at the coarser levels, each weighing half of
the finer one; their targets are the shares of each class in a cell, so that thin structures do not vanish.

Shape letters: b batch, k outputs, c classes, n voxels in one row, z y x voxels (2D: y x).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mvl_auto.network.team import ALONE, Team
from mvl_auto.plans import IGNORE, LabelScheme

SMOOTH = 1e-5
COARSER_WEIGHT = 0.5
LEAST_SEEN = 1e-3  # annotated voxels: a batch without any is a loss of 0, not of 0 / 0


@dataclass(frozen=True)
class Targets:
    """How the classes of a label map become the targets of the network's outputs."""

    table: Tensor  # (classes, outputs) of 0 and 1: which outputs a voxel of each class belongs to
    softmax: bool  # exclusive classes; otherwise overlapping regions, each with a sigmoid of its own
    masked: bool  # whether voxels may be IGNORE
    batch_dice: bool = False  # Dice of all samples of a batch together, instead of a mean over the samples
    team: Team = ALONE  # the processes that the batch is shared by


def targets_of(scheme: LabelScheme, device: torch.device, batch_dice: bool = False, team: Team = ALONE) -> Targets:
    masked = scheme.ignore_value is not None
    return Targets(membership(scheme, device), not scheme.has_regions, masked, batch_dice, team)


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
    """Weighted mean of the loss over the levels. logits: finest first, each (b, k, z, y, x); label: classes and IGNORE,
    (b, z, y, x), at the finest grid.
    """
    total = loss_at_finest(logits[0], label_bzyx, targets)
    weights = 1.0
    shares_bczyx: Tensor | None = None
    for level, prediction in enumerate(logits[1:], start=1):
        if shares_bczyx is None:
            shares_bczyx = class_shares(label_bzyx, prediction.shape[2:], len(targets.table))
        else:
            shares_bczyx = _mean_of_cells(shares_bczyx, prediction.shape[2:])
        weight = COARSER_WEIGHT**level
        total = total + weight * loss_of_shares(prediction, shares_bczyx, targets)
        weights += weight
    return total / weights


def loss_at_finest(logits_bkzyx: Tensor, label_bzyx: Tensor, targets: Targets) -> Tensor:
    """Soft Dice loss plus cross-entropy (softmax) or binary cross-entropy (regions), of a label map."""
    # voxels run fastest: torch's softmax over a last axis of two or three entries is slower (benchmarks/layers.py)
    logits_bkn = logits_bkzyx.flatten(2).float().contiguous()
    label_bn = label_bzyx.flatten(1).long()
    if not targets.softmax:
        target_bkn = targets.table.T[:, label_bn.clamp_min(0)].movedim(0, 1)
        seen_bn = (label_bn != IGNORE).float() if targets.masked else None
        return _binary_loss(
            logits_bkn, target_bkn if seen_bn is None else target_bkn * seen_bn[:, None], seen_bn, targets
        )
    # without a one-hot target: it would be as large as the logits
    log_probability_bkn = logits_bkn.log_softmax(dim=1)
    if targets.masked:
        missed = F.nll_loss(log_probability_bkn, label_bn, ignore_index=IGNORE, reduction="sum")
        entropy = _share(missed, (label_bn != IGNORE).sum(), targets, least=1)
    else:
        entropy = _mean(F.nll_loss(log_probability_bkn, label_bn), label_bn.numel(), targets)
    overlaps, actual = [], []
    probability_bkn = log_probability_bkn[:, 1:].exp()
    if targets.masked:
        probability_bkn = probability_bkn * (label_bn != IGNORE)[:, None]
    # unbound, not sliced: the gradient of each slice would be as large as all of them
    for k, probability_bn in enumerate(probability_bkn.unbind(dim=1), start=1):
        mask_bn = label_bn == k
        overlaps.append((probability_bn * mask_bn).sum(dim=1))
        actual.append(mask_bn.sum(dim=1))
    predicted_bk = probability_bkn.sum(dim=2)
    if not overlaps:
        return entropy
    return entropy + dice_loss(torch.stack(overlaps, 1), predicted_bk, torch.stack(actual, 1).float(), targets)


def loss_of_shares(logits_bkzyx: Tensor, shares_bczyx: Tensor, targets: Targets) -> Tensor:
    """The same loss of targets between 0 and 1. shares: of the classes in each cell; what they lack of 1 is ignored."""
    logits_bkn = logits_bkzyx.flatten(2).float().contiguous()
    shares_bcn = shares_bczyx.flatten(2)
    seen_bn = shares_bcn.sum(dim=1) if targets.masked else None
    if not targets.softmax:
        target_bkn = torch.einsum("ck,bcn->bkn", targets.table, shares_bcn)
        return _binary_loss(logits_bkn, target_bkn, seen_bn, targets)
    log_probability_bkn = logits_bkn.log_softmax(dim=1)
    missed = -(log_probability_bkn * shares_bcn).sum()
    if seen_bn is None:
        entropy = _share(missed, shares_bcn[:, 0].numel(), targets)
    else:
        entropy = _share(missed, seen_bn.sum(), targets, least=LEAST_SEEN)
    if logits_bkn.shape[1] == 1:
        return entropy
    return entropy + _dice_of(log_probability_bkn[:, 1:].exp(), shares_bcn[:, 1:], seen_bn, targets)


def _binary_loss(logits_bkn: Tensor, target_bkn: Tensor, seen_bn: Tensor | None, targets: Targets) -> Tensor:
    """Of regions. seen: how much of each voxel is annotated, 0 to 1; the targets are shares of the whole voxel."""
    if seen_bn is None:
        entropy = _mean(F.binary_cross_entropy_with_logits(logits_bkn, target_bkn), logits_bkn.numel(), targets)
    else:  # softplus(x) - x t of a whole voxel
        entropy_bkn = F.softplus(logits_bkn) * seen_bn[:, None] - logits_bkn * target_bkn
        entropy = _share(entropy_bkn.sum(), seen_bn.sum(), targets, least=LEAST_SEEN, times=logits_bkn.shape[1])
    return entropy + _dice_of(logits_bkn.sigmoid(), target_bkn, seen_bn, targets)


def _dice_of(probability_bkn: Tensor, target_bkn: Tensor, seen_bn: Tensor | None, targets: Targets) -> Tensor:
    overlap_bk = (probability_bkn * target_bkn).sum(dim=2)
    predicted_bk = (probability_bkn if seen_bn is None else probability_bkn * seen_bn[:, None]).sum(dim=2)
    return dice_loss(overlap_bk, predicted_bk, target_bkn.sum(dim=2), targets)


def dice_loss(overlap_bk: Tensor, predicted_bk: Tensor, actual_bk: Tensor, targets: Targets) -> Tensor:
    """1 - the mean soft Dice of the outputs that are there; 0 where none is. All three are sums over voxels."""
    if targets.batch_dice:
        overlap_bk, predicted_bk, actual_bk = (
            targets.team.total(x.sum(dim=0, keepdim=True)) for x in (overlap_bk, predicted_bk, actual_bk)
        )
    there_bk = (actual_bk > 0).float()
    dice_bk = (2 * overlap_bk + SMOOTH) / (predicted_bk + actual_bk + SMOOTH)
    missed = ((1 - dice_bk) * there_bk).sum()
    if targets.batch_dice:  # of all processes already
        return missed / there_bk.sum().clamp_min(1)
    return _share(missed, there_bk.sum(), targets, least=1)


def _share(part: Tensor, whole: Tensor | int, targets: Targets, least: float = 0, times: int = 1) -> Tensor:
    """part / (whole * times), both added up over the processes; the whole is taken as at least `least`."""
    if targets.team.size > 1:
        whole = torch.as_tensor(whole, dtype=part.dtype, device=part.device)
        part, whole = targets.team.total(torch.stack([part, whole])).unbind()
    if isinstance(whole, Tensor):
        whole = whole.clamp_min(least)
    return part / (whole * times)


def _mean(mean: Tensor, count: int, targets: Targets) -> Tensor:
    """The mean over all processes. mean: over the `count` values of this one."""
    return mean if targets.team.size == 1 else _share(mean * count, count, targets)


def class_shares(label_bzyx: Tensor, grid: torch.Size, classes: int) -> Tensor:
    """(b, c, *grid): the share of each class in each cell of a coarser grid, the mean of its one-hot map there."""
    shares = [_mean_of_cells((label_bzyx == k).float()[:, None], grid) for k in range(classes)]
    return torch.cat(shares, dim=1)


def _mean_of_cells(maps_bczyx: Tensor, grid: torch.Size) -> Tensor:
    steps = [fine // coarse for fine, coarse in zip(maps_bczyx.shape[2:], grid, strict=True)]
    pool = F.avg_pool2d if len(steps) == 2 else F.avg_pool3d
    return pool(maps_bczyx, steps)
