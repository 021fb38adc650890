"""Contours lie where the voxels' edges are, in mm; slices are those that show something."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from mvl_auto.report.slices import MOST_PATH_BYTES, choose_place, find_outlines, slices_at
from mvl_auto.report.volumes import CaseVolume


def corners(path):
    return [
        np.array([list(map(float, pair.split(","))) for pair in part.strip("Z").split()])
        for part in path.split("M")[1:]
    ]


def area(points):
    x, y = points.T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def test_a_rectangle_is_outlined_along_its_voxels_edges():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 4:8] = True
    (points,) = corners(find_outlines(mask, (2.0, 0.5)))
    assert points.min(axis=0).tolist() == [4 * 0.5, 2 * 2.0]
    assert points.max(axis=0).tolist() == [8 * 0.5, 5 * 2.0]
    assert area(points) == pytest.approx((3 * 4 - 4 * 0.125) * 2.0 * 0.5)  # marching squares cut the four corners


def test_a_mask_at_the_border_is_closed_and_a_hole_is_a_second_path():
    mask = np.ones((5, 5), bool)
    mask[2, 2] = False
    path = find_outlines(mask, (1.0, 1.0))
    assert path.count("M") == path.count("Z") == 2
    assert find_outlines(np.zeros((4, 4), bool), (1, 1)) == ""


def case(shape=(6, 8, 10), **changes):
    fields = {
        "image": np.arange(np.prod(shape), dtype=np.uint8).reshape(shape),
        "truth": np.zeros(shape, np.uint8),
        "prediction": np.zeros(shape, np.uint8),
        "spacing": (3.0, 1.0, 0.5),
        "start": (0, 0, 0),
        "crop": shape,
        "factors": (1, 1, 1),
        "turned": True,
    }
    return CaseVolume(**(fields | changes))


def test_the_outlines_of_noise_are_bounded_and_the_slice_says_what_is_left_out():
    rng = np.random.default_rng(0)
    truth = np.zeros((40, 200, 200), np.uint8)
    truth[5:35, 40:160, 40:160] = 1
    noise = rng.integers(0, 3, truth.shape).astype(np.uint8)
    for slice_ in slices_at(case(truth.shape, truth=truth, prediction=noise, spacing=(1.0, 1.0, 1.0)), (20, 100, 100)):
        for source in ("truth", "prediction"):
            assert sum(len(each.path) for each in slice_.contours if each.source == source) <= MOST_PATH_BYTES
        assert slice_.smallest > 1


def test_a_speck_and_a_pinhole_are_left_out_and_the_rest_stays_as_it_is(monkeypatch):
    mask = np.zeros((1, 30, 30), np.uint8)
    mask[0, 5:20, 5:20] = 1
    whole = find_outlines(mask[0] > 0, (1.0, 1.0))
    mask[0, 10, 10], mask[0, 25, 25] = 0, 1
    monkeypatch.setattr("mvl_auto.report.slices.MOST_PATH_BYTES", len(whole) + 10)
    (slice_,) = slices_at(case(mask.shape, truth=mask, prediction=None, spacing=(1.0, 1.0, 1.0)), (0, 0, 0))
    assert [each.path for each in slice_.contours] == [whole]
    assert slice_.smallest == 2


def test_the_slices_with_most_errors_are_chosen_and_without_errors_the_largest():
    truth, predicted = np.zeros((2, 6, 8, 10), np.uint8)
    truth[2, 2:6, 2:6] = 1
    predicted[2, 2:6, 2:6] = 1
    predicted[4, 3, 7] = 2
    assert choose_place(case(truth=truth, prediction=predicted)) == (4, 3, 7)
    assert choose_place(case(truth=truth, prediction=predicted), errors=False)[0] == 2
    assert choose_place(case(truth=truth, prediction=truth)) == (2, 2, 2)
    assert choose_place(case()) == (3, 4, 5)


def test_three_slices_have_their_sizes_sides_and_pixels():
    truth = np.zeros((6, 8, 10), np.uint8)
    truth[1:3, 2:4, 5:9] = 3
    made = case(truth=truth)
    axial, coronal, sagittal = slices_at(made, (1, 2, 5), mark=True)
    assert (axial.width, axial.height) == (5.0, 8.0)
    assert (coronal.width, coronal.height) == (5.0, 18.0)
    assert (sagittal.width, sagittal.height) == (8.0, 18.0)
    assert [(each.left, each.top) for each in (axial, coronal, sagittal)] == [("R", "A"), ("R", "S"), ("A", "S")]
    assert axial.mark == (5.5 * 0.5, 2.5)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(coronal.image))))
    assert (pixels == made.image[:, 2]).all()
    (contour,) = axial.contours
    assert (contour.source, contour.klass) == ("truth", 3)
    assert re.fullmatch(r"[MZ\d., ]+", contour.path)


def test_a_flat_image_has_one_slice_without_sides():
    (only,) = slices_at(case((1, 8, 10), turned=False), (0, 4, 5))
    assert (only.left, only.count) == ("", 1)
