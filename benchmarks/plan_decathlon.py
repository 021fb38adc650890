"""The table of docs/planner.md: what is planned for the ten tasks of the Decathlon, beside nnU-Net's patches.

    python benchmarks/plan_decathlon.py

Fingerprints have the published spacings, sizes and numbers of cases (tests/support). Networks for the GPU are
measured: some seconds a task.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mvl_auto.planners import Budget, plan, preset_budget
from mvl_auto.planners.presets import SHALLOW
from mvl_auto.plans import Configuration, Plan

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests/support"))

TRUNKS = {192: "S", 384: "M", 768: "L"}  # by width; the shallow one is as wide as the small one
CPU = Budget(8 << 30, "cpu")  # any from 2 GiB on gives the same


def main() -> None:
    from fingerprints import DECATHLON, fingerprint_of

    print("| task | spacing (mm) | median shape | nnU-Net, 8 GB | GPU of 8 GiB | CPU |\n" + "| --- " * 6 + "|")
    for task in DECATHLON:
        size = tuple(int(n) for n in task.size)
        dataset = fingerprint_of(size, task.spacing, task.cases, task.channels)
        gpu, cpu = (plan(dataset, budget) for budget in (preset_budget("S"), CPU))
        cells = [task.task, by(task.spacing), by(task.size), by(task.patch), planned(gpu), planned(cpu)]
        print(f"| {' | '.join(cells)} |", flush=True)


def planned(plan: Plan) -> str:
    """Patch, batch, trunk and steps of the full resolution."""
    chosen: Configuration = plan.configuration("3d_fullres")
    trunk = "shallow" if chosen.network.depth == SHALLOW.depth else TRUNKS[chosen.network.width]
    return f"{by(chosen.patch_size)}, {chosen.batch_size}, {trunk}, {chosen.steps}"


def by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:.3g}" for number in numbers)


if __name__ == "__main__":
    main()
