"""Each scheme against its formula, and what must not become NaN."""

from __future__ import annotations

import numpy as np
import pytest

from mvl_auto.errors import MvlError
from mvl_auto.plans import ChannelStatistics
from mvl_auto.preprocessing.normalize import normalize_channel

LIVER = ChannelStatistics(mean=99, median=101, std=40, min=-980, max=1400, percentile_00_5=-17, percentile_99_5=201)
ALL_SCHEMES = ["z_score", "ct", "rescale_to_0_1", "rgb_to_0_1", "none"]


@pytest.fixture
def channel():
    return np.random.default_rng(0).normal(80, 60, (9, 8, 7)).clip(0, 255).astype(np.float32)


def test_z_score_has_mean_0_and_standard_deviation_1(channel):
    found = normalize_channel(channel, "z_score", LIVER, None).astype(np.float64)
    assert found.mean() == pytest.approx(0, abs=1e-6)
    assert found.std() == pytest.approx(1, abs=1e-6)


def test_z_score_of_large_numbers_keeps_their_digits():
    values = 1e6 + np.arange(64, dtype=np.float32).reshape(4, 4, 4)
    expected = (np.arange(64) - 31.5) / np.std(np.arange(64))
    np.testing.assert_allclose(normalize_channel(values, "z_score", LIVER, None).ravel(), expected, atol=2e-2)


def test_masked_z_score_takes_its_statistics_from_the_mask_and_leaves_the_rest(channel):
    mask = np.zeros(channel.shape, bool)
    mask[2:6] = True
    channel[~mask] = 0
    found = normalize_channel(channel, "z_score", LIVER, mask)
    inside = channel[2:6].astype(np.float64)
    np.testing.assert_allclose(found[2:6], (inside - inside.mean()) / inside.std(), atol=1e-5)
    assert not found[~mask].any()


def test_ct_is_clipped_and_scaled_by_the_dataset(channel):
    channel[0, 0, :3] = [-1000, 99, 3000]
    found = normalize_channel(channel, "ct", LIVER, None)
    np.testing.assert_allclose(found[0, 0, :3], [(-17 - 99) / 40, 0, (201 - 99) / 40], rtol=1e-6)
    np.testing.assert_allclose(found[5], (channel[5].clip(-17, 201) - 99) / 40, atol=1e-6)


def test_rescaling_spans_0_to_1(channel):
    found = normalize_channel(channel, "rescale_to_0_1", LIVER, None)
    assert (found.min(), found.max()) == (0, 1)
    assert np.array_equal(found.ravel().argsort(kind="stable"), channel.ravel().argsort(kind="stable"))


def test_colours_are_divided_by_white(channel):
    np.testing.assert_allclose(normalize_channel(channel, "rgb_to_0_1", LIVER, None), channel / 255.0, atol=1e-7)


@pytest.mark.parametrize("value", [-1, 256, 65535])
def test_colours_beyond_a_byte_are_refused(channel, value):
    channel[0, 0, 0] = value
    with pytest.raises(MvlError, match=rf"{value}.*within 0 to 255.*dataset\.json"):
        normalize_channel(channel, "rgb_to_0_1", LIVER, None)


@pytest.mark.parametrize("scheme", ALL_SCHEMES)
@pytest.mark.parametrize("value", [0, 7])
def test_an_image_of_one_value_stays_finite(scheme, value):
    flat = np.full((3, 4, 5), value, np.float32)
    found = normalize_channel(flat, scheme, LIVER.model_copy(update={"std": 0.0, "mean": 7.0}), flat > 0)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("scheme", ALL_SCHEMES)
def test_the_image_given_is_left_as_it_is(channel, scheme):
    before = channel.copy()
    found = normalize_channel(channel, scheme, LIVER, None)
    assert found.dtype == np.float32
    found += 1
    assert np.array_equal(channel, before)
