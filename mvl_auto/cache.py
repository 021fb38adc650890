"""One preprocessed case on disk, written once, of which training reads any box.

    <case>.b2nd             image, float32 C Z Y X
    <case>.seg              classes, int16 Z Y X, IGNORE where nobody labelled
    <case>.locations        int32 (voxels, 3), a sample of the voxels of each class, one class after the other
    <case>.json             CachedCase, written last: a case without it is not in the cache

(all three are blosc2 arrays; their last suffixes differ, so that no two cases share a file: "a.seg" may be a case)

and for the second stage of a cascade, in a folder of its own:

    <case>.b2nd             classes that the first stage found, int16 Z Y X, on the grid of the case
    <case>.json             PreviousCase, written last

blosc2 keeps an array as compressed bricks: only those that a box touches are read and decompressed, so bricks have
the proportions of a training patch. Everything is opened for one read and closed again: a reader holds no file and
can be sent to another process, and thousands of cases need no thousands of open files.

Damage of a disk is noticed when it is read: each array carries a checksum of every part that was compressed together,
and a reader checks each part once. Decompression itself does not notice: most of an image is noise, which is stored
uncompressed. Files that were swapped are noticed too: the card and each array carry the name of their case.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mvl_auto import locks
from mvl_auto.arrays import Box, Classes, Floats
from mvl_auto.errors import MvlError
from mvl_auto.files import as_json, cannot_write, check_regular, writing_all
from mvl_auto.names import checked_name
from mvl_auto.plans import PLAN_AGAIN, CachedCase, Fingerprint, PreviousCase, read_document
from mvl_auto.printable import shown
from mvl_auto.text import shape_text

Voxels = NDArray[np.int32]
C = TypeVar("C", CachedCase, PreviousCase)

IMAGE, LABEL, LOCATIONS, CARD = ".b2nd", ".seg", ".locations", ".json"
ROWS, CHECKSUMS, CASE = "rows", "checksums", "case"  # in an array's own metadata
BLOCK_BYTES = 256 << 10  # decompressed at once: fits the L2 cache, and a whole small case
CHUNK_BYTES = 4 << 20  # compressed together, a header each
DAMAGED = (RuntimeError, ValueError, LookupError, AttributeError, TypeError)  # what blosc2 raises for senseless bytes
PREVIOUS_REMEDY = "Run mvl_train again."

Checked = set[tuple[str, int]]  # suffix and number of the parts of a case's arrays that are as they were written


@dataclass(frozen=True)
class CaseReader:
    """A cached case. Boxes are (start, stop) per axis Z Y X and lie inside the case; None is all of it."""

    folder: Path
    cached: CachedCase
    checked: Checked = field(default_factory=set, compare=False, repr=False)

    def image(self, box: Box | None = None) -> Floats:
        """(C, *box) float32."""
        whole = (slice(None),) if box else ()
        return self._read(IMAGE, (*whole, *_slices(box)), self.cached.shape)

    def label(self, box: Box | None = None) -> Classes:
        """(*box) int16."""
        return self._read(LABEL, _slices(box), self.cached.shape[1:])

    def locations(self, k: int) -> Voxels:
        """Z Y X of a sample of the voxels of class k, (n, 3); (0, 3) where the case has none."""
        path = self.folder / f"{self.cached.name}{LOCATIONS}"
        with _opened(path) as array:
            _check_case(path, array, PLAN_AGAIN)
            start, stop = array.schunk.vlmeta[ROWS].get(str(k), (0, 0))
            _check(path, array, (slice(start, stop),), self.checked, PLAN_AGAIN)
            return np.asarray(array[start:stop])

    def _read(self, suffix: str, box: tuple[slice, ...], shape: tuple[int, ...]) -> Any:
        return _read(self.folder / f"{self.cached.name}{suffix}", box, shape, self.checked)


@dataclass(frozen=True)
class PreviousReader:
    """The segmentation of a cached case by the first stage of a cascade; boxes as CaseReader's."""

    folder: Path
    card: PreviousCase
    checked: Checked = field(default_factory=set, compare=False, repr=False)

    def classes(self, box: Box | None = None) -> Classes:
        """(*box) int16."""
        path = self.folder / f"{self.card.name}{IMAGE}"
        return _read(path, _slices(box), self.card.trail.resampled_shape, self.checked, PREVIOUS_REMEDY)


