"""Hybrid attention against formulas written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import tiny
from scipy.ndimage import correlate
from scipy.special import erf

from mvl_auto.network.stem import Tokens, position_code
from mvl_auto.network.trunk import HybridAttention, VitBlock, neighbours

GRID = (2, 3, 4)
N = 24


def reference_attention(q, k, v, heads, mask=None):
    """softmax(q k^T / sqrt(d_h)) v, head by head. (n, d) each."""
    out = np.zeros_like(v)
    size = q.shape[1] // heads
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = q[:, part] @ k[:, part].T / np.sqrt(size)
        if mask is not None:
            scores = np.where(mask, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, part] = weights / weights.sum(axis=1, keepdims=True) @ v[:, part]
    return out


def reference_neighbourhood(v, kernel, bias, grid):
    """A depthwise 3x3x3 correlation with zeros outside, channel by channel, by scipy. (n, d)."""
    channels = [
        correlate(v[:, c].reshape(grid), kernel[c, 0], mode="constant").ravel() + bias[c] for c in range(v.shape[1])
    ]
    return np.stack(channels, axis=1)


@pytest.mark.parametrize("mode", ["gate", "sum", "global", "local"])
@pytest.mark.parametrize("local_branch", ["convolution", "attention"])
def test_hybrid_attention_is_its_equation(mode, local_branch):
    torch.manual_seed(0)
    settings = tiny(attention=mode, local_branch=local_branch)
    layer = HybridAttention(settings).double()
    if mode == "gate":
        torch.nn.init.normal_(layer.gate)
    x = torch.randn(1, N, settings.width, dtype=torch.float64)
    weights = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    q, k, v = np.split(x[0].numpy() @ weights["qkv.weight"].T + weights["qkv.bias"], 3, axis=1)
    far = reference_attention(q, k, v, settings.heads)
    near = np.zeros_like(far)
    if mode != "global" and local_branch == "convolution":
        near = reference_neighbourhood(v, weights["neighbourhood.weight"], weights["neighbourhood.bias"], GRID)
    elif mode != "global":
        near = reference_attention(q, k, v, settings.heads, mask=near_pairs(GRID))
    gate = 1 / (1 + np.exp(-weights["gate"])) if mode == "gate" else None
    mixed = {
        "gate": lambda: gate * far + (1 - gate) * near,
        "sum": lambda: far + near,
        "global": lambda: far,
        "local": lambda: near,
    }[mode]()
    expected = mixed @ weights["out.weight"].T + weights["out.bias"]
    np.testing.assert_allclose(layer(x, GRID)[0].detach().numpy(), expected, atol=1e-10)


def reference_norm(x, weight, bias):
    """(n, d): every token with mean 0 and variance 1 over its channels."""
    return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5) * weight + bias


def test_a_block_is_its_equation():
    """x <- x + s_1 H(LN(x)), x <- x + s_2 W_2 gelu(W_1 LN(x)), with every weight drawn at random."""
    torch.manual_seed(0)
    settings = tiny(attention="gate")
    block = VitBlock(settings).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, N, settings.width, dtype=torch.float64)
    w = {name: value.detach().numpy() for name, value in block.named_parameters()}
    y = x[0].numpy()
    normed = reference_norm(y, w["norm_1.weight"], w["norm_1.bias"])
    q, k, v = np.split(normed @ w["attention.qkv.weight"].T + w["attention.qkv.bias"], 3, axis=1)
    near = reference_neighbourhood(v, w["attention.neighbourhood.weight"], w["attention.neighbourhood.bias"], GRID)
    gate = 1 / (1 + np.exp(-w["attention.gate"]))
    mixed = gate * reference_attention(q, k, v, settings.heads) + (1 - gate) * near
    y = y + w["scale_1"] * (mixed @ w["attention.out.weight"].T + w["attention.out.bias"])
    hidden = reference_norm(y, w["norm_2.weight"], w["norm_2.bias"]) @ w["mlp.0.weight"].T + w["mlp.0.bias"]
    hidden = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
    y = y + w["scale_2"] * (hidden @ w["mlp.2.weight"].T + w["mlp.2.bias"])
    np.testing.assert_allclose(block(x, GRID)[0].detach().numpy(), y, atol=1e-9)


def near_pairs(grid):
    """(n, n): which pairs of grid points are at most one step apart on every axis, by brute force."""
    points = list(np.ndindex(*grid))
    return np.array([[max(abs(a - b) for a, b in zip(p, q, strict=True)) <= 1 for q in points] for p in points])


@pytest.mark.parametrize("grid", [(2, 3, 4), (1, 1, 5), (4, 3)])
def test_neighbours_are_those_at_most_one_step_away(grid):
    np.testing.assert_array_equal(neighbours(grid, torch.device("cpu")).numpy(), near_pairs(grid))


def test_without_position_and_neighbourhood_a_block_does_not_know_the_order_of_tokens():
    torch.manual_seed(0)
    block = VitBlock(tiny(attention="global")).eval()
    x = torch.randn(1, N, 24)
    order = torch.randperm(N)
    torch.testing.assert_close(block(x, GRID)[:, order], block(x[:, order], GRID), atol=1e-5, rtol=1e-5)


def reference_position(grid, pitch_mm, width):
    """Point by point: per axis first all sines, then all cosines, of its place in mm from the middle. (n, width)."""
    shares = [len(part) for part in np.array_split(np.arange(width), len(grid))]  # the first axes take the rest
    rows = []
    for point in np.ndindex(*grid):
        row = []
        for place, size, pitch, share in zip(point, grid, pitch_mm, shares, strict=True):
            middle_mm = pitch * (size - 1) / 2
            turns = (pitch * place - middle_mm) / np.geomspace(8, 1024, -(-share // 2))  # the wavelengths, mm
            row += [*np.sin(2 * np.pi * turns), *np.cos(2 * np.pi * turns)][:share]
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(
    ("grid", "pitch_mm", "width"),
    [
        ((2, 3, 4), (8.0, 6.0, 5.5), 48),
        ((3, 1, 2), (20.0, 4.0, 4.0), 25),
        ((5, 4), (3.0, 7.0), 10),
        ((2, 2), (9, 9), 3),
    ],
)
def test_the_position_code_is_its_formula(grid, pitch_mm, width):
    code = position_code(grid, pitch_mm, width, torch.device("cpu"))
    np.testing.assert_allclose(code.numpy(), reference_position(grid, pitch_mm, width), atol=1e-5)


def test_tokens_know_their_place_in_millimetres():
    settings = tiny(spacing=(5.0, 1.0, 0.5), stem_strides=((1, 2, 2), (2, 2, 2)), token_stride=(1, 2, 2))
    tokens = Tokens(settings, inputs=16)
    for weight in tokens.embed.parameters():
        torch.nn.init.zeros_(weight)
    torch.nn.init.normal_(tokens.scale)
    # a token covers 2 x 8 x 8 voxels, and 1 x 2 x 2 of the stem's last level
    expected = tokens.scale.detach().numpy() * reference_position((3, 2, 4), (10.0, 8.0, 4.0), settings.width)
    found = tokens(torch.randn(1, 16, 3, 4, 8)).detach().numpy()
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_position_depends_on_millimetres_not_on_the_token_count():
    fine = position_code((9,), (4.0,), 16, torch.device("cpu"))
    coarse = position_code((5,), (8.0,), 16, torch.device("cpu"))
    torch.testing.assert_close(fine[::2], coarse)


def test_every_position_has_its_own_code():
    code = position_code((4, 5, 6), (8.0, 8.0, 8.0), 48, torch.device("cpu"))
    distances = torch.cdist(code, code) + torch.eye(len(code)) * 9
    assert code.shape == (120, 48)
    assert distances.min() > 0.05
