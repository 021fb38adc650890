"""Sliding window: logits for an image of any shape, from windows that overlap.

Neighbouring windows overlap by half. Their logits are averaged with Gaussian weights, which are larger at the middle
of a window than at its border (nnU-Net, Isensee et al. 2021, supplementary note 3). Windows lie on a grid, so the
weights of one axis do not depend on the other two: they are divided by their sum along each axis beforehand, and at
every voxel the weights of all windows sum to 1.

The logits are streamed: windows are computed row by row along one axis, and slices that no later row reaches are
returned at once. So only one row is in memory, `window / image` of the volume along that axis, however long the image
is. `cheapest_axis` gives the axis where this is least. A 2D network has windows one slice thick: its rows are slices.

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
from mvl_auto.inference.windows import WindowSettings
from mvl_auto.network.device import autocast

log = logging.getLogger(__name__)

SIGMA = 1 / 8  # of a window: the Gaussian's standard deviation (nnU-Net's)
ACCUMULATE_ON_GPU = 1 / 4  # of its free memory, at most; larger sums are kept in main memory

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


def stream_logits(
    network: nn.Module, image_czyx: Tensor, num_outputs: int, windows: WindowSettings, axis: int
) -> Iterator[tuple[int, Tensor]]:
    """Logits of an image, in slabs along spatial axis `axis`: (first slice, (k, z, y, x) float32).

    network: in eval mode, on windows.device; (b, c, z, y, x) -> (b, k, z, y, x), or without z where a window has two
    axes: then every slice is predicted by itself. An axis shorter than the window is padded with zeros on both sides,
    and the padding is removed afterwards. The slabs come in order, without gap or overlap, on the GPU where there is
    room for them. Raises MvlError when the GPU's memory is too small.
    """
    device = torch.device(windows.device)
    sizes = image_czyx.shape[1:]
    is_2d = len(windows.shape) == 2
    shape = as_three_axes(windows.shape)
    grid = [divide_axis(size, length, windows.step_size) for size, length in zip(sizes, shape, strict=True)]
    flips = list_subsets([3 - len(windows.shape) + each for each in windows.mirror_axes])

    rows = [_make_row(grid, axis, span) for span in grid[axis]]
    rows_at_once = math.ceil(windows.batch_size / (len(rows[0]) * len(flips)))
    place = _choose_device_of_sums(device, num_outputs * math.prod(sizes) * shape[axis] // sizes[axis])
    held = torch.empty(0)
    done = 0
    for first in range(0, len(rows), rows_at_once):
        row = [window for each in rows[first : first + rows_at_once] for window in each]
        total = torch.zeros(
            (num_outputs, *sizes[:axis], row[-1][axis].stop - done, *sizes[axis + 1 :]),
            device=place,
        )
        if done:
            total.narrow(axis + 1, 0, held.shape[axis + 1]).copy_(held)
        for batch in _make_batches(itertools.product(row, flips), windows.batch_size):
            inputs = torch.stack([cut_window(image_czyx, window, shape).flip(_axes(flip)) for window, flip in batch])
            outputs = _compute_logits(network, inputs.squeeze(2) if is_2d else inputs, device)
            outputs = outputs.unsqueeze(2) if is_2d else outputs
            for (window, flip), output in zip(batch, outputs.to(total.device), strict=True):
                _add_window(total, output.flip(_axes(flip)), window, axis, done, 1 / len(flips))
        following = rows[first + rows_at_once][0][axis].start if first + rows_at_once < len(rows) else sizes[axis]
        yield done, total.narrow(axis + 1, 0, following - done)
        held = total.narrow(axis + 1, following - done, row[-1][axis].stop - following).clone()
        del total  # before the next row is allocated
        done = following


def cheapest_axis(image_shape: Sequence[int], window_shape: Sequence[int]) -> int:
    """The spatial axis (of three) along which a row of windows is the smallest part of the image."""
    pairs = zip(image_shape, as_three_axes(window_shape), strict=True)
    parts = [min(1.0, length / size) for size, length in pairs]
    return parts.index(min(parts))


def as_three_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape as Z, Y, X: a 2D window is one slice."""
    return (1,) * (3 - len(shape)) + tuple(shape)


