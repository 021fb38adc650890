"""Shapes after resampling: nnU-Net's, for planning and preprocessing alike."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_auto.images.spacing import resampled_shape, round_spacing


def compute_new_shape(old_shape, old_spacing, new_spacing) -> list[int]:
    """nnU-Net's rule: the ratio of the spacings times the voxels, rounded to the nearest even number at a half."""
    ratio = np.asarray(old_spacing) / np.asarray(new_spacing)
    return [int(n) for n in np.rint(ratio * np.asarray(old_shape))]


@pytest.mark.parametrize(
    ("voxels", "mm", "new_mm", "expected"),
    [
        (49, 5.0, 1.5, 163),  # 163.33
        (512, 0.8, 0.8, 512),
        (1, 0.1, 1.0, 1),  # never none
        (3, 1.0, 4.0, 1),
        (5, 1.0, 2.0, 2),  # 2.5: to the even number
        (7, 1.0, 2.0, 4),  # 3.5
        (45, 0.7, 0.9, 35),  # the ratio first: 34.999999999999993, 35 either way
        (15, 0.7, 3.0, 3),  # the ratio first: 3.4999999999999996; the product first: 3.5, which would be 4
    ],
)
def test_shapes_by_hand(voxels, mm, new_mm, expected):
    assert resampled_shape((voxels,), (mm,), (new_mm,)) == (expected,)


def test_common_shapes_and_spacings_are_resampled_to_the_shapes_of_nnunet():
    """Of these cases 208 differ by one voxel where the product is computed before the ratio."""
    spacings = [round(0.1 * n, 1) for n in range(3, 51, 2)] + [0.45, 0.625, 0.75, 0.78125, 1.25, 1.37]
    different = 0
    for voxels, (mm, new) in product(range(16, 520, 8), product(spacings, spacings)):
        found = resampled_shape((voxels,), (mm,), (new,))[0]
        assert found == max(1, compute_new_shape((voxels,), (mm,), (new,))[0])
        different += found != max(1, round(voxels * mm / new))
    assert different > 0  # so the order of operations matters among these cases


@given(st.floats(0.1, 10), st.integers(1, 700))
def test_the_same_spacing_leaves_the_shape_as_it_is(mm, voxels):
    assert resampled_shape((voxels,), (mm,), (mm,)) == (voxels,)


def test_spacings_are_rounded_to_a_nanometer_and_those_of_microscopes_to_six_digits():
    assert round_spacing([0.78125000000001, np.float32(0.7), 100.0000004]) == (0.78125, 0.7, 100.0)
    assert round_spacing([0.0001027, np.float32(3.2345e-5), 1.02e-7]) == (0.0001027, 3.2345e-5, 1.02e-7)
