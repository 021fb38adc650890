"""Pretrain: the network of a configuration learns to find hidden parts of images again, before it learns labels.

The images are those of the dataset, and those of a folder that has no labels. No label is read. A checkpoint of it is
what `mvl_train --from` takes (finetune.py).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.cache import open_case, shared_lock
from mvl_auto.datasets import cases_to_predict
from mvl_auto.errors import MvlError, all_noted
from mvl_auto.files import clear_unfinished, ensure_writable_folder
from mvl_auto.locks import locked
from mvl_auto.logs import LOG, log_file
from mvl_auto.network.device import choose_device
from mvl_auto.network.reconstruction import reconstruction_loss
from mvl_auto.network.step import step_context
from mvl_auto.outputs import TRACES, check_apart, leaving_no_trace
from mvl_auto.plans import PLAN_AGAIN, Splits, read_document
from mvl_auto.preprocessing.unlabelled import cache_of, preprocess_images
from mvl_auto.progress import Progress, silent
from mvl_auto.ranks import rank_here
from mvl_auto.runs import ALL
from mvl_auto.runs import checkpoint as ckpt
from mvl_auto.runs.trained import load_block_of
from mvl_auto.text import count_text
from mvl_auto.training.cases import Cases, memory_for_cases
from mvl_auto.training.job import FoldOfPlan, Places, TrainingJob
from mvl_auto.training.lookup import Changes, cases_of_fold, check_cache, keep_plan, read_plan
from mvl_auto.training.masking import MaskedPatches
from mvl_auto.training.patches import Patches
from mvl_auto.training.schedule import TrainingLimit
from mvl_auto.training.task import Task, carry_out, first_state
from mvl_auto.training.train import DEFAULTS, TrainingOptions

if TYPE_CHECKING:
    from mvl_auto.arrays import Floats
    from mvl_auto.datasets import Case
    from mvl_auto.network.model import MedVisionLlama

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PretrainingResult:
    """A finished pretraining. folder: what `mvl_train --from` takes. images: how many it has seen."""

    folder: Path
    steps: int
    seconds: float  # of optimization, over all sessions
    images: int


@dataclass(frozen=True)
class Others:
    """The images of a folder without labels, in their cache."""

    cache: Path
    names: tuple[str, ...]
    hash: str  # of their names and files


def pretrain(
    preprocessed: Path,
    images: Path | None = None,
    without_fold: str | None = None,
    options: TrainingOptions = DEFAULTS,
    *,
    results_folder: Path,
    blocks_folder: Path,
    progress: Progress = silent,
) -> PretrainingResult:
    """Pretrain on the images of a preprocessed dataset, and on those of the folder `images`; resume an earlier call.

    without_fold: whose validation cases are left out. options: but `start_from`, `previous` and `trunk_rate`.
    results_folder: of the dataset.
    Raises MvlError for what the user can mend, a loss that stays infinite among it, and Stopped when a signal ended it
    after a checkpoint.
    """
    if rank_here().ranks > 1:
        raise MvlError("pretraining is done by one process", remedy="Start mvl_pretrain without torchrun.")
    plan, chosen = read_plan(
        preprocessed, options.configuration, Changes(options.batch_size, options.network, options.llm)
    )
    if chosen.previous_stage is not None:
        raise MvlError(
            f"{chosen.name} reads the segmentation of its first stage, which there is not without labels",
            remedy=f"Pretrain {chosen.previous_stage} with -c, or 3d_fullres, and give it to mvl_train with --from.",
        )
    splits = read_document(preprocessed / "splits.json", Splits, PLAN_AGAIN)
    training, left_out = cases_of_fold(splits, plan, without_fold or ALL, preprocessed)
    if not set(training).isdisjoint(left_out):
        raise MvlError(f"{plan.dataset} has a single case, none is left without it", remedy="Leave out --without-fold.")
    fold = FoldOfPlan(plan, chosen, without_fold or ALL, training, left_out)
    check_cache(preprocessed, plan, chosen, training)
    limited = options.steps or options.seconds
    job = TrainingJob(
        fold,
        Places(preprocessed, results_folder / (options.run or f"{chosen.name}_pretrained"), blocks_folder),
        choose_device(options.device),
        limit=TrainingLimit(options.steps, options.seconds) if limited else None,
        learning_rate=options.learning_rate,
        seed=options.seed,
        workers=options.workers,
        pretrains=True,
        progress=progress,
        logger=options.logger,
    )
    return pretrain_on(job, images)


def pretrain_on(job: TrainingJob, images: Path | None) -> PretrainingResult:
    """Raises what `pretrain` does."""
    folder, cache = job.folder, job.places.cache(job.fold.configuration)
    cases, problems = _find(images, job)
    read = [job.places.preprocessed, cache, *(file for case in cases for file in case.images)]
    for written, kept in ((folder, read), (job.places.run, [cache])):
        check_apart(written, kept, remedy="Choose another run with -n NAME.")
    of_images = [] if images is None else [cache_of(images, cache)]
    for place in of_images:
        check_apart(place, [file for case in cases for file in case.images], remedy="Choose another folder with -i.")
    with (
        leaving_no_trace(folder, job.places.run, *of_images, traces={*TRACES, ckpt.PLAN}),
        locked(ensure_writable_folder(folder), "training"),
        log_file(folder / LOG),
        ExitStack() as stack,
    ):
        clear_unfinished(folder)
        for problem in problems:
            log.warning("%s It is left out.", problem)
        others = None if images is None else _prepare(cases, of_images[0], job)
        for place in (cache, *of_images):
            stack.enter_context(shared_lock(place))
        keep_plan(job.places.run, job.fold.plan)
        state = carry_out(job, task_of(job, others))
        number = len(job.fold.training_cases) + len(() if others is None else others.names)
        return PretrainingResult(folder, state.step, state.elapsed, number)


def task_of(job: TrainingJob, others: Others | None) -> Task:
    """Finding hidden parts of images again, as what a run learns."""
    plan, configuration = job.fold.plan, job.fold.configuration
    block = load_block_of(configuration, None, job.places.blocks)
    state = first_state(job, block).model_copy(
        update={"objective": "reconstruction", "images_hash": "" if others is None else others.hash}
    )

    def network() -> MedVisionLlama:
        from mvl_auto.network.model import build_network

        settings = configuration.network.model_copy(update={"deep_supervision": False})
        channels = len(plan.channels)
        return build_network(settings, channels, channels, block, job.seed)

    def patches(workers: int) -> Patches:
        memory = memory_for_cases(workers) // (1 if others is None else 2)
        own = Cases(job.places.cache(configuration), memory=memory, labelled=False)
        more = None if others is None else (Cases(others.cache, memory=memory, labelled=False), others.names)
        return MaskedPatches(own, job.fold.training_cases, configuration, plan.labels, job.seed, more)

    context = replace(step_context(plan.labels, job.device), objective=reconstruction_loss)
    return Task(state, context, network, patches)


def _find(images: Path | None, job: TrainingJob) -> tuple[tuple[Case, ...], list[MvlError]]:
    """The images of a folder, as prediction finds them, and what is wrong with others. Raises MvlError for none."""
    if images is None:
        return (), []
    problems: list[MvlError] = []
    cases = cases_to_predict(images, job.fold.plan.channels, problems)
    if not cases:
        raise all_noted(problems)
    return cases, problems


def _prepare(cases: Sequence[Case], folder: Path, job: TrainingJob) -> Others:
    """The images, cached, without those that cannot be read. Raises MvlError when none is left."""
    fold = job.fold
    report = preprocess_images(cases, fold.plan, fold.configuration.name, folder, progress=job.progress)
    for reason in report.failed.values():
        log.warning("%s It is left out.", reason)
    names = sorted((*report.done, *report.reused))
    copies = copies_of(fold.validation_cases, job.places.cache(fold.configuration), names, folder)
    if copies:
        log.warning(
            "left out, as fold %s validates on the same: %s (%s)",
            fold.name,
            count_text(len(copies), "image"),
            ", ".join(copies),
        )
    names = [name for name in names if name not in set(copies)]
    if not names:
        first = next(iter(report.failed.values()), "")
        raise MvlError(f"none of the {len(cases)} images can be used. {first}", remedy="Leave out -i, or mend them.")
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\n{open_case(folder, name).cached.files_hash}\n".encode())
    return Others(folder, tuple(names), digest.hexdigest())


def copies_of(kept: Sequence[str], cache: Path, names: Sequence[str], folder: Path) -> list[str]:
    """Which of the images `names`, cached in `folder`, are the same as one of the cases `kept`, voxel for voxel."""
    trails, seen = set(), set()
    for name in kept:
        reader = open_case(cache, name)
        trails.add(reader.cached.trail.model_dump_json())
        seen.add(_voxels_hash(reader.image()))
    same = [name for name in names if open_case(folder, name).cached.trail.model_dump_json() in trails]
    return [name for name in same if _voxels_hash(open_case(folder, name).image()) in seen]


def _voxels_hash(image: Floats) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()
