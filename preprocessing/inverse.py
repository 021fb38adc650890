"""From the network's array back to the image as the user gave it: resample, undo the crop, undo the transpose.

A hundred classes on a large scan are tens of gigabytes: labels are therefore decided slab by slab, and the full
array of probabilities exists only where someone asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mvl_auto.arrays import Classes, Floats
from mvl_auto.images.crop import slices
from mvl_auto.plans import LabelScheme, Trail
from mvl_auto.preprocessing.resample import resample_probabilities

SLAB_BYTES = 128 << 20  # of resampled scores at a time


def to_native(scores: Floats, trail: Trail, outside: Sequence[float] | None = None) -> Floats:
    """Probabilities or logits of the network on the canonical grid: (K, Z, Y, X) float32.

    scores: (K, *trail.resampled_shape). outside: of each output, what holds where the crop has cut away; None: 1 for
    the first, 0 for the others, that is background for sure if they are probabilities of classes.
    """
    _check_shape(scores, trail)
    fill = np.asarray(outside if outside is not None else [1.0] + [0.0] * (len(scores) - 1), np.float32)
    full = np.empty((len(scores), *_turned_size(trail)), np.float32)
    full[:] = fill[:, None, None, None]
    inside = full[(slice(None), *slices(trail.crop))]
    for k, output in enumerate(scores):
        inside[k] = _resampled(output[None], trail)[0]
    return full.transpose(0, *(1 + np.argsort(trail.transpose_forward)))


def labels_in_native_space(
    scores: Floats, trail: Trail, labels: LabelScheme, *, threshold: float = 0.0, slab_bytes: int = SLAB_BYTES
) -> Classes:
    """The class of each voxel of the canonical grid: (Z, Y, X) int16, background outside the crop.

    scores: (K, *trail.resampled_shape) of labels.num_outputs; any float type, a memory map too. Classes: the greatest
    score wins. Regions: each where its score exceeds `threshold` (0 for logits, 0.5 for probabilities), later ones
    over earlier ones. Beyond scores and result it needs about `slab_bytes`.
    """
    _check_shape(scores, trail)
    assert len(scores) == labels.num_outputs
    turned = np.zeros(_turned_size(trail), np.int16)
    inside = turned[slices(trail.crop)]
    for start, stop in _slabs(inside.shape, len(scores), slab_bytes):
        slab = _resampled(scores, trail, (start, stop))
        inside[start:stop] = _regions(slab, labels, threshold) if labels.has_regions else _greatest(slab)
    return np.ascontiguousarray(turned.transpose(np.argsort(trail.transpose_forward)))


def _resampled(scores: Floats, trail: Trail, rows: tuple[int, int] | None = None) -> Floats:
    return resample_probabilities(scores, _cropped_size(trail), trail.separate_axis, rows)


def _greatest(scores: Floats) -> Classes:
    """numpy's argmax along the first axis, which reads memory in the wrong order, made fast."""
    result = np.zeros(scores.shape[1:], np.int16)
    greatest = scores[0].copy()
    for k, score in enumerate(scores[1:], start=1):
        wins = score > greatest
        np.copyto(greatest, score, where=wins)
        np.copyto(result, np.int16(k), where=wins)
    return result


def _regions(scores: Floats, labels: LabelScheme, threshold: float) -> Classes:
    result = np.zeros(scores.shape[1:], np.int16)
    for score, k in zip(scores, labels.regions_class_order, strict=True):
        result[score > threshold] = k
    return result


def _slabs(shape: Sequence[int], outputs: int, most_bytes: int) -> Iterator[tuple[int, int]]:
    """Start and stop along the first axis."""
    bytes_per_row = outputs * int(np.prod(shape[1:])) * np.dtype(np.float32).itemsize
    thickness = max(1, most_bytes // bytes_per_row)
    for start in range(0, shape[0], thickness):
        yield start, min(start + thickness, shape[0])


def _cropped_size(trail: Trail) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in trail.crop)


def _turned_size(trail: Trail) -> tuple[int, ...]:
    return tuple(trail.shape[axis] for axis in trail.transpose_forward)


def _check_shape(scores: Floats, trail: Trail) -> None:
    assert scores.shape[1:] == trail.resampled_shape, f"{scores.shape[1:]} is not {trail.resampled_shape}"
