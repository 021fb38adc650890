"""Explanations: maps in native space, through the trained weights, that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from formulas import layer_norm, sigmoid, softmax
from networks import RANDOM_BLOCK, tiny, tiny_llm

from mvl_auto.inference.explain import MAPS, Maps, compute_attention, compute_rollout
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
    weights = compute_attention(block, x)
    np.testing.assert_allclose(weights.sum(dim=-1), 1, rtol=1e-5)
    single = build_network(tiny(attention="global", heads=1), 1, 2).eval().trunk[0]
    _, _, v = single.attention.qkv(single.norm_1(x)).chunk(3, dim=-1)
    expected = single.attention.out(compute_attention(single, x) @ v)
    torch.testing.assert_close(single.attention(single.norm_1(x), (2, 2, 3)), expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_rollout_conserves_attention(network):
    inputs = [torch.randn(1, 12, 24) for _ in network.trunk]
    received = compute_rollout(list(network.trunk), inputs)
    np.testing.assert_allclose(received.sum(dim=-1), 12, rtol=1e-5)
    assert (received > 0).all()


def looked_at(block, x, mode):
    """(n, n) of one block in numpy: rows are tokens that look, columns those that are seen."""
    weights = {name: value.double().numpy() for name, value in block.named_parameters()}
    normed = layer_norm(x, weights["norm_1.weight"], weights["norm_1.bias"])
    q, k, _ = np.split(normed @ weights["attention.qkv.weight"].T + weights["attention.qkv.bias"], 3, axis=1)
    size = q.shape[1] // block.attention.heads
    heads = [slice(first, first + size) for first in range(0, q.shape[1], size)]
    far = np.mean([softmax(q[:, head] @ k[:, head].T / np.sqrt(size)) for head in heads], axis=0)
    share = sigmoid(weights["attention.gate"]).mean() if mode == "gate" else {"global": 1, "sum": 0.5, "local": 0}[mode]
    return share * far + (1 - share) * np.eye(len(x))


@pytest.mark.parametrize("mode", ["gate", "global", "sum", "local"])
@torch.inference_mode()
def test_rollout_is_the_product_of_the_blocks_attention(mode):
    """Attention half, and half the way around it; the last block on the left; how much each token is seen by all."""
    torch.manual_seed(0)
    tokens, width = 6, 24
    blocks = list(build_network(tiny(attention=mode), 1, 2).trunk)
    for weight in (weight for block in blocks for weight in block.parameters()):
        torch.nn.init.normal_(weight, std=0.5)
    inputs = torch.randn(2, 3, tokens, width)  # of two blocks, for three images
    found = compute_rollout(blocks, list(inputs))
    for image in range(3):
        of_blocks = [looked_at(block, x[image].double().numpy(), mode) for block, x in zip(blocks, inputs, strict=True)]
        first, second = ((attention + np.eye(tokens)) / 2 for attention in of_blocks)
        np.testing.assert_allclose(found[image], (second @ first).sum(axis=0), rtol=1e-4)
