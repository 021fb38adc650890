"""Two versions of this package side by side: the three commands and the demo, alternately, in one run.

    python benchmarks/versions.py OLD/bin NEW/bin [--rounds 3] [--steps 40] [--demo] [--data FOLDER]

OLD/bin and NEW/bin: folders with the commands of two environments, for example two virtual environments in which two
commits are installed. Each round runs one command of the one, then of the other, in an order that changes from round to
round, on the same data; printed are the medians in seconds and the ratio new to old. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

DATA = Path(__file__).parents[2] / "shared/data/Task04_Hippocampus"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--demo", action="store_true", help="mvl_demo too: some minutes a round")
    args = parser.parse_args()
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(args.rounds):
        versions = [("old", args.old.absolute()), ("new", args.new.absolute())]
        for name, folder in versions if number % 2 == 0 else reversed(versions):
            for command, took in one_round(folder, args.data.absolute(), args.steps, args.demo):
                seconds.setdefault((command, name), []).append(took)
                print(f"round {number + 1}, {name}: {command} {took:.1f} s", flush=True)
    print(f"\n{'command':<28}{'old s':>9}{'new s':>9}{'new/old':>9}")
    for command in dict.fromkeys(command for command, _ in seconds):
        old, new = (statistics.median(seconds[command, name]) for name in ("old", "new"))
        print(f"{command:<28}{old:>9.1f}{new:>9.1f}{new / old:>9.2f}")


def one_round(folder: Path, data: Path, steps: int, demo: bool) -> list[tuple[str, float]]:
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        images.mkdir()
        for path in sorted((data / "imagesTr").glob("*.nii.gz"))[:20]:
            shutil.copy(path, images)
        commands = [
            ("mvl_train --help", ["mvl_train", "--help"]),
            ("plan_and_preprocess", ["mvl_plan_and_preprocess", "-d", data, "--llm", "none", "--memory", "2GB"]),
            (f"train, {steps} steps", ["mvl_train", data, "fold0", "--steps", steps]),
            ("predict, 20 images", ["mvl_predict", "-i", images, "-o", Path(scratch) / "predictions"]),
        ]
        if demo:
            commands.append(("demo", ["mvl_demo", "--root", Path(scratch) / "demo"]))
        return [(name, timed(folder, words, Path(scratch) / "root")) for name, words in commands]


def timed(folder: Path, words: list[object], root: Path) -> float:
    begun = time.monotonic()
    subprocess.run(
        [folder / str(words[0]), *map(str, words[1:])],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"MVL_ROOT": str(root)},
    )
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
