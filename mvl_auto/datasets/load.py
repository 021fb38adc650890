"""One case, read and checked: its image, its classes, and the hash of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvl_auto.arrays import Array
from mvl_auto.datasets.cases import Case, files_behind
from mvl_auto.datasets.labels import LISTED, to_classes
from mvl_auto.datasets.segments import read_values
from mvl_auto.errors import MvlError, all_noted, noting
from mvl_auto.files import Hashes, reading, sha256_of_file
from mvl_auto.images import Geometry, Volume, check_finite, check_same_geometry, read_image, stored_values
from mvl_auto.plans import LabelScheme
from mvl_auto.text import count_text


def load_case(
    case: Case, labels: LabelScheme, num_channels: int | None = None, hashes: Hashes | None = None
) -> tuple[Volume, NDArray[np.int16] | None]:
    """Read a case and check it.

    Returns the image and its classes (Z, Y, X), or None for a case without a label. hashes: receives the sha256 of
    the files that are read here, for `hash_files`.
    Raises MvlError when a file cannot be read, the image holds NaN or infinity, has another number of
    channels than `num_channels`, or the label's size, place or values do not fit; its `others` are the further errors.
    """
    volume = classes = None
    problems: list[MvlError] = []
    with noting(problems):
        volume = read_image(case.images, hashes, case.dicom_volume)
        with noting(problems):
            _check_channels(volume, num_channels, case.images[0])
        check_finite(volume, case.images)
    if case.label is not None:
        with noting(problems):
            image = None if volume is None else volume.geometry
            values, geometry = read_values(case.label, labels, image, hashes)
            if image is not None:
                with noting(problems):
                    check_same_geometry(image, geometry, case.images[0], case.label)
            classes = _known_classes(values, labels, geometry, case.label)
    if problems:
        raise all_noted(problems)
    assert volume is not None
    return volume, classes


def load_label(
    path: Path, labels: LabelScheme, image: Geometry | None = None, hashes: Hashes | None = None
) -> tuple[NDArray[np.int16], Geometry]:
    """Read a label file as classes (Z, Y, X), and its geometry. image: as in `read_values`.

    Raises MvlError when it cannot be read or holds values or segments that dataset.json does not name.
    """
    values, geometry = read_values(path, labels, image, hashes)
    return _known_classes(values, labels, geometry, path), geometry


def _known_classes(values: Array, labels: LabelScheme, geometry: Geometry, path: Path) -> NDArray[np.int16]:
    """As `to_classes`, with a message of its own for values that a copied header has shifted."""
    try:
        return to_classes(values, labels, path)
    except MvlError as error:
        stored = stored_values(values, geometry.file)
        if stored is None or not np.isin(stored, list(labels.class_values)).all():
            raise
        found = ", ".join(str(int(value)) for value in np.unique(values)[:LISTED])
        what = f"has the label values {found} by the scaling of its header; as stored, dataset.json names all of them"
        remedy = "Run mvl_doctor --fix FOLDER: the copy that it writes has the stored values."
        raise MvlError(what, file=path, remedy=remedy) from error


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
            f"has {count_text(volume.num_channels, 'channel')}, expected {expected}",
            file=file,
            remedy="Give every case the channels that dataset.json names.",
        )
