"""Preprocessing of one case: the same code for a training case and for a new image.

    canonical array -> transpose_forward -> crop to non-zero -> normalize -> resample

The order is nnU-Net's. The steps are recorded as a Trail, so that a prediction can be brought back to the image's own
voxels (mvl_auto.inference.restore).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvl_auto.arrays import Classes, Floats
from mvl_auto.errors import MvlError
from mvl_auto.images.crop import filled_mask, nonzero_box, slices
from mvl_auto.images.spacing import ANISOTROPY_FACTOR, resampled_shape, round_spacing
from mvl_auto.plans import Configuration, Plan, Trail
from mvl_auto.preprocessing.normalize import normalize_channel
from mvl_auto.preprocessing.resample import resample_channel, resample_labels
from mvl_auto.text import count_text


@dataclass(frozen=True)
class PreparedCase:
    """image: C Z Y X float32. label: Z Y X int16, None for an image to predict."""

    image: Floats
    label: Classes | None
    trail: Trail


def preprocess_case(
    image: Floats, spacing: Sequence[float], label: Classes | None, plan: Plan, configuration: Configuration
) -> PreparedCase:
    """Preprocess a case with the settings of `configuration`.

    image: C Z Y X, canonical. spacing: mm, Z Y X. label: classes, Z Y X, on the image's grid.
    Raises MvlError when the image has another number of channels than the plan, or colours outside 0 to 255.
    """
    _check_channels(image, plan)
    axes = plan.transpose_forward
    turned = image.transpose(0, *(1 + axis for axis in axes))
    box = nonzero_box(turned)
    cropped = turned[(slice(None), *slices(box))]
    trail = _make_trail(image.shape[1:], spacing, box, axes, configuration)
    channels = _prepare_channels(cropped, plan, configuration, trail)
    return PreparedCase(channels, None if label is None else preprocess_label(label, trail), trail)


def preprocess_label(label: Classes, trail: Trail) -> Classes:
    """Classes (Z Y X, canonical) on the network's grid, by the steps of `trail`; int16."""
    cropped = label.transpose(trail.transpose_forward)[slices(trail.crop)]
    return resample_labels(cropped, trail.resampled_shape, trail.separate_axis)


def find_separate_axis(spacing: Sequence[float], target: Sequence[float]) -> int | None:
    """The axis to resample separately, with order 0, from `spacing` to `target` (mm); None: all axes alike.

    The coarsest axis, if it is more than SEPARATE_FACTOR times as coarse as the finest and no other axis is as coarse;
    in the case's own spacing, else in the target spacing
    (nnU-Net, default_resampling.py: determine_do_sep_z_and_axis).
    """
    for lengths in (spacing, target):
        longest = max(lengths)
        if longest > ANISOTROPY_FACTOR * min(lengths):
            return lengths.index(longest) if lengths.count(longest) == 1 else None
    return None


def _make_trail(
    shape: tuple[int, ...],
    spacing: Sequence[float],
    box: tuple[tuple[int, int], ...],
    axes: tuple[int, ...],
    configuration: Configuration,
) -> Trail:
    here = round_spacing([spacing[axis] for axis in axes])
    there = tuple(configuration.spacing)
    if configuration.dimensions == 2:
        there = (here[0], *there[1:])  # slices stay where they are
    cropped = [stop - start for start, stop in box]
    return Trail(
        shape=shape,
        transpose_forward=axes,
        crop=box,
        spacing=here,
        resampled_shape=resampled_shape(cropped, here, there),
        resampled_spacing=there,
        separate_axis=_choose_separate_axis(here, there, configuration),
    )


def _choose_separate_axis(here: Sequence[float], there: Sequence[float], configuration: Configuration) -> int | None:
    if configuration.dimensions == 2:
        return 0  # slices stay where they are, and each is resampled by itself
    return find_separate_axis(here, there) if configuration.resample_separate_z else None


def _prepare_channels(cropped: Floats, plan: Plan, configuration: Configuration, trail: Trail) -> Floats:
    """One channel after the other, so that only one is in memory twice."""
    mask = filled_mask(cropped) if any(configuration.use_mask_for_norm) else None
    result = np.empty((len(cropped), *trail.resampled_shape), np.float32)
    for c, channel in enumerate(cropped):
        try:
            normalized = normalize_channel(
                channel,
                configuration.normalization_schemes[c],
                plan.foreground_intensity_properties_per_channel[c],
                mask if configuration.use_mask_for_norm[c] else None,
            )
        except MvlError as error:
            raise MvlError(f"channel '{plan.channels[c].name}' {error.what}", remedy=error.remedy) from error
        result[c] = resample_channel(normalized, trail.resampled_shape, trail.separate_axis)
    return result


def _check_channels(image: Floats, plan: Plan) -> None:
    if len(image) != len(plan.channels):
        names = ", ".join(channel.name for channel in plan.channels)
        raise MvlError(
            f"has {count_text(len(image), 'channel')}, {plan.dataset} has {len(plan.channels)} ({names})",
            remedy="Give one file per channel, or one file with all channels, in that order.",
        )
