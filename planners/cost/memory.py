"""What a training step of a network takes in memory, measured without taking it.

The network is built of fake tensors, which have a shape and no values, and goes once forward and backward. Every
storage that comes into being counts until it is let go; the peak is what torch's allocator would report. The optimizer
and the moving average are added by arithmetic.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mvl_auto.network import MedVisionLlama
from mvl_auto.network.layers import Normalisation, keep_in_float32
from mvl_auto.planners.cost.short_ways import SHORT_WAYS
from mvl_auto.planners.cost.stand_in import around, stand_in, step_loss
from mvl_auto.plans import BlockSizes, NetworkSettings

STATE_COPIES = 3  # of the trainable weights: two moments of Adam, and the moving average
CPU = torch.device("cpu")


def training_memory(
    settings: NetworkSettings,
    patch_size: Sequence[int],
    batch_size: int,
    channels: int,
    outputs: int,
    mixed_precision: bool = False,
    block: BlockSizes | None = None,
) -> int:
    """Peak bytes of tensors in a training step. channels: of the image. outputs: of the logits.

    mixed_precision: bfloat16 where a GPU's autocast uses it. block: what is known of the frozen one beyond the
    settings.
    """
    with _no_garbage_collection(), FakeTensorMode() as fakes, Allocations(fakes) as allocations:
        network = MedVisionLlama(around(settings), channels, outputs, cast(Any, stand_in(settings, block)))
        network.train()
        keep_in_float32(network, Normalisation)
        image = torch.zeros(batch_size, channels, *patch_size)
        label = torch.zeros(batch_size, *patch_size, dtype=torch.int16)
        state = sum(weight.numel() * weight.element_size() for weight in network.parameters() if weight.requires_grad)
        precision = torch.autocast("cpu", torch.bfloat16) if mixed_precision else nullcontext()
        with precision:
            with allocations.holding(state):  # the gradients of the step before, let go ahead of the new ones
                loss = step_loss(network(image), label, masked=mixed_precision)
            loss.backward()
    return allocations.peak + STATE_COPIES * state


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Nothing here waits for it, and a pass over all that torch has loaded takes a fifth of a second."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Allocations(TorchDispatchMode):
    """Counts the bytes of the storages that are alive, and the most that ever were.

    fakes: the mode that makes the tensors; operations with a short way (planners.short_ways) do without it.
    """

    def __init__(self, fakes: FakeTensorMode) -> None:
        super().__init__()
        self.fakes = fakes
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
            weakref.finalize(storage, self._let_go, key)

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count `size` bytes more for a while."""
        self.now += size
        self.peak = max(self.peak, self.now)
        yield
        self.now -= size

    def _let_go(self, key: int) -> None:
        self.now -= self.alive.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:  # the engine asks every gradient: half of all calls
            return args[0].fake_device
        if (short_way := SHORT_WAYS.get(func)) is None:
            result = func(*args, **(kwargs or {}))
        else:
            with in_kernel_invocation_manager(self.fakes):
                result = short_way(*args, **(kwargs or {}))
            result = self._with_device(result)
        for leaf in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return result

    def _with_device(self, result: Any) -> Any:
        """What came without one, from a short way, as a fake tensor that has."""
        if isinstance(result, FakeTensor) or result is None:
            return result
        if isinstance(result, Tensor):
            return FakeTensor(self.fakes, result, CPU)
        return type(result)(self._with_device(part) for part in result)


def gpu_memory(device: str | None = None) -> int | None:
    """Bytes free on a GPU; None where there is none, or not this one."""
    if not torch.cuda.is_available():
        return None
    index = int(device.split(":")[1]) if device and ":" in device else 0
    return int(torch.cuda.mem_get_info(index)[0]) if index < torch.cuda.device_count() else None
