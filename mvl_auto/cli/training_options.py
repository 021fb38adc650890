"""The options that mvl_train and mvl_pretrain share, and the arguments of mvl_auto.api that they become."""

from __future__ import annotations

import argparse
from typing import Any

from mvl_auto.cli.values import DEVICES, LOGGERS, PEAK, device, duration, learning_rate, logger, positive, whole


def add_configuration(parser: argparse.ArgumentParser, run: str) -> None:
    """run: what the run is called where no name is given."""
    parser.add_argument(
        "-c", "--configuration", metavar="NAME", help="of the plan: 2d, 3d_fullres, ... (default: the recommended one)"
    )
    parser.add_argument("-n", "--name", metavar="RUN", help=f"name of the run (default: {run})")


def add_training(parser: argparse.ArgumentParser, what: str, default: str, seed: str) -> None:
    """what: is done so long. default: how long where nothing is said. seed: what it is of."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--time",
        type=duration,
        metavar="TIME",
        help=f"{what} this long: 90s, 10m, 1h30m (default: {default}). What is finished goes on when it is given more",
    )
    length.add_argument("--steps", type=positive, metavar="N", help=f"{what} for N steps; as with --time")
    parser.add_argument("--device", type=device, default="auto", metavar="DEVICE", help=DEVICES)
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help=f"of {seed} (default: 0)")
    parser.add_argument(
        "--workers",
        type=whole,
        metavar="N",
        help="processes that make batches; 0: the training process makes them (default: 0 on two cores, else one per "
        "core but one)",
    )
    parser.add_argument("--logger", type=logger, metavar="LOGGER", help=LOGGERS)


def add_changes(parser: argparse.ArgumentParser, why: str) -> Any:
    """The group of options that replace what the plan says, for more of them. why: its title."""
    changes = parser.add_argument_group(why)
    changes.add_argument("--batch-size", type=positive, metavar="N", help="samples of a batch")
    changes.add_argument("--lr", type=learning_rate, metavar="RATE", help=PEAK)
    changes.add_argument(
        "--network",
        choices=["mvl", "vit", "unet", "paper"],
        help="mvl: as planned; vit: without the LLM block; unet: convolutions for the transformer; paper: as "
        "MedVisionLlama describes itself",
    )
    changes.add_argument("--llm", metavar="SOURCE", help="another frozen block, as mvl_plan_and_preprocess takes it")
    return changes


def shared_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of api.train and api.pretrain that these options are."""
    return {
        "root": args.root,
        "configuration": args.configuration,
        "run": args.name,
        "seconds": args.time,
        "steps": args.steps,
        "device": args.device,
        "seed": args.seed,
        "workers": args.workers,
        "batch_size": args.batch_size,
        "learning_rate": args.lr,
        "network": args.network,
        "llm": args.llm,
        "logger": args.logger,
        "progress": args.progress,
    }
