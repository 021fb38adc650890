"""A folder of DICOM as one image: its headers are read first, then the pixels of the volume that is meant."""

from __future__ import annotations

import hashlib
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mvl_auto.arrays import Array
from mvl_auto.errors import MvlError
from mvl_auto.images.dicom.files import ENDINGS, dicom_files
from mvl_auto.images.dicom.frames import frames_of
from mvl_auto.images.dicom.headers import Frame, kind_of_no_image, read_header
from mvl_auto.images.dicom.sorting import DicomVolume, sort_volumes, unique_frames
from mvl_auto.images.dicom.values import reading_dicom
from mvl_auto.images.geometry import FileGrid

LISTED = 4  # volumes in a message
SHORTEST_NAME = 3  # letters of a part of a patient's name that is looked for in the name of a folder
UID_DIGITS = 8  # of the hash that stands for a study in names
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class DicomFolder:
    """What lies in a folder and below it. skipped: reason -> files that are no part of any volume."""

    path: Path
    volumes: tuple[DicomVolume, ...]
    skipped: dict[str, list[Path]]


def scan_folder(folder: Path) -> DicomFolder:
    """Read the headers of all DICOM files in a folder and below it, and sort them into volumes.

    Structure sets, reports, dose, presentation states, localizers and copies of a file are skipped.
    Raises MvlError when a file is damaged, or when there is no image.
    """
    folder = Path(folder)
    frames: list[Frame] = []
    skipped: dict[str, list[Path]] = {}
    for path in dicom_files(folder):
        dataset = read_header(path)
        with reading_dicom(path):
            kind = kind_of_no_image(dataset)
        if kind:
            skipped.setdefault(kind, []).append(path)
        else:
            frames += frames_of(dataset, path)
    frames, copies = unique_frames(frames)
    if copies:
        skipped["copy of another file"] = list(dict.fromkeys(copies))
    if not frames:
        found = f", only {', '.join(sorted(skipped))}" if skipped else ""
        raise MvlError(f"holds no DICOM series{found}", file=folder, remedy="Put the slices of one series there.")
    volumes, beside = sort_volumes(frames)
    return DicomFolder(folder, tuple(volumes), skipped | beside)


def read_dicom(folder: Path, name: str = "") -> tuple[Array, FileGrid]:
    """Read a volume of a folder. Returns (C, i, j, k) as its headers scale it, and its grid.

    name: of the volume (`DicomVolume.name`), where there are several.
    Raises MvlError when there is none or more than one without a name, when slices are missing, or when a file cannot
    be read.
    """
    from mvl_auto.images.dicom.grid import grid_of
    from mvl_auto.images.dicom.pixels import read_voxels

    found = scan_folder(folder)
    for reason, files in found.skipped.items():
        count = "1 file" if len(files) == 1 else f"{len(files)} files"
        log.debug("%s: %s skipped: %s (%s)", folder, count, reason, files[0].name)
    volume = _chosen(found, name)
    grid = grid_of(volume, folder)
    return read_voxels(volume), grid


def files_of_volume(folder: Path, name: str) -> list[Path]:
    """The files of one volume of a folder. Raises MvlError as `scan_folder` does."""
    return list(dict.fromkeys(frame.file for frame in _chosen(scan_folder(folder), name).frames))


def named_volumes(folder: Path, own_name: str) -> list[tuple[str, str]]:
    """The volumes of a folder as cases: name of the case, name of the volume in the folder.

    own_name: the folder's name as a case. It is used where the slices lie in the folder itself or one level below it
    and are of one study, unless it holds the patient's name. Of several studies, a volume that is one file of the
    folder itself, such as a radiograph, has the file's name in the same way. Otherwise names are made of a hash of the
    study's UID and the number of the series (`study3f2a9c01_series4`): names of deeper folders, which tell patients,
    are not used.
    Raises MvlError as `scan_folder` does.
    """
    volumes = scan_folder(folder).volumes
    studies = {frame.study for volume in volumes for frame in volume.frames}
    is_plain = len(studies) == 1 and not any(_is_deep(folder, volume) for volume in volumes)
    if is_plain and not any(_tells_patient(own_name, volume.frames[0]) for volume in volumes):
        return [(f"{own_name}_{volume.name}" if volume.name else own_name, volume.name) for volume in volumes]
    names = [_name_of_file(folder, volume) or _neutral_name(volume) for volume in volumes]
    taken: Counter[str] = Counter()
    cases = []
    for volume, name in zip(volumes, names, strict=True):
        taken[name] += 1
        cases.append((f"{name}_{taken[name]}" if names.count(name) > 1 else name, volume.name))
    for volume, (name, _) in zip(volumes, cases, strict=True):
        log.debug("%s: the case '%s'", volume.frames[0].file.parent, name)
    return cases


def _chosen(found: DicomFolder, name: str) -> DicomVolume:
    if not name and len(found.volumes) == 1:
        return found.volumes[0]
    for volume in found.volumes:
        if name and volume.name == name:
            return volume
    if name:
        raise MvlError(f"holds no DICOM volume '{name}'", file=found.path, remedy="Run the command again.")
    raise MvlError(
        f"holds {len(found.volumes)} DICOM volumes: {_described(found.volumes)}",
        file=found.path,
        remedy="Give each image a folder with the slices of one of them.",
    )


def _described(volumes: Sequence[DicomVolume]) -> str:
    told = []
    for volume in volumes[:LISTED]:
        count = f"{len(volume.frames)} slice{'s' * (len(volume.frames) != 1)}"
        told.append(f"{volume.name} ({', '.join(filter(None, [volume.differs, count]))})")
    more = f" and {len(volumes) - LISTED} more" if len(volumes) > LISTED else ""
    return ", ".join(told) + more


def _is_deep(folder: Path, volume: DicomVolume) -> bool:
    """Whether slices lie two levels below the folder or deeper, as in PATIENT/STUDY/SERIES."""
    return any(len(frame.file.relative_to(folder).parts) > 2 for frame in volume.frames)


def _name_of_file(folder: Path, volume: DicomVolume) -> str:
    """The name of a volume that is one file of the folder; empty for others, and where it holds the patient's name."""
    file, *others = dict.fromkeys(frame.file for frame in volume.frames)
    name = unicodedata.normalize("NFC", file.stem if file.suffix.lower() in ENDINGS else file.name)
    is_usable = not others and file.parent == folder and not _tells_patient(name, volume.frames[0])
    return name if is_usable else ""


def _tells_patient(name: str, frame: Frame) -> bool:
    """Whether a name has a part of the patient's name in it; one that is the patient's ID too is a pseudonym."""
    if frame.patient == frame.patient_id:
        return False
    parts = re.findall(rf"[^\W\d_]{{{SHORTEST_NAME},}}", frame.patient.casefold())
    return bool(set(parts) & set(re.findall(r"[^\W\d_]+", name.casefold())))


def _neutral_name(volume: DicomVolume) -> str:
    first = volume.frames[0]
    study = hashlib.sha256(first.study.encode()).hexdigest()[:UID_DIGITS]
    rest = [
        word for word in volume.name.split("_") if word and not word.startswith("series") and not word.isdigit()
    ]  # the study tells more
    return "_".join([f"study{study}", f"series{first.series_number or 0}", *rest])
