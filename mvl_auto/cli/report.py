"""mvl_report: one HTML file of a training run, or of several side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mvl_auto.cli.common import DONE, Command, run_command
from mvl_auto.text import memory_text


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="the folder of a run (results/Dataset004_Hippocampus/3d_fullres) or of a fold, with a name in front or "
        "not: llm=FOLDER; or use -d",
    )
    parser.add_argument("-d", "--dataset", metavar="DATASET", help="number, name or path: the runs trained on it")
    parser.add_argument(
        "-n", "--name", nargs="+", default=[], metavar="RUN", help="which of its runs (default: the only one)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: report.html in the run's folder; needed for several"
    )
    parser.add_argument(
        "--no-volumes", action="store_true", help="a small file: pictures of some cases, but none to scroll through"
    )


def run(args: argparse.Namespace) -> int:
    from mvl_auto import api

    report = api.report(
        args.runs,
        root=args.root,
        dataset=args.dataset,
        run=args.name,
        output=args.output,
        volumes=not args.no_volumes,
        progress=args.progress,
    )
    for problem in report.problems:
        print(f"  {problem}")
    print(f"wrote {report.path} ({memory_text(report.size)})")
    return DONE


COMMAND = Command(
    name="mvl_report",
    summary="Write the report of a training run as one HTML file that opens from disk and asks no server for anything: "
    "the plan in words, curves, scores with intervals, every case with its slices, warnings, settings. Several runs "
    "stand side by side, with the statistics of mvl_compare. An unfinished run has a report too, which says what is "
    "missing.",
    example="""
        mvl_report -d 4
        mvl_report -d 4 -n vit llm -o compared.html
        mvl_report vit=results/Dataset004_Hippocampus/vit llm=results/Dataset004_Hippocampus/llm -o compared.html
    """,
    add_arguments=add_arguments,
    run=run,
)
