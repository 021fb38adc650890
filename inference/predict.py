"""One image to one segmentation: windows, networks, probabilities, native space, classes.

The logits of each network come in slabs (sliding_window.py). Their softmax, or sigmoid for regions, is averaged over
the networks, resampled to the image's own voxels (restore.py), and the classes are decided there. Everything is
streamed: only one row of windows is in memory, and all probabilities only where the caller asks for them.
"""

from __future__ import annotations

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
from mvl_auto.inference.restore import native_slabs, paste_slab
from mvl_auto.inference.sliding_window import cheapest_axis, stream_logits
from mvl_auto.inference.windows import STEP_SIZE, PredictionSettings, WindowSettings, choose_windows
from mvl_auto.plans import Configuration, LabelScheme, Plan, Trail
from mvl_auto.preprocessing.case import PreparedCase, preprocess_case, preprocess_label

REGION_THRESHOLD = 0.5


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
    step_size: float = STEP_SIZE,
) -> NDArray[np.int16]:
    """Classes (Z, Y, X) of an image as it was read; several networks are an ensemble.

    networks: in eval mode, on `device`. previous: for the second stage of a cascade, the classes (Z, Y, X) that the
    first found. mirror, step_size: as in PredictionSettings.
    Raises MvlError when the network's output is not finite or the GPU's memory is too small.
    """
    prepared = preprocess_case(volume.array, volume.spacing, None, plan, configuration)
    image = make_network_input(prepared, previous, plan, configuration)
    settings = PredictionSettings(str(device), mirror, step_size)
    return predict_prepared(networks, plan.labels, configuration, image, prepared.trail, settings).classes


def make_network_input(
    prepared: PreparedCase, previous: NDArray[np.int16] | None, plan: Plan, configuration: Configuration
) -> NDArray[np.float32]:
    """The input of the networks (C, Z, Y, X): the prepared image; in a cascade's second stage with the first's result.

    previous: classes (Z, Y, X) of the canonical image. Raises ValueError where it is missing.
    """
    if configuration.previous_stage is None:
        return prepared.image
    if previous is None:
        raise ValueError(f"{configuration.name} needs the segmentation by {configuration.previous_stage}")
    return add_previous(prepared.image, previous, prepared.trail, plan.labels)


def add_previous(image: Floats, previous: Classes, trail: Trail, labels: LabelScheme) -> Floats:
    """The second stage's input (C + K, Z, Y, X): the preprocessed image, and a channel for each label or region.

    previous: the segmentation by the first stage, classes (Z, Y, X) of the canonical image. trail: how the image was
    preprocessed.
    """
    return np.concatenate([image, one_hot(preprocess_label(previous, trail), labels)])


def predict_prepared(
    networks: Sequence[nn.Module],
    labels: LabelScheme,
    configuration: Configuration,
    image_czyx: NDArray[np.float32],
    trail: Trail,
    settings: PredictionSettings,
    advance: Callable[[float], None] = lambda share: None,
) -> Prediction:
    """The prediction for a preprocessed image, on the voxels of the image before preprocessing.

    image_czyx: from `make_network_input`. trail: how the image was preprocessed. settings.device: not "auto".
    advance: called with the share of the work that was done since its last call. Probabilities take K float32 a voxel.
    Raises MvlError when a network's output is not finite or the GPU's memory is too small.
    """
    image = torch.from_numpy(np.ascontiguousarray(image_czyx))
    windows = choose_windows(configuration, settings)
    axis = cheapest_axis(image.shape[1:], windows.shape)
    classes = np.zeros(trail.shape, np.int16)
    probabilities = _background_everywhere(labels, trail.shape) if settings.probabilities else None
    length = trail.crop[axis][1] - trail.crop[axis][0]
    network_slabs = probability_slabs(networks, labels, image, windows, axis)
    for first, slab in native_slabs(network_slabs, trail, axis):
        paste_slab(classes, decide_classes(slab, labels).cpu().numpy(), trail, axis, first)
        if probabilities is not None:
            paste_slab(probabilities, slab.cpu().numpy(), trail, axis, first)
        advance(slab.shape[axis + 1] / length)
    return Prediction(classes, probabilities)


def probability_slabs(
    networks: Sequence[nn.Module], labels: LabelScheme, image_czyx: Tensor, windows: WindowSettings, axis: int
) -> Iterator[tuple[int, Tensor]]:
    """The mean probabilities of all networks, in slabs along `axis`: (first slice, (k, z, y, x)).

    Raises MvlError when a network's output is not finite, and as `stream_logits` does.
    """
    streams = [stream_logits(network, image_czyx, labels.num_outputs, windows, axis) for network in networks]
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


def decide_classes(probabilities_kzyx: Tensor, labels: LabelScheme) -> Tensor:
    """Classes (z, y, x), int16: the likeliest; of regions, the last in their order whose probability exceeds 0.5."""
    if not labels.has_regions:
        return probabilities_kzyx.max(dim=0).indices.to(torch.int16)
    classes = torch.zeros(probabilities_kzyx.shape[1:], dtype=torch.int16, device=probabilities_kzyx.device)
    for probability, written in zip(probabilities_kzyx, labels.regions_class_order, strict=True):
        classes[probability > REGION_THRESHOLD] = written
    return classes


def _background_everywhere(labels: LabelScheme, shape: Sequence[int]) -> NDArray[np.float32]:
    """The probabilities outside the crop, where every voxel of the image is 0: background, no region."""
    probabilities = np.zeros((labels.num_outputs, *shape), np.float32)
    if not labels.has_regions:
        probabilities[0] = 1
    return probabilities
