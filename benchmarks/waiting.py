"""How long a training step takes by how its threads wait for each other, beside nothing and beside busy processes.

    python benchmarks/waiting.py [--beside 0 10] [--rounds 2] [--steps 5] [--threads 2]

Every way of waiting in turn, each in a process of its own, since OpenMP reads its settings once. The step is the
planner's for Hippocampus on a CPU (benchmarks/block_forms.py); printed are the clock's seconds a step, best of --steps,
one figure a round. mvl_auto/cli/waiting.py chooses by what was found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from cpu import cpu

WAYS = {
    "libgomp's default": {},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=int, nargs="+", default=[0, 10], metavar="N", help="busy processes")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.threads, args.steps)))
        return
    print(f"{cpu()}, {args.threads} threads\n\n| busy processes | way | s a step, each round |\n|---|---|---|")
    for count in args.beside:
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        try:
            rounds = [{way: child(settings, args) for way, settings in WAYS.items()} for _ in range(args.rounds)]
        finally:
            for process in busy:
                process.kill()
                process.wait()
        for way in WAYS:
            print(f"| {count} | {way} | {', '.join(f'{each[way]:.2f}' for each in rounds)} |", flush=True)


def child(settings: dict[str, str], args: argparse.Namespace) -> float:
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN} | settings
    environment |= {"OMP_NUM_THREADS": str(args.threads)}
    words = [sys.executable, Path(__file__), "--child", "--steps", args.steps, "--threads", args.threads]
    done = subprocess.run(list(map(str, words)), env=environment, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def measure(threads: int, steps: int) -> float:
    import torch
    from block_forms import FORMS, learner, one_step

    torch.set_num_threads(threads)
    trained = learner(FORMS["all tokens"])
    one_step(trained)
    seconds = []
    for _ in range(steps):
        begun = time.perf_counter()
        one_step(trained)
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


if __name__ == "__main__":
    main()
