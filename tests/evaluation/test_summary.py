"""Scores of one case and what they come to over many."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

from mvl_auto.evaluation import LabelScore, SurfaceSettings, score_case, summarise, write_scores
from mvl_auto.evaluation.metrics import Counts
from mvl_auto.plans import IGNORE, LabelScheme

ORGANS = LabelScheme(class_values=(0, 5, 255), class_names=("background", "liver", "spleen"))
TUMOUR = LabelScheme(
    class_values=(0, 1, 2),
    class_names=("background", "edema", "core"),
    region_names=("whole", "inner"),
    regions=((1, 2), (2,)),
    regions_class_order=(1, 2),
)
NOTHING = Counts(0, 0, 0, 10)


def with_dice(hits: int, misses: int) -> Counts:
    """Counts whose Dice is hits / (hits + misses)."""
    return Counts(hits, misses, misses, 10)


@pytest.fixture
def three_cases():
    """liver: 0.5, 1, 0.75; spleen: nowhere, 0.25, nowhere."""
    return {
        "a": [LabelScore("liver", with_dice(1, 1)), LabelScore("spleen", NOTHING)],
        "b": [LabelScore("liver", with_dice(4, 0)), LabelScore("spleen", with_dice(1, 3))],
        "c": [LabelScore("liver", with_dice(3, 1)), LabelScore("spleen", NOTHING)],
    }


def test_every_foreground_class_of_a_case_is_scored():
    reference, predicted = np.array([[[1, 1, 2, 0]]]), np.array([[[1, 0, 2, 2]]])
    liver, spleen = score_case(reference, predicted, ORGANS)
    assert (liver.label, liver.counts) == ("liver", Counts(1, 0, 1, 2))
    assert (spleen.label, spleen.counts) == ("spleen", Counts(1, 1, 0, 2))
    assert list(liver.metrics) == ["dice", "jaccard", "precision", "recall", "accuracy"]


def test_regions_are_scored_where_a_dataset_has_them():
    reference, predicted = np.array([[[1, 2, 2, 0]]]), np.array([[[2, 2, 1, 0]]])
    whole, inner = score_case(reference, predicted, TUMOUR)
    assert (whole.label, whole.metrics["dice"]) == ("whole", 1)
    assert (inner.label, inner.metrics["dice"]) == ("inner", pytest.approx(1 / 2))


def test_surfaces_only_where_they_are_asked_for_and_not_under_the_ignore_label():
    reference = np.zeros((4, 10, 10), np.int16)
    reference[1:3, 2:6, 2:6] = 1
    predicted = np.roll(reference, 1, axis=2)
    predicted[:, 9, 9] = 1
    reference[:, 9, 9] = IGNORE
    score, _ = score_case(reference, predicted, ORGANS, SurfaceSettings((2.0, 1.0, 0.5), tolerance_mm=0.4))
    assert score.hd95_mm == pytest.approx(0.5)
    assert 0 < score.metrics["nsd"] < 1
    assert "hd95_mm" not in score_case(reference, predicted, ORGANS)[0].metrics


def test_mean_over_cases_then_over_labels_leaving_out_what_is_undefined(three_cases):
    summary = summarise(three_cases)
    liver, spleen = summary.per_label()["dice"].to_dict("index").values()
    assert liver == pytest.approx({"mean": 0.75, "sd": 0.25, "n": 3})
    assert spleen == pytest.approx({"mean": 0.25, "sd": math.nan, "n": 1}, nan_ok=True)
    assert summary.mean() == pytest.approx((0.75 + 0.25) / 2)
    assert summary.mean(label="liver") == pytest.approx(0.75)


def test_the_worst_case_comes_first_and_the_undefined_last(three_cases):
    three_cases["d"] = [LabelScore("liver", NOTHING), LabelScore("spleen", NOTHING)]
    per_case = summarise(three_cases).per_case()
    assert list(per_case.index) == ["a", "b", "c", "d"]
    assert list(per_case) == pytest.approx([0.5, 0.625, 0.75, math.nan], nan_ok=True)


def test_a_large_distance_is_worse_than_a_small_one():
    near, far = (LabelScore("liver", with_dice(1, 0), hd95_mm=distance, nsd=1.0) for distance in (1.0, 9.0))
    assert list(summarise({"near": [near], "far": [far]}, 1.0).per_case("hd95_mm").index) == ["far", "near"]


def test_labels_keep_their_order():
    scores = [LabelScore(name, with_dice(1, 1)) for name in ("zygoma", "atlas", "mandible")]
    summary = summarise({"b": scores, "a": scores})
    assert summary.labels == tuple(summary.per_label().index) == ("zygoma", "atlas", "mandible")
    assert summary.cases == ("b", "a")


def test_the_files_say_what_the_summary_says(three_cases, tmp_path):
    table, document = write_scores(summarise(three_cases), tmp_path, about={"references": "refs"})
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
    assert content["schema_version"] == 1
    assert content["references"] == "refs"
    assert content["mean"]["dice"] == pytest.approx(0.5)
    assert content["labels"]["spleen"]["dice"] == {"mean": 0.25, "sd": None, "n": 1}
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
    _, document = write_scores(summarise({"a": [LabelScore("liver", NOTHING)]}), tmp_path)
    assert json.loads(document.read_text())["mean"]["dice"] is None
