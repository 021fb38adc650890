"""What the scores of many cases come to: per case and label, per label, and one figure.

The order of averaging is fixed: over the cases of a label, then over the labels, so that a label that few
cases have weighs as much as any other. Undefined scores (NaN: see docs/evaluation.md) are left out of both means, and
how many cases a mean was taken over stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_auto.evaluation.case import LabelScore, Scoring
from mvl_auto.evaluation.metrics import METRICS, on_screen
from mvl_auto.files import write_json, writing
from mvl_auto.tables import Tabular
from mvl_auto.version import __version__

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 2  # 1: HD95 and NSD counted surface voxels; since then they weigh surface elements by area
FILE_STEM = "scores"
VOXELS = ("reference_voxels", "prediction_voxels")  # columns of the table beside the metrics
CONVENTIONS = (
    "Per label: mean over cases; 'mean': mean over labels of those. null is undefined (0/0: reference and "
    "prediction both empty; recall also where only the reference is) and left out of the means; n is the number "
    "of cases in a mean, sd their standard deviation (n - 1), ci95 the bootstrap 95 % interval of the mean over cases. "
    "See docs/evaluation.md."
)


@dataclass(frozen=True, eq=False)
class Summary(Tabular):
    """Scores of cases and labels.

    table: one row per case and label, in the order they came, with the columns case, label, one per metric
    (NaN: undefined), reference_voxels and prediction_voxels. Units: metrics.METRICS.
    """

    table: pd.DataFrame
    metrics: tuple[str, ...]
    scoring: Scoring

    @property
    def cases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.table["case"]))

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.table["label"]))

    def per_label(self) -> pd.DataFrame:
        """One row per label (the index), over the cases where a metric is defined.

        Columns (metric, "mean" | "sd" | "n" | "median" | "q1" | "q3" | "min" | "max" | "low" | "high"); q1 and q3 are
        quartiles, low and high the bootstrap 95 % interval of the mean.
        """
        import pandas as pd

        from mvl_auto.evaluation.statistics import mean_intervals

        columns: dict[tuple[str, str], pd.Series[float]] = {}
        for metric in self.metrics:
            wide = self.wide(metric)
            low, high = mean_intervals(wide.to_numpy(float))
            statistics = {
                "mean": wide.mean(),
                "sd": wide.std(),
                "n": wide.count(),
                "median": wide.median(),
                "q1": wide.quantile(0.25),
                "q3": wide.quantile(0.75),
                "min": wide.min(),
                "max": wide.max(),
                "low": pd.Series(low, wide.columns),
                "high": pd.Series(high, wide.columns),
            }
            columns |= {(metric, name): values for name, values in statistics.items()}
        return pd.DataFrame(columns, index=pd.Index(self.labels, name="label"))

    def wide(self, metric: str = "dice") -> pd.DataFrame:
        """One row per case (the index), one column per label."""
        table = self.table.pivot(index="case", columns="label", values=metric)
        return table.loc[list(self.cases), list(self.labels)].astype(float)

    def as_table(self) -> tuple[list[str], list[list[str]]]:
        means = self.per_label().xs("mean", axis=1, level=1)[on_screen(self.metrics)]
        rows = [
            [str(label), *(f"{value:.3f}" for value in row)]
            for label, row in zip(means.index, means.values, strict=True)
        ]
        return ["label", *means.columns], [*rows, ["mean", *(f"{self.mean(metric):.3f}" for metric in means.columns)]]

    def per_case(self, metric: str = "dice") -> pd.Series[float]:
        """The mean over its labels of each case (the index), worst first; cases without any defined score are last."""
        means = self.table.groupby("case", sort=False)[metric].mean()
        better = METRICS[metric].higher_is_better
        key = abs if better is None else None  # of a signed error, the largest is the worst
        return means.sort_values(ascending=bool(better), na_position="last", kind="stable", key=key)

    def mean(self, metric: str = "dice", label: str | None = None) -> float:
        """Mean over cases of one label or, without a label, the mean of all labels' means. NaN: nothing is defined."""
        means = self.wide(metric).mean()
        return float(means.mean() if label is None else means[label])

    def interval(self, metric: str = "dice") -> tuple[float, float]:
        """The bootstrap 95 % interval of `mean(metric)` over cases; NaN for a single case."""
        from mvl_auto.evaluation.statistics import mean_of_means_interval

        return mean_of_means_interval(self.wide(metric).to_numpy(float))

    def presence(self) -> pd.DataFrame:
        """One row per label (the index): in how many cases it is in the reference, and in the prediction."""
        there = self.table[list(VOXELS)] > 0
        counts = there.groupby(self.table["label"], sort=False).sum()
        return counts.rename(columns={"reference_voxels": "reference", "prediction_voxels": "prediction"})


