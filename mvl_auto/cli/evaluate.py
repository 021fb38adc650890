"""mvl_evaluate: score predictions against references, per case and label."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.cli.common import DONE, Command, positive, run_command
from mvl_auto.cli.tables import table
from mvl_auto.text import count_text

if TYPE_CHECKING:
    from mvl_auto.evaluation import Summary

MOST_CASES = 5  # in the list of the worst; scores.csv has all
MEAN_ROW = "mean"
UNDEFINED = "-"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-r", "--references", type=Path, required=True, metavar="FOLDER", help="label files that are right"
    )
    parser.add_argument(
        "-p",
        "--predictions",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="label files to score, of the same names",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where scores.csv and scores.json go (default: the folder of predictions)",
    )
    parser.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="names the labels (default: dataset.json in the references' folder or the one above; without one, each "
        "value is a label)",
    )
    parser.add_argument("--surface", action="store_true", help="HD95 and NSD too, in mm; takes longer")
    parser.add_argument(
        "--tolerance", type=millimetres, metavar="MM", help="how far off a surface may be for NSD, in mm (default: 1)"
    )
    parser.add_argument("--only-common", action="store_true", help="leave out cases that only one of the folders has")
    parser.add_argument("--workers", type=positive, metavar="N", help="cases at a time (default: one per core)")


def millimetres(text: str) -> float:
    try:
        length = float(text)
    except ValueError:
        length = -1.0
    if not 0 <= length < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no length: give a number of millimetres")
    return length


def run(args: argparse.Namespace) -> int:
    from mvl_auto import api

    summary = api.evaluate(
        args.references,
        args.predictions,
        output=args.output,
        dataset_json=args.dataset_json,
        surfaces=args.surface,
        tolerance_mm=args.tolerance,
        only_common=args.only_common,
        workers=args.workers,
        progress=args.progress,
    )
    print(labels(summary))
    print(worst_cases(summary))
    folder = args.output or args.predictions
    print(f"\nwrote {folder / 'scores.csv'} and {folder / 'scores.json'}")
    return DONE


def labels(summary: Summary) -> str:
    """A table with one row per label, mean and standard deviation over the cases, and a row of means."""
    per_label = summary.per_label()
    rows = [
        [label, str(int(per_label.loc[label, (summary.metrics[0], "n")]))]
        + [
            _mean_and_sd(per_label.loc[label, (metric, "mean")], per_label.loc[label, (metric, "sd")])
            for metric in summary.metrics
        ]
        for label in summary.labels
    ]
    rows.append([MEAN_ROW, "", *(_figure(summary.mean(metric)) for metric in summary.metrics)])
    lines = [f"{count_text(len(summary.cases), 'case')}; mean and standard deviation over the n that have the label"]
    if summary.tolerance_mm is not None:
        lines.append(f"hd95 in mm; nsd with a tolerance of {summary.tolerance_mm:g} mm")
    return "\n".join(["", *lines, table(["label", "n", *summary.metrics], rows)])


def worst_cases(summary: Summary) -> str:
    """The cases of the lowest Dice, the mean of their labels, worst first."""
    worst = summary.per_case("dice").dropna().head(MOST_CASES)
    if worst.empty:
        return "\nno case has anything to score"
    return "\n".join(
        ["", "lowest dice", table(["case", "dice"], [[case, _figure(dice)] for case, dice in worst.items()])]
    )


def _mean_and_sd(mean: float, sd: float) -> str:
    return _figure(mean) if math.isnan(sd) else f"{_figure(mean)} ± {_figure(sd)}"


def _figure(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:.3f}"


COMMAND = Command(
    name="mvl_evaluate",
    summary="Score predictions against references: Dice, Jaccard, precision, recall and accuracy per case and label. "
    "Files are matched by name; their formats may differ.",
    example="""
        mvl_evaluate -r references -p preds
        mvl_evaluate -r references -p preds --surface --tolerance 2 -o scores
    """,
    add_arguments=add_arguments,
    run=run,
    uses_root=False,
)
