"""How the planner measures training steps: functions that are given to it, each step measured once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from mvl_auto.planners.cost.step import TrainingStep

StepMemory = Callable[[TrainingStep], int]  # bytes of tensors at the peak of a training step
StepSeconds = Callable[[TrainingStep], float]  # seconds of a training step on the device that will train


@dataclass(frozen=True)
class Measure:
    """memory, seconds: of a training step. seconds is None where no device can be timed."""

    memory: StepMemory
    seconds: StepSeconds | None = None


def measure_with(memory: StepMemory | None = None, seconds: StepSeconds | None = None) -> Measure:
    """Remembers every measurement, for as long as the result lives. memory: None for the network itself, measured."""
    return Measure(cache(memory or _training_memory), None if seconds is None else cache(seconds))


def _training_memory(step: TrainingStep) -> int:
    from mvl_auto.planners.cost.memory import training_memory  # torch is needed only where an estimate is not enough

    return training_memory(step)
