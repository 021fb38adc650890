"""A repaired copy of a dataset, in the layout of the original, which is only read.

What can be repaired without guessing is repaired (repair_case.py), everything else is copied byte for byte, and the
problems that remain are in the report. Cases are never left out, and copies of an image never removed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from mvl_auto.datasets import Case, Dataset, files_of, inspect_dataset
from mvl_auto.errors import MvlError
from mvl_auto.files import read_json, write_json
from mvl_auto.jobs import JobFailed, log_trace, run_jobs, worthwhile_workers
from mvl_auto.locks import writing_folder
from mvl_auto.planners.doctor.diagnosis import Finding, examine_dataset
from mvl_auto.planners.doctor.piece import Repair
from mvl_auto.planners.doctor.repair_case import copy_or_report, place_of_repaired, repair_case
from mvl_auto.plans import Document, LabelScheme, write_document
from mvl_auto.progress import Progress, silent

REPORT = "repairs.json"
DESCRIPTION = "dataset.json"
ELSEWHERE = "elsewhere"  # in the copy: files that dataset.json names outside the dataset's folder

log = logging.getLogger(__name__)


class Repairs(Document):
    """What mvl_doctor --fix did: repairs.json in the copy."""

    dataset: str = Field(description="Dataset004_Hippocampus")
    source: str = Field(description="absolute path of the dataset that this is a copy of")
    repairs: tuple[Repair, ...] = Field(description="in the order of the cases")
    remaining: tuple[Finding, ...] = Field(description="findings in the copy")

    @property
    def usable(self) -> bool:
        return not any(finding.prevents_use for finding in self.remaining)


def repair_dataset(folder: Path, out: Path, *, workers: int | None = None, progress: Progress = silent) -> Repairs:
    """Write a repaired copy of the raw dataset in `folder` to `out`, a folder that is new or empty.

    The copy appears whole, with repairs.json, or not at all. workers: as in `fingerprint_dataset`.
    Raises MvlError when dataset.json cannot be read, or the copy has no place or cannot be written.
    """
    folder, out = Path(folder).absolute(), Path(out).absolute()
    check_place(folder, out)
    dataset, _ = inspect_dataset(folder)
    with writing_folder(out, "repairing a dataset") as copy:
        targets, moved = _targets(dataset, copy)
        left = _copy_the_rest(dataset, copy)
        repairs = _repair_cases(dataset, targets, workers, progress)
        _describe(folder, copy, moved | _slices_become_files(targets, copy))
        remaining = examine_dataset(copy, workers=workers, progress=progress).findings
        report = Repairs(dataset=dataset.id, source=str(folder), repairs=(*repairs, *left), remaining=remaining)
        write_document(copy / REPORT, report)
    return report


def check_place(folder: Path, out: Path) -> None:
    """Raises MvlError for a copy inside its original, or the other way round."""
    here, there = Path(folder).resolve(), Path(out).resolve()
    if there.is_relative_to(here) or here.is_relative_to(there):
        raise MvlError(
            f"a copy of {folder} cannot be written there", file=out, remedy="Give a new folder outside the dataset."
        )
    if Path(out).exists() and not (Path(out).is_dir() and not any(Path(out).iterdir())):
        raise MvlError("is there already", file=out, remedy="Give a folder that does not exist yet, or is empty.")


def _targets(dataset: Dataset, copy: Path) -> tuple[dict[Path, Path], dict[Path, str]]:
    """Where each file of a case goes; and for files outside the dataset their new names in dataset.json."""
    targets, moved = {}, {}
    for number, case in enumerate(dataset.cases):
        for channel, path in enumerate((*case.images, case.label)):
            if path is None or path in targets:
                continue
            normal = Path(os.path.normpath(path))
            if normal.is_relative_to(dataset.folder):
                targets[path] = copy / normal.relative_to(dataset.folder)
            else:
                moved[normal] = f"{ELSEWHERE}/{number:04d}/{channel:04d}/{normal.name}"
                targets[path] = copy / moved[normal]
    return targets, moved


def _slices_become_files(targets: dict[Path, Path], copy: Path) -> dict[Path, str]:
    """Folders of DICOM slices whose repaired image is a file in the copy, and how dataset.json calls it then."""
    files = {path: place_of_repaired(target) for path, target in targets.items()}
    return {
        Path(os.path.normpath(path)): str(file.relative_to(copy))
        for path, file in files.items()
        if file != targets[path] and file.is_file()
    }


def _copy_the_rest(dataset: Dataset, copy: Path) -> tuple[Repair, ...]:
    """Copy all that does not belong to a case that can be read; files that cannot be read are in the result."""
    taken = {Path(os.path.normpath(file)) for case in dataset.cases for file in files_of(case)}
    left: list[Repair] = []
    for file in _files_below(dataset.folder):
        if file not in taken:
            left += copy_or_report(file, copy / file.relative_to(dataset.folder), dataset.folder)
    return tuple(left)


def _files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, through links too, but through none twice."""
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (path for path in (Path(here, name) for name in sorted(files)) if os.path.isfile(path))


def _describe(folder: Path, copy: Path, moved: dict[Path, str]) -> None:
    """Write dataset.json with the new names of files from outside, where there are any."""
    if not moved:
        return

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [renamed(item) for item in value]
        return moved.get(Path(os.path.normpath(folder / value)), value) if isinstance(value, str) else value

    content = read_json(folder / DESCRIPTION)
    files = {key: renamed(content[key]) for key in ("dataset", "training") if key in content}
    write_json(copy / DESCRIPTION, content | files)


def _repair_cases(
    dataset: Dataset, targets: dict[Path, Path], workers: int | None, progress: Progress
) -> tuple[Repair, ...]:
    if workers is None:
        files = (file for case in dataset.cases for file in files_of(case))
        workers = worthwhile_workers(files, len(dataset.cases))
    repair = partial(_repair, labels=dataset.labels, targets=targets, folder=dataset.folder)
    repairs: dict[str, tuple[Repair, ...]] = {}
    with progress("repairing", len(dataset.cases)) as advance:
        for case, outcome in run_jobs(repair, dataset.cases, max(1, min(workers, len(dataset.cases)))):
            advance(1, case.name)
            if isinstance(outcome, MvlError):
                raise outcome
            if isinstance(outcome, JobFailed):
                log_trace(log, case.name, outcome)
                raise MvlError(f"could not be repaired: {outcome}", file=case.images[0], remedy="Take the case out.")
            repairs[case.name] = outcome
    return tuple(repair for case in dataset.cases for repair in repairs[case.name])


def _repair(case: Case, labels: LabelScheme, targets: dict[Path, Path], folder: Path) -> tuple[Repair, ...]:
    """In a worker."""
    return repair_case(case, labels, targets, folder)
