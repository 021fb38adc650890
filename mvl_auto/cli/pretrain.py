"""mvl_pretrain: let the network find hidden parts of images again, before it learns from labels."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from mvl_auto.cli.common import DONE, Command, run_command
from mvl_auto.cli.values import DEVICES, LOGGERS, PEAK, device, duration, learning_rate, logger, positive, whole
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
    parser.add_argument(
        "-c", "--configuration", metavar="NAME", help="of the plan: 2d, 3d_fullres, ... (default: the recommended one)"
    )
    parser.add_argument(
        "-n", "--name", metavar="RUN", help="name of the run (default: the configuration's, with _pretrained)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--time",
        type=duration,
        metavar="TIME",
        help="pretrain this long: 90s, 10m, 1h30m (default: as long as is planned for a training). A finished run that "
        "is given more than it had goes on",
    )
    length.add_argument("--steps", type=positive, metavar="N", help="pretrain for N steps; as with --time")
    parser.add_argument("--device", type=device, default="auto", metavar="DEVICE", help=DEVICES)
    parser.add_argument(
        "--seed", type=whole, default=0, metavar="N", help="of weights, crops and what is hidden (default: 0)"
    )
    parser.add_argument("--workers", type=whole, metavar="N", help="processes that make batches, as in mvl_train")
    parser.add_argument("--logger", type=logger, metavar="LOGGER", help=LOGGERS)
    changes = parser.add_argument_group("for this run, instead of what the plan says: the same as mvl_train will get")
    changes.add_argument("--batch-size", type=positive, metavar="N", help="samples of a batch")
    changes.add_argument("--lr", type=learning_rate, metavar="RATE", help=PEAK)
    changes.add_argument("--network", choices=["mvl", "vit", "unet", "paper"], help="as in mvl_train")
    changes.add_argument("--llm", metavar="SOURCE", help="another frozen block, as mvl_plan_and_preprocess takes it")


def run(args: argparse.Namespace) -> int:
    from mvl_auto import api

    result = api.pretrain(
        args.dataset,
        args.input,
        without_fold=args.without_fold,
        root=args.root,
        configuration=args.configuration,
        run=args.name,
        seconds=args.time,
        steps=args.steps,
        device=args.device,
        seed=args.seed,
        workers=args.workers,
        batch_size=args.batch_size,
        learning_rate=args.lr,
        network=args.network,
        llm=args.llm,
        logger=args.logger,
        progress=args.progress,
    )
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
