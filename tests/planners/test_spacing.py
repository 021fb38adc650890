"""Target spacings and their relatives, by hand and against what nnU-Net planned for the Decathlon."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fingerprints import DECATHLON, Published
from hypothesis import given
from hypothesis import strategies as st

from mvl_auto.planners.planner import lowres_spacing, shape_at
from mvl_auto.planners.spacing import (
    coarse_axis,
    median_resampled_shape,
    resampled_shape,
    separate_axis,
    target_spacing,
    transpose_forward,
)

ANISOTROPIC = {"Prostate", "Pancreas", "HepaticVessel", "Spleen", "Colon"}
TASKS = pytest.mark.parametrize("task", DECATHLON, ids=[task.task for task in DECATHLON])
MM = st.floats(0.1, 10)
CASES = st.lists(st.tuples(MM, MM, MM), min_size=1, max_size=12)


def cases_of(task: Published) -> list[tuple[float, ...]]:
    """Spacings of 21 cases with the task's raw median, whose finest two in ten have its target spacing."""
    return [task.spacing] * 5 + [task.raw_spacing] * 16


@TASKS
def test_the_decathlon_has_the_spacings_of_nnunet(task: Published):
    found = target_spacing(cases_of(task), [task.raw_size] * 21)
    assert found == pytest.approx(task.spacing, abs=1e-6)


@TASKS
def test_the_decathlon_is_anisotropic_where_nnunet_finds_it_so(task: Published):
    assert coarse_axis(task.raw_spacing, task.raw_size) == (0 if task.task in ANISOTROPIC else None)


@TASKS
def test_the_decathlon_has_the_low_resolutions_of_nnunet(task: Published):
    low = lowres_spacing(task.spacing, task.size, task.low_patch or task.patch)
    assert low == pytest.approx(task.low_spacing or task.spacing, rel=1e-12)
    assert shape_at(low, task.spacing, task.size) == (task.low_size or task.size)


def test_the_coarse_axis_gets_its_tenth_percentile_by_hand():
    spacings = [(mm, 0.5, 0.5) for mm in (5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 4.0, 2.0, 2.0)]
    assert target_spacing(spacings, [(20, 320, 320)] * 11) == (2.0, 0.5, 0.5)
    assert target_spacing(spacings, [(110, 320, 320)] * 11) == (5.0, 0.5, 0.5)  # as many slices: no thick slices


def test_the_coarse_axis_does_not_become_finer_than_the_others():
    spacings = [(0.1, 1.0, 1.0)] * 3 + [(9.0, 1.0, 1.0)] * 4
    assert target_spacing(spacings, [(10, 100, 100)] * 7) == (1.0, 1.0, 1.0)


@given(CASES, st.permutations(range(3)))
def test_turning_the_axes_turns_the_target(spacings, order):
    def turned(vectors):
        return [tuple(vector[axis] for axis in order) for vector in vectors]

    shapes = [(20, 90, 300)] * len(spacings)
    straight, turn = target_spacing(spacings, shapes), target_spacing(turned(spacings), turned(shapes))
    if len(set(np.median(spacings, axis=0))) == 3:  # of two equally coarse axes the first is taken
        assert turn == turned([straight])[0]


@given(CASES)
def test_a_target_lies_within_the_spacings_of_the_cases(spacings):
    found = target_spacing(spacings, [(20, 90, 300)] * len(spacings))
    for axis in range(3):
        column = [spacing[axis] for spacing in spacings]
        others = [mm for other in range(3) if other != axis for mm in (spacing[other] for spacing in spacings)]
        assert min(column) - 1e-6 <= found[axis] <= max(*column, *others) + 1e-6


def test_slices_are_resampled_apart_only_across_one_axis_beyond_factor_three():
    assert separate_axis((3.0, 1.0, 1.0)) is None
    assert separate_axis((3.1, 1.0, 1.0)) == 0
    assert separate_axis((1.0, 1.0, 7.5)) == 2
    assert separate_axis((1.25, 0.24, 1.25)) is None  # two coarse axes: no stack of slices


def test_the_coarsest_axis_comes_first_but_for_one_of_one_voxel():
    assert transpose_forward((1.0, 1.0, 1.0), (20, 20, 20)) == (0, 1, 2)
    assert transpose_forward((0.5, 7.5, 0.5), (320, 11, 320)) == (1, 0, 2)
    assert transpose_forward((1.0, 0.9, 0.3), (256, 256, 1)) == (2, 0, 1)


def test_resampled_sizes_by_hand():
    assert resampled_shape((49, 512, 512), (5.0, 0.8, 0.8), (1.5, 0.8, 0.8)) == (163, 512, 512)
    assert resampled_shape((1, 3, 2), (0.1, 1.0, 1.0), (1.0, 4.0, 1.0)) == (1, 1, 2)
    sizes = median_resampled_shape([(10, 10, 10), (20, 20, 20)], [(2, 1, 1), (1, 1, 1)], (1.0, 1.0, 1.0))
    assert sizes == (20, 15, 15)


@given(st.tuples(MM, MM, MM), st.tuples(*[st.integers(8, 600)] * 3), st.integers(512, 10**6))
def test_a_patch_covers_a_quarter_of_the_low_resolution(spacing, shape, voxels):
    low = lowres_spacing(spacing, shape, (voxels,))
    remaining = math.prod(shape) * math.prod(spacing) / math.prod(low)
    assert voxels / remaining >= 0.25
    assert low == spacing or voxels / (remaining * 1.03**3) < 0.25
