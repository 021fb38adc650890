"""The main job on real data: plan, train fold 0 for a given time, predict and score what training never saw.

    python benchmarks/training.py [--time 10m] [--dataset ../shared/data/Task04_Hippocampus] [--llm none]

Runs the commands as a user would and prints Dice per label on the validation cases of fold 0 (five folds; nnU-Net's
are the same), seconds of each command, steps, and the most memory that all processes held together. Nothing else
should run meanwhile. Linux only. Needs psutil.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from preprocess import Run, measured

DATA = Path(__file__).parents[2] / "shared/data/Task04_Hippocampus"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, default=DATA)
    parser.add_argument("--time", default="10m")
    parser.add_argument("--llm", default="auto")
    parser.add_argument("--root", type=Path, help="where to work (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = args.root or Path(scratch)
        runs = {
            "plan and preprocess": ours("plan_and_preprocess", "-d", args.dataset, "--llm", args.llm, root=root),
            f"train --time {args.time}": ours("train", args.dataset, "fold0", "--time", args.time, root=root),
        }
        report(next(root.glob("results/*/*/fold0")), runs)


def ours(command: str, *words: object, root: Path) -> Run:
    program = Path(sys.executable).with_name(f"mvl_{command}")
    return measured([program, *words], os.environ | {"MVL_ROOT": str(root)})


def report(fold: Path, runs: dict[str, Run]) -> None:
    state = json.loads((fold / "state.json").read_text())
    summary = json.loads((fold / "summary.json").read_text())
    block = state["block"]["source"] if state["block"] else "none"
    print(f"{state['dataset']}, {state['configuration']}, fold 0, LLM block {block}")
    print(f"  {cpu()}; steps in {state['precision']} with {state['threads']} threads")
    for what, run in runs.items():
        print(f"  {what:<24}{run.seconds:>8.1f} s{run.peak_bytes / 1e6:>9.0f} MB")
    print(f"  {state['step']} steps in {state['elapsed']:.0f} s, {len(summary['cases'])} validation cases")
    for label, scores in summary["labels"].items():
        print(f"  {label:<24}{scores['dice']['mean']:>8.3f} Dice")
    print(f"  {'mean':<24}{summary['mean']['dice']:>8.3f} Dice")


def cpu() -> str:
    """The processor's name, and which vectors and which bfloat16 it multiplies."""
    import torch

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown CPU")
    can = torch.cpu.get_capabilities()
    names = [each for each in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if can.get(each)]
    return f"{name} ({', '.join(names) or 'no AVX2'})"


if __name__ == "__main__":
    main()
