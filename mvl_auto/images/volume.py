"""Images in, segmentations out: every format becomes one array in one orientation, and goes back.

    read_image(files)  -> Volume     float32 (C, Z, Y, X), canonical orientation, and its geometry
    read_label(file)   -> integers (Z, Y, X) as the file has them, and their geometry
    write_label(...)                 the other way, on the very grid of the image it belongs to

NIfTI, NRRD, MetaImage, PNG, BMP, TIFF, and folders of DICOM slices. Canonical orientation is defined in
geometry.py; the formats are in nifti.py, itk.py, raster.py and dicom/.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvl_auto.arrays import Array
from mvl_auto.errors import MvlError
from mvl_auto.files import Hashes, is_there, read_bytes, writing
from mvl_auto.images.geometry import (
    FileGrid,
    Geometry,
    canonical_geometry,
    check_same_geometry,
    from_canonical,
    to_canonical,
)

NIFTI_ENDINGS = (".nii.gz", ".nii")
ITK_ENDINGS = (".seg.nrrd", ".nrrd", ".mha", ".mhd")
RASTER_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
FILE_ENDINGS = NIFTI_ENDINGS + ITK_ENDINGS + RASTER_ENDINGS
BEYOND_INTEGERS = 2.0**63  # labels stored as floating point that no integer of 64 bits holds
LFS_POINTER, LONGEST_POINTER = b"version https://git-lfs", 1024  # bytes
COARSEST_QUANTUM = 0.5  # of a slope: beyond it, the nearest whole number may be the wrong one
HALF_A_STEP = 0.501
ROUNDING = 1e-3  # labels stored as floating point may be this far from a whole number


@dataclass(frozen=True, eq=False)
class Volume:
    """An image in canonical orientation."""

    array: NDArray[np.float32]  # (C, Z, Y, X)
    geometry: Geometry

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along Z, Y, X."""
        return self.geometry.spacing

    @property
    def num_channels(self) -> int:
        return len(self.array)


def file_ending(path: str | os.PathLike[str]) -> str:
    """`.nii.gz` for case.nii.gz; empty for anything that is no image file, such as a folder of DICOM slices."""
    name = os.path.basename(path).lower()
    return next((ending for ending in FILE_ENDINGS if name.endswith(ending)), "")


def stem(path: str | os.PathLike[str]) -> str:
    """The file's name without its image ending, `composed`; a folder's name."""
    name = os.path.basename(path)
    return composed(name[: len(name) - len(file_ending(path))])


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC): macOS writes an umlaut as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def read_image(paths: Sequence[Path], hashes: Hashes | None = None, dicom_volume: str = "") -> Volume:
    """Read an image: one file per channel, one file with all channels, or a folder of DICOM slices.

    hashes: receives the sha256 of the files that are read here; files read by SimpleITK or pydicom are not among them.
    dicom_volume: which of the volumes of a DICOM folder with several, such as `echo2`.
    Raises MvlError naming the file when one cannot be read, or when the channels' grids differ.
    """
    read = [_read(Path(path), hashes=hashes, dicom_volume=dicom_volume) for path in paths]
    arrays, geometries = zip(*read, strict=True)
    for path, geometry in zip(paths[1:], geometries[1:], strict=True):
        check_same_geometry(geometries[0], geometry, paths[0], path, what="other channel")
    with np.errstate(over="ignore"):  # beyond float32: becomes infinity, which check_finite reports
        single = [np.array(array, dtype=np.float32, order="C") for array in arrays]
    return Volume(single[0] if len(single) == 1 else np.concatenate(single), geometries[0])


def read_label(path: Path, hashes: Hashes | None = None) -> tuple[Array, Geometry]:
    """Read a label map. Returns integers (Z, Y, X), the file's own values, and the geometry.

    hashes: as in `read_image`.
    Raises MvlError when it cannot be read, has several differing channels, or values that are not whole numbers.
    """
    array, geometry = _read(Path(path), as_label=True, hashes=hashes)
    if len(array) > 1 and not (array == array[:1]).all():
        raise MvlError(f"has {len(array)} channels; a label map has one", file=path, remedy="Save one label map.")
    values = whole_numbers(array[0], geometry.file, path)
    own = len(array) == 1 and values.flags.c_contiguous and values.flags.writeable  # nobody else holds it: no copy
    return values if own else np.array(values, order="C"), geometry


