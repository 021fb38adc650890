"""Reference for the way back to native space: on whole arrays, by scikit-image and scipy in 64 bits.

The product does it in slabs (mvl_auto.inference.restore). Resample, undo the crop, undo the transpose.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.transform import resize

from mvl_auto.images.crop import slices
from mvl_auto.plans import LabelScheme, Trail


def to_native(
    scores: NDArray[np.floating], trail: Trail, outside: Sequence[float] | None = None
) -> NDArray[np.float32]:
    """Scores (K, Z, Y, X) of the network's grid on the canonical grid of the image.

    outside: the value of each output where the crop has cut away; None: 1 for the first, 0 for the others.
    """
    fill = np.asarray(outside if outside is not None else [1.0] + [0.0] * (len(scores) - 1), np.float32)
    cropped = [stop - start for start, stop in trail.crop]
    full = np.empty((len(scores), *(trail.shape[axis] for axis in trail.transpose_forward)), np.float32)
    full[:] = fill[:, None, None, None]
    full[(slice(None), *slices(trail.crop))] = [
        resample_linear(score, cropped, trail.separate_axis) for score in scores
    ]
    return full.transpose(0, *(1 + np.argsort(trail.transpose_forward)))


def labels_in_native_space(
    scores: NDArray[np.floating], trail: Trail, labels: LabelScheme, threshold: float = 0.0
) -> NDArray[np.int16]:
    """Classes (Z, Y, X) of the canonical grid, background outside the crop.

    Classes: the greatest score wins. Regions: each where its score exceeds `threshold` (0 for logits, 0.5 for
    probabilities), later ones over earlier ones.
    """
    if not labels.has_regions:
        return to_native(scores, trail).argmax(axis=0).astype(np.int16)
    native = to_native(scores, trail, outside=[-np.inf] * len(scores))
    result = np.zeros(native.shape[1:], np.int16)
    for score, written in zip(native, labels.regions_class_order, strict=True):
        result[score > threshold] = written
    return result


def resample_linear(
    volume: NDArray[np.floating], shape: Sequence[int], separate_axis: int | None = None
) -> NDArray[np.float64]:
    """A volume (Z, Y, X) of another shape, order 1; along `separate_axis` the nearest slices."""
    volume = np.asarray(volume, np.float64)
    if separate_axis is None:
        return _resize(volume, shape)
    in_plane = [
        old if n == separate_axis else new for n, (old, new) in enumerate(zip(volume.shape, shape, strict=True))
    ]
    old, new = volume.shape[separate_axis], shape[separate_axis]
    place = (np.arange(new) + 0.5) * old / new - 0.5
    nearest = ndimage.map_coordinates(np.arange(old), [place], order=0, mode="nearest")
    return _resize(volume, in_plane).take(nearest, separate_axis)


def _resize(volume: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    if volume.shape == tuple(shape):
        return volume
    return resize(volume, shape, order=1, mode="edge", anti_aliasing=False)
