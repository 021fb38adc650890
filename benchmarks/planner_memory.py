"""The planner's measurement of memory against what torch's allocator reports, over a grid of networks.

    python benchmarks/planner_memory.py [--only WORD] [--keep FILE]

Each network is measured as the planner does it, in fake tensors, and then really trained for two steps on the CPU with
the profiler's log of allocations. Prints a table in Markdown, and the worst of it. Goals: within 10 %, measuring takes
less than two seconds, planning a dataset of the Decathlon less than 20 s. `estimate` is the rough estimate that decides
whether anything is measured at all; it must lie within a factor of 1.25. Seconds are the processor's, after torch's
cache of fake tensors was cleared; those of planning with a time budget are the clock's.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures import add_keep, keep

if TYPE_CHECKING:
    from mvl_auto.planners import TrainingStep

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests/support"))

HEADER = "| network | measured MB | real MB | measured / real | estimate / real | s |\n|---|---|---|---|---|---|"
DEEP = {"stem_channels": (48, 96, 192), "width": 768, "depth": 12, "heads": 12}
TWO_HOURS = 7200.0
PLANNED = ("S", "XL", "cpu")  # presets that the Decathlon is planned for


def main() -> None:
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="only networks that have this in their name")
    add_keep(parser)
    args = parser.parse_args()
    from memory_grid import grid

    keep(args.keep, compare({name: step for name, step in grid().items() if args.only in name}))
    measure_the_largest()
    plan_everything()
    plan_in_time()


def compare(steps: dict[str, Any]) -> dict[str, float]:
    from peak import real_peak
    from torch._subclasses.fake_tensor import FakeTensorMode

    from mvl_auto.planners.cost.estimate import estimate_memory
    from mvl_auto.planners.cost.memory import training_memory

    warm_up = next(iter(steps.values()))
    training_memory(warm_up)  # imports
    print(HEADER)
    ratios, guesses, times = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, step in steps.items():
            FakeTensorMode.cache_clear()
            measured, times[name] = timed(lambda step=step: training_memory(step))
            real = real_peak(step, Path(folder))
            ratios[name], guesses[name] = measured / real, estimate_memory(step) / real
            print(
                f"| {name} | {measured / 1e6:.1f} | {real / 1e6:.1f} | {ratios[name]:.3f} | {guesses[name]:.2f} "
                f"| {times[name]:.2f} |",
                flush=True,
            )
    worst = max(ratios, key=lambda name: abs(ratios[name] - 1))
    slowest = max(times, key=times.__getitem__)
    print(
        f"\n{len(ratios)} networks; the furthest off: {worst} ({ratios[worst]:.3f}); the slowest to measure: {slowest} "
        f"({times[slowest]:.2f} s); estimates from {min(guesses.values()):.2f} to {max(guesses.values()):.2f}"
    )
    return {
        "networks": len(ratios),
        "furthest from what torch allocates, %": 100 * abs(ratios[worst] - 1),
        "longest to measure one, s": times[slowest],
    }


def measure_the_largest() -> None:
    """How long the networks take that only large GPUs hold: the large trunk around blocks of the bank."""
    from fingerprints import BANK
    from memory_grid import LARGE, flat, step_of, volume
    from torch._subclasses.fake_tensor import FakeTensorMode

    from mvl_auto.planners.cost.memory import training_memory
    from mvl_auto.plans import LlmSettings

    for block in BANK:
        llm = LlmSettings(source=block.source, hidden_size=block.hidden_size)
        networks = {(192, 192, 192): volume(**LARGE, llm=llm), (1024, 1024): flat(**DEEP, llm=llm)}
        for patch, network in networks.items():
            FakeTensorMode.cache_clear()
            step = replace(step_of(network, patch, 8, 3, 4, True), block=block)
            measured, seconds = timed(lambda step=step: training_memory(step))
            print(f"{len(patch)}D, large trunk, {block.source}: {measured / 1e9:.0f} GB measured in {seconds:.2f} s")


def plan_everything() -> None:
    """Every task of the Decathlon for GPUs of 8 and 80 GiB and for a CPU."""
    from fingerprints import DECATHLON, fingerprint_of

    from mvl_auto.planners import plan, preset_budget

    taken = {}
    for preset in PLANNED:
        budget = preset_budget(preset)
        for task in DECATHLON:
            fingerprint = fingerprint_of(tuple(int(n) for n in task.size), task.spacing, task.cases, task.channels)
            _, taken[f"{task.task} for {preset}"] = timed(lambda f=fingerprint, b=budget: plan(f, b))
    slowest = max(taken, key=taken.__getitem__)
    print(f"planning {len(taken)} times: {sum(taken.values()):.1f} s, the slowest {slowest} ({taken[slowest]:.1f} s)")


def plan_in_time() -> None:
    """One task with four configurations for two hours on this CPU: steps are really taken, and timed."""
    import torch
    from fingerprints import DECATHLON, fingerprint_of

    from mvl_auto.planners import plan, preset_budget, time_step

    task = next(task for task in DECATHLON if task.task == "Liver")
    fingerprint = fingerprint_of(tuple(int(n) for n in task.size), task.spacing, task.cases, task.channels)
    budget = replace(preset_budget("cpu"), seconds=TWO_HOURS)
    timings = []

    def counted(step: TrainingStep) -> float:
        timings.append(step)
        return time_step(step, "cpu")

    torch.set_num_threads(os.cpu_count() or 1)
    begun = time.perf_counter()
    plan(fingerprint, budget, step_seconds=counted)
    print(
        f"planning {task.task} for two hours on this CPU: {time.perf_counter() - begun:.1f} s of the clock, "
        f"{len(timings)} kinds of steps timed"
    )


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Seconds of the processor, on one thread: those of the clock, unless the machine is busy with other things."""
    begun = time.process_time()
    result = work()
    return result, time.process_time() - begun


if __name__ == "__main__":
    main()
