"""Crop to the non-zero region: scans are often stored in a frame of zeros that only costs memory.

As nnU-Net's (cropping.py): the box around every voxel that is not zero in some channel. For statistics, zeros that
are enclosed by other voxels belong to the image.
"""

from __future__ import annotations

import numpy as np

from mvl_auto.arrays import Box, Floats, Mask


def nonzero_box(image: Floats) -> Box:
    """Start and stop along each axis of the box around all non-zero voxels; the whole image where all are zero.

    image: C Z Y X.
    """
    box: list[tuple[int, int]] = []
    inside = image
    for axis in range(1, image.ndim):
        size = inside.shape[axis]
        start = next((i for i in range(size) if inside.take(i, axis).any()), None)
        if start is None:
            return tuple((0, size) for size in image.shape[1:])
        stop = next(i for i in range(size, 0, -1) if inside.take(i - 1, axis).any())
        box.append((start, stop))
        inside = inside[(slice(None),) * axis + (slice(start, stop),)]
    return tuple(box)


def filled_mask(image: Floats) -> Mask:
    """Z Y X: what is not zero in some channel, and what that encloses. image: C Z Y X.

    The same as scipy's binary_fill_holes, much faster: holes are the background components that do not touch the
    border of the image.
    """
    from scipy import ndimage

    mask = (image != 0).any(axis=0)
    if mask.all():
        return mask
    components, number = ndimage.label(~mask)
    is_open = np.zeros(number + 1, bool)
    for axis in range(mask.ndim):
        for side in (0, -1):
            is_open[components.take(side, axis)] = True
    is_open[0] = False
    return ~is_open[components]


def slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)
