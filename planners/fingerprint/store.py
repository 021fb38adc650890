"""Per-case fingerprint cache: an entry is reused while the case's files and labels are unchanged (by hash).

    <case>.npz   card                           all but the sketches, as JSON
                 moments_0, buckets_0, ...      the sketch of each channel

Each entry is written as soon as its case has been read: if fingerprinting is interrupted, or refuses the dataset for
one damaged case, the next run reads only what is missing. The patient of a case is not in its entry, as groups.csv may
change while the voxels stay the same.
"""

from __future__ import annotations

import json
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvl_auto.datasets import Case, hash_files
from mvl_auto.errors import MvlError
from mvl_auto.files import cannot_write, sha256_of_json, writing
from mvl_auto.planners.fingerprint.case import FINGERPRINT_VERSION, FingerprintedCase, fingerprint_case, name_in
from mvl_auto.planners.fingerprint.intensities import Sketch
from mvl_auto.plans import Anomaly, CaseFingerprint, Frozen, LabelScheme

ENDING = ".npz"
DAMAGED = (  # what numpy, zipfile and pydantic raise for bytes that make no sense
    OSError,
    EOFError,
    LookupError,
    ValueError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,  # of numpy's reader of headers that Python 2 wrote
    zipfile.BadZipFile,
    zlib.error,
)


class CannotCache(MvlError):
    """A cache entry could not be written: the disk is full or read-only, for the next case too."""


class Card(Frozen):
    """A cache entry without its sketches."""

    conditions: str  # of `_conditions_hash`
    fingerprint: CaseFingerprint
    anomalies: tuple[Anomaly, ...]
    channels: int  # that have a sketch


def fingerprint_once(
    case: Case, labels: LabelScheme, channels: int, folder: Path, cache: Path | None
) -> tuple[FingerprintedCase, bool]:
    """The fingerprint of a case, and whether it came from the cache.

    labels, channels, folder: as in `fingerprint_case`. cache: folder of the cache; None: there is none.
    Raises MvlError for a case that cannot be used, CannotCache when `cache` cannot be written.
    """
    if cache is None:
        return fingerprint_case(case, labels, channels, folder), False
    path, conditions = cache / f"{case.name}{ENDING}", _conditions_hash(case, labels, channels, folder)
    known = _read(path, conditions)
    if known is not None and known.fingerprint.files_hash == hash_files(case):
        return known, True
    fingerprinted = fingerprint_case(case, labels, channels, folder)
    _write(path, conditions, fingerprinted)
    return fingerprinted, False


def remove_other_entries(cache: Path, names: Iterable[str]) -> None:
    """Remove the entries of cases that are not among `names`: they are no longer in the dataset.

    Raises CannotCache when `cache` cannot be written.
    """
    files = {f"{name}{ENDING}" for name in names}
    for path in cache.glob(f"*{ENDING}"):
        if path.name not in files:
            try:
                path.unlink()
            except OSError as error:
                raise _cannot_cache(cannot_write(path, error)) from error


def _conditions_hash(case: Case, labels: LabelScheme, channels: int, folder: Path) -> str:
    """sha256 of all that decides an entry beside the bytes of the case's files; anomalies name these files."""
    files = [name_in(folder, file) for file in (*case.images, case.label) if file is not None]
    return sha256_of_json([FINGERPRINT_VERSION, case.name, files, labels.model_dump(mode="json"), channels])


def _write(path: Path, conditions: str, fingerprinted: FingerprintedCase) -> None:
    card = Card(
        conditions=conditions,
        fingerprint=fingerprinted.fingerprint,
        anomalies=fingerprinted.anomalies,
        channels=len(fingerprinted.sketches),
    )
    arrays: dict[str, Any] = {"card": np.frombuffer(json.dumps(card.model_dump(mode="json")).encode(), np.uint8)}
    for channel, sketch in enumerate(fingerprinted.sketches):
        arrays[f"moments_{channel}"] = np.array([sketch.mean, sketch.variance, sketch.least, sketch.greatest])
        arrays[f"buckets_{channel}"] = sketch.buckets
        arrays[f"shares_{channel}"] = sketch.shares
    try:
        with writing(path) as beside:
            np.savez_compressed(beside, **arrays)
    except MvlError as error:
        raise _cannot_cache(error) from error


def _read(path: Path, conditions: str) -> FingerprintedCase | None:
    """None where there is no entry, where it is damaged (zip has checksums), or where the conditions have changed."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            card = Card.model_validate(json.loads(_array(stored, "card").tobytes()))
            if card.conditions != conditions:
                return None
            sketches = tuple(_sketch(stored, channel) for channel in range(card.channels))
    except DAMAGED:
        return None
    return FingerprintedCase(card.fingerprint, sketches, card.anomalies)


def _sketch(stored: Mapping[str, Any], channel: int) -> Sketch:
    mean, variance, least, greatest = _array(stored, f"moments_{channel}").tolist()
    return Sketch(
        mean, variance, least, greatest, _array(stored, f"buckets_{channel}"), _array(stored, f"shares_{channel}")
    )


def _array(stored: Mapping[str, Any], name: str) -> NDArray[Any]:
    """Raises ValueError for a member whose first bytes are not those of an array, which numpy gives as bytes."""
    value = stored[name]
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} is not an array")
    return value


def _cannot_cache(error: MvlError) -> CannotCache:
    return CannotCache(error.what, file=error.file, remedy=error.remedy)
