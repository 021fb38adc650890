"""A depthwise 3x3x3 convolution whose gradients are quick on a CPU.

y[b, d, p] = bias[d] + sum over k of w[d, k] x[b, d, p + k - 1], zeros outside of the grid. On the small grids of a
trunk torch 2.13 needs more than twice as long for it, forward and backward, than it takes with the gradients of this
file (benchmarks/layers.py). Here the gradient by x is the convolution with the kernel turned round, and the gradient
by w[d, k] is the sum over b and p of dy[b, d, p] x[b, d, p + k - 1]. In 2D torch is quick, and left alone.

Shape letters: b batch, d channels, z y x places of the grid, k places of the kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mvl_auto.network.layers import CONVOLUTION, KERNEL, Convolution3d

NUMPYS = (torch.float32, torch.float64)  # types that numpy computes in, too


class Depthwise3d(Convolution3d):
    """torch's layer. The gradients are torch's own where it chooses the types or compiles, and on other devices."""

    def forward(self, x_bdzyx: Tensor) -> Tensor:
        plain = type(x_bdzyx) is Tensor and x_bdzyx.device.type == "cpu" and x_bdzyx.dtype in NUMPYS  # no fake tensor
        chosen_by_torch = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
        if not plain or chosen_by_torch or not torch.is_grad_enabled():
            return super().forward(x_bdzyx)
        convolved: Tensor = _Depthwise.apply(x_bdzyx, self.weight, self.bias)
        return convolved


def depthwise(dimensions: int, channels: int) -> Convolution3d | torch.nn.Conv2d:
    """(b, channels, z, y, x) -> the same."""
    kind = Depthwise3d if dimensions == 3 else CONVOLUTION[dimensions]
    layer: Convolution3d | torch.nn.Conv2d = kind(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
    return layer


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_bdzyx: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x_bdzyx, weight)
        return _convolve(x_bdzyx, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_bdzyx: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x_bdzyx, weight = ctx.saved_tensors
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_x = _convolve(slope_bdzyx, weight.flip(2, 3, 4), None)
        if ctx.needs_input_grad[1]:
            by_weight = _by_weight(x_bdzyx, slope_bdzyx)
        if ctx.needs_input_grad[2]:
            by_bias = slope_bdzyx.sum((0, 2, 3, 4))
        return by_x, by_weight, by_bias


def _convolve(x_bdzyx: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x_bdzyx = x_bdzyx.contiguous(memory_format=torch.channels_last_3d)
    return F.conv3d(x_bdzyx, weight, bias, padding=KERNEL // 2, groups=len(weight))


def _by_weight(x_bdzyx: Tensor, slope_bdzyx: Tensor) -> Tensor:
    """(d, 1, k, k, k). By numpy: it adds up products of shifted views without writing them out, as torch would."""
    padded_bzyxd = F.pad(x_bdzyx.movedim(1, -1), [0, 0] + [KERNEL // 2] * 6).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(padded_bzyxd, [KERNEL] * 3, (1, 2, 3))
    slope_bzyxd = slope_bdzyx.movedim(1, -1).contiguous().numpy()
    by_weight = np.einsum("bzyxdijk,bzyxd->ijkd", windows, slope_bzyxd)
    return torch.from_numpy(by_weight).movedim(-1, 0)[:, None].contiguous()
