"""The cascade: beside the image its second stage sees what the first stage, at a coarser resolution, found in it.

nnU-Net's (Isensee et al. 2021): the segmentation of the whole image, on the second stage's grid, is one more channel
of 0 and 1 for each label or region. A new image is segmented by all folds of the first stage together. In training
that would not do: a network segments the cases it was trained on better than any other, and the second stage would
learn to trust it more than it deserves. So it gets of each training case the segmentation by the one fold that has
not seen it, which lies in that fold's folder `validation` since it was trained:

    results/<dataset>/3d_lowres/fold<k>/validation/<case><ending>   ->   <cache of the second stage>/previous/<run>/

Otherwise than nnU-Net, which brings the first stage's probabilities straight to the second's grid in training and its
segmentation in prediction, both go through the segmentation in native space: training sees what prediction will see.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mvl_auto.arrays import Classes
from mvl_auto.cache import is_previous_cached, open_case, write_previous
from mvl_auto.datasets import to_classes
from mvl_auto.errors import MvlError
from mvl_auto.files import nothing_unfinished, sha256_of_file
from mvl_auto.images import read_label
from mvl_auto.jobs import run_jobs, worthwhile_workers
from mvl_auto.locks import locked
from mvl_auto.plans import Configuration, LabelScheme, Plan, PreviousCase, Shape, Splits
from mvl_auto.preprocessing.case import preprocess_label
from mvl_auto.progress import Progress, silent
from mvl_auto.runs import VALIDATION, PreviousReference, State, TrainedRun, read_run, short_name
from mvl_auto.runs.run import subfolders
from mvl_auto.text import shape_text

PREVIOUS = "previous"  # subfolder of the second stage's cache
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unseen:
    """The first stage's segmentation of one case that was kept from its training."""

    case: str
    fold: str  # whose network made it
    file: Path


@dataclass(frozen=True)
class FirstStage:
    """A run of the first stage, trained on all folds, with its segmentations of the cases of each."""

    run: TrainedRun
    unseen: dict[str, Unseen]  # by case
    reference: PreviousReference

    def classes(self, case: str) -> Classes:
        """What it found in a case: (Z, Y, X), canonical, the image's own voxels."""
        return read_classes(self.unseen[case].file, self.run.plan.labels)


def find_first_stage(
    results_folder: Path, plan: Plan, configuration: Configuration, splits: Splits, run: str | None = None
) -> FirstStage:
    """The first stage for `configuration`, a cascade's second one.

    results_folder: of the dataset. run: the name of the first stage's run; default: its configuration's.
    Raises MvlError when that run is not there, was trained on other data, or lacks a fold, saying how to train it.
    """
    stage = configuration.previous_stage
    assert stage is not None
    folder = results_folder / (run or stage)
    trained = read_run(folder, stage) if folder.is_dir() else TrainedRun(folder, ())
    if not trained.folds:
        runs = subfolders(results_folder) if results_folder.is_dir() else []
        if others := [each.name for each in runs if read_run(each, stage).folds]:
            raise MvlError(
                f"holds no trained network of {stage}, the first stage of {configuration.name}",
                file=folder,
                remedy=f"Choose another run with --previous {' or '.join(others)}.",
            )
    by_name = {state.fold: (fold, state) for fold, state in trained.folds}
    missing: list[str] = []
    found: dict[str, Unseen] = {}
    for number, cases in enumerate(splits.folds):
        fold = str(number)
        if fold not in by_name:
            missing.append(fold)
            continue
        _check_data(trained, by_name[fold][1], plan, cases)
        its = [Unseen(case, fold, _file(by_name[fold][0], case, trained.plan)) for case in cases]
        if not by_name[fold][1].finished or not all(each.file.is_file() for each in its):
            missing.append(fold)
        found |= {each.case: each for each in its}
    if missing:
        raise _untrained(missing, configuration, plan, folder)
    complete = TrainedRun(folder, tuple(by_name[str(number)] for number in range(len(splits.folds))))
    reference = PreviousReference(run=folder.name, configuration=stage, checkpoints=complete.checkpoints())
    return FirstStage(complete, found, reference)


