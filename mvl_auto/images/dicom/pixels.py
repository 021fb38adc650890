"""The values of a DICOM volume: decoded frame by frame, each with its own slope, into one array.

Before memory is set aside, every file is checked to be able to hold what its header promises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mvl_auto.arrays import Array
from mvl_auto.errors import MvlError
from mvl_auto.files import reading
from mvl_auto.images.dicom.headers import Frame
from mvl_auto.images.dicom.sorting import DicomVolume
from mvl_auto.images.dicom.values import EXPORT_AGAIN, reading_dicom

MOST_PACKED = 1032  # bytes that deflate can make of one; lossless JPEG of noise-free images comes near it at most
HARMLESS = 1 << 26  # bytes of voxels that need no proof
CHUNK = 1 << 16
EXACT_BITS = 16  # integers of so many bits and a slope are exact enough in single precision
PHYSICAL = frozenset({"CT", "PT", "NM"})  # modalities whose values are measurements, however they are displayed
EXTRA = 'Install the decoders: pip install "mvl-auto[dicom]".'
JPEG, JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
NO_SIZE = frozenset({0xC4, 0xC8, 0xCC})  # markers of JPEG among those of frames that are none
JPEG_LS = 0xF7


def read_voxels(volume: DicomVolume) -> Array:
    """The values of a volume as its headers scale them. Returns (C, i, j, k): C is 3 for colours, else 1.

    Single precision, or double where stored integers have more than 16 bits. Values of MONOCHROME1 (0 is white) are
    inverted, but for CT, PET and nuclear medicine, whose values are measurements.
    Raises MvlError when a file is damaged, holds less than its header promises, or needs a decoder that is missing.
    """
    files: dict[Path, list[tuple[int, Frame]]] = {}
    for k, frame in enumerate(volume.frames):
        files.setdefault(frame.file, []).append((k, frame))
    for items in files.values():
        _check_size(items[0][1])
    rows, columns, samples = volume.frames[0].shape
    channels = 3 if _is_palette(volume.frames[0]) else samples
    dtype = np.float32 if volume.frames[0].bits <= EXACT_BITS else np.float64
    values_kjic = np.empty((len(volume.frames), rows, columns, channels), dtype)
    for path, items in files.items():
        with reading(path), reading_dicom(path):
            frames = [frame for _, frame in items]
            for (k, _), values in zip(items, _frames_of_file(path, frames), strict=True):
                if values.shape != values_kjic.shape[1:]:
                    raise ValueError(f"pixels of shape {values.shape}, expected {values_kjic.shape[1:]}")
                values_kjic[k] = values
    return values_kjic.transpose(3, 2, 1, 0)


def _frames_of_file(path: Path, frames: Sequence[Frame]) -> Iterator[Array]:
    """The values (rows, columns, channels) of some frames of a file, in their order."""
    import pydicom
    from pydicom.pixels import iter_pixels
    from pydicom.uid import UID

    first = frames[0]
    syntax = UID(first.syntax)
    decoder = _decoder(first)
    is_streamed = first.frames_in_file > 1 and not syntax.is_encapsulated and not syntax.is_deflated
    dataset = pydicom.dcmread(path, stop_before_pixels=is_streamed, force=True)
    if not dataset.file_meta.get("TransferSyntaxUID"):
        dataset.file_meta.TransferSyntaxUID = syntax
        is_streamed = False
    options: dict[str, Any] = {"correct_unused_bits": not _is_shifted(dataset)}
    indices = [frame.index for frame in frames]
    if is_streamed:
        decoded = iter_pixels(path, indices=indices, **options)
    else:
        if syntax.is_encapsulated:
            _check_encoded_sizes(dataset, first)
        source = dataset if first.frames_in_file > 1 else _as_one_frame(dataset)
        decoded = (array for array, _ in decoder.iter_array(source, indices=indices, **options))
    for frame, stored in zip(frames, decoded, strict=True):
        yield _scaled(stored, frame, dataset)


def _as_one_frame(dataset: Any) -> Any:
    if "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = 1
    return dataset


def _scaled(stored: Array, frame: Frame, dataset: Any) -> Array:
    """Stored values as the header means them, (rows, columns, channels)."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    if _is_palette(frame):
        return np.asarray(apply_color_lut(stored, dataset))
    if stored.dtype.kind in "iu" and _is_shifted(dataset):
        stored = _unpacked_bits(stored, dataset)
    if frame.photometric == "MONOCHROME1" and frame.modality not in PHYSICAL and stored.dtype.kind in "iu":
        stored = _inverted(stored, dataset)
    if "ModalityLUTSequence" in dataset:
        stored = np.asarray(apply_modality_lut(stored, dataset))
    elif (frame.slope, frame.intercept) != (1.0, 0.0):
        if frame.slope == 0 and stored.any():
            raise ValueError("RescaleSlope is 0")
        stored = stored * np.float64(frame.slope) + frame.intercept
    return stored if stored.ndim == 3 else stored[..., None]


