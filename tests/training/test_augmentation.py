"""Cutting patches: what comes out against scipy's own resampling, and against plain slicing; draws as distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from mvl_auto.plans import IGNORE
from mvl_auto.training.augmentation import (
    ROTATION,
    SCALING,
    Source,
    Spatial,
    coarse_axis,
    cut,
    draw_spatial,
    intensities,
    read_padded,
)

SHAPE = (12, 15, 11)
SEEDS = 2000


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, *SHAPE)).astype(np.float32), rng.integers(0, 3, (1, *SHAPE)).astype(np.int16)


def source(image, label, classes=(1, 2)):
    def read(array):
        return lambda box: array[(slice(None), *(slice(*b) for b in box))]

    return Source(read(image), read(label), image.shape[1:], classes)


def rotation(angle, scale=1.0):
    return Spatial(scale * np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]))


def places(spatial, centre, size):
    """(3, *size): where in the case the voxels of a patch lie."""
    offsets = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in size), indexing="ij")).reshape(len(size), -1)
    if spatial.is_identity:  # whole voxels: nothing is resampled
        start = np.round(centre - (np.array(size) - 1) / 2)
        centre = start + (np.array(size) - 1) / 2
    return np.asarray(centre)[:, None] + spatial.matrix @ offsets


@pytest.mark.parametrize("spatial", [rotation(0.0), rotation(0.4), rotation(-0.2, 1.3), rotation(0.1, 0.7)])
@pytest.mark.parametrize("centre", [(5.5, 7.0, 5.0), (2.3, 12.1, 4.9)])
def test_a_patch_is_the_affine_resampling_of_the_whole_case(case, spatial, centre):
    image, label = case
    size, centre = (6, 8, 4), np.array(centre)
    patch, classes = cut(source(image, label), centre, spatial, size)
    where = places(spatial, centre, size)
    for channel, out in zip(image, patch, strict=True):
        expected = map_coordinates(np.pad(channel, 10), where + 10, order=1).reshape(size)
        np.testing.assert_allclose(out, expected, atol=1e-4)
    shares = np.stack([map_coordinates(np.pad(label[0] == k, 10).astype(float), where + 10, order=1) for k in (1, 2)])
    shares = np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares])
    certain = np.sort(shares, axis=0)[-1] - np.sort(shares, axis=0)[-2] > 1e-4
    assert certain.mean() > 0.9
    assert (classes.reshape(-1)[certain] == shares.argmax(axis=0)[certain]).all()
    assert classes.dtype == np.int16


def test_the_border_of_a_turned_label_is_off_by_less_than_that_of_nearest_voxels():
    """An oblique half space, enlarged: its linear shares draw a border that nearest voxels draw in steps."""
    grid = np.stack(np.meshgrid(*(np.arange(40.0),) * 3, indexing="ij"))
    label = (grid.sum(axis=0) > 58.7).astype(np.int16)[None]
    spatial, centre, size = rotation(0.4, 0.7), np.array([19.3, 19.6, 19.8]), (20, 20, 20)
    _, found = cut(source(label.astype(np.float32), label), centre, spatial, size)
    where = places(spatial, centre, size)
    expected = (where.sum(axis=0) > 58.7).reshape(size)
    nearest = map_coordinates(label[0], where, order=0).reshape(size)
    assert (found[0] != expected).mean() < 0.75 * (nearest != expected).mean()


def test_ignored_voxels_stay_ignored_when_they_are_turned(case):
    image, label = case
    label[0, :, :8] = IGNORE
    _, found = cut(source(image, label, (1, 2, IGNORE)), np.array([5.5, 7.0, 5.0]), rotation(0.3), (8, 8, 8))
    where = places(rotation(0.3), (5.5, 7.0, 5.0), (8, 8, 8))
    inside = (where > 1).all(axis=0) & (np.array(SHAPE) - 2 > where.T).all(axis=1)
    assert (found.reshape(-1)[inside & (where[1] < 6.9)] == IGNORE).all()
    assert (found.reshape(-1)[inside & (where[1] > 8.1)] != IGNORE).all()


def test_mirroring_moves_image_and_label_together(case):
    centre, size = np.array([5.5, 7.0, 5.0]), (6, 8, 4)
    for spatial in (rotation(0.0), rotation(0.3)):
        image, label = cut(source(*case), centre, spatial, size)
        flipped = Spatial(spatial.matrix, flips=(0, 2))
        image_flipped, label_flipped = cut(source(*case), centre, flipped, size)
        np.testing.assert_array_equal(image_flipped, image[:, ::-1, :, ::-1])
        np.testing.assert_array_equal(label_flipped, label[:, ::-1, :, ::-1])


def test_images_in_two_dimensions_turn_too():
    rng = np.random.default_rng(0)
    image, label = rng.normal(size=(3, 20, 24)).astype(np.float32), rng.integers(0, 2, (1, 20, 24)).astype(np.int16)
    turned = Spatial(np.array([[np.cos(2.0), -np.sin(2.0)], [np.sin(2.0), np.cos(2.0)]]))
    patch, _ = cut(source(image, label), np.array([10.0, 12.0]), turned, (7, 9))
    where = places(turned, (10, 12), (7, 9))
    for channel, out in zip(image, patch, strict=True):
        np.testing.assert_allclose(out.reshape(-1), map_coordinates(channel, where, order=1), atol=1e-4)


@given(start=st.tuples(*[st.integers(-20, 20)] * 3), size=st.tuples(*[st.integers(1, 25)] * 3))
@settings(max_examples=60, deadline=None)
def test_boxes_beyond_the_case_are_zero_there(start, size):
    label = np.arange(1, np.prod(SHAPE) + 1, dtype=np.int32).reshape(SHAPE)
    box = tuple((a, a + n) for a, n in zip(start, size, strict=True))
    expected = np.pad(label, 50)[tuple(slice(a + 50, b + 50) for a, b in box)]
    np.testing.assert_array_equal(read_padded(lambda b: label[tuple(slice(*x) for x in b)], box, SHAPE), expected)


# ------------------------------------------------------------------------------- draws, as distributions


def drawn(patch_size, mirror_axes=()):
    return [draw_spatial(np.random.default_rng(seed), patch_size, mirror_axes) for seed in range(SEEDS)]


def angles_in_plane(spatials):
    turned = [s.matrix for s in spatials if not np.allclose(s.matrix, np.diag(np.diag(s.matrix)))]
    return np.array([np.arctan2(m[-1, -2], m[-2, -2]) for m in turned]), len(turned) / len(spatials)


def test_rotation_and_scaling_are_as_frequent_and_as_strong_as_in_nnunet():
    spatials = drawn((32, 32, 32))
    assert np.mean([s.is_identity for s in spatials]) == pytest.approx(0.8 * 0.8, abs=0.03)
    volumes = np.array([np.linalg.det(s.matrix) for s in spatials]) ** (1 / 3)
    scaled = volumes[~np.isclose(volumes, 1)]
    assert len(scaled) / SEEDS == pytest.approx(0.2, abs=0.03)
    assert np.mean(scaled < 1) == pytest.approx(0.5, abs=0.08)
    assert SCALING[0] <= scaled.min() < 0.73
    assert 1.37 < scaled.max() <= SCALING[1]
    first_turns = [s.matrix / np.cbrt(np.linalg.det(s.matrix)) for s in spatials]
    # R = R_zy R_zx R_yx: its first column has the first two angles alone, and the last of it the second
    sines = np.array([m[2, 0] for m in first_turns if m[2, 0] != 0])
    assert np.abs(np.arcsin(sines)).max() <= ROTATION + 1e-9
    assert np.abs(np.arcsin(sines)).max() > 0.9 * ROTATION


@pytest.mark.parametrize(
    ("patch_size", "mirror_axes", "largest"),
    [
        ((8, 64, 64), (0, 1, 2), np.pi),  # anisotropic, and its plane has no up and down
        ((8, 64, 64), (2,), np.deg2rad(30)),
        ((64, 64), (0, 1), np.pi),
        ((64, 64), (1,), np.deg2rad(30)),
        ((32, 64), (0, 1), np.deg2rad(15)),
    ],
)
def test_a_plane_turns_by_any_angle_only_where_mirroring_says_that_it_is_free(patch_size, mirror_axes, largest):
    angles, share = angles_in_plane(drawn(patch_size, mirror_axes))
    assert share == pytest.approx(0.2, abs=0.03)
    assert 0.9 * largest < np.abs(angles).max() <= largest + 1e-9
    assert np.mean(np.abs(angles) < largest / 2) == pytest.approx(0.5, abs=0.08)


def test_anisotropic_patches_stay_in_their_plane():
    assert coarse_axis((8, 64, 64)) == 0
    assert coarse_axis((24, 64, 64)) is None
    for spatial in drawn((8, 64, 64), (0, 1, 2))[:300]:
        assert spatial.matrix[0].tolist() == [1, 0, 0]
        assert spatial.matrix[:, 0].tolist() == [1, 0, 0]


def test_each_mirror_axis_is_flipped_half_of_the_time_and_no_other_ever():
    flips = [spatial.flips for spatial in drawn((16, 16, 16), (0, 2))]
    for axis in (0, 2):
        assert np.mean([axis in each for each in flips]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([each == (0, 2) for each in flips]) == pytest.approx(0.25, abs=0.04)
    assert not any(1 in each for each in flips)


# ------------------------------------------------------------------------------------------ intensities


def changed(image, seeds=300, **settings):
    transform = intensities(image.shape[1:], **settings)
    return [transform.apply(np.random.default_rng(seed), image) for seed in range(seeds)]


def smooth(shape):
    rng = np.random.default_rng(0)
    from scipy.ndimage import gaussian_filter

    image = gaussian_filter(rng.normal(size=shape), (0, *(1.5,) * (len(shape) - 1)))
    return (image / image.std()).astype(np.float32)


def test_most_intensities_change_and_none_beyond_recognition():
    image = smooth((1, 12, 14, 16))
    before = image.copy()
    results = changed(image)
    np.testing.assert_array_equal(image, before)
    untouched = 0.9 * 0.9 * 0.85 * 0.85 * 0.875 * 0.9 * 0.7  # by probability, per sample and where it is per channel
    assert np.mean([np.allclose(each, image, atol=1e-5) for each in results]) == pytest.approx(untouched, abs=0.07)
    assert min(np.corrcoef(each.ravel(), image.ravel())[0, 1] for each in results) > 0.5
    assert len({each.tobytes() for each in results}) > 150


def test_the_same_generator_gives_the_same_intensities():
    image = smooth((1, 12, 14, 16))
    for one, other in zip(changed(image, 30), changed(image, 30), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_masked_stays_zero_and_the_other_channels_do_as_they_like():
    image = smooth((2, 12, 14, 16))
    image[:, :, :5] = 0
    for result in changed(image, 100, masked=(True, False)):
        assert (result[0, :, :5] == 0).all()
    results = changed(image, 100, masked=(True, False))
    assert any((each[1, :, :5] != 0).any() for each in results)
    assert any((each[0] != image[0]).any() for each in results)


def test_low_resolution_leaves_the_coarse_axis_alone():
    """An image that differs from slice to slice alone: whatever is resampled in its plane, the slices stay apart."""
    image = np.zeros((1, 4, 24, 24), np.float32)
    image[0] = np.array([0, 1, 0, 1], np.float32)[:, None, None]
    transform = intensities(image.shape[1:])
    (low_resolution,) = [each for each in transform.transform.transforms if "LowResolution" in type(each).__name__]
    low_resolution.p_per_sample = low_resolution.p_per_channel = 1.0
    np.random.seed(0)  # noqa: NPY002
    for _ in range(20):
        result = low_resolution(data=image[None].copy())["data"][0]
        np.testing.assert_allclose(result, image, atol=1e-5)


def test_each_change_of_intensities_has_the_probability_and_the_range_of_nnunet():
    """Isensee et al. 2021, supplementary note 4; the noise and the contrast are batchgenerators' own."""
    noise, blur, brightness, contrast, low, inverted, gamma = intensities((16, 16, 16)).transform.transforms
    assert [each.p_per_sample for each in (noise, blur, brightness, contrast, low, inverted, gamma)] == [
        *(0.1, 0.2, 0.15, 0.15, 0.25, 0.1, 0.3),
    ]
    assert (tuple(noise.noise_variance), tuple(blur.blur_sigma)) == ((0, 0.1), (0.5, 1.0))
    assert (blur.p_per_channel, blur.different_sigma_per_channel) == (0.5, True)
    assert (tuple(brightness.multiplier_range), tuple(contrast.contrast_range)) == ((0.75, 1.25), (0.75, 1.25))
    assert (tuple(low.zoom_range), low.p_per_channel, low.per_channel) == ((0.5, 1), 0.5, True)
    assert (low.order_downsample, low.order_upsample, low.ignore_axes) == (0, 1, None)
    for each, invert in ((inverted, True), (gamma, False)):
        assert (tuple(each.gamma_range), each.invert_image) == ((0.7, 1.5), invert)
        assert each.per_channel
        assert each.retain_stats
