"""The memory of a training step, measured without allocating it.

The network is built of torch's fake tensors, which have a shape and no values, and runs once forward and backward.
Every storage counts from its first use until it is freed; the peak is what torch's allocator would report. The
optimizer's state and the moving average are added by arithmetic.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mvl_auto.network import MedVisionLlama
from mvl_auto.network.device import store_block
from mvl_auto.network.layers import Normalisation, keep_in_float32
from mvl_auto.network.loss import deep_loss, targets_of
from mvl_auto.network.optimizer import trainable
from mvl_auto.planners.cost.dummy import DummyBlock, settings_for_dummy
from mvl_auto.planners.cost.step import TrainingStep

STATE_COPIES = 3  # of the trainable weights: two moments of Adam, and the moving average


def training_memory(step: TrainingStep) -> int:
    """Peak bytes of tensors in a training step."""
    with FakeTensorMode(), Allocations() as allocations:
        network = _build(step).train()
        keep_in_float32(network, Normalisation)
        store_block(network, torch.autocast("cpu", torch.bfloat16, enabled=step.mixed_precision))
        image = torch.zeros(step.batch_size, step.channels, *step.patch_size)
        label = torch.zeros(step.batch_size, *step.patch_size, dtype=torch.int16)
        targets = targets_of(step.labels, image.device)
        state = sum(weight.nbytes for weight in trainable(network).values())
        with torch.autocast("cpu", torch.bfloat16) if step.mixed_precision else nullcontext():
            with allocations.holding(state):  # the gradients of the step before, freed ahead of the new ones
                loss = deep_loss(network(image), label, targets)
            loss.backward()
    return allocations.peak + STATE_COPIES * state


def _build(step: TrainingStep) -> MedVisionLlama:
    block = cast(Any, DummyBlock.for_step(step))  # not kept where the network has none: mappers_only, mlp
    return MedVisionLlama(settings_for_dummy(step.settings), step.channels, step.outputs, block)


class Allocations(TorchDispatchMode):
    """Counts the bytes of the storages that are alive, and the most that ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self.now = 0
        self.alive: dict[int, int] = {}

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            self.now += self.alive[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._remove, key)

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count `size` bytes more for a while."""
        self.now += size
        self.peak = max(self.peak, self.now)
        yield
        self.now -= size

    def _remove(self, key: int) -> None:
        self.now -= self.alive.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return result


def gpu_memory(device: str | None = None) -> int | None:
    """Bytes free on a GPU; None where there is none, or not this one."""
    if not torch.cuda.is_available():
        return None
    index = int(device.split(":")[1]) if device and ":" in device else 0
    return int(torch.cuda.mem_get_info(index)[0]) if index < torch.cuda.device_count() else None
