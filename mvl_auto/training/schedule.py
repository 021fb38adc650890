"""How long a run is, and what the learning rate is on the way: one schedule for steps and for time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mvl_auto.text import count_text, duration_text

WARM_UP = 0.05  # share of the run
FINAL_RATE = 0.01  # of the peak learning rate


@dataclass(frozen=True)
class TrainingLimit:
    """How long a run trains: steps, or seconds from its start to the end of the optimization."""

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise ValueError("a limit is either steps or seconds")

    def share_done(self, step: int, elapsed: float) -> float:
        """How far the run is, 0 to 1, after `step` steps and `elapsed` seconds."""
        if self.steps is not None:
            return min(step / self.steps, 1.0)
        assert self.seconds is not None
        return min(elapsed / self.seconds, 1.0)

    def __str__(self) -> str:
        if self.steps is not None:
            return count_text(self.steps, "step")
        assert self.seconds is not None
        return duration_text(self.seconds)


def planned(steps: int, seconds: float | None) -> TrainingLimit:
    """The limit where the user gives none: the plan's time if it was planned for one, else its steps."""
    return TrainingLimit(steps=steps) if seconds is None else TrainingLimit(seconds=seconds)


def learning_rate_factor(share_done: float) -> float:
    """Linear warm-up, then a cosine to FINAL_RATE: the factor on the peak learning rate.

    Loshchilov and Hutter 2017 (SGDR), without restarts.
    """
    if share_done < WARM_UP:
        return max(share_done / WARM_UP, FINAL_RATE)
    falling = (share_done - WARM_UP) / (1 - WARM_UP)
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * falling))
