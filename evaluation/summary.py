"""What the scores of many cases come to: per case and label, per label, and one figure.

The order of averaging is fixed: over the cases of a label, then over the labels, so that a label that few
cases have weighs as much as any other. Undefined scores (NaN: see metrics.py) are left out of both means, and
how many cases a mean was taken over stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_auto.evaluation.case import LabelScore
from mvl_auto.files import write_json, writing
from mvl_auto.version import __version__

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
FILE_STEM = "scores"
VOXELS = ("reference_voxels", "prediction_voxels")  # columns of the table beside the metrics
CONVENTIONS = (
    "Per label: mean over cases; 'mean': mean over labels of those. null is undefined (0/0: reference and "
    "prediction both empty; recall also where only the reference is) and left out of the means; n is the number "
    "of cases in a mean, sd their standard deviation (n - 1)."
)


@dataclass(frozen=True, eq=False)
class Summary:
    """Scores of cases and labels.

    table: one row per case and label, in the order they came, with the columns case, label, one per metric
    (NaN: undefined), reference_voxels and prediction_voxels. Distances are in mm.
    """

    table: pd.DataFrame
    metrics: tuple[str, ...]
    tolerance_mm: float | None = None  # of nsd, where it was asked for

    @property
    def cases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.table["case"]))

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.table["label"]))

    def per_label(self) -> pd.DataFrame:
        """One row per label (the index); columns (metric, "mean" | "sd" | "n"): over the cases where it is defined."""
        grouped = self.table.groupby("label", sort=False)[list(self.metrics)]
        table = grouped.agg(["mean", "std", "count"]).rename(columns={"std": "sd", "count": "n"}, level=1)
        return table.loc[list(self.labels)]

    def per_case(self, metric: str = "dice") -> pd.Series[float]:
        """The mean over its labels of each case (the index), worst first; cases without any defined score are last."""
        means = self.table.groupby("case", sort=False)[metric].mean()
        return means.sort_values(ascending=metric != "hd95_mm", na_position="last", kind="stable")

    def mean(self, metric: str = "dice", label: str | None = None) -> float:
        """Mean over cases of one label or, without a label, the mean of all labels' means. NaN: nothing is defined."""
        means = self.per_label()[metric]["mean"]
        return float(means.mean() if label is None else means[label])


def summarise(scores: Mapping[str, Sequence[LabelScore]], tolerance_mm: float | None = None) -> Summary:
    """Put the scores of cases (name -> one score per label, at least one case) together."""
    import pandas as pd

    rows = [
        {"case": case, "label": score.label}
        | score.metrics
        | dict(zip(VOXELS, (score.counts.reference, score.counts.prediction), strict=True))
        for case, of_case in scores.items()
        for score in of_case
    ]
    table = pd.DataFrame(rows)
    metrics = tuple(column for column in table.columns if column not in {"case", "label", *VOXELS})
    return Summary(table, metrics, tolerance_mm)


def write_scores(
    summary: Summary, folder: Path, about: Mapping[str, Any] | None = None, stem: str = FILE_STEM
) -> tuple[Path, Path]:
    """Write scores.csv (a row per case and label) and scores.json (the means as well). Returns their paths.

    about: more to say in the JSON, such as the folders that were compared. stem: the files' name without ending.
    Raises MvlError when they cannot be written.
    """
    csv, json = (Path(folder) / f"{stem}{ending}" for ending in (".csv", ".json"))
    with writing(csv) as beside:
        summary.table.to_csv(beside, index=False)
    write_json(json, as_json(summary, about))
    return csv, json


def as_json(summary: Summary, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The whole summary as JSON values; NaN becomes None."""
    per_label = summary.per_label()
    labels = {
        label: {
            metric: {
                "mean": _or_none(per_label.loc[label, (metric, "mean")]),
                "sd": _or_none(per_label.loc[label, (metric, "sd")]),
                "n": int(per_label.loc[label, (metric, "n")]),
            }
            for metric in summary.metrics
        }
        for label in summary.labels
    }
    cases: dict[str, dict[str, Any]] = {case: {} for case in summary.cases}
    for row in summary.table.to_dict("records"):
        values = {name: _or_none(row[name]) for name in summary.metrics} | {name: int(row[name]) for name in VOXELS}
        cases[row["case"]][row["label"]] = values
    return {
        "schema_version": SCHEMA_VERSION,
        "mvl_auto_version": __version__,
        **(about or {}),
        "conventions": CONVENTIONS,
        "nsd_tolerance_mm": summary.tolerance_mm,
        "mean": {metric: _or_none(summary.mean(metric)) for metric in summary.metrics},
        "labels": labels,
        "cases": cases,
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
