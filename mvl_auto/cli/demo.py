"""mvl_demo: the whole way on a small dataset that it makes itself, in a few minutes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mvl_auto.cli.common import DONE, Command, run_command
from mvl_auto.cli.values import duration, positive
from mvl_auto.tables import table
from mvl_auto.text import clock_text, count_text

DEFAULT_ROOT = Path("mvl_demo")
DEFAULT_SECONDS = 100.0
SMALLEST_VOXEL, LARGEST_VOXEL = 1, 10  # mm: the template's own, and where a brain is 16 voxels wide


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", type=Path, default=DEFAULT_ROOT, metavar="FOLDER", help="where all of it goes (default: ./mvl_demo)"
    )
    parser.add_argument("--cases", type=positive, default=10, metavar="N", help="subjects to train on (default: 10)")
    parser.add_argument("--held-out", type=positive, default=3, metavar="N", help="subjects to predict (default: 3)")
    parser.add_argument(
        "--size", type=voxel_size, default=4.0, metavar="MM", help="size of a voxel; smaller takes longer (default: 4)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--time", type=duration, default=DEFAULT_SECONDS, metavar="TIME", help="train this long (default: 100s)"
    )
    length.add_argument("--steps", type=positive, metavar="N", help="train for N steps")
    parser.add_argument(
        "--llm", metavar="SOURCE", help="the frozen block (default: a pretrained one; if none can be had, a random one)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the subjects (default: 0)")


def voxel_size(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not SMALLEST_VOXEL <= size <= LARGEST_VOXEL:
        raise argparse.ArgumentTypeError(f"'{text}' is no size of a voxel: give {SMALLEST_VOXEL} to {LARGEST_VOXEL} mm")
    return size


def run(args: argparse.Namespace) -> int:
    from mvl_auto.demo.walk import Settings, StepFailed, walk

    started = time.monotonic()
    settings = Settings(
        root=args.root,
        subjects=args.cases,
        held_out=args.held_out,
        spacing_mm=args.size,
        seconds=args.time,
        steps=args.steps,
        llm=args.llm,
        seed=args.seed,
    )
    print(f"root: {args.root.absolute()}")
    try:
        outcome = walk(settings, say=lambda line: print(line, flush=True), progress=args.progress)
    except StepFailed as failure:
        print(f"mvl_demo: {failure}; the demo stops here.", file=sys.stderr)
        return failure.code
    rows = [[label, f"{dice:.3f}"] for label, dice in outcome.dice.items()]
    print(f"\non the {count_text(args.held_out, 'held-out subject')}\n{table(['label', 'dice'], rows)}")
    if not outcome.pretrained:
        print("the LLM block was a random one, not pretrained: see above how to get one")
    print(f"\npicture: {outcome.picture}\ntook {clock_text(time.monotonic() - started)} in all")
    return DONE


COMMAND = Command(
    name="mvl_demo",
    summary="Make a small labelled dataset (grey and white matter of made brains), and plan, train, predict and score "
    "on it with the commands that you would use. Ends with a picture. Downloads nothing but, if it can, "
    "an LLM block.",
    example="""
        mvl_demo
        mvl_demo --root /tmp/demo --time 5m --size 3
    """,
    add_arguments=add_arguments,
    run=run,
    uses_root=False,
)
