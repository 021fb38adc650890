"""What a rung of the ladder costs, and the highest one that a budget of memory and of time pays for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Literal, Protocol

from mvl_auto.errors import MvlError
from mvl_auto.planners.budget import Budget
from mvl_auto.planners.cost.estimate import TRUSTED, estimate_memory, estimate_work
from mvl_auto.planners.presets import FRAGMENTATION, RESERVED
from mvl_auto.planners.search import Rung, highest
from mvl_auto.plans import BlockSizes, NetworkSettings, Shape
from mvl_auto.text import memory_text

HOPELESS = 8.0  # times the budget: what is estimated to need as much by hand is not even measured


class StepSeconds(Protocol):
    """Seconds of one training step on the device that shall train (planners.timing)."""

    def __call__(
        self,
        settings: NetworkSettings,
        patch_size: Shape,
        batch_size: int,
        channels: int,
        outputs: int,
        block: BlockSizes | None,
    ) -> float: ...


@dataclass(frozen=True)
class Network:
    """What is trained, but for its size. channels: of the image. outputs: of the logits."""

    settings: Callable[[Rung], NetworkSettings]
    channels: int
    outputs: int

    def anywhere(self, rung: Rung) -> NetworkSettings:
        """Its settings without what makes no difference to cost, so that equal ones are measured once."""
        placed = self.settings(rung)
        nameless = placed.llm if rung.block is None else placed.llm.model_copy(update={"source": "auto"})
        return placed.model_copy(update={"spacing": (1.0,) * placed.dimensions, "llm": nameless})


@dataclass(frozen=True)
class Bought:
    """memory: bytes, of the whole process. measured: on the network itself, or estimated.

    step_seconds: of one training step, where there is a budget of time. ends: what ends the way up here.
    """

    rung: Rung
    memory: int
    measured: bool
    ends: Literal["ladder", "memory", "time"]
    step_seconds: float | None = None


def buy(
    candidates: Sequence[Rung],
    network: Network,
    budget: Budget,
    least_steps: Callable[[Rung], float],
    step_seconds: StepSeconds | None,
    what: str,
) -> Bought:
    """The highest of `candidates` that the budget pays for.

    least_steps: that the time must buy, no fewer for a higher rung; where it does not even for the lowest, that one is
    taken.
    step_seconds: needed where the budget has seconds.
    Memory is estimated first; only where that leaves a doubt are networks measured, which takes torch and seconds.
    Raises TooLittleMemory, naming the configuration `what`, for a budget whose memory pays for none.
    """
    fits = _in_memory(candidates, network, budget, what)
    if budget.seconds is None:
        return fits
    if step_seconds is None:
        raise ValueError("a budget of time needs step_seconds")
    return _in_time(candidates, fits, network, budget, budget.seconds, least_steps, step_seconds)


def pays_for(
    position: int,
    candidates: Sequence[Rung],
    network: Network,
    budget: Budget,
    least_steps: Callable[[Rung], float],
    step_seconds: StepSeconds | None,
) -> bool:
    """Whether `buy` would give this one of the candidates or a higher one, in fewer measurements."""
    rung = candidates[position]
    memory = _estimated(rung, network, budget)
    if memory > TRUSTED * budget.memory:
        return False
    if TRUSTED * memory > budget.memory and _measured(rung, network, budget) > budget.memory:
        return False
    return budget.seconds is None or (
        buy(candidates[: position + 1], network, budget, least_steps, step_seconds, "").rung == rung
    )


def _in_memory(candidates: Sequence[Rung], network: Network, budget: Budget, what: str) -> Bought:
    top = candidates[-1]
    if TRUSTED * (cheap := _estimated(top, network, budget)) <= budget.memory:
        return Bought(top, cheap, measured=False, ends="ladder")

    def cost(rung: Rung) -> int:
        return _measured(rung, network, budget)

    least = _estimated(candidates[0], network, budget)
    if least > HOPELESS * budget.memory:
        raise _too_little(budget, what, f"about {memory_text(least)}")
    chosen = highest(candidates, cost, lambda rung: _estimated(rung, network, budget), budget.memory)
    if chosen is None:
        raise _too_little(budget, what, memory_text(ceil(cost(candidates[0]) / 1e7) * 1e7))
    return Bought(chosen, cost(chosen), measured=True, ends="ladder" if chosen == top else "memory")


class TooLittleMemory(MvlError):
    """A budget whose memory pays for no network of a configuration."""


def _too_little(budget: Budget, what: str, needed: str) -> TooLittleMemory:
    return TooLittleMemory(
        f"{memory_text(budget.memory)} of memory pay for no {what} network: the smallest needs {needed}",
        remedy="Give it more with --memory, choose less by hand, or train without the LLM block (--llm none).",
    )


def _in_time(
    candidates: Sequence[Rung],
    fits: Bought,
    network: Network,
    budget: Budget,
    time: float,
    least_steps: Callable[[Rung], float],
    step_seconds: StepSeconds,
) -> Bought:
    """The highest rung up to the one that fits in memory, of which `time` (seconds) buys as many steps as it needs."""

    def seconds(rung: Rung) -> float:
        settings = network.anywhere(rung)
        return step_seconds(settings, rung.patch_size, rung.batch_size, network.channels, network.outputs, rung.block)

    def work(rung: Rung) -> float:
        return estimate_work(network.settings(rung), rung.patch_size, rung.batch_size, network.channels, rung.block)

    # the guess is scaled on the lowest rung, so that none is timed that takes far too long
    affordable = candidates[: candidates.index(fits.rung) + 1]
    per_work = seconds(candidates[0]) / work(candidates[0])
    chosen = highest(
        affordable,
        lambda rung: seconds(rung) * least_steps(rung),
        lambda rung: per_work * work(rung) * least_steps(rung),
        time,
    )
    if chosen == fits.rung:
        return replace(fits, step_seconds=seconds(fits.rung))
    chosen = chosen or candidates[0]
    if TRUSTED * (memory := _estimated(chosen, network, budget)) <= budget.memory:
        return Bought(chosen, memory, measured=False, ends="time", step_seconds=seconds(chosen))
    return Bought(chosen, _measured(chosen, network, budget), True, ends="time", step_seconds=seconds(chosen))


def _estimated(rung: Rung, network: Network, budget: Budget) -> int:
    sizes = (rung.patch_size, rung.batch_size, network.channels, network.outputs)
    return _whole(estimate_memory(network.settings(rung), *sizes, budget.device == "gpu", rung.block), budget)


def _measured(rung: Rung, network: Network, budget: Budget) -> int:
    sizes = (rung.patch_size, rung.batch_size, network.channels, network.outputs)
    return _whole(_tensors(network.anywhere(rung), *sizes, budget.device == "gpu", rung.block), budget)


def _whole(tensors: int, budget: Budget) -> int:
    """Bytes of the process whose tensors take so many."""
    return RESERVED[budget.device] + round(tensors * FRAGMENTATION)


@lru_cache(maxsize=256)
def _tensors(
    settings: NetworkSettings,
    patch_size: Shape,
    batch_size: int,
    channels: int,
    outputs: int,
    mixed: bool,
    block: BlockSizes | None,
) -> int:
    from mvl_auto.planners.cost.memory import training_memory

    return training_memory(settings, patch_size, batch_size, channels, outputs, mixed, block)


def forget_measurements() -> None:
    """Measure anew what was measured before in this process."""
    _tensors.cache_clear()
