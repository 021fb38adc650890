"""Train one fold: look up, check, load, optimise, validate."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.cache import shared_lock
from mvl_auto.datasets import inspect_dataset
from mvl_auto.errors import MvlError
from mvl_auto.files import clear_unfinished, ensure_writable_folder, locked
from mvl_auto.logs import LOG, log_file
from mvl_auto.network.device import choose_device
from mvl_auto.network.step import StepContext, step_context
from mvl_auto.outputs import TRACES, check_apart, leaving_no_trace
from mvl_auto.plans import DatasetRecord, LlmSettings, read_document
from mvl_auto.progress import Progress, silent
from mvl_auto.report import write_report
from mvl_auto.runs import checkpoint as ckpt
from mvl_auto.runs import load_trained, network_of
from mvl_auto.runs.trained import load_block_of
from mvl_auto.training.cases import Cases, memory_for_cases
from mvl_auto.training.job import Places, TrainingJob
from mvl_auto.training.lookup import PLAN_AGAIN, Changes, find_fold, keep_plan, previous_channels, read_plan
from mvl_auto.training.patches import Patches
from mvl_auto.training.schedule import TrainingLimit
from mvl_auto.training.task import Task, carry_out, first_state
from mvl_auto.training.validation import validate
from mvl_auto.training.watch import Watch, validation_batch

if TYPE_CHECKING:
    from mvl_auto.datasets import Dataset
    from mvl_auto.evaluation import Summary
    from mvl_auto.network.model import MedVisionLlama

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """A finished fold."""

    folder: Path
    steps: int
    seconds: float  # of optimisation, over all sessions
    validation: Summary | None  # None for the fold "all", which keeps no case apart


@dataclass(frozen=True)
class TrainingOptions:
    """What the user chooses about a training.

    run: the folder under the results (default: the configuration's name, and with `network` also that). previous: for a
    cascade's second stage the run of its first, on all folds, whose segmentations it is trained on (default: that
    configuration's name). seconds: of optimisation, from its start; steps: training steps; neither: what the run had
    before, else the plan's time if it has one, else its steps. A finished run that is given more of either goes on.
    workers: processes that make batches (0: none). batch_size, learning_rate (at its peak), network ("mvl", "vit",
    "unet" or "paper"), llm: of this run alone, instead of the plan's. start_from: a checkpoint, or the folder of a
    trained fold, a pretraining or a run, whose weights a new run begins with, as far as they fit. trunk_rate: factor on
    the learning rate of the trunk's blocks; 0: they stay as they are.
    """

    configuration: str | None = None
    run: str | None = None
    previous: str | None = None
    seconds: float | None = None
    steps: int | None = None
    device: str = "auto"
    seed: int = 0
    workers: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    network: str | None = None
    llm: LlmSettings | None = None
    start_from: Path | None = None
    trunk_rate: float | None = None


DEFAULTS = TrainingOptions()


def train(
    preprocessed: Path,
    fold: str,
    options: TrainingOptions = DEFAULTS,
    *,
    results_folder: Path,
    blocks_folder: Path,
    progress: Progress = silent,
) -> TrainingResult:
    """Train, then validate, one fold of a preprocessed dataset; resume where an earlier call was stopped.

    preprocessed: its folder. fold: "0", ... or "all". results_folder: of the dataset.
    Raises MvlError for what the user can mend, Stopped when a signal ended it after a checkpoint, FloatingPointError
    when the loss of several steps in a row is not finite.
    """
    changes = Changes(options.batch_size, options.network, options.llm)
    plan, chosen = read_plan(preprocessed, options.configuration, changes)
    name = options.run or "_".join([chosen.name] + ([options.network] if options.network not in (None, "mvl") else []))
    limited = options.steps or options.seconds
    job = TrainingJob(
        find_fold(preprocessed, plan, chosen, fold, results_folder, options.previous),
        Places(preprocessed, results_folder / name, blocks_folder),
        choose_device(options.device),
        limit=TrainingLimit(options.steps, options.seconds) if limited else None,
        learning_rate=options.learning_rate,
        trunk_rate=options.trunk_rate,
        start_from=options.start_from,
        seed=options.seed,
        workers=options.workers,
        progress=progress,
    )
    return train_fold(job)


def train_fold(job: TrainingJob) -> TrainingResult:
    """Raises what `train` does."""
    folder, cache = job.folder, job.places.cache(job.fold.configuration)
    start = [] if job.start_from is None or (folder / ckpt.CHECKPOINT).is_file() else [job.start_from]
    for written, read in ((folder, [job.places.preprocessed, cache, *start]), (job.places.run, [cache])):
        check_apart(written, read, remedy="Choose another run with -n NAME.")
    with (
        leaving_no_trace(folder, job.places.run, traces={*TRACES, ckpt.PLAN}),
        locked(ensure_writable_folder(folder), "training"),
        log_file(folder / LOG),
        shared_lock(cache),
    ):
        clear_unfinished(folder)
        keep_plan(job.places.run, job.fold.plan)
        state = train_network(job)
        summary = validate_fold(job)
        report_run(job)
        return TrainingResult(folder, state.step, state.elapsed, summary)


def report_run(job: TrainingJob) -> None:
    """Write the run's report.html; a report that cannot be written does not fail the training."""
    try:
        log.info("report: %s", write_report(job.places.run, progress=job.progress).path)
    except MvlError as error:
        log.warning("no report was written: %s", error)


def train_network(job: TrainingJob) -> ckpt.State:
    """The optimisation itself, from the last checkpoint where there is one. Returns the finished state.

    Raises what `carry_out` does.
    """
    fold = job.fold
    block = load_block_of(fold.configuration, None, job.places.blocks)
    channels = previous_channels(fold, job.places, job.progress)

    def network() -> MedVisionLlama:
        return network_of(fold.plan, fold.configuration, block, job.seed)

    def patches(workers: int) -> Patches:
        cases = Cases(job.places.cache(fold.configuration), channels, memory_for_cases(workers))
        return Patches(cases, fold.training_cases, fold.configuration, fold.plan.labels, job.seed)

    def watch(patches: Patches, context: StepContext) -> Watch:
        return Watch(validation_batch(patches, fold.validation_cases or fold.training_cases), fold.plan.labels, context)

    context = step_context(fold.plan.labels, job.device, fold.configuration.batch_dice)
    return carry_out(job, Task(first_state(job, block), context, network, patches, watch))


def validate_fold(job: TrainingJob, mirror: bool = True) -> Summary | None:
    """None where no case is kept apart. mirror: average over mirrored versions, as prediction does."""
    fold = job.fold
    trained = load_trained(job.folder, job.places.blocks)
    if not fold.validation_cases:
        return None
    raw = raw_dataset(job.places.preprocessed)
    return validate(trained, raw, fold.validation_cases, job.folder, job.device, job.progress, fold.first_stage, mirror)


def raw_dataset(preprocessed: Path) -> Dataset:
    """The dataset that a preprocessed one was made from. Raises MvlError when it cannot be read."""
    record = read_document(preprocessed / "dataset.json", DatasetRecord, PLAN_AGAIN)
    return inspect_dataset(Path(record.folder))[0]
