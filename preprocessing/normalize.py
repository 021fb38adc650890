"""Normalization of the intensities of one channel, by the scheme in the plan.

    z_score         subtract the mean, divide by the standard deviation; of the whole image or of the mask
    ct              clip to the percentiles 0.5 and 99.5 of the labelled voxels of the dataset, then subtract their
                    mean and divide by their standard deviation: Hounsfield units are the same on every scanner
    rescale_to_0_1  from the least and greatest value of the image to 0 and 1
    rgb_to_0_1      divide by 255
    none            keep

The schemes are those of nnU-Net v2 (default_normalization_schemes.py).
"""

from __future__ import annotations

import numpy as np

from mvl_auto.arrays import Floats, Mask
from mvl_auto.errors import MvlError
from mvl_auto.plans import ChannelStatistics, Normalization

LEAST_STD = 1e-8  # so that an image of one value becomes zeros, not NaN
WHITE = 255.0  # the greatest value of an 8-bit colour


def normalize_channel(
    channel: Floats, scheme: Normalization, statistics: ChannelStatistics, mask: Mask | None
) -> Floats:
    """The normalized channel: a new array Z Y X, float32.

    channel: Z Y X. statistics: of the labelled voxels of the dataset, for "ct". mask: for "z_score", the voxels that
    give the statistics and are changed; the others keep their values. Raises MvlError for "rgb_to_0_1" where a value
    lies outside 0 to 255.
    """
    if scheme == "z_score":
        return _standardize(channel, mask)
    if scheme == "ct":
        clipped = np.clip(channel, np.float32(statistics.percentile_00_5), np.float32(statistics.percentile_99_5))
        return _shift_and_scale(clipped, statistics.mean, statistics.std)
    if scheme == "rescale_to_0_1":
        least, greatest = float(channel.min()), float(channel.max())
        return _shift_and_scale(channel.copy(), least, greatest - least)
    if scheme == "rgb_to_0_1":
        _check_colours(channel)
        return channel / np.float32(WHITE)
    assert scheme == "none"
    return channel.astype(np.float32)


def _standardize(channel: Floats, mask: Mask | None) -> Floats:
    if mask is None:
        return _shift_and_scale(channel.copy(), *_compute_mean_and_std(channel))
    inside = channel[mask]
    normalized = channel.copy()
    if inside.size:
        normalized[mask] = _shift_and_scale(inside, *_compute_mean_and_std(inside))
    return normalized


def _compute_mean_and_std(values: Floats) -> tuple[float, float]:
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))


def _shift_and_scale(values: Floats, shift: float, scale: float) -> Floats:
    """In place."""
    values -= np.float32(shift)
    values /= np.float32(max(scale, LEAST_STD))
    return values


def _check_colours(channel: Floats) -> None:
    least, greatest = float(channel.min()), float(channel.max())
    if least < 0 or greatest > WHITE:
        raise MvlError(
            f"holds values from {least:g} to {greatest:g}; a colour channel must stay within 0 to {WHITE:g}",
            remedy="Give the channel another name in dataset.json, such as 'rescale_to_0_1'.",
        )
