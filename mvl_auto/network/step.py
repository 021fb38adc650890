"""One training step: forward, loss, backward, clipping, optimizer, moving average.

The training loop takes these steps, and the planner measures the time and the memory that they take.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvl_auto.network.device import autocast
from mvl_auto.network.loss import Targets, deep_loss, targets_of
from mvl_auto.network.optimizer import CLIP_NORM, Average, make_optimizer
from mvl_auto.plans import LabelScheme


@dataclass(frozen=True)
class StepContext:
    """What stays the same in every step of a run."""

    targets: Targets
    device: torch.device
    precision: torch.autocast
    scaler: torch.amp.GradScaler | None = None  # of the loss, where the precision is float16


@dataclass
class Learner:
    """What a step changes."""

    network: nn.Module
    optimizer: torch.optim.AdamW
    average: Average
    step: int = 0  # optimizer steps taken

    @classmethod
    def of(cls, network: nn.Module) -> Learner:
        """A fresh optimizer and moving average for the network, which is in training mode on its device."""
        return cls(network, make_optimizer(network), Average(network))


def step_context(labels: LabelScheme, device: torch.device) -> StepContext:
    """Mixed precision where it is faster; on a GPU without bfloat16 in float16, with loss scaling."""
    precision = autocast(device, training=True)
    scaled = device.type == "cuda" and precision.fast_dtype == torch.float16
    return StepContext(targets_of(labels, device), device, precision, torch.amp.GradScaler("cuda") if scaled else None)


def training_step(
    learner: Learner, image_bczyx: Tensor, label_bzyx: Tensor, context: StepContext, learning_rate: float
) -> Tensor:
    """Take one step on a batch that lies on the device. Returns the loss, a scalar on the device, without gradient."""
    optimizer, scaler = learner.optimizer, context.scaler
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    with context.precision:
        loss = deep_loss(learner.network(image_bczyx), label_bzyx, context.targets)
    optimizer.zero_grad(set_to_none=True)
    (loss if scaler is None else scaler.scale(loss)).backward()
    if scaler is not None:
        scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], CLIP_NORM)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    learner.step += 1
    learner.average.update(learner.step)
    return loss.detach()
