"""Train one fold: look up, check, load, optimise, validate."""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mvl_auto.cache import shared_lock
from mvl_auto.datasets import inspect_dataset
from mvl_auto.errors import MvlError
from mvl_auto.extras import is_installed
from mvl_auto.files import clear_unfinished, ensure_writable_folder, locked
from mvl_auto.logs import LOG, log_file
from mvl_auto.network.device import place
from mvl_auto.network.optimizer import PEAK_LEARNING_RATE
from mvl_auto.network.step import Learner, step_context
from mvl_auto.network.team import Team, together
from mvl_auto.outputs import TRACES, check_apart, leaving_no_trace
from mvl_auto.plans import DatasetRecord, LlmSettings, read_document
from mvl_auto.progress import Progress, silent
from mvl_auto.report import write_report
from mvl_auto.report.machine import write_environment
from mvl_auto.runs import VALIDATION, load_trained, network_of
from mvl_auto.runs import checkpoint as ckpt
from mvl_auto.runs.trained import load_block_of
from mvl_auto.text import count_text
from mvl_auto.training import finetune
from mvl_auto.training.batches import batches_ahead, default_workers
from mvl_auto.training.cases import Cases, memory_for_cases
from mvl_auto.training.job import Places, TrainingJob
from mvl_auto.training.lookup import (
    PLAN_AGAIN,
    Changes,
    check_same_run,
    find_fold,
    keep_plan,
    previous_channels,
    read_plan,
)
from mvl_auto.training.loop import optimise
from mvl_auto.training.patches import Patches
from mvl_auto.training.plot import draw_progress
from mvl_auto.training.record import cut_progress
from mvl_auto.training.schedule import TrainingLimit, planned
from mvl_auto.training.session import Session, precision_name
from mvl_auto.training.validation import scores_of, validate
from mvl_auto.training.watch import Watch, validation_batch

if TYPE_CHECKING:
    from mvl_auto.datasets import Dataset
    from mvl_auto.evaluation import Summary
    from mvl_auto.llm import FrozenBlock

log = logging.getLogger(__name__)

REFERENCE = ("name", "source", "layer", "sha256", "geometry_sha256")


@dataclass(frozen=True)
class TrainingResult:
    """A finished fold."""

    folder: Path
    steps: int
    seconds: float  # of optimisation, over all sessions
    validation: Summary | None  # None for the fold "all", which keeps no case apart, and where another process leads


@dataclass(frozen=True)
class TrainingOptions:
    """What the user chooses about a training.

    run: the folder under the results (default: the configuration's name, and with `network` also that). previous: for a
    cascade's second stage the run of its first, on all folds, whose segmentations it is trained on (default: that
    configuration's name). seconds: of optimisation, from its start; steps: training steps; neither: what the run had
    before, else the plan's time if it has one, else its steps. A finished run that is given more of either goes on.
    workers: processes that make batches (0: none). batch_size, learning_rate (at its peak), network ("mvl", "vit",
    "unet" or "paper"), llm: of this run alone, instead of the plan's. start_from: a checkpoint, or the folder of a
    trained fold or run, whose weights a new run begins with, as far as they fit.
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
    Raises MvlError for what the user can mend, Stopped when a signal ended it after a checkpoint, FloatingPointError
    when the loss of several steps in a row is not finite.
    """
    with together(options.device) as (team, device):
        with team.lead_first():  # what is refused is refused once
            job = job_of(preprocessed, fold, options, device, results_folder, blocks_folder)
            check_shares(job.fold.configuration.batch_size, team)
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
    name = options.run or "_".join([chosen.name] + ([options.network] if options.network not in (None, "mvl") else []))
    limited = options.steps or options.seconds
    return TrainingJob(
        find_fold(preprocessed, plan, chosen, fold, results_folder, options.previous),
        Places(preprocessed, results_folder / name, blocks_folder),
        device,
        limit=TrainingLimit(options.steps, options.seconds) if limited else None,
        learning_rate=options.learning_rate,
        start_from=options.start_from,
        seed=options.seed,
        workers=options.workers,
    )


def check_shares(batch_size: int, team: Team) -> None:
    """Raise MvlError where a process would have no sample of a batch."""
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
        job.team.wait()
        state = train_network(job)
        summary = validate_fold(job)
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
    """The optimisation itself, from the last checkpoint where there is one. Returns the finished state.

    A limit of time counts from here on, with the start of the workers in it. Raises MvlError when it is over before the
    first step, or the device's memory is too small.
    """
    fold = job.fold
    block = load_block_of(fold.configuration, None, job.places.blocks)
    team = job.team
    with team.lead_first():
        channels = previous_channels(fold, job.places, job.progress)
        state = first_state(job, block)
        earlier = read_earlier(job, state)
    limit = limit_of(job, earlier)
    if earlier is not None and earlier.finished and limit.share_done(earlier.step, earlier.elapsed) >= 1:
        log.info("%s is trained already (%d steps)", job.folder, earlier.step)
        return earlier
    if earlier is not None:
        check_can_resume(job, earlier, limit)
    started = time.monotonic()
    session = new_session(job, state, limit, block)
    if earlier is not None:
        session.resume(job.folder / (ckpt.RESUME if earlier.finished else ckpt.CHECKPOINT), earlier)
        log.info("%s: resumed from step %d", job.folder, session.step)
    if team.leads:
        write_environment(job.folder)  # now it is certain that this machine trains
        cut_progress(job.folder, session.step)
    before = session.elapsed
    workers = default_workers(job.device, team.rank) if job.workers is None else job.workers
    memory = memory_for_cases(max(1, workers) * team.rank.local_ranks)
    cases = Cases(job.places.cache(fold.configuration), channels, memory)
    share = (team.rank.number, team.size)
    patches = Patches(cases, fold.training_cases, fold.configuration, fold.plan.labels, job.seed, share)
    with ExitStack() as stack:
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=True))  # patches are all of one size
        watch = None
        if team.leads:
            batch = validation_batch(patches, fold.validation_cases or fold.training_cases)
            watch = Watch(batch, fold.plan.labels, session.context)
        batches = stack.enter_context(batches_ahead(patches, session.step, workers, job.device))
        optimise(session, batches, limit, fold.training_cases, job.progress, started, watch)
    if session.step == 0:
        raise MvlError(f"{limit} were over before the first step", remedy="Give more with --time.")
    if team.leads:
        conclude(session, before)
    return session.save(finished=True)


