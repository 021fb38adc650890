"""The order of cases, and why some should be looked at."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from mvl_auto.evaluation.scored import ScoredRun
from mvl_auto.report import scores as of_report
from mvl_auto.report.collect import RunRecord
from mvl_auto.report.scores import choose_pictured, score_table


def scored(key, cases):
    """cases: name -> label -> (dice, reference voxels, prediction voxels)."""
    values = {
        case: {
            label: {"dice": dice, "reference_voxels": reference, "prediction_voxels": predicted}
            for label, (dice, reference, predicted) in labels.items()
        }
        for case, labels in cases.items()
    }
    labels = tuple(dict.fromkeys(label for of_case in cases.values() for label in of_case))
    return ScoredRun(key, None, 2, {}, ("dice",), tuple(cases), labels, values)


class Fold:
    def __init__(self, scores):
        self.scores = scores


def record(*folds):
    return RunRecord("run", None, None, None, tuple(map(Fold, folds)), None, (), (), ())


def test_failures_come_first_then_the_worst():
    found = score_table(
        record(
            scored("fold0", {"fine": {"a": (0.9, 5, 5)}, "missed": {"a": (0.0, 5, 0)}}),
            scored("fold1", {"invented": {"a": (0.0, 0, 5)}, "apart": {"a": (0.0, 5, 5)}, "weak": {"a": (0.5, 5, 5)}}),
        )
    )
    assert [case.name for case in found.cases] == ["apart", "invented", "missed", "weak", "fine"]
    assert found.cases[0].failures == ("a does not overlap its reference",)
    assert found.cases[1].failures == ("a is predicted, but not in the reference",)
    assert found.cases[2].failures == ("a is missing in the prediction",)
    assert found.cases[2].fold == "fold0"
    assert len(found.failed) == 3


def test_an_outlier_is_one_by_tukeys_fence():
    values = [0.8, 0.82, 0.84, 0.86, 0.88, 0.5]
    cases = {f"c{number}": {"a": (value, 5, 5)} for number, value in enumerate(values)}
    found = score_table(record(scored("fold0", cases)))
    series = pd.Series(values)
    fence = series.quantile(0.25) - 1.5 * (series.quantile(0.75) - series.quantile(0.25))
    assert (
        [case.name for case in found.failed] == [f"c{n}" for n, value in enumerate(values) if value < fence] == ["c5"]
    )


def test_means_are_over_the_cases_of_all_folds():
    found = score_table(
        record(
            scored("fold0", {"x": {"a": (0.2, 5, 5)}}),
            scored("fold1", {"y": {"a": (0.4, 5, 5)}, "z": {"a": (0.9, 5, 5)}}),
        )
    )
    assert found.summary.mean("dice") == pytest.approx(0.5)


def test_undefined_cases_are_last_and_not_pictured():
    cases = {"empty": {"a": (None, 0, 0)}, "good": {"a": (0.9, 5, 5)}, "bad": {"a": (0.3, 5, 5)}}
    found = score_table(record(scored("fold0", cases)))
    assert [case.name for case in found.cases] == ["bad", "good", "empty"]
    assert math.isnan(found.cases[-1].mean("dice"))
    assert "empty" not in {case.name for _, case in choose_pictured(found)}


def test_the_pictured_are_the_ends_and_the_middle():
    cases = {f"c{number:02d}": {"a": (number / 100, 5, 5)} for number in range(1, 22)}
    chosen = choose_pictured(score_table(record(scored("fold0", cases))))
    names = {why: [case.name for reason, case in chosen if reason == why] for why in ("worst", "median", "best")}
    assert names["worst"] == ["c01", "c02", "c03", "c04"][: of_report.PICTURED["worst"]]
    assert names["best"] == ["c20", "c21"]
    assert names["median"] == ["c10", "c11"]


def test_without_scores_there_is_no_table():
    assert score_table(record(None)) is None
