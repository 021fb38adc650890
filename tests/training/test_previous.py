"""What happens to the first stage's segmentation in training: scipy's morphology, few voxels, the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from trained import make_labels

from mvl_auto.cache import write_previous
from mvl_auto.plans import PreviousCase, Trail
from mvl_auto.training.previous import (
    LARGEST_REMOVED,
    OPERATIONS,
    Change,
    Operation,
    PreviousChannels,
    apply_change,
    draw_change,
    largest_radius,
    remove_component,
)


def ball(radius: float, axes: int) -> np.ndarray:
    """The structuring element: every voxel whose centre lies within the radius."""
    reach = int(radius)
    grid = np.meshgrid(*[np.arange(-reach, reach + 1)] * axes, indexing="ij")
    return sum(line.astype(float) ** 2 for line in grid) <= radius**2


def by_scipy(mask: np.ndarray, name: str, radius: float) -> np.ndarray:
    """The same with scipy's structuring elements; nothing beyond the border wears the mask down."""
    element = ball(radius, mask.ndim)

    def dilate(it):
        return ndimage.binary_dilation(it, element)

    def erode(it):
        return ndimage.binary_erosion(it, element, border_value=1)

    steps = {
        "dilation": [dilate],
        "erosion": [erode],
        "opening": [erode, dilate],
        "closing": [dilate, erode],
    }
    for step in steps[name]:
        mask = step(mask)
    return mask


def blobs(shape, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=shape), 1.5) > 0.12


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("radius", [1.0, 1.7, 3.0])
@pytest.mark.parametrize("shape", [(14, 17, 15), (30, 25)])
def test_morphology_is_that_of_a_ball(name, radius, shape):
    for seed in range(3):
        mask = blobs(shape, seed)
        np.testing.assert_array_equal(OPERATIONS[name](mask, radius), by_scipy(mask, name, radius))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("full", [False, True])
def test_nothing_and_everything_stay_what_they_are(name, full):
    mask = np.full((5, 6, 7), full)
    np.testing.assert_array_equal(OPERATIONS[name](mask, 2.0), mask)


def test_what_a_class_gains_the_others_lose_but_regions_overlap():
    masks = np.zeros((2, 1, 9), bool)
    masks[0, 0, 2:4], masks[1, 0, 4:7] = True, True
    grown = Change((Operation(0, "dilation", 1.0),), ())
    classes = apply_change(masks, grown, exclusive=True)
    assert classes[:, 0].astype(int).tolist() == [[0, 1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 0, 0]]
    regions = apply_change(masks, grown, exclusive=False)
    assert regions[:, 0].astype(int).tolist() == [[0, 1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0, 0]]
    assert masks[0].sum() == 2, "the masks that came in are left alone"


def test_one_small_component_goes_and_a_large_one_stays():
    mask = np.zeros((10, 10), bool)
    mask[0:5, 0:5] = True  # a quarter of the patch
    mask[7, 1] = mask[8, 2] = True  # one component, by its corner
    mask[7, 7] = True
    assert 25 / mask.size > LARGEST_REMOVED > 2 / mask.size
    first, last = mask.copy(), mask.copy()
    remove_component(first, 0.0)
    remove_component(last, 0.999)
    assert np.argwhere(mask & ~first).tolist() == [[7, 1], [8, 2]]
    assert np.argwhere(mask & ~last).tolist() == [[7, 7]]
    only_large = mask.copy()
    only_large[5:] = False
    before = only_large.copy()
    remove_component(only_large, 0.5)
    np.testing.assert_array_equal(only_large, before)


def test_changes_are_as_frequent_as_in_nnunet():
    rng = np.random.default_rng(0)
    drawn = [draw_change(rng, 3, (64, 64, 64)) for _ in range(2000)]
    assert np.mean([bool(change.operations) for change in drawn]) == pytest.approx(0.4, abs=0.04)
    assert np.mean([bool(change.removals) for change in drawn]) == pytest.approx(0.2, abs=0.04)
    some = [change for change in drawn if change.operations]
    assert all(sorted(each.channel for each in change.operations) == [0, 1, 2] for change in some)
    assert {change.operations[0].channel for change in some} == {0, 1, 2}, "in no fixed order"
    radii = [each.radius for change in some for each in change.operations]
    assert min(radii) >= 1
    assert 3.5 < max(radii) <= 4, "half of nnU-Net's 8 in a patch half as long as its 128"
    assert {each.name for change in some for each in change.operations} == set(OPERATIONS)


@pytest.mark.parametrize(
    ("patch", "radius"), [((128, 128, 128), 8), ((256, 256, 256), 8), ((8, 8, 8), 1), ((64, 64), 4)]
)
def test_a_ball_is_no_larger_than_the_patch_bears(patch, radius):
    assert largest_radius(patch) == pytest.approx(radius)


def trail(shape) -> Trail:
    return Trail(
        shape=shape,
        transpose_forward=(0, 1, 2),
        crop=tuple((0, size) for size in shape),
        spacing=(1, 1, 1),
        resampled_shape=shape,
        resampled_spacing=(1, 1, 1),
        separate_axis=None,
    )


def test_the_channels_are_the_classes_of_the_cache_and_most_patches_are_unchanged(tmp_path):
    classes = blobs((12, 13, 14), 0).astype(np.int16) + (blobs((12, 13, 14), 1) & blobs((12, 13, 14), 0))
    card = PreviousCase(name="a", trail=trail((12, 13, 14)), run="r", fold="0", checkpoint="c", prediction="p")
    write_previous(tmp_path, classes, card, (8, 8, 8))
    previous = PreviousChannels(tmp_path, make_labels((0, 1, 2)))
    box = ((2, 10), (0, 8), (5, 13))
    patch = previous.reader("a").classes(box)
    np.testing.assert_array_equal(patch, classes[2:10, 0:8, 5:13])
    made = previous.channels(np.random.default_rng(5), np.stack([patch] * 200))
    assert made.shape == (200, 2, 8, 8, 8)
    assert made.dtype == np.float32
    assert set(np.unique(made)) == {0, 1}
    assert made.sum(axis=1).max() == 1, "no voxel is of two classes"
    plain = np.stack([patch == 1, patch == 2])
    same = (made == plain).all(axis=(1, 2, 3, 4))
    assert 0.3 < same.mean() < 0.9
    again = previous.channels(np.random.default_rng(5), np.stack([patch] * 200))
    np.testing.assert_array_equal(made, again)


def test_of_regions_each_channel_is_one(tmp_path):
    labels = make_labels((0, 1, 2), region_names=("whole", "core"), regions=((1, 2), (2,)), regions_class_order=(1, 2))
    classes = np.array([[[0, 1, 2, 1]]], np.int16)
    previous = PreviousChannels(tmp_path, labels)
    rng = np.random.default_rng(1)  # draws no change first
    assert not draw_change(np.random.default_rng(1), 2, (1, 1, 4)).operations
    assert previous.channels(rng, classes[None])[0, :, 0, 0].tolist() == [[0, 1, 1, 1], [0, 0, 1, 0]]
