"""Examinations on disk: what a case was found to be holds while its files, and what they are held to, are the same.

    <case>.npz   card                           the rest of the examination, as JSON
                 moments_0, buckets_0, ...      the sketch of each channel, number by number

Each is written as soon as its case has been examined, so that a fingerprint that was killed, or that refused the
dataset for one broken case, costs the next one only what is missing. The patient that a case belongs to is not in it:
groups.csv may change, the voxels have not.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mvl_auto.datasets import Case, hash_files
from mvl_auto.errors import MvlError
from mvl_auto.files import cannot_write, sha256_of_json, writing
from mvl_auto.planners.fingerprint.case import EXAMINATION_VERSION, Examination, examine_case, name_in
from mvl_auto.planners.fingerprint.intensities import Sketch
from mvl_auto.plans import Anomaly, CaseFingerprint, Frozen, LabelScheme

ENDING = ".npz"
DAMAGED = (  # what numpy, zipfile and pydantic raise for bytes that make no sense
    OSError,
    EOFError,
    LookupError,
    ValueError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


class CannotKeep(MvlError):
    """An examination could not be written: the folder is full or read-only, for the next case as for this one."""


class Card(Frozen):
    """All of an examination but its sketches."""

    held_to: str  # of `_held_to`
    fingerprint: CaseFingerprint
    anomalies: tuple[Anomaly, ...]
    channels: int  # that have a sketch


def examine_once(
    case: Case, labels: LabelScheme, channels: int, folder: Path, keep: Path | None
) -> tuple[Examination, bool]:
    """The examination of a case, and whether it was known from before.

    labels, channels, folder: as in `examine_case`. keep: where examinations are kept; None: nowhere.
    Raises MvlError for a case that cannot be used, CannotKeep when `keep` cannot be written.
    """
    if keep is None:
        return examine_case(case, labels, channels, folder), False
    path, held_to = keep / f"{case.name}{ENDING}", _held_to(case, labels, channels, folder)
    known = _read(path, held_to)
    if known is not None and known.fingerprint.files_hash == hash_files(case):
        return known, True
    examination = examine_case(case, labels, channels, folder)
    _write(path, held_to, examination)
    return examination, False


def forget_others(keep: Path, names: Iterable[str]) -> None:
    """Remove the examinations of cases that are not among `names`: they have left the dataset.

    Raises CannotKeep when `keep` cannot be written.
    """
    files = {f"{name}{ENDING}" for name in names}
    for path in keep.glob(f"*{ENDING}"):
        if path.name not in files:
            try:
                path.unlink()
            except OSError as error:
                raise _cannot_keep(cannot_write(path, error)) from error


def _held_to(case: Case, labels: LabelScheme, channels: int, folder: Path) -> str:
    """sha256 of all that decides an examination beside the bytes of the case's files; anomalies name the files."""
    files = [name_in(folder, file) for file in (*case.images, case.label) if file is not None]
    return sha256_of_json([EXAMINATION_VERSION, case.name, files, labels.model_dump(mode="json"), channels])


def _write(path: Path, held_to: str, examination: Examination) -> None:
    card = Card(
        held_to=held_to,
        fingerprint=examination.fingerprint,
        anomalies=examination.anomalies,
        channels=len(examination.sketches),
    )
    arrays: dict[str, Any] = {"card": np.frombuffer(json.dumps(card.model_dump(mode="json")).encode(), np.uint8)}
    for channel, sketch in enumerate(examination.sketches):
        arrays[f"moments_{channel}"] = np.array([sketch.mean, sketch.variance, sketch.least, sketch.greatest])
        arrays[f"buckets_{channel}"] = sketch.buckets
        arrays[f"shares_{channel}"] = sketch.shares
    try:
        with writing(path) as beside:
            np.savez_compressed(beside, **arrays)
    except MvlError as error:
        raise _cannot_keep(error) from error


def _read(path: Path, held_to: str) -> Examination | None:
    """None where there is none, a damaged one (zip has checksums), or one that was held to something else."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            card = Card.model_validate(json.loads(stored["card"].tobytes()))
            if card.held_to != held_to:
                return None
            sketches = tuple(_sketch(stored, channel) for channel in range(card.channels))
    except DAMAGED:
        return None
    return Examination(card.fingerprint, sketches, card.anomalies)


def _sketch(stored: Mapping[str, Any], channel: int) -> Sketch:
    mean, variance, least, greatest = stored[f"moments_{channel}"].tolist()
    return Sketch(mean, variance, least, greatest, stored[f"buckets_{channel}"], stored[f"shares_{channel}"])


def _cannot_keep(error: MvlError) -> CannotKeep:
    return CannotKeep(error.what, file=error.file, remedy=error.remedy)
