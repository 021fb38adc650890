"""Sliding window: logits for an image of any size, from windows of the size that the network was trained on.

Windows overlap by half; their logits are averaged with Gaussian weights, which trust a window more at its centre
than at its border (nnU-Net, Isensee et al. 2021, supplementary note 3). Windows lie on a grid, so the weights of
one axis are the same whatever the other two: they are divided by their sum along each axis beforehand, and at every
voxel the weights of all windows multiply out to a total of 1.

That makes streaming simple. Windows are taken row by row along one axis, and every slice that no later row reaches
is finished and handed out. What is held is one row, `patch / size` of the volume, however long the image is; the
axis along which that is least is the default. A 2D network has windows one slice thick: its rows are slices.

    k outputs, c channels, z y x voxels; a "span" is the extent of a window along one axis
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvl_auto.errors import MvlError
from mvl_auto.network.device import autocast

log = logging.getLogger(__name__)

STEP = 0.5  # of the patch, from one window to the next (nnU-Net's)
SIGMA = 1 / 8  # of the patch: the Gaussian's standard deviation (nnU-Net's)
ACCUMULATE_ON_GPU = 1 / 4  # of its free memory, at most; larger sums are kept in the computer's own

Flip = tuple[int, ...]  # axes that are mirrored


@dataclass(frozen=True, eq=False)
class Span:
    """One window along one axis: voxels start to stop of the image, after `before` voxels of padding."""

    start: int
    stop: int
    before: int
    weights: Tensor  # (stop - start,); those of all windows along the axis sum to 1 at each voxel

    @property
    def inside(self) -> slice:
        """Where the image's voxels lie in the window."""
        return slice(self.before, self.before + self.stop - self.start)


Window = tuple[Span, Span, Span]


