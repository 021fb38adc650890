"""How large the windows of a prediction are, how far apart, and how many go through a network at once.

A window may be larger than the patch of the training: the network computes positions in mm from the middle of its
input, and has no layer of a fixed grid. A window that covers the image needs no neighbours. Where a training patch of
32 voxels meets an image of 36, one window of 40 takes the place of two of 32 that overlap almost completely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mvl_auto.errors import MvlError
from mvl_auto.plans import Configuration, Shape

STEP_SIZE = 0.5  # of a window, from one to the next (nnU-Net's)
LARGEST_WINDOW = 1.6  # times the patch, along each axis: attention sees at most four times as many tokens as trained
MOST_LOGIT_BYTES = 1 << 29  # of one window that is larger than the patch
VOXELS_AT_ONCE = 1 << 20  # small windows go through the network together until they are as many voxels


@dataclass(frozen=True)
class PredictionSettings:
    """What the user chooses about a prediction.

    device: where the networks run, in torch's spelling, or "auto". mirror: average over the mirrored versions that
    training saw. step_size: distance from one window to the next, as a share of the window. probabilities: return
    and write them too. Raises MvlError for a step size that is not in (0, 1].
    """

    device: str = "auto"
    mirror: bool = True
    step_size: float = STEP_SIZE
    probabilities: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.step_size <= 1:
            raise MvlError(
                f"the step size is {self.step_size:g}, it must be above 0 and at most 1",
                remedy=f"Leave it at {STEP_SIZE:g}.",
            )


@dataclass(frozen=True)
class WindowSettings:
    """How windows lie over an image and go through a network.

    shape: voxels of a window, Z Y X; Y X for a 2D network, which gets each slice by itself. mirror_axes: of the
    network's spatial axes (0 is its first); the logits of all their combinations are averaged. step_size: distance
    from one window to the next, as a share of `shape`. batch_size: windows in one forward pass, mirrored ones counted.
    device: where the network is.
    """

    shape: Shape
    mirror_axes: tuple[int, ...] = ()
    step_size: float = STEP_SIZE
    batch_size: int = 1
    device: torch.device | str = "cpu"


def choose_windows(
    image_shape: Sequence[int], num_outputs: int, configuration: Configuration, settings: PredictionSettings
) -> WindowSettings:
    """The windows for a preprocessed image. image_shape: voxels, Z Y X. settings.device: not "auto"."""
    device = torch.device(settings.device)
    shape = choose_window_shape(image_shape, num_outputs, configuration)
    return WindowSettings(
        shape,
        configuration.mirror_axes if settings.mirror else (),
        settings.step_size,
        choose_batch_size(shape, configuration, device),
        device,
    )


def choose_window_shape(image_shape: Sequence[int], num_outputs: int, configuration: Configuration) -> Shape:
    """Voxels of a window, for each axis of the network.

    Along an axis that is at most LARGEST_WINDOW times as long as the patch, one window covers the image, rounded up to
    whole tokens. Along a longer one, and everywhere if the logits of such a window exceed MOST_LOGIT_BYTES, a window is
    as long as the patch. image_shape: voxels of the preprocessed image, Z Y X.
    """
    patch, tokens = configuration.patch_size, configuration.network.token_size
    axes = zip(image_shape[3 - len(patch) :], patch, tokens, strict=True)
    covering = tuple(_cover(*axis) for axis in axes)
    logit_bytes = 4 * num_outputs * math.prod(covering)
    return covering if logit_bytes <= MOST_LOGIT_BYTES else patch


def choose_batch_size(shape: Shape, configuration: Configuration, device: torch.device) -> int:
    """Windows that go through the network at once: many small ones; on a GPU as many voxels as in training, or more."""
    voxels = math.prod(shape)
    training = configuration.batch_size * math.prod(configuration.patch_size) if device.type == "cuda" else 0
    return max(1, max(VOXELS_AT_ONCE, training) // voxels)


def _cover(voxels: int, patch: int, token: int) -> int:
    covering = math.ceil(voxels / token) * token
    return covering if patch < covering <= LARGEST_WINDOW * patch else patch
