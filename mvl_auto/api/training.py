"""Train folds of a planned dataset, and pretrain its network on images alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.arguments import Folds, as_seconds, check_counts, list_of_folds
from mvl_auto.errors import MvlError
from mvl_auto.loggers import Logger, logger_of
from mvl_auto.names import checked_name
from mvl_auto.paths import (
    blocks_folder,
    find_preprocessed_dataset,
    find_root,
    results_folder,
)
from mvl_auto.plans import DELETE_AND_PLAN, LlmSettings, Plan, Splits, read_document
from mvl_auto.progress import Progress, silent
from mvl_auto.results import TrainingResults

if TYPE_CHECKING:
    from mvl_auto.training import PretrainingResult

log = logging.getLogger(__name__)


def train(
    dataset: str | int | Path,
    folds: Folds = "0",
    *,
    root: Path | str | None = None,
    configuration: str | None = None,
    run: str | None = None,
    previous: str | None = None,
    seconds: float | str | None = None,
    steps: int | None = None,
    device: str = "auto",
    seed: int = 0,
    workers: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    network: str | None = None,
    llm: str | None = None,
    start_from: Path | str | None = None,
    trunk_rate: float | None = None,
    logger: str | Logger | None = None,
    progress: Progress = silent,
) -> TrainingResults:
    """Train folds of a planned dataset, one after the other, and validate each; resumes where it was stopped.

    folds: 0, "0", "fold0", or several in a list; or "all" (every case, none kept apart). configuration: default, the
    recommended one. run: the folder's name under results (default: the configuration's). previous: for
    3d_cascade_fullres the run of 3d_lowres, trained on all folds, whose segmentations it is trained on (default:
    "3d_lowres"). seconds (also "10m") or steps: how long to train each fold (default: the plan's time, if it was
    planned for one, else its steps); a finished fold that is given more goes on. workers: processes that make batches
    (0: none). batch_size, learning_rate, network ("mvl", "vit", "unet", "paper"), llm (a source of the block bank,
    "auto" or "none"): of this run, instead of the plan's. start_from: a checkpoint, or the folder of a trained fold, a
    pretraining or a run, whose weights a new run begins with, as far as they fit. trunk_rate: factor on the learning
    rate of the trunk's blocks (0: they stay as they are). logger: "tensorboard", or a function that gets the folder of
    the fold, the step and the figures by name (mvl_auto.loggers.Logger).
    Raises MvlError for what the user can mend.
    """
    from mvl_auto.runs.folds import fold_folder, run_name

    if trunk_rate is not None and not 0 <= trunk_rate <= 1:
        raise MvlError(f"{trunk_rate} is no factor for the trunk", remedy="Give --trunk-rate a number from 0 to 1.")
    check_counts(steps=steps, batch_size=batch_size)
    root, seconds = find_root(root), as_seconds(seconds)
    plan, chosen = check_training(dataset, folds, root, configuration, (run, previous))
    called = logger_of(logger)
    folder = find_preprocessed_dataset(dataset, root)
    name = plan.configuration(configuration).name
    results = results_folder(root, plan.dataset)
    if start_from is not None:
        own = results / run_name(run, name, network)
        check_start(Path(start_from), [fold_folder(own, fold) for fold in chosen])
    log.info("%s: training %s of %s", plan.dataset, name, ", ".join(f"fold{fold}" for fold in chosen))
    from mvl_auto import training  # torch, after all that can be refused without it

    options = training.TrainingOptions(
        configuration=configuration,
        run=run,
        previous=previous,
        seconds=seconds,
        steps=steps,
        device=device,
        seed=seed,
        workers=workers,
        batch_size=batch_size,
        learning_rate=learning_rate,
        network=network,
        llm=block_of_run(llm, plan.configuration(configuration).network.llm),
        start_from=None if start_from is None else Path(start_from),
        trunk_rate=trunk_rate,
        logger=called,
    )
    blocks = blocks_folder(root)
    with training.together(device):  # the same processes for all folds
        return TrainingResults(
            training.train(folder, fold, options, results_folder=results, blocks_folder=blocks, progress=progress)
            for fold in chosen
        )


def pretrain(
    dataset: str | int | Path,
    input: Path | str | None = None,
    *,
    without_fold: str | int | None = None,
    root: Path | str | None = None,
    configuration: str | None = None,
    run: str | None = None,
    seconds: float | str | None = None,
    steps: int | None = None,
    device: str = "auto",
    seed: int = 0,
    workers: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    network: str | None = None,
    llm: str | None = None,
    logger: str | Logger | None = None,
    progress: Progress = silent,
) -> PretrainingResult:
    """Let the network of a planned dataset find hidden parts of its images again; resumes where it was stopped.

    No label is read. input: a folder of further images, or one image, without labels, with the dataset's channels.
    without_fold: leave out the cases that this fold validates on, and images that are the same. run: the folder's name
    under results (default: "<configuration>_pretrained"). The rest as in `train`, whose `start_from` takes the folder
    of the result.
    Raises MvlError for what the user can mend.
    """
    check_counts(steps=steps, batch_size=batch_size)
    root, seconds = find_root(root), as_seconds(seconds)
    wanted = "all" if without_fold is None else [without_fold]
    plan, folds = check_training(dataset, wanted, root, configuration, (run,))
    folder = find_preprocessed_dataset(dataset, root)
    fold = None if without_fold is None else folds[0]
    if fold == "all":
        raise MvlError("fold all keeps no case apart", remedy="Name one of the others with --without-fold.")
    called = logger_of(logger)
    log.info("%s: pretraining %s", plan.dataset, plan.configuration(configuration).name)
    from mvl_auto import training  # torch, after all that can be refused without it

    options = training.TrainingOptions(
        configuration=configuration,
        run=run,
        seconds=seconds,
        steps=steps,
        device=device,
        seed=seed,
        workers=workers,
        batch_size=batch_size,
        learning_rate=learning_rate,
        network=network,
        llm=block_of_run(llm, plan.configuration(configuration).network.llm),
        logger=called,
    )
    return training.pretrain(
        folder,
        None if input is None else Path(input),
        fold,
        options,
        results_folder=results_folder(root, plan.dataset),
        blocks_folder=blocks_folder(root),
        progress=progress,
    )


def block_of_run(llm: str | None, planned: LlmSettings) -> LlmSettings | None:
    """The block that a run has instead of the planned one: which tokens pass it, and its layers, are as in the plan.

    llm: a source of the block bank; None where the run has the planned block. Raises MvlError for unknown syntax.
    """
    from mvl_auto.llm.known import llm_settings
    from mvl_auto.llm.layers import LayerRange

    if llm is None:
        return None
    if not planned.present:
        return llm_settings(llm, "last")
    return llm_settings(llm, LayerRange(count=planned.layers), planned.tokens)


def check_training(
    dataset: str | int | Path, folds: Folds, root: Path, configuration: str | None, runs: tuple[str | None, ...]
) -> tuple[Plan, list[str]]:
    """The plan, and the names of the folds. runs: their names. Raises MvlError for what needs no torch."""
    for name in runs:
        if name is not None:
            checked_name(name, "run", remedy="Choose another with -n NAME.")
    folder = find_preprocessed_dataset(dataset, root)
    plan = read_document(folder / "plans.json", Plan, DELETE_AND_PLAN)
    splits = read_document(folder / "splits.json", Splits, DELETE_AND_PLAN)
    chosen = choose_folds(folds, len(splits.folds))
    plan.configuration(configuration)
    return plan, chosen


def check_start(start_from: Path, folders: Sequence[Path]) -> None:
    """Raise MvlError where a new run would begin with weights that are not there. A run that goes on needs none.

    folders: of the folds to train.
    """
    from mvl_auto.runs.checkpoint import find_checkpoint, has_checkpoint

    if not all(has_checkpoint(folder) for folder in folders):
        find_checkpoint(start_from)


def choose_folds(wanted: Folds, number: int) -> list[str]:
    """Folds in the order wanted, each once: "0" for 0, "0" or "fold0", "all" for itself.

    number: how many the splits have. Raises MvlError, listing them, for one that does not exist.
    """
    from mvl_auto.runs import ALL
    from mvl_auto.runs import choose_folds as choose

    return choose(list_of_folds(wanted), [*map(str, range(number)), ALL])
