"""Which tokens the decoder gets: those after the first half of the trunk, and those after all of it."""

from __future__ import annotations

import pytest
import torch
from networks import tiny

from mvl_auto.network import build_network
from mvl_auto.network.layers import to_grid


@pytest.mark.parametrize(("depth", "half"), [(2, 1), (3, 1), (4, 2), (5, 2)])
def test_the_middle_tokens_are_those_after_half_of_the_blocks(depth, half):
    """Every block, by hand, adds its own number to the tokens: the sums say which blocks they have passed."""
    network = build_network(tiny(depth=depth), 1, 2).eval()
    for place, block in enumerate(network.trunk):
        block.forward = lambda x_bnd, grid, place=place: x_bnd + 10.0**place
    network.norm = torch.nn.Identity()
    size = tuple(4 * voxels for voxels in network.settings.token_stride)
    x = torch.randn(1, network.settings.stem_channels[-1], *size, generator=torch.Generator().manual_seed(0))
    start = to_grid(network.tokens(x), (4, 4, 4))
    middle, last = network.depths(x)
    passed = [sum(10.0**place for place in range(blocks)) for blocks in (half, depth)]
    torch.testing.assert_close(middle, start + passed[0], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(last, start + passed[1], rtol=1e-5, atol=1e-2)
