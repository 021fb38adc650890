"""Cutting patches: what comes out against scipy's own resampling, and against plain slicing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates

from mvl_auto.training.augmentation import Spatial, cut, draw_spatial, intensity_transforms, read_padded
from mvl_auto.training.batches import centres

SHAPE = (12, 15, 11)


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, *SHAPE)).astype(np.float32), rng.integers(0, 3, SHAPE).astype(np.int16)


def readers(case):
    image, label = case
    return (lambda box: image[(slice(None), *(slice(*b) for b in box))]), (
        lambda box: label[tuple(slice(*b) for b in box)]
    )


def rotation(angle, scale=1.0):
    return Spatial(scale * np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]))


@pytest.mark.parametrize("spatial", [rotation(0.0), rotation(0.4), rotation(-0.2, 1.3), rotation(0.1, 0.7)])
@pytest.mark.parametrize("centre", [(5.5, 7.0, 5.0), (2.3, 12.1, 4.9)])
def test_a_patch_is_the_affine_resampling_of_the_whole_case(case, spatial, centre):
    image, label = case
    size, centre = (6, 8, 4), np.array(centre)
    patch, classes = cut(*readers(case), SHAPE, centre, spatial, size)
    offsets = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in size), indexing="ij")).reshape(3, -1)
    if spatial.is_identity:  # whole voxels: nothing is resampled
        start = np.round(centre - (np.array(size) - 1) / 2)
        centre = start + (np.array(size) - 1) / 2
    where = centre[:, None] + spatial.matrix @ offsets
    padded = [np.pad(channel, 10) for channel in image]
    for channel, out in zip(padded, patch, strict=True):
        expected = map_coordinates(channel, where + 10, order=1).reshape(size)
        np.testing.assert_allclose(out, expected, atol=1e-4)
    nearest = map_coordinates(np.pad(label, 10), where + 10, order=0).reshape(size)
    assert (classes != nearest).mean() < 0.01, "but for ties between two voxels"
    assert classes.dtype == np.int16


@given(start=st.tuples(*[st.integers(-20, 20)] * 3), size=st.tuples(*[st.integers(1, 25)] * 3))
@settings(max_examples=60, deadline=None)
def test_boxes_beyond_the_case_are_zero_there(start, size):
    label = np.arange(1, np.prod(SHAPE) + 1, dtype=np.int32).reshape(SHAPE)
    box = tuple((a, a + n) for a, n in zip(start, size, strict=True))
    expected = np.pad(label, 50)[tuple(slice(a + 50, b + 50) for a, b in box)]
    np.testing.assert_array_equal(read_padded(lambda b: label[tuple(slice(*x) for x in b)], box, SHAPE), expected)


def test_most_patches_are_neither_turned_nor_scaled_and_anisotropic_ones_stay_in_plane():
    rng = np.random.default_rng(0)
    drawn = [draw_spatial(rng, (32, 32, 32)) for _ in range(500)]
    assert 0.5 < np.mean([spatial.is_identity for spatial in drawn]) < 0.78
    for spatial in (draw_spatial(rng, (8, 64, 64)) for _ in range(100)):
        assert spatial.matrix[0].tolist() == [1, 0, 0]
        assert spatial.matrix[:, 0].tolist() == [1, 0, 0]


def test_a_patch_larger_than_the_case_sits_in_the_middle():
    low, high = centres((10, 50), (20, 20))
    assert low.tolist() == [4.5, 9.5]
    assert high.tolist() == [4.5, 39.5]


def test_mirroring_moves_image_and_label_together_and_only_along_its_axes():
    rng = np.random.default_rng(0)
    image = gaussian_filter(rng.normal(size=(1, 1, 8, 10, 12)), 1.5).astype(np.float32)  # survives a blur
    turned = set()
    for seed in range(20):
        np.random.seed(seed)  # noqa: NPY002
        batch = intensity_transforms((2,))(data=image.copy(), seg=image.copy() > 0)
        same, mirrored = (batch["seg"] == (image > 0)).all(), (batch["seg"] == (image > 0)[..., ::-1]).all()
        assert same != mirrored
        assert np.corrcoef(batch["data"].ravel(), (image if same else image[..., ::-1]).ravel())[0, 1] > 0.7
        turned.add(bool(mirrored))
    assert turned == {True, False}
