"""Dice after equal time, spent on patch, batch, depth, width or finer tokens: is the planner's search order right?

    python benchmarks/objective.py [--steps 250] [--seeds 1] [--only WORD] [--dataset ../shared/data/Task04_Hippocampus]

Plans the dataset once; each arm is that plan with one thing changed. A step of every arm is timed first, in turn and
several times over, and each arm then trains as many steps as the plan's own `--steps` would have taken: equal time by
measured cost, whatever else the machine does meanwhile. Prints mean Dice on the validation cases of fold 0.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from mvl_auto.plans import Configuration, Plan

DATA = Path(__file__).parents[2] / "shared/data/Task04_Hippocampus"
ROUNDS = 3  # of timing; the quickest counts

# the plan of Hippocampus on a CPU: patch 32 x 48 x 32, batch 4, tokens of 8, 6 blocks of width 192 with 3 heads
ARMS: dict[str, dict[str, Any]] = {
    "as planned": {},
    "a quarter of the patch, four times the batch": {"patch_size": (24, 24, 24), "batch_size": 14},
    "the patch rounded up": {"patch_size": (40, 56, 40)},
    "a wider stem": {"stem_channels": (24, 48)},
    "six heads": {"heads": 6},
    "half the batch": {"batch_size": 2},
    "twice the batch": {"batch_size": 8},
    "half the depth": {"depth": 3},
    "twice the depth": {"depth": 12},
    "twice the width": {"width": 384, "heads": 6},
    "tokens half as long": {"token_stride": (1, 1, 1)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, default=DATA)
    parser.add_argument("--steps", type=int, default=250, help="of the arm as planned")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", metavar="WORD", help="only arms that have this in their name")
    parser.add_argument("--root", type=Path, help="where to work (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        compare(args, args.root or Path(scratch))


def compare(args: argparse.Namespace, root: Path) -> None:
    from mvl_auto import api
    from mvl_auto.plans import write_document

    plan = api.plan_and_preprocess(args.dataset, root=root, preset="cpu")
    names = [name for name in ARMS if args.only in name or not ARMS[name]]
    seconds = step_seconds(plan, names)
    print("| arm | s a step | steps | mean Dice |\n|---|---|---|---|")
    for name in names:
        steps = round(args.steps * seconds["as planned"] / seconds[name])
        write_document(root / "preprocessed" / plan.dataset / "plans.json", changed(plan, ARMS[name]))
        dice = [train(args.dataset, root, f"{name}, seed {seed}", steps, seed) for seed in range(args.seeds)]
        print(f"| {name} | {seconds[name]:.2f} | {steps} | {', '.join(f'{one:.3f}' for one in dice)} |", flush=True)


def train(dataset: Path, root: Path, name: str, steps: int, seed: int) -> float:
    from mvl_auto import api

    run = name.replace(" ", "_").replace(",", "")
    (result,) = api.train(dataset, ["0"], root=root, run=run, steps=steps, seed=seed, device="cpu")
    return float(json.loads((result.folder / "summary.json").read_text())["mean"]["dice"])


def changed(plan: Plan, change: dict[str, Any]) -> Plan:
    """The plan with its recommended configuration changed; what is no field of it is one of its network."""
    own = plan.configuration()
    of_network = {name: value for name, value in change.items() if name not in Configuration.model_fields}
    network = own.network.model_copy(update=of_network)
    others = {name: value for name, value in change.items() if name in Configuration.model_fields}
    new = own.model_copy(update={**others, "network": network})
    return plan.model_copy(update={"configurations": {**plan.configurations, own.name: new}})


def step_seconds(plan: Plan, names: list[str]) -> dict[str, float]:
    from mvl_auto.planners import TrainingStep, time_step
    from mvl_auto.planners.cost.block import SMOLLM2

    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            arm = changed(plan, ARMS[name]).configuration()
            step = TrainingStep(arm.network, arm.patch_size, arm.batch_size, len(plan.channels), plan.labels, SMOLLM2)
            taken[name].append(time_step(step, "cpu"))
    return {name: min(all_rounds) for name, all_rounds in taken.items()}


if __name__ == "__main__":
    main()
