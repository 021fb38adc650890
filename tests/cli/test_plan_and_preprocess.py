"""What mvl_plan_and_preprocess and mvl_train show and accept; what they do is tested with the stages."""

from __future__ import annotations

import argparse
from typing import get_args

import pytest

from mvl_auto import plans
from mvl_auto.cli import common, plan_and_preprocess, train
from mvl_auto.cli.tables import table
from mvl_auto.planners.budget import PRESETS


def parse(module, *argv: str) -> argparse.Namespace:
    return common.build_parser(module.COMMAND).parse_args(argv)


def test_the_choices_are_those_of_the_planner():
    assert tuple(plan_and_preprocess.CONFIGURATIONS) == get_args(plans.ConfigurationName)
    assert set(plan_and_preprocess.PRESETS) == PRESETS.keys()


@pytest.mark.parametrize(("given", "layer"), [("last", "last"), ("3", 3), ("-1", -1)])
def test_a_layer_is_last_or_a_number_negative_from_the_end(given, layer):
    assert parse(plan_and_preprocess, "-d", "4", f"--llm-layer={given}").llm_layer == layer


def test_several_datasets_and_configurations_at_once():
    args = parse(plan_and_preprocess, "-d", "4", "Heart", "-c", "2d", "3d_fullres", "--memory", "8GB")
    assert (args.dataset, args.configurations, args.memory) == (["4", "Heart"], ["2d", "3d_fullres"], 8 * 10**9)


@pytest.mark.parametrize(
    "argv",
    [
        ["-d", "4", "--memory", "8GB", "--preset", "S"],
        ["-d", "4", "-c", "4d"],
        [],
        ["-d", "4", "--llm-layer", "x"],
        ["-d", "4", "--workers", "2", "--scheduler", "tcp://127.0.0.1:8786"],
    ],
)
def test_what_does_not_go_together_is_wrong_usage(argv, capsys):
    with pytest.raises(SystemExit) as end:
        parse(plan_and_preprocess, *argv)
    assert end.value.code == 2


def test_folds_and_budget_of_training():
    args = parse(train, "4", "fold0", "1", "--time", "10m", "--device", "cuda:1")
    assert (args.dataset, args.folds, args.time, args.steps, args.device) == ("4", ["fold0", "1"], 600, None, "cuda:1")


def test_a_run_has_a_budget_of_time_or_of_steps(capsys):
    with pytest.raises(SystemExit):
        parse(train, "4", "0", "--time", "10m", "--steps", "5")


def test_a_table_is_as_wide_as_its_words_and_wraps_the_last_column():
    text = table(["file", "what"], [["a.nii.gz", "one two three four five six seven"], ["b", ""]], width=40)
    assert text.splitlines() == [
        "file      what",
        "--------  ------------------------------",
        "a.nii.gz  one two three four five six",
        "          seven",
        "b",
    ]


def test_a_table_without_rows_is_its_header():
    assert table(["a", "bc"], []).splitlines() == ["a  bc", "-  --"]


def test_oddities_are_a_table_cut_after_twenty_rows(fingerprint_with_anomalies):
    text = plan_and_preprocess.anomalies(fingerprint_with_anomalies(25))
    assert "labelsTr/case_00.nii.gz  labels nothing  Check that this is meant." in text
    assert "case_19" in text
    assert "case_20" not in text
    assert text.endswith("... and 5 more, see fingerprint.json\n")
    assert plan_and_preprocess.anomalies(fingerprint_with_anomalies(0)) == ""


@pytest.fixture
def fingerprint_with_anomalies():
    def make(number: int) -> plans.Fingerprint:
        odd = plans.Anomaly(file="", what="labels nothing", remedy="Check that this is meant.")
        return plans.Fingerprint(
            dataset="Dataset004_X",
            channels=(plans.Channel(name="CT"),),
            labels=plans.LabelScheme(class_values=(0, 1), class_names=("background", "organ")),
            file_ending=".nii.gz",
            cases=(),
            foreground_intensity_properties_per_channel=(),
            anomalies=tuple(odd.model_copy(update={"file": f"labelsTr/case_{k:02}.nii.gz"}) for k in range(number)),
        )

    return make
