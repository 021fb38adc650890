"""Distances between surfaces in mm: geometry done by hand, SimpleITK, brute force, and the package surface-distance."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.spatial.distance import cdist

from mvl_auto.evaluation.surfaces import (
    assd_mm,
    hd95_mm,
    hd95_voxel_mm,
    hd_mm,
    nsd,
    surface_distances,
    surface_voxels,
    voxel_surface_distances,
)
from mvl_auto.evaluation.surfels import areas, patterns, surfels

SPACING = (5.0, 0.7, 0.9)  # mm, Z Y X


def box(shape: tuple[int, ...], *sides: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(start, stop) for start, stop in sides)] = True
    return mask


def masks(max_side: int = 7):
    return array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=max_side).flatmap(
        lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
    )


PEER = pytest.mark.skipif(
    np.__version__.startswith("1."), reason="surface-distance calls np.bool, which numpy 1.24 to 1.26 lack"
)


@PEER
@given(masks(), st.tuples(*[st.floats(0.3, 5)] * 3), st.floats(0, 10))
def test_the_same_as_the_package_surface_distance_in_3d(pair, spacing, tolerance_mm):
    _same_as_the_package(pair, spacing, tolerance_mm)


@PEER
@given(
    array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9).flatmap(
        lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
    ),
    st.tuples(*[st.floats(0.3, 5)] * 2),
    st.floats(0, 10),
)
def test_the_same_as_the_package_surface_distance_in_2d(pair, spacing, tolerance_mm):
    _same_as_the_package(pair, spacing, tolerance_mm)


def _same_as_the_package(pair, spacing, tolerance_mm):
    package = pytest.importorskip("surface_distance")
    if not (pair[0].any() and pair[1].any()):
        return  # of an empty mask it takes np.Inf, which numpy has no more
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports from scipy.ndimage.filters
        theirs = package.compute_surface_distances(*pair, spacing)
    ours = surface_distances(*pair, spacing)
    assert ours.reference_areas.sum() == pytest.approx(theirs["surfel_areas_gt"].sum(), abs=1e-9)
    assert hd_mm(ours) == pytest.approx(package.compute_robust_hausdorff(theirs, 100), abs=1e-9)
    assert hd95_mm(ours) == pytest.approx(package.compute_robust_hausdorff(theirs, 95), abs=1e-9)
    assert nsd(ours, tolerance_mm) == pytest.approx(
        package.compute_surface_dice_at_tolerance(theirs, tolerance_mm), abs=1e-9
    )
    of_surfaces = [theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()]
    means = package.compute_average_surface_distance(theirs)
    assert assd_mm(ours) == pytest.approx(np.average(means, weights=of_surfaces), abs=1e-9)


def test_areas_of_patterns_by_hand():
    z, y, x = 2.0, 3.0, 5.0  # mm
    one_voxel_inside = 1
    lower_half = sum(1 << bit for bit in range(4))  # the four voxels of z = 0
    corner = 0.5 * np.linalg.norm(np.cross([-z / 2, y / 2, 0], [-z / 2, 0, x / 2]))
    table = areas((z, y, x))
    assert table[lower_half] == pytest.approx(y * x)
    assert table[one_voxel_inside] == pytest.approx(corner)
    assert table[0] == table[255] == 0
    assert table == pytest.approx(table[::-1]), "a pattern and its complement"


def test_a_ball_has_the_area_of_a_ball():
    radius_mm, spacing = 20.0, (2.0, 1.0, 1.0)
    grid = np.ogrid[-25:26:2, -25:26, -25:26]
    ball = sum(axis**2 for axis in grid) <= radius_mm**2
    _, of_elements = surfels(ball, spacing)
    assert of_elements.sum() == pytest.approx(4 * math.pi * radius_mm**2, rel=0.12)  # a staircase is larger


def test_lengths_of_an_outline_by_hand():
    _, lengths = surfels(box((5, 5), (1, 3), (1, 4)), (2.0, 0.5))
    corners, sides = 4 * 0.5 * math.hypot(2.0, 0.5), 2 * (2 - 1) * 2.0 + 2 * (3 - 1) * 0.5
    assert lengths.sum() == pytest.approx(corners + sides)


def test_each_voxel_of_a_pattern_has_its_own_bit():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 1], mask[1, 0, 0] = True, True
    assert patterns(mask)[1, 1, 1] == 0b00010010


def test_the_surface_voxels_of_a_block_are_all_but_its_inside():
    block = box((9, 9, 9), (1, 6), (2, 7), (3, 8))
    places, _ = surface_voxels(block, (1.0, 1.0, 1.0))
    found = np.zeros(block.size, bool)
    found[places] = True
    assert (found.reshape(block.shape) == block & ~box((9, 9, 9), (2, 5), (3, 6), (4, 7))).all()


def test_two_voxels_are_as_far_apart_as_their_centres():
    first, second = np.zeros((2, 4, 8, 8), bool)
    first[0, 1, 1], second[2, 4, 5] = True, True
    expected = math.hypot(2 * 5.0, 3 * 0.7, 4 * 0.9)
    assert hd_mm(voxel_surface_distances(first, second, SPACING)) == pytest.approx(expected)
    assert hd95_voxel_mm(voxel_surface_distances(first, second, SPACING)) == pytest.approx(expected)
    farthest_corners = math.hypot(2 * 5.0, 3 * 0.7, 4 * 0.9)  # each has 8 corners, moved alike
    nearest = math.hypot(1 * 5.0, 2 * 0.7, 3 * 0.9)
    assert nearest < hd_mm(surface_distances(first, second, SPACING)) <= farthest_corners


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slab_moved_along_an_axis_is_off_by_that_axis_spacing(axis):
    slab = np.zeros((30, 30, 30), bool)
    slab[(slice(None),) * axis + (slice(4, 6),)] = True
    distances = surface_distances(slab, np.roll(slab, 3, axis), SPACING)
    assert hd_mm(distances) == pytest.approx(3 * SPACING[axis])
    assert nsd(distances, tolerance_mm=3 * SPACING[axis]) == 1, "three steps are as long everywhere"
    near_face = nsd(distances, tolerance_mm=SPACING[axis])
    assert near_face == pytest.approx(1 / 2, abs=0.15), "the far faces are off by three, the near ones by one"
    assert assd_mm(distances) == pytest.approx(2 * SPACING[axis], rel=0.15)


def test_a_stray_voxel_moves_the_hausdorff_distance_but_not_its_95th_percentile():
    block = box((20, 20, 20), (2, 9), (2, 9), (2, 9))
    stray = block.copy()
    stray[19, 5, 5] = True
    distances = surface_distances(block, stray, (1.0, 1.0, 1.0))
    assert hd_mm(distances) == 20 - 9
    assert hd95_mm(distances) == 0
    by_voxels = voxel_surface_distances(block, stray, (1.0, 1.0, 1.0))
    assert hd_mm(by_voxels) == 19 - 8
    assert hd95_voxel_mm(by_voxels) == 0


def test_hd95_weighs_by_area():
    tall = box((3, 40, 40), (1, 2), (5, 35), (5, 35))  # a plate: large faces of 1 mm², thin sides of 10 mm x 1 mm
    wide = box((3, 40, 40), (1, 2), (5, 35), (5, 36))  # one side 1 mm farther
    spacing = (10.0, 1.0, 1.0)
    distances = surface_distances(tall, wide, spacing)
    moved = distances.prediction_mm > 0
    share = distances.prediction_areas[moved].sum() / distances.prediction_areas.sum()
    assert share > 0.05, "by area the side is more than 5 % of the surface"
    assert hd95_mm(distances) == 1.0
    assert hd95_voxel_mm(voxel_surface_distances(tall, wide, spacing)) == 0, "of the voxels it is less than 5 %"


def test_a_2d_image_has_an_outline():
    square = box((1, 9, 9), (0, 1), (1, 8), (1, 8))
    filled_hole = square.copy()
    filled_hole[0, 4, 4] = False
    distances = voxel_surface_distances(square, filled_hole, (1.0, 0.5, 0.5))
    assert len(distances.reference_mm) == 4 * 6
    assert hd_mm(distances) == pytest.approx(2 * 0.5)
    assert hd_mm(voxel_surface_distances(square[0], filled_hole[0], (0.5, 0.5))) == pytest.approx(2 * 0.5)
    in_2d = surface_distances(square[0], filled_hole[0], (0.5, 0.5))
    assert surface_distances(square, filled_hole, (1.0, 0.5, 0.5)).reference_areas.sum() == in_2d.reference_areas.sum()


def test_a_label_in_one_slice_of_a_volume_has_two_faces():
    slab = box((1, 6, 6), (0, 1), (0, 6), (0, 6))
    cut_out = surface_distances(slab, slab, (2.0, 1.0, 1.0), image_shape=(9, 6, 6))
    assert cut_out.reference_areas.sum() > 2 * 5 * 5


def test_empty_masks():
    shape = (3, 4, 5)
    empty, something = np.zeros(shape, bool), box(shape, (1, 2), (1, 3), (1, 3))
    diagonal_mm = math.hypot(2 * 5.0, 3 * 0.7, 4 * 0.9)
    for measure in (surface_distances, voxel_surface_distances):
        nothing_at_all = measure(empty, empty, SPACING)
        for metric in (hd_mm, hd95_mm, hd95_voxel_mm, assd_mm, nsd):
            assert math.isnan(metric(nothing_at_all))
        for reference, prediction in ((empty, something), (something, empty)):
            distances = measure(reference, prediction, SPACING)
            assert nsd(distances) == 0
            for metric in (hd_mm, hd95_mm, hd95_voxel_mm, assd_mm):
                assert metric(distances) == pytest.approx(diagonal_mm)


def test_an_image_of_one_voxel():
    voxel = np.ones((1, 1, 1), bool)
    assert hd95_mm(surface_distances(voxel, voxel, SPACING)) == 0
    assert nsd(surface_distances(voxel, voxel, SPACING)) == 1


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
    found = hd_mm(voxel_surface_distances(*pair, SPACING))
    assert found == pytest.approx(independent.GetHausdorffDistance(), rel=1e-5)


@given(masks())
def test_the_same_distances_as_by_brute_force(pair):
    if not (pair[0].any() and pair[1].any()):
        return
    found = surface_distances(*pair, SPACING)
    grid = [size + 1 for size in pair[0].shape]
    points = [np.stack(np.unravel_index(surfels(mask, SPACING)[0], grid), 1) * SPACING for mask in pair]
    between = cdist(*points)
    assert found.reference_mm == pytest.approx(between.min(1), abs=1e-9)
    assert found.prediction_mm == pytest.approx(between.min(0), abs=1e-9)


@given(masks(), st.floats(0, 10))
def test_both_directions_count_alike(pair, tolerance_mm):
    there, back = surface_distances(*pair, SPACING), surface_distances(*pair[::-1], SPACING)
    for metric in (hd_mm, hd95_mm, assd_mm):
        assert metric(there) == pytest.approx(metric(back), nan_ok=True)
    assert nsd(there, tolerance_mm) == pytest.approx(nsd(back, tolerance_mm), nan_ok=True)


@given(masks(), st.tuples(*[st.integers(0, 4)] * 6))
def test_empty_space_around_the_masks_changes_nothing(pair, margins):
    if not (pair[0].any() and pair[1].any()):
        return
    around = list(zip(margins[:3], margins[3:], strict=True))
    bare = surface_distances(*pair, SPACING)
    wide = surface_distances(*(np.pad(mask, around) for mask in pair), SPACING)
    for metric in (hd_mm, hd95_mm, assd_mm, nsd):
        assert metric(wide) == pytest.approx(metric(bare))


@given(masks(), st.floats(0.1, 10))
def test_distances_grow_with_the_voxels(pair, factor):
    if not (pair[0].any() and pair[1].any()):
        return
    small = surface_distances(*pair, SPACING)
    large = surface_distances(*pair, tuple(factor * size for size in SPACING))
    assert hd_mm(large) == pytest.approx(factor * hd_mm(small))
    assert large.reference_areas.sum() == pytest.approx(factor**2 * small.reference_areas.sum())
