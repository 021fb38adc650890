"""NIfTI-1 and NIfTI-2, gzipped or not, read in one go and written back in their own header.

The file is decompressed whole (so a damaged gzip is noticed by its checksum) and the voxels are a
view into it: no copy is made before the canonical one. The affine is the sform, else the qform, as
in nibabel. A prediction gets a copy of the image's header, so that every program that agrees or
disagrees about its geometry does the same about the prediction's.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from mvl_auto.arrays import Array
from mvl_auto.errors import MvlError
from mvl_auto.files import Hashes, read_bytes
from mvl_auto.images.geometry import FileGrid

GZIP_MAGIC = b"\x1f\x8b"
GZIP_LEVEL = 3  # label maps: a few per cent larger than at 9, several times faster
MILLIMETRES = {1: 1e3, 2: 1.0, 3: 1e-3}  # by the unit code of the header: metre, millimetre, micrometre
CIFTI_INTENTS = range(3000, 3100)
EXPORT_AGAIN = "Copy or export it again."


def read_nifti(path: Path, hashes: Hashes | None = None) -> tuple[Array, FileGrid]:
    """Read a NIfTI file. Returns (C, i, j, k) as stored (scaled where the header says so), and its grid.

    hashes: takes up the file's sha256.
    Raises MvlError when the file is missing, damaged, or holds no 2D, 3D or multi-channel image.
    """
    data = _unpacked(path, hashes)
    header = _header(data, path)
    shape = _spatial_and_channels(header, path)
    stored = _voxels(data, header, path)
    if stored.dtype.names:
        channels = np.stack([stored[name].reshape(shape[:3], order="F") for name in stored.dtype.names[:3]])
    else:
        channels = np.moveaxis(_scaled(stored, header, path).reshape(shape, order="F"), 3, 0)
    grid = FileGrid(
        shape=shape[:3],
        affine=_affine_mm(header, shape[2] == 1, path),
        dimensions=2 if header["dim"][0] <= 2 else 3,
        dtype=stored.dtype.newbyteorder("=") if stored.dtype.names is None else np.dtype(np.uint8),
        nifti_header=header,
    )
    return channels, grid


def write_nifti(path: Path, array: Array, grid: FileGrid) -> None:
    """Write (i, j, k), or (i, j, k, channels), in the grid of the file it belongs to; the type is the array's."""
    import nibabel

    if grid.dimensions == 2 and array.ndim == 3:
        array = array.squeeze(2)
    image_class = nibabel.Nifti1Image
    if grid.nifti_header is None:
        header = nibabel.Nifti1Header()
        header.set_xyzt_units("mm")
        header.set_sform(grid.affine, code="scanner")
        header.set_qform(grid.affine, code="scanner")
    else:
        header = grid.nifti_header.copy()
        if isinstance(header, nibabel.Nifti2Header):
            image_class = nibabel.Nifti2Image
    header.set_data_dtype(array.dtype.newbyteorder(header.endianness))
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"] = b"MVL-Auto"
    content = image_class(array, None, header).to_bytes()  # affine None: sform, qform and their codes stay
    if path.name.endswith(".gz"):
        content = gzip.compress(content, GZIP_LEVEL, mtime=0)
    path.write_bytes(content)


def _unpacked(path: Path, hashes: Hashes | None) -> bytes:
    data = read_bytes(path, hashes)
    try:
        return gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MvlError(f"is damaged or cut short ({error})", file=path, remedy=EXPORT_AGAIN) from error


