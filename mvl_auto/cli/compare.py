"""mvl_compare: which of two or more models is better, with statistics, from their scores."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.cli.common import DONE, Command, run_command
from mvl_auto.tables import table

if TYPE_CHECKING:
    from mvl_auto.evaluation.compare import ModelComparison

WIDTH = 80


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a folder with scores.json or summary.json, a training run, or such a file; several runs of one model "
        "(seeds) separated by commas; with a name in front or not: llm=seed0,seed1,seed2",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("comparison"), metavar="FOLDER", help="default: comparison"
    )
    parser.add_argument(
        "--metrics",
        metavar="NAMES",
        help="such as dice,nsd (default: dice, hd95_mm, nsd as far as all have them)",
    )
    parser.add_argument("--only-common", action="store_true", help="leave out cases and labels that some lack")


def run(args: argparse.Namespace) -> int:
    from mvl_auto import api

    comparison = api.compare(args.models, output=args.output, metrics=args.metrics, only_common=args.only_common)
    print(as_text(comparison))
    print(f"\nwrote comparison.csv, .json, .md, .tex, .png and .svg in {args.output}")
    return DONE


def as_text(comparison: ModelComparison) -> str:
    """A table for each metric and pair, and which unit was used and why."""
    from mvl_auto.evaluation.comparison_files import figure_text, p_text, signed

    lines = []
    for metric in comparison.metrics:
        for first, second in comparison.pairs:
            rows = [row for row in comparison.rows if (row.metric, row.first, row.second) == (metric, first, second)]
            lines += ["", f"{metric}: {second} minus {first}, n {comparison.unit}s"]
            header = ["label", "n", "difference", "95 % interval", "won/lost", "p (Holm)", "detectable"]
            cells = [
                [
                    " ".join(row.label.split()),
                    str(row.compared.cases if comparison.unit == "case" else row.compared.runs),
                    signed(row.compared.difference),
                    f"{signed(row.compared.low)} to {signed(row.compared.high)}",
                    f"{row.wins}/{row.losses}",
                    p_text(row.p_corrected),
                    figure_text(row.compared.detectable),
                ]
                for row in rows
            ]
            lines.append(table(header, cells))
    return "\n".join([*lines, "", textwrap.fill(comparison.reason, WIDTH)])


COMMAND = Command(
    name="mvl_compare",
    summary="Compare models on the same cases: paired differences with 95 % intervals, tests corrected for their "
    "number, wins and losses, a plot, Markdown and LaTeX tables. With several runs per model (folds, seeds) the run is "
    "the unit, otherwise the case.",
    example="""
        mvl_compare preds_vit preds_llm
        mvl_compare vit=results/Dataset004_Hippocampus/vit llm=results/Dataset004_Hippocampus/llm -o comparison
        mvl_compare vit=vit0,vit1,vit2 llm=llm0,llm1,llm2 --metrics dice,nsd
    """,
    add_arguments=add_arguments,
    run=run,
    uses_root=False,
)
