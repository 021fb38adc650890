"""Slices of a case with the contours of its labels, as numbers and PNG for an SVG of the page.

Contours are those of skimage.measure.find_contours (marching squares) at 0.5 between the voxels of a class and others.
A noisy segmentation has more outlines than a page can hold: there the smallest objects and holes are left out.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvl_auto.report.volumes import CaseVolume

PLANES = ("axial", "coronal", "sagittal")  # the slices across Z, Y and X
DECIMALS = 2
MOST_PATH_BYTES = 40_000  # of the outlines of a slice, for truth and prediction each: ten times those of a smooth one
LEAST_POINT_BYTES = 6  # of a path, about: "12,30 "


@dataclass(frozen=True)
class Contour:
    """The outline of one class. path: SVG path data in mm, from the slice's top left corner."""

    source: str  # "truth" or "prediction"
    klass: int
    path: str


@dataclass(frozen=True)
class Slice:
    """One slice. width, height: mm. number: from 1, of `count`. image: PNG, base64."""

    plane: str
    number: int
    count: int
    width: float
    height: float
    image: str
    contours: tuple[Contour, ...]
    left: str = ""  # which side of the patient is at the left edge and at the top edge
    top: str = ""
    smallest: int = 1  # voxels: objects and holes below are not outlined
    mark: tuple[float, float] | None = None  # mm from the left, from the top


def choose_place(volume: CaseVolume, errors: bool = True) -> tuple[int, int, int]:
    """The place the volume points at; else on each axis the slice with the most wrongly labelled voxels or, where there
    are none, the most labelled ones. errors: False for the most labelled ones anyway.
    """
    if volume.around:
        return volume.place(volume.around)
    labelled = volume.truth > 0 if volume.prediction is None else (volume.truth > 0) | (volume.prediction > 0)
    wrong = labelled if volume.prediction is None or not errors else volume.truth != volume.prediction
    counted = wrong if wrong.any() else labelled
    if not counted.any():
        return tuple(length // 2 for length in volume.shape)  # type: ignore[return-value]
    sums = (counted.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3))
    return tuple(int(of_axis.argmax()) for of_axis in sums)  # type: ignore[return-value]


def slices_at(volume: CaseVolume, place: Sequence[int], mark: bool = False) -> tuple[Slice, ...]:
    """The slices through a voxel (z, y, x) of the volume's arrays: three, or one of a flat image.

    mark: whether the voxel is marked in them.
    """
    axes = range(3) if volume.shape[0] > 1 else range(1)
    return tuple(_slice(volume, axis, place, mark) for axis in axes)


def find_outlines(mask: NDArray[np.bool_], spacing: Sequence[float]) -> str:
    """SVG path data of the outlines of a mask (rows, columns); "" for an empty one. spacing: mm of a row, a column."""
    from skimage.measure import find_contours

    if not mask.any():
        return ""
    parts = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        points = (contour - 0.5) * spacing  # the padding's voxel, and a voxel's middle: its edges lie at whole numbers
        closed = bool((points[0] == points[-1]).all())
        words = " ".join(f"{_short(x)},{_short(y)}" for y, x in (points[:-1] if closed else points))
        parts.append(f"M{words}" + "Z" * closed)
    return "".join(parts)


def as_png(image: NDArray[np.uint8]) -> str:
    """base64 of a PNG of a grey image (rows, columns)."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _slice(volume: CaseVolume, axis: int, place: Sequence[int], mark: bool) -> Slice:
    rows, columns = (other for other in range(3) if other != axis)
    spacing = (volume.spacing[rows], volume.spacing[columns])
    sources = {"truth": volume.truth, "prediction": volume.prediction}
    drawn = [
        _contours(source, np.take(labels, place[axis], axis), spacing)
        for source, labels in sources.items()
        if labels is not None
    ]
    left, top = (("R", "A"), ("R", "S"), ("A", "S"))[axis] if volume.turned else ("", "")
    return Slice(
        plane=PLANES[axis] if volume.shape[0] > 1 else "",
        number=int(place[axis]) + 1,
        count=volume.shape[axis],
        width=round(volume.shape[columns] * spacing[1], DECIMALS),
        height=round(volume.shape[rows] * spacing[0], DECIMALS),
        image=as_png(np.ascontiguousarray(np.take(volume.image, place[axis], axis))),
        contours=tuple(contour for contours, _ in drawn for contour in contours),
        left=left,
        top=top,
        smallest=max(smallest for _, smallest in drawn),
        mark=((place[columns] + 0.5) * spacing[1], (place[rows] + 0.5) * spacing[0]) if mark else None,
    )


def _contours(source: str, flat: NDArray[np.uint8], spacing: Sequence[float]) -> tuple[list[Contour], int]:
    """The outline of each class of a slice, and from how many voxels on objects and holes have one."""
    smallest = 1
    while True:
        masks = {int(klass): _without_specks(flat == klass, smallest) for klass in np.unique(flat[flat > 0])}
        if sum(map(_edges, masks.values())) * LEAST_POINT_BYTES <= MOST_PATH_BYTES or smallest > flat.size:
            contours = [Contour(source, klass, find_outlines(mask, spacing)) for klass, mask in masks.items()]
            if sum(len(contour.path) for contour in contours) <= MOST_PATH_BYTES or smallest > flat.size:
                return contours, smallest
        smallest *= 2


def _edges(mask: NDArray[np.bool_]) -> int:
    """Between voxels inside and outside: marching squares have a point on each."""
    return sum(int(np.count_nonzero(np.diff(mask, axis=axis))) for axis in (0, 1))


def _without_specks(mask: NDArray[np.bool_], smallest: int) -> NDArray[np.bool_]:
    """A mask without its objects, then without its holes, of fewer than `smallest` voxels that share a side."""
    from scipy import ndimage

    if smallest > 1:
        for kind in (True, False):
            numbers, _ = ndimage.label(mask == kind)
            small = np.bincount(numbers.ravel()) < smallest
            small[0] = False
            mask = mask ^ small[numbers]
    return mask


def _short(number: float) -> str:
    return f"{number:.{DECIMALS}f}".rstrip("0").rstrip(".")
