"""One image to one segmentation: windows, networks, probabilities, native space, classes.

The logits of each network come in slabs (sliding_window.py); their softmax, or sigmoid for regions, is averaged over
the networks, resampled to the image's own voxels (restore.py) and decided there. All of it streams: of the
probabilities no more than a row of windows is held, unless they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mvl_auto.arrays import Classes, Floats
from mvl_auto.datasets import one_hot
from mvl_auto.errors import MvlError
from mvl_auto.images import Volume
from mvl_auto.inference.restore import native_slabs, paste
from mvl_auto.inference.sliding_window import STEP, cheapest_axis, stream_logits
from mvl_auto.plans import Configuration, LabelScheme, Plan, Trail
from mvl_auto.preprocessing.case import PreparedCase, preprocess_case, preprocess_label

REGION_THRESHOLD = 0.5
VOXELS_AT_ONCE = 1 << 20  # small windows go through the network together until they are as many voxels


@dataclass(frozen=True, eq=False)
class Prediction:
    """Canonical orientation, the image's own voxels."""

    classes: NDArray[np.int16]  # (Z, Y, X)
    probabilities: NDArray[np.float32] | None  # (K, Z, Y, X): of the classes, or of the regions


def predict_case(
    networks: Sequence[nn.Module],
    plan: Plan,
    configuration: Configuration,
    volume: Volume,
    *,
    previous: NDArray[np.int16] | None = None,
    device: torch.device | str = "cpu",
    mirror: bool = True,
    step: float = STEP,
) -> NDArray[np.int16]:
    """Classes (Z, Y, X) of an image as it was read; several networks are an ensemble.

    networks: in eval mode, on `device`. previous: for the second stage of a cascade, the classes (Z, Y, X) that the
    first found. mirror: average over the mirrored versions that training saw.
    Raises MvlError when the network's output is not finite or the GPU's memory is too small.
    """
    prepared = preprocess_case(volume.array, volume.spacing, None, plan, configuration)
    return predict_prepared(
        networks,
        plan.labels,
        configuration,
        network_input(prepared, previous, plan, configuration),
        prepared.trail,
        device=device,
        mirror=mirror,
        step=step,
    ).classes


def network_input(
    prepared: PreparedCase, previous: NDArray[np.int16] | None, plan: Plan, configuration: Configuration
) -> NDArray[np.float32]:
    """What the networks of a configuration see: the prepared image; in a cascade's second stage the first's result too.

    previous: classes (Z, Y, X) of the canonical image. Raises ValueError where it is missing.
    """
    if configuration.previous_stage is None:
        return prepared.image
    if previous is None:
        raise ValueError(f"{configuration.name} needs what {configuration.previous_stage} found")
    return with_previous(prepared.image, previous, prepared.trail, plan.labels)


def predict_prepared(
    networks: Sequence[nn.Module],
    labels: LabelScheme,
    configuration: Configuration,
    image_czyx: NDArray[np.float32],
    trail: Trail,
    *,
    device: torch.device | str = "cpu",
    mirror: bool = True,
    step: float = STEP,
    keep_probabilities: bool = False,
    advance: Callable[[float], None] = lambda share: None,
) -> Prediction:
    """The prediction for a preprocessed image, on the voxels of the image before preprocessing.

    image_czyx: as `network_input` gives it. trail: how the image was preprocessed. keep_probabilities: return them
    too; they take K float32 a voxel. advance: told the share of the work done since it was last called.
    """
    device = torch.device(device)
    axis = cheapest_axis(image_czyx.shape[1:], configuration.patch_size)
    classes = np.zeros(trail.shape, np.int16)
    probabilities = _nothing_found(labels, trail.shape) if keep_probabilities else None
    network_slabs = probability_slabs(
        networks,
        labels,
        torch.from_numpy(np.ascontiguousarray(image_czyx)),
        configuration.patch_size,
        axis=axis,
        step=step,
        mirror_axes=configuration.mirror_axes if mirror else (),
        batch_size=batch_size(configuration, device),
        device=device,
    )
    length = trail.crop[axis][1] - trail.crop[axis][0]
    for first, slab in native_slabs(network_slabs, trail, axis):
        paste(classes, decide(slab, labels).cpu().numpy(), trail, axis, first)
        if probabilities is not None:
            paste(probabilities, slab.cpu().numpy(), trail, axis, first)
        advance(slab.shape[axis + 1] / length)
    return Prediction(classes, probabilities)


def probability_slabs(
    networks: Sequence[nn.Module], labels: LabelScheme, image_czyx: Tensor, patch_size: Sequence[int], **how: object
) -> Iterator[tuple[int, Tensor]]:
    """The mean probabilities of all networks, in slabs (first slice, (k, z, y, x)).

    how: as for `stream_logits`. Raises MvlError when a network's output is not finite.
    """
    streams = [stream_logits(network, image_czyx, patch_size, labels.num_outputs, **how) for network in networks]  # type: ignore[arg-type]
    for parts in zip(*streams, strict=True):
        mean = to_probabilities(parts[0][1], labels)
        for _, logits in parts[1:]:
            mean += to_probabilities(logits.to(mean.device), labels)
        mean /= len(parts)
        if not mean.isfinite().all():
            raise MvlError(
                "the network's output is not finite for this image", remedy="Try --device cpu; else train again."
            )
        yield parts[0][0], mean


def to_probabilities(logits_kzyx: Tensor, labels: LabelScheme) -> Tensor:
    """Softmax over the classes; regions overlap, so each has a sigmoid of its own."""
    return logits_kzyx.sigmoid() if labels.has_regions else logits_kzyx.softmax(dim=0)


def decide(probabilities_kzyx: Tensor, labels: LabelScheme) -> Tensor:
    """Classes (z, y, x), int16: the likeliest; of regions, the last in the order of those above one half."""
    if not labels.has_regions:
        return probabilities_kzyx.max(dim=0).indices.to(torch.int16)  # three times as fast as argmax on a CPU
    classes = torch.zeros(probabilities_kzyx.shape[1:], dtype=torch.int16, device=probabilities_kzyx.device)
    for probability, written in zip(probabilities_kzyx, labels.regions_class_order, strict=True):
        classes[probability > REGION_THRESHOLD] = written
    return classes


def batch_size(configuration: Configuration, device: torch.device) -> int:
    """Windows that go through the network at once: many small ones; on a GPU at least as many as in training."""
    small = VOXELS_AT_ONCE // math.prod(configuration.patch_size)
    return max(1, small, configuration.batch_size if device.type == "cuda" else 1)


def _nothing_found(labels: LabelScheme, size: Sequence[int]) -> NDArray[np.float32]:
    """The probabilities outside the crop, where every voxel is 0 in the image: background, no region."""
    probabilities = np.zeros((labels.num_outputs, *size), np.float32)
    if not labels.has_regions:
        probabilities[0] = 1
    return probabilities


def with_previous(image: Floats, previous: Classes, trail: Trail, labels: LabelScheme) -> Floats:
    """The second stage's input (C + K, Z, Y, X): the preprocessed image, and a channel per label or region.

    previous: what the first stage found, classes (Z, Y, X) of the canonical image. trail: how the image was prepared.
    """
    return np.concatenate([image, one_hot(preprocess_label(previous, trail), labels)])
