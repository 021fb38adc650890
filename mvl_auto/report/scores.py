"""The scores of a run's folds as one table, and its cases in the order in which people should look at them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mvl_auto.evaluation.case import Scoring
from mvl_auto.evaluation.metrics import METRICS
from mvl_auto.evaluation.scored import ScoredRun
from mvl_auto.evaluation.summary import VOXELS, Summary
from mvl_auto.report.collect import RunRecord

FIRST_METRIC = "dice"
NOT_SHOWN = {"accuracy", "specificity"}  # near 1 for any small label: in the files only
TUKEY = 1.5  # interquartile ranges below the first quartile: an outlier (Tukey 1977)
PICTURED = {"worst": 4, "median": 2, "best": 2}


@dataclass(frozen=True)
class CaseScore:
    """One case. means: metric -> mean over its labels. per_label: label -> first metric. NaN: undefined."""

    name: str
    fold: str
    means: dict[str, float]
    per_label: dict[str, float]
    failures: tuple[str, ...]  # sentences: why someone should look at it

    def mean(self, metric: str) -> float:
        return self.means[metric]


@dataclass(frozen=True, eq=False)
class RunScores:
    """All scored cases of a run, failures first, then by the first metric, worst first."""

    summary: Summary
    metric: str  # the one that cases are ordered by: Dice where it is there
    cases: tuple[CaseScore, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        shown = [name for name in self.summary.metrics if name not in NOT_SHOWN]
        return tuple(shown or self.summary.metrics)

    @property
    def failed(self) -> tuple[CaseScore, ...]:
        return tuple(case for case in self.cases if case.failures)


def score_table(run: RunRecord) -> RunScores | None:
    """The scores of all folds together; None where no fold has any. A case of two folds counts in the first."""
    folds = [fold.scores for fold in run.folds if fold.scores]
    if not folds:
        return None
    summary, fold_of = _merge(folds)
    metric = FIRST_METRIC if FIRST_METRIC in summary.metrics else summary.metrics[0]
    wide = summary.wide(metric)
    means = {name: summary.per_case(name) for name in summary.metrics}
    floor = _floor(means[metric].dropna().tolist(), metric)
    failures = _find_failures(summary, metric)
    cases = []
    for name in summary.cases:
        mean = float(means[metric][name])
        found = failures.get(name, [])
        if _sign(metric) * mean < floor:
            found = [
                *found,
                f"{metric} far below the other cases"
                if METRICS[metric].higher_is_better
                else f"{metric} far above the others",
            ]
        cases.append(
            CaseScore(
                name,
                fold_of[name],
                {each: float(means[each][name]) for each in summary.metrics},
                {str(label): float(value) for label, value in wide.loc[name].items()},
                tuple(found),
            )
        )
    cases.sort(key=lambda case: (not case.failures, _badness(case, metric), case.name))
    return RunScores(summary, metric, tuple(cases))


def choose_pictured(scores: RunScores) -> list[tuple[str, CaseScore]]:
    """(why, case): the worst cases, failures among them first, those around the median, and the best; each once."""
    defined = [case for case in scores.cases if math.isfinite(case.mean(scores.metric))]
    ordered = sorted(defined, key=lambda case: _badness(case, scores.metric))
    middle = max(len(ordered) // 2 - PICTURED["median"] // 2, 0)
    groups = {
        "worst": [*scores.failed, *ordered][: max(PICTURED["worst"], min(len(scores.failed), 2 * PICTURED["worst"]))],
        "best": ordered[::-1][: PICTURED["best"]],
        "median": ordered[middle : middle + PICTURED["median"]],
    }
    chosen: dict[str, tuple[str, CaseScore]] = {}
    for why in ("worst", "best", "median"):
        for case in groups[why]:
            chosen.setdefault(case.name, (why, case))
    order = ("worst", "median", "best")
    return sorted(chosen.values(), key=lambda each: (order.index(each[0]), scores.cases.index(each[1])))


def _merge(folds: Sequence[ScoredRun]) -> tuple[Summary, dict[str, str]]:
    import pandas as pd

    metrics = tuple(name for name in folds[0].metrics if all(name in fold.metrics for fold in folds))
    labels = list(dict.fromkeys(label for fold in folds for label in fold.labels))
    rows, fold_of = [], {}
    for fold in folds:
        for case in fold.cases:
            if case in fold_of:
                continue
            fold_of[case] = fold.key
            for label in labels:
                voxels = [fold.value(case, label, name) for name in VOXELS]
                values = {name: fold.value(case, label, name) for name in metrics}
                rows.append({"case": case, "label": label} | values | dict(zip(VOXELS, voxels, strict=True)))
    return Summary(pd.DataFrame(rows), metrics, Scoring(metrics)), fold_of


def _find_failures(summary: Summary, metric: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in summary.table.to_dict("records"):
        reference, prediction = (row[name] for name in VOXELS)
        label = row["label"]
        if reference > 0 and prediction == 0:
            what = f"{label} is missing in the prediction"
        elif reference == 0 and prediction > 0:
            what = f"{label} is predicted, but not in the reference"
        elif metric == FIRST_METRIC and reference > 0 and row[metric] == 0:
            what = f"{label} does not overlap its reference"
        else:
            continue
        found.setdefault(row["case"], []).append(what)
    return found


def _sign(metric: str) -> int:
    return 1 if METRICS[metric].higher_is_better else -1


def _floor(values: list[float], metric: str) -> float:
    """Below this (times the metric's sign) a case is an outlier; -infinity for fewer than four cases."""
    import numpy as np

    if len(values) < 4:
        return -math.inf
    first, third = np.percentile(_sign(metric) * np.asarray(values), [25, 75])
    return float(first - TUKEY * (third - first))


def _badness(case: CaseScore, metric: str) -> float:
    """Ascending: worst first; undefined last."""
    value = case.mean(metric)
    return _sign(metric) * value if math.isfinite(value) else math.inf
