"""mvl_evaluate: score predictions against references, per case and label."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_auto.cli.common import DONE, Command, run_command
from mvl_auto.cli.values import positive
from mvl_auto.tables import table
from mvl_auto.text import count_text

if TYPE_CHECKING:
    from mvl_auto.evaluation import Scoring, Summary
    from mvl_auto.evaluation.raters import Agreement

MOST_CASES = 5  # in the list of the worst; scores.csv has all
MEAN_ROW = "mean"
UNDEFINED = "-"
WIDTH = 80


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    right = parser.add_mutually_exclusive_group(required=True)
    right.add_argument("-r", "--references", type=Path, metavar="FOLDER", help="label files that are right")
    right.add_argument(
        "--raters",
        type=Path,
        metavar="FOLDER",
        help="holds one folder of label files per rater: the agreement of the predictions with each, and of the raters "
        "with each other",
    )
    parser.add_argument(
        "-p", "--predictions", type=Path, required=True, metavar="FOLDER", help="label files to score, same names"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="where the scores go (default: the folder of predictions)"
    )
    parser.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="names the labels (default: dataset.json in the references' folder or the one above; without one, each "
        "value is a label)",
    )
    parser.add_argument(
        "--metrics",
        default="default",
        metavar="NAMES",
        help="such as dice,nsd,hd95 or a group: default, overlap, surface, volume, lesion, all (docs/evaluation.md)",
    )
    parser.add_argument(
        "--tolerance",
        type=tolerance,
        metavar="MM",
        help="how far off a surface may be for NSD, in mm: 2, or by label as kidney=3,tumour=1 (default: 1)",
    )
    parser.add_argument(
        "--boundary-width",
        type=millimetres,
        metavar="MM",
        help="of boundary_iou, in mm (default: 2 %% of the image's diagonal)",
    )
    parser.add_argument(
        "--lesion-iou",
        type=share,
        metavar="SHARE",
        help="overlap (intersection over union) from which on a lesion counts as found (default: 0.1)",
    )
    missing = parser.add_mutually_exclusive_group()
    missing.add_argument("--only-common", action="store_true", help="leave out cases that only one of the folders has")
    missing.add_argument(
        "--missing-as-zero", action="store_true", help="score a case without a prediction as if nothing was predicted"
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="cases at a time (default: one per core)")


def millimetres(text: str) -> float:
    return _number(text, math.inf, f"'{text}' is not a length: give a number of millimetres")


def share(text: str) -> float:
    return _number(text, 1.0, f"'{text}' is not a share: give a number from 0 to 1")


def tolerance(text: str) -> float | dict[str, float]:
    """One length for all labels, or label=length, separated by commas."""
    if "=" not in text:
        return millimetres(text)
    pairs = [part.rpartition("=") for part in text.split(",")]
    if not all(label for label, _, _ in pairs):
        raise argparse.ArgumentTypeError(f"'{text}' is not a tolerance: give 2, or kidney=3,tumour=1")
    labels = [label.strip() for label, _, _ in pairs]
    if twice := next((label for label in labels if labels.count(label) > 1), ""):
        raise argparse.ArgumentTypeError(f"'{text}' has '{twice}' twice")
    return dict(zip(labels, (millimetres(length) for _, _, length in pairs), strict=True))


def _number(text: str, most: float, complaint: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= most or number == math.inf:
        raise argparse.ArgumentTypeError(complaint)
    return number


def run(args: argparse.Namespace) -> int:
    from mvl_auto import api

    settings: dict[str, Any] = {
        "output": args.output,
        "dataset_json": args.dataset_json,
        "metrics": args.metrics,
        "tolerance_mm": args.tolerance,
        "boundary_mm": args.boundary_width,
        "lesion_iou": args.lesion_iou,
        "workers": args.workers,
        "progress": args.progress,
    }
    folder = args.output or args.predictions
    if args.raters is not None:
        print(raters_table(api.evaluate_raters(args.raters, args.predictions, **settings)))
        print(f"\nwrote {folder / 'raters.csv'} and {folder / 'raters.json'}")
        return DONE
    summary = api.evaluate(
        args.references,
        args.predictions,
        only_common=args.only_common,
        missing_as_zero=args.missing_as_zero,
        **settings,
    )
    print(labels(summary))
    print(worst_cases(summary))
    print(f"\nwrote scores.csv, scores_long.csv, scores_wide.csv and scores.json in {folder}")
    return DONE


def labels(summary: Summary) -> str:
    """A table with one row per label, mean and standard deviation over the cases, and a row of means.

    Metrics that do not fit beside each other go into further tables.
    """
    from mvl_auto.evaluation.metrics import on_screen

    per_label = summary.per_label()
    lines = [
        "",
        f"{count_text(len(summary.cases), 'case')}; mean ± standard deviation over the n cases that have the label",
    ]
    lines += units(summary.scoring, summary.metrics)
    columns = []
    for metric in on_screen(summary.metrics):
        cells = [_mean_and_sd(*per_label.loc[label, metric][["mean", "sd"]]) for label in summary.labels]
        columns.append([metric, *cells, _figure(summary.mean(metric))])
    names = [" ".join(label.split()) for label in summary.labels]
    counts = [str(int(n)) for n in per_label[summary.metrics[0]]["n"]]
    for some in _that_fit([["label", *names, MEAN_ROW], ["n", *counts, ""]], columns):
        header, *rows = zip(*some, strict=True)
        lines += ["", table(list(header), [list(row) for row in rows])]
    return "\n".join(lines)


def units(scoring: Scoring, metrics: Sequence[str]) -> list[str]:
    """What the names of metrics leave open, in a line or none."""
    said = []
    if "nsd" in metrics:
        by_label = "".join(f", {label} {mm:g} mm" for label, mm in scoring.tolerances_mm.items())
        said.append(f"nsd with a tolerance of {scoring.tolerance_mm:g} mm{by_label}")
    if any(metric.startswith("lesion") for metric in metrics):
        said.append(f"lesions count as found from an overlap of {scoring.lesion_iou:g} on")
    return ["; ".join(said)] if said else []


def worst_cases(summary: Summary) -> str:
    """The cases that are worst by the first metric, the mean of their labels, worst first."""
    metric = "dice" if "dice" in summary.metrics else summary.metrics[0]
    worst = summary.per_case(metric).dropna().head(MOST_CASES)
    if worst.empty:
        return "\nno case has anything to score"
    return "\n".join(
        ["", f"worst {metric}", table(["case", metric], [[case, _figure(value)] for case, value in worst.items()])]
    )


def raters_table(agreement: Agreement) -> str:
    """A row per pair with the means of its metrics, and what they come to for the model and among the raters."""
    from mvl_auto.evaluation.metrics import on_screen

    metrics = on_screen(next(iter(agreement.summaries.values())).metrics)
    names = [[" and ".join(pair), str(len(summary.cases))] for pair, summary in agreement.summaries.items()]
    columns = [
        [metric, *(_figure(summary.mean(metric)) for summary in agreement.summaries.values())] for metric in metrics
    ]
    lines = ["", "agreement: mean over labels"]
    for some in _that_fit([["pair", *(name for name, _ in names)], ["cases", *(n for _, n in names)]], columns):
        header, *rows = zip(*some, strict=True)
        lines += ["", table(list(header), [list(row) for row in rows])]
    with_model, among = agreement.means(metrics[0])
    lines.append(f"\n{metrics[0]}: model with raters {_figure(with_model)}, raters with each other {_figure(among)}")
    return "\n".join(lines)


def _that_fit(first: list[list[str]], columns: list[list[str]]) -> Iterator[list[list[str]]]:
    """Columns in groups of no more than WIDTH characters, each behind the first ones."""
    start = sum(max(map(len, column)) + 2 for column in first)
    group, used = list(first), start
    for column in columns:
        width = max(map(len, column)) + 2
        if used + width > WIDTH + 2 and len(group) > len(first):
            yield group
            group, used = list(first), start
        group.append(column)
        used += width
    yield group


def _mean_and_sd(mean: float, sd: float) -> str:
    return _figure(mean) if math.isnan(sd) else f"{_figure(mean)} ± {_figure(sd)}"


def _figure(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:.3f}"


COMMAND = Command(
    name="mvl_evaluate",
    summary="Score predictions against references, per case and label: Dice, Jaccard, precision, recall, HD95, NSD and "
    "others. Files are matched by name; their formats may differ.",
    example="""
        mvl_evaluate -r references -p preds
        mvl_evaluate -r references -p preds --metrics dice,nsd,lesion --tolerance kidney=3,tumour=1 -o scores
        mvl_evaluate --raters raters -p preds
    """,
    add_arguments=add_arguments,
    run=run,
    uses_root=False,
)
