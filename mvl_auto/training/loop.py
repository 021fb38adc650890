"""The training loop of one fold, from the cache to a finished checkpoint.

Killed at any moment and started again with the same words, it goes on from the last checkpoint; for a
budget in steps, the losses are then those of the uninterrupted run (bit for bit on a CPU).
"""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mvl_auto.files import cannot_write
from mvl_auto.network.optimizer import (
    PEAK_LEARNING_RATE,
    optimizer_tensors,
    restore_optimizer,
    trainable,
)
from mvl_auto.network.step import Learner, StepContext, training_step
from mvl_auto.progress import Progress
from mvl_auto.runs import checkpoint as ckpt
from mvl_auto.runs.trained import load_weights
from mvl_auto.training.schedule import Budget, learning_rate_factor

log = logging.getLogger(__name__)

REPORT_EVERY = 10  # steps between looks at the loss: each look waits for the device
SAVE_EVERY = 120.0  # seconds between checkpoints


@dataclass
class Run(Learner):
    """All that changes while training, saved and restored as one."""

    elapsed: float = 0.0  # seconds, over all sittings
    waited: float = 0.0  # seconds spent waiting for batches, this sitting
    history: list[tuple[int, float, float, float]] = field(default_factory=list)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next sitting needs."""
        parts: dict[str, Mapping[str, Tensor]] = {
            ckpt.AVERAGED: self.average.tensors(),
            ckpt.TRAINING: trainable(self.network),
            ckpt.OPTIMIZER: optimizer_tensors(self.optimizer, self.network),
        }
        return {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}

    def resume(self, folder: Path, state: ckpt.State) -> None:
        parts = ckpt.read_tensors(folder, (ckpt.AVERAGED, ckpt.TRAINING, ckpt.OPTIMIZER))
        load_weights(self.network, parts[ckpt.TRAINING], folder / ckpt.CHECKPOINT)
        self.average.restore(parts[ckpt.AVERAGED])
        restore_optimizer(self.optimizer, self.network, parts[ckpt.OPTIMIZER])
        self.step, self.elapsed = state.step, state.elapsed


def optimise(
    run: Run,
    batches: Iterator[dict[str, Any]],
    context: StepContext,
    budget: Budget,
    folder: Path,
    state: ckpt.State,
    progress: Progress,
    started: float,
) -> None:
    """Train until the budget is spent. started: time.monotonic() when this sitting began."""
    before, saved, recent = run.elapsed, time.monotonic(), []
    run.elapsed = before + saved - started
    run.network.train()
    in_time = budget.steps is None
    total, done = (budget.seconds, run.elapsed) if in_time else (budget.steps, run.step)
    with progress("training", total or 0, unit="s" if in_time else "step", done=done) as go:
        while (share := budget.share_done(run.step, run.elapsed)) < 1:
            asked = time.monotonic()
            batch = next(batches)
            run.waited += time.monotonic() - asked
            rate = PEAK_LEARNING_RATE * learning_rate_factor(share)
            loss = one_step(run, batch, context, rate)
            recent.append((run.step, loss, batch["names"]))
            now = time.monotonic()
            spent = before + now - started
            go(spent - run.elapsed if in_time else 1)
            run.elapsed = spent
            if run.step % REPORT_EVERY == 0 or budget.share_done(run.step, run.elapsed) >= 1:
                mean = check_finite(recent, rate)
                record_progress(folder, run, mean, rate)
                recent.clear()
                go(0, note=f"loss {mean:.3f}")
                if now - saved > SAVE_EVERY:
                    save_run(folder, run, state)
                    saved = time.monotonic()


def one_step(learner: Learner, batch: dict[str, Any], context: StepContext, rate: float) -> Tensor:
    """A training step on a batch of arrays. Returns the loss, still on the device."""
    image, label = sent(batch["data"], context.device), sent(batch["seg"], context.device)
    return training_step(learner, image, label, context, rate)


def sent(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array of a batch on the device; a GPU fetches it from page-locked memory while it computes."""
    tensor = torch.as_tensor(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def check_finite(recent: list[tuple[int, Tensor, list[str]]], rate: float) -> float:
    """The mean loss of the recent steps. Raises FloatingPointError, naming step, cases and learning rate."""
    values = torch.stack([loss for _, loss, _ in recent]).tolist()
    for value, (step, _, names) in zip(values, recent, strict=True):
        if value != value or value in (float("inf"), float("-inf")):
            raise FloatingPointError(
                f"the loss is {value} at step {step} (learning rate {rate:.2e}, cases {', '.join(names)}); "
                f"the last checkpoint is untouched"
            )
    return sum(values) / len(values)


def record_progress(folder: Path, run: Run, loss: float, rate: float) -> None:
    """Append to progress.csv; lines beyond the step that a resumed run starts from were cut before.

    Raises MvlError when the disk is full.
    """
    path = folder / "progress.csv"
    new = not path.exists()
    try:
        with open(path, "a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(["step", "seconds", "loss", "learning_rate"])
            writer.writerow([run.step, f"{run.elapsed:.2f}", f"{loss:.6f}", f"{rate:.3e}"])
    except OSError as error:
        raise cannot_write(path, error) from error


def save_run(folder: Path, run: Run, state: ckpt.State, finished: bool = False) -> ckpt.State:
    """Write the checkpoint: with all that a next sitting needs, or only what predicts once it is finished."""
    state = state.model_copy(update={"step": run.step, "elapsed": round(run.elapsed, 3), "finished": finished})
    tensors = run.tensors()
    if finished:
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(ckpt.AVERAGED)}
    ckpt.save(folder, state, tensors)
    return state
