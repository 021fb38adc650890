"""MedVisionLlama, composed in one place: stem, tokens, trunk, LLM block, decoder.

Which parts those are is decided by one frozen model, NetworkSettings (mvl_auto.plans); docs/network.md has
an equation for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mvl_auto.network.enrich import enrich
from mvl_auto.network.fusion import decoder
from mvl_auto.network.layers import MEMORY_FORMAT, own_numbers, pad_to_multiple, to_grid
from mvl_auto.network.stem import Stem, Tokens
from mvl_auto.network.trunk import trunk
from mvl_auto.plans import NetworkSettings

if TYPE_CHECKING:
    from mvl_auto.llm import FrozenBlock

TRUNK = "trunk."  # how the names of the weights of the trunk's blocks begin


class MedVisionLlama(nn.Module):
    """b batch, c channels, z y x voxels (2D: y x), n tokens, d width, k outputs."""

    def __init__(
        self, settings: NetworkSettings, num_channels: int, num_outputs: int, block: FrozenBlock | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.memory_format = MEMORY_FORMAT[settings.dimensions]
        with own_numbers("stem"):
            self.stem = Stem(settings, num_channels)
        with own_numbers("tokens"):
            self.tokens = Tokens(settings, settings.stem_channels[-1] if settings.stem_channels else num_channels)
        self.trunk = trunk(settings)
        self.norm = nn.LayerNorm(settings.width)
        with own_numbers("decoder"):
            self.decoder = decoder(settings, num_outputs)
        with own_numbers("llm"):
            self.llm = enrich(settings.llm, settings.width, block)
        # prefix of names of weights -> factor on their learning rate (network/optimizer.py); adapters learn as all else
        self.rates: dict[str, float] = {"llm.": settings.llm.mapper_rate, "llm.block.": 1.0}
        self.llm_after = {"head": 0, "middle": settings.depth // 2, "tail": settings.depth}[settings.llm.placement]

    def forward(self, image_bczyx: Tensor) -> Tensor | list[Tensor]:
        """(b, c, z, y, x), any size -> logits (b, k, z, y, x); in training a list of them, finest first.

        The coarser ones (deep supervision) lie on the grids of the stem's levels.
        """
        size = image_bczyx.shape[2:]
        x = pad_to_multiple(image_bczyx, self.settings.token_size)
        x = x.contiguous(memory_format=self.memory_format)
        levels = self.stem(x)
        depths = self.depths(levels[-1] if levels else x)
        logits = self.decoder(levels, depths)
        if x.shape[2:] != size:
            inside = (..., *(slice(0, voxels) for voxels in size))
            logits[0] = logits[0][inside]
        return logits if self.training else logits[0]

    def depths(self, x_bczyx: Tensor) -> list[Tensor]:
        """The tokens after the middle of the trunk and after all of it, on their grid: (b, d, z, y, x)."""
        grid = tuple(voxels // step for voxels, step in zip(x_bczyx.shape[2:], self.settings.token_stride, strict=True))
        x_bnd = middle_bnd = self.tokens(x_bczyx)
        for passed, block in enumerate([*self.trunk, None]):
            if passed == self.llm_after and self.llm is not None:
                x_bnd = self.llm(x_bnd, grid)
            if passed == self.settings.depth // 2:
                middle_bnd = x_bnd
            if block is None:
                break
            if self.settings.gradient_checkpointing and self.training:
                x_bnd = checkpoint(block, x_bnd, grid, use_reentrant=False)
            else:
                x_bnd = block(x_bnd, grid)
        return [to_grid(middle_bnd, grid), to_grid(self.norm(x_bnd), grid)]


def build_network(
    settings: NetworkSettings, num_channels: int, num_outputs: int, block: FrozenBlock | None = None, seed: int = 0
) -> MedVisionLlama:
    """The network of `settings`, its trainable weights drawn from `seed`, laid out channels last.

    block: from mvl_auto.llm.load_block; needed unless settings.llm.source is "none".
    Each part is drawn apart (own_numbers), so networks that share a part start from the same weights in it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MedVisionLlama(settings, num_channels, num_outputs, block)
    return network.to(memory_format=MEMORY_FORMAT[settings.dimensions])  # type: ignore[call-overload]