def write_label(
    path: Path,
    values: Array,
    geometry: Geometry,
    label_values: Sequence[int] = (),
    label_names: Mapping[int, str] | None = None,
) -> None:
    """Write a label map on the grid of the file that `geometry` came from.

    values: integers (Z, Y, X), canonical orientation. label_values: all that a label map of this
    dataset may hold, so that every case gets the same type: the image's own where it is an integer
    type that can hold them, else the smallest unsigned one that can. label_names: of the values, for the header
    extension of a NIfTI file (label_table.py); other formats have no place for them.
    Raises MvlError when the file cannot be written or the format cannot hold the values.
    """
    if values.shape != geometry.shape:
        raise ValueError(f"values have shape {values.shape}, their geometry {geometry.shape}")
    dtype = _label_type(values, label_values, geometry.file.dtype)
    grid = geometry.file if label_names is None else replace(geometry.file, label_names=label_names)
    write_file(Path(path), from_canonical(values, geometry).astype(dtype), grid)


def write_probabilities(path: Path, array: NDArray[np.float32], geometry: Geometry) -> None:
    """Write (K, Z, Y, X) as one file of K channels on the grid that `geometry` came from (not PNG, BMP, TIFF).

    Raises MvlError when the file cannot be written.
    """
    if file_ending(path) in RASTER_ENDINGS:
        raise MvlError("cannot hold probabilities", file=path, remedy="Use .nii.gz instead.")
    channels_last = np.moveaxis(from_canonical(array, geometry), 0, -1)
    write_file(Path(path), np.ascontiguousarray(channels_last, dtype=np.float32), geometry.file)


def read_file(
    path: Path, as_label: bool = False, hashes: Hashes | None = None, dicom_volume: str = ""
) -> tuple[Array, FileGrid]:
    """The channels (C, i, j, k) of one file as it has them, in the file's type and order of axes, and its grid.

    as_label: read the indices of a palette instead of its colours. hashes, dicom_volume: as in `read_image`.
    Raises MvlError when the file cannot be read.
    """
    ending = file_ending(path)
    there = is_there(path)
    if there and not path.is_dir():
        _check_regular(path)
    if path.is_dir():
        from mvl_auto.images.dicom import read_dicom

        array, grid = read_dicom(path, dicom_volume)
    elif not there:
        raise MvlError("is missing", file=path)
    elif ending in NIFTI_ENDINGS:
        from mvl_auto.images.nifti import read_nifti

        array, grid = read_nifti(path, hashes)
    elif ending in ITK_ENDINGS:
        from mvl_auto.images.itk import read_itk

        array, grid = read_itk(path)
    elif ending in RASTER_ENDINGS:
        from mvl_auto.images.raster import read_raster

        array, grid = read_raster(path, as_label, hashes)
    else:
        raise MvlError("is not a known image format", file=path, remedy=f"Convert it to one of {known_formats()}.")
    return array, grid


def write_file(path: Path, array: Array, grid: FileGrid) -> None:
    """Write (i, j, k) or (i, j, k, K) beside `path` with all that belongs to it, then move it there.

    The type is the array's. Raises MvlError when the file cannot be written or the format cannot hold the values.
    """
    write = _writer(path)
    with writing(path) as beside:
        write(beside, array, grid)
        for companion in beside.parent.iterdir():
            if companion != beside:
                os.replace(companion, path.with_name(companion.name))


def check_finite(volume: Volume, paths: Sequence[Path]) -> None:
    """Raise MvlError, saying how many and in which file, when an image holds NaN or infinity."""
    finite = np.isfinite(volume.array)
    if finite.all():
        return
    channel = int(np.argmin(finite.all(axis=(1, 2, 3))))
    bad = int((~finite[channel]).sum())
    nan = int(np.isnan(volume.array[channel]).sum())
    kinds = " and ".join(f"{count} {kind}" for count, kind in ((nan, "NaN"), (bad - nan, "infinite")) if count)
    raise MvlError(
        f"has {kinds} among its {finite[channel].size} voxels",
        file=paths[channel] if len(paths) == volume.num_channels else paths[0],
        remedy="Replace them by a number, for example that of the background, or remove the case.",
    )


def known_formats() -> str:
    """The list of what can be read, for messages."""
    return ", ".join(FILE_ENDINGS) + " or a folder of DICOM slices"


def smallest_type(lowest: int, highest: int) -> np.dtype[np.generic]:
    """The smallest integer type that holds both: unsigned unless `lowest` is negative."""
    return np.min_scalar_type(highest if lowest >= 0 else min(lowest, -highest - 1))


