"""NIfTI-1 and NIfTI-2, gzipped or not, read in one go and written back in their own header.

The header is read first, then only as many bytes as it promises, so that a small file cannot fill the memory. The
checksum of a gzip file is checked. The voxels are a view into these bytes: no copy is made before the canonical one.
The affine is the sform, else the qform, as in nibabel; an sform of zeros counts as missing, as in ITK. A prediction
gets a copy of the image's header, so that every program reads the same geometry from both.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from mvl_auto.arrays import Array
from mvl_auto.errors import MvlError
from mvl_auto.files import HASH_CHUNK, Hashes, reading
from mvl_auto.images.geometry import FileGrid
from mvl_auto.images.label_table import ECODE, label_table
from mvl_auto.images.nibabel_alone import import_nibabel

GZIP_MAGIC = b"\x1f\x8b"
GZIP_LEVEL = 3  # of 9; label maps are small at any level
MILLIMETRES = {1: 1e3, 2: 1.0, 3: 1e-3}  # by the unit code of the header: metre, millimetre, micrometre
CIFTI_INTENTS = range(3000, 3100)
LONGEST_HEADER = 540  # bytes: NIfTI-2
PIECE = 1 << 16  # bytes of a gzip file that are unpacked at a time
GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's number for a gzip file with its checksum
MOST_BEHIND = 1 << 26  # bytes behind the voxels: some programs pad their files, none by this much
ZERO_SFORM = "its sform is all zeros"
EXPORT_AGAIN = "Copy or export it again."


def read_nifti(path: Path, hashes: Hashes | None = None) -> tuple[Array, FileGrid]:
    """Read a NIfTI file. Returns (C, i, j, k) as stored (scaled where the header says so), and its grid.

    hashes: receives the file's sha256.
    Raises MvlError when the file is missing, damaged, or holds no 2D, 3D or multi-channel image.
    """
    data, header = _read_promised(path, hashes)
    fault = _replace_zero_sform(header)
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
        is_placed=int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0,
        quantum=_quantum(stored, header),
        header_fault=fault,
    )
    return channels, grid


def write_nifti(path: Path, array: Array, grid: FileGrid) -> None:
    """Write (i, j, k), or (i, j, k, channels), in the grid of the file it belongs to; the type is the array's."""
    nibabel = import_nibabel()
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
    if not header["vox_offset"] >= header.single_vox_offset:  # an image that began inside its header, or at NaN
        header["vox_offset"] = 0  # nibabel puts the voxels behind the header
    header["descrip"] = b"MVL-Auto"
    if grid.label_names:
        header.extensions.append(nibabel.nifti1.Nifti1Extension(ECODE, label_table(grid.label_names)))
    content = image_class(array, None, header).to_bytes()  # affine None: sform, qform and their codes stay
    if path.name.endswith(".gz"):
        content = gzip.compress(content, GZIP_LEVEL, mtime=0)
    path.write_bytes(content)


def _read_promised(path: Path, hashes: Hashes | None) -> tuple[bytes | bytearray, Any]:
    """The bytes of a file, unpacked, up to the last voxel that its header promises; and the header."""
    with reading(path), open(path, "rb") as stream:
        data = stream.read(LONGEST_HEADER)
        if data.startswith(GZIP_MAGIC):
            data += stream.read()
            if hashes is not None:
                hashes[path] = hashlib.sha256(data).hexdigest()
            return _unpack_promised(data, path)
        header = _header(data, path)
        size, promised = os.fstat(stream.fileno()).st_size, _end_of_voxels(header, path)
        if size > promised + MOST_BEHIND:
            raise _too_long(path)
        data += stream.read(max(min(promised, size) - len(data), 0))
        if hashes is not None:
            digest = hashlib.sha256(data)
            digest.update(stream.read())
            hashes[path] = digest.hexdigest()
    return data, header


def _unpack_promised(data: bytes, path: Path) -> tuple[bytearray, Any]:
    """As `_read_promised`, of the bytes of a gzip file, to its end: the checksum comes last."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            header = _header(stream.read(LONGEST_HEADER), path)
        promised = min(_end_of_voxels(header, path), sys.maxsize)
        unpacked, behind = bytearray(), 0  # filled in small steps: as one call's result it would be held twice
        unpacker, packed = zlib.decompressobj(GZIP_WINDOW), memoryview(data)
        place = 0
        while place < len(packed) and not unpacker.eof:
            piece: bytes | memoryview = packed[place : place + PIECE]
            place += len(piece)
            full = True
            while piece or full:
                more = unpacker.decompress(piece, HASH_CHUNK)
                room = promised - len(unpacked)
                unpacked += more if len(more) <= room else more[:room]
                behind += max(len(more) - room, 0)
                if behind > MOST_BEHIND:
                    raise _too_long(path)
                piece, full = unpacker.unconsumed_tail, len(more) == HASH_CHUNK
        if not unpacker.eof:
            raise EOFError("the gzip file ends before its end marker")
        if not behind and (unpacker.unused_data or place < len(packed)):  # several gzip files in one, as bgzip's
            return _unpack_members(data, promised, path), header
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, error) from error
    return unpacked, header


def _unpack_members(data: bytes, promised: int, path: Path) -> bytearray:
    """The first `promised` bytes of several gzip files in one; damage is the caller's to tell."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        unpacked = bytearray()
        while part := stream.read(min(promised - len(unpacked), HASH_CHUNK)):
            unpacked += part
        behind = 0
        while more := stream.read(HASH_CHUNK):
            behind += len(more)
            if behind > MOST_BEHIND:
                raise _too_long(path)
    return unpacked


