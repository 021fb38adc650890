"""Train one fold: look up, check, load, optimize, validate."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.cache import shared_lock
from mvl_auto.datasets import inspect_dataset
from mvl_auto.errors import MvlError
from mvl_auto.files import clear_unfinished, ensure_writable_folder
from mvl_auto.locks import locked
from mvl_auto.loggers import Logger
from mvl_auto.logs import LOG, log_file
from mvl_auto.network.step import StepContext, step_context
from mvl_auto.network.team import Team, together
from mvl_auto.outputs import TRACES, check_apart, leaving_no_trace
from mvl_auto.plans import PLAN_AGAIN, DatasetRecord, LlmSettings, read_document
from mvl_auto.progress import Progress, silent
from mvl_auto.report import write_report
from mvl_auto.runs import checkpoint as ckpt
from mvl_auto.runs import load_trained, network_of
from mvl_auto.runs.folds import run_name
from mvl_auto.runs.trained import load_block_of
from mvl_auto.text import count_text
from mvl_auto.training.cases import Cases, memory_for_cases
from mvl_auto.training.job import Places, TrainingJob
from mvl_auto.training.lookup import Changes, find_fold, keep_plan, previous_channels, read_plan
from mvl_auto.training.patches import Patches
from mvl_auto.training.schedule import TrainingLimit
from mvl_auto.training.task import Task, carry_out, first_state
from mvl_auto.training.validation import predictions, validate, validation_figures
from mvl_auto.training.watch import Watch, validation_batch

if TYPE_CHECKING:
    import torch

    from mvl_auto.datasets import Dataset
    from mvl_auto.evaluation import Summary
    from mvl_auto.network.model import MedVisionLlama

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """A finished fold."""

    folder: Path
    steps: int
    seconds: float  # of optimization, over all sessions
    validation: Summary | None  # None for the fold "all", which keeps no case apart, and where another process leads


@dataclass(frozen=True)
class TrainingOptions:
    """What the user chooses about a training.

    run: the folder under the results (default: the configuration's name, and with `network` also that). previous: for a
    cascade's second stage the run of its first, on all folds, whose segmentations it is trained on (default: that
    configuration's name). seconds: of optimization, from its start; steps: training steps; neither: what the run had
    before, else the plan's time if it has one, else its steps. A finished run that is given more of either goes on.
    workers: processes that make batches (0: none). batch_size, learning_rate (at its peak), network ("mvl", "vit",
    "unet" or "paper"), llm: of this run alone, instead of the plan's. start_from: a checkpoint, or the folder of a
    trained fold, a pretraining or a run, whose weights a new run begins with, as far as they fit. trunk_rate: factor on
    the learning rate of the trunk's blocks; 0: they stay as they are. logger: from
    mvl_auto.loggers.logger_of; gets what progress.csv gets, and the validation's scores.
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
    logger: Logger | None = None


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

    preprocessed: its folder. fold: "0", ... or "all". results_folder: of the dataset. Started by torchrun, its
    processes train together: each computes its share of every batch, and the first alone writes.
    Raises MvlError for what the user can mend, a loss that stays infinite among it, and Stopped when a signal ended it
    after a checkpoint.
    """
    with together(options.device) as (team, device):
        with team.lead_first():  # what is refused is refused once
            job = job_of(preprocessed, fold, options, device, results_folder, blocks_folder)
            check_shares(job, team)
        return train_fold(replace(job, team=team, progress=progress if team.leads else silent))


def job_of(
    preprocessed: Path,
    fold: str,
    options: TrainingOptions,
    device: torch.device,
    results_folder: Path,
    blocks_folder: Path,
) -> TrainingJob:
    """Raises MvlError for what the user can mend."""
    changes = Changes(options.batch_size, options.network, options.llm)
    plan, chosen = read_plan(preprocessed, options.configuration, changes)
    name = run_name(options.run, chosen.name, options.network)
    limited = options.steps or options.seconds
    return TrainingJob(
        find_fold(preprocessed, plan, chosen, fold, results_folder, options.previous),
        Places(preprocessed, results_folder / name, blocks_folder),
        device,
        limit=TrainingLimit(options.steps, options.seconds) if limited else None,
        learning_rate=options.learning_rate,
        trunk_rate=options.trunk_rate,
        start_from=options.start_from,
        seed=options.seed,
        workers=options.workers,
        logger=options.logger,
    )


def check_shares(job: TrainingJob, team: Team) -> None:
    """Raise MvlError where a process would have no sample of a batch, or would wait for gradients of a still trunk."""
    batch_size = job.fold.configuration.batch_size
    if team.size > 1 and job.trunk_rate == 0:
        raise MvlError(
            "a trunk that stays as it is (--trunk-rate 0) is trained by one process",
            remedy="Start mvl_train without torchrun, or give a small rate such as 0.01.",
        )
    if batch_size < team.size:
        raise MvlError(
            f"a batch of {count_text(batch_size, 'sample')} cannot be shared by {team.size} processes",
            remedy=f"Start at most {batch_size}, or give --batch-size {team.size}.",
        )


def train_fold(job: TrainingJob) -> TrainingResult:
    """Raises what `train` does."""
    if not job.team.leads:
        return assist(job)
    folder, cache = job.folder, job.places.cache(job.fold.configuration)
    start = [] if job.start_from is None or ckpt.has_checkpoint(folder) else [job.start_from]
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
        job.team.wait()
        state = train_network(job)
        summary = validate_fold(job)
        if job.logger is not None and summary is not None:
            job.logger(folder, state.step, validation_figures(summary))
        report_run(job)
        job.team.wait()
        return TrainingResult(folder, state.step, state.elapsed, summary)


def assist(job: TrainingJob) -> TrainingResult:
    """What a process does that does not lead: it trains and predicts with the others, and writes predictions alone."""
    job.team.wait()  # the one that leads holds the folder now
    with shared_lock(job.places.cache(job.fold.configuration)):
        state = train_network(job)
        validate_fold(job)
        job.team.wait()
    return TrainingResult(job.folder, state.step, state.elapsed, None)


def report_run(job: TrainingJob) -> None:
    """Write the run's report.html; a report that cannot be written does not fail the training."""
    try:
        log.info("report: %s", write_report(job.places.run, progress=job.progress).path)
    except MvlError as error:
        log.warning("no report was written: %s", error)


def train_network(job: TrainingJob) -> ckpt.State:
    """The optimization itself, from the last checkpoint where there is one. Returns the finished state.

    Raises what `carry_out` does.
    """
    fold = job.fold
    block = load_block_of(fold.configuration, None, job.places.blocks)
    team = job.team
    with team.lead_first():
        channels = previous_channels(fold, job.places, job.progress)

    def network() -> MedVisionLlama:
        return network_of(fold.plan, fold.configuration, block, job.seed)

    def patches(workers: int) -> Patches:
        memory = memory_for_cases(max(1, workers) * team.rank.local_ranks)
        cases = Cases(job.places.cache(fold.configuration), channels, memory)
        share = (team.rank.number, team.size)
        return Patches(cases, fold.training_cases, fold.configuration, fold.plan.labels, job.seed, share)

    def watch(patches: Patches, context: StepContext) -> Watch:
        return Watch(validation_batch(patches, fold.validation_cases or fold.training_cases), fold.plan.labels, context)

    context = step_context(fold.plan.labels, job.device, fold.configuration.batch_dice, team)
    return carry_out(job, Task(first_state(job, block), context, network, patches, watch))


def validate_fold(job: TrainingJob, mirror: bool = True) -> Summary | None:
    """None where no case is kept apart. mirror: average over mirrored versions, as prediction does."""
    fold, team = job.fold, job.team
    team.wait()  # the checkpoint is written
    trained = load_trained(job.folder, job.places.blocks)
    if not fold.validation_cases:
        return None
    raw = raw_dataset(job.places.preprocessed)
    if team.size > 1:  # each predicts its share, and the one that leads scores them all
        share = fold.validation_cases[team.rank.number :: team.size]
        for _ in predictions(trained, raw, share, job.folder, job.device, job.progress, fold.first_stage, mirror):
            pass
        team.wait()
        if not team.leads:
            return None
    return validate(trained, raw, fold.validation_cases, job.folder, job.device, job.progress, fold.first_stage, mirror)


def raw_dataset(preprocessed: Path) -> Dataset:
    """The dataset that a preprocessed one was made from. Raises MvlError when it cannot be read."""
    record = read_document(preprocessed / "dataset.json", DatasetRecord, PLAN_AGAIN)
    return inspect_dataset(Path(record.folder))[0]
