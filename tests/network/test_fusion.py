"""Multi-scale fusion: the weighted sum, level by level."""

from __future__ import annotations

import torch
from networks import tiny

from mvl_auto.network.fusion import Fusion, FusionLevel, LinearDecoder


def test_a_level_is_the_softmax_weighted_sum_of_its_sources():
    torch.manual_seed(0)
    level = FusionLevel(3, channels=8, coarser=16, up=(2, 2, 2), width=24, reach=(4, 4, 4))
    torch.nn.init.normal_(level.weights)
    level.refine = torch.nn.Identity()
    coarser, skip = torch.randn(1, 16, 2, 2, 2), torch.randn(1, 8, 4, 4, 4)
    depths = [torch.randn(1, 24, 1, 1, 1) for _ in range(2)]
    sources = [level.from_skip(skip), *(up(d) for up, d in zip(level.from_tokens, depths, strict=True))]
    sources.append(level.from_coarser(coarser))
    weights = torch.exp(level.weights) / torch.exp(level.weights).sum()
    # four sources of weight 1/4 count as four of weight 1: the sum keeps its size at the start
    expected = 4 * sum(w * s for w, s in zip(weights, sources, strict=True))
    torch.testing.assert_close(level(coarser, skip, depths), expected)


def test_logits_lie_on_the_image_grid_and_on_the_stem_grids():
    fusion = Fusion(tiny(), num_outputs=5)
    levels = [torch.randn(1, 8, 8, 12, 4), torch.randn(1, 16, 4, 6, 2)]
    depths = [torch.randn(1, 24, 2, 3, 1) for _ in range(2)]
    assert [tuple(out.shape) for out in fusion.train()(levels, depths)] == [(1, 5, 16, 24, 8), (1, 5, 4, 6, 2)]
    assert len(fusion.eval()(levels, depths)) == 1


def test_the_linear_decoder_sees_the_last_tokens_alone():
    decoder = LinearDecoder(tiny(), num_outputs=2).eval()
    middle, last, other = (torch.randn(1, 24, 2, 3, 1) for _ in range(3))
    torch.testing.assert_close(decoder([], [middle, last]), decoder([], [other, last]))
    assert not torch.allclose(decoder([], [middle, last])[0], decoder([], [middle, other])[0])
