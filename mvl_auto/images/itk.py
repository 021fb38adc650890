"""NRRD and MetaImage, through SimpleITK.

ITK gives directions and origins in LPS+ (left, posterior, superior); they become RAS+ here and LPS+
again when writing. An image that is written on the grid of one that was read gets that one's very
numbers, not recomputed ones.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mvl_auto.arrays import Array
from mvl_auto.errors import MvlError
from mvl_auto.files import reading
from mvl_auto.images.geometry import FileGrid, column_lengths

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
METAIMAGE_ENDINGS = (".mha", ".mhd")
METAIMAGE_NEEDS = frozenset({"ndims", "dimsize", "elementtype", "elementdatafile"})
LARGEST_HEADER = 1 << 20  # bytes
MOST_FILES = 1 << 16  # slices: more than any image has, but not what a damaged header may make of it
MOST_PACKED = 1032  # bytes that deflate can make of one
HARMLESS = 1 << 26  # bytes of voxels that need no proof
EXPORT_AGAIN = "Copy or export it again."


def read_itk(path: Path) -> tuple[Array, FileGrid]:
    """Read a NRRD or MetaImage file. Returns (C, i, j, k) as stored, and its grid.

    Raises MvlError when the file is missing or damaged, or has more than one axis of channels.
    """
    import SimpleITK as sitk

    fields, data = _header(path)
    if path.suffix.lower() in METAIMAGE_ENDINGS and not fields.keys() >= METAIMAGE_NEEDS:
        raise MvlError("is not a MetaImage", file=path, remedy=EXPORT_AGAIN)  # MetaIO would print lines of its own
    for file in data:
        with reading(file, remedy=f"Put it where {path} says that its voxels are."), open(file, "rb"):
            pass
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with _one_line_errors(path):
        reader.ReadImageInformation()
        _check_size(reader, data or [path], path, 1 if _is_raw(fields) else MOST_PACKED)
        _check_end(reader, fields, path)
        image = reader.Execute()
        array = sitk.GetArrayFromImage(image)
    channels = _channels_of(image, array, path)
    return channels, _grid_of(image, channels.dtype)


def data_files(path: Path) -> list[Path]:
    """The files of their own that the header of a MetaImage or NRRD says its voxels are in; mostly none.

    Raises MvlError when the header cannot be read.
    """
    return _header(path)[1]


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
    with _one_line_errors(path, "written"):
        sitk.WriteImage(image, str(path), useCompression=path.suffix != ".mhd")


@contextmanager
def _one_line_errors(path: Path, doing: str = "read") -> Iterator[None]:
    """Turn SimpleITK's many-line RuntimeError into one that names the file; keep its warnings off the screen."""
    import SimpleITK as sitk

    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except (
        RuntimeError,
        MemoryError,
        OverflowError,
        ValueError,
        LookupError,
    ) as error:  # SimpleITK's, of damaged bytes
        raise MvlError(f"cannot be {doing} ({_reason(error)})", file=path, remedy=EXPORT_AGAIN) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _reason(error: Exception) -> str:
    """The telling line of SimpleITK's text: the last one that is no errno, without its source and object."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("Reason:")]
    if not lines:
        return type(error).__name__
    return re.sub(r"^(sitk::ERROR|ITK ERROR):\s*(\w+\(0x[0-9a-f]+\):)?", "", lines[-1]).strip()


def _channels_of(image: Any, array: Array, path: Path) -> Array:
    """(C, i, j, k) of a scalar, vector, or 4D image. array: its voxels, channels last."""
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif image.GetDimension() < 4:
        array = array[None]
    if image.GetDimension() == 2:
        array = array[:, None]
    if array.ndim != 4 or array.dtype.kind not in "iuf":
        raise MvlError(f"has voxels of {image.GetPixelIDTypeAsString()}", file=path, remedy="Split it into images.")
    return array.transpose(0, 3, 2, 1)


def _grid_of(image: Any, dtype: np.dtype[Any] | None) -> FileGrid:
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


def _header(path: Path) -> tuple[dict[str, str], list[Path]]:
    """Of a MetaImage (`DimSize = 5 4 3`) or NRRD (`sizes: 5 4 3`): its fields, and the files beside that it names.

    Both have their voxels in the header's own file, in another, in a list of files, or in numbered ones
    (https://itk.org/Wiki/ITK/MetaIO/Documentation, https://teem.sourceforge.net/nrrd/format.html#detached).
    """
    lines = os.fsdecode(_head(path)).splitlines()
    fields: dict[str, str] = {}
    rest = iter(lines)
    for line in rest:
        if not line.strip():  # the end of a NRRD's header
            break
        key, _, value = (part.strip() for part in [*re.split("([=:])", line, maxsplit=1), "", ""][:3])
        fields[key.lower().replace(" ", "")] = value
        if key == "ElementDataFile" or value.startswith("LIST"):  # the last line, but for a list
            break
    where = fields.get("elementdatafile", fields.get("datafile", "LOCAL"))
    names = _file_names(where, rest, path)
    if any("\0" in name for name in names):
        raise MvlError("has a damaged header (the file of its voxels)", file=path, remedy=EXPORT_AGAIN)
    return fields, [path.parent / name for name in names]


def _head(path: Path) -> bytes:
    with reading(path), open(path, "rb") as stream:
        return stream.read(LARGEST_HEADER)


def _file_names(where: str, following: Iterable[str], path: Path) -> list[str]:
    """What `ElementDataFile` or `data file` stands for. following: the lines below it."""
    if where.upper() in ("LOCAL", ""):
        return []
    if where.split()[0] == "LIST":
        return [line.strip() for line in following if line.strip()]
    pattern, *limits = where.split()
    if "%" not in pattern or not limits:
        return [where]
    try:
        first, last, step = map(int, [*limits, "1"][:3])
        return [pattern % number for number in range(first, last + 1, step)[:MOST_FILES]]
    except (ValueError, TypeError, OverflowError) as error:
        raise MvlError(f"has a damaged header ({where})", file=path, remedy=EXPORT_AGAIN) from error


def _is_raw(fields: dict[str, str]) -> bool:
    """Whether the voxels of a MetaImage or NRRD are stored byte for byte."""
    if "encoding" in fields:
        return fields["encoding"].lower() == "raw"
    return fields.get("compresseddata", "").lower() != "true" and fields.get("binarydata", "").lower() == "true"


def _check_size(reader: Any, files: list[Path], path: Path, most_packed: int) -> None:
    """Raise MvlError for a header that promises more voxels than its files can hold, before they are set aside."""
    expected = _bytes_promised(reader)
    found = sum(file.stat().st_size for file in files)
    if expected > found * most_packed and (most_packed == 1 or expected > HARMLESS):
        raise MvlError(f"is cut short: {found} bytes for {expected} of voxels", file=path, remedy=EXPORT_AGAIN)


def _bytes_promised(reader: Any) -> int:
    """Of voxels, by the header that the reader has read."""
    import SimpleITK as sitk

    bits = re.search(r"(\d+)-bit", sitk.GetPixelIDValueAsString(reader.GetPixelID()))
    return math.prod(reader.GetSize()) * reader.GetNumberOfComponents() * (int(bits[1]) if bits else 8) // 8


def _check_end(reader: Any, fields: dict[str, str], path: Path) -> None:
    """Raise MvlError for a `.mha` that ends before its voxels do: MetaIO would print a line of its own."""
    begin = re.search(rb"ElementDataFile\s*[=:]\s*LOCAL\s*?\n", _head(path))
    packed = fields.get("compresseddatasize", "")
    if begin is None or not (_is_raw(fields) or packed.isdecimal()):
        return
    expected, found = begin.end() + (_bytes_promised(reader) if _is_raw(fields) else int(packed)), path.stat().st_size
    if found < expected:
        raise MvlError(f"is cut short: {found} of {expected} bytes", file=path, remedy=EXPORT_AGAIN)
