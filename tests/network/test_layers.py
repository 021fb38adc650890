"""The layers against torch's own operations, in 2D and 3D."""

from __future__ import annotations

from math import prod

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_auto.network.layers import Down, Up, channel_to_space, pad_to_multiple, to_grid, to_tokens

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
