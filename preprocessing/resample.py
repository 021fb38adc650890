"""Volumes on another grid: images by cubic splines, labels by linear interpolation of each class.

Both grids cover the same box in space, as in nnU-Net (default_resampling.py) and skimage's resize. An axis that is much
coarser than the others can be resampled separately (`separate_axis`): neighbouring slices are then too far apart for
interpolation, so each new slice is the nearest old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from mvl_auto.arrays import Box, Classes, Floats
from mvl_auto.images.crop import slices
from mvl_auto.plans import IGNORE
from mvl_auto.preprocessing.interpolation import (
    CUBIC,
    LINEAR,
    apply_bands,
    find_nearest,
    make_bands,
    map_voxels,
    resample_axis,
)

Shape = Sequence[int]


def resample_channel(channel: Floats, shape: Shape, separate_axis: int | None) -> Floats:
    """One channel (Z Y X) of an image with another shape, order 3; float32. The same array where the shape is equal.

    A spline overshoots at edges: its values are clipped to the range of the channel, with `separate_axis` to that of
    each slice, as skimage does.
    """
    if tuple(shape) == channel.shape:
        return channel
    if separate_axis is None:
        return _resample_cubic(channel, shape, tuple(range(channel.ndim)))
    chosen = find_nearest(channel.shape[separate_axis], shape[separate_axis])
    used, back = np.unique(chosen, return_inverse=True)
    in_plane = list(shape)
    in_plane[separate_axis] = len(used)
    plane_axes = tuple(axis for axis in range(channel.ndim) if axis != separate_axis)
    return _resample_cubic(channel.take(used, separate_axis), in_plane, plane_axes).take(back, separate_axis)


def resample_labels(label: Classes, shape: Shape, separate_axis: int | None = None) -> Classes:
    """A label map (Z Y X) with another shape: each class is interpolated linearly, the largest share wins; int16.

    Of equal shares the greater class wins, and IGNORE wins over all classes: a voxel that is partly unlabelled stays
    unlabelled.
    """
    if tuple(shape) == label.shape:
        return label.astype(np.int16)
    if separate_axis is None:
        return _take_largest_share(label, shape)
    in_plane = [
        old if axis == separate_axis else new for axis, (old, new) in enumerate(zip(label.shape, shape, strict=True))
    ]
    chosen = find_nearest(label.shape[separate_axis], shape[separate_axis])
    used, back = np.unique(chosen, return_inverse=True)
    in_plane[separate_axis] = len(used)
    return _take_largest_share(label.take(used, separate_axis), in_plane).take(back, separate_axis)


def _resample_cubic(array: Floats, shape: Shape, axes: tuple[int, ...]) -> Floats:
    """Along one axis after the other, then clipped to the range over `axes`."""
    if tuple(shape) == array.shape:
        return array
    least, greatest = array.min(axis=axes, keepdims=True), array.max(axis=axes, keepdims=True)
    result = reduce(
        lambda volume, axis: resample_axis(volume, axis, shape[axis], CUBIC), _order_axes(array.shape, shape), array
    )
    return np.clip(result, least, greatest, out=result)


def _order_axes(old: Shape, new: Shape) -> list[int]:
    """The axes in the cheapest order: those that shrink most come first, so that the arrays in between are small."""
    return sorted(range(len(old)), key=lambda axis: new[axis] / old[axis])


def _take_largest_share(label: Classes, shape: Shape) -> Classes:
    """Each class is interpolated only around its own voxels, so many small structures cost as much as a large one."""
    if tuple(shape) == label.shape:
        return label.astype(np.int16)
    result = np.zeros(shape, np.int16)
    boxes = _find_class_boxes(label)
    if set(boxes) <= {0}:
        return result
    if 0 in boxes:
        boxes[0] = _join_boxes([box for k, box in boxes.items() if k != 0])
    greatest = np.zeros(shape, np.float32)
    for k in sorted(boxes, key=lambda k: (k == IGNORE, k)):
        reach = _find_reach(boxes[k], label.shape, shape)
        box = _widen(boxes[k], label.shape) if k == 0 else boxes[k]
        share = _interpolate_share((label[slices(box)] == k).astype(np.float32), box, label.shape, reach, shape)
        wins = (share >= greatest[slices(reach)]) & (share > 0)
        np.copyto(greatest[slices(reach)], share, where=wins)
        np.copyto(result[slices(reach)], np.int16(k), where=wins)
    return result


def _interpolate_share(mask: Floats, box: Box, old: Shape, reach: Box, new: Shape) -> Floats:
    """Share of a class on the part `reach` of the new grid. mask: of the class, inside `box` of the old grid."""
    for axis in _order_axes(old, new):
        if old[axis] == new[axis]:
            start = box[axis][0]
            mask = mask[(slice(None),) * axis + (slice(reach[axis][0] - start, reach[axis][1] - start),)]
        else:
            mask = apply_bands(make_bands(old[axis], new[axis], LINEAR, reach[axis], box[axis]), mask, axis)
    return mask


def _find_class_boxes(label: Classes) -> dict[int, Box]:
    """The bounding box of each class in the label map, IGNORE and background included."""
    from scipy import ndimage

    found = ndimage.find_objects(label.astype(np.int32) - IGNORE + 1)
    return {k: tuple((s.start, s.stop) for s in box) for k, box in enumerate(found, start=IGNORE) if box is not None}


def _find_reach(box: Box, old: Shape, new: Shape) -> Box:
    """The box of the new voxels that have an old voxel of `box` as a neighbour."""
    reach = []
    for (start, stop), before, after in zip(box, old, new, strict=True):
        where = np.clip(map_voxels(before, after), 0, before - 1)
        reach.append((int(np.searchsorted(where, start - 1, "right")), int(np.searchsorted(where, stop, "left"))))
    return tuple(reach)


def _join_boxes(boxes: list[Box]) -> Box:
    return tuple(
        (min(start for start, _ in sides), max(stop for _, stop in sides)) for sides in zip(*boxes, strict=True)
    )


def _widen(box: Box, shape: Shape) -> Box:
    """The box with one voxel more on each side, inside the array."""
    return tuple((max(start - 1, 0), min(stop + 1, size)) for (start, stop), size in zip(box, shape, strict=True))
