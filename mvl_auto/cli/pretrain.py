"""mvl_pretrain: let the network find hidden parts of images again, before it learns from labels."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from mvl_auto.cli.common import DONE, Command, run_command
from mvl_auto.cli.training_options import add_changes, add_configuration, add_training, shared_arguments
from mvl_auto.text import count_text


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset", required=True, help="number, name or path: 4, Hippocampus")
    parser.add_argument(
        "-i", "--input", type=Path, metavar="IMAGES", help="folder of further images, without labels, or one image"
    )
    parser.add_argument(
        "--without-fold",
        metavar="FOLD",
        help="leave out the images that this fold validates on (default: all images are seen)",
    )
    add_configuration(parser, "the configuration's, with _pretrained")
    add_training(parser, "pretrain", "as long as is planned for a training", "weights, crops and what is hidden")
    add_changes(parser, "for this run, instead of what the plan says: the same as mvl_train will get")


def run(args: argparse.Namespace) -> int:
    from mvl_auto import api

    result = api.pretrain(args.dataset, args.input, without_fold=args.without_fold, **shared_arguments(args))
    print(f"\n{result.folder}: {result.steps} steps in {result.seconds:.0f} s on {count_text(result.images, 'image')}")
    words = ["mvl_train", args.dataset, f"fold{fold_number(args.without_fold)}", "--from", str(result.folder)]
    print(f"next: {shlex.join(words)}")
    return DONE


def fold_number(without_fold: str | None) -> str:
    """Of the fold to train next: 0 for "fold0" or "0", and where none was left out."""
    return "0" if without_fold is None else without_fold.lower().removeprefix("fold").lstrip("_")


COMMAND = Command(
    name="mvl_pretrain",
    summary="Pretrain the network of a dataset that mvl_plan_and_preprocess has planned: it is shown images with three "
    "quarters of each hidden, and learns to give these back. No label is read, so images without labels serve too. "
    "mvl_train --from takes the result. If interrupted, run the same command again to resume: Ctrl-C and SIGTERM save "
    "a checkpoint first.",
    example="""
        mvl_pretrain -d 4 --time 10m
        mvl_pretrain -d 4 -i more_scans --steps 2000
        mvl_pretrain -d 4 --without-fold 0 -n apart
        mvl_train 4 fold0 --from results/Dataset004_Hippocampus/3d_fullres_pretrained
    """,
    add_arguments=add_arguments,
    run=run,
    trains=True,
    uses_torch=True,
)
