"""Explanations: maps in native space, through the trained weights, that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import RANDOM_BLOCK, tiny, tiny_llm

from mvl_auto.inference.explain import MAPS, Maps, attention_weights, rollout
from mvl_auto.llm import load_block
from mvl_auto.network import build_network


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    block = load_block(RANDOM_BLOCK, "last", tmp_path_factory.mktemp("blocks"))
    return build_network(tiny(llm=tiny_llm()), 1, 2, block).eval()


@torch.inference_mode()
def test_with_the_gate_at_zero_nothing_changes_and_with_a_gate_the_block_is_seen(network):
    image = torch.randn(1, 1, 13, 16, 9)
    maps = dict(zip(MAPS, Maps(network)(image)[0], strict=True))
    assert maps["before"].shape == (13, 16, 9)
    assert torch.equal(maps["before"], maps["after"])
    assert maps["change"].abs().max() == 0
    gate = network.llm.gate.clone()
    network.llm.gate.fill_(1.0)
    opened = dict(zip(MAPS, Maps(network)(image)[0], strict=True))
    network.llm.gate.copy_(gate)
    assert opened["change"].min() > 0
    torch.testing.assert_close(opened["before"], maps["before"])


@torch.inference_mode()
def test_maps_are_the_norms_of_the_tokens_that_cover_the_voxels(network):
    image = torch.randn(1, 1, 16, 8, 8)
    tokens = {}
    hook = network.llm.register_forward_hook(lambda _, args, out: tokens.update(x=args[0]))
    network(image)
    hook.remove()
    before = Maps(network)(image)[0, 0]
    norms = tokens["x"][0].norm(dim=-1)
    assert torch.allclose(before[:8], norms[0])
    assert torch.allclose(before[8:], norms[1])


@torch.inference_mode()
def test_attention_weights_are_those_that_make_the_global_branch(network):
    block = network.trunk[0]
    x = torch.randn(2, 12, 24)
    weights = attention_weights(block, x)
    np.testing.assert_allclose(weights.sum(dim=-1), 1, rtol=1e-5)
    single = build_network(tiny(attention="global", heads=1), 1, 2).eval().trunk[0]
    _, _, v = single.attention.qkv(single.norm_1(x)).chunk(3, dim=-1)
    expected = single.attention.out(attention_weights(single, x) @ v)
    torch.testing.assert_close(single.attention(single.norm_1(x), (2, 2, 3)), expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_rollout_conserves_attention(network):
    inputs = [torch.randn(1, 12, 24) for _ in network.trunk]
    received = rollout(list(network.trunk), inputs)
    np.testing.assert_allclose(received.sum(dim=-1), 12, rtol=1e-5)
    assert (received > 0).all()
