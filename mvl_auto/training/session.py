"""All that changes while a fold is trained, from one checkpoint to the next.

A session lasts from the start of a command to its end; a run may take several.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mvl_auto.loggers import Logger
from mvl_auto.network.enrich import Enrich
from mvl_auto.network.optimizer import optimizer_tensors, restore_optimizer, trainable
from mvl_auto.network.step import Learner, StepContext
from mvl_auto.network.team import Team
from mvl_auto.runs import checkpoint as ckpt
from mvl_auto.runs.trained import load_weights

log = logging.getLogger(__name__)


@dataclass
class Session:
    """learner, context: what steps change, and what they need. state: what the last checkpoint says."""

    learner: Learner
    context: StepContext
    folder: Path
    state: ckpt.State
    elapsed: float = 0.0  # seconds of optimization, over all sessions
    waited: float = 0.0  # seconds of waiting for batches, in this session
    begun_at: int = 0  # the step that this session began after
    logger: Logger | None = None  # gets what progress.csv gets

    @property
    def step(self) -> int:
        return self.learner.step

    @property
    def team(self) -> Team:
        return self.context.team

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next session needs."""
        parts: dict[str, Mapping[str, Tensor]] = {
            ckpt.AVERAGED: self.learner.average.tensors(),
            ckpt.TRAINING: trainable(self.learner.network),
            ckpt.OPTIMIZER: optimizer_tensors(self.learner.optimizer, self.learner.network),
        }
        return {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}

    def resume(self, file: Path, earlier: ckpt.State) -> None:
        """Go on from a checkpoint. Warns when this machine computes otherwise than the session before."""
        parts = ckpt.read_tensors(file, (ckpt.AVERAGED, ckpt.TRAINING, ckpt.OPTIMIZER))
        learner = self.learner
        load_weights(learner.network, parts[ckpt.TRAINING], file)
        learner.average.restore(parts[ckpt.AVERAGED])
        restore_optimizer(learner.optimizer, learner.network, parts[ckpt.OPTIMIZER])
        learner.step, self.elapsed, self.begun_at = earlier.step, earlier.elapsed, earlier.step
        self.state = self.state.model_copy(update={"block_since": earlier.block_since})
        if self.context.scaler is not None and earlier.scaler:
            self.context.scaler.load_state_dict(dict(earlier.scaler))
        for what, before, now in (
            ("in", earlier.precision, self.state.precision),
            ("with threads:", earlier.threads, self.state.threads),
            ("by processes:", earlier.processes, self.state.processes),
        ):
            if before and before != now and self.team.leads:
                log.warning(
                    "the checkpoint was computed %s %s, now it is %s: the result is as good, but not the same to the "
                    "last bit as that of a run without a stop",
                    what,
                    before,
                    now,
                )

    def attach_block(self, share_done: float) -> None:
        """Attach the frozen block when its share of the run is done, or it was attached before; else detach it.

        Once attached it stays, until `end`: a run that is made longer does not lose it again.
        """
        llm = getattr(self.learner.network, "llm", None)
        if not isinstance(llm, Enrich):
            return
        start = llm.settings.start
        if start and self.state.block_since is None and share_done >= start:
            self.state = self.state.model_copy(update={"block_since": self.step})
            log.info("step %d: the LLM block is attached", self.step)
        attached = (not start or self.state.block_since is not None) and share_done < llm.settings.end
        if llm.attached and not attached and share_done >= llm.settings.end:
            log.info("step %d: the LLM block is taken out", self.step)
        llm.attached = attached

    def save(self, finished: bool = False) -> ckpt.State:
        """Write the checkpoint; of a finished run also resume.safetensors, from which a longer run resumes.

        Of several processes only the one that leads writes.
        Raises MvlError when the folder cannot be written; the last checkpoint is then as it was.
        """
        scaler = self.context.scaler
        self.state = self.state.model_copy(
            update={
                "step": self.step,
                "elapsed": round(self.elapsed, 3),
                "finished": finished,
                "scaler": {} if scaler is None else {k: float(v) for k, v in scaler.state_dict().items()},
            }
        )
        if not self.team.leads:
            return self.state
        if finished:
            ckpt.save_finished(self.folder, self.state, self.tensors())
        else:
            ckpt.save(self.folder, self.state, self.tensors())
        return self.state


def precision_name(context: StepContext) -> str:
    """float32, bfloat16 or float16."""
    precision = context.precision
    return str(precision.fast_dtype if precision._enabled else torch.float32).removeprefix("torch.")
