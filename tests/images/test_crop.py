"""The crop to non-zero and the mask, against numpy's and scipy's own words for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from mvl_auto.images.crop import filled_mask, nonzero_box, slices

SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
SPARSE = arrays.arrays(np.float32, SHAPES, elements=st.sampled_from([0, 0, 0, 0, 0, 1, -2]))
DENSE = arrays.arrays(np.float32, SHAPES, elements=st.sampled_from([0, 1, 1, -2]))


@settings(deadline=None)
@given(SPARSE)
def test_the_box_holds_every_voxel_that_is_not_zero_and_no_more(image):
    occupied = np.argwhere((image != 0).any(axis=0))
    low, high = (occupied.min(0), occupied.max(0) + 1) if len(occupied) else ((0, 0, 0), image.shape[1:])
    assert nonzero_box(image) == tuple(zip(low, high, strict=True))


def test_an_image_of_zeros_is_not_cropped():
    assert nonzero_box(np.zeros((2, 3, 4, 5), np.float32)) == ((0, 3), (0, 4), (0, 5))


@settings(deadline=None)
@given(DENSE)
def test_the_mask_has_its_holes_filled_as_scipy_does(image):
    expected = ndimage.binary_fill_holes((image != 0).any(axis=0))
    np.testing.assert_array_equal(filled_mask(image), expected)


@pytest.mark.parametrize("pad", [0, 2])
def test_holes_are_the_same_ones_before_and_after_the_crop(pad):
    rng = np.random.default_rng(0)
    image = np.pad((rng.random((1, 9, 10, 11)) < 0.7).astype(np.float32), [(0, 0), *[(pad, pad)] * 3])
    box = nonzero_box(image)
    whole = ndimage.binary_fill_holes(image[0] != 0)
    assert whole.sum() > (image != 0).sum()
    np.testing.assert_array_equal(filled_mask(image[(slice(None), *slices(box))]), whole[slices(box)])
