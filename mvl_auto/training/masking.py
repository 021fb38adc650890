"""Batches of a pretraining: patches of images, and which of their voxels are hidden. Labels are never read.

What is hidden is drawn by cells of the size of a token, so that a token is hidden whole or not at all: three quarters
of them (He et al. 2022; Wald et al. 2025). The patches are turned, scaled and mirrored as in training; intensities are
left alone, as they are what is to be found again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvl_auto.arrays import Classes, Floats
from mvl_auto.plans import Configuration, LabelScheme, Shape
from mvl_auto.training.augmentation import Source, cut, draw_spatial
from mvl_auto.training.cases import Cases
from mvl_auto.training.patches import Patches, centres, slice_of

HIDDEN_SHARE = 0.75
OTHER = "other/"  # before the names of images that are not of the dataset: no case may be called so


class MaskedPatches(Patches):
    """patches[step] is the batch of that step: images, and in place of labels 1 for a hidden voxel, else 0.

    cases, names: of the dataset. others, other_names: images beside it. No voxel beyond the end of an image is hidden.
    """

    def __init__(
        self,
        cases: Cases,
        names: Sequence[str],
        configuration: Configuration,
        labels: LabelScheme,
        seed: int,
        others: tuple[Cases, Sequence[str]] | None = None,
    ) -> None:
        more = () if others is None else tuple(OTHER + name for name in others[1])
        super().__init__(cases, (*names, *more), configuration, labels, seed)
        self.others = None if others is None else others[0]

    def sample(self, rng: np.random.Generator, name: str, foreground: bool) -> tuple[Floats, Classes]:
        """One patch: image (c, *patch), and what is hidden of it (*patch). It may lie anywhere in the case."""
        if name.startswith(OTHER):
            assert self.others is not None
            case = self.others.open(name.removeprefix(OTHER))
        else:
            case = self.cases.open(name)
        size, shape = self.configuration.patch_size, case.cached.shape[1:]
        spatial = draw_spatial(rng, size, self.configuration.mirror_axes)
        centre = rng.uniform(*centres(shape[-len(size) :], size))
        source = Source(case.image, case.maps, shape, (1,))
        if len(size) < len(shape):
            source = slice_of(source, int(rng.integers(shape[0])))
        image, inside = cut(source, centre, spatial, size)
        hidden = draw_hidden(rng, size, self.configuration.network.token_size)
        return image, (hidden & (inside[0] > 0)).astype(np.int16)


def draw_hidden(rng: np.random.Generator, size: Shape, cell: Shape) -> np.ndarray:
    """(*size) bool: HIDDEN_SHARE of the cells of a patch, rounded, but at least one and not all of several."""
    cells = [-(-voxels // side) for voxels, side in zip(size, cell, strict=True)]
    number = int(np.prod(cells))
    wanted = min(max(1, round(HIDDEN_SHARE * number)), max(1, number - 1))
    hidden = np.zeros(number, bool)
    hidden[rng.permutation(number)[:wanted]] = True
    grown = hidden.reshape(cells)
    for axis, side in enumerate(cell):
        grown = grown.repeat(side, axis)
    return grown[tuple(slice(0, voxels) for voxels in size)]