def _header(data: bytes, path: Path) -> Any:
    """nibabel's header, of either version and byte order, unrepaired."""
    import nibabel

    kind, size = {
        (348).to_bytes(4, "little"): (nibabel.Nifti1Header, 348),
        (348).to_bytes(4, "big"): (nibabel.Nifti1Header, 348),
        (540).to_bytes(4, "little"): (nibabel.Nifti2Header, 540),
        (540).to_bytes(4, "big"): (nibabel.Nifti2Header, 540),
    }.get(data[:4], (None, 0))
    if kind is None:
        raise MvlError("is not a NIfTI image", file=path, remedy=EXPORT_AGAIN)
    if len(data) < size:
        raise MvlError(f"is cut short: {len(data)} bytes, its header alone has {size}", file=path, remedy=EXPORT_AGAIN)
    # nibabel's own check would set a voxel size of 0 to 1 mm and go on
    header = kind.from_fileobj(io.BytesIO(data[:size]), check=False)
    if header["magic"].item()[:3] not in (b"n+1", b"n+2"):
        raise MvlError("is not a single-file NIfTI image", file=path, remedy="Convert it to .nii.gz.")
    if not 1 <= header["dim"][0] <= 7 or (header["dim"][1 : header["dim"][0] + 1] < 0).any():
        raise MvlError("has a damaged header (number of voxels)", file=path, remedy=EXPORT_AGAIN)
    if int(header["intent_code"]) in CIFTI_INTENTS:
        raise MvlError("is a CIFTI matrix, no image", file=path, remedy="Remove it.")
    return header


def _spatial_and_channels(header: Any, path: Path) -> tuple[int, int, int, int]:
    """Voxels along i, j, k and channels: the 4th axis, or the 5th of a vector image."""
    shape = [int(n) for n in header.get_data_shape()]
    shape += [1] * (4 - len(shape))
    if len(shape) == 5 and shape[3] == 1:
        del shape[3]
    while len(shape) > 4 and shape[-1] == 1:
        del shape[-1]
    if len(shape) != 4:
        raise MvlError(f"has {len(shape)} axes; 2 to 4 can be used", file=path, remedy="Split it into images.")
    return shape[0], shape[1], shape[2], shape[3]


def _voxels(data: bytes, header: Any, path: Path) -> Array:
    """The stored values, flat, in the file's byte order; a view."""
    from nibabel.spatialimages import HeaderDataError

    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:  # nibabel's: a type without numpy's equal, or none at all
        raise MvlError(f"has a voxel type that cannot be read ({error})", file=path, remedy=EXPORT_AGAIN) from error
    if dtype.kind not in "iuf" and not dtype.names:
        raise MvlError(f"holds voxels of type {dtype}", file=path, remedy="Convert them to real numbers.")
    count = math.prod(map(int, header.get_data_shape()))  # of damaged headers: beyond 64 bits
    if not np.isfinite(header["vox_offset"]):
        raise MvlError("has a damaged header (where its voxels begin)", file=path, remedy=EXPORT_AGAIN)
    offset = max(int(header["vox_offset"]), int(header["sizeof_hdr"]))
    if len(data) < offset + count * dtype.itemsize:
        expected, found = offset + count * dtype.itemsize, len(data)
        raise MvlError(f"is cut short: {found} of {expected} bytes", file=path, remedy=EXPORT_AGAIN)
    return np.frombuffer(data, dtype, count, offset)


def _scaled(stored: Array, header: Any, path: Path) -> Array:
    from nibabel.spatialimages import HeaderDataError

    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError as error:
        raise MvlError(f"has a damaged header ({error})", file=path, remedy=EXPORT_AGAIN) from error
    if slope is None or (slope == 1 and inter == 0):
        return stored
    # 16-bit integers and their scaled values are exact enough in single precision; wider ones are not
    kind = np.float64 if stored.dtype.itemsize > 2 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):  # becomes infinity or NaN, which is found later
        return (stored.astype(kind) * slope + inter).astype(kind, copy=False)


def _affine_mm(header: Any, flat: bool, path: Path) -> Array:
    """Index i, j, k -> mm, RAS+. flat: one slice; its missing thickness becomes 1 mm."""
    from nibabel.spatialimages import HeaderDataError

    if header["pixdim"][0] == 0:  # the standard: read as 1
        header = header.copy()
        header["pixdim"][0] = 1
    try:
        affine = np.array(header.get_best_affine(), dtype=float)
    except (ValueError, HeaderDataError) as error:
        raise MvlError(f"has a damaged header ({error})", file=path, remedy=EXPORT_AGAIN) from error
    affine[:3] *= MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    if flat and not affine[:3, 2].any():
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / np.linalg.norm(normal) if normal.any() else 0
    return affine
