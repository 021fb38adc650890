"""Preprocessing of all cases of a dataset, in parallel, into the cache. Cases that are cached already are reused.

A case is read once for all configurations; configurations with equal preprocessing share its files. A cached case is
reused while the hashes of its files and of the preprocessing settings are unchanged, so an interrupted run can be
resumed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvl_auto.arrays import Classes
from mvl_auto.cache import is_cached, share_case, write_case
from mvl_auto.datasets import Case, Dataset, files_of, hash_files, load_case
from mvl_auto.errors import MvlError
from mvl_auto.files import CannotWrite, nothing_unfinished
from mvl_auto.images import Volume
from mvl_auto.jobs import JobFailed, log_trace, run_jobs, worthwhile_workers
from mvl_auto.locks import locked
from mvl_auto.plans import CachedCase, Plan
from mvl_auto.preprocessing.case import preprocess_case
from mvl_auto.progress import Advance, Progress, silent

LOCATIONS_PER_CLASS = 4096  # more than a training draws from one case; 5 MB for 100 classes
LOCATIONS_SEED = 1234

Voxels = NDArray[np.int32]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreprocessingReport:
    """Names of the cases, by outcome. failed: name -> reason, in one line."""

    done: tuple[str, ...]
    reused: tuple[str, ...]
    failed: dict[str, str]


def preprocess_dataset(
    dataset: Dataset,
    plan: Plan,
    names: Sequence[str],
    folder: Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress = silent,
) -> PreprocessingReport:
    """Preprocess every case for the configurations `names` of `plan`, into <folder>/<configuration>.

    workers: processes; None: one per core, fewer where there is little to do. scheduler: the address of a Dask
    cluster to use instead. A case that fails does not stop the others. Raises MvlError when another process works in
    the folder, and CannotWrite at once when it cannot be written; finished cases stay.
    """
    configurations = [plan.configuration(name).name for name in names]
    prepare = partial(prepare_case, plan=plan, names=configurations, folder=folder)
    if workers is None:
        workers = worthwhile_workers((file for case in dataset.cases for file in files_of(case)), len(dataset.cases))
    with ExitStack() as stack:
        for name in configurations:
            stack.enter_context(locked(folder / name, "preprocessing or training"))
            stack.enter_context(nothing_unfinished(folder / name))
        outcomes = run_jobs(prepare, dataset.cases, min(workers, max(1, len(dataset.cases))), scheduler)
        stack.enter_context(closing(outcomes))
        advance = stack.enter_context(progress(f"preparing {', '.join(configurations)}", len(dataset.cases)))
        return gather(outcomes, advance)


def gather(outcomes: Iterable[tuple[Case, bool | MvlError | JobFailed]], advance: Advance) -> PreprocessingReport:
    """What became of each case: True where it was prepared, False where it was cached already. Raises CannotWrite."""
    done: list[str] = []
    reused: list[str] = []
    failed: dict[str, str] = {}
    for case, outcome in outcomes:
        if isinstance(outcome, CannotWrite):
            raise outcome
        advance(1, case.name)
        if isinstance(outcome, MvlError | JobFailed):
            failed[case.name] = _describe_failure(case, outcome)
        else:
            (done if outcome else reused).append(case.name)
    return PreprocessingReport(tuple(sorted(done)), tuple(sorted(reused)), dict(sorted(failed.items())))


def prepare_case(case: Case, plan: Plan, names: Sequence[str], folder: Path) -> bool:
    """Preprocess one case, in a worker. False: all is cached already. Raises MvlError naming the file."""
    files_hash = hash_files(case)
    settings = {name: plan.preprocessing_hash(name) for name in (*names, *plan.configurations)}

    def is_done(name: str) -> bool:
        return is_cached(folder / name, case.name, files_hash, settings[name], len(plan.labels.class_values))

    missing = [name for name in names if not is_done(name)]
    if not missing:
        return False
    if case.label is None:
        raise MvlError("has no label", file=case.images[0], remedy="Add its label file, or remove the image.")
    loaded = None
    for name in missing:
        twins = [other for other in settings if other != name and settings[other] == settings[name] and is_done(other)]
        if twins:  # 3d_fullres and 3d_cascade_fullres have equal preprocessing
            share_case(folder / twins[0], folder / name, case.name)
            continue
        volume, classes = loaded = loaded or load_case(case, plan.labels, len(plan.channels))
        assert classes is not None
        _prepare(case, volume, classes, plan, name, folder / name, (files_hash, settings[name]))
    return True


def sample_locations(label: Classes, num_classes: int) -> dict[int, Voxels]:
    """A sample of the voxels of each foreground class in the label, (n, 3) Z Y X; equal labels give equal samples."""
    from scipy import ndimage

    locations = {}
    boxes = ndimage.find_objects(np.maximum(label, 0), max_label=num_classes - 1)
    for k, box in enumerate(boxes, start=1):
        if box is None:
            continue
        voxels = np.flatnonzero(label[box] == k)
        if len(voxels) > LOCATIONS_PER_CLASS:
            rng = np.random.default_rng([LOCATIONS_SEED, k])
            voxels = np.sort(rng.choice(voxels, LOCATIONS_PER_CLASS, replace=False, shuffle=False))
        places = np.stack(np.unravel_index(voxels, label[box].shape), axis=1)
        locations[k] = (places + [side.start for side in box]).astype(np.int32)
    return locations


def _prepare(
    case: Case, volume: Volume, classes: Classes, plan: Plan, name: str, folder: Path, hashes: tuple[str, str]
) -> None:
    configuration = plan.configuration(name)
    try:
        prepared = preprocess_case(volume.array, volume.spacing, classes, plan, configuration)
    except MvlError as error:
        raise MvlError(error.what, file=case.images[0], remedy=error.remedy) from error
    assert prepared.label is not None
    num_classes = len(plan.labels.class_values)
    voxels = np.bincount(prepared.label[prepared.label >= 0], minlength=num_classes)
    cached = CachedCase(
        name=case.name,
        shape=prepared.image.shape,
        trail=prepared.trail,
        files_hash=hashes[0],
        settings_hash=hashes[1],
        class_voxels=tuple(map(int, voxels)),
    )
    locations = sample_locations(prepared.label, num_classes)
    write_case(folder, prepared.image, prepared.label, cached, locations, configuration.patch_size)


def _describe_failure(case: Case, error: MvlError | JobFailed) -> str:
    if isinstance(error, MvlError):
        return str(error)
    log_trace(log, case.name, error)
    return f"{case.images[0]}: {error}"
