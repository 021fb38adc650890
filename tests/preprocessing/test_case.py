"""One case, prepared and brought back: against the same steps by numpy and scikit-image, and on values."""

from __future__ import annotations

import numpy as np
import pytest
from builders import make_case
from inverse import labels_in_native_space, to_native
from scipy import ndimage
from skimage.transform import resize
from trained import make_configuration, make_labels, make_plan

from mvl_auto.errors import MvlError
from mvl_auto.plans import IGNORE, ChannelStatistics
from mvl_auto.preprocessing.case import find_separate_axis, preprocess_case

TURNS = [(0, 1, 2), (2, 0, 1), (1, 0, 2), (0, 2, 1)]
CT = ChannelStatistics(mean=90, median=90, std=30, min=0, max=300, percentile_00_5=10, percentile_99_5=180)


def prepared(image, mm, label=None, turn=(0, 1, 2), labels=None, **changes):
    configuration = make_configuration(channels=len(image), **changes)
    plan = make_plan(configuration, labels=labels, transpose_forward=turn)
    return preprocess_case(np.asarray(image, np.float32), mm, label, plan, configuration)


def one_hot(label, classes):
    return np.stack([label == k for k in range(classes)]).astype(np.float32)


def framed(array, before=(2, 3, 1), after=(1, 0, 4)):
    """In a frame of zeros."""
    frame = [(0, 0)] * (array.ndim - 3) + list(zip(before, after, strict=True))
    return np.pad(array, frame)


def ramp(shape, spacing):
    """A function that is linear in mm: splines and lines both go through it."""
    z, y, x = np.meshgrid(*((np.arange(n) + 0.5) * mm for n, mm in zip(shape, spacing, strict=True)), indexing="ij")
    return (10 + 0.5 * z - 0.3 * y + 0.2 * x).astype(np.float32)


