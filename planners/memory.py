"""What a training step of a network takes in memory, measured without taking it.

The network is built of fake tensors, which have a shape and no values, and goes once forward and backward. Every
storage that comes into being counts until it is let go; the peak is what torch's allocator would report. The optimizer
and the moving average are added by arithmetic.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mvl_auto.network import MedVisionLlama
from mvl_auto.plans import NetworkSettings

STATE_COPIES = 3  # of the trainable weights: two moments of Adam, and the moving average
HEAD_DIM, KV_SHARE, FFN_RATIO = 64, 3, 8 / 3  # SmolLM2-135M: 9 heads of 64, 3 for keys and values, 1536 / 576


def training_memory(
    settings: NetworkSettings,
    patch_size: Sequence[int],
    batch_size: int,
    channels: int,
    outputs: int,
    mixed_precision: bool = False,
) -> int:
    """Peak bytes of tensors in a training step. channels: of the image. outputs: of the logits.

    mixed_precision: bfloat16 where autocast uses it, as on a GPU.
    """
    with FakeTensorMode():
        network = MedVisionLlama(settings, channels, outputs, cast(Any, _stand_in(settings)))
        network.train()
        image = torch.zeros(batch_size, channels, *patch_size)
        label = torch.zeros(batch_size, *patch_size, dtype=torch.int16)
        trainable = [weight for weight in network.parameters() if weight.requires_grad]
        precision = torch.autocast("cpu", torch.bfloat16) if mixed_precision else nullcontext()
        with Allocations() as allocations, precision:
            for tensor in (*network.parameters(), *network.buffers(), image, label):
                allocations.add(tensor)
            for weight in trainable:  # of the step before: let go between forward and backward
                weight.grad = torch.zeros_like(weight)
            loss = _loss(network(image), label)
            for weight in trainable:
                weight.grad = None
            loss.backward()
    state = sum(weight.numel() * weight.element_size() for weight in trainable)
    return allocations.peak + STATE_COPIES * state


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
            weakref.finalize(storage, self._let_go, key)

    def _let_go(self, key: int) -> None:
        self.now -= self.alive.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return result


def _loss(logits: list[Tensor], label_bzyx: Tensor) -> Tensor:
    """Dice and cross-entropy at every level: the tensors of mvl_auto.training.loss, not its numbers."""
    total = logits[0].new_zeros(())
    for level in logits:
        steps = [fine // coarse for fine, coarse in zip(label_bzyx.shape[1:], level.shape[2:], strict=True)]
        label = label_bzyx[(slice(None), *(slice(step // 2, None, step) for step in steps))].flatten(1).long()
        flat = level.movedim(1, -1).flatten(1, -2).float()
        seen = label != -1
        target = torch.eye(flat.shape[-1])[label]
        entropy = F.cross_entropy(flat.flatten(0, 1), label.flatten())
        probability = flat.softmax(dim=-1)[..., 1:] * seen[..., None]
        target = target[..., 1:] * seen[..., None]
        overlap = (probability * target).sum(dim=1)
        total = total + entropy - (overlap / (probability.sum(dim=1) + target.sum(dim=1))).mean()
    return total


def _stand_in(settings: NetworkSettings) -> nn.Module | None:
    if not settings.llm.present:
        return None
    if settings.llm.hidden_size is None:
        raise ValueError("the block's hidden_size must be known to measure a network with it")
    return StandInBlock(settings.llm.hidden_size)


class StandInBlock(nn.Module):
    """The tensors of a frozen Llama layer (mvl_auto.llm.block), without its numbers: bfloat16 weights, cast on use.

    b batch, n tokens, d hidden size. Positions off, bidirectional.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.card = SimpleNamespace(hidden_size=hidden)
        self.head_dim = HEAD_DIM if hidden % HEAD_DIM == 0 else hidden
        heads = hidden // self.head_dim
        narrow = max(1, heads // KV_SHARE) * self.head_dim
        inner = round(hidden * FFN_RATIO)
        shapes = {
            "query": (hidden, hidden),
            "key": (narrow, hidden),
            "value": (narrow, hidden),
            "out": (hidden, hidden),
            "gate": (inner, hidden),
            "up": (inner, hidden),
            "down": (hidden, inner),
            "norm_1": (hidden,),
            "norm_2": (hidden,),
            "norm_3": (hidden,),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, dtype=torch.bfloat16), requires_grad=False))

    def forward(
        self, hidden_bnd: Tensor, *, causal: bool = False, rotary: bool = False, final_norm: bool = True
    ) -> Tensor:
        w = {name: weight.to(hidden_bnd.dtype) for name, weight in self.named_parameters()}
        x = self._norm(hidden_bnd, w["norm_1"])
        q, k, v = (
            F.linear(x, w[name]).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        q, k = self._rotate(q), self._rotate(k)
        k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = hidden_bnd + F.linear(attended, w["out"])
        y = self._norm(x, w["norm_2"])
        y = x + F.linear(F.silu(F.linear(y, w["gate"])) * F.linear(y, w["up"]), w["down"])
        return self._norm(y, w["norm_3"]) if final_norm else y

    def _norm(self, x_bnd: Tensor, weight: Tensor) -> Tensor:
        """RMSNorm as transformers computes it, in float32."""
        x = x_bnd.float()
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
        return weight * x.to(x_bnd.dtype)

    def _rotate(self, x_bhnd: Tensor) -> Tensor:
        """Rotary positions, which are computed even where the angle is zero."""
        ones = x_bhnd.new_ones(1, 1, 1, self.head_dim)
        first, second = x_bhnd.chunk(2, dim=-1)
        return x_bhnd * ones + torch.cat((-second, first), dim=-1) * ones


def gpu_memory(device: str | None = None) -> int | None:
    """Bytes free on a GPU; None where there is none, or not this one."""
    if device == "mps" or (device is None and torch.backends.mps.is_available()):
        return int(torch.mps.recommended_max_memory()) if torch.backends.mps.is_available() else None
    if not torch.cuda.is_available():
        return None
    index = int(device.split(":")[1]) if device and ":" in device else 0
    return int(torch.cuda.mem_get_info(index)[0]) if index < torch.cuda.device_count() else None
