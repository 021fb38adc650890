"""A case small enough for a page: cropped around label and prediction, downsampled, 8 bits, gzip, base64.

A page has a budget of bytes for all its cases (`encode_within`), so that it opens from an e-mail: 40 cases stay below
30 MB whatever their images are.
"""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mvl_auto.arrays import Array
from mvl_auto.images import Volume

PAGE_BYTES = 23_000_000  # of base64 in one page; its pictures and charts take up to 6 MB more
CASE_BYTES = 560_000  # of one case: 40 of them fit
MARGIN = 0.25  # of the labels' extent, on every side
MARGIN_MM = 8.0  # at least
MOST_ALONG_AN_AXIS = 256  # voxels; more cannot be seen in a panel
SAMPLED = 1_000_000  # voxels that the percentiles are taken from, about
WINDOW = (0.5, 99.5)  # percentiles of the crop that become black and white
MOST_CLASSES = 255  # what a byte can hold beside the background
RGB = ("R", "G", "B")


@dataclass(frozen=True, eq=False)
class CaseVolume:
    """Arrays (Z, Y, X) as they are shown: the first slice is the most superior, the first row the most anterior, the
    first column the patient's right (radiological convention). Pictures without a frame are not turned.
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]  # classes, 0 background
    prediction: NDArray[np.uint8] | None
    spacing: tuple[float, float, float]  # mm, of these arrays
    start: tuple[int, int, int]  # first voxel of the crop in the canonical array
    crop: tuple[int, int, int]  # voxels of the crop, before any downsampling
    factors: tuple[int, int, int]  # voxels of the canonical array that became one
    turned: bool  # whether all axes were reversed for showing
    around: tuple[int, ...] = ()  # a voxel of the canonical array that the page points at

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.image.shape

    def place(self, canonical_zyx: Sequence[int]) -> tuple[int, int, int]:
        """Where a voxel (z, y, x) of the canonical array lies in these arrays; the nearest one for a voxel outside."""
        found = []
        for voxel, first, full, factor in zip(canonical_zyx, self.start, self.crop, self.factors, strict=True):
            index = min(max(int(voxel) - first, 0), full - 1)
            found.append((full - 1 - index if self.turned else index) // factor)
        return tuple(found)  # type: ignore[return-value]


def make_volume(
    volume: Volume, truth: Array, prediction: Array | None, channels: Sequence[str] = (), around: Sequence[int] = ()
) -> CaseVolume:
    """Crop and downsample a case.

    volume: the image, of which the first channel is shown, or the mean of red, green and blue. truth, prediction:
    classes (Z, Y, X); negative ones (ignore) become background. around: a voxel (z, y, x) that the crop must have.
    """
    labelled = truth > 0
    if prediction is not None:
        labelled = labelled | (prediction > 0)
    box = _box(labelled, volume.spacing, around)
    factors = tuple(math.ceil((end - first) / MOST_ALONG_AN_AXIS) for first, end in box)
    part = tuple(slice(first, end) for first, end in box)
    colour = tuple(channels) == RGB and len(volume.array) == len(RGB)
    image = _to_bytes(volume.array[:, *part].mean(axis=0) if colour else volume.array[0][part])
    turned = volume.geometry.file.has_frame and volume.array.shape[1] > 1
    made = CaseVolume(
        image=image,
        truth=_classes(truth[part]),
        prediction=None if prediction is None else _classes(prediction[part]),
        spacing=tuple(volume.spacing),  # type: ignore[arg-type]
        start=tuple(first for first, _ in box),  # type: ignore[arg-type]
        crop=image.shape,
        factors=(1, 1, 1),
        turned=False,
        around=tuple(around),
    )
    return downsample(_turn(made) if turned else made, factors)


def downsample(volume: CaseVolume, factors: Sequence[int]) -> CaseVolume:
    """By whole factors along Z, Y, X: the mean of the image, of the labels the middle voxel of each block."""
    if max(factors) == 1:
        return volume
    from skimage.measure import block_reduce

    steps = tuple(min(factor, length) for factor, length in zip(factors, volume.shape, strict=True))
    padding = [(0, -length % step) for length, step in zip(volume.shape, steps, strict=True)]
    image = block_reduce(np.pad(volume.image, padding, mode="edge"), steps, np.mean)
    middle = tuple(slice(step // 2, None, step) for step in steps)

    def pick(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.pad(labels, padding, mode="edge")[middle]

    return replace(
        volume,
        image=np.round(image).astype(np.uint8),
        truth=pick(volume.truth),
        prediction=None if volume.prediction is None else pick(volume.prediction),
        spacing=tuple(mm * step for mm, step in zip(volume.spacing, steps, strict=True)),  # type: ignore[arg-type]
        factors=tuple(a * b for a, b in zip(volume.factors, steps, strict=True)),  # type: ignore[arg-type]
    )


def encode_within(volume: CaseVolume, most_bytes: int = CASE_BYTES) -> tuple[CaseVolume, str]:
    """The volume as text of at most `most_bytes`, downsampled further where that is needed, finest axis first."""
    text = encode(volume)
    while len(text) > most_bytes and max(volume.shape) > 1:
        finest = min(mm for mm, length in zip(volume.spacing, volume.shape, strict=True) if length > 1)
        factors = [
            2 if length > 1 and mm < 1.5 * finest else 1
            for mm, length in zip(volume.spacing, volume.shape, strict=True)
        ]
        volume = downsample(volume, factors)
        text = encode(volume)
    return volume, text


def encode(volume: CaseVolume) -> str:
    """base64 of gzip of the bytes of image, truth and, where there is one, prediction, one after the other."""
    parts = [volume.image, volume.truth, *([] if volume.prediction is None else [volume.prediction])]
    raw = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    return base64.b64encode(gzip.compress(raw, compresslevel=6, mtime=0)).decode("ascii")


def _box(labelled: Array, spacing: Sequence[float], around: Sequence[int]) -> list[tuple[int, int]]:
    """First and end of each axis: the labels and a margin; the whole image where nothing is labelled."""
    box = []
    for axis, length in enumerate(labelled.shape):
        others = tuple(other for other in range(3) if other != axis)
        there = np.flatnonzero(labelled.any(axis=others))
        inside = [*there[[0, -1]], *around[axis : axis + 1]] if there.size else []
        if not inside:
            box.append((0, length))
            continue
        first, last = int(min(inside)), int(max(inside))
        margin = math.ceil(max(MARGIN * (last - first + 1), MARGIN_MM / spacing[axis]))
        box.append((max(first - margin, 0), min(last + 1 + margin, length)))
    return box


def _to_bytes(image: Array) -> NDArray[np.uint8]:
    low, high = np.percentile(image.ravel()[:: max(image.size // SAMPLED, 1)], WINDOW)
    if high <= low:
        low, high = float(image.min()), float(image.max())
    if high <= low:
        return np.zeros(image.shape, np.uint8)
    return np.round(np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _classes(labels: Array) -> NDArray[np.uint8]:
    return np.clip(labels, 0, MOST_CLASSES).astype(np.uint8)


def _turn(volume: CaseVolume) -> CaseVolume:
    def reverse(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.ascontiguousarray(array[::-1, ::-1, ::-1])

    prediction = None if volume.prediction is None else reverse(volume.prediction)
    return replace(volume, image=reverse(volume.image), truth=reverse(volume.truth), prediction=prediction, turned=True)
