"""How long a training step takes on this device: a few real steps, timed.

The network is the planned one, with random numbers for the weights of the frozen block, the image and the label: they
do not change the time. Making batches is left out, as worker processes do that at the same time.
"""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Any, cast

from mvl_auto.errors import MvlError
from mvl_auto.planners.cost.step import TrainingStep

if TYPE_CHECKING:
    import torch

LONG = 0.8  # seconds of a step to which its warming up (a tenth of a second) makes little difference
WARM_UP = 1  # steps: memory is taken, kernels are chosen
TIMED = 3  # steps at most, of which the median counts
ENOUGH = 0.4  # seconds of them: longer steps differ less from each other, and planning shall not take half a minute


def time_step(step: TrainingStep, device: str = "auto") -> float:
    """Median seconds of a training step on a device ("auto", "cpu", "cuda", "cuda:1").

    Raises MvlError when the device has too little memory for it.
    """
    import torch

    from mvl_auto.network.device import choose_device

    on = choose_device(device)
    try:
        return _median_seconds(step, on)
    except torch.OutOfMemoryError as error:
        raise MvlError(
            f"{on} ran out of memory while a training step was timed",
            remedy="Give less with --memory, or free memory on the device.",
        ) from error


def _median_seconds(step: TrainingStep, device: torch.device) -> float:
    import torch

    from mvl_auto.network import build_network
    from mvl_auto.network.device import place
    from mvl_auto.network.step import Learner, step_context, training_step
    from mvl_auto.planners.cost.dummy import DummyBlock, settings_for_dummy

    block = cast(Any, DummyBlock.for_step(step))
    network = build_network(settings_for_dummy(step.settings), step.channels, step.outputs, block).train()
    network = place(network, device)
    learner, context = Learner.of(network), step_context(step.labels, device)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(step.batch_size, step.channels, *step.patch_size, generator=generator).to(device)
    label = torch.zeros(step.batch_size, *step.patch_size, dtype=torch.int16, device=device)
    taken = []
    for _ in range(WARM_UP + TIMED):
        begun = time.perf_counter()
        training_step(learner, image, label, context, learning_rate=0.0)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - begun)
        if taken[0] >= LONG or sum(taken[WARM_UP:]) >= ENOUGH:
            break
    return median(taken[WARM_UP:] or taken)