def prepare_first_stage(
    first: FirstStage,
    cache: Path,
    names: Sequence[str],
    patch_size: Shape,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Bring what the first stage found in the cases `names` to the grid of their cached images; returns its folder.

    cache: of the second stage. What is there, made by the same networks, is kept. workers: processes; None: one per
    core, fewer where there is little to do. Raises MvlError for a segmentation that cannot be read, or does not fit.
    """
    folder = cache / PREVIOUS / first.run.folder.name
    jobs = [first.unseen[name] for name in names]
    prepare = partial(
        prepare_unseen,
        run=first.run.folder.name,
        checkpoints=first.reference.checkpoints,
        labels=first.run.plan.labels,
        cache=cache,
        folder=folder,
        patch_size=patch_size,
    )
    workers = worthwhile_workers((job.file for job in jobs), len(jobs)) if workers is None else workers
    what = f"preparing what {first.run.folder.name} found"
    with (
        locked(folder, what, wait=True),
        nothing_unfinished(folder),
        closing(run_jobs(prepare, jobs, workers)) as outcomes,
        progress(what, len(jobs)) as advance,
    ):
        for job, outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            advance(1, note=job.case)
    return folder


def prepare_unseen(
    unseen: Unseen,
    run: str,
    checkpoints: dict[str, str],
    labels: LabelScheme,
    cache: Path,
    folder: Path,
    patch_size: Shape,
) -> bool:
    """In a worker: whether there was anything to do for this case. Raises MvlError naming its file."""
    cached = open_case(cache, unseen.case).cached
    card = PreviousCase(
        name=unseen.case,
        trail=cached.trail,
        run=run,
        fold=unseen.fold,
        checkpoint=checkpoints[unseen.fold],
        prediction=sha256_of_file(unseen.file),
    )
    if is_previous_cached(folder, card):
        return False
    classes = read_classes(unseen.file, labels)
    if classes.shape != cached.trail.shape:
        raise MvlError(
            f"is {shape_text(classes.shape)} voxels, its image {shape_text(cached.trail.shape)}",
            file=unseen.file,
            remedy=f"Delete it and run mvl_train again for fold {unseen.fold} of {run}.",
        )
    write_previous(folder, preprocess_label(classes, cached.trail), card, patch_size)
    return True


def read_classes(file: Path, labels: LabelScheme) -> Classes:
    """The classes (Z, Y, X, canonical) of a segmentation in the files' own values."""
    return to_classes(read_label(file)[0], labels, file)


def _file(fold: Path, case: str, plan: Plan) -> Path:
    return fold / VALIDATION / f"{case}{plan.file_ending}"


def _check_data(trained: TrainedRun, state: State, plan: Plan, cases: Sequence[str]) -> None:
    """Raise MvlError unless the fold was trained on the data, labels and splits that are now to be trained on."""
    theirs = (trained.plan.fingerprint_hash, trained.plan.labels, trained.plan.hash, state.validation_cases)
    if theirs != (plan.fingerprint_hash, plan.labels, state.plan_hash, tuple(cases)):
        raise MvlError(
            f"has a fold {state.fold} that was trained on another state of the dataset, or its splits",
            file=trained.folder,
            remedy="Choose another run with --previous RUN, or delete that fold and train it again.",
        )


def _untrained(folds: Sequence[str], configuration: Configuration, plan: Plan, folder: Path) -> MvlError:
    stage = configuration.previous_stage
    many = len(folds) > 1
    named = f" -n {folder.name}" if folder.name != stage else ""
    return MvlError(
        f"{configuration.name} is trained on what {stage} finds in cases that it has not seen, and fold{'s' * many} "
        f"{', '.join(folds)} of it {'are' if many else 'is'} not trained to {'their' if many else 'its'} end",
        file=folder,
        remedy=f"Run mvl_train {short_name(plan.dataset)} {' '.join(folds)} -c {stage}{named} first.",
    )
