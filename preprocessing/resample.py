"""Volumes on another grid: images by cubic splines, labels and probabilities by linear interpolation.

Both grids cover the same box in space, as in nnU-Net (default_resampling.py) and skimage's resize. Where the plan
says so, one axis that is much coarser than the others is kept apart (`separate_axis`): between slices that lie far
from each other there is nothing to interpolate, so each new slice is the nearest old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from mvl_auto.arrays import Box, Classes, Floats
from mvl_auto.plans import IGNORE
from mvl_auto.preprocessing.interpolation import CUBIC, LINEAR, apply, bands, nearest, places, resample_axis

Shape = Sequence[int]


def resample_image(image: Floats, shape: Shape, separate_axis: int | None = None) -> Floats:
    """An image (C Z Y X) of `shape` (Z Y X), order 3; float32.

    A spline overshoots at edges: like skimage's, its values are clipped to the range of the old image, each channel
    by itself, with `separate_axis` each slice by itself.
    """
    return np.stack([resample_channel(channel, shape, separate_axis) for channel in image])


def resample_channel(channel: Floats, shape: Shape, separate_axis: int | None) -> Floats:
    """One channel (Z Y X) of an image, as `resample_image`; the same array where the shape is."""
    if tuple(shape) == channel.shape:
        return channel
    if separate_axis is None:
        return _cubic(channel, shape, tuple(range(channel.ndim)))
    chosen = nearest(channel.shape[separate_axis], shape[separate_axis])
    used, back = np.unique(chosen, return_inverse=True)
    in_plane = list(shape)
    in_plane[separate_axis] = len(used)
    plane_axes = tuple(axis for axis in range(channel.ndim) if axis != separate_axis)
    return _cubic(channel.take(used, separate_axis), in_plane, plane_axes).take(back, separate_axis)


def resample_labels(label: Classes, shape: Shape, separate_axis: int | None = None) -> Classes:
    """A label map (Z Y X) of `shape`: each class is interpolated linearly, the largest share wins; int16.

    Where two have the same share, the greater class wins and IGNORE over all, so that nothing is made up where
    nobody labelled.
    """
    if tuple(shape) == label.shape:
        return label.astype(np.int16)
    if separate_axis is None:
        return _largest_share(label, shape)
    in_plane = [
        old if axis == separate_axis else new for axis, (old, new) in enumerate(zip(label.shape, shape, strict=True))
    ]
    chosen = nearest(label.shape[separate_axis], shape[separate_axis])
    used, back = np.unique(chosen, return_inverse=True)
    in_plane[separate_axis] = len(used)
    return _largest_share(label.take(used, separate_axis), in_plane).take(back, separate_axis)


def resample_probabilities(
    probabilities: Floats, shape: Shape, separate_axis: int | None = None, rows: tuple[int, int] | None = None
) -> Floats:
    """Probabilities or logits (K Z Y X) of `shape`, order 1; float32.

    rows: only these of the new array along its first axis, Z: a part at a time needs little memory.
    """
    old = probabilities.shape[1:]
    result = probabilities if rows is None else _resample_rows(probabilities, shape[0], rows, separate_axis == 0)
    for axis in _cheapest_first(old, shape):
        if old[axis] == shape[axis] or (axis == 0 and rows is not None):
            continue
        if axis == separate_axis:
            result = result.take(nearest(old[axis], shape[axis]), 1 + axis)
        else:
            result = resample_axis(result, 1 + axis, shape[axis], LINEAR)
    return np.ascontiguousarray(result, np.float32)


def _resample_rows(probabilities: Floats, size: int, rows: tuple[int, int], is_separate: bool) -> Floats:
    """Some of the new rows along Z, touching only the old rows that they need."""
    old = probabilities.shape[1]
    if is_separate or old == size:
        return probabilities.take(nearest(old, size)[slice(*rows)], 1)
    needed = bands(old, size, LINEAR, rows)
    columns = (needed[0].old[0], needed[-1].old[1])
    return apply(bands(old, size, LINEAR, rows, columns), probabilities[:, slice(*columns)], 1)


def _cubic(array: Floats, shape: Shape, axes: tuple[int, ...]) -> Floats:
    """Along each axis in turn, then clipped to the range over `axes`."""
    if tuple(shape) == array.shape:
        return array
    least, greatest = array.min(axis=axes, keepdims=True), array.max(axis=axes, keepdims=True)
    result = reduce(
        lambda sofar, axis: resample_axis(sofar, axis, shape[axis], CUBIC), _cheapest_first(array.shape, shape), array
    )
    return np.clip(result, least, greatest, out=result)


def _cheapest_first(old: Shape, new: Shape) -> list[int]:
    """The axes in the order that keeps what lies between small: those that shrink most come first."""
    return sorted(range(len(old)), key=lambda axis: new[axis] / old[axis])


def _largest_share(label: Classes, shape: Shape) -> Classes:
    """Each class only where it has any share, so that many small structures cost no more than a few large ones."""
    if tuple(shape) == label.shape:
        return label.astype(np.int16)
    result = np.zeros(shape, np.int16)
    boxes = _class_boxes(label)
    if set(boxes) <= {0}:
        return result
    if 0 in boxes:
        boxes[0] = _around([box for k, box in boxes.items() if k != 0])
    greatest = np.zeros(shape, np.float32)
    for k in sorted(boxes, key=lambda k: (k == IGNORE, k)):
        reach = _reach(boxes[k], label.shape, shape)
        box = _widened(boxes[k], label.shape) if k == 0 else boxes[k]
        share = _share((label[_slices(box)] == k).astype(np.float32), box, label.shape, reach, shape)
        wins = (share >= greatest[_slices(reach)]) & (share > 0)
        np.copyto(greatest[_slices(reach)], share, where=wins)
        np.copyto(result[_slices(reach)], np.int16(k), where=wins)
    return result


def _share(mask: Floats, box: Box, old: Shape, reach: Box, new: Shape) -> Floats:
    """A mask that was cut to `box`, on the part `reach` of the new grid."""
    for axis in _cheapest_first(old, new):
        if old[axis] == new[axis]:
            start = box[axis][0]
            mask = mask[(slice(None),) * axis + (slice(reach[axis][0] - start, reach[axis][1] - start),)]
        else:
            mask = apply(bands(old[axis], new[axis], LINEAR, reach[axis], box[axis]), mask, axis)
    return mask


def _class_boxes(label: Classes) -> dict[int, Box]:
    """The box of each class that occurs, IGNORE and background too."""
    from scipy import ndimage

    found = ndimage.find_objects(label.astype(np.int32) - IGNORE + 1)
    return {k: tuple((s.start, s.stop) for s in box) for k, box in enumerate(found, start=IGNORE) if box is not None}


def _reach(box: Box, old: Shape, new: Shape) -> Box:
    """The new voxels that have a voxel of `box` as a neighbour."""
    reach = []
    for (start, stop), before, after in zip(box, old, new, strict=True):
        where = np.clip(places(before, after), 0, before - 1)
        reach.append((int(np.searchsorted(where, start - 1, "right")), int(np.searchsorted(where, stop, "left"))))
    return tuple(reach)


def _around(boxes: list[Box]) -> Box:
    return tuple(
        (min(start for start, _ in sides), max(stop for _, stop in sides)) for sides in zip(*boxes, strict=True)
    )


def _widened(box: Box, shape: Shape) -> Box:
    """By a voxel on each side, inside the array."""
    return tuple((max(start - 1, 0), min(stop + 1, size)) for (start, stop), size in zip(box, shape, strict=True))


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)
