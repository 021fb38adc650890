"""Images without labels, prepared as the plan says, into a cache of their own: pretraining reads them.

A cached image is used again while its files and the settings are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from mvl_auto.cache import is_cached, write_case
from mvl_auto.datasets import Case, files_of, hash_files, load_case
from mvl_auto.errors import MvlError
from mvl_auto.files import clear_unfinished, ensure_writable_folder, locked
from mvl_auto.jobs import run_jobs, worthwhile_workers
from mvl_auto.plans import IGNORE, CachedCase, Plan
from mvl_auto.preprocessing.case import preprocess_case
from mvl_auto.preprocessing.dataset import PreprocessingReport, gather
from mvl_auto.progress import Progress, silent

UNLABELLED = "unlabelled"  # folder in that of a configuration's cache
DIGITS = 12


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
    with locked(ensure_writable_folder(folder), "preprocessing or training"):
        clear_unfinished(folder)
        try:
            with (
                closing(run_jobs(prepare, cases, min(workers, max(1, len(cases))), None)) as outcomes,
                progress("preparing images without labels", len(cases)) as advance,
            ):
                return gather(outcomes, advance)
        finally:
            clear_unfinished(folder)


def prepare_image(case: Case, plan: Plan, configuration: str, folder: Path) -> bool:
    """Prepare one image, in a worker. False: it is cached already. Raises MvlError naming the file."""
    files_hash, settings = hash_files(case), plan.preprocessing_hash(configuration)
    if is_cached(folder, case.name, files_hash, settings):
        return False
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
    return True
