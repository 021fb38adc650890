"""Is a short pretraining worth its steps? Dice of a fold after 100 steps, with 200 steps of it before and without.

    python benchmarks/pretraining.py -d DATASET --root ROOT [--fold 0] [--pretrain 200] [--train 100] [--llm none]

Three runs of one plan, seed and thread count: `pretrained` (mvl_pretrain without the fold's own cases, then training
from it), `scratch` (as many training steps), `longer` (as many steps as both together). Steps, not time, so that a busy
machine changes nothing but the hour. Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import mvl_auto
from mvl_auto.paths import find_preprocessed_dataset

THREADS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--dataset", required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--fold", default="0")
    parser.add_argument("--pretrain", type=int, default=200)
    parser.add_argument("--train", type=int, default=100)
    parser.add_argument("--llm", default=None, help="of all runs (default: the plan's)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    prepare(args.dataset, args.root, args.llm)
    rows = [row for seed in args.seeds for row in measure(args, seed)]
    print("| seed | run | steps of pretraining | of training | Dice |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def prepare(dataset: str, root: Path, llm: str | None) -> None:
    """Plan and preprocess, once."""
    try:
        find_preprocessed_dataset(dataset, root)
    except mvl_auto.MvlError:
        mvl_auto.plan_and_preprocess(dataset, root=root, llm=llm or "auto")


def measure(args: argparse.Namespace, seed: int) -> list[tuple[object, ...]]:
    """(seed, run, steps of pretraining, steps of training, Dice) of each run, finished here where it is not."""
    words = {"root": args.root, "seed": seed, "device": "cpu", "workers": 0, "progress": False}
    name = f"steps{args.pretrain}-{args.train}-seed{seed}"
    before = mvl_auto.pretrain(
        args.dataset, without_fold=args.fold, run=f"before-{name}", steps=args.pretrain, **words
    ).folder
    runs = {
        "pretrained": (args.pretrain, args.train, before),
        "scratch": (0, args.train, None),
        "longer": (0, args.pretrain + args.train, None),
    }
    rows: list[tuple[object, ...]] = []
    for kind, (pretrained, trained, start) in runs.items():
        (result,) = mvl_auto.train(
            args.dataset, args.fold, run=f"{kind}-{name}", steps=trained, start_from=start, **words
        )
        assert result.validation is not None
        rows.append((seed, kind, pretrained, trained, f"{result.validation.mean():.4f}"))
        print(*rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
