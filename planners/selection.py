"""The largest candidate that fits a budget of memory and of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from mvl_auto.errors import MvlError
from mvl_auto.planners.budget import Budget
from mvl_auto.planners.cost.estimate import TRUSTED, estimate_memory, estimate_work
from mvl_auto.planners.cost.measure import Measure
from mvl_auto.planners.cost.step import TrainingStep
from mvl_auto.planners.presets import FRAGMENTATION, RESERVED
from mvl_auto.planners.search import Candidate, find_largest_that_fits
from mvl_auto.plans import ConfigurationName
from mvl_auto.text import memory_text

HOPELESS = 8.0  # times the budget: a network that is estimated to need more is not built to be measured


@dataclass(frozen=True)
class Selection:
    """The selected candidate.

    memory: bytes of the whole process. measured: on the network itself, or estimated. limited_by: what excludes the
    next larger candidate. step_seconds: of one training step, where there is a time budget.
    """

    candidate: Candidate
    memory: int
    measured: bool
    limited_by: Literal["candidates", "memory", "time"]
    step_seconds: float | None = None


class TooLittleMemory(MvlError):
    """The memory budget is too small for any network of a configuration."""


@dataclass(frozen=True)
class Selector:
    """Selects among the candidates of one configuration.

    training_step: of a candidate. min_steps: training steps that a time budget must allow; no fewer for a later
    candidate. Memory is estimated first; only where the estimate leaves a doubt is a network measured, which takes
    torch and seconds.
    """

    name: ConfigurationName
    budget: Budget
    training_step: Callable[[Candidate], TrainingStep]
    min_steps: Callable[[Candidate], float]
    measure: Measure

    def select(self, candidates: Sequence[Candidate]) -> Selection:
        """The last of `candidates` that fits the budget.

        Where the time does not allow the minimum number of steps even for the first candidate, that one is returned.
        Raises TooLittleMemory, naming the memory that would do, where none fits the memory budget.
        """
        in_memory = self._select_by_memory(candidates)
        return in_memory if self.budget.seconds is None else self._select_by_time(candidates, in_memory)

    def fits(self, candidates: Sequence[Candidate], position: int) -> bool:
        """Whether `select` would return the candidate at `position` or a later one, found with fewer measurements."""
        candidate = candidates[position]
        memory = self._estimate(candidate)
        if memory > TRUSTED * self.budget.memory:
            return False
        if TRUSTED * memory > self.budget.memory and self._measure(candidate) > self.budget.memory:
            return False
        return self.budget.seconds is None or self.select(candidates[: position + 1]).candidate == candidate

    def _select_by_memory(self, candidates: Sequence[Candidate]) -> Selection:
        budget, last = self.budget.memory, candidates[-1]
        if TRUSTED * (estimated := self._estimate(last)) <= budget:
            return Selection(last, estimated, measured=False, limited_by="candidates")
        least = self._estimate(candidates[0])
        if least > HOPELESS * budget:
            raise self._too_little(f"about {memory_text(least)}")
        chosen = find_largest_that_fits(candidates, self._measure, self._estimate, budget)
        if chosen is None:
            raise self._too_little(memory_text(ceil(self._measure(candidates[0]) / 1e7) * 1e7))
        limited_by: Literal["candidates", "memory"] = "candidates" if chosen == last else "memory"
        return Selection(chosen, self._measure(chosen), measured=True, limited_by=limited_by)

    def _select_by_time(self, candidates: Sequence[Candidate], in_memory: Selection) -> Selection:
        """The last candidate, up to the one that fits in memory, of which the time allows the minimum of steps."""
        assert self.budget.seconds is not None
        fitting = candidates[: candidates.index(in_memory.candidate) + 1]
        # the guess is scaled on the smallest candidate, so that none is timed that takes far too long
        per_work = self._seconds(candidates[0]) / self._work(candidates[0])
        chosen = find_largest_that_fits(
            fitting,
            lambda candidate: self._seconds(candidate) * self.min_steps(candidate),
            lambda candidate: per_work * self._work(candidate) * self.min_steps(candidate),
            self.budget.seconds,
        )
        if chosen == in_memory.candidate:
            return replace(in_memory, step_seconds=self._seconds(chosen))
        chosen = chosen or candidates[0]
        memory, seconds = self._estimate(chosen), self._seconds(chosen)
        if TRUSTED * memory <= self.budget.memory:
            return Selection(chosen, memory, measured=False, limited_by="time", step_seconds=seconds)
        return Selection(chosen, self._measure(chosen), measured=True, limited_by="time", step_seconds=seconds)

    def _estimate(self, candidate: Candidate) -> int:
        return self._of_process(estimate_memory(self.training_step(candidate)))

    def _measure(self, candidate: Candidate) -> int:
        return self._of_process(self.measure.memory(self.training_step(candidate).without_names()))

    def _of_process(self, tensors: int) -> int:
        """Bytes of the process whose tensors take so many."""
        return RESERVED[self.budget.device] + round(tensors * FRAGMENTATION)

    def _work(self, candidate: Candidate) -> float:
        return estimate_work(self.training_step(candidate))

    def _seconds(self, candidate: Candidate) -> float:
        if self.measure.seconds is None:
            raise ValueError("a time budget needs step_seconds: a function that times a training step")
        return self.measure.seconds(self.training_step(candidate).without_names())

    def _too_little(self, needed: str) -> TooLittleMemory:
        return TooLittleMemory(
            f"{memory_text(self.budget.memory)} of memory are too little for any {self.name} network: the smallest "
            f"needs {needed}",
            remedy="Give more with --memory, override less, or train without the LLM block (--llm none).",
        )
