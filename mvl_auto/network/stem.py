"""From voxels to tokens: a convolutional pyramid whose levels are also the skips, then the patch embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvl_auto.network.layers import Down, Residual, to_tokens
from mvl_auto.plans import NetworkSettings, Vector

SHORTEST_WAVELENGTH_MM = 8.0
LONGEST_WAVELENGTH_MM = 1024.0  # longer than any field of view


class Stem(nn.Module):
    """(b, c, z, y, x) -> its levels, finest first; level i is prod(stem_strides[:i + 1]) times coarser."""

    def __init__(self, settings: NetworkSettings, num_channels: int) -> None:
        super().__init__()
        inputs = [num_channels, *settings.stem_channels]
        self.levels = nn.ModuleList(
            nn.Sequential(Down(before, channels, stride), Residual(settings.dimensions, channels, channels))
            for before, channels, stride in zip(inputs, settings.stem_channels, settings.stem_strides, strict=False)
        )

    def forward(self, image_bczyx: Tensor) -> list[Tensor]:
        levels = []
        x = image_bczyx
        for level in self.levels:
            x = level(x)
            levels.append(x)
        return levels


class Tokens(nn.Module):
    """The patch embedding: one token for each token_size voxels, plus where it lies.

    (b, c, z, y, x) -> (b, n, d). The position is that in the patch, in mm from its middle, so that any
    patch size can be predicted: a factorised sine-cosine code (as Vaswani et al. 2017, per axis).
    """

    def __init__(self, settings: NetworkSettings, inputs: int) -> None:
        super().__init__()
        self.embed = Down(inputs, settings.width, settings.token_stride)
        self.pitch_mm = tuple(s * t for s, t in zip(settings.spacing, settings.token_size, strict=True))
        self.width = settings.width
        self.scale = nn.Parameter(torch.full((settings.width,), 0.1))

    def forward(self, x_bczyx: Tensor) -> Tensor:
        grid = self.embed(x_bczyx)
        position_nd = position_code(tuple(grid.shape[2:]), self.pitch_mm, self.width, grid.device)
        return to_tokens(grid) + (self.scale * position_nd).to(grid.dtype)


def position_code(grid: tuple[int, ...], pitch_mm: Vector, width: int, device: torch.device) -> Tensor:
    """(n, width): the axes share the channels, each with sines and cosines of its own coordinate in mm."""
    axes = len(grid)
    shares = [width // axes + (axis < width % axes) for axis in range(axes)]
    codes = []
    for axis, (size, pitch, channels) in enumerate(zip(grid, pitch_mm, shares, strict=True)):
        position_mm = (torch.arange(size, device=device) - (size - 1) / 2) * pitch
        shape = [1] * axes + [channels]
        shape[axis] = size
        codes.append(sine_cosine(position_mm, channels).reshape(shape).expand(*grid, channels))
    return torch.cat(codes, dim=-1).flatten(0, -2)


def sine_cosine(position_mm: Tensor, channels: int) -> Tensor:
    """(n,) mm -> (n, channels), wavelengths in geometric steps over the sizes of anatomy."""
    half = (channels + 1) // 2
    steps = torch.arange(half, device=position_mm.device) / max(half - 1, 1)
    wavelength_mm = SHORTEST_WAVELENGTH_MM * (LONGEST_WAVELENGTH_MM / SHORTEST_WAVELENGTH_MM) ** steps
    phase = position_mm[:, None] * (2 * torch.pi / wavelength_mm)
    return torch.cat([phase.sin(), phase.cos()], dim=1)[:, :channels]
