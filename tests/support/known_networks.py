"""A network whose classes follow from the image by a formula, and images for it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mvl_auto.images import Volume
from mvl_auto.images.geometry import FileGrid, canonical_geometry


class Bands(nn.Module):
    """Class k where the first channel is nearest to k: logits -(x - k)^2, of as many classes."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-((x[:, :1] - k) ** 2) for k in range(self.classes)], dim=1)


def volume_of(array: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> Volume:
    """A canonical volume (C, Z, Y, X) of the given spacing, Z Y X."""
    grid = FileGrid(tuple(array.shape[:0:-1]), np.diag([*spacing[::-1], 1.0]))
    return Volume(array.astype(np.float32), canonical_geometry(grid, "volume"))


def random_bands(*shape: int, seed: int = 0) -> np.ndarray:
    """A channel of numbers around 0, 1, 2, none of them 0, none in doubt."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 3, (1, *shape)) + rng.choice([-0.3, 0.3], (1, *shape))).astype(np.float32)
