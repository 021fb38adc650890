"""Windows: the same logits as from the whole image, whatever its size, in slabs, mirrored or not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d
from scipy.signal import windows
from torch import nn
from torch.nn import functional
from whole_logits import predict_logits

from mvl_auto.errors import MvlError
from mvl_auto.inference.sliding_window import (
    _choose_device_of_sums,
    cheapest_axis,
    divide_axis,
    gaussian_weights,
    place_windows,
    stream_logits,
)
from mvl_auto.inference.windows import WindowSettings


class Pointwise(nn.Module):
    """Two outputs that depend on one voxel each: no window can change them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.sum(1, keepdim=True).sin(), x[:, :1] ** 2], dim=1)


class Counting(nn.Module):
    """Pointwise, and remembers the shapes that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(x.shape))
        return Pointwise()(x)


def random_image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small_convolution(seed: int = 0, axes: int = 3) -> nn.Module:
    """A network that knows left from right, top from bottom, front from back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = nn.Conv3d if axes == 3 else nn.Conv2d
        return nn.Sequential(layer(1, 4, 3, padding=1), nn.GELU(), layer(4, 3, 3, padding=1)).eval()


# ------------------------------------------------------------------------------------ the weights


@pytest.mark.parametrize("length", [1, 5, 8, 33, 64])
def test_the_weights_are_scipys_gaussian_window(length):
    np.testing.assert_allclose(gaussian_weights(length), windows.gaussian(length, std=length / 8), rtol=2e-5)


def test_the_weights_are_a_blurred_point():
    point = np.zeros(33)
    point[16] = 1
    blurred = gaussian_filter1d(point, 33 / 8, mode="constant")  # as nnU-Net makes them
    inside = slice(1, 32)  # scipy cuts its kernel off at four sigma
    np.testing.assert_allclose(gaussian_weights(33)[inside], (blurred / blurred.max())[inside], rtol=1e-5)


@given(
    size=st.integers(1, 200),
    patch=st.integers(1, 64),
    step=st.floats(0.05, 1),
)
def test_windows_cover_every_voxel_and_their_weights_add_up_to_one(size, patch, step):
    total = np.zeros(size)
    for span in divide_axis(size, patch, step):
        assert 0 <= span.start < span.stop <= size
        assert span.before >= 0
        assert span.inside.stop <= patch
        total[span.start : span.stop] += span.weights.numpy()
    np.testing.assert_allclose(total, 1, rtol=1e-5)


@given(size=st.integers(1, 300), patch=st.integers(1, 64), step=st.floats(0.05, 1))
def test_windows_are_as_far_apart_as_allowed_and_evenly_spread(size, patch, step):
    starts = place_windows(size, patch, step)
    furthest = max(patch * step, 1)
    gaps = np.diff(starts)
    assert starts[0] == 0
    assert starts[-1] == max(size - patch, 0)
    assert len(starts) == 1 or (gaps > 0).all()
    assert (gaps <= furthest + 1).all()  # rounding to voxels
    assert len(starts) == 1 or gaps.max() - gaps.min() <= 1
    assert (len(starts) - 2) * furthest < max(size - patch, 1)  # one window less would leave them too far apart


def test_the_windows_are_nnunets():
    # nnunetv2 2.5, compute_steps_for_sliding_window((30, 162, 123), (30, 64, 64), 0.5), computed by hand
    assert place_windows(30, 30, 0.5) == [0]
    assert place_windows(162, 64, 0.5) == [
        0,
        24,
        49,
        74,
        98,
    ]  # 98 / 4 = 24.5: 24.5 -> 24, 73.5 -> 74 (numpy's rounding)
    assert place_windows(123, 64, 0.5) == [0, 30, 59]


# ----------------------------------------------------------------------------------- the logits


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(1, 24)),
    patch=st.tuples(st.integers(1, 12), st.integers(2, 12), st.integers(2, 12)),
    step=st.sampled_from([0.25, 0.5, 0.8, 1.0]),
    mirrored=st.sampled_from([(), (0, 1, 2), (2,)]),
    batch_size=st.integers(1, 9),
)
def test_what_depends_on_one_voxel_is_the_same_through_windows(shape, patch, step, mirrored, batch_size):
    image = random_image(2, *shape)
    logits = predict_logits(
        Pointwise(), image, patch, 2, step_size=step, mirror_axes=mirrored, batch_size=batch_size, device="cpu"
    )
    torch.testing.assert_close(logits, Pointwise()(image[None])[0], rtol=1e-5, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(3, 30), st.integers(3, 30)),
    mirrored=st.sampled_from([(), (0, 1), (1,)]),
    batch_size=st.integers(1, 9),
)
def test_a_2d_network_sees_every_slice_by_itself(shape, mirrored, batch_size):
    image, network = random_image(2, *shape), Counting()
    logits = predict_logits(network, image, (8, 12), 2, mirror_axes=mirrored, batch_size=batch_size)
    torch.testing.assert_close(logits, Pointwise()(image[None])[0], rtol=1e-5, atol=1e-5)
    assert {seen[1:] for seen in network.seen} == {(2, 8, 12)}