def sliding_window(
    network: nn.Module,
    image_czyx: Tensor,
    patch_size: Sequence[int],
    num_outputs: int,
    *,
    step: float = STEP,
    mirror_axes: Sequence[int] = (),
    batch_size: int = 1,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Logits (k, z, y, x), float32 on the CPU, of an image of any size.

    network: in eval mode, on `device`; (b, c, z, y, x) -> (b, k, z, y, x), or without z where patch_size has two
    numbers: then every slice is predicted by itself. step: from one window to the next, a share of patch_size.
    mirror_axes: of the network's spatial axes (0 is its first), the logits of all their combinations are averaged.
    batch_size: windows, mirrored ones counted, that the network gets at once. An axis shorter than the patch is
    padded with zeros on both sides, and the padding removed. Raises MvlError when the GPU's memory is too small.
    """
    axis = cheapest_axis(image_czyx.shape[1:], patch_size)
    slabs = stream_logits(
        network,
        image_czyx,
        patch_size,
        num_outputs,
        axis=axis,
        step=step,
        mirror_axes=mirror_axes,
        batch_size=batch_size,
        device=device,
    )
    logits = torch.empty((num_outputs, *image_czyx.shape[1:]))
    for start, slab in slabs:
        logits.narrow(axis + 1, start, slab.shape[axis + 1]).copy_(slab)
    return logits


def stream_logits(
    network: nn.Module,
    image_czyx: Tensor,
    patch_size: Sequence[int],
    num_outputs: int,
    *,
    axis: int,
    step: float = STEP,
    mirror_axes: Sequence[int] = (),
    batch_size: int = 1,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[int, Tensor]]:
    """What `sliding_window` returns, in slabs along spatial axis `axis`: (first slice, (k, z, y, x) float32).

    The slabs come in order, without gap or overlap, on the GPU where there is room for them.
    """
    device = torch.device(device)
    sizes = image_czyx.shape[1:]
    flat = len(patch_size) == 2
    patch = three(patch_size)
    grid = [spans(size, length, step) for size, length in zip(sizes, patch, strict=True)]
    flips = subsets([3 - len(patch_size) + each for each in mirror_axes])

    rows = [_row(grid, axis, span) for span in grid[axis]]
    rows_at_once = math.ceil(batch_size / (len(rows[0]) * len(flips)))
    place = _device_of_sums(device, num_outputs * math.prod(sizes) * patch[axis] // sizes[axis])  # of all rows alike
    held = torch.empty(0)
    done = 0
    for first in range(0, len(rows), rows_at_once):
        windows = [window for row in rows[first : first + rows_at_once] for window in row]
        total = torch.zeros(
            (num_outputs, *sizes[:axis], windows[-1][axis].stop - done, *sizes[axis + 1 :]),
            device=place,
        )
        if done:
            total.narrow(axis + 1, 0, held.shape[axis + 1]).copy_(held)
        for batch in _batches(itertools.product(windows, flips), batch_size):
            inputs = torch.stack([cut(image_czyx, window, patch).flip(_axes(flip)) for window, flip in batch])
            outputs = _forward(network, inputs.squeeze(2) if flat else inputs, device)
            outputs = outputs.unsqueeze(2) if flat else outputs
            for (window, flip), output in zip(batch, outputs.to(total.device), strict=True):
                _add(total, output.flip(_axes(flip)), window, axis, done, 1 / len(flips))
        following = rows[first + rows_at_once][0][axis].start if first + rows_at_once < len(rows) else sizes[axis]
        yield done, total.narrow(axis + 1, 0, following - done)
        held = total.narrow(axis + 1, following - done, windows[-1][axis].stop - following).clone()
        del total  # before the next row is allocated
        done = following


def cheapest_axis(sizes: Sequence[int], patch_size: Sequence[int]) -> int:
    """The spatial axis (of three) along which a row of windows is the smallest part of the image."""
    parts = [min(1.0, length / size) for size, length in zip(sizes, three(patch_size), strict=True)]
    return parts.index(min(parts))


def three(patch_size: Sequence[int]) -> tuple[int, ...]:
    """patch_size as Z, Y, X: a 2D patch is one slice."""
    return (1,) * (3 - len(patch_size)) + tuple(patch_size)


def spans(size: int, patch: int, step: float) -> list[Span]:
    """The windows along an axis of `size` voxels: one, padded to centre it, where the patch covers the axis."""
    if size <= patch:
        return [Span(0, size, (patch - size) // 2, torch.ones(size))]
    starts = window_starts(size, patch, step)
    bell = gaussian(patch)
    total = torch.zeros(size)
    for start in starts:
        total[start : start + patch] += bell
    return [Span(start, start + patch, 0, bell / total[start : start + patch]) for start in starts]


def window_starts(size: int, patch: int, step: float) -> list[int]:
    """First voxels of as few windows as cover the axis without being more than step * patch apart, evenly spread."""
    way = size - patch
    steps = math.ceil(way / max(1.0, patch * step))
    return [round(n * way / steps) for n in range(steps + 1)] if way > 0 else [0]


def gaussian(length: int) -> Tensor:
    """Weights (length,) of a window's voxels along one axis: exp(-d^2 / 2 sigma^2), d from the window's middle."""
    from_middle = torch.arange(length) - (length - 1) / 2
    return torch.exp(-0.5 * (from_middle / (length * SIGMA)) ** 2)


def subsets(axes: Sequence[int]) -> list[Flip]:
    """All combinations of axes to mirror, none of them first."""
    return [chosen for n in range(len(axes) + 1) for chosen in itertools.combinations(axes, n)]


def cut(image_czyx: Tensor, window: Window, patch: Sequence[int]) -> Tensor:
    """A window out of an image (c, *patch), with zeros around it where the image is smaller."""
    inside = image_czyx[(slice(None), *(slice(span.start, span.stop) for span in window))]
    around = [
        (span.before, length - span.inside.stop) for span, length in zip(reversed(window), reversed(patch), strict=True)
    ]
    return functional.pad(inside, list(itertools.chain(*around)))


def _row(grid: Sequence[Sequence[Span]], axis: int, span: Span) -> list[Window]:
    """The windows whose extent along `axis` is `span`."""
    z, y, x = ([span] if n == axis else spans for n, spans in enumerate(grid))
    return list(itertools.product(z, y, x))


def _add(total: Tensor, logits: Tensor, window: Window, axis: int, done: int, share: float) -> None:
    """Add a window's weighted logits where they belong in `total`, whose first slice along `axis` is `done`."""
    z, y, x = (span.weights.to(total.device) for span in window)
    weights = share * z[:, None, None] * y[:, None] * x
    shift = [done if n == axis else 0 for n in range(3)]
    place = (slice(span.start - ahead, span.stop - ahead) for span, ahead in zip(window, shift, strict=True))
    total[(slice(None), *place)].addcmul_(logits[(slice(None), *(span.inside for span in window))], weights)


def _forward(network: nn.Module, inputs: Tensor, device: torch.device) -> Tensor:
    """Logits of a batch, float32; in halves where the GPU's memory does not hold it whole."""
    try:
        with torch.inference_mode(), autocast(device):
            logits: Tensor = network(inputs.to(device))
            return logits.float()
    except torch.OutOfMemoryError as error:
        if len(inputs) == 1:
            raise MvlError(
                "the GPU has too little free memory for one window", remedy="Free some, or predict with --device cpu."
            ) from error
    torch.cuda.empty_cache()
    log.warning("a batch of %d windows does not fit on the GPU: trying half of it", len(inputs))
    return torch.cat([_forward(network, half, device) for half in inputs.tensor_split(2)])


def _device_of_sums(device: torch.device, values: int) -> torch.device:
    """Where a row's sums are kept: beside the network, unless they would crowd it."""
    if device.type != "cuda":
        return torch.device("cpu")
    free, _ = torch.cuda.mem_get_info(device)
    return device if 4 * values < ACCUMULATE_ON_GPU * free else torch.device("cpu")


def _batches(inputs: Iterable[tuple[Window, Flip]], size: int) -> Iterator[list[tuple[Window, Flip]]]:
    inputs = iter(inputs)
    while batch := list(itertools.islice(inputs, size)):
        yield batch


def _axes(flip: Flip) -> list[int]:
    """The axes of a (c, z, y, x) array that a flip mirrors."""
    return [axis + 1 for axis in flip]
