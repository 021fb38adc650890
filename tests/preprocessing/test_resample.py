"""Resampling against scikit-image and scipy, which do it voxel by voxel in 64 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import resize

from mvl_auto.plans import IGNORE
from mvl_auto.preprocessing.interpolation import LINEAR, make_bands, resample_axis
from mvl_auto.preprocessing.resample import resample_channel, resample_labels

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(1, 20))
LONG = (170, 3, 5)  # more than one band of rows


def reference(volume, shape, order):
    return resize(volume.astype(np.float64), shape, order=order, mode="edge", anti_aliasing=False)


def nearest_slices(volume, axis, size):
    place = (np.arange(size) + 0.5) * volume.shape[axis] / size - 0.5
    chosen = ndimage.map_coordinates(np.arange(volume.shape[axis]), [place], order=0, mode="nearest")
    return volume.take(chosen, axis)


def slice_by_slice(volume, axis, shape, order):
    """nnU-Net's separate z: each slice by itself, then the nearest slice."""
    plane = tuple(size for n, size in enumerate(shape) if n != axis)
    slices = [reference(piece, plane, order) for piece in np.moveaxis(volume, axis, 0)]
    return nearest_slices(np.stack(slices, axis), axis, shape[axis])


def smooth_labels(shape, seed=0):
    """Classes 0 to 3 that touch each other, and a corner that nobody labelled."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    label = np.digitize(field, np.quantile(field, [0.6, 0.8, 0.9])).astype(np.int16)
    label[: shape[0] // 4, : shape[1] // 3] = IGNORE
    return label


def shares(label, shape):
    """Classes in ascending order of who wins a draw, and their shares."""
    classes = [*np.unique(label[label != IGNORE]), IGNORE]
    return np.array(classes), np.stack([reference(label == k, shape, order=1) for k in classes])


def resample_linear(volume, shape):
    for axis, size in enumerate(shape):
        volume = resample_axis(volume, axis, size, LINEAR)
    return volume


@settings(max_examples=60, deadline=None)
@given(old=SIZES, new=SIZES, order=st.sampled_from([1, 3]))
def test_any_size_to_any_size(old, new, order):
    volume = np.random.default_rng(0).normal(size=old).astype(np.float32)
    found = resample_channel(volume, new, None) if order == 3 else resample_linear(volume, new)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(volume, new, order), atol=1e-5)


@pytest.mark.parametrize("new", [(400, 3, 5), (65, 4, 5), (171, 3, 9)])
def test_an_axis_of_several_bands(new):
    volume = np.random.default_rng(1).normal(size=LONG).astype(np.float32)
    np.testing.assert_allclose(resample_channel(volume, new, None), reference(volume, new, 3), atol=1e-5)


def test_a_polynomial_of_third_degree_is_met_exactly_inside():
    def polynomial(count):
        x = (np.arange(count) + 0.5) / count
        return 3 * x**3 - x**2 + x

    volume = np.broadcast_to(polynomial(60).astype(np.float32)[:, None, None], (60, 2, 2))
    found = resample_channel(volume, (97, 2, 2), None)[:, 0, 0]
    np.testing.assert_allclose(found[25:-25], polynomial(97)[25:-25], atol=1e-6)


def test_a_spline_does_not_leave_the_range_of_its_channel():
    for axis, top in enumerate((1, 5)):
        steps = np.zeros((20, 20, 20), np.float32)
        np.moveaxis(steps, axis, 0)[10:] = top
        found = resample_channel(steps, (37, 31, 33), None)
        assert (found.min(), found.max()) == (0, top)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.4, 1, 2.5])
def test_a_coarse_axis_is_kept_apart(axis, factor):
    old = [14, 15, 16]
    old[axis] = 7
    new = [18, 19, 21]
    new[axis] = round(7 * factor)
    volume = np.random.default_rng(2).normal(size=old).astype(np.float32)
    expected = slice_by_slice(volume, axis, new, 3)
    np.testing.assert_allclose(resample_channel(volume, new, axis), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 31, 17), (41, 23, 57), (40, 36, 80), (13, 17, 11)])
def test_the_class_with_the_largest_share_wins(shape):
    label = smooth_labels((40, 36, 30))
    classes, share = shares(label, shape)
    expected = classes[len(classes) - 1 - share[::-1].argmax(axis=0)]
    first, second = np.sort(share, axis=0)[:-3:-1]
    found = resample_labels(label, shape)
    assert found.dtype == np.int16
    differs = found != expected
    assert not differs[first - second > 1e-6].any(), "not even where one has a clear majority"
    assert differs.mean() < 0.02


def test_labels_with_a_coarse_axis_kept_apart():
    label = smooth_labels((6, 40, 44))
    slices = [resample_labels(piece[None], (1, 29, 57))[0] for piece in label]
    np.testing.assert_array_equal(resample_labels(label, (11, 29, 57), 0), nearest_slices(np.stack(slices), 0, 11))


def test_two_classes_with_half_a_share_each():
    """Averaging two voxels leaves a draw: as in nnU-Net the greater class wins, and nobody's voxels stay nobody's."""
    pairs = [(0, 1), (2, 1), (0, IGNORE), (3, IGNORE), (2, 2)]
    label = np.array([value for pair in pairs for value in pair], np.int16)[None, None]
    assert resample_labels(label, (1, 1, 5)).ravel().tolist() == [1, 2, IGNORE, IGNORE, 2]


def test_ignored_voxels_stay_ignored_and_nothing_else_becomes_so():
    label = np.zeros((20, 20, 20), np.int16)
    label[5:15, 5:15, 5:15] = IGNORE
    found = resample_labels(label, (40, 40, 20))
    assert (found[10:30, 10:30, 5:15] == IGNORE).all()
    assert (found == IGNORE).sum() == 20 * 20 * 10
    assert set(np.unique(found)) == {IGNORE, 0}


@pytest.mark.parametrize("value", [0, 2, IGNORE])
def test_a_map_of_one_class_stays_one(value):
    assert (resample_labels(np.full((5, 6, 7), value, np.int16), (9, 4, 7)) == value).all()


def test_the_same_size_is_left_alone():
    volume = np.random.default_rng(3).normal(size=(5, 6, 7)).astype(np.float32)
    label = smooth_labels((5, 6, 7))
    assert np.array_equal(resample_channel(volume, (5, 6, 7), None), volume)
    assert np.array_equal(resample_labels(label, (5, 6, 7)), label)


@pytest.mark.parametrize("columns", [(0, 20), (3, 9), (14, 16), (19, 20), (0, 1)])
@pytest.mark.parametrize("rows", [(0, 30), (0, 4), (11, 12), (26, 30)])
def test_a_part_of_the_matrix_is_that_part_of_the_whole(rows, columns):
    """Also where the rows see none of the columns."""
    (whole,) = make_bands(20, 30, LINEAR)
    assert (whole.new, whole.old) == ((0, 30), (0, 20))
    found = np.zeros((rows[1] - rows[0], columns[1] - columns[0]))
    for band in make_bands(20, 30, LINEAR, rows, columns):
        assert 0 <= band.old[0] < band.old[1] <= columns[1] - columns[0]
        found[band.new[0] - rows[0] : band.new[1] - rows[0], slice(*band.old)] += band.weights
    np.testing.assert_allclose(found, whole.weights[slice(*rows), slice(*columns)], atol=1e-7)
