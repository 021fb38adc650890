"""Layers that exist in 2D and 3D, and the two ways between a voxel grid and a token sequence.

Shape letters: b batch, c channels, z y x voxels (2D: y x), n tokens, d width, k outputs.

Everything is laid out channels last (oneDNN and cuDNN convolve faster so, and tokens are then a view of
the grid, not a copy); the shapes stay b c z y x.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import gcd, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvl_auto.plans import Shape

MEMORY_FORMAT = {2: torch.channels_last, 3: torch.channels_last_3d}
KERNEL = 3
UNSAFE_DEPTH = 2  # Convolution3d
NORM_GROUPS = 8  # Wu and He 2018; as small batches need it, and fast channels last


class Convolution3d(nn.Conv3d):
    """torch's, but in float32 on a grid of two slices, where a CPU's autocast would have it in bfloat16.

    The weights' gradient of torch 2.13 (oneDNN, kernel 3 with padding) there reads memory that nobody wrote.
    """

    in_float32 = False  # keep_in_float32

    def forward(self, x_bczyx: Tensor) -> Tensor:
        if self.in_float32 and x_bczyx.shape[2] == UNSAFE_DEPTH:
            return in_float32(super().forward, x_bczyx)
        return super().forward(x_bczyx)


CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: Convolution3d}


def convolution(dimensions: int, inputs: int, outputs: int, kernel: int = KERNEL) -> nn.Module:
    """A convolution that keeps the grid. (b, inputs, z, y, x) -> (b, outputs, z, y, x)."""
    return CONVOLUTION[dimensions](inputs, outputs, kernel, padding=kernel // 2, bias=False)


class Normalisation(nn.GroupNorm):
    """Group normalization: independent of the batch, and of the image's size at prediction. Keeps the shape."""

    in_float32 = False  # keep_in_float32

    def __init__(self, channels: int) -> None:
        super().__init__(gcd(NORM_GROUPS, channels), channels)

    def forward(self, x_bczyx: Tensor) -> Tensor:
        return in_float32(super().forward, x_bczyx) if self.in_float32 else super().forward(x_bczyx)


def keep_in_float32(network: nn.Module, kind: type[nn.Module] = nn.Module) -> None:
    """Have a CPU's autocast leave out what torch computes slower (docs/experiments.md) or wrongly in bfloat16 there.

    kind: only modules of this kind. Normalization alone is what a GPU's autocast leaves out.
    """
    for module in network.modules():
        if isinstance(module, kind) and hasattr(module, "in_float32"):
            module.in_float32 = True  # type: ignore[assignment]


def in_float32(operation: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """The operation in float32, whether a CPU's autocast is on or not."""
    with torch.autocast("cpu", enabled=False):
        return operation(*(x.float() for x in inputs))


class Residual(nn.Module):
    """a(S(x) + N(C(a(N(C(x)))))): two convolutions around a skip. Keeps the grid."""

    def __init__(self, dimensions: int, inputs: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(dimensions, inputs, channels),
            Normalisation(channels),
            nn.LeakyReLU(inplace=True),
            convolution(dimensions, channels, channels),
            Normalisation(channels),
        )
        self.skip = nn.Identity() if inputs == channels else convolution(dimensions, inputs, channels, kernel=1)

    def forward(self, x_bczyx: Tensor) -> Tensor:
        return F.leaky_relu(self.skip(x_bczyx) + self.body(x_bczyx))


class Down(nn.Module):
    """A convolution whose kernel is its stride: every voxel goes into exactly one output.

    (b, inputs, z, y, x) -> (b, outputs, z / s_z, y / s_y, x / s_x). With stride 1, a plain 3x3x3 one.
    """

    def __init__(self, inputs: int, outputs: int, stride: Shape) -> None:
        super().__init__()
        if all(step == 1 for step in stride):
            self.body = convolution(len(stride), inputs, outputs)
        else:
            self.body = CONVOLUTION[len(stride)](inputs, outputs, stride, stride=stride)

    def forward(self, x_bczyx: Tensor) -> Tensor:
        return self.body(x_bczyx)


class Up(nn.Module):
    """A transposed convolution whose kernel is its stride, as one matrix product and channel-to-space.

    (b, inputs, z, y, x) -> (b, outputs, z * s_z, y * s_y, x * s_x).
    """

    def __init__(self, inputs: int, outputs: int, stride: Shape) -> None:
        super().__init__()
        self.stride = stride
        self.body = nn.Linear(inputs, prod(stride) * outputs)

    def forward(self, x_bczyx: Tensor) -> Tensor:
        return channel_to_space(self.body(x_bczyx.movedim(1, -1)), self.stride)


def sum_of_ups(ups: Sequence[Up], inputs_bczyx: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The weighted sum of what several Ups of one stride and as many outputs make of inputs on one grid.

    One matrix product: the weights, (Ups,), are multiplied into the kernels, which are smaller than what they make.
    """
    bodies = [up.body for up in ups]
    kernel = torch.cat([body.weight * weight for body, weight in zip(bodies, weights, strict=True)], dim=1)
    bias = torch.stack([body.bias for body in bodies], dim=1).mul(weights).sum(dim=1)
    inputs_bzyxc = torch.cat([x.movedim(1, -1) for x in inputs_bczyx], dim=-1)
    return channel_to_space(F.linear(inputs_bzyxc, kernel, bias), ups[0].stride)


def channel_to_space(x_bzyxc: Tensor, stride: Shape) -> Tensor:
    """(b, z, y, x, prod(stride) * c) -> (b, c, z * s_z, y * s_y, x * s_x), the c of one voxel adjacent."""
    batch, *grid, channels = x_bzyxc.shape
    axes = len(stride)
    x = x_bzyxc.reshape(batch, *grid, *stride, channels // prod(stride))
    pairs = [axis for i in range(axes) for axis in (1 + i, 1 + axes + i)]
    finer = [size * step for size, step in zip(grid, stride, strict=True)]
    return x.permute(0, *pairs, 1 + 2 * axes).reshape(batch, *finer, channels // prod(stride)).movedim(-1, 1)


def to_tokens(x_bczyx: Tensor) -> Tensor:
    """(b, d, z, y, x) -> (b, z * y * x, d), x running fastest."""
    return x_bczyx.movedim(1, -1).flatten(1, -2)


def to_grid(tokens_bnd: Tensor, grid: Shape) -> Tensor:
    """(b, z * y * x, d) -> (b, d, z, y, x)."""
    return tokens_bnd.unflatten(1, grid).movedim(-1, 1)


def pad_to_multiple(x_bczyx: Tensor, multiple: Shape) -> Tensor:
    """Repeat the last voxels of each axis until its size is a multiple of `multiple`."""
    missing = [-size % step for size, step in zip(x_bczyx.shape[2:], multiple, strict=True)]
    if not any(missing):
        return x_bczyx
    return F.pad(x_bczyx, [pad for axis in reversed(missing) for pad in (0, axis)], mode="replicate")


@contextmanager
def own_numbers(part: str) -> Iterator[None]:
    """Draw the weights of one part of a network from random numbers of its own, made of torch's seed and its name.

    So two networks of one seed begin with the same weights in each part that they share, whatever else they have.
    """
    seed = hashlib.sha256(f"{torch.initial_seed()} {part}".encode()).digest()[:7]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(seed, "big"))
        yield
