"""What a rung of the ladder costs, and the highest one that a budget pays for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mvl_auto.planners.budget import Budget
from mvl_auto.planners.estimate import TRUSTED, estimate_memory
from mvl_auto.planners.presets import FRAGMENTATION, RESERVED
from mvl_auto.planners.search import Rung, highest
from mvl_auto.plans import NetworkSettings, Shape


@dataclass(frozen=True)
class Bought:
    """memory: bytes, of the whole process. measured: on the network itself, or estimated."""

    rung: Rung
    memory: int
    measured: bool


def buy(
    candidates: Sequence[Rung],
    settings: Callable[[Rung], NetworkSettings],
    channels: int,
    outputs: int,
    budget: Budget,
    what: str,
) -> Bought:
    """The highest of `candidates` that the budget pays for. channels: of the image. outputs: of the logits.

    Memory is estimated first; only where that leaves a doubt are networks measured, which takes torch and seconds.
    Raises MvlError, naming the configuration `what`, for a budget that pays for none.
    """
    mixed = budget.device == "gpu"

    def guess(rung: Rung) -> int:
        tensors = estimate_memory(settings(rung), rung.patch_size, rung.batch_size, channels, outputs, mixed)
        return _whole(tensors, budget)

    def cost(rung: Rung) -> int:
        placed = settings(rung)
        anywhere = placed.model_copy(update={"spacing": (1.0,) * placed.dimensions})  # mm make no difference
        return _whole(_measured(anywhere, rung.patch_size, rung.batch_size, channels, outputs, mixed), budget)

    top = candidates[-1]
    if TRUSTED * guess(top) <= budget.memory:
        return Bought(top, guess(top), measured=False)
    chosen = highest(candidates, cost, guess, budget.memory, what)
    return Bought(chosen, cost(chosen), measured=True)


def _whole(tensors: int, budget: Budget) -> int:
    """Bytes of the process whose tensors take so many."""
    return RESERVED[budget.device] + round(tensors * FRAGMENTATION)


@lru_cache(maxsize=256)
def _measured(
    settings: NetworkSettings, patch_size: Shape, batch_size: int, channels: int, outputs: int, mixed: bool
) -> int:
    from mvl_auto.planners.memory import training_memory  # torch is imported here

    return training_memory(settings, patch_size, batch_size, channels, outputs, mixed)
