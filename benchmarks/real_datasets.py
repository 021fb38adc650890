"""Real datasets of many kinds through the commands, a minute or two of training each, as a new user would.

    python benchmarks/real_datasets.py [--data ../shared/data] [--time 90s] [Nuclei Cord ...]

Nuclei is taken as it is; of the others, pieces of one scan are the cases (tests/support), so their scores say
that the way is open and that the network learns, not how good it would be on new patients. Each is planned, trained on
fold 0 with the default block, and its validation cases predicted again by mvl_predict and scored by mvl_evaluate.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests/support"))
NUCLEI = "Nuclei"


def main() -> None:
    from real_datasets import NUMBERS, assemble

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", metavar="NAME", help=f"{NUCLEI}, {', '.join(NUMBERS)} (default: all)")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared/data")
    parser.add_argument("--time", default="90s")
    args = parser.parse_args()
    print("| dataset | configuration | patch | steps | Dice, validation | seconds in all |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in args.datasets or [NUCLEI, *NUMBERS]:
            samples = args.data.absolute() / "samples"
            raw = (
                args.data.absolute() / "Dataset101_Nuclei"
                if name == NUCLEI
                else assemble(name, samples, root / "raw", "nnunet")
            )
            print(row(name, raw, root, args.time), flush=True)


def row(name: str, raw: Path, root: Path, length: str) -> str:
    begun = time.perf_counter()
    command("plan_and_preprocess", "-d", raw, root=root)
    command("train", raw, "fold0", "--time", length, root=root)
    plan = json.loads((root / "preprocessed" / raw.name / "plans.json").read_text())
    chosen = plan["configurations"][plan["recommended"]]
    fold = root / "results" / raw.name / plan["recommended"] / "fold0"
    state = json.loads((fold / "state.json").read_text())
    images, predictions = root / "imgs" / raw.name, root / "preds" / raw.name
    images.mkdir(parents=True)
    for case in state["validation_cases"]:
        for file in raw.glob(f"imagesTr/{case}*"):
            (images / file.name).symlink_to(file)
    command("predict", "-i", images, "-o", predictions, "-d", raw, root=root)
    command("evaluate", "-r", raw / "labelsTr", "-p", predictions, "--only-common", root=root)
    scores = json.loads((predictions / "scores.json").read_text())
    patch = "x".join(map(str, chosen["patch_size"]))
    seconds = time.perf_counter() - begun
    dice = scores["mean"]["dice"]
    return f"| {name} | {plan['recommended']} | {patch} | {state['step']} | {dice:.3f} | {seconds:.0f} |"


def command(name: str, *words: object, root: Path) -> None:
    """Run one of ours, quietly. Raises CalledProcessError, with what it said on the screen, when it fails."""
    program = Path(sys.executable).with_name(f"mvl_{name}")
    done = subprocess.run(
        [program, *map(str, words), "-q"], env=os.environ | {"MVL_ROOT": str(root)}, capture_output=True, text=True
    )
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
        done.check_returncode()


if __name__ == "__main__":
    main()
