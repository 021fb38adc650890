"""One run from where it stands to its end: its last checkpoint, its limit, its batches, its steps.

What is learned is a Task: training (train.py) and pretraining (pretrain.py) differ in nothing else.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mvl_auto.errors import MvlError
from mvl_auto.extras import is_installed
from mvl_auto.network.device import place
from mvl_auto.network.model import TRUNK
from mvl_auto.network.step import Learner, StepContext
from mvl_auto.report.machine import write_environment
from mvl_auto.runs import VALIDATION
from mvl_auto.runs import checkpoint as ckpt
from mvl_auto.training import finetune
from mvl_auto.training.batches import batches_ahead, default_workers
from mvl_auto.training.job import TrainingJob
from mvl_auto.training.lookup import check_same_run
from mvl_auto.training.loop import optimise
from mvl_auto.training.patches import Patches
from mvl_auto.training.plot import draw_progress
from mvl_auto.training.record import cut_progress
from mvl_auto.training.schedule import TrainingLimit, planned
from mvl_auto.training.session import Session, precision_name
from mvl_auto.training.watch import Watch

if TYPE_CHECKING:
    from mvl_auto.llm import FrozenBlock
    from mvl_auto.network.model import MedVisionLlama

log = logging.getLogger(__name__)

REFERENCE = ("name", "source", "layer", "layers", "sha256", "geometry_sha256")


@dataclass(frozen=True)
class Task:
    """What a run learns, and from what.

    state: before its first step, from `first_state`. network: makes it, untrained, on the CPU. patches: makes the
    batches, in so many workers. watch: makes what measures the network on the way; None where nothing does.
    """

    state: ckpt.State
    context: StepContext
    network: Callable[[], MedVisionLlama]
    patches: Callable[[int], Patches]
    watch: Callable[[Patches, StepContext], Watch] | None = None


def carry_out(job: TrainingJob, task: Task) -> ckpt.State:
    """Take the steps of a run, from its last checkpoint where there is one. Returns the finished state.

    A limit of time counts from here on, with the start of the workers in it. Raises MvlError when it is over before the
    first step, or the device's memory is too small; and what `optimise` does.
    """
    team = job.team
    with team.lead_first():
        earlier = read_earlier(job, task.state)
    limit = limit_of(job, earlier)
    if earlier is not None and earlier.finished and limit.share_done(earlier.step, earlier.elapsed) >= 1:
        log.info("%s is trained already (%d steps)", job.folder, earlier.step)
        return earlier
    if earlier is not None:
        check_can_resume(job, earlier, limit)
    started = time.monotonic()
    session = new_session(job, task, limit, earlier)
    if earlier is not None:
        session.resume(job.folder / (ckpt.RESUME if earlier.finished else ckpt.CHECKPOINT), earlier)
        log.info("%s: resumed from step %d", job.folder, session.step)
    if team.leads:
        write_environment(job.folder)  # now it is certain that this machine trains
        cut_progress(job.folder, session.step)
    before = session.elapsed
    workers = default_workers(job.device, team.rank) if job.workers is None else job.workers
    patches = task.patches(workers)
    with ExitStack() as stack:
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=True))  # patches are all of one size
        watch = None if task.watch is None or not team.leads else task.watch(patches, session.context)
        batches = stack.enter_context(batches_ahead(patches, session.step, workers, job.device))
        optimise(session, batches, limit, patches.names, job.progress, started, watch)
    if session.step == 0:
        raise MvlError(f"{limit} were over before the first step", remedy="Give more with --time.")
    if team.leads:
        conclude(session, before)
    return session.save(finished=True)


def conclude(session: Session, before: float) -> None:
    """What is left to do in the folder of a trained network. before: seconds of optimization in earlier sessions."""
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


def new_session(job: TrainingJob, task: Task, limit: TrainingLimit, earlier: ckpt.State | None) -> Session:
    """An untrained network on its device, with a fresh optimizer. What the user does not give is as in `earlier`."""
    network = task.network()
    if job.start_from is not None and not ckpt.has_checkpoint(job.folder):
        finetune.start_from(network, job.start_from)
    network = place(network, job.device)
    before = task.state if earlier is None else earlier
    default_rate = job.fold.configuration.network.peak_learning_rate
    now = {
        "budget_steps": limit.steps,
        "budget_seconds": limit.seconds,
        "learning_rate": job.learning_rate or before.learning_rate or default_rate,
        "trunk_rate": before.trunk_rate if job.trunk_rate is None else job.trunk_rate,
        "precision": precision_name(task.context),
        "threads": torch.get_num_threads(),
        "processes": job.team.size,
    }
    state = task.state.model_copy(update=now)
    network.rates[TRUNK] = state.trunk_rate
    return Session(Learner.of(network, job.team), task.context, job.folder, state, logger=job.logger)


def read_earlier(job: TrainingJob, state: ckpt.State) -> ckpt.State | None:
    """The last checkpoint of this run; where its file is damaged, the one before it takes its place.

    Raises MvlError when it is of a run with other settings, or damaged without another.
    """
    folder = job.folder
    if not ckpt.has_checkpoint(folder):
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
