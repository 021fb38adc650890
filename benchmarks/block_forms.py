"""The forms of the LLM block: what share of a step each costs, and the Dice after so many steps.

    python benchmarks/block_forms.py [--batches 1 2 4]        the share of a step, about a minute for each batch size
    python benchmarks/block_forms.py --dice -o FOLDER         the Dice on fold 0; finished runs are kept, so that it
                                                              goes on where it was stopped
    options: [--steps 300] [--seeds 2] [--only WORD] [--dataset ../shared/data/Task04_Hippocampus]

Share: of a whole training step of the planner's network for Hippocampus on a CPU (patch 32x48x32, batch 2), one thread,
as it trains on this machine (--float32: in float32 whatever it can multiply), every form in turn in each round. It is
the CPU time of the process, which other processes change less than the clock's. Each form is compared with the network
without a block in the same round; the median over the rounds is printed. Dice: mean over the validation cases of fold
0, the same plan, seeds and steps for every form.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvl_auto.network.step import Learner
    from mvl_auto.plans import LlmSettings

DATA = Path(__file__).parents[2] / "shared/data/Task04_Hippocampus"
BLOCK = "random:hidden=576,heads=9,kv_heads=3,ffn=1536,seed=0"  # SmolLM2-135M's shape: its cost, without a download
PATCH, BATCHES = (32, 48, 32), (2,)
WITHOUT = "without a block"
FORMS: dict[str, dict[str, Any]] = {
    WITHOUT: {"source": "none"},
    "all tokens": {},
    "pooled 2x2x2": {"tokens": "pooled"},
    "16 queries": {"tokens": "queries"},
    "16 queries, from half of the run": {"tokens": "queries", "start": 0.5},
}
RATES = (1.0, 10.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dice", action="store_true", help="train, instead of timing steps")
    parser.add_argument("-o", "--output", type=Path, help="with --dice: root folder of the runs")
    parser.add_argument("--dataset", type=Path, default=DATA)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, metavar="N")
    parser.add_argument("--float32", action="store_true", help="where the CPU would train in bfloat16")
    parser.add_argument("--only", default="", metavar="WORD", help="only forms that have this in their name")
    args = parser.parse_args()
    if args.dice and args.output is None:
        parser.error("--dice needs -o FOLDER")
    if args.dice:
        dice(args)
    else:
        for batch in args.batches:
            shares(args.rounds, batch, args.float32)


def shares(rounds: int, batch: int, in_float32: bool) -> None:
    import torch

    from mvl_auto.network import device

    torch.set_num_threads(1)
    if in_float32:
        device.cpu_multiplies_bfloat16 = lambda: False
    names = [name for name, change in FORMS.items() if "start" not in change]
    learners = {name: learner(FORMS[name]) for name in names}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        taken = {name: one_step(learners[name], batch) for name in names}
        if number:  # the first warms up
            for name in names:
                ratios[name].append(taken[name] / taken[WITHOUT])
                seconds[name].append(taken[name])
    print(f"\nbatch {batch}\n")
    print("| form | CPU s a step, best | share of the step | spread of the middle half |\n|---|---|---|---|")
    for name in names:
        share = sorted(1 - 1 / ratio for ratio in ratios[name])
        quarter = len(share) // 4
        print(
            f"| {name} | {min(seconds[name]):.3f} | {100 * median(share):.1f} % | "
            f"{100 * share[quarter]:.1f} to {100 * share[-1 - quarter]:.1f} % |"
        )


def learner(change: dict[str, Any]) -> Learner:
    import tempfile

    import torch

    from mvl_auto.llm import load_block
    from mvl_auto.network import build_network
    from mvl_auto.network.device import place
    from mvl_auto.network.step import Learner
    from mvl_auto.plans import LlmSettings, NetworkSettings

    llm = LlmSettings(**({"source": BLOCK} | change))
    block = None
    if llm.present:
        with tempfile.TemporaryDirectory() as scratch:
            block = load_block(BLOCK, "last", Path(scratch)).to(torch.bfloat16)  # as a pretrained one is stored
    settings = NetworkSettings(
        spacing=(1.0, 1.0, 1.0),
        stem_channels=(16, 32),
        stem_strides=((2, 2, 2), (2, 2, 2)),
        token_stride=(2, 2, 2),
        width=192,
        depth=6,
        heads=3,
        llm=llm,
    )
    return Learner.of(place(build_network(settings, 1, 3, block).train(), torch.device("cpu")))


def one_step(of: Learner, batch: int) -> float:
    """CPU seconds."""
    import torch

    from mvl_auto.network.step import step_context, training_step
    from mvl_auto.plans import LabelScheme

    labels = LabelScheme(class_values=(0, 1, 2), class_names=("background", "a", "b"))
    image, label = torch.randn(batch, 1, *PATCH), torch.randint(0, 3, (batch, *PATCH), dtype=torch.int16)
    context = step_context(labels, torch.device("cpu"))
    begun = time.process_time()
    training_step(of, image, label, context, learning_rate=0.0)
    return time.process_time() - begun


def dice(args: argparse.Namespace) -> None:
    from mvl_auto import api
    from mvl_auto.plans import Plan, read_document

    root: Path = args.output
    found = list(root.glob("preprocessed/*/plans.json"))
    plan = read_document(found[0], Plan) if found else api.plan_and_preprocess(args.dataset, root=root, preset="cpu")
    planned = plan.configuration().network.llm
    print(f"mean Dice of fold 0 after {args.steps} steps of {plan.dataset}, for each seed\n", flush=True)
    print("| form | rate of mappers | Dice | mean |\n|---|---|---|---|")
    for name, rate, llm in arms(planned, args.only):
        values = [train(args, root, plan.dataset, (name, rate, seed), llm) for seed in range(args.seeds)]
        print(f"| {name} | {rate:g} | {', '.join(f'{v:.4f}' for v in values)} | {mean(values):.4f} |", flush=True)


def arms(planned: LlmSettings, only: str) -> Iterator[tuple[str, float, LlmSettings]]:
    for name, change in FORMS.items():
        for rate in RATES if "source" not in change else RATES[:1]:
            if only in name:
                yield name, rate, planned.model_copy(update=change | {"mapper_rate": rate})


def train(args: argparse.Namespace, root: Path, dataset: str, arm: tuple[str, float, int], llm: LlmSettings) -> float:
    """Trains, or reads the finished run."""
    from mvl_auto.training import TrainingOptions
    from mvl_auto.training import train as train_one

    name, rate, seed = arm
    run = f"{name} x{rate:g} {args.steps} seed{seed}".replace(" ", "_").replace(",", "")
    result = train_one(
        root / "preprocessed" / dataset,
        "0",
        TrainingOptions(run=run, steps=args.steps, seed=seed, device="cpu", llm=llm),
        results_folder=root / "results" / dataset,
        blocks_folder=root / "blocks",
    )
    return float(json.loads((result.folder / "summary.json").read_text())["mean"]["dice"])


if __name__ == "__main__":
    main()
