"""The gradients of the depthwise convolution, against torch's own and against differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mvl_auto.network.depthwise import depthwise

GRIDS = [(4, 6, 5), (1, 3, 2), (2, 2, 2), (7, 1), (5, 4)]


def made(grid: tuple[int, ...], channels: int = 6, batch: int = 2) -> tuple[nn.Module, Tensor, Tensor]:
    """A layer, its input and the slope of a loss by its output, all in double precision."""
    torch.manual_seed(0)
    layer = depthwise(len(grid), channels).double()
    x_bdzyx, slope_bdzyx = torch.randn(2, batch, channels, *grid, dtype=torch.float64)
    return layer, x_bdzyx.requires_grad_(), slope_bdzyx


def plain(layer: nn.Module, x_bdzyx: Tensor) -> Tensor:
    """The layer's convolution by torch alone."""
    convolve = functional.conv2d if x_bdzyx.ndim == 4 else functional.conv3d
    return convolve(x_bdzyx, layer.weight, layer.bias, padding=1, groups=x_bdzyx.shape[1])


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("channels_last", [True, False])
def test_it_computes_and_differentiates_as_torch_does(grid, channels_last):
    layer, x, slope = made(grid)
    expected = plain(layer, x)
    expected_slopes = torch.autograd.grad(expected, [x, layer.weight, layer.bias], slope)
    if channels_last:
        x = x.detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_()
    result = layer(x)
    slopes = torch.autograd.grad(result, [x, layer.weight, layer.bias], slope)
    torch.testing.assert_close(result, expected)
    for got, wanted in zip(slopes, expected_slopes, strict=True):
        assert got.shape == wanted.shape
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("grid", [(2, 3, 2), (3, 2)])
def test_its_gradients_are_those_of_differences(grid):
    layer, x, _ = made(grid, channels=2, batch=1)
    weight, bias = layer.weight, layer.bias

    def convolved(x: Tensor, *_: Tensor) -> Tensor:
        return layer(x)

    assert torch.autograd.gradcheck(convolved, (x, weight, bias))


@pytest.mark.parametrize("still", [("weight", "bias"), ("bias",), ("x",)])
def test_what_does_not_train_gets_no_gradient(still):
    layer, x, slope = made((3, 4, 5))
    tensors = {"x": x, "weight": layer.weight, "bias": layer.bias}
    expected = dict(zip(tensors, torch.autograd.grad(plain(layer, x), list(tensors.values()), slope), strict=True))
    for name in still:
        tensors[name].requires_grad_(False)
    layer(x).backward(slope)
    for name, tensor in tensors.items():
        if name in still:
            assert tensor.grad is None
        else:
            torch.testing.assert_close(tensor.grad, expected[name])


def test_a_turned_slope_gives_the_same_gradients():
    """What comes back from a transposed or expanded tensor is not laid out as the input is."""
    layer, x, slope = made((3, 4, 5))
    ways = [slope, slope.movedim(1, -1).contiguous().movedim(-1, 1), slope[:1, :1, :1, :1, :1].expand_as(slope)]
    for way in ways:
        expected = torch.autograd.grad(plain(layer, x), [x, layer.weight, layer.bias], way)
        got = torch.autograd.grad(layer(x), [x, layer.weight, layer.bias], way)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_three_dimensions_on_a_cpu_the_gradients_are_our_own(dtype):
    """Else nothing here would have tested them."""
    layer, x, _ = made((3, 4, 5))
    assert "Depthwise" in type(layer.to(dtype)(x.detach().to(dtype)).grad_fn).__name__


def test_under_autocast_torch_chooses_the_type():
    layer, x, _ = made((3, 4, 5))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(x.detach().float()).dtype == torch.bfloat16