def _is_shifted(dataset: Any) -> bool:
    """Whether the values lie elsewhere than in the lowest bits of their words."""
    high, stored = dataset.get("HighBit"), dataset.get("BitsStored")
    return high is not None and stored is not None and int(high) != int(stored) - 1


def _unpacked_bits(stored: Array, dataset: Any) -> Array:
    """Values out of the bits HighBit - BitsStored + 1 to HighBit of their words."""
    bits, high, allocated = int(dataset.BitsStored), int(dataset.HighBit), stored.dtype.itemsize * 8
    if not 0 < bits <= high + 1 <= allocated:
        raise ValueError(f"HighBit {high}, BitsStored {bits}, BitsAllocated {allocated}")
    up = np.left_shift(stored, allocated - 1 - high)  # whatever lies above is shifted out
    return np.right_shift(up, allocated - bits)  # keeps the sign of a type that has one


def _inverted(stored: Array, dataset: Any) -> Array:
    """As MONOCHROME2 would have it: the lowest value that can be stored becomes the highest."""
    if int(dataset.PixelRepresentation):
        return -1 - stored
    return (1 << int(dataset.BitsStored)) - 1 - stored.astype(np.int64)


def _is_palette(frame: Frame) -> bool:
    return frame.photometric == "PALETTE COLOR"


def _decoder(frame: Frame) -> Any:
    """pydicom's decoder. Raises MvlError when none is known, or when what it needs is not installed."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    name = UID(frame.syntax).name
    try:
        decoder = get_decoder(frame.syntax)
    except NotImplementedError as error:
        what = f"is encoded as {name}, which cannot be decoded"
        raise MvlError(what, file=frame.file, remedy="Export it uncompressed.") from error
    if decoder.is_encapsulated and not decoder.is_available:
        raise MvlError(f"is compressed as {name}, and no decoder is installed", file=frame.file, remedy=EXTRA)
    return decoder


def _check_size(frame: Frame) -> None:
    """Raise MvlError when a file cannot hold the voxels that its header promises."""
    from pydicom.uid import UID

    rows, columns, samples = frame.shape
    expected = rows * columns * samples * frame.frames_in_file * frame.bits // 8
    if frame.photometric.endswith(("422", "420")):  # colours at half the resolution
        expected //= 2
    with reading(frame.file):
        found = frame.file.stat().st_size
    syntax = UID(frame.syntax)
    packed = MOST_PACKED if syntax.is_compressed or syntax.is_deflated else 1
    if expected > found * packed and (packed == 1 or expected > HARMLESS):
        what = f"is cut short: {found} bytes for {expected} of voxels"
        raise MvlError(what, file=frame.file, remedy=EXPORT_AGAIN)


def _check_encoded_sizes(dataset: Any, frame: Frame) -> None:
    """Raise MvlError when compressed frames say that they are of another size than the header: a decoder obeys them."""
    from pydicom.encaps import generate_frames

    rows, columns, _ = frame.shape
    for encoded in generate_frames(dataset.PixelData, number_of_frames=frame.frames_in_file):
        found = encoded_size(encoded)
        if found is not None and found != (rows, columns):
            what = f"has compressed pixels of {found[1]}x{found[0]}, its header says {columns}x{rows}"
            raise MvlError(what, file=frame.file, remedy=EXPORT_AGAIN)


def encoded_size(encoded: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 code stream says it has; None where it is none of these.

    Sources: ITU-T T.81, B.2.2 (frame header); T.87, C.2.2; T.800, A.5.1 (SIZ).
    """
    siz = encoded.find(JPEG_2000, 0, CHUNK)
    if siz >= 0 and not encoded.startswith(JPEG):
        right, bottom, left, top = (int.from_bytes(encoded[siz + n : siz + n + 4], "big") for n in (8, 12, 16, 20))
        return bottom - top, right - left
    place = 2
    while encoded.startswith(JPEG) and place + 9 <= len(encoded) and encoded[place] == 0xFF:
        marker = encoded[place + 1]
        if marker == JPEG_LS or (0xC0 <= marker <= 0xCF and marker not in NO_SIZE):
            return int.from_bytes(encoded[place + 5 : place + 7], "big"), int.from_bytes(
                encoded[place + 7 : place + 9], "big"
            )
        place += 1 if marker == 0xFF else 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
    return None
