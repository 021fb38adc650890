"""The trunk: ViT blocks with hybrid attention, or residual convolutions in their place.

The Hybrid Attention Mechanism is named by MedVisionLlama (arXiv 2410.02458) without an equation. This
one is ours: over the same values v, a global branch attends to all tokens, a local branch to the
3x3x3 neighbourhood on the token grid, and a learned gate per channel mixes the two:

    H(x) = W_o (g * softmax(q k^T / sqrt(d_h)) v + (1 - g) * local(v)),    g = sigmoid(gamma)
    x <- x + s_1 * H(LN(x)),    x <- x + s_2 * MLP(LN(x))
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvl_auto.network.depthwise import depthwise
from mvl_auto.network.layers import KERNEL, Residual, in_float32, own_numbers, to_grid, to_tokens
from mvl_auto.plans import NetworkSettings, Shape

LAYER_SCALE = 0.5  # start value of s_1 and s_2 (Touvron et al. 2021, larger since the trunk is shallow)


class HybridAttention(nn.Module):
    """(b, n, d) -> (b, n, d); grid is the token grid, n = z * y * x."""

    in_float32 = False  # mvl_auto.network.layers.keep_in_float32

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.mode, self.local_branch = settings.attention, settings.local_branch
        self.heads, self.width = settings.heads, settings.width
        self.qkv = nn.Linear(self.width, 3 * self.width)
        self.out = nn.Linear(self.width, self.width)
        if self.mode != "global" and self.local_branch == "convolution":
            self.neighbourhood = depthwise(settings.dimensions, self.width)
        if self.mode == "gate":
            self.gate = nn.Parameter(torch.zeros(self.width))

    def forward(self, x_bnd: Tensor, grid: Shape) -> Tensor:
        q_bnd, k_bnd, v_bnd = self.qkv(x_bnd).chunk(3, dim=-1)
        if self.mode == "global":
            return self.out(self.attend(q_bnd, k_bnd, v_bnd))
        if self.local_branch == "convolution":
            near_bnd = to_tokens(self.compute(self.neighbourhood, to_grid(v_bnd, grid)))
        else:
            near_bnd = self.attend(q_bnd, k_bnd, v_bnd, neighbours(grid, x_bnd.device))
        if self.mode == "local":
            return self.out(near_bnd)
        far_bnd = self.attend(q_bnd, k_bnd, v_bnd)
        if self.mode == "sum":
            return self.out(far_bnd + near_bnd)
        return self.out(torch.lerp(near_bnd, far_bnd, self.gate.sigmoid().to(near_bnd.dtype)))

    def attend(self, q_bnd: Tensor, k_bnd: Tensor, v_bnd: Tensor, mask_nn: Tensor | None = None) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q_bnd, k_bnd, v_bnd))
        attended = self.compute(partial(F.scaled_dot_product_attention, attn_mask=mask_nn), q, k, v)
        return attended.transpose(1, 2).flatten(2)

    def compute(self, operation: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return in_float32(operation, *inputs) if self.in_float32 else operation(*inputs)


def neighbours(grid: Shape, device: torch.device) -> Tensor:
    """(n, n) bool: whether two tokens lie in each other's 3x3x3 neighbourhood."""
    axes = [torch.arange(size, device=device) for size in grid]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    return (position[:, None] - position[None]).abs().amax(dim=-1) <= KERNEL // 2


class VitBlock(nn.Module):
    """Pre-norm block: hybrid attention, then the MLP. (b, n, d) -> (b, n, d)."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        width, hidden = settings.width, round(settings.width * settings.mlp_ratio)
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = HybridAttention(settings)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.scale_1 = nn.Parameter(torch.full((width,), LAYER_SCALE))
        self.scale_2 = nn.Parameter(torch.full((width,), LAYER_SCALE))

    def forward(self, x_bnd: Tensor, grid: Shape) -> Tensor:
        x_bnd = x_bnd + self.scale_1 * self.attention(self.norm_1(x_bnd), grid)
        return x_bnd + self.scale_2 * self.mlp(self.norm_2(x_bnd))


class ConvolutionBlock(nn.Module):
    """The convolutional rival of VitBlock, on the same token grid. (b, n, d) -> (b, n, d)."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.body = Residual(settings.dimensions, settings.width, settings.width)

    def forward(self, x_bnd: Tensor, grid: Shape) -> Tensor:
        return to_tokens(self.body(to_grid(x_bnd, grid)))


def trunk(settings: NetworkSettings) -> nn.ModuleList:
    """The settings.depth blocks that a token passes."""
    block = VitBlock if settings.trunk == "transformer" else ConvolutionBlock
    blocks = nn.ModuleList()
    for place in range(settings.depth):
        with own_numbers(f"trunk.{place}"):
            blocks.append(block(settings))
    return blocks