def open_case(folder: Path, name: str) -> CaseReader:
    """Open the cached case `name` of a configuration's folder.

    Raises MvlError when it is not in the cache, is damaged or belongs to another case; so do the reader's methods.
    """
    return CaseReader(folder, _read_card(folder, name, CachedCase, PLAN_AGAIN))


def is_cached(folder: Path, name: str, files_hash: str, settings_hash: str, classes: int) -> bool:
    """Whether the cache has `name`, complete, made from these files (CaseFingerprint) with these settings (Plan).

    classes: how many the dataset has, background included.
    """
    try:
        reader = open_case(folder, name)
        its = (reader.cached.files_hash, reader.cached.settings_hash, len(reader.cached.class_voxels))
        return its == (files_hash, settings_hash, classes) and _is_whole(reader)
    except MvlError:
        return False


def find_stale(
    folder: Path, fingerprint: Fingerprint, settings_hash: str, names: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Of the cases `names`, those that the cache lacks, and those that it has in another state: (missing, stale).

    A case is up to date when it is complete, and was made with these settings (Plan.preprocessing_hash) from the very
    files that the fingerprint describes. Compare the fingerprint's hash with the plan's before.
    """
    described = {case.name: case.files_hash for case in fingerprint.cases}
    missing = [name for name in names if not (folder / f"{checked_name(name, 'case')}{CARD}").is_file()]
    there, classes = set(names) - set(missing), len(fingerprint.labels.class_values)

    def is_stale(name: str) -> bool:
        return name not in described or not is_cached(folder, name, described[name], settings_hash, classes)

    return missing, [name for name in names if name in there and is_stale(name)]


@contextmanager
def shared_lock(folder: Path) -> Iterator[None]:
    """Hold the cache of a configuration for reading: others may read it too, but none may preprocess into it.

    Raises MvlError while another process is preprocessing there.
    """
    with locks.shared_lock(folder, "preprocessing"):
        yield


def write_case(
    folder: Path,
    image: Floats,
    label: Classes,
    cached: CachedCase,
    locations: Mapping[int, Voxels],
    patch_size: Sequence[int] | None = None,
) -> None:
    """Write a case, or replace it; a process that is killed in between leaves no case.

    image: C Z Y X. label: Z Y X. locations: class -> (n, 3). patch_size: of the crops that will be read, Z Y X or
    Y X; None: cubes. Raises MvlError when the folder cannot be written.
    """
    assert cached.shape == image.shape
    assert image.shape[1:] == label.shape
    patch = _in_three_axes(patch_size, label.shape)
    rows, voxels = _one_after_the_other(locations)
    frames = {
        IMAGE: _frame(image.astype(np.float32, copy=False), (1, *patch), cached.name),
        LABEL: _frame(label.astype(np.int16, copy=False), patch, cached.name),
        LOCATIONS: _frame(voxels, voxels.shape, cached.name, rows),
    }
    _write(folder, cached.name, frames, cached)


def share_case(source: Path, folder: Path, name: str) -> None:
    """Put a case of another configuration's folder into this one too: by hard links, where the file system has them.

    Files are replaced, never changed, so neither folder can spoil the other. Raises MvlError when `folder` cannot be
    written.
    """
    _remove(folder / f"{name}{CARD}")
    files = [f"{name}{suffix}" for suffix in (IMAGE, LABEL, LOCATIONS, CARD)]
    with writing_all(*(folder / file for file in files)) as beside:
        for file, path in zip(files, beside, strict=True):
            try:
                os.link(source / file, path)
            except OSError:  # a file system without links
                shutil.copyfile(source / file, path)


def open_previous(folder: Path, name: str) -> PreviousReader:
    """Open the segmentation by a cascade's first stage of the case `name`. Raises MvlError when it is not there."""
    return PreviousReader(folder, _read_card(folder, name, PreviousCase, PREVIOUS_REMEDY))


def is_previous_cached(folder: Path, card: PreviousCase) -> bool:
    """Whether the first stage's segmentation of this case is there, complete, and was made from what `card` names."""
    try:
        reader = open_previous(folder, card.name)
        return reader.card.hash == card.hash and not reader.classes(((0, 0),) * 3).size
    except MvlError:
        return False


def write_previous(folder: Path, classes: Classes, card: PreviousCase, patch_size: Sequence[int] | None = None) -> None:
    """Write, or write anew, what the first stage found in a case: classes Z Y X, of card.trail.resampled_shape.

    Raises MvlError when the folder cannot be written.
    """
    assert classes.shape == card.trail.resampled_shape
    frame = _frame(classes.astype(np.int16, copy=False), _in_three_axes(patch_size, classes.shape), card.name)
    _write(folder, card.name, {IMAGE: frame}, card)


def bricks(shape: Sequence[int], patch: Sequence[int], most: int) -> tuple[int, ...]:
    """Shape of a part of an array with at most `most` elements, in the proportions of `patch` as far as it goes."""
    brick = [1] * len(shape)
    while True:
        open_axes = []
        for axis, size in enumerate(shape):
            grown = min(2 * brick[axis], size)
            if grown > brick[axis] and math.prod(brick) // brick[axis] * grown <= most:
                open_axes.append(axis)
        if not open_axes:
            return tuple(brick)
        axis = min(open_axes, key=lambda axis: brick[axis] / patch[axis])
        brick[axis] = min(2 * brick[axis], shape[axis])


def _write(folder: Path, name: str, frames: Mapping[str, bytes], card: CachedCase | PreviousCase) -> None:
    """The arrays of a case by their suffixes, and its card last; an earlier card goes first."""
    _remove(folder / f"{name}{CARD}")
    with writing_all(*(folder / f"{name}{suffix}" for suffix in (*frames, CARD))) as (*arrays, told):
        for path, frame in zip(arrays, frames.values(), strict=True):
            path.write_bytes(frame)
        told.write_text(as_json(card.model_dump(mode="json")), encoding="utf-8")


def _read_card(folder: Path, name: str, model: type[C], remedy: str) -> C:
    path = folder / f"{checked_name(name, 'case')}{CARD}"
    card = read_document(path, model, remedy)
    if card.name != name:
        raise _damaged(path, f"it belongs to the case {shown(card.name)}", remedy)
    return card


def _frame(
    array: NDArray[Any], patch: tuple[int, ...], case: str, rows: Mapping[str, tuple[int, int]] | None = None
) -> bytes:
    """An array of the case `case` as blosc2 would write it to a file.

    Made in memory, which is faster for many small ones; and on a full disk blosc2 itself fails with its files open,
    so that the space is not given back.
    """
    import blosc2

    parameters = blosc2.CParams(
        codec=blosc2.Codec.LZ4,  # with bit shuffling as small as zstd on images, written and read faster
        clevel=1,
        filters=[blosc2.Filter.BITSHUFFLE],
        typesize=array.itemsize,
        nthreads=1,
    )
    size = [max(axis, 1) for axis in array.shape]
    block = bricks(size, patch, BLOCK_BYTES // array.itemsize)
    chunk = bricks(size, patch, CHUNK_BYTES // array.itemsize)
    bricked = {"chunks": chunk, "blocks": block} if array.size else {}
    stored = blosc2.asarray(
        np.ascontiguousarray(array), contiguous=True, cparams=parameters, dparams=blosc2.DParams(nthreads=1), **bricked
    )
    meta = stored.schunk.vlmeta
    meta[ROWS] = dict(rows or {})
    meta[CASE] = case
    meta[CHECKSUMS] = [_checksum(stored, part) for part in range(-1, stored.schunk.nchunks)]
    return stored.to_cframe()


def _remove(card: Path) -> None:
    try:
        card.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(card, error) from error


def _read(
    path: Path, box: tuple[slice, ...], shape: tuple[int, ...], checked: Checked, remedy: str = PLAN_AGAIN
) -> Any:
    with _opened(path, remedy) as array:
        _check_case(path, array, remedy)
        if array.shape != shape:
            raise MvlError(
                f"holds {shape_text(array.shape)} voxels, its {CARD} says {shape_text(shape)}", file=path, remedy=remedy
            )
        _check(path, array, box, checked, remedy)
        return array[box]


def _check(path: Path, array: Any, box: tuple[slice, ...], checked: Checked, remedy: str) -> None:
    """Raise MvlError when a part of an array that `box` touches has changed; `checked` takes up those that have not.

    The parts are blosc2's chunks; number -1 is the table of the rows of each class.
    """
    import blosc2

    touched = [-1, *map(int, blosc2.get_slice_nchunks(array, box))] if array.size else [-1]
    unchecked = [part for part in touched if (path.suffix, part) not in checked]
    if not unchecked:
        return
    written = array.schunk.vlmeta[CHECKSUMS]
    for part in unchecked:
        if _checksum(array, part) != written[part + 1]:
            raise _damaged(path, "its bytes are not those that were written", remedy)
        checked.add((path.suffix, part))


def _check_case(path: Path, array: Any, remedy: str) -> None:
    """Raise MvlError when an array belongs to another case than its file's name says."""
    meta = array.schunk.vlmeta
    case = meta.get(CASE, path.stem)  # caches of earlier versions do not say
    if case != path.stem:
        raise _damaged(path, f"it belongs to the case {shown(case)}", remedy)


def _checksum(array: Any, part: int) -> int:
    if part < 0:
        return zlib.crc32(json.dumps(array.schunk.vlmeta[ROWS]).encode())
    return zlib.crc32(array.schunk.get_chunk(part))


@contextmanager
def _opened(path: Path, remedy: str = PLAN_AGAIN) -> Iterator[Any]:
    """An array on disk. Raises MvlError when it is missing or damaged."""
    import blosc2

    try:
        check_regular(path)
        yield blosc2.open(str(path), mode="r", mmap_mode="r", dparams=blosc2.DParams(nthreads=1))
    except FileNotFoundError as error:
        raise MvlError("is missing", file=path, remedy=remedy) from error
    except OSError as error:
        raise MvlError(f"cannot be read ({error.strerror or error})", file=path, remedy=remedy) from error
    except DAMAGED as error:
        raise _damaged(path, str(error), remedy) from error


def _damaged(path: Path, reason: str, remedy: str) -> MvlError:
    """The remedy is to delete it: the next run keeps a file that is there and has the right shape."""
    return MvlError(f"is damaged ({reason})", file=path, remedy=f"Delete it. {remedy}")


def _is_whole(reader: CaseReader) -> bool:
    """Whether all arrays open and have their shapes; their voxels are not read."""
    nothing = ((0, 0),) * 3
    return not (reader.image(nothing).size or reader.label(nothing).size or len(reader.locations(-1)))


def _slices(box: Box | None) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box) if box else (slice(None),)


def _in_three_axes(patch_size: Sequence[int] | None, shape: Sequence[int]) -> tuple[int, ...]:
    patch = tuple(patch_size or (1,) * len(shape))
    return (1e-3,) * (len(shape) - len(patch)) + patch  # type: ignore[return-value]


def _one_after_the_other(locations: Mapping[int, Voxels]) -> tuple[dict[str, tuple[int, int]], Voxels]:
    """Rows from start to stop of each class, and all voxels below each other."""
    rows, stop = {}, 0
    for k, voxels in locations.items():
        rows[str(k)] = (stop, stop + len(voxels))
        stop += len(voxels)
    together = np.concatenate([np.zeros((0, 3), np.int32), *locations.values()])
    return rows, together.astype(np.int32)
