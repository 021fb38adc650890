"""Byte ranges of a file on disk, inside a wheel, or on a server.

The readers of safetensors and GGUF ask for ranges only, so the same code reads a layer from each of these places, and
the bytes read are counted.
"""

from __future__ import annotations

import io
import mmap
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol

from mvl_auto.errors import MvlError

AGAIN = "Download it again."
MERGE_GAP = 1 << 15  # bytes; ranges that lie closer together are read in one request

Range = tuple[int, int]  # start and length, bytes


class RandomAccess(Protocol):
    """name: for messages. size: bytes. bytes_read: so far; a range that is read twice counts twice."""

    name: str
    size: int
    bytes_read: int

    def read(self, start: int, length: int) -> memoryview:
        """The bytes from `start` to `start + length`. Raises MvlError when the file is shorter."""


def read_ranges(file: RandomAccess, ranges: Mapping[str, Range]) -> dict[str, memoryview]:
    """The bytes of each range, by name; neighbouring ranges are read together."""
    found: dict[str, memoryview] = {}
    for group in _group_neighbours(ranges):
        start = ranges[group[0]][0]
        stop = max(sum(ranges[name]) for name in group)
        together = file.read(start, stop - start)
        for name in group:
            offset, length = ranges[name][0] - start, ranges[name][1]
            found[name] = together[offset : offset + length]
    return found


def _group_neighbours(ranges: Mapping[str, Range]) -> list[list[str]]:
    """The names in groups of neighbouring ranges, in the order of the file."""
    groups: list[list[str]] = []
    stop = -MERGE_GAP - 1
    for name in sorted(ranges, key=lambda name: ranges[name]):
        if ranges[name][0] - stop > MERGE_GAP:
            groups.append([])
        groups[-1].append(name)
        stop = max(stop, sum(ranges[name]))
    return groups


class Counted:
    """The base of all kinds: the check against the size, and the count of bytes."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size, self.bytes_read = name, size, 0

    def check(self, start: int, length: int) -> None:
        if start < 0 or length < 0 or start + length > self.size:
            raise truncated(self.name, start + length, self.size)


class MappedFile(Counted):
    """A file on disk, memory-mapped: reading copies nothing. Raises MvlError when it can't be opened."""

    def __init__(self, path: Path) -> None:
        self._view = memoryview(_map(path))
        super().__init__(str(path), len(self._view))

    def read(self, start: int, length: int) -> memoryview:
        self.check(start, length)
        self.bytes_read += length
        return self._view[start : start + length]


class ZipMember(Counted):
    """A file inside a zip archive, decompressed as far as needed and never written to disk."""

    def __init__(self, name: str, stream: IO[bytes], size: int) -> None:
        super().__init__(name, size)
        self._stream = stream

    def read(self, start: int, length: int) -> memoryview:
        self.check(start, length)
        self.bytes_read += length
        try:
            self._stream.seek(start)
            content = self._stream.read(length)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise MvlError(f"is damaged ({error})", file=self.name, remedy=AGAIN) from error
        if len(content) != length:
            raise truncated(self.name, start + length, start + len(content))
        return memoryview(content)


def _map(path: Path) -> mmap.mmap | bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
            raise MvlError("is not a regular file", file=path)
        with open(path, "rb") as stream:
            is_empty = stream.seek(0, io.SEEK_END) == 0  # an empty file can't be mapped
            return b"" if is_empty else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise MvlError("is missing", file=path) from error
    except OSError as error:
        raise MvlError(f"cannot be read ({error.strerror or error})", file=path) from error


def truncated(name: str, needed: int, found: int) -> MvlError:
    """The error for a file that is shorter than its header says."""
    return MvlError(f"has {found:,} bytes; according to its header it needs {needed:,}", file=name, remedy=AGAIN)
