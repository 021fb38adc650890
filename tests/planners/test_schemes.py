"""Normalization by the channel's name, and the masks of cropped images."""

from __future__ import annotations

import pytest
from fingerprints import DECATHLON, STATISTICS, case_of

from mvl_auto.planners.normalization import normalization_schemes, use_mask_for_norm
from mvl_auto.plans import Channel


def schemes_of(*names: str, statistics=STATISTICS):
    return normalization_schemes([Channel(name=name) for name in names], [statistics] * len(names))


@pytest.mark.parametrize(
    ("names", "schemes"),
    [
        (("CT",), ("ct",)),
        (("ct", "PET"), ("ct", "z_score")),
        (("noNorm", "T1"), ("none", "z_score")),
        (("rescale_to_0_1",), ("rescale_to_0_1",)),
        (("rescale_0_1",), ("rescale_to_0_1",)),
        (("rgb_to_0_1",), ("rgb_to_0_1",)),
        (("R", "G", "B"), ("rgb_to_0_1",) * 3),
        (("red", "green", "blue", "infrared"), (*["rgb_to_0_1"] * 3, "z_score")),
        (("R", "T"), ("z_score", "z_score")),
        (("CTA",), ("z_score",)),
    ],
)
def test_a_name_decides(names, schemes):
    assert schemes_of(*names) == schemes


def test_colours_beyond_a_byte_get_a_z_score():
    sixteen_bits = STATISTICS.model_copy(update={"max": 65535.0})
    assert schemes_of("R", "G", "B", statistics=sixteen_bits) == ("z_score",) * 3


@pytest.mark.parametrize("task", DECATHLON, ids=[task.task for task in DECATHLON])
def test_the_decathlon_has_the_schemes_of_nnunet(task):
    expected = "ct" if task.channels == ("CT",) else "z_score"
    assert schemes_of(*task.channels) == (expected,) * len(task.channels)


@pytest.mark.parametrize("task", DECATHLON, ids=[task.task for task in DECATHLON])
def test_the_decathlon_is_masked_where_nnunet_masks_it(task):
    """nnU-Net's flag for z-scores of brains and hearts, whose scans it cropped to less than three quarters."""
    left = 0.6 if task.masked else 1.0
    cropped = (round(left * task.raw_size[0]), *task.raw_size[1:])
    cases = [case_of(str(n), task.raw_size, task.raw_spacing, shape_after_crop=cropped) for n in range(3)]
    assert use_mask_for_norm(schemes_of(*task.channels), cases) == (task.masked,) * len(task.channels)


@pytest.mark.parametrize(("left", "masked"), [(74, True), (75, False), (100, False)])
def test_statistics_are_masked_where_cropping_removed_more_than_a_quarter(left, masked):
    cases = [case_of(str(n), (1, 1, 100), (1, 1, 1), shape_after_crop=(1, 1, left)) for n in range(3)]
    assert use_mask_for_norm(("z_score", "ct", "none"), cases) == (masked, False, False)
