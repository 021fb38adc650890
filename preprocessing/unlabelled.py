"""Images without labels, prepared as the plan says, into a cache of their own: pretraining reads them.

A cached image is used again while its files and the settings are the same.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from mvl_auto.cache import is_cached, write_case
from mvl_auto.datasets import Case, files_of, hash_files, load_case
from mvl_auto.errors import MvlError
from mvl_auto.files import ensure_writable_folder, nothing_unfinished
from mvl_auto.images.remarks import Remarks, remark_on, tell_remarks
from mvl_auto.jobs import JobFailed, run_jobs, worthwhile_workers
from mvl_auto.locks import locked
from mvl_auto.plans import IGNORE, CachedCase, Plan
from mvl_auto.preprocessing.case import preprocess_case
from mvl_auto.preprocessing.dataset import PreprocessingReport, gather
from mvl_auto.progress import Progress, silent

UNLABELLED = "unlabelled"  # folder in that of a configuration's cache
DIGITS = 12

log = logging.getLogger(__name__)


def cache_of(images: Path, cache: Path) -> Path:
    """Where the images of a folder are cached: in a folder called after it, so that equal names do not meet.

    cache: of the configuration.
    """
    return (
        cache / UNLABELLED / hashlib.sha256(str(images.resolve()).encode(errors="surrogatepass")).hexdigest()[:DIGITS]
    )


def preprocess_images(
    cases: Sequence[Case],
    plan: Plan,
    configuration: str,
    folder: Path,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> PreprocessingReport:
    """Prepare every image for one configuration of `plan`, into `folder`.

    workers: processes; None: one per core, fewer where there is little to do. An image that fails does not stop the
    others. Raises MvlError when another process works in the folder, and CannotWrite when it cannot be written.
    """
    if workers is None:
        workers = worthwhile_workers((file for case in cases for file in files_of(case)), len(cases))
    prepare = partial(prepare_image, plan=plan, configuration=configuration, folder=folder)
    remarks: Remarks = {}
    with (
        locked(ensure_writable_folder(folder), "preprocessing or training"),
        nothing_unfinished(folder),
        closing(run_jobs(prepare, cases, min(workers, max(1, len(cases))), None)) as outcomes,
        progress("preparing images without labels", len(cases)) as advance,
    ):
        report = gather(_apart_from_remarks(outcomes, remarks), advance)
    tell_remarks(log, remarks)
    return report


def _apart_from_remarks(
    outcomes: Iterable[tuple[Case, str | MvlError | JobFailed | None]], remarks: Remarks
) -> Iterator[tuple[Case, bool | MvlError | JobFailed]]:
    """The outcomes as `gather` reads them; what to know of images is added to `remarks`."""
    for case, outcome in outcomes:
        if isinstance(outcome, MvlError | JobFailed):
            yield case, outcome
            continue
        if outcome:
            remarks.setdefault(outcome, []).append(case.images[0])
        yield case, outcome is not None


def prepare_image(case: Case, plan: Plan, configuration: str, folder: Path) -> str | None:
    """Prepare one image, in a worker. Returns what to know of its file, None where it is cached already.

    Raises MvlError naming the file.
    """
    files_hash, settings = hash_files(case), plan.preprocessing_hash(configuration)
    if is_cached(folder, case.name, files_hash, settings, len(plan.labels.class_values)):
        return None
    volume, _ = load_case(case, plan.labels, len(plan.channels))
    chosen = plan.configuration(configuration)
    try:
        prepared = preprocess_case(volume.array, volume.spacing, None, plan, chosen)
    except MvlError as error:
        raise MvlError(error.what, file=case.images[0], remedy=error.remedy) from error
    cached = CachedCase(
        name=case.name,
        shape=prepared.image.shape,
        trail=prepared.trail,
        files_hash=files_hash,
        settings_hash=settings,
        class_voxels=(0,) * len(plan.labels.class_values),
    )
    unknown = np.full(prepared.image.shape[1:], IGNORE, np.int16)
    write_case(folder, prepared.image, unknown, cached, {}, chosen.patch_size)
    return remark_on(volume.geometry.file)
