"""How the inputs of tests/faults/corpus.py are made: each function changes a root, or gives one that does."""

from __future__ import annotations

import copy
import gzip
import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def nothing(root: Path) -> None:
    return None


def writes(file: Path, content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / file).write_bytes(content)


def several(*spoilers: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: [spoil(root) for spoil in spoilers]


def changes(file: Path, place: Sequence[Any], value: Any) -> Callable[[Path], object]:
    """Put a value into a JSON file, at a place that its keys and indices name."""

    def spoil(root: Path) -> None:
        content = json.loads((root / file).read_text(encoding="utf-8"))
        (root / file).write_text(json.dumps(replaced(content, place, value)), encoding="utf-8")

    return spoil


def replaced(content: Any, place: Sequence[Any], value: Any) -> Any:
    if not place:
        return value
    changed = copy.copy(content)
    inner = content[place[0]] if isinstance(content, list) else content.get(place[0])
    changed[place[0]] = replaced(inner, place[1:], value)
    return changed


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)


def link_outside(path: Path) -> None:
    precious = next(folder for folder in path.parents if folder.name == "around") / "precious.txt"
    precious.write_text("precious")
    os.symlink(precious, path)


def link_to_zeros(path: Path) -> None:
    os.symlink("/dev/zero", path)


def link_to_itself(path: Path) -> None:
    os.symlink(path, path)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def change_tensors(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(path, framework="np") as stream:
        metadata = stream.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)


def reshape_one(tensors: dict[str, Any]) -> None:
    name = max(tensors, key=lambda name: tensors[name].size)
    tensors[name] = np.ascontiguousarray(tensors[name].reshape(-1))


def retype_one(tensors: dict[str, Any], dtype: Any) -> None:
    name = next(iter(tensors))
    tensors[name] = tensors[name].astype(dtype)


def change_state(path: Path, key: str, value: Any) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(path, framework="np") as stream:
        state = json.loads(stream.metadata()["state"])
    save_file(load_file(path), path, metadata={"state": json.dumps(state | {key: value})})


def nifti(
    dim: tuple[int, ...] = (3, 8, 9, 10),
    datatype: int = 16,
    offset: float = 352.0,
    pixdim: tuple[float, ...] = (1, 1, 1, 1),
) -> bytes:
    """A gzipped NIfTI-1 file of float32, whose header says what it likes."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, *dim, *[1] * (8 - len(dim)))
    struct.pack_into("<hh", header, 70, datatype, 32)
    struct.pack_into("<8f", header, 76, *pixdim, *[1.0] * (8 - len(pixdim)))
    struct.pack_into("<f", header, 108, offset)
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + bytes(4 * 8 * 9 * 10))


def bomb() -> bytes:
    """A small image, and two gigabytes of zeros behind its voxels: two megabytes in the file."""
    zeros = gzip.compress(bytes(64 << 20), 9)
    return nifti() + zeros * 32
