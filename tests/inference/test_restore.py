"""From the network's grid to the image's own voxels, in slabs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inverse import to_native
from scipy import ndimage
from skimage.transform import resize

from mvl_auto.inference import restore
from mvl_auto.inference.restore import native_slabs, paste_slab
from mvl_auto.plans import Trail


def trail(native, network, apart=False, crop=None, size=None, transpose=(0, 1, 2)) -> Trail:
    """The first axis is the coarse one."""
    return Trail(
        shape=size or native,
        transpose_forward=transpose,
        crop=crop or tuple((0, voxels) for voxels in native),
        spacing=(5.0, 1.0, 1.0),
        resampled_shape=network,
        resampled_spacing=(4.0, 1.0, 1.0),
        separate_axis=0 if apart else None,
    )


def cut(array: torch.Tensor, axis: int, thicknesses: list[int]) -> list[tuple[int, torch.Tensor]]:
    """Slabs of the given thicknesses, over and over, along a spatial axis."""
    slabs, start, size = [], 0, array.shape[axis + 1]
    while start < size:
        thickness = min(thicknesses[len(slabs) % len(thicknesses)], size - start)
        slabs.append((start, array.narrow(axis + 1, start, thickness).clone()))
        start += thickness
    return slabs


def restored(array: torch.Tensor, how: Trail, axis: int, thicknesses: list[int]) -> np.ndarray:
    canvas = np.full((len(array), *how.shape), np.nan, np.float32)
    following = 0
    for first, slab in native_slabs(cut(array, axis, thicknesses), how, axis):
        assert first == following
        following += slab.shape[axis + 1]
        paste_slab(canvas, slab.numpy(), how, axis, first)
    return canvas


SIZES = st.tuples(*[st.integers(1, 17)] * 3)


@settings(max_examples=100, deadline=None)
@given(native=SIZES, network=SIZES, axis=st.integers(0, 2), thicknesses=st.lists(st.integers(1, 9), min_size=1))
def test_slabs_are_interpolated_as_skimage_does_the_whole(native, network, axis, thicknesses):
    array = np.random.default_rng(0).random((2, *network), np.float32)
    expected = [resize(channel, native, order=1, mode="edge", anti_aliasing=False) for channel in array]
    found = restored(torch.from_numpy(array), trail(native, network), axis, thicknesses)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(native=SIZES, network=SIZES, axis=st.integers(0, 2), thicknesses=st.lists(st.integers(1, 9), min_size=1))
def test_a_coarse_axis_kept_apart_takes_the_nearest_slice(native, network, axis, thicknesses):
    array = np.random.default_rng(0).random((2, *network), np.float32)
    found = restored(torch.from_numpy(array), trail(native, network, apart=True), axis, thicknesses)
    place = (np.arange(native[0]) + 0.5) * network[0] / native[0] - 0.5
    nearest = ndimage.map_coordinates(np.arange(network[0]), [place], order=0, mode="nearest")
    in_plane = (network[0], *native[1:])
    expected = [resize(channel, in_plane, order=1, mode="edge", anti_aliasing=False)[nearest] for channel in array]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_crop_and_transpose_are_undone_as_preprocessing_does_it(axis, apart, transpose, monkeypatch):
    monkeypatch.setattr(restore, "LARGEST_CHUNK", 3 * 30 * 30 * 2)  # some slices at a time
    size = (30, 25, 28)
    turned = [size[source] for source in transpose]
    crop = tuple((3, voxels - 2 - n) for n, voxels in enumerate(turned))
    how = trail(None, (11, 31, 20), apart, crop, size, transpose)
    array = torch.from_numpy(np.random.default_rng(0).random((3, 11, 31, 20), np.float32))
    expected = to_native(array.numpy(), how, outside=[np.nan] * 3)
    np.testing.assert_allclose(restored(array, how, axis, [4, 7]), expected, atol=1e-5)


def test_equal_grids_are_copied_bit_by_bit():
    array = torch.rand(2, 9, 10, 11, generator=torch.Generator().manual_seed(0))
    found = restored(array, trail((9, 10, 11), (9, 10, 11)), 1, [4])
    assert np.array_equal(found, array.numpy())
