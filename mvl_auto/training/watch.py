"""How well a run does while it trains: the Dice of its averaged network on the same few patches of validation cases.

A look costs about one forward pass; looks are so rare that they take no more than LOOK_SHARE of the time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from mvl_auto.network.loss import class_shares
from mvl_auto.network.step import Learner, StepContext
from mvl_auto.plans import LabelScheme
from mvl_auto.training.patches import Batch, Patches

LOOK_SHARE = 0.02  # of the time
MOST_PATCHES = 8
COLLAPSED_AFTER = 0.25  # share of the run: a class that is not predicted by then is warned about

log = logging.getLogger(__name__)


@dataclass
class Watch:
    """batch: of validation patches, on the device. dice: of each foreground name at the last look, NaN where the
    patches do not show it.
    """

    batch: Batch
    labels: LabelScheme
    context: StepContext
    per_name: dict[str, float] = field(default_factory=dict)
    spent: float = 0.0  # seconds
    warned: set[str] = field(default_factory=set)

    @property
    def dice(self) -> float | None:
        values = [value for value in self.per_name.values() if not np.isnan(value)]
        return float(np.mean(values)) if values else None

    def look(self, learner: Learner, share_done: float, elapsed: float) -> float | None:
        """The mean Dice, or None where it is too early for another look. elapsed: seconds of the session."""
        if self.spent > LOOK_SHARE * elapsed and share_done < 1:
            return None
        begun = time.monotonic()
        self.per_name = patch_dice(learner, self.batch, self.labels, self.context)
        self.spent += time.monotonic() - begun
        self._warn(share_done)
        return self.dice

    def _warn(self, share_done: float) -> None:
        """Once for each class, when a good part of the run is over."""
        if share_done < COLLAPSED_AFTER:
            return
        for name, value in self.per_name.items():
            if value == 0 and name not in self.warned:
                self.warned.add(name)
                log.warning(
                    "after %.0f %% of the training the network finds no voxel of %s in the validation patches: is it "
                    "labelled as in the training cases, and large enough to be seen at this voxel size?",
                    100 * share_done,
                    name,
                )


def validation_batch(patches: Patches, names: Sequence[str]) -> Batch:
    """A patch of each of the first cases, around a foreground voxel, without any augmentation: always the same."""
    samples = [patches.plain_sample(name) for name in names[:MOST_PATCHES]]
    images, labels = zip(*samples, strict=True)
    cases = torch.arange(len(samples), dtype=torch.int32)
    return Batch(torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)), cases)


@torch.no_grad()
def patch_dice(learner: Learner, batch: Batch, labels: LabelScheme, context: StepContext) -> dict[str, float]:
    """Dice of the averaged network over all patches together, by foreground name; NaN where neither has a voxel.

    One patch at a time: it must not need more memory than a step.
    """
    network, averaged = learner.network, learner.average.tensors()
    outputs = labels.num_outputs
    overlap, sizes = torch.zeros(outputs), torch.zeros(outputs)
    network.eval()
    try:
        for place in range(len(batch.image)):
            image = batch.image[place : place + 1].to(context.device)
            label = batch.label[place : place + 1].to(context.device)
            with context.precision:
                logits = functional_call(network, averaged, (image,))
            predicted = _masks(logits.float(), labels)
            shares = class_shares(label, label.shape[1:], len(labels.class_values))
            seen = shares.sum(dim=1, keepdim=True)
            actual_kn = context.targets.table.T @ shares[0].flatten(1)
            predicted_kn = (predicted * seen)[0].flatten(1)
            overlap += (predicted_kn * actual_kn).sum(dim=1).cpu()
            sizes += (predicted_kn + actual_kn).sum(dim=1).cpu()
    finally:
        network.train()
    dice = (2 * overlap / sizes).tolist()  # 0 / 0 is NaN
    first = 0 if labels.has_regions else 1
    return dict(zip(labels.foreground_names, dice[first:], strict=True))


def _masks(logits_bkzyx: Tensor, labels: LabelScheme) -> Tensor:
    """(b, k, z, y, x) of 0 and 1: what is predicted."""
    if labels.has_regions:
        return (logits_bkzyx > 0).float()
    best = logits_bkzyx.argmax(dim=1, keepdim=True)
    return torch.zeros_like(logits_bkzyx).scatter_(1, best, 1.0)
