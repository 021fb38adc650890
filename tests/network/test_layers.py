"""The layers against torch's own operations, in 2D and 3D."""

from __future__ import annotations

from math import prod

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_auto.network.layers import (
    Down,
    Residual,
    Up,
    channel_to_space,
    convolution,
    keep_in_float32,
    pad_to_multiple,
    to_grid,
    to_tokens,
)

CONVOLVE = {2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {2: F.conv_transpose2d, 3: F.conv_transpose3d}


@pytest.mark.parametrize("stride", [(2, 2), (1, 3), (2, 2, 2), (1, 2, 4)])
def test_up_is_the_transposed_convolution_with_its_stride_as_kernel(stride):
    inputs, outputs, axes = 5, 3, len(stride)
    up = Up(inputs, outputs, stride)
    x = torch.randn(2, inputs, *range(3, 3 + axes))
    # rows of the matrix are (stride..., outputs); a transposed convolution's weight is (inputs, outputs, stride...)
    weight = up.body.weight.T.reshape(inputs, *stride, outputs).movedim(-1, 1)
    bias = up.body.bias.reshape(*stride, outputs).movedim(-1, 0)
    grid = [size * step for size, step in zip(x.shape[2:], stride, strict=True)]
    tiled = bias.repeat(1, *(g // s for g, s in zip(grid, stride, strict=True)))
    torch.testing.assert_close(up(x), TRANSPOSED[axes](x, weight, stride=stride) + tiled)


def test_channel_to_space_is_pixel_shuffle_in_two_dimensions():
    x_bcyx = torch.randn(2, 3 * 4, 5, 6)
    ours = channel_to_space(x_bcyx.unflatten(1, (3, 2, 2)).movedim(1, 3).flatten(1, 3).movedim(1, -1), (2, 2))
    torch.testing.assert_close(ours, F.pixel_shuffle(x_bcyx, 2))


@given(grid=st.lists(st.integers(1, 5), min_size=2, max_size=3), width=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_tokens_and_grid_are_inverse_and_x_runs_fastest(grid, width):
    x = torch.arange(prod(grid) * width, dtype=torch.float32).reshape(1, width, *grid)
    tokens = to_tokens(x)
    assert tokens.shape == (1, prod(grid), width)
    torch.testing.assert_close(to_grid(tokens, tuple(grid)), x)
    if grid[-1] > 1:
        assert tokens[0, 1, 0] == x[(0, 0, *[0] * (len(grid) - 1), 1)]


@pytest.mark.parametrize(("inputs", "channels", "groups"), [(12, 12, 4), (5, 16, 8), (16, 3, 1)])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_residual_is_two_normalised_convolutions_around_a_skip(dimensions, inputs, channels, groups):
    torch.manual_seed(0)
    layer = Residual(dimensions, inputs, channels).double()
    for weight in layer.parameters():
        torch.nn.init.normal_(weight)
    x = torch.randn(2, inputs, *(5, 4, 3)[:dimensions], dtype=torch.float64)
    weights = dict(layer.named_parameters())

    def normalised(y, name):
        """Mean 0, variance 1 over the voxels and channels of each group, then weight and bias by channel."""
        grouped = y.reshape(len(y), groups, -1)
        variance = grouped.var(dim=-1, correction=0, keepdim=True)
        y = ((grouped - grouped.mean(dim=-1, keepdim=True)) / (variance + 1e-5).sqrt()).reshape(y.shape)
        by_channel = (-1, *[1] * dimensions)
        return y * weights[f"{name}.weight"].reshape(by_channel) + weights[f"{name}.bias"].reshape(by_channel)

    y = normalised(CONVOLVE[dimensions](x, weights["body.0.weight"], padding=1), "body.1")
    y = torch.where(y > 0, y, 0.01 * y)
    y = normalised(CONVOLVE[dimensions](y, weights["body.3.weight"], padding=1), "body.4")
    y = y + (x if inputs == channels else CONVOLVE[dimensions](x, weights["skip.weight"]))
    torch.testing.assert_close(layer(x), torch.where(y > 0, y, 0.01 * y))


@pytest.mark.parametrize(("depth", "dtype"), [(2, torch.float32), (3, torch.bfloat16)])
def test_a_convolution_over_two_slices_stays_in_float32(depth, dtype):
    """Elsewhere it is as torch's autocast has it; there its weights' gradient would be of memory that nobody wrote."""
    layer = convolution(3, 8, 8)
    keep_in_float32(layer)
    x = torch.randn(2, 8, depth, 4, 4).contiguous(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().square().sum().backward()
    weight = layer.weight.detach().requires_grad_()
    F.conv3d(x, weight, padding=1).square().sum().backward()
    assert y.dtype == dtype
    assert (layer.weight.grad - weight.grad).norm() < 0.02 * weight.grad.norm()


def test_every_voxel_goes_into_exactly_one_output_of_down():
    down = Down(1, 1, (2, 3))
    torch.nn.init.ones_(down.body.weight)
    torch.nn.init.zeros_(down.body.bias)
    x = torch.randn(1, 1, 4, 9)
    assert torch.isclose(down(x).sum(), x.sum(), atol=1e-5)
    assert down(x).shape == (1, 1, 2, 3)


def test_padding_repeats_the_border_and_only_where_it_is_needed():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded = pad_to_multiple(x, (2, 4))
    assert padded.shape == (1, 1, 2, 4)
    assert padded[0, 0, :, 3].tolist() == x[0, 0, :, 2].tolist()
    assert pad_to_multiple(x, (1, 3)) is x