def divide_axis(size: int, length: int, step_size: float) -> list[Span]:
    """Windows of `length` voxels along an axis of `size`: a single one where it covers the axis, padded evenly."""
    if size <= length:
        return [Span(0, size, (length - size) // 2, torch.ones(size))]
    starts = place_windows(size, length, step_size)
    weights = gaussian_weights(length)
    total = torch.zeros(size)
    for start in starts:
        total[start : start + length] += weights
    return [Span(start, start + length, 0, weights / total[start : start + length]) for start in starts]


def place_windows(size: int, length: int, step_size: float) -> list[int]:
    """First voxels of as few windows as cover the axis, at most step_size * length apart, evenly spread."""
    distance = size - length
    steps = math.ceil(distance / max(1.0, length * step_size))
    return [round(n * distance / steps) for n in range(steps + 1)] if distance > 0 else [0]


def gaussian_weights(length: int) -> Tensor:
    """Weights (length,) of a window's voxels along one axis: exp(-d^2 / 2 sigma^2), d from the window's middle."""
    from_middle = torch.arange(length) - (length - 1) / 2
    return torch.exp(-0.5 * (from_middle / (length * SIGMA)) ** 2)


def list_subsets(axes: Sequence[int]) -> list[Flip]:
    """All combinations of axes to mirror, the empty one first."""
    return [chosen for n in range(len(axes) + 1) for chosen in itertools.combinations(axes, n)]


def cut_window(image_czyx: Tensor, window: Window, shape: Sequence[int]) -> Tensor:
    """A window out of an image (c, *shape), with zeros around it where the image is smaller."""
    inside = image_czyx[(slice(None), *(slice(span.start, span.stop) for span in window))]
    around = [
        (span.before, length - span.inside.stop) for span, length in zip(reversed(window), reversed(shape), strict=True)
    ]
    return functional.pad(inside, list(itertools.chain(*around)))


def _make_row(grid: Sequence[Sequence[Span]], axis: int, span: Span) -> list[Window]:
    """The windows whose extent along `axis` is `span`."""
    z, y, x = ([span] if n == axis else spans for n, spans in enumerate(grid))
    return list(itertools.product(z, y, x))


def _add_window(total: Tensor, logits: Tensor, window: Window, axis: int, done: int, share: float) -> None:
    """Add weighted logits of a window, times `share`, to `total`, which starts with slice `done` along `axis`."""
    z, y, x = (span.weights.to(total.device) for span in window)
    weights = share * z[:, None, None] * y[:, None] * x
    shift = [done if n == axis else 0 for n in range(3)]
    place = (slice(span.start - ahead, span.stop - ahead) for span, ahead in zip(window, shift, strict=True))
    total[(slice(None), *place)].addcmul_(logits[(slice(None), *(span.inside for span in window))], weights)


def _compute_logits(network: nn.Module, inputs: Tensor, device: torch.device) -> Tensor:
    """Logits of a batch, float32; in halves where the GPU's memory is too small for the whole batch."""
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
    log.warning("a batch of %d windows does not fit into the GPU's memory: computing it in halves", len(inputs))
    return torch.cat([_compute_logits(network, half, device) for half in inputs.tensor_split(2)])


def _choose_device_of_sums(device: torch.device, values: int) -> torch.device:
    """Where the sums of a row are kept: on the network's GPU, unless they take too much of its memory."""
    if device.type != "cuda":
        return torch.device("cpu")
    free, _ = torch.cuda.mem_get_info(device)
    return device if 4 * values < ACCUMULATE_ON_GPU * free else torch.device("cpu")


def _make_batches(inputs: Iterable[tuple[Window, Flip]], size: int) -> Iterator[list[tuple[Window, Flip]]]:
    inputs = iter(inputs)
    while batch := list(itertools.islice(inputs, size)):
        yield batch


def _axes(flip: Flip) -> list[int]:
    """The axes of a (c, z, y, x) array that a flip mirrors."""
    return [axis + 1 for axis in flip]
