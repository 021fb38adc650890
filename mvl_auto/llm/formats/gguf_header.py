"""The header of a GGUF file (llama.cpp's format): its values, and the place of each tensor.

A reader of our own: that of the gguf package parses all words of the tokenizer and trusts every count. This one skips
the words and checks each number against the file's size.

    magic, version, counts, key-values, tensor infos, padding, tensor data; little-endian
    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from mvl_auto.errors import MvlError
from mvl_auto.llm.formats.random_access import AGAIN, RandomAccess, truncated

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
LARGEST_ALIGNMENT = 1 << 20
MOST_DIMENSIONS = 4  # GGML_MAX_DIMS
MOST_NESTED = 4  # arrays of arrays; no known file has them
CHUNK = 1 << 20  # bytes read at a time
SCALARS = {
    GGUFValueType.UINT8: struct.Struct("<B"),
    GGUFValueType.INT8: struct.Struct("<b"),
    GGUFValueType.UINT16: struct.Struct("<H"),
    GGUFValueType.INT16: struct.Struct("<h"),
    GGUFValueType.UINT32: struct.Struct("<I"),
    GGUFValueType.INT32: struct.Struct("<i"),
    GGUFValueType.FLOAT32: struct.Struct("<f"),
    GGUFValueType.BOOL: struct.Struct("<?"),
    GGUFValueType.UINT64: struct.Struct("<Q"),
    GGUFValueType.INT64: struct.Struct("<q"),
    GGUFValueType.FLOAT64: struct.Struct("<d"),
}
LENGTH = SCALARS[GGUFValueType.UINT64]
SMALLEST_BYTES = {GGUFValueType.STRING: 8, GGUFValueType.ARRAY: 12} | {kind: s.size for kind, s in SCALARS.items()}


@dataclass(frozen=True)
class TensorInfo:
    """shape: rows first, as torch and numpy have it. start, length: bytes in the file."""

    shape: tuple[int, ...]
    type: GGMLQuantizationType
    start: int
    length: int


@dataclass(frozen=True)
class GgufHeader:
    """values: scalars and strings; arrays (the tokenizer's words) are skipped."""

    file: str
    values: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    @property
    def architecture(self) -> str:
        return str(self.values.get("general.architecture"))

    def value(self, key: str, default: Any = None) -> Any:
        """A value of the architecture's section: "block_count" for `llama.block_count`.

        Raises MvlError where it is missing and has no default.
        """
        found = self.values.get(f"{self.architecture}.{key}", default)
        if found is None:
            raise MvlError(f"has no value {self.architecture}.{key} in its header", file=self.file)
        return found


def read_header(file: RandomAccess) -> GgufHeader:
    """Read and check the header. Raises MvlError for all but valid little-endian GGUF of version 2 or 3."""
    cursor = _Cursor(file)
    if cursor.take(len(MAGIC)) != MAGIC:
        raise MvlError("is not a GGUF file", file=file.name)
    version = cursor.scalar(GGUFValueType.UINT32)
    if version not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise MvlError(f"has GGUF version {version}; versions {known}, little-endian, are supported", file=file.name)
    num_tensors, num_values = cursor.count(smallest=24), cursor.count(smallest=13)
    values = dict(_read_key_value(cursor) for _ in range(num_values))
    if values.get("split.count", 0) > 1:
        raise MvlError(
            f"is one of {values['split.count']} parts of a model",
            file=file.name,
            remedy="Join the parts first with llama.cpp's llama-gguf-split --merge.",
        )
    raw = [_read_tensor_info(cursor) for _ in range(num_tensors)]
    alignment = values.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise MvlError(f"has an impossible alignment of {alignment}", file=file.name, remedy=AGAIN)
    data_start = -(-cursor.place // alignment) * alignment
    tensors = {name: _locate_tensor(file, name, shape, kind, data_start + at) for name, shape, kind, at in raw}
    return GgufHeader(file.name, {key: value for key, value in values.items() if value is not None}, tensors)


def _locate_tensor(file: RandomAccess, name: str, shape: tuple[int, ...], type_: int, start: int) -> TensorInfo:
    """The place of a tensor in the file. Raises MvlError when it is not inside the file."""
    try:
        kind = GGMLQuantizationType(type_)
    except ValueError as error:
        raise MvlError(
            f"holds {name} in the unknown type {type_}", file=file.name, remedy="Update with pip install -U gguf."
        ) from error
    per_block, block_bytes = GGML_QUANT_SIZES[kind]
    if shape[-1] % per_block:
        raise MvlError(
            f"has rows of {shape[-1]} values in {name}, impossible in {kind.name}", file=file.name, remedy=AGAIN
        )
    length = prod(shape) // per_block * block_bytes
    if start + length > file.size:
        raise truncated(file.name, start + length, file.size)
    return TensorInfo(shape, kind, start, length)


def _read_key_value(cursor: _Cursor) -> tuple[str, Any]:
    key = cursor.string()
    return key, _read_value(cursor, cursor.kind())


def _read_value(cursor: _Cursor, kind: GGUFValueType) -> Any:
    """A scalar or a string; None for an array, which is skipped."""
    if kind == GGUFValueType.STRING:
        return cursor.string()
    if kind == GGUFValueType.ARRAY:
        _skip_array(cursor)
        return None
    return cursor.scalar(kind)


def _skip_array(cursor: _Cursor, depth: int = 1) -> None:
    kind = cursor.kind()
    count = cursor.count(SMALLEST_BYTES[kind])
    if kind in SCALARS:
        cursor.skip(count * SCALARS[kind].size)
    elif kind == GGUFValueType.STRING:
        for _ in range(count):
            cursor.skip(cursor.count(smallest=1))
    elif depth < MOST_NESTED:
        for _ in range(count):
            _skip_array(cursor, depth + 1)
    else:
        raise MvlError(f"nests arrays deeper than {MOST_NESTED}", file=cursor.file.name, remedy=AGAIN)


def _read_tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """(name, shape with rows first, type, offset after the header)."""
    name = cursor.string()
    dimensions = cursor.scalar(GGUFValueType.UINT32)
    if not 0 < dimensions <= MOST_DIMENSIONS:
        raise MvlError(f"has {dimensions} dimensions for {name}", file=cursor.file.name, remedy=AGAIN)
    columns_first = [cursor.scalar(GGUFValueType.UINT64) for _ in range(dimensions)]
    return (
        name,
        tuple(reversed(columns_first)),
        cursor.scalar(GGUFValueType.UINT32),
        cursor.scalar(GGUFValueType.UINT64),
    )


class _Cursor:
    """Reads a file from its start, in chunks. place: bytes from the start."""

    def __init__(self, file: RandomAccess) -> None:
        self.file, self.place = file, 0
        self._chunk, self._chunk_start = b"", 0

    def take(self, length: int) -> bytes:
        at = self._fill(length)
        self.place += length
        return self._chunk[at : at + length]

    def scalar(self, kind: GGUFValueType) -> Any:
        form = SCALARS[kind]
        at = self._fill(form.size)
        self.place += form.size
        return form.unpack_from(self._chunk, at)[0]

    def string(self) -> str:
        return self.take(self.count(smallest=1)).decode("utf-8", errors="replace")

    def kind(self) -> GGUFValueType:
        number = self.scalar(GGUFValueType.UINT32)
        try:
            return GGUFValueType(number)
        except ValueError as error:
            raise MvlError(f"has a value of the unknown type {number}", file=self.file.name, remedy=AGAIN) from error

    def count(self, smallest: int) -> int:
        """A count of items of at least `smallest` bytes each. Raises MvlError when the file cannot hold so many."""
        number = self.scalar(GGUFValueType.UINT64)
        if number * smallest > self.file.size - self.place:
            raise truncated(self.file.name, self.place + number * smallest, self.file.size)
        return int(number)

    def skip(self, length: int) -> None:
        self.place += length

    def _fill(self, length: int) -> int:
        """Load the next `length` bytes into the chunk; returns their index there. Each byte is read once."""
        at = self.place - self._chunk_start
        if at + length > len(self._chunk):
            rest = self._chunk[at:]
            start = self.place + len(rest)
            wanted = max(length - len(rest), min(CHUNK, self.file.size - start))
            self._chunk = rest + bytes(self.file.read(start, wanted))
            self._chunk_start, at = self.place, 0
        return at
