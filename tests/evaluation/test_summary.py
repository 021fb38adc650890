"""Scores of one case and what they come to over many."""

from __future__ import annotations

import csv
import json
import math

import pytest

from mvl_auto.evaluation import LabelScore, Scoring, summarise, write_scores
from mvl_auto.evaluation.metrics import METRICS, OVERLAP_METRICS, Measured
from mvl_auto.evaluation.overlap import Counts
from mvl_auto.evaluation.summary import as_json, long_table, wide_table

NOTHING = Counts(0, 0, 0, 10)


def score(label: str, counts: Counts) -> LabelScore:
    values = {name: METRICS[name].of(Measured(counts)) for name in OVERLAP_METRICS}
    return LabelScore(label, values, counts.reference, counts.prediction)


def with_dice(hits: int, misses: int) -> Counts:
    """Counts whose Dice is hits / (hits + misses)."""
    return Counts(hits, misses, misses, 10)


@pytest.fixture
def three_cases():
    """liver: 0.5, 1, 0.75; spleen: nowhere, 0.25, nowhere."""
    return {
        "a": [score("liver", with_dice(1, 1)), score("spleen", NOTHING)],
        "b": [score("liver", with_dice(4, 0)), score("spleen", with_dice(1, 3))],
        "c": [score("liver", with_dice(3, 1)), score("spleen", NOTHING)],
    }


def test_mean_over_cases_then_over_labels_leaving_out_what_is_undefined(three_cases):
    summary = summarise(three_cases)
    liver, spleen = summary.per_label()["dice"][["mean", "sd", "n"]].to_dict("index").values()
    assert liver == pytest.approx({"mean": 0.75, "sd": 0.25, "n": 3})
    assert spleen == pytest.approx({"mean": 0.25, "sd": math.nan, "n": 1}, nan_ok=True)
    assert summary.mean() == pytest.approx((0.75 + 0.25) / 2)
    assert summary.mean(label="liver") == pytest.approx(0.75)


def test_the_worst_case_comes_first_and_the_undefined_last(three_cases):
    three_cases["d"] = [score("liver", NOTHING), score("spleen", NOTHING)]
    per_case = summarise(three_cases).per_case()
    assert list(per_case.index) == ["a", "b", "c", "d"]
    assert list(per_case) == pytest.approx([0.5, 0.625, 0.75, math.nan], nan_ok=True)


def test_the_worst_is_the_largest_distance_and_the_largest_error_to_either_side():
    def scored(**values: float) -> list[LabelScore]:
        return [LabelScore("liver", values, 1, 1)]

    distances = {"near": scored(hd95_mm=1.0), "far": scored(hd95_mm=9.0)}
    assert list(summarise(distances).per_case("hd95_mm").index) == ["far", "near"]
    errors = {
        "few": scored(volume_error_ml=-9.0),
        "many": scored(volume_error_ml=3.0),
        "right": scored(volume_error_ml=0.0),
    }
    assert list(summarise(errors).per_case("volume_error_ml").index) == ["few", "many", "right"]


def test_quartiles_and_the_number_of_cases_by_hand(three_cases):
    summary = summarise(three_cases)
    liver = summary.per_label()["dice"].loc["liver"]
    assert liver[["min", "q1", "median", "q3", "max"]].tolist() == [0.5, 0.625, 0.75, 0.875, 1.0]
    assert 0.5 <= liver["low"] < 0.75 < liver["high"] <= 1.0
    low, high = summary.interval("dice")
    assert low < summary.mean("dice") < high
    assert summary.presence().to_dict("index") == {
        "liver": {"reference": 3, "prediction": 3},
        "spleen": {"reference": 1, "prediction": 1},
    }


def test_a_single_case_has_no_interval(three_cases):
    content = as_json(summarise({"a": three_cases["b"]}))
    assert content["labels"]["liver"]["dice"]["ci95"] is None
    assert content["mean_ci95"]["dice"] is None
    assert content["labels"]["liver"]["dice"]["median"] == 1


