"""Intensities of one channel brought to the range that a network likes, by the scheme that the plan chose.

    z_score         minus its mean, divided by its standard deviation, of the whole image or of what is not zero
    ct              Hounsfield units mean the same everywhere: clipped to the percentiles 0.5 and 99.5 of the labelled
                    voxels of the dataset, then their mean and standard deviation
    rescale_to_0_1  from its least to its greatest value
    rgb_to_0_1      divided by 255
    none            as it is

The same as nnU-Net v2's (default_normalization_schemes.py).
"""

from __future__ import annotations

import numpy as np

from mvl_auto.arrays import Floats, Mask
from mvl_auto.errors import MvlError
from mvl_auto.plans import ChannelStatistics, Normalization

LEAST_STD = 1e-8  # an image of one value becomes zeros, not NaN
WHITE = 255.0


def normalise(channel: Floats, scheme: Normalization, statistics: ChannelStatistics, mask: Mask | None) -> Floats:
    """A new array Z Y X, float32.

    channel: Z Y X. statistics: of the labelled voxels of the dataset, for "ct". mask: for "z_score", where to take
    the statistics and to apply them; what lies outside stays as it is. Raises MvlError for "RGB" beyond 0 to 255.
    """
    if scheme == "z_score":
        return _z_score(channel, mask)
    if scheme == "ct":
        clipped = np.clip(channel, np.float32(statistics.percentile_00_5), np.float32(statistics.percentile_99_5))
        return _shifted_and_scaled(clipped, statistics.mean, statistics.std)
    if scheme == "rescale_to_0_1":
        least, greatest = float(channel.min()), float(channel.max())
        return _shifted_and_scaled(channel.copy(), least, greatest - least)
    if scheme == "rgb_to_0_1":
        _check_bytes(channel)
        return channel / np.float32(WHITE)
    assert scheme == "none"
    return channel.astype(np.float32)


def _z_score(channel: Floats, mask: Mask | None) -> Floats:
    if mask is None:
        return _shifted_and_scaled(channel.copy(), *_mean_and_std(channel))
    inside = channel[mask]
    normalised = channel.copy()
    if inside.size:
        normalised[mask] = _shifted_and_scaled(inside, *_mean_and_std(inside))
    return normalised


def _mean_and_std(values: Floats) -> tuple[float, float]:
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))


def _shifted_and_scaled(values: Floats, shift: float, scale: float) -> Floats:
    """In place."""
    values -= np.float32(shift)
    values /= np.float32(max(scale, LEAST_STD))
    return values


def _check_bytes(channel: Floats) -> None:
    least, greatest = float(channel.min()), float(channel.max())
    if least < 0 or greatest > WHITE:
        raise MvlError(
            f"holds values from {least:g} to {greatest:g}, a colour has 0 to {WHITE:g}",
            remedy="Give the channel another name in dataset.json, such as 'rescale_to_0_1'.",
        )
