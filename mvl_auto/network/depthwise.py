"""A depthwise 3x3x3 convolution (2D: 3x3) whose gradients are quick on a CPU.

y[b, d, p] = bias[d] + sum over k of w[d, k] x[b, d, p + k - 1], zeros outside of the grid. Torch 2.13 takes the
gradients of this, on the small grids of a trunk, through a kernel that needs ten times as long as the convolution
itself (benchmarks/layers.py). Here the gradient by x is the convolution with the kernel turned round, and the gradient
by w[d, k] is the sum over p of dy[b, d, p] x[b, d, p + k - 1], one shift k after the other.

Shape letters: b batch, d channels, z y x places of the grid (2D: y x), k places of the kernel.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mvl_auto.network.layers import CONVOLUTION, KERNEL, MEMORY_FORMAT

CONVOLVE = {2: F.conv2d, 3: F.conv3d}


def depthwise(dimensions: int, channels: int) -> nn.Module:
    """(b, channels, z, y, x) -> the same: torch's layer, for convolve_depthwise."""
    layer: nn.Module = CONVOLUTION[dimensions](channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
    return layer


def convolve_depthwise(layer: nn.Module, x_bdzyx: Tensor) -> Tensor:
    """layer(x) of a layer of `depthwise`. The gradients are torch's where it chooses the types or compiles."""
    ours = x_bdzyx.device.type == "cpu" and torch.is_grad_enabled()
    if not ours or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        result: Tensor = layer(x_bdzyx)
        return result
    convolved: Tensor = _Depthwise.apply(x_bdzyx, layer.weight, layer.bias)
    return convolved


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_bdzyx: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x_bdzyx, weight)
        return _convolve(x_bdzyx, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_bdzyx: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x_bdzyx, weight = ctx.saved_tensors
        axes = tuple(range(2, x_bdzyx.ndim))
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_x = _convolve(slope_bdzyx, weight.flip(axes), None)
        if ctx.needs_input_grad[1]:
            by_weight = _by_weight(x_bdzyx, slope_bdzyx, weight)
        if ctx.needs_input_grad[2]:
            by_bias = slope_bdzyx.sum((0, *axes))
        return by_x, by_weight, by_bias


def _convolve(x_bdzyx: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    axes = x_bdzyx.ndim - 2
    x_bdzyx = x_bdzyx.contiguous(memory_format=MEMORY_FORMAT[axes])
    return CONVOLVE[axes](x_bdzyx, weight, bias, padding=KERNEL // 2, groups=len(weight))


def _by_weight(x_bdzyx: Tensor, slope_bdzyx: Tensor, weight: Tensor) -> Tensor:
    slope_bzyxd = slope_bdzyx.movedim(1, -1).contiguous()
    grid, channels = slope_bzyxd.shape[1:-1], slope_bzyxd.shape[-1]
    padded_bzyxd = F.pad(x_bdzyx.movedim(1, -1), [0, 0] + [KERNEL // 2] * (2 * len(grid)))
    product_bzyxd = torch.empty_like(slope_bzyxd)
    by_kd = torch.empty(KERNEL ** len(grid), channels, dtype=weight.dtype)
    for place, shifts in enumerate(product(range(KERNEL), repeat=len(grid))):
        window = tuple(slice(shift, shift + size) for shift, size in zip(shifts, grid, strict=True))
        torch.mul(padded_bzyxd[(slice(None), *window)], slope_bzyxd, out=product_bzyxd)
        torch.sum(product_bzyxd.view(-1, channels), 0, out=by_kd[place])
    return by_kd.T.reshape(weight.shape)
