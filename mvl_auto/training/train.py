"""Train one fold: what belongs together is looked up and checked here, the loop is in loop.py."""

from __future__ import annotations

import copy
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mvl_auto.cache import is_cached, open_case
from mvl_auto.datasets import inspect_dataset
from mvl_auto.errors import MvlError
from mvl_auto.files import clear_unfinished, ensure_writable_folder, locked, write_text
from mvl_auto.logs import log_file
from mvl_auto.network.device import choose_device
from mvl_auto.network.layers import keep_in_float32
from mvl_auto.network.step import StepContext, step_context
from mvl_auto.plans import Configuration, DatasetRecord, Plan, Splits, read_document, write_document
from mvl_auto.progress import Progress, silent
from mvl_auto.runs import checkpoint as ckpt
from mvl_auto.runs import load_trained, network_of
from mvl_auto.runs.trained import load_block_of
from mvl_auto.text import duration_text
from mvl_auto.training.batches import Batches, batches_ahead, default_workers
from mvl_auto.training.first_stage import FirstStage, find_first_stage, prepare_first_stage
from mvl_auto.training.loop import Run, one_step, optimise, save_run
from mvl_auto.training.previous import PreviousChannels
from mvl_auto.training.schedule import Budget, planned
from mvl_auto.training.validation import VALIDATION, validate

if TYPE_CHECKING:
    from mvl_auto.evaluation import Summary

log = logging.getLogger(__name__)

PLAN_AGAIN = "Run mvl_plan_and_preprocess again."
TIMED_STEPS = 3  # after as many to warm up


@dataclass(frozen=True)
class TrainingResult:
    """What a finished fold is."""

    folder: Path
    steps: int
    seconds: float  # of optimisation, over all sittings
    validation: Summary | None  # None for the fold "all", which keeps no case apart


def train(
    preprocessed: Path,
    fold: str,
    *,
    results_folder: Path,
    blocks_folder: Path,
    configuration: str | None = None,
    run: str | None = None,
    previous: str | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    device: str = "auto",
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = silent,
) -> TrainingResult:
    """Train, then validate, one fold of a preprocessed dataset; go on where an earlier call was stopped.

    preprocessed: its folder. fold: "0", ... or "all". run: the folder under results_folder (default: the
    configuration's name). previous: for a cascade's second stage the run of its first, on all folds, whose
    segmentations it is trained on (default: that configuration's name). seconds: of optimisation, from
    its start; steps: optimizer steps; neither: the plan's time if it has one, else its steps. workers:
    processes that make batches (0: none).
    Raises MvlError for what the user can mend, FloatingPointError when the loss is no number any more.
    """
    plan = read_document(preprocessed / "plans.json", Plan, PLAN_AGAIN)
    chosen = plan.configuration(configuration)
    training_cases, validation_cases = cases_of_fold(preprocessed, plan, fold)
    first = first_stage(preprocessed, plan, chosen, results_folder, previous)
    check_cache(preprocessed / chosen.name, plan, chosen, (*training_cases, *validation_cases))
    run_folder = results_folder / (run or chosen.name)
    folder = ensure_writable_folder(run_folder / (f"fold{fold}" if fold != "all" else "fold_all"))
    budget = Budget(steps, seconds) if steps or seconds else planned(chosen.steps, plan.time_budget)
    on = choose_device(device)
    with locked(folder, "training"), log_file(folder / "log.txt"):
        clear_unfinished(folder)
        keep_plan(run_folder, plan)
        block = load_block_of(chosen, None, blocks_folder)
        state = ckpt.State(
            dataset=plan.dataset,
            configuration=chosen.name,
            fold=fold,
            plan_hash=plan.hash,
            block=None if block is None else ckpt.BlockReference(**{k: getattr(block.card, k) for k in REFERENCE}),
            previous=None if first is None else first.reference,
            seed=seed,
            training_cases=training_cases,
            validation_cases=validation_cases,
            budget_steps=budget.steps,
            budget_seconds=budget.seconds,
            step=0,
            elapsed=0.0,
            finished=False,
        )
        network = network_of(plan, chosen, block, seed).to(on)
        cache = preprocessed / chosen.name
        everyone = tuple(dict.fromkeys((*training_cases, *validation_cases)))
        channels = None if first is None else channels_of(first, cache, everyone, chosen, progress)
        state = train_network(network, state, chosen, plan, cache, channels, folder, budget, on, workers, progress)
        trained = load_trained(folder, blocks_folder)
        summary = None
        if validation_cases:
            raw, _ = inspect_dataset(
                Path(read_document(preprocessed / "dataset.json", DatasetRecord, PLAN_AGAIN).folder)
            )
            summary = validate(trained, raw, validation_cases, folder, on, progress, first)
    return TrainingResult(folder, state.step, state.elapsed, summary)


