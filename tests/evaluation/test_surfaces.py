"""Distances between surfaces in mm, against geometry done by hand and SimpleITK's Hausdorff distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mvl_auto.evaluation.surfaces import hd95_mm, nsd, surface, surface_distances

SPACING = (5.0, 0.7, 0.9)  # mm, Z Y X


def box(shape: tuple[int, ...], *sides: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(start, stop) for start, stop in sides)] = True
    return mask


def masks(max_side: int = 7):
    return array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=max_side).flatmap(
        lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
    )


def test_the_surface_of_a_block_is_all_but_its_inside():
    block = box((9, 9, 9), (1, 6), (2, 7), (3, 8))
    assert (surface(block) == block & ~box((9, 9, 9), (2, 5), (3, 6), (4, 7))).all()


def test_two_voxels_are_as_far_apart_as_their_centres():
    first, second = np.zeros((2, 4, 8, 8), bool)
    first[0, 1, 1], second[2, 4, 5] = True, True
    distances = surface_distances(first, second, SPACING)
    assert hd95_mm(distances) == pytest.approx(math.hypot(2 * 5.0, 3 * 0.7, 4 * 0.9))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slab_moved_along_an_axis_is_off_by_that_axis_spacing(axis):
    shape = (12, 12, 12)
    slab = np.zeros(shape, bool)
    slab[(slice(None),) * axis + (slice(4, 6),)] = True
    moved = np.roll(slab, 3, axis)
    distances = surface_distances(slab, moved, SPACING)
    assert hd95_mm(distances, percentile=100) == pytest.approx(3 * SPACING[axis])
    nearer_face_mm = 2 * SPACING[axis]
    assert nsd(distances, tolerance_mm=nearer_face_mm) == pytest.approx(1 / 2)
    assert nsd(distances, tolerance_mm=3 * SPACING[axis]) == 1


def test_a_stray_voxel_moves_the_hausdorff_distance_but_not_its_95th_percentile():
    block = box((20, 20, 20), (2, 9), (2, 9), (2, 9))
    stray = block.copy()
    stray[19, 5, 5] = True
    distances = surface_distances(block, stray, (1.0, 1.0, 1.0))
    assert hd95_mm(distances, percentile=100) == 19 - 8
    assert hd95_mm(distances) == 0


def test_a_flat_image_has_an_outline():
    square = box((1, 9, 9), (0, 1), (1, 8), (1, 8))
    filled_hole = square.copy()
    filled_hole[0, 4, 4] = False
    distances = surface_distances(square, filled_hole, (1.0, 0.5, 0.5))
    assert len(distances.reference_to_prediction_mm) == 4 * 6
    assert hd95_mm(distances, percentile=100) == pytest.approx(2 * 0.5)
    assert hd95_mm(surface_distances(square[0], filled_hole[0], (0.5, 0.5)), 100) == pytest.approx(2 * 0.5)


def test_empty_masks():
    shape = (3, 4, 5)
    empty, something = np.zeros(shape, bool), box(shape, (1, 2), (1, 3), (1, 3))
    nothing_at_all = surface_distances(empty, empty, SPACING)
    assert math.isnan(hd95_mm(nothing_at_all))
    assert math.isnan(nsd(nothing_at_all))
    diagonal_mm = math.hypot(2 * 5.0, 3 * 0.7, 4 * 0.9)
    for reference, prediction in ((empty, something), (something, empty)):
        distances = surface_distances(reference, prediction, SPACING)
        assert hd95_mm(distances) == pytest.approx(diagonal_mm)
        assert nsd(distances) == 0


def test_an_image_of_one_voxel():
    voxel = np.ones((1, 1, 1), bool)
    assert hd95_mm(surface_distances(voxel, voxel, SPACING)) == 0


@given(masks())
def test_the_same_hausdorff_distance_as_simpleitk(pair):
    if not (pair[0].any() and pair[1].any()):
        return
    outlines = []
    for mask in pair:
        image = sitk.ConstantPad(sitk.GetImageFromArray(mask.astype(np.uint8)), [1] * 3, [1] * 3)
        image.SetSpacing(SPACING[::-1])
        outlines.append(sitk.LabelContour(image, fullyConnected=False))
    independent = sitk.HausdorffDistanceImageFilter()
    independent.Execute(*outlines)
    found = hd95_mm(surface_distances(*pair, SPACING), percentile=100)
    assert found == pytest.approx(independent.GetHausdorffDistance(), rel=1e-5)


@given(masks(), st.floats(0, 10))
def test_both_directions_count_alike(pair, tolerance_mm):
    there, back = surface_distances(*pair, SPACING), surface_distances(*pair[::-1], SPACING)
    assert hd95_mm(there) == pytest.approx(hd95_mm(back), nan_ok=True)
    assert nsd(there, tolerance_mm) == pytest.approx(nsd(back, tolerance_mm), nan_ok=True)


@given(masks(), st.tuples(*[st.integers(0, 4)] * 6))
def test_empty_space_around_the_masks_changes_nothing(pair, margins):
    if not (pair[0].any() and pair[1].any()):
        return
    around = list(zip(margins[:3], margins[3:], strict=True))
    bare = surface_distances(*pair, SPACING)
    wide = surface_distances(*(np.pad(mask, around) for mask in pair), SPACING)
    assert hd95_mm(wide) == pytest.approx(hd95_mm(bare))
    assert nsd(wide) == pytest.approx(nsd(bare))


@given(masks(), st.floats(0.1, 10))
def test_distances_grow_with_the_voxels(pair, factor):
    if not (pair[0].any() and pair[1].any()):
        return
    small = surface_distances(*pair, SPACING)
    large = surface_distances(*pair, tuple(factor * size for size in SPACING))
    assert hd95_mm(large) == pytest.approx(factor * hd95_mm(small))
