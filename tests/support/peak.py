"""The memory that a training step really takes, from the log of torch's allocator."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from mvl_auto.llm import load_block
from mvl_auto.network import build_network
from mvl_auto.network.device import store_block
from mvl_auto.network.layers import Normalisation, keep_in_float32
from mvl_auto.network.loss import deep_loss, targets_of
from mvl_auto.network.optimizer import Average, make_optimizer
from mvl_auto.planners import TrainingStep
from mvl_auto.plans import IGNORE

CONVOLUTIONS = ("aten::slow_conv", "aten::convolution_backward")  # torch's names of those that unfold their input


def real_peak(step: TrainingStep, blocks: Path) -> int:
    """Bytes at the peak of two training steps on the CPU. blocks: folder of the block bank.

    Where the labels have an ignore value every voxel is ignored. A CPU that cannot multiply in bfloat16 (it has no
    AVX512) unfolds the input of a convolution into a matrix, which no GPU does: that matrix is not counted.
    """
    settings = step.settings
    block = load_block(settings.llm.source, "last", blocks).to(torch.bfloat16) if settings.llm.present else None
    network = build_network(settings, step.channels, step.outputs, block).train()
    keep_in_float32(network, Normalisation)  # as autocast on a GPU has it
    store_block(network, torch.autocast("cpu", torch.bfloat16, enabled=step.mixed_precision))
    optimizer, average = make_optimizer(network), Average(network)
    image = torch.zeros(step.batch_size, step.channels, *step.patch_size)
    label = torch.full((step.batch_size, *step.patch_size), IGNORE if step.is_masked else 0, dtype=torch.int16)
    targets = targets_of(step.labels, image.device)

    def take_step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if step.mixed_precision else nullcontext():
            loss = deep_loss(network(image), label, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update(1)

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as log:
        take_step()  # logged too: of what was there before, the log does not see when it is let go
        take_step()
    events = sorted(log.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    memory = [event for event in events if event.name() == "[memory]"]
    unfolds = step.mixed_precision and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    unfolded = (
        _unfolded([event for event in events if event.name().startswith(CONVOLUTIONS)], memory) if unfolds else ()
    )
    now = peak = 0
    for place, event in enumerate(memory):
        now += 0 if place in unfolded else event.nbytes()
        peak = max(peak, now)
    before = [image, label, *average.values, *network.parameters()]
    return sum(tensor.nbytes for tensor in before) + peak


def _unfolded(convolutions: list[Any], memory: list[Any]) -> set[int]:
    """Places in `memory` where a convolution takes memory that it gives back itself, and where it does."""
    found = set()
    for operation in convolutions:
        end = operation.start_ns() + operation.duration_ns()
        taken: dict[int, list[int]] = {}  # bytes -> places
        for place, event in enumerate(memory):
            if not operation.start_ns() <= event.start_ns() <= end:
                continue
            if event.nbytes() > 0:
                taken.setdefault(event.nbytes(), []).append(place)
            elif taken.get(-event.nbytes()):
                found |= {place, taken[-event.nbytes()].pop()}
    return found
