"""The normalization of each channel, decided by its name in dataset.json.

The names are nnU-Net's (nnunetv2/preprocessing/normalization/map_channel_name_to_normalization.py), in any capitals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvl_auto.planners.presets import CROP_MATTERS
from mvl_auto.plans import CaseFingerprint, Channel, ChannelStatistics, Normalization

BY_NAME: dict[str, Normalization] = {
    "ct": "ct",
    "nonorm": "none",
    "zscore": "z_score",
    "rescale_0_1": "rescale_to_0_1",
    "rescale_to_0_1": "rescale_to_0_1",
    "rgb": "rgb_to_0_1",
    "rgb_to_0_1": "rgb_to_0_1",
}
COLOURS = ({"r", "g", "b"}, {"red", "green", "blue"})  # only where all three are there
BYTE = 255


def normalization_schemes(
    channels: Sequence[Channel], statistics: Sequence[ChannelStatistics]
) -> tuple[Normalization, ...]:
    """One scheme per channel: the one that its name stands for, z-score for every other name.

    Colours whose labelled voxels lie outside 0 to 255 get a z-score too.
    """
    names = [channel.name.strip().casefold() for channel in channels]
    colours = {name for trio in COLOURS if trio <= set(names) for name in trio}
    schemes: list[Normalization] = ["rgb_to_0_1" if name in colours else BY_NAME.get(name, "z_score") for name in names]
    bytes_only = [found.min >= 0 and found.max <= BYTE for found in statistics]
    return tuple(
        "z_score" if scheme == "rgb_to_0_1" and not fits else scheme
        for scheme, fits in zip(schemes, bytes_only, strict=True)
    )


def use_mask_for_norm(schemes: Sequence[Normalization], cases: Sequence[CaseFingerprint]) -> tuple[bool, ...]:
    """Whether a z-score uses non-zero voxels alone, per channel: where the crop removed more than a quarter."""
    masked = relative_size_after_crop(cases) < CROP_MATTERS
    return tuple(masked and scheme == "z_score" for scheme in schemes)


def relative_size_after_crop(cases: Sequence[CaseFingerprint]) -> float:
    """Median share of the voxels that the crop to non-zero leaves."""
    return float(np.median([np.prod(case.shape_after_crop) / np.prod(case.shape) for case in cases]))
