"""Boundary IoU: bands drawn by hand, and distances by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.spatial.distance import cdist

from mvl_auto.evaluation.boundary import boundary, boundary_iou, count_boundaries, default_width_mm

SPACING = (3.0, 1.0)


def test_the_band_of_a_rectangle_counts_voxels_of_either_size():
    mask = np.zeros((12, 12), bool)
    mask[1:11, 1:11] = True
    band = boundary(mask, SPACING, width_mm=2.0)
    inside = np.zeros_like(mask)
    inside[1:11, 3:9] = True  # 2 mm are two voxels along X and none along Y: the outside is 3 mm away there
    assert (band == mask & ~inside).all()


def test_the_border_of_the_image_is_outside():
    assert boundary(np.ones((5, 5), bool), (1.0, 1.0), 1.0).sum() == 25 - 9


def test_moved_by_one_voxel():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    counts = count_boundaries(mask, np.roll(mask, 1, 1), (1.0, 1.0), 1.0)
    ring, shared = 4 * 9, 2 * 9  # the two long sides overlap in 9 voxels each, the others are beside each other
    assert (counts.both, counts.either) == (shared, 2 * ring - shared)
    assert boundary_iou(counts) == pytest.approx(shared / (2 * ring - shared))


def test_empty_masks():
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    assert math.isnan(boundary_iou(count_boundaries(empty, empty, SPACING, 1.0)))
    assert boundary_iou(count_boundaries(empty, full, SPACING, 1.0)) == 0


def test_the_default_width():
    assert default_width_mm((300, 400), (1.0, 1.0)) == pytest.approx(0.02 * 500)
    assert default_width_mm((30, 40), (1.0, 1.5)) == 1.5, "never narrower than a voxel"


@given(array_shapes(min_dims=2, max_dims=3, max_side=6).flatmap(lambda shape: arrays(bool, shape)), st.floats(0.5, 4))
def test_as_by_brute_force(mask, width):
    spacing = (1.3, 0.7, 2.0)[: mask.ndim]
    padded = np.pad(mask, 1)
    inside, outside = np.argwhere(padded) * spacing, np.argwhere(~padded) * spacing
    expected = (cdist(inside, outside).min(1) <= width + 1e-9).sum() if mask.any() else 0
    assert boundary(mask, spacing, width).sum() == expected