REFERENCE = ("name", "source", "layer", "sha256", "geometry_sha256")


def train_network(
    network: torch.nn.Module,
    state: ckpt.State,
    configuration: Configuration,
    plan: Plan,
    cache: Path,
    previous: PreviousChannels | None,
    folder: Path,
    budget: Budget,
    device: torch.device,
    workers: int | None,
    progress: Progress,
) -> ckpt.State:
    """The optimisation itself, from the last checkpoint where there is one. Returns the finished state.

    A budget of time runs from here on, with the start of the workers in it. Raises MvlError when it is over before the
    first step, or the device's memory is too small.
    """
    started = time.monotonic()
    if device.type == "cpu":
        keep_in_float32(network)
    run = Run.of(network)
    if (folder / ckpt.CHECKPOINT).is_file():
        earlier = ckpt.read_state(folder)
        check_same_run(earlier, state, folder)
        if earlier.finished:
            log.info("%s is trained already (%d steps)", folder, earlier.step)
            return earlier
        run.resume(folder, earlier)
        log.info("%s: going on from step %d", folder, run.step)
    cut_progress(folder, run.step)
    workers = default_workers() if workers is None else workers
    batches = Batches(cache, state.training_cases, configuration, state.seed, run.step, workers, previous)
    before = run.elapsed
    try:
        with batches_ahead(batches, workers) as ahead:
            context = step_context(plan.labels, device)
            announce(run, batches, context, budget)
            optimise(run, ahead, context, budget, folder, state, progress, started)
    except torch.OutOfMemoryError as error:
        raise MvlError(
            f"the memory of {device} is too small for {configuration.name} as it is planned",
            remedy="Plan again with less --memory, or free some.",
        ) from error
    if run.step == 0:
        raise MvlError(
            f"{duration_text(budget.seconds)} were over before the first step", remedy="Give more with --time."
        )
    log.info(
        "%s: %d steps in %.0f s; %.1f %% of the time was spent waiting for batches",
        folder,
        run.step,
        run.elapsed,
        100 * run.waited / max(run.elapsed - before, 1e-9),
    )
    # predictions of an earlier training must not be taken for this one's
    shutil.rmtree(folder / VALIDATION, ignore_errors=True)
    return save_run(folder, run, state, finished=True)


def announce(run: Run, batches: Batches, context: StepContext, budget: Budget) -> None:
    """Log how long the optimisation is going to take here; steps are timed on a copy that is thrown away."""
    if budget.seconds is not None:
        left = budget.seconds - run.elapsed
        log.info("%s for the training, until %s; then its validation", duration_text(left), clock(left))
        return
    assert budget.steps is not None
    trial = Run.of(copy.deepcopy(run.network).train())
    batch = batches.batch(run.step)
    for step in range(2 * TIMED_STEPS):
        if step == TIMED_STEPS:
            _wait(context.device)
            begun = time.monotonic()
        one_step(trial, batch, context, 0.0)
    _wait(context.device)
    per_step = (time.monotonic() - begun) / TIMED_STEPS
    left = (budget.steps - run.step) * per_step
    log.info(
        "%d steps at %.2f s on this device: about %s, until %s; then its validation",
        budget.steps - run.step,
        per_step,
        duration_text(left),
        clock(left),
    )


