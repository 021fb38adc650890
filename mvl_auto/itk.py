"""NRRD, MetaImage and DICOM series, through SimpleITK.

ITK gives directions and origins in LPS+ (left, posterior, superior); they become RAS+ here and LPS+
again when writing. An image that is written on the grid of one that was read gets that one's very
numbers, not recomputed ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mvl_auto.errors import MvlError
from mvl_auto.geometry import DIRECTION_TOLERANCE, Array, FileGrid, column_lengths

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
UNEVEN_SLICES = 0.05  # slice distances of a series may differ by this share of their median
POSITION, ORIENTATION = "0020|0032", "0020|0037"  # DICOM: Image Position, Image Orientation (Patient)
DICOM_MAGIC_AT = 128
EXPORT_AGAIN = "Copy or export it again."


def read_itk(path: Path) -> tuple[Array, FileGrid]:
    """Read a NRRD or MetaImage file. Returns (C, i, j, k) as stored, and its grid.

    Raises MvlError when the file is missing or damaged, or has more than one axis of channels.
    """
    import SimpleITK as sitk

    with _one_line(path):
        image = sitk.ReadImage(str(path))
    channels = _channels(image, path)
    return channels, _grid(image, channels.dtype)


def read_dicom(folder: Path) -> tuple[Array, FileGrid]:
    """Read a folder that holds the slices of one DICOM series. Returns (1, i, j, k) and its grid.

    Raises MvlError when there is no series or more than one, or when slices are missing.
    """
    import SimpleITK as sitk

    with _one_line(folder):
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = f"holds {len(series)} DICOM series" if series else "holds no DICOM series"
        raise MvlError(found, file=folder, remedy="Give each image a folder with the slices of one series.")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series[0]))
    reader.MetaDataDictionaryArrayUpdateOn()
    with _one_line(folder):
        image = reader.Execute()
    tilt = _check_slices(reader, len(reader.GetFileNames()), folder)
    return _channels(image, folder), replace(_grid(image, None), tilt_degrees=tilt)


def is_dicom_folder(folder: Path) -> bool:
    """Whether any file directly in `folder` is a DICOM file (by its magic number, not by its name)."""
    return any(_is_dicom(entry) for entry in sorted(folder.iterdir()) if entry.is_file())


def write_itk(path: Path, array: Array, grid: FileGrid) -> None:
    """Write (i, j, k), or (i, j, k, channels), as NRRD or MetaImage in the grid of the file it belongs to.

    A `.mhd` gets its `.raw` in the same folder.
    """
    import SimpleITK as sitk

    is_vector = array.ndim == 4
    array = array.squeeze(2) if grid.dimensions == 2 else array
    spatial = tuple(range(grid.dimensions))[::-1]
    image = sitk.GetImageFromArray(array.transpose(*spatial, *range(grid.dimensions, array.ndim)), isVector=is_vector)
    spacing, origin, direction = grid.itk_frame or _itk_frame(grid)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    with _one_line(path, "written"):
        sitk.WriteImage(image, str(path), useCompression=path.suffix != ".mhd")


@contextmanager
def _one_line(path: Path, doing: str = "read") -> Iterator[None]:
    """Turn SimpleITK's many-line RuntimeError into one that names the file; keep its warnings off the screen."""
    import SimpleITK as sitk

    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except RuntimeError as error:
        raise MvlError(f"cannot be {doing} ({_reason(error)})", file=path, remedy=EXPORT_AGAIN) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _reason(error: RuntimeError) -> str:
    """The telling line of SimpleITK's text: the last one that is no errno, without its source and object."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("Reason:")]
    return re.sub(r"^(sitk::ERROR|ITK ERROR):\s*(\w+\(0x[0-9a-f]+\):)?", "", lines[-1]).strip()


def _channels(image: Any, path: Path) -> Array:
    """(C, i, j, k) of a scalar, vector, or 4D image."""
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif image.GetDimension() < 4:
        array = array[None]
    if image.GetDimension() == 2:
        array = array[:, None]
    if array.ndim != 4 or array.dtype.kind not in "iuf":
        raise MvlError(f"has voxels of {image.GetPixelIDTypeAsString()}", file=path, remedy="Split it into images.")
    return array.transpose(0, 3, 2, 1)


def _grid(image: Any, dtype: np.dtype[Any] | None) -> FileGrid:
    n = min(image.GetDimension(), 3)
    spacing, origin = image.GetSpacing()[:n], image.GetOrigin()[:n]
    full = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)
    affine = np.eye(4)
    affine[:n, :n] = full[:n, :n] * spacing
    affine[:n, 3] = origin
    size = (*image.GetSize()[:n], 1)[:3]
    return FileGrid(
        shape=(int(size[0]), int(size[1]), int(size[2])),
        # a plane of its own is no patient: 2D files keep their rows and columns
        affine=LPS_TO_RAS @ affine if n == 3 else affine,
        dimensions=n,
        dtype=dtype,
        itk_frame=(tuple(spacing), tuple(origin), tuple(full[:n, :n].ravel().tolist())),
    )


def _itk_frame(grid: FileGrid) -> tuple[tuple[float, ...], ...]:
    """Spacing, origin, direction (LPS+, row by row) of a grid that did not come from ITK."""
    n = grid.dimensions
    affine = LPS_TO_RAS @ grid.affine if n == 3 else grid.affine
    spacing = column_lengths(affine)
    direction = (affine[:3, :3] / spacing)[:n, :n]
    return tuple(spacing[:n].tolist()), tuple(affine[:n, 3].tolist()), tuple(direction.ravel().tolist())


def _check_slices(reader: Any, count: int, folder: Path) -> float:
    """Degrees between the stack of slices and their normal, 0 for almost none.

    Raises MvlError when the slices are not evenly spaced along their normal.
    """
    if count < 3 or not reader.HasMetaDataKey(0, POSITION) or not reader.HasMetaDataKey(0, ORIENTATION):
        return 0.0
    cosines = np.array([float(value) for value in reader.GetMetaData(0, ORIENTATION).split("\\")])
    normal = np.cross(cosines[:3], cosines[3:])
    corners = np.array([[float(value) for value in reader.GetMetaData(n, POSITION).split("\\")] for n in range(count)])
    steps = np.abs(np.diff(corners @ normal))
    usual = float(np.median(steps))
    if (np.abs(steps - usual) > UNEVEN_SLICES * usual).any():
        raise MvlError(
            f"slices are missing or unevenly spaced: {steps.min():.4g} to {steps.max():.4g} mm apart",
            file=folder,
            remedy="Export the whole series again, or convert it to an evenly spaced NIfTI.",
        )
    stack = corners[-1] - corners[0]
    tilt = float(np.arctan2(np.linalg.norm(np.cross(stack, normal)), abs(stack @ normal)))
    return float(np.degrees(tilt)) if tilt > DIRECTION_TOLERANCE else 0.0


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as stream:
        stream.seek(DICOM_MAGIC_AT)
        return stream.read(4) == b"DICM"