def _read(
    path: Path, as_label: bool = False, hashes: Hashes | None = None, dicom_volume: str = ""
) -> tuple[Array, Geometry]:
    """The channels (C, Z, Y, X) of one file in canonical orientation, a view, in the file's type."""
    array, grid = read_file(path, as_label, hashes, dicom_volume)
    geometry = canonical_geometry(grid, path)
    if not len(array):
        raise MvlError("holds no voxels (0 channels)", file=path, remedy="Remove it or export it again.")
    return to_canonical(array, geometry), geometry


def _check_regular(path: Path) -> None:
    """Raise MvlError for a pipe or a device, which could block for ever, and for a pointer of Git LFS."""
    if not path.is_file():
        raise MvlError("is not a regular file but a pipe or a device", file=path, remedy="Give a file.")
    if path.stat().st_size < LONGEST_POINTER and read_bytes(path).startswith(LFS_POINTER):
        what = "is a pointer of Git LFS, not the file itself"
        raise MvlError(what, file=path, remedy="Fetch the files with: git lfs pull.")


def _writer(path: Path) -> Callable[[Path, Array, FileGrid], None]:
    ending = file_ending(path)
    if ending in NIFTI_ENDINGS:
        from mvl_auto.images.nifti import write_nifti

        return write_nifti
    if ending in ITK_ENDINGS:
        from mvl_auto.images.itk import write_itk

        return write_itk
    if ending in RASTER_ENDINGS:
        from mvl_auto.images.raster import write_raster

        return write_raster
    raise MvlError("is not a format that can be written", file=path, remedy=f"Use one of {', '.join(FILE_ENDINGS)}.")


def whole_numbers(array: Array, grid: FileGrid, path: Path) -> Array:
    """The values of a label map as integers. array: as `read_file` gives it, with its grid.

    Floating-point values may be off by `label_tolerance`. Raises MvlError for values that are no label.
    """
    if array.dtype.kind in "iu":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    array = array.astype(np.promote_types(array.dtype, np.float32), copy=False)  # half precision overflows at 65504
    if not np.isfinite(array).all():
        raise MvlError("has NaN or infinity for a label", file=path, remedy="Replace it by a label value.")
    if (np.abs(array) >= BEYOND_INTEGERS).any():
        most = float(np.abs(array).max())
        raise MvlError(f"has values up to {most:.6g}, which are no labels", file=path, remedy="Save a label map.")
    if grid.quantum > COARSEST_QUANTUM and grid.quantum % 1:
        what = f"its header scales values by {grid.quantum:.6g}, so that neighbouring label values cannot be told apart"
        raise MvlError(what, file=path, remedy="Save it again as integers, without scaling.")
    whole = np.rint(array)
    off = np.abs(array - whole) > label_tolerance(grid)
    if off.any():
        example = float(array[off].flat[0])
        raise MvlError(
            f"has {int(off.sum())} label values that are no whole numbers (such as {example:.6g}): a soft label",
            file=path,
            remedy="Threshold it first.",
        )
    return whole.astype(np.int64 if np.abs(whole).max(initial=0) > np.iinfo(np.int32).max else np.int32)


def stored_values(values: Array, grid: FileGrid) -> Array | None:
    """The numbers in a file behind label values that its header scaled or shifted; None where it did neither.

    values: whole numbers of any shape. A header copied from a CT shifts a label map by -1024.
    """
    if grid.nifti_header is None or not grid.quantum:
        return None
    slope, intercept = grid.nifti_header.get_slope_inter()
    stored: Array = np.rint((values - intercept) / slope).astype(np.int64)
    return stored


def label_tolerance(grid: FileGrid) -> float:
    """How far a label value of a file may be from a whole number.

    Floating-point values saved as integers with a slope (nibabel does so) are rounded to the nearest multiple of the
    slope: they are at most half of it away from what they were, and a little more by 32-bit arithmetic.
    """
    return max(ROUNDING, min(grid.quantum, COARSEST_QUANTUM) * HALF_A_STEP)


def _label_type(values: Array, label_values: Sequence[int], own: np.dtype[np.generic] | None) -> np.dtype[np.generic]:
    lowest = min([int(values.min(initial=0)), *label_values])
    highest = max([int(values.max(initial=0)), *label_values])
    if own is not None and own.kind in "iu":
        limits = np.iinfo(own)  # type: ignore[type-var]
        if limits.min <= lowest and highest <= limits.max:
            return own
    return smallest_type(lowest, highest)
