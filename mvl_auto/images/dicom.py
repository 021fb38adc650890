"""Folders of DICOM slices, through SimpleITK."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mvl_auto.arrays import Array
from mvl_auto.errors import MvlError
from mvl_auto.files import entries, reading
from mvl_auto.images.geometry import DIRECTION_TOLERANCE, FileGrid
from mvl_auto.images.itk import EXPORT_AGAIN, MOST_PACKED, channels_of, check_size, grid_of, one_line_errors

UNEVEN_SLICES = 0.05  # slice distances of a series may differ by this share of their median
POSITION, ORIENTATION = "0020|0032", "0020|0037"  # DICOM: Image Position, Image Orientation (Patient)
DICOM_MAGIC_AT = 128
DICOM_INDEX = "DICOMDIR"  # the table of contents of a medium: DICOM, and no slice


def read_dicom(folder: Path) -> tuple[Array, FileGrid]:
    """Read a folder that holds the slices of one DICOM series. Returns (1, i, j, k) and its grid.

    Raises MvlError when there is no series or more than one, or when slices are missing.
    """
    import SimpleITK as sitk

    slices = [entry for entry in entries(folder) if _is_slice(entry)]
    with one_line_errors(folder):
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = f"holds {len(series)} DICOM series" if series else "holds no DICOM series"
        raise MvlError(found, file=folder, remedy="Give each image a folder with the slices of one series.")
    reader = sitk.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(folder), series[0])
    if left_out := sorted({entry.name for entry in slices} - {Path(name).name for name in names}):
        what = "is damaged or cut short, or is no slice of the series"
        raise MvlError(what, file=folder / left_out[0], remedy=EXPORT_AGAIN)
    _check_slice(Path(names[0]))  # the voxels of all slices are set aside by the first one's header
    reader.SetFileNames(names)
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        with one_line_errors(folder):
            image = reader.Execute()
    except MvlError:
        for name in names:
            _check_slice(Path(name))
        raise
    tilt = _check_slices(reader, len(reader.GetFileNames()), folder)
    return channels_of(image, folder), replace(grid_of(image, None), tilt_degrees=tilt)


def is_dicom_folder(folder: Path) -> bool:
    """Whether any file directly in `folder` is a DICOM file (by its magic number, not by its name)."""
    return any(_is_dicom(entry) for entry in entries(folder) if entry.is_file())


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


def _check_slice(path: Path) -> None:
    """Raise MvlError naming the slice of a series if it cannot be read by itself."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with one_line_errors(path):
        reader.ReadImageInformation()
        check_size(reader, [path], path, MOST_PACKED)
        reader.Execute()


def _is_slice(path: Path) -> bool:
    """Whether it is, or by its name shall be, a slice."""
    return path.is_file() and path.name != DICOM_INDEX and (path.suffix.lower() == ".dcm" or _is_dicom(path))


def _is_dicom(path: Path) -> bool:
    with reading(path), open(path, "rb") as stream:
        stream.seek(DICOM_MAGIC_AT)
        return stream.read(4) == b"DICM"