def conclude(session: Session, before: float) -> None:
    """What is left to do in the folder of a trained network. before: seconds of optimisation in earlier sessions."""
    log.info(
        "%s: %d steps in %.0f s; %.1f %% of the time was spent waiting for batches",
        session.folder,
        session.step,
        session.elapsed,
        100 * session.waited / max(session.elapsed - before, 1e-9),
    )
    # predictions of an earlier training must not be taken for this one's
    shutil.rmtree(session.folder / VALIDATION, ignore_errors=True)
    if draw_progress(session.folder) is None and not is_installed("matplotlib"):
        log.info("%s: no progress.png, as matplotlib is not installed (pip install 'mvl-auto[demo]')", session.folder)


def first_state(job: TrainingJob, block: FrozenBlock | None) -> ckpt.State:
    """Of a run that has not begun; its limit and precision come with the session."""
    fold = job.fold
    return ckpt.State(
        dataset=fold.plan.dataset,
        configuration=fold.configuration.name,
        fold=fold.name,
        plan_hash=fold.plan.hash,
        block=None if block is None else ckpt.BlockReference(**{k: getattr(block.card, k) for k in REFERENCE}),
        previous=None if fold.first_stage is None else fold.first_stage.reference,
        seed=job.seed,
        training_cases=fold.training_cases,
        validation_cases=fold.validation_cases,
        budget_steps=None,
        budget_seconds=None,
        learning_rate=job.learning_rate,
        step=0,
        elapsed=0.0,
        finished=False,
    )


def read_earlier(job: TrainingJob, state: ckpt.State) -> ckpt.State | None:
    """The last checkpoint of this run; where its file is damaged, the one before it takes its place.

    Raises MvlError when it is of a run with other settings, or damaged without another.
    """
    folder = job.folder
    if not (folder / ckpt.CHECKPOINT).is_file():
        return None
    try:
        earlier = ckpt.read_state(folder)
    except MvlError as error:
        if not (folder / ckpt.EARLIER).is_file():
            raise
        earlier = ckpt.read_state(folder, ckpt.EARLIER)
        log.warning("%s The checkpoint before it takes its place (step %d).", error, earlier.step)
        (folder / ckpt.EARLIER).replace(folder / ckpt.CHECKPOINT)
    check_same_run(earlier, job, state)
    return earlier


def limit_of(job: TrainingJob, earlier: ckpt.State | None) -> TrainingLimit:
    """What the user gave, else what the run had before, else the plan's."""
    if job.limit is not None:
        return job.limit
    if earlier is not None:
        return TrainingLimit(earlier.budget_steps, earlier.budget_seconds)
    return planned(job.fold.configuration.steps, job.fold.plan.time_budget)


def check_can_resume(job: TrainingJob, earlier: ckpt.State, limit: TrainingLimit) -> None:
    """Raise MvlError for a finished run that kept nothing to go on from; log when the length of the run changes."""
    before = TrainingLimit(earlier.budget_steps, earlier.budget_seconds)
    if earlier.finished and not (job.folder / ckpt.RESUME).is_file():
        raise MvlError(
            f"was finished after {before}, and has no {ckpt.RESUME} to go on from",
            file=job.folder,
            remedy="Choose another run with -n NAME.",
        )
    if before != limit:
        log.info("%s: %s instead of %s; the learning rate follows the new length", job.folder, limit, before)


def new_session(job: TrainingJob, state: ckpt.State, limit: TrainingLimit, block: FrozenBlock | None) -> Session:
    """An untrained network on its device, with a fresh optimizer."""
    fold = job.fold
    context = step_context(fold.plan.labels, job.device, fold.configuration.batch_dice, job.team)
    network = network_of(fold.plan, fold.configuration, block, job.seed)
    if job.start_from is not None and not (job.folder / ckpt.CHECKPOINT).is_file():
        finetune.start_from(network, job.start_from)
    network = place(network, job.device)
    now = {
        "budget_steps": limit.steps,
        "budget_seconds": limit.seconds,
        "learning_rate": job.learning_rate or PEAK_LEARNING_RATE,
        "precision": precision_name(context),
        "threads": torch.get_num_threads(),
        "processes": job.team.size,
    }
    return Session(Learner.of(network, job.team), context, job.folder, state.model_copy(update=now))


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
        for _ in scores_of(trained, raw, share, job.folder, job.device, job.progress, fold.first_stage, mirror):
            pass
        team.wait()
        if not team.leads:
            return None
    return validate(trained, raw, fold.validation_cases, job.folder, job.device, job.progress, fold.first_stage, mirror)


def raw_dataset(preprocessed: Path) -> Dataset:
    """The dataset that a preprocessed one was made from. Raises MvlError when it cannot be read."""
    record = read_document(preprocessed / "dataset.json", DatasetRecord, PLAN_AGAIN)
    return inspect_dataset(Path(record.folder))[0]