def test_overlapping_windows_are_averaged_with_gaussian_weights():
    """The naive sum over the whole volume, as nnU-Net does it, divided by the sum of the weights at the end."""
    image, network, patch = random_image(1, 20, 31, 17), small_convolution(), (8, 12, 10)
    weights = torch.from_numpy(
        np.multiply.outer(
            np.multiply.outer(windows.gaussian(8, 1.0), windows.gaussian(12, 1.5)), windows.gaussian(10, 1.25)
        )
    )
    total, norm = torch.zeros(3, 20, 31, 17, dtype=torch.float64), torch.zeros(20, 31, 17, dtype=torch.float64)
    for z, y, x in itertools.product(
        *(place_windows(size, length, 0.5) for size, length in zip(image.shape[1:], patch, strict=True))
    ):
        place = (slice(z, z + 8), slice(y, y + 12), slice(x, x + 10))
        with torch.no_grad():
            total[(slice(None), *place)] += network(image[(None, slice(None), *place)])[0] * weights
        norm[place] += weights
    expected = (total / norm).float()
    torch.testing.assert_close(predict_logits(network, image, patch, 3, batch_size=3), expected, rtol=1e-4, atol=1e-5)


def test_a_network_that_moves_with_the_image_differs_only_near_the_seams():
    """A box filter of radius 1 is exact in every voxel that no window has on its border."""
    image = random_image(1, 12, 12, 40)

    class Box(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.avg_pool3d(x, 3, stride=1, padding=1)

    logits = predict_logits(Box(), image, (12, 12, 16), 1)
    direct = Box()(image[None])[0]
    on_a_border = {0, 39} | {edge for start in place_windows(40, 16, 0.5) for edge in (start, start + 15)}
    clear = [x for x in range(40) if x not in on_a_border - {0, 39}]
    torch.testing.assert_close(logits[..., clear], direct[..., clear])
    assert not torch.allclose(logits, direct)


def test_an_image_of_the_patchs_size_is_one_forward_pass_unchanged():
    image, network = random_image(1, 8, 12, 10), small_convolution()
    with torch.no_grad():
        direct = network(image[None])[0]
    assert torch.equal(predict_logits(network, image, (8, 12, 10), 3), direct)


def test_mirroring_is_the_mean_of_all_eight_flips():
    image, network = random_image(1, 8, 12, 10), small_convolution()
    flips = [axes for n in range(4) for axes in itertools.combinations((2, 3, 4), n)]
    with torch.no_grad():
        expected = torch.stack([network(image[None].flip(axes)).flip(axes)[0] for axes in flips]).mean(0)
    assert len(flips) == 8
    for batch_size in (1, 3, 8):
        mirrored = predict_logits(network, image, (8, 12, 10), 3, mirror_axes=(0, 1, 2), batch_size=batch_size)
        torch.testing.assert_close(mirrored, expected, rtol=1e-4, atol=1e-5)


def test_mirroring_in_2d_turns_rows_and_columns():
    image, network = random_image(1, 2, 12, 10), small_convolution(axes=2)
    with torch.no_grad():
        slices = [
            torch.stack([network(image[None, :, z].flip(axes)).flip(axes)[0] for axes in ((), (2,), (3,), (2, 3))])
            for z in range(2)
        ]
    expected = torch.stack([flips.mean(0) for flips in slices], dim=1)
    mirrored = predict_logits(network, image, (12, 10), 3, mirror_axes=(0, 1), batch_size=3)
    torch.testing.assert_close(mirrored, expected, rtol=1e-4, atol=1e-5)


def test_mirrored_images_give_mirrored_logits():
    """With all axes mirrored, nothing is left of the network's handedness, windows and padding included."""
    image, network = random_image(1, 6, 20, 18), small_convolution()
    how = {"shape": (8, 8, 10), "num_outputs": 3, "mirror_axes": (0, 1, 2), "batch_size": 4}
    logits = predict_logits(network, image, **how)
    turned = predict_logits(network, image.flip(1, 2, 3), **how).flip(1, 2, 3)
    torch.testing.assert_close(turned, logits, rtol=1e-4, atol=1e-5)


def test_a_small_image_is_centred_in_zeros():
    image, seen = random_image(1, 3, 4, 10), []

    class Remember(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    logits = predict_logits(Remember(), image, (8, 4, 6), 1)
    assert torch.equal(seen[0][0, :, 2:5], image[..., :6])
    assert (seen[0][0, :, [0, 1, 5, 6, 7]] == 0).all()
    torch.testing.assert_close(logits, image)


# ------------------------------------------------------------------------- slabs, batches, memory


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("batch_size", [1, 5, 50])
def test_slabs_are_the_whole_cut_along_any_axis(axis, batch_size):
    image, network, patch = random_image(1, 20, 31, 17), small_convolution(), (8, 12, 10)
    whole = predict_logits(network, image, patch, 3)
    slabs = list(stream_logits(network, image, 3, WindowSettings(patch, batch_size=batch_size), axis))
    starts = [start for start, _ in slabs]
    assert starts == list(np.cumsum([0, *(slab.shape[axis + 1] for _, slab in slabs)])[:-1])
    torch.testing.assert_close(torch.cat([slab for _, slab in slabs], dim=axis + 1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "patch", "axis"),
    [
        ((100, 50, 50), (50, 50, 50), 0),
        ((40, 300, 200), (40, 60, 60), 1),
        ((9, 64, 64), (32, 32), 0),
        ((1, 64, 99), (32, 32), 2),
    ],
)
def test_the_axis_of_the_slabs_is_the_one_that_holds_least(sizes, patch, axis):
    assert cheapest_axis(sizes, patch) == axis


def test_memory_does_not_grow_with_the_length_of_the_image(monkeypatch):
    """The largest sums held at once: measured on the allocations, for images 4 and 40 patches long."""
    held = []
    zeros = torch.zeros

    def remembered(*shape, **options):
        made = zeros(*shape, **options)
        held.append(made.numel())
        return made

    monkeypatch.setattr(torch, "zeros", remembered)
    largest = []
    for length in (64, 640):
        held.clear()
        image = torch.zeros(1, length, 16, 16)
        held.clear()
        slabs = [slab.shape for _, slab in stream_logits(Pointwise(), image, 2, WindowSettings((16, 16, 16)), 0)]
        largest.append(max(held))
        assert sum(shape[1] for shape in slabs) == length
    assert largest[0] == largest[1] == 2 * 16 * 16 * 16


@pytest.mark.parametrize(
    ("shape", "patch", "mirrored", "batch_size", "passes"),
    [
        ((1, 8, 8, 8), (8, 8, 8), (), 1, 1),
        ((1, 5, 8, 7), (8, 8, 8), (0, 1, 2), 8, 1),  # all flips in one pass
        ((1, 5, 8, 7), (8, 8, 8), (0, 1, 2), 3, 3),
        ((1, 8, 8, 12), (8, 8, 8), (), 2, 1),  # two windows
        ((1, 30, 8, 8), (8, 8), (), 10, 3),  # thirty slices
        ((1, 30, 8, 8), (8, 8), (0, 1), 8, 15),
    ],
)
def test_there_are_no_more_forward_passes_than_needed(shape, patch, mirrored, batch_size, passes):
    network = Counting()
    predict_logits(network, random_image(*shape), patch, 2, mirror_axes=mirrored, batch_size=batch_size)
    assert len(network.seen) == passes
    assert max(seen[0] for seen in network.seen) <= batch_size


def test_the_same_image_gives_the_same_bits():
    image, network = random_image(1, 20, 31, 17), small_convolution()
    first, second = (predict_logits(network, image, (8, 12, 10), 3, mirror_axes=(0, 1, 2), batch_size=4) for _ in "ab")
    assert torch.equal(first, second)


def test_a_full_gpu_is_tried_with_fewer_windows_then_said():
    class Small(nn.Module):
        """Has memory for so many windows."""

        def __init__(self, room: int) -> None:
            super().__init__()
            self.room = room

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return Pointwise()(x)

    image = random_image(1, 8, 8, 30)
    logits = predict_logits(Small(room=2), image, (8, 8, 8), 2, batch_size=7)
    torch.testing.assert_close(logits, Pointwise()(image[None])[0])
    with pytest.raises(MvlError, match="too little free memory for one window"):
        predict_logits(Small(room=0), image, (8, 8, 8), 2, batch_size=7)


@pytest.mark.parametrize(("share", "kind"), [(0.99, "cuda"), (1.01, "cpu")])
def test_sums_stay_on_the_gpu_up_to_their_share_of_its_free_memory(monkeypatch, share, kind):
    """A quarter of it. A sum is a float32: four bytes a value."""
    free = 10**9
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    values = int(share * free / 4 / 4)
    assert _choose_device_of_sums(torch.device("cuda"), values).type == kind
    assert _choose_device_of_sums(torch.device("cpu"), values).type == "cpu"
