"""One training step: forward, loss, backward, clipping, optimizer, moving average.

The training loop takes these steps, and the planner measures the time and the memory that they take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvl_auto.network.device import autocast
from mvl_auto.network.loss import Targets, deep_loss, targets_of
from mvl_auto.network.optimizer import CLIP_NORM, RATE, Average, make_optimizer, set_learning_rate
from mvl_auto.network.team import ALONE, Team
from mvl_auto.plans import LabelScheme

Objective = Callable[[nn.Module, Tensor, Tensor, Targets], Tensor]  # network, image, label, targets -> loss


def segmentation_loss(network: nn.Module, image_bczyx: Tensor, label_bzyx: Tensor, targets: Targets) -> Tensor:
    return deep_loss(network(image_bczyx), label_bzyx, targets)


@dataclass(frozen=True)
class StepContext:
    """What stays the same in every step of a run.

    parts: into which a batch is cut, one forward and backward pass each, to need less memory. objective: what is made
    small; another one may read the label as it likes (network/reconstruction.py).
    """

    targets: Targets
    device: torch.device
    precision: torch.autocast
    scaler: torch.amp.GradScaler | None = None  # of the loss, where the precision is float16
    parts: int = 1
    objective: Objective = segmentation_loss

    @property
    def team(self) -> Team:
        return self.targets.team


@dataclass
class Learner:
    """What a step changes. parallel: the network as it computes in steps (network/team.py)."""

    network: nn.Module
    optimizer: torch.optim.AdamW
    average: Average
    parallel: nn.Module
    step: int = 0  # steps taken, those that were left out included

    @classmethod
    def of(cls, network: nn.Module, team: Team = ALONE) -> Learner:
        """A fresh optimizer and moving average for the network, which is in training mode on its device."""
        parallel = team.parallel(network)  # before the average copies its weights: those of the one that leads
        return cls(network, make_optimizer(network), Average(network), parallel)


def step_context(
    labels: LabelScheme, device: torch.device, batch_dice: bool = False, team: Team = ALONE
) -> StepContext:
    """Mixed precision where it is faster; on a GPU without bfloat16 in float16, with loss scaling."""
    precision = autocast(device, training=True)
    scaled = device.type == "cuda" and precision.fast_dtype == torch.float16
    scaler = torch.amp.GradScaler("cuda") if scaled else None
    return StepContext(targets_of(labels, device, batch_dice, team), device, precision, scaler)


def training_step(
    learner: Learner, image_bczyx: Tensor, label_bzyx: Tensor, context: StepContext, learning_rate: float
) -> Tensor:
    """Take one step on a batch that lies on the device. Returns the loss, a scalar on the device, without gradient.

    Where the loss or a gradient is not finite, no weight changes and NaN is returned; but infinite gradients of a
    scaled loss are the scaler's business: it leaves out the step and scales less from then on.
    """
    optimizer, scaler = learner.optimizer, context.scaler
    set_learning_rate(optimizer, learning_rate)
    optimizer.zero_grad(set_to_none=True)
    with _left_out(p for group in optimizer.param_groups if group[RATE] == 0 for p in group["params"]):
        loss = add_gradients(learner.parallel, image_bczyx, label_bzyx, context)
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(weights, CLIP_NORM)
    finite = loss.isfinite() & (norm.isfinite() if scaler is None else True)
    learner.step += 1
    if not finite:
        if scaler is not None:
            scaler.update()
        return loss * torch.nan
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    learner.average.update(learner.step)
    return loss


def add_gradients(network: nn.Module, image_bczyx: Tensor, label_bzyx: Tensor, context: StepContext) -> Tensor:
    """Add the gradients of the mean loss of a batch to those of the weights; returns that loss.

    Its parts weigh by their samples in all processes, each of which has cut its share into as many.
    """
    total = image_bczyx.new_zeros((), dtype=torch.float32)
    images, labels = image_bczyx.chunk(context.parts), label_bzyx.chunk(context.parts)
    samples = context.team.total(torch.tensor([float(len(image)) for image in images], device=image_bczyx.device))
    for image, label, share in zip(images, labels, samples / samples.sum(), strict=True):
        with context.precision:
            loss = context.objective(network, image, label, context.targets) * share
        scaled = loss if context.team.size == 1 else loss * context.team.size  # their gradients are averaged
        (scaled if context.scaler is None else context.scaler.scale(scaled)).backward()
        total += loss.detach()
    return total


@contextmanager
def _left_out(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """No gradients of these weights inside: without one the optimizer leaves them, and their moments, as they are."""
    still = list(weights)
    try:
        for weight in still:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in still:
            weight.requires_grad_(True)
