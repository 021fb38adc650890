"""One case, read and checked: its image, its classes, and the hash of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvl_auto.datasets.cases import Case, files_behind
from mvl_auto.datasets.labels import to_classes
from mvl_auto.errors import MvlError, all_noted, noting
from mvl_auto.files import Hashes, reading, sha256_of_file
from mvl_auto.images import Volume, check_finite, check_same_geometry, read_image, read_label
from mvl_auto.plans import LabelScheme


def load_case(
    case: Case, labels: LabelScheme, num_channels: int | None = None, hashes: Hashes | None = None
) -> tuple[Volume, NDArray[np.int16] | None]:
    """Read a case and check all that can be wrong with it.

    Returns the image and its classes (Z, Y, X), or None for a case without a label. hashes: takes up the sha256 of
    the files whose bytes were in hand, for `hash_files`.
    Raises MvlError when a file cannot be read, the image holds NaN or infinity, has another number of
    channels than `num_channels`, or the label's size, place or values do not fit; its `others` are what else is wrong.
    """
    volume = label = classes = None
    problems: list[MvlError] = []
    with noting(problems):
        volume = read_image(case.images, hashes, case.dicom_volume)
        with noting(problems):
            _check_channels(volume, num_channels, case.images[0])
        check_finite(volume, case.images)
    if case.label is not None:
        with noting(problems):
            label, geometry = read_label(case.label, hashes)
            if volume is not None:
                with noting(problems):
                    check_same_geometry(volume.geometry, geometry, case.images[0], case.label)
            classes = to_classes(label, labels, case.label)
    if problems:
        raise all_noted(problems)
    assert volume is not None
    return volume, classes


def hash_files(case: Case, hashes: Hashes | None = None) -> str:
    """sha256 over the bytes of all files of a case, in a fixed order, whatever their names.

    hashes: of files that need not be read again. Raises MvlError naming a file that cannot be read.
    """
    known = hashes or {}
    digest = hashlib.sha256()
    for path in (*case.images, case.label):
        for file in [] if path is None else files_behind(path, case.dicom_volume if path != case.label else ""):
            with reading(file):
                digest.update(bytes.fromhex(known.get(file) or sha256_of_file(file)))
    return digest.hexdigest()


def _check_channels(volume: Volume, expected: int | None, file: Path) -> None:
    if expected is not None and volume.num_channels != expected:
        raise MvlError(
            f"has {volume.num_channels} channel{'s' * (volume.num_channels != 1)}, expected {expected}",
            file=file,
            remedy="Give every case the channels that dataset.json names.",
        )
