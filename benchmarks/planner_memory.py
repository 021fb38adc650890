"""The planner's measurement of memory against what torch's allocator reports, over a grid of networks.

    python benchmarks/planner_memory.py [--only WORD]

Each network is measured as the planner does it, in fake tensors, and then really trained for two steps on the CPU with
the profiler's log of allocations. Prints a table in Markdown, and the worst of it. Goals (issue 5): within 10 %,
measuring takes less than a second, planning a dataset of the Decathlon less than 20 s. `estimate` is the rough count
that decides whether anything is measured at all; it must lie within a factor of 1.25. Seconds are the processor's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

HEADER = "| network | measured MB | real MB | measured / real | estimate / real | s |\n|---|---|---|---|---|---|"
PLANNED = ("S", "XL", "cpu")  # presets that the Decathlon is planned for


def main() -> None:
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="only networks that have this in their name")
    args = parser.parse_args()
    from memory_grid import grid

    compare({name: step for name, step in grid().items() if args.only in name})
    plan_everything()


def compare(steps: dict[str, Any]) -> None:
    from peak import real_peak

    from mvl_auto.planners.estimate import estimate_memory
    from mvl_auto.planners.memory import training_memory

    warm_up = next(iter(steps.values()))
    training_memory(*warm_up)  # imports
    print(HEADER)
    ratios, guesses, times = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, step in steps.items():
            measured, times[name] = timed(lambda step=step: training_memory(*step))
            real = real_peak(*step, Path(folder))
            ratios[name], guesses[name] = measured / real, estimate_memory(*step) / real
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


def plan_everything() -> None:
    """Every task of the Decathlon for GPUs of 8 and 80 GiB and for a CPU, each measured anew."""
    from fingerprints import DECATHLON, fingerprint_of

    from mvl_auto.planners import plan, preset_budget
    from mvl_auto.planners.cost import forget_measurements

    taken = {}
    for preset in PLANNED:
        budget = preset_budget(preset)
        for task in DECATHLON:
            forget_measurements()
            fingerprint = fingerprint_of(tuple(int(n) for n in task.size), task.spacing, task.cases, task.channels)
            _, taken[f"{task.task} for {preset}"] = timed(lambda f=fingerprint, b=budget: plan(f, b))
    slowest = max(taken, key=taken.__getitem__)
    print(f"planning {len(taken)} times: {sum(taken.values()):.1f} s, the slowest {slowest} ({taken[slowest]:.1f} s)")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Seconds of the processor, on one thread: those of the clock, unless the machine is busy with other things."""
    begun = time.process_time()
    result = work()
    return result, time.process_time() - begun


if __name__ == "__main__":
    main()
