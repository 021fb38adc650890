"""The settings of a prediction, and the windows that follow from them and from the configuration.

Windows have the shape of the training patch. The network accepts larger ones, and one window over the whole image needs
no overlap, but it predicts worse: see benchmarks/windows.py and docs/experiments.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mvl_auto.errors import MvlError
from mvl_auto.plans import Configuration, Shape

STEP_SIZE = 0.5  # of a window, from one to the next (nnU-Net's)
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


def choose_windows(configuration: Configuration, settings: PredictionSettings) -> WindowSettings:
    """The windows of a configuration: those of its training. settings.device: not "auto"."""
    device = torch.device(settings.device)
    return WindowSettings(
        configuration.patch_size,
        configuration.mirror_axes if settings.mirror else (),
        settings.step_size,
        choose_batch_size(configuration, device),
        device,
    )


def choose_batch_size(configuration: Configuration, device: torch.device) -> int:
    """Windows that go through the network at once: many small ones; on a GPU at least as many as in training."""
    small = VOXELS_AT_ONCE // math.prod(configuration.patch_size)
    return max(1, small, configuration.batch_size if device.type == "cuda" else 1)