def test_labels_keep_their_order():
    scores = [score(name, with_dice(1, 1)) for name in ("zygoma", "atlas", "mandible")]
    summary = summarise({"b": scores, "a": scores})
    assert summary.labels == tuple(summary.per_label().index) == ("zygoma", "atlas", "mandible")
    assert summary.cases == ("b", "a")


def test_the_files_say_what_the_summary_says(three_cases, tmp_path):
    table, document, *_ = write_scores(summarise(three_cases), tmp_path, about={"references": "refs"})
    with open(table, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["case"], row["label"], row["dice"]) for row in rows] == [
        ("a", "liver", "0.5"),
        ("a", "spleen", ""),
        ("b", "liver", "1.0"),
        ("b", "spleen", "0.25"),
        ("c", "liver", "0.75"),
        ("c", "spleen", ""),
    ]
    content = json.loads(document.read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert content["schema_version"] == 2
    assert content["references"] == "refs"
    assert content["mean"]["dice"] == pytest.approx(0.5)
    spleen = content["labels"]["spleen"]["dice"]
    assert {name: spleen[name] for name in ("mean", "sd", "n", "q1", "ci95")} == {
        "mean": 0.25,
        "sd": None,
        "n": 1,
        "q1": 0.25,
        "ci95": None,
    }
    assert content["presence"]["spleen"] == {"reference": 1, "prediction": 1}
    assert content["metrics"]["dice"] == {"unit": "", "higher_is_better": True}
    assert content["cases"]["a"]["spleen"]["dice"] is None
    assert content["cases"]["c"]["liver"] | {"recall": 0} == {
        "dice": 0.75,
        "jaccard": 0.6,
        "precision": 0.75,
        "recall": 0,
        "accuracy": pytest.approx(13 / 15),
        "reference_voxels": 4,
        "prediction_voxels": 4,
    }


def test_everything_undefined_is_null_and_no_crash(tmp_path):
    _, document, *_ = write_scores(summarise({"a": [score("liver", NOTHING)]}), tmp_path)
    assert json.loads(document.read_text())["mean"]["dice"] is None


def test_the_long_and_the_wide_table_have_every_value_once(three_cases):
    summary = summarise(three_cases, Scoring(OVERLAP_METRICS))
    long = long_table(summary).set_index(["case", "label", "metric"])["value"]
    wide = wide_table(summary).set_index("case")
    assert len(long) == 3 * 2 * len(OVERLAP_METRICS)
    assert wide.shape == (3, 2 * len(OVERLAP_METRICS))
    for (case, label, metric), value in long.items():
        assert wide.loc[case, f"{label}.{metric}"] == pytest.approx(value, nan_ok=True)
    assert wide.loc["c", "liver.dice"] == 0.75


def test_names_with_commas_quotes_and_newlines_come_back_from_the_csv(tmp_path):
    strange = 'tumour, "left"\n</script>'
    table, *_ = write_scores(summarise({"a": [score(strange, with_dice(1, 1))]}), tmp_path)
    with open(table, newline="") as stream:
        assert [row["label"] for row in csv.DictReader(stream)] == [strange]


def test_the_document_says_how_was_scored_and_the_metrics_once(three_cases):
    scoring = as_json(summarise(three_cases, scoring=Scoring(tuple(OVERLAP_METRICS), tolerance_mm=2.0)))["scoring"]
    assert scoring["tolerance_mm"] == 2.0
    assert "metrics" not in scoring


def test_the_table_on_the_screen_has_a_row_for_each_label_and_the_mean(three_cases):
    head, rows = summarise(three_cases).as_table()
    dice = head.index("dice")
    assert head[0] == "label"
    assert [(row[0], row[dice]) for row in rows] == [("liver", "0.750"), ("spleen", "0.250"), ("mean", "0.500")]


def test_every_metric_has_a_meaning_of_its_own():
    meanings = [metric.meaning for metric in METRICS.values()]
    assert all(meanings)
    assert len(set(meanings)) == len(meanings)
