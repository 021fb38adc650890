"""mvl_explain: the effect of the LLM block on images, as maps in their own space."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mvl_auto.cli.common import DONE, Command, run_command
from mvl_auto.cli.values import DEVICES, device
from mvl_auto.tables import table


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-i", "--input", type=Path, required=True, metavar="IMAGES", help="folder of images, or one image"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder for the maps")
    parser.add_argument(
        "-r",
        "--references",
        type=Path,
        metavar="FOLDER",
        help="labels of the images: print Dice as it is, without the LLM block, and without the trunk",
    )
    parser.add_argument(
        "-d", "--dataset", help="number, name or path of the dataset of the training (default: the only one)"
    )
    parser.add_argument("-c", "--configuration", metavar="NAME", help="2d, 3d_fullres, ... (default: the trained one)")
    parser.add_argument("-n", "--name", metavar="RUN", help="name of the run (default: the only one)")
    parser.add_argument("-f", "--fold", metavar="FOLD", help="which network (default: the first that is trained)")
    parser.add_argument("--device", type=device, default="auto", help=DEVICES)


def run(args: argparse.Namespace) -> int:
    from mvl_auto import api

    which = {
        "root": args.root,
        "dataset": args.dataset,
        "configuration": args.configuration,
        "run": args.name,
        "fold": args.fold,
        "device": args.device,
        "progress": args.progress,
    }
    looks = None if args.references is None else api.free_looks(args.input, args.references, **which)
    for path in api.explain(args.input, args.output, **which):
        print(path)
    if looks is not None:
        rows = [[name, "-" if dice is None else f"{dice:.4f}"] for name, dice in looks.items()]
        print(table(["changed at prediction only", "mean Dice"], rows))
    return DONE


COMMAND = Command(
    name="mvl_explain",
    summary="Show the effect of the LLM block on images: the norm of the tokens before and after it, their relative "
    "change, and the attention of the trunk (rollout), as NIfTI in the space of each image, with a picture and the "
    "values of the gate.",
    example="""
        mvl_explain -i imgs -o maps
        mvl_explain -i imagesTr -r labelsTr -o maps
    """,
    add_arguments=add_arguments,
    run=run,
    uses_torch=True,
)