def summarise(scores: Mapping[str, Sequence[LabelScore]], scoring: Scoring | None = None) -> Summary:
    """Put the scores of cases (name -> one score per label, at least one case) together."""
    import pandas as pd

    rows = [
        {"case": case, "label": score.label}
        | dict(score.metrics)
        | dict(zip(VOXELS, (score.reference_voxels, score.prediction_voxels), strict=True))
        for case, of_case in scores.items()
        for score in of_case
    ]
    table = pd.DataFrame(rows)
    metrics = tuple(column for column in table.columns if column not in {"case", "label", *VOXELS})
    return Summary(table, metrics, scoring or Scoring(metrics))


def score_files(folder: Path, stem: str = FILE_STEM) -> list[Path]:
    """The files that `write_scores` writes, in its order."""
    return [Path(folder) / f"{stem}{ending}" for ending in (".csv", ".json", "_long.csv", "_wide.csv")]


def write_scores(
    summary: Summary, folder: Path, about: Mapping[str, Any] | None = None, stem: str = FILE_STEM
) -> list[Path]:
    """Write the scores into a folder. Returns the files, in this order:

    scores.csv       a row per case and label, a column per metric
    scores.json      the same, and what the scores come to per label and in all
    scores_long.csv  a row per case, label and metric
    scores_wide.csv  a row per case, a column per label and metric (liver.dice)

    about: more to say in the JSON, such as the folders that were compared. stem: the files' name without ending.
    Raises MvlError when they cannot be written.
    """
    table, document, long, wide = paths = score_files(folder, stem)
    for path, frame in ((table, summary.table), (long, long_table(summary)), (wide, wide_table(summary))):
        with writing(path) as beside:
            frame.to_csv(beside, index=False)
    write_json(document, as_json(summary, about))
    return paths


def long_table(summary: Summary) -> pd.DataFrame:
    """Columns case, label, metric, unit, value: a row for each value, undefined ones too."""
    import pandas as pd

    parts = [
        summary.table[["case", "label"]].assign(metric=metric, unit=METRICS[metric].unit, value=summary.table[metric])
        for metric in summary.metrics
    ]
    return pd.concat(parts, ignore_index=True)


def wide_table(summary: Summary) -> pd.DataFrame:
    """A row per case; a column for each label and metric, as liver.dice."""
    import pandas as pd

    parts = [
        summary.wide(metric).rename(columns=lambda label, metric=metric: f"{label}.{metric}")
        for metric in summary.metrics
    ]
    table = pd.concat(parts, axis=1)
    ordered = [f"{label}.{metric}" for label in summary.labels for metric in summary.metrics]
    return table[ordered].reset_index()


def as_json(summary: Summary, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The whole summary as JSON values; NaN becomes None."""
    per_label, presence = summary.per_label(), summary.presence()
    labels = {
        label: {metric: _statistics(per_label.loc[label, metric]) for metric in summary.metrics}
        for label in summary.labels
    }
    cases: dict[str, dict[str, Any]] = {case: {} for case in summary.cases}
    for row in summary.table.to_dict("records"):
        values = {name: _or_none(row[name]) for name in summary.metrics} | {name: int(row[name]) for name in VOXELS}
        cases[row["case"]][row["label"]] = values
    units = {
        name: {"unit": METRICS[name].unit, "higher_is_better": METRICS[name].higher_is_better}
        for name in summary.metrics
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "mvl_auto_version": __version__,
        **(about or {}),
        "conventions": CONVENTIONS,
        "nsd_tolerance_mm": summary.scoring.tolerance_mm if "nsd" in summary.metrics else None,
        "scoring": {name: value for name, value in asdict(summary.scoring).items() if name != "metrics"},
        "metrics": units,
        "mean": {metric: _or_none(summary.mean(metric)) for metric in summary.metrics},
        "mean_ci95": {metric: _pair(summary.interval(metric)) for metric in summary.metrics},
        "presence": {label: {side: int(presence.loc[label, side]) for side in presence} for label in summary.labels},
        "labels": labels,
        "cases": cases,
    }


def _statistics(row: pd.Series[float]) -> dict[str, Any]:
    named: dict[str, Any] = {"mean": _or_none(row["mean"]), "sd": _or_none(row["sd"]), "n": int(row["n"])}
    named |= {name: _or_none(row[name]) for name in ("median", "q1", "q3", "min", "max")}
    return named | {"ci95": _pair((row["low"], row["high"]))}


def _pair(limits: tuple[float, float]) -> list[float] | None:
    return None if math.isnan(limits[0]) else [float(limit) for limit in limits]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