def clock(seconds: float) -> str:
    """The time of day in so many seconds."""
    return time.strftime("%H:%M", time.localtime(time.time() + seconds))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cases_of_fold(preprocessed: Path, plan: Plan, fold: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the training and of the validation cases. Raises MvlError for a fold that does not exist."""
    splits = read_document(preprocessed / "splits.json", Splits, PLAN_AGAIN)
    if splits.fingerprint_hash != plan.fingerprint_hash:
        raise MvlError(
            "was made for another state of the dataset", file=preprocessed / "splits.json", remedy=PLAN_AGAIN
        )
    everyone = sorted(name for names in splits.folds for name in names)
    if fold == "all":
        return tuple(everyone), ()
    if not fold.isdigit() or int(fold) >= len(splits.folds):
        there = ", ".join([*map(str, range(len(splits.folds))), "all"])
        raise MvlError(f"there is no fold '{fold}' of {plan.dataset} (there are: {there})")
    validation = splits.folds[int(fold)]
    # a single case both trains and validates: better a number that says so than none
    training = tuple(name for name in everyone if name not in set(validation)) or tuple(everyone)
    return training, tuple(validation)


def first_stage(
    preprocessed: Path, plan: Plan, configuration: Configuration, results_folder: Path, run: str | None
) -> FirstStage | None:
    """What a cascade's second stage is trained on; None for any other configuration.

    Raises MvlError when the first stage is not trained on all folds, or `run` is given where there is none.
    """
    if configuration.previous_stage is not None:
        splits = read_document(preprocessed / "splits.json", Splits, PLAN_AGAIN)
        return find_first_stage(results_folder, plan, configuration, splits, run)
    if run is not None:
        raise MvlError(f"{configuration.name} goes on from no other run", remedy="Leave out --previous.")
    return None


def channels_of(
    first: FirstStage, cache: Path, names: tuple[str, ...], configuration: Configuration, progress: Progress
) -> PreviousChannels:
    """The first stage's segmentations of the cases `names` as channels, from the cache."""
    folder = prepare_first_stage(first, cache, names, configuration.patch_size, progress=progress)
    return PreviousChannels(folder, first.run.plan.labels)


def check_cache(cache: Path, plan: Plan, configuration: Configuration, names: tuple[str, ...]) -> None:
    """Raise MvlError unless every case is cached, and with the settings of this plan."""
    wanted = plan.preprocessing_hash(configuration.name)
    missing = [name for name in names if not (cache / f"{name}.json").is_file()]
    if missing:
        raise MvlError(
            f"{len(missing)} of {len(names)} cases are not preprocessed (first: {missing[0]})",
            file=cache,
            remedy=f"Run mvl_plan_and_preprocess with -c {configuration.name}.",
        )
    stale = [name for name in names if not is_cached(cache, name, open_case(cache, name).cached.files_hash, wanted)]
    if stale:
        raise MvlError(
            f"{len(stale)} cases were preprocessed for another plan (first: {stale[0]})", file=cache, remedy=PLAN_AGAIN
        )


def keep_plan(run_folder: Path, plan: Plan) -> None:
    """The run keeps its own copy of the plan. Raises MvlError when it has one that is another."""
    path = run_folder / ckpt.PLAN
    other = path.is_file() and read_document(path, Plan).hash != plan.hash
    if other and any(run_folder.glob(f"fold*/{ckpt.CHECKPOINT}")):
        raise MvlError(
            "has networks trained with another plan", file=run_folder, remedy="Choose another run with -n NAME."
        )
    write_document(path, plan)


def check_same_run(earlier: ckpt.State, now: ckpt.State, folder: Path) -> None:
    """Raise MvlError when the checkpoint in the way is not an earlier sitting of this very run."""
    fixed = (
        "configuration", "plan_hash", "block", "previous", "seed", "training_cases", "budget_steps", "budget_seconds",
    )  # fmt: skip
    now = now.model_copy(update={"block": ckpt.align_reference(now.block, earlier.block)})
    other = [name for name in fixed if getattr(earlier, name) != getattr(now, name)]
    if other:
        words = ", ".join(f"{name} {_short(getattr(earlier, name))}" for name in other)
        raise MvlError(
            f"holds a run with other settings ({words})",
            file=folder,
            remedy="Use the same words to go on with it, choose another run with -n NAME, or delete the folder.",
        )


def _short(value: object) -> str:
    text = value.name if isinstance(value, ckpt.BlockReference) else str(value)
    text = value.run if isinstance(value, ckpt.PreviousReference) else text
    return text if len(text) < 40 else text[:37] + "..."


def cut_progress(folder: Path, step: int) -> None:
    """Drop the lines of progress.csv after `step`: a resumed run writes them again."""
    path = folder / "progress.csv"
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = lines[:1] + [line for line in lines[1:] if int(line.split(",")[0]) <= step]
    write_text(path, "".join(kept))