def test_the_steps_in_their_order_against_scikit_image():
    image, label = make_case((18, 30, 26), channels=1, seed=1)
    image, label = framed(image), framed(label).astype(np.int16)
    found = prepared(image, (2.5, 0.8, 0.7), label, turn=(1, 0, 2), spacing=(1.0, 1.5, 1.0), normalization="z_score")
    turned = image[0].transpose(1, 0, 2)[3:33, 2:20, 1:27].astype(np.float64)
    size = (round(30 * 0.8), round(18 * 2.5 / 1.5), round(26 * 0.7))
    expected = resize((turned - turned.mean()) / turned.std(), size, order=3, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(found.image[0], expected, atol=1e-3)
    turned_label = label.transpose(1, 0, 2)[3:33, 2:20, 1:27]
    share = [resize((turned_label == k) * 1.0, size, order=1, mode="edge", anti_aliasing=False) for k in range(3)]
    assert (found.label != np.argmax(share, axis=0)).mean() < 1e-3
    assert found.image.dtype == np.float32
    assert found.label.dtype == np.int16


def test_the_trail_says_what_was_done():
    trail = prepared(framed(np.ones((1, 10, 20, 30))), (3.0, 0.5, 0.7), turn=(2, 0, 1), spacing=(1.4, 1.5, 1.0)).trail
    assert trail.shape == (13, 23, 35)
    assert trail.crop == ((1, 31), (2, 12), (3, 23))
    assert trail.spacing == (0.7, 3.0, 0.5)
    assert trail.resampled_spacing == (1.4, 1.5, 1.0)
    assert trail.resampled_shape == (15, 20, 10)


@pytest.mark.parametrize("turn", TURNS)
def test_without_resampling_the_way_back_restores_every_voxel(turn):
    image, label = make_case((9, 14, 11), channels=2)
    image, label = framed(image), framed(label).astype(np.int16)
    there = prepared(image, (1, 1, 1), label, turn=turn)
    back = to_native(there.image, there.trail, outside=[0, 0])
    assert np.array_equal(back, image)
    assert np.array_equal(labels_in_native_space(one_hot(there.label, 3), there.trail, make_labels()), label)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("spacing", [(1, 1, 1), (3, 0.6, 0.7), (0.5, 2.0, 1.3)])
def test_a_ramp_comes_back_as_the_ramp_it_was(turn, spacing):
    """Values and places: a shift by half a voxel anywhere on the way would show."""
    shape = (24, 26, 28)
    image = framed(ramp(shape, spacing)[None])
    there = prepared(image, spacing, turn=turn, spacing=(1.1, 0.9, 1.2))
    back = to_native(there.image, there.trail, outside=[0])
    inside = (slice(None), slice(8, -8), slice(9, -8), slice(7, -10))
    np.testing.assert_allclose(back[inside], image[inside], atol=2e-3)
    assert not back[image == 0].any()


def test_anisotropic_slices_are_kept_apart_both_ways():
    image, label = make_case((8, 40, 44), seed=2)
    there = prepared(image, (6, 0.7, 0.7), label.astype(np.int16), spacing=(4.0, 1.0, 1.0), resample_separate_z=True)
    assert there.image.shape == (1, 12, 28, 31)
    copies = (np.diff(there.image[0], axis=0) == 0).all(axis=(1, 2))
    assert copies.sum() == 12 - 8, "the new slices are copies of the old ones"
    back = labels_in_native_space(one_hot(there.label, 3), there.trail, make_labels())
    for k in (1, 2):
        both = ((back == k) & (label == k)).sum()
        assert 2 * both / ((back == k).sum() + (label == k).sum()) > 0.95


@pytest.mark.parametrize(
    ("spacing", "target", "axis"),
    [
        ((5.0, 0.8, 0.8), (1.5, 0.8, 0.8), 0),  # a case of thick slices in a dataset of thin ones
        ((1.0, 1.0, 5.0), (5.0, 1.0, 1.0), 2),  # the case's own axis comes before the target's
        ((1.0, 1.0, 1.0), (4.0, 1.0, 1.0), 0),
        ((3.0, 1.0, 1.0), (3.0, 1.0, 1.0), None),  # more than three times, not three times
        ((1.25, 0.24, 1.25), (1.0, 1.0, 7.0), None),  # two coarse axes are no stack of slices
        ((1.0, 1.0, 1.0), (1.0, 1.2, 0.9), None),
    ],
)
def test_the_axis_that_nnunet_resamples_apart(spacing, target, axis):
    assert find_separate_axis(spacing, target) == axis


def test_the_slices_of_a_thick_case_are_copied_where_the_others_are_thin():
    image, _ = make_case((8, 20, 22), seed=4)
    thick, thin = (prepared(image, (mm, 1, 1), spacing=(2.0, 1.0, 1.0), resample_separate_z=True) for mm in (4.0, 3.0))
    assert thick.image.shape == (1, 16, 20, 22)
    np.testing.assert_array_equal(thick.image[:, ::2], thick.image[:, 1::2])
    assert thick.trail.separate_axis == 0
    assert thin.trail.separate_axis is None
    assert prepared(image, (4.0, 1, 1), spacing=(2.0, 1.0, 1.0), resample_separate_z=False).trail.separate_axis is None


def test_2d_leaves_the_slices_where_they_are():
    image, label = make_case((7, 30, 32), seed=3)
    there = prepared(image, (5.0, 1.0, 0.5), label.astype(np.int16), patch_size=(16, 16), spacing=(2.0, 0.8, 0.8))
    assert there.image.shape == (1, 7, 38, 20)
    assert there.trail.resampled_spacing == (5.0, 0.8, 0.8)
    for found, piece in zip(there.image[0], image[0], strict=True):
        expected = resize(piece.astype(float), (38, 20), order=3, mode="edge", anti_aliasing=False, clip=False)
        np.testing.assert_allclose(found, expected.clip(piece.min(), piece.max()), atol=1e-3)


def test_a_picture_of_one_slice():
    image, label = make_case((1, 40, 50), channels=3, seed=4)
    there = prepared(
        image, (1, 1, 1), label.astype(np.int16), patch_size=(16, 16), spacing=(1.0, 2.0, 2.0), normalization="z_score"
    )
    assert there.image.shape == (3, 1, 20, 25)
    back = labels_in_native_space(one_hot(there.label, 3), there.trail, make_labels())
    assert back.shape == (1, 40, 50)
    assert (back != label).mean() < 0.05


def test_every_channel_has_its_own_scheme():
    rng = np.random.default_rng(5)
    image = rng.uniform(0, 255, (5, 6, 7, 8)).astype(np.float32)
    schemes = ("z_score", "ct", "rescale_to_0_1", "rgb_to_0_1", "none")
    configuration = make_configuration(channels=5, normalization_schemes=schemes)
    plan = make_plan(configuration).model_copy(update={"foreground_intensity_properties_per_channel": (CT,) * 5})
    found = preprocess_case(image, (1, 1, 1), None, plan, configuration)
    least, greatest = image[2].min(), image[2].max()
    expected = [
        (image[0] - image[0].mean()) / image[0].std(),
        (image[1].clip(10, 180) - 90) / 30,
        (image[2] - least) / (greatest - least),
        image[3] / 255,
        image[4],
    ]
    np.testing.assert_allclose(found.image, expected, atol=1e-5)
    assert found.label is None


def test_every_channel_of_a_ct_is_scaled_by_its_own_statistics():
    """Two phases of one scan."""
    image = np.random.default_rng(8).uniform(-50, 350, (2, 6, 7, 8)).astype(np.float32)
    late = CT.model_copy(update={"mean": 140.0, "std": 50.0, "percentile_00_5": 40.0, "percentile_99_5": 260.0})
    configuration = make_configuration(channels=2, normalization="ct")
    plan = make_plan(configuration).model_copy(update={"foreground_intensity_properties_per_channel": (CT, late)})
    found = preprocess_case(image, (1, 1, 1), None, plan, configuration).image
    np.testing.assert_allclose(found[0], (image[0].clip(10, 180) - 90) / 30, atol=1e-5)
    np.testing.assert_allclose(found[1], (image[1].clip(40, 260) - 140) / 50, atol=1e-5)


def test_the_mask_of_one_channel_does_not_bind_the_other():
    """Skull-stripped MR with a hole: statistics without the air around it, but with the hole."""
    brain = np.zeros((20, 22, 24), bool)
    brain[3:17, 4:18, 5:19] = True
    brain[:, 0, 0] = brain[0] = brain[-1, -1, -1] = True
    values = np.random.default_rng(6).normal(50, 9, brain.shape)
    image = np.stack([values * brain, values * brain]).astype(np.float32)
    image[:, 8:10, 8:10, 8:10] = 0
    found = prepared(image, (1, 1, 1), normalization="z_score", use_mask_for_norm=(True, False)).image
    filled = ndimage.binary_fill_holes(image[0] != 0)
    inside = image[0][filled].astype(np.float64)
    np.testing.assert_allclose(found[0][filled], (inside - inside.mean()) / inside.std(), atol=1e-5)
    assert not found[0][~filled].any()
    np.testing.assert_allclose(found[1], (image[1] - image[1].mean()) / image[1].std(), atol=1e-5)


def test_ignored_voxels_stay_ignored():
    label = np.zeros((20, 20, 20), np.int16)
    label[:10] = IGNORE
    label[14:18, 5:15, 5:15] = 2
    found = prepared(np.ones((1, 20, 20, 20)), (1, 1, 1), label, spacing=(2.0, 0.8, 1.3)).label
    assert (found[:5] == IGNORE).all()
    assert (found[5:] != IGNORE).all()
    assert (found == 2).any()


def test_regions_overlap_and_the_later_one_is_written():
    labels = make_labels((0, 1, 2), region_names=("whole", "core"), regions=((1, 2), (2,)), regions_class_order=(1, 2))
    _, label = make_case((16, 18, 20), seed=7)
    there = prepared(np.ones((1, 16, 18, 20)), (1, 1, 1), label.astype(np.int16), labels=labels)
    logits = np.where([there.label > 0, there.label == 2], 4.0, -4.0).astype(np.float32)
    assert np.array_equal(labels_in_native_space(logits, there.trail, labels), label)
    probabilities = 1 / (1 + np.exp(-logits))
    assert np.array_equal(labels_in_native_space(probabilities, there.trail, labels, threshold=0.5), label)


def test_the_last_bits_of_the_spacing_do_not_change_the_size():
    """35 voxels to every other: 17.5, on whichever side of it the header's rounding fell."""
    sizes = {
        prepared(np.ones((1, 35, 8, 8)), (mm, 1, 1), spacing=(2.0, 1.0, 1.0)).image.shape
        for mm in (0.99999999, 1.0, 1.00000001)
    }
    assert len(sizes) == 1


def test_a_thin_image_keeps_a_voxel():
    assert prepared(np.ones((1, 1, 3, 9)), (1, 1, 1), spacing=(5.0, 5.0, 5.0)).image.shape == (1, 1, 1, 2)


def test_an_image_with_other_channels_is_refused():
    plan = make_plan(make_configuration(channels=2))
    with pytest.raises(MvlError, match=r"3 channels, Dataset007_Tiny has 2 \(MRI, MRI\)"):
        preprocess_case(np.ones((3, 4, 4, 4), np.float32), (1, 1, 1), None, plan, plan.configuration())


def test_a_colour_out_of_range_names_its_channel():
    with pytest.raises(MvlError, match=r"channel 'MRI' holds values from 300 to 300"):
        prepared(np.full((1, 4, 4, 4), 300.0), (1, 1, 1), normalization="rgb_to_0_1")


def test_the_image_given_is_left_as_it_is():
    image, label = make_case((8, 9, 10))
    before = image.copy(), label.copy()
    prepared(image, (1, 1, 1), label.astype(np.int16), normalization="z_score", spacing=(2.0, 1.0, 1.0))
    assert np.array_equal(image, before[0])
    assert np.array_equal(label, before[1])
