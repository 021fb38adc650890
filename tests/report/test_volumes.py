"""Cases for a page: nothing labelled is cut off, places stay where they are, and the size is kept."""

from __future__ import annotations

import base64
import gzip

import numpy as np
import pytest

from mvl_auto.images import Geometry, Volume
from mvl_auto.images.geometry import FileGrid
from mvl_auto.report.volumes import CASE_BYTES, PAGE_BYTES, downsample, encode, encode_within, make_volume


def volume_of(array, spacing=(1.0, 1.0, 1.0), has_frame=True):
    """An image whose file has the canonical orientation already."""
    affine = np.diag([*spacing[::-1], 1.0])
    shape = array.shape[-3:]
    grid = FileGrid(shape[::-1], affine, has_frame=has_frame)
    geometry = Geometry(shape, affine, (0, 1, 2), (False, False, False), grid)
    return Volume(array.astype(np.float32).reshape(-1, *shape), geometry)


def labelled(shape, box):
    labels = np.zeros(shape, np.int16)
    labels[tuple(slice(*ends) for ends in box)] = 1
    return labels


def test_the_crop_has_every_labelled_voxel_of_both_and_a_margin():
    rng = np.random.default_rng(0)
    truth = labelled((40, 60, 60), [(10, 14), (20, 30), (20, 24)])
    predicted = labelled((40, 60, 60), [(12, 20), (22, 26), (40, 44)])
    made = make_volume(volume_of(rng.normal(size=truth.shape)), truth, predicted)
    assert (made.truth > 0).sum() == (truth > 0).sum()
    assert (made.prediction > 0).sum() == (predicted > 0).sum()
    assert made.shape == (10 + 2 * 8, 10 + 2 * 8, 24 + 2 * 8)  # 8 mm of margin at least, at the borders less
    assert all(first > 0 for first in np.argwhere(made.truth > 0).min(axis=0))


def test_the_first_slice_is_superior_the_first_row_anterior_the_first_column_right():
    truth = labelled((20, 20, 20), [(17, 19), (16, 19), (15, 19)])  # up, in front, right
    made = make_volume(volume_of(np.zeros(truth.shape)), truth, None)
    middle = np.argwhere(made.truth > 0).mean(axis=0)
    assert (middle < np.array(made.shape) / 2).all()
    flat = labelled((1, 20, 20), [(0, 1), (16, 19), (2, 5)])
    shown = make_volume(volume_of(np.zeros(flat.shape), has_frame=False), flat, None)
    assert (np.argwhere(shown.truth > 0).mean(axis=0)[1:] > np.array(shown.shape[1:]) / 2).tolist() == [True, False]


@pytest.mark.parametrize("has_frame", [True, False])
@pytest.mark.parametrize("shape", [(30, 40, 50), (31, 41, 53)])
def test_a_place_is_found_again_after_crop_turn_and_downsampling(has_frame, shape):
    place = (9, 17, 33)
    image, truth = np.zeros(shape), labelled(shape, [(5, 14), (10, 30), (25, 45)])
    image[place] = 1000
    made = make_volume(volume_of(image, has_frame=has_frame), truth, None, around=place)
    for factors in ((1, 1, 1), (1, 2, 3)):
        small = downsample(made, factors)
        assert np.unravel_index(int(small.image.argmax()), small.shape) == small.place(place)
        assert small.factors == factors


def test_the_crop_is_extended_to_the_place_it_points_at():
    truth = labelled((40, 40, 40), [(30, 34), (30, 34), (30, 34)])
    made = make_volume(volume_of(np.zeros(truth.shape)), truth, None, around=(3, 3, 3))
    assert made.start == (0, 0, 0)


def test_bytes_come_back_as_image_truth_and_prediction():
    rng = np.random.default_rng(1)
    truth, predicted = (rng.integers(0, 4, (12, 13, 14)).astype(np.int16) for _ in range(2))
    made = make_volume(volume_of(rng.normal(size=truth.shape)), truth, predicted)
    raw = np.frombuffer(gzip.decompress(base64.b64decode(encode(made))), np.uint8).reshape(3, *made.shape)
    assert (raw[0] == made.image).all()
    assert (raw[1] == truth[::-1, ::-1, ::-1]).all()
    assert (raw[2] == predicted[::-1, ::-1, ::-1]).all()
    assert raw[0].min() == 0
    assert raw[0].max() == 255


def test_noise_that_no_packing_helps_stays_within_the_budget():
    rng = np.random.default_rng(2)
    truth = labelled((150, 150, 150), [(5, 145)] * 3)
    made = make_volume(volume_of(rng.normal(size=truth.shape), (3.0, 1.0, 1.0)), truth, truth)
    small, text = encode_within(made)
    assert len(text) <= CASE_BYTES
    assert small.spacing[0] == 3.0  # the fine axes first
    assert small.spacing[1] == small.spacing[2] > 1.0
    extent = np.array(small.shape) * small.spacing
    assert np.allclose(extent, np.array(made.shape) * made.spacing, atol=max(small.spacing))
    assert 40 * CASE_BYTES < PAGE_BYTES < 30_000_000


def test_ignored_voxels_are_background_and_an_even_image_is_black():
    truth = labelled((8, 8, 8), [(2, 5)] * 3)
    truth[0, 0, 0] = -1
    made = make_volume(volume_of(np.full(truth.shape, 7.0)), truth, None)
    assert set(np.unique(made.truth)) == {0, 1}
    assert not made.image.any()


def test_red_green_and_blue_are_shown_as_grey():
    array = np.zeros((3, 1, 10, 10))
    array[2, 0, :, 5:] = 90  # blue alone
    truth = labelled((1, 10, 10), [(0, 1), (2, 8), (2, 8)])
    made = make_volume(volume_of(array, has_frame=False), truth, None, ["R", "G", "B"])
    assert made.image[0, 4].max() == 255
    assert not make_volume(volume_of(array, has_frame=False), truth, None, ["T1", "T2", "FLAIR"]).image.any()
