"""From tokens back to voxels: the multi-scale fusion block, and the heads.

MedVisionLlama (arXiv 2410.02458) names a Multi-Scale Fusion Block without an equation. This one is ours.
At each level l of the stem, coarsest first, what the decoder has so far, the stem's skip and the tokens of
two depths (middle and last) meet in one weighted sum, then a residual convolution:

    u_l = sum_i w_li * source_li,   w_l = softmax(theta_l),   f_l = R_l(u_l)
    sources: Up(f_{l+1}) (not at the coarsest), P(s_l), Up(t_middle), Up(t_last)
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from mvl_auto.network.layers import Residual, Up, channel_to_space, convolution, sum_of_ups
from mvl_auto.plans import NetworkSettings, Shape

HEADS = ("decoder.head.", "decoder.coarse_heads.", "decoder.voxels.")  # how the names of their weights begin
NUM_DEPTHS = 2  # tokens after the middle of the trunk, and the last (with the LLM block)


class FusionLevel(nn.Module):
    """One level. Its output has the channels and the grid of the stem's skip at this level."""

    def __init__(
        self, dimensions: int, channels: int, coarser: int | None, up: Shape, width: int, reach: Shape
    ) -> None:
        super().__init__()
        self.from_coarser = None if coarser is None else Up(coarser, channels, up)
        self.from_skip = convolution(dimensions, channels, channels, kernel=1)
        self.from_tokens = nn.ModuleList(Up(width, channels, reach) for _ in range(NUM_DEPTHS))
        self.weights = nn.Parameter(torch.zeros(1 + NUM_DEPTHS + (coarser is not None)))
        self.refine = Residual(dimensions, channels, channels)

    def forward(self, coarser_bczyx: Tensor | None, skip_bczyx: Tensor, depths_bdzyx: list[Tensor]) -> Tensor:
        weights = self.weights.softmax(dim=0) * len(self.weights)
        skip = self.from_skip(skip_bczyx)
        # in the type of the skip: a GPU's autocast would bring it to that of the weights
        mixed = skip * weights[0].to(skip.dtype)
        tokens: Any = self.from_tokens
        mixed = mixed + sum_of_ups(list(tokens), depths_bdzyx, weights[1 : 1 + NUM_DEPTHS])
        if self.from_coarser is not None and coarser_bczyx is not None:
            mixed = mixed + sum_of_ups([self.from_coarser], [coarser_bczyx], weights[-1:])
        return self.refine(mixed)


class Fusion(nn.Module):
    """Levels and tokens -> logits, finest first: (b, k, z, y, x) at the image's size, then coarser ones.

    The coarser ones are for deep supervision; in eval mode there is only the first.
    """

    def __init__(self, settings: NetworkSettings, num_outputs: int) -> None:
        super().__init__()
        channels, strides = settings.stem_channels, settings.stem_strides
        coarser: list[int | None] = [*channels[1:], None]
        ups = [*strides[1:], settings.token_stride]
        reach = [_product(ups[level:]) for level in range(len(channels))]
        self.levels = nn.ModuleList(
            FusionLevel(settings.dimensions, own, below, up, settings.width, far)
            for own, below, up, far in zip(channels, coarser, ups, reach, strict=True)
        )
        self.head = Up(channels[0], num_outputs, strides[0])
        supervised = len(channels) - 1 if settings.deep_supervision else 0
        self.coarse_heads = nn.ModuleList(nn.Linear(own, num_outputs) for own in channels[1 : 1 + supervised])

    def forward(self, levels_bczyx: list[Tensor], depths_bdzyx: list[Tensor]) -> list[Tensor]:
        fused: list[Tensor] = []
        x: Tensor | None = None
        for level, skip in zip(reversed(self.levels), reversed(levels_bczyx), strict=True):
            x = level(x, skip, depths_bdzyx)
            fused.insert(0, x)
        logits = [self.head(fused[0])]
        if self.training:
            coarse = zip(self.coarse_heads, fused[1:], strict=False)
            logits += [head(x.movedim(1, -1)).movedim(-1, 1) for head, x in coarse]
        return logits


class LinearDecoder(nn.Module):
    """The paper's decoder: each token's voxels straight from the last token."""

    def __init__(self, settings: NetworkSettings, num_outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(settings.width)
        self.voxels = nn.Linear(settings.width, prod(settings.token_size) * num_outputs)
        self.token_size = settings.token_size

    def forward(self, levels_bczyx: list[Tensor], depths_bdzyx: list[Tensor]) -> list[Tensor]:
        last_bzyxd = self.norm(depths_bdzyx[-1].movedim(1, -1))
        return [channel_to_space(self.voxels(last_bzyxd), self.token_size)]


def decoder(settings: NetworkSettings, num_outputs: int) -> nn.Module:
    return (LinearDecoder if settings.decoder == "linear" else Fusion)(settings, num_outputs)


def _product(strides: list[Shape]) -> Shape:
    return tuple(prod(axis) for axis in zip(*strides, strict=True))
