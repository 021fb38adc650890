"""PNG, BMP and TIFF (single images and stacks): pictures without a place in the patient.

Rows are Y, columns X, the pages of a TIFF Z. A transparency channel is dropped. A voxel is 1 mm
unless a TIFF says more: in a JSON file of its name (`{"spacing": [z, y, x]}` in mm, nnU-Net's
convention), or in the metadata of OME or ImageJ (tiff_units.py). The resolution of a PNG or BMP is meant for printers.
"""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mvl_auto.arrays import Array
from mvl_auto.errors import MvlError
from mvl_auto.files import Hashes, is_there, read_bytes, read_json, reading, write_json
from mvl_auto.images.geometry import FileGrid, column_lengths
from mvl_auto.images.tiff_units import tiff_spacing

TIFF_ENDINGS = (".tif", ".tiff")
STACK_AXES = "ZIQT"  # tifffile's names for an axis of pages
EXPORT_AGAIN = "Copy or export it again."
MOST_PACKED = 2731  # bytes that LZW can make of one (4096 of a code of 12 bits); deflate makes 1032
HARMLESS = 1 << 26  # bytes of voxels that need no proof
LONGEST = 100  # letters of a library's reason in a message
WHITE_IS_ZERO = 0  # of the tag PhotometricInterpretation
DEFLATE = (8, 32946)  # of the tag Compression
LONG_STRIP = 1 << 19  # bytes: a shorter one unpacks to half a gigabyte at most
UNPACKED = 1  # the Compression tag of a TIFF
DAMAGED = (  # exceptions that Pillow, tifffile, SimpleITK and the standard library raise for damaged files
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


def read_raster(path: Path, as_label: bool = False, hashes: Hashes | None = None) -> tuple[Array, FileGrid]:
    """Read a picture. Returns (C, i, j, k) as stored, and its grid.

    as_label: read the indices of a palette instead of its colours. hashes: receives the file's sha256.
    Raises MvlError when the file is missing or damaged, or has axes that are neither space nor channel.
    """
    if path.suffix.lower() in TIFF_ENDINGS:
        array_czyx, spacing, unit = _read_tiff(path, hashes)
    else:
        array_czyx, spacing, unit = _read_picture(path, as_label, hashes), (1.0, 1.0, 1.0), ""
    k, j, i = array_czyx.shape[1:]
    grid = FileGrid(
        shape=(i, j, k),
        affine=np.diag([*spacing[::-1], 1.0]),
        dimensions=2 if k == 1 else 3,
        dtype=array_czyx.dtype,
        has_frame=False,
        unknown_unit=unit,
    )
    return array_czyx.transpose(0, 3, 2, 1), grid


def write_raster(path: Path, array: Array, grid: FileGrid) -> None:
    """Write (i, j, k) as grey values. Raises MvlError when the format cannot hold them."""
    array_zyx = array.transpose(2, 1, 0)
    if path.suffix.lower() in TIFF_ENDINGS:
        _write_tiff(path, array_zyx, grid)
        return
    from PIL import Image

    allowed = (np.uint8,) if path.suffix.lower() == ".bmp" else (np.uint8, np.uint16)
    if len(array_zyx) != 1 or array_zyx.dtype not in allowed:
        raise MvlError(
            f"cannot hold {len(array_zyx)} slices of {array_zyx.dtype}",
            file=path,
            remedy="Use .tif or .nii.gz instead.",
        )
    Image.fromarray(np.ascontiguousarray(array_zyx[0])).save(path)


def sidecars(path: Path) -> list[Path]:
    """Where a TIFF's spacing may be written: `name.json`, and `case.json` for `case_0000.tif`."""
    return [path.with_suffix(".json"), path.with_name(re.sub(r"_\d{4}$", "", path.stem) + ".json")]


def _read_picture(path: Path, as_label: bool, hashes: Hashes | None) -> Array:
    """(C, 1, Y, X) of a PNG or BMP."""
    from PIL import Image

    _check_length(path, _picture_bytes)
    data = read_bytes(path, hashes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked here, and against the file
            image = Image.open(io.BytesIO(data))
        with image:
            _check_size(image.width * image.height * _least_bits(image) // 8, data, path)
            if _is_deep_colour_png(data):
                array = _read_with_itk(path)
            else:
                array = np.asarray(image.convert("RGB") if image.mode == "P" and not as_label else image)
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise _damaged(path, error) from error
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.ndim == 2:
        return array[None, None]
    colours = array.shape[2] - 1 if array.shape[2] in (2, 4) else array.shape[2]
    return np.moveaxis(array[..., :colours], -1, 0)[:, None]


def _is_deep_colour_png(data: bytes) -> bool:
    """Whether a PNG has 16 bits per colour, which Pillow would cut to 8."""
    head = data[:26]
    return len(head) == 26 and head.startswith(b"\x89PNG") and head[24] == 16 and head[25] in (2, 4, 6)


def _least_bits(image: Any) -> int:
    """Per pixel of a picture that Pillow has opened: grey values and palettes may have one."""
    bands = len(image.getbands())
    return 1 if bands == 1 else 8 * bands


def _check_size(size: int, data: bytes, path: Path, most_packed: int = MOST_PACKED) -> None:
    """Raise MvlError for a picture of `size` bytes that a file cannot hold, before anything is set aside for it."""
    if size > HARMLESS and size > most_packed * len(data):
        what = f"is damaged or cut short: {len(data)} bytes cannot hold the {size} of its voxels"
        raise MvlError(what, file=path, remedy=EXPORT_AGAIN)


def _check_length(path: Path, promised: Callable[[Path], int]) -> None:
    """Raise MvlError for a long file whose header promises few voxels, before it is read. promised: in bytes."""
    with reading(path):
        length = path.stat().st_size
    if length <= HARMLESS:
        return
    try:
        expected = promised(path)
    except (*DAMAGED, MvlError):  # reported when the file is read
        expected = 0
    if length > 2 * expected + HARMLESS:
        what = f"is {length} bytes long, for {expected} of voxels by its header"
        raise MvlError(what, file=path, remedy=EXPORT_AGAIN)


def _picture_bytes(path: Path) -> int:
    from PIL import Image

    with Image.open(path) as image:
        return int(image.width * image.height * len(image.getbands()) * 4)  # 32 bits are the most


def _tiff_bytes(path: Path) -> int:
    """Of all that is in the file: pyramids have the same picture in several sizes."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        return sum(int(level.nbytes) for series in tiff.series for level in series.levels)


def _check_strips(series: Any, data: bytes, path: Path) -> None:
    """Raise MvlError for a strip or tile that unpacks to more than it should hold: tifffile would set no limit."""
    keyframe = series.keyframe
    if keyframe.compression not in DEFLATE:
        return
    most = math.prod(map(int, keyframe.chunks)) * series.dtype.itemsize
    for page in series.pages:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            if count < LONG_STRIP:
                continue
            strip = zlib.decompressobj().decompress(data[offset : offset + count], most + 1)
            if len(strip) > most:
                what = f"is damaged: a strip of {most} bytes unpacks to more"
                raise MvlError(what, file=path, remedy=EXPORT_AGAIN)


def _damaged(path: Path, error: BaseException) -> MvlError:
    return MvlError(f"cannot be read ({_first_line(error)})", file=path, remedy=EXPORT_AGAIN)


def _read_with_itk(path: Path) -> Array:
    import SimpleITK as sitk

    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:  # of many lines, and the first says nothing
        raise MvlError("cannot be read", file=path, remedy=EXPORT_AGAIN) from error


def _read_tiff(path: Path, hashes: Hashes | None) -> tuple[Array, tuple[float, float, float], str]:
    """(C, Z, Y, X), mm along Z, Y, X, and the unit of the voxel size where it is not known."""
    import tifffile

    log = logging.getLogger("tifffile")
    if not log.handlers:  # what it says of a damaged file reaches the screen otherwise, many lines of it
        log.addHandler(logging.NullHandler())
    _check_length(path, _tiff_bytes)
    data = read_bytes(path, hashes)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            series = tiff.series[0]
            (spacing, unit), extra = tiff_spacing(tiff), len(series.keyframe.extrasamples)
            size = math.prod(map(int, series.shape)) * series.dtype.itemsize
            _check_size(size, data, path, 1 if series.keyframe.compression == UNPACKED else MOST_PACKED)
            _check_strips(series, data, path)
            array_czyx = _in_order(_unpacked(series, data, path), series.axes, path)
    except DAMAGED as error:
        raise _damaged(path, error) from error
    if extra and len(array_czyx) in (2, 4):
        array_czyx = array_czyx[:-1]
    written = _sidecar_spacing(path)
    return (array_czyx, spacing, unit) if written is None else (array_czyx, written, "")


def _unpacked(series: Any, data: bytes, path: Path) -> Array:
    """The brightness of a series: 0 is black, also where the file says that 0 is white, as Pillow has it.

    tifffile needs the package imagecodecs for LZW and the codes of fax machines: Pillow reads them for pictures of 1
    and 8 bits, and SimpleITK for the others.
    """
    try:
        array = series.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error) and "not supported" not in str(error):
            raise
        if series.keyframe.bitspersample in (1, 8) and series.keyframe.samplesperpixel == 1:
            return _read_with_pillow(data, series)
        array = _read_with_itk(path).reshape(series.shape)
    if series.keyframe.photometric == WHITE_IS_ZERO and array.dtype.kind in "bu":
        return ~array  # the greatest value less this one
    return array


def _read_with_pillow(data: bytes, series: Any) -> Array:
    """The pages of a series, one after the other."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        pages = []
        for page in series.pages:
            image.seek(page.index)
            pages.append(np.asarray(image))
        return np.stack(pages).reshape(series.shape)


def _in_order(array: Array, axes: str, path: Path) -> Array:
    """Bring tifffile's axes (`ZYX`, `IYXS`, `ZCYX`, ...) into (C, Z, Y, X)."""
    keep = [n for n, axis in enumerate(axes) if array.shape[n] > 1 or axis in "YX"]
    array = array.reshape([array.shape[n] for n in keep])
    names = "".join("C" if axes[n] == "S" else "Z" if axes[n] in STACK_AXES else axes[n] for n in keep)
    if len(set(names)) != len(names) or not set(names) <= set("CZYX") or array.dtype.kind not in "biuf":
        raise MvlError(
            f"has axes {axes} of {array.dtype}; a stack of pages and one axis of channels can be used",
            file=path,
            remedy="Split it into images.",
        )
    for missing in set("CZ") - set(names):
        array, names = array[None], missing + names
    array = array.transpose([names.index(axis) for axis in "CZYX"])
    return array.astype(np.uint8) if array.dtype == bool else array


def _sidecar_spacing(path: Path) -> tuple[float, float, float] | None:
    sidecar = next((entry for entry in sidecars(path) if is_there(entry)), None)
    if sidecar is None:
        return None
    content = read_json(sidecar)
    spacing = content.get("spacing") if isinstance(content, dict) else None
    remedy = 'Write {"spacing": [z, y, x]}, in mm.'
    if not isinstance(spacing, list) or len(spacing) not in (2, 3):
        raise MvlError("has no spacing of three numbers", file=sidecar, remedy=remedy)
    if not all(isinstance(value, int | float) and abs(value) < sys.float_info.max for value in spacing):
        raise MvlError("has a spacing that is no number", file=sidecar, remedy=remedy)
    z, y, x = [1.0, *spacing][-3:]
    return float(z), float(y), float(x)


def _write_tiff(path: Path, array_zyx: Array, grid: FileGrid) -> None:
    import tifffile

    pages = array_zyx if len(array_zyx) > 1 else array_zyx[0]
    axes = "ZYX" if len(array_zyx) > 1 else "YX"
    tifffile.imwrite(path, pages, photometric="minisblack", compression="zlib", metadata={"axes": axes})
    x, y, z = column_lengths(grid.affine).tolist()
    if (z, y, x) != (1.0, 1.0, 1.0):
        write_json(path.with_suffix(".json"), {"spacing": [z, y, x]})


def _first_line(error: BaseException) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."  # tifffile's hold whole tables of bytes
