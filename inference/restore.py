"""Back to native space, slab by slab: resample, undo the crop, undo the transpose of preprocessing.

Linear interpolation between voxel centres, one axis after the other; along an axis that preprocessing resampled
separately, the nearest slice. A native slice needs only the two network slices around it, so slabs are resampled as
they come, on their own device, and the whole volume of probabilities is never in memory.

    k outputs; z y x after transpose_forward
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mvl_auto.arrays import Array
from mvl_auto.plans import Trail
from mvl_auto.preprocessing.interpolation import find_nearest, map_voxels

LARGEST_CHUNK = 1 << 22  # values resampled at once: 16 MB in float32


@dataclass(frozen=True, eq=False)
class Neighbours:
    """For each native voxel along one axis: the network voxels before and after it, and the share of the second."""

    lower: Tensor  # (native,) int64
    upper: Tensor  # (native,) int64
    share: Tensor  # (native,) float32, of `upper` in the interpolated value

    @property
    def is_identity(self) -> bool:
        """Whether the two grids are the same along this axis."""
        return torch.equal(self.lower, torch.arange(len(self.lower))) and not self.share.any()


def native_slabs(slabs: Iterable[tuple[int, Tensor]], trail: Trail, axis: int) -> Iterator[tuple[int, Tensor]]:
    """Resample slabs (first slice, (k, z, y, x)) along spatial `axis` to the native grid inside the crop.

    The given slabs must come in order, without gap or overlap; the returned ones do.
    """
    native = tuple(stop - start for start, stop in trail.crop)
    near = [
        find_neighbours(network_size, native_size, interpolate=n != trail.separate_axis)
        for n, (network_size, native_size) in enumerate(zip(trail.resampled_shape, native, strict=True))
    ]
    held, held_from, done = torch.empty(0), 0, 0
    for start, slab in slabs:
        held = torch.cat([held, slab], dim=axis + 1) if held.numel() else slab
        known = start + slab.shape[axis + 1]
        ready = int(torch.searchsorted(near[axis].upper, known))
        at_once = max(1, LARGEST_CHUNK // (len(slab) * math.prod(native) // native[axis]))
        for first in range(done, ready, at_once):
            chunk = slice(first, min(first + at_once, ready))
            yield first, _resample(held, near, axis, chunk, held_from)
        done = ready
        still_needed = min(int(near[axis].lower[done]), known) if done < native[axis] else known
        held = held.narrow(axis + 1, still_needed - held_from, known - still_needed).clone()
        held_from = still_needed


def find_neighbours(network_size: int, native_size: int, interpolate: bool = True) -> Neighbours:
    """For the native voxels of one axis. Beyond the centre of the outermost network voxel its value is repeated."""
    if not interpolate:
        chosen = torch.from_numpy(find_nearest(network_size, native_size))
        return Neighbours(chosen, chosen, torch.zeros(native_size))
    where = torch.from_numpy(map_voxels(network_size, native_size)).clamp(0, network_size - 1)
    lower = where.floor().long()
    return Neighbours(lower, where.ceil().long(), (where - lower).float())


def paste_slab(canvas: Array, piece: Array, trail: Trail, axis: int, first: int) -> None:
    """Write a native slab into `canvas` (..., Z, Y, X), the canonical array before crop and transpose.

    piece: (..., z, y, x). first: number of its first slice along `axis`, inside the crop.
    """
    crop = [slice(start, stop) for start, stop in trail.crop]
    begin = trail.crop[axis][0] + first
    crop[axis] = slice(begin, begin + piece.shape[piece.ndim - 3 + axis])
    lead = canvas.ndim - 3
    turned = canvas.transpose(*range(lead), *(lead + source for source in trail.transpose_forward))
    place: tuple[Any, ...] = (..., *crop)
    turned[place] = piece


def _resample(held: Tensor, near: list[Neighbours], axis: int, chunk: slice, held_from: int) -> Tensor:
    """The native slices `chunk` along `axis`. held: network slices, the first of them number `held_from`."""
    along = near[axis]
    rows = Neighbours(along.lower[chunk] - held_from, along.upper[chunk] - held_from, along.share[chunk])
    values = _interpolate(held, axis + 1, rows)
    for other in {0, 1, 2} - {axis}:
        if not near[other].is_identity:
            values = _interpolate(values, other + 1, near[other])
    return values


def _interpolate(values: Tensor, dim: int, near: Neighbours) -> Tensor:
    below = values.index_select(dim, near.lower.to(values.device))
    if not near.share.any():
        return below
    above = values.index_select(dim, near.upper.to(values.device))
    share = near.share.to(values.device).reshape([-1 if n == dim else 1 for n in range(values.ndim)])
    return below.lerp_(above, share)