def _damaged(path: Path, error: Exception) -> MvlError:
    return MvlError(f"is damaged or cut short ({error})", file=path, remedy=EXPORT_AGAIN)


def _too_long(path: Path) -> MvlError:
    what = f"has more than {MOST_BEHIND >> 20} MiB behind the voxels that its header promises"
    return MvlError(what, file=path, remedy=EXPORT_AGAIN)


def _header(data: bytes, path: Path) -> Any:
    """nibabel's header, of either version and byte order, unrepaired."""
    nibabel = import_nibabel()
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


def _end_of_voxels(header: Any, path: Path) -> int:
    """How many bytes of the file its header promises: up to the last voxel."""
    count = math.prod(map(int, header.get_data_shape()))  # of damaged headers: beyond 64 bits
    return _offset(header, path) + count * int(_data_type(header, path).itemsize)


def _offset(header: Any, path: Path) -> int:
    """Where the voxels begin: never inside the header, whatever it says."""
    if not np.isfinite(header["vox_offset"]):
        raise MvlError("has a damaged header (where its voxels begin)", file=path, remedy=EXPORT_AGAIN)
    return max(int(header["vox_offset"]), int(header["sizeof_hdr"]))


def _data_type(header: Any, path: Path) -> np.dtype[Any]:
    HeaderDataError = import_nibabel().spatialimages.HeaderDataError
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:  # nibabel's: a type without numpy's equal, or none at all
        raise MvlError(f"has a voxel type that cannot be read ({error})", file=path, remedy=EXPORT_AGAIN) from error
    if dtype.kind not in "iuf" and not dtype.names:
        raise MvlError(f"holds voxels of type {dtype}", file=path, remedy="Convert them to real numbers.")
    return dtype


def _voxels(data: bytes | bytearray, header: Any, path: Path) -> Array:
    """The stored values, flat, in the file's byte order; a view."""
    expected = _end_of_voxels(header, path)
    if len(data) < expected:
        raise MvlError(f"is cut short: {len(data)} of {expected} bytes", file=path, remedy=EXPORT_AGAIN)
    count = math.prod(map(int, header.get_data_shape()))
    return np.frombuffer(data, _data_type(header, path), count, _offset(header, path))


def _quantum(stored: Array, header: Any) -> float:
    """The distance between two neighbouring values that the header's scaling can give; 0 without scaling."""
    if stored.dtype.kind not in "iu":
        return 0.0
    slope, inter = header.get_slope_inter()
    return 0.0 if slope is None or (slope == 1 and inter == 0) else abs(float(slope))


def _replace_zero_sform(header: Any) -> str:
    """Copy the qform over an sform that is marked as valid but all zeros. Returns this fault, or an empty string."""
    HeaderDataError = import_nibabel().spatialimages.HeaderDataError
    if int(header["sform_code"]) <= 0 or int(header["qform_code"]) <= 0:
        return ""
    if any(np.any(header[row][:3]) for row in ("srow_x", "srow_y", "srow_z")):
        return ""
    try:
        qform = _with_handedness(header).get_qform(coded=False)
    except (ValueError, HeaderDataError):  # reported where the affine is read
        return ""
    if not np.isfinite(qform).all() or not np.linalg.det(qform[:3, :3]):
        return ""
    header.set_sform(qform, int(header["qform_code"]))
    return ZERO_SFORM


def _with_handedness(header: Any) -> Any:
    """The header with pixdim[0] = 1 in place of 0, as the standard reads it."""
    if header["pixdim"][0] == 0:
        header = header.copy()
        header["pixdim"][0] = 1
    return header


def _scaled(stored: Array, header: Any, path: Path) -> Array:
    HeaderDataError = import_nibabel().spatialimages.HeaderDataError
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
    HeaderDataError = import_nibabel().spatialimages.HeaderDataError
    try:
        affine = np.array(_with_handedness(header).get_best_affine(), dtype=float)
    except (ValueError, HeaderDataError) as error:
        raise MvlError(f"has a damaged header ({error})", file=path, remedy=EXPORT_AGAIN) from error
    affine[:3] *= MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    if flat and not affine[:3, 2].any():
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / np.linalg.norm(normal) if normal.any() else 0
    return affine
