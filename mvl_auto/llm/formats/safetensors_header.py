"""The header of a safetensors file: the place of each tensor.

    8 bytes: n, little-endian; n bytes: JSON {name: {dtype, shape, data_offsets: [start, stop]}}; the data
    https://huggingface.co/docs/safetensors

Every number is checked against the others and against the file's size, by the rules of the format's own reader: the
tensors must cover the data without holes or overlaps.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import Any

from mvl_auto.errors import MvlError
from mvl_auto.llm.formats.random_access import AGAIN, RandomAccess, truncated

LENGTH_BYTES = 8
LONGEST_HEADER = 100_000_000  # bytes; the limit of the format's own reader
MOST_DIMENSIONS = 8
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6,
    "F4": 4, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """start, length: bytes in the file. dtype: by its name in the format."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int


def read_header(file: RandomAccess) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name. Raises MvlError when the header is damaged."""
    if file.size < LENGTH_BYTES:
        raise MvlError(f"is not a safetensors file: it has {file.size} bytes", file=file.name, remedy=AGAIN)
    length = int.from_bytes(file.read(0, LENGTH_BYTES), "little")
    if length > LONGEST_HEADER:
        raise MvlError(
            f"is not a safetensors file: its header would have {length:,} bytes", file=file.name, remedy=AGAIN
        )
    if LENGTH_BYTES + length > file.size:
        raise truncated(file.name, LENGTH_BYTES + length, file.size)
    try:
        header = json.loads(bytes(file.read(LENGTH_BYTES, length)))
    except (ValueError, RecursionError) as error:
        raise MvlError("is not a safetensors file: its header is not JSON", file=file.name, remedy=AGAIN) from error
    if not isinstance(header, dict):
        raise MvlError("is not a safetensors file: its header is not a JSON object", file=file.name, remedy=AGAIN)
    data_start = LENGTH_BYTES + length
    tensors = {
        name: _stored_tensor(file, name, entry, data_start) for name, entry in header.items() if name != "__metadata__"
    }
    _check_cover(file, tensors, data_start)
    return tensors


def _stored_tensor(file: RandomAccess, name: str, entry: Any, data_start: int) -> StoredTensor:
    try:
        dtype, shape = entry["dtype"], entry["shape"]
        start, stop = entry["data_offsets"]
        numbers = [*shape, start, stop]
        sound = all(type(number) is int and number >= 0 for number in numbers) and start <= stop
        sound = sound and len(shape) <= MOST_DIMENSIONS and prod(shape) * BITS[dtype] == 8 * (stop - start)
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise MvlError(f"has an impossible entry for {name[:100]} in its header", file=file.name, remedy=AGAIN)
    return StoredTensor(dtype, tuple(shape), data_start + start, stop - start)


def _check_cover(file: RandomAccess, tensors: dict[str, StoredTensor], data_start: int) -> None:
    end = data_start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].length)):
        if tensor.start != end:
            raise MvlError(f"has a hole or an overlap at {name[:100]}", file=file.name, remedy=AGAIN)
        end += tensor.length
    if end > file.size:
        raise truncated(file.name, end, file.size)
    if end < file.size:
        raise MvlError(f"has {file.size - end:,} bytes after its last tensor", file=file.name, remedy=AGAIN)
