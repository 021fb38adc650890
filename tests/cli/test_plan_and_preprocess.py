"""What mvl_plan_and_preprocess and mvl_train show and accept; what they do is tested with the stages."""

from __future__ import annotations

import argparse
import re
from typing import get_args

import hypothesis
import pytest
from builders import make_dataset
from hypothesis import strategies as st
from trained import make_configuration, make_plan

from mvl_auto import plans
from mvl_auto.cli import common, plan_and_preprocess, train
from mvl_auto.planners.budget import PRESETS
from mvl_auto.tables import table


def parse(module, *argv: str) -> argparse.Namespace:
    return common.build_parser(module.COMMAND).parse_args(argv)


def test_the_choices_are_those_of_the_planner():
    assert tuple(plan_and_preprocess.CONFIGURATIONS) == get_args(plans.ConfigurationName)
    assert tuple(plan_and_preprocess.PRESETS) == PRESETS


@pytest.mark.parametrize(("given", "layer"), [("last", "last"), ("3", 3), ("-1", -1)])
def test_a_layer_is_last_or_a_number_negative_from_the_end(given, layer):
    assert parse(plan_and_preprocess, "-d", "4", f"--llm-layer={given}").llm_layer == layer


def test_several_datasets_and_configurations_at_once():
    args = parse(plan_and_preprocess, "-d", "4", "Heart", "-c", "2d", "3d_fullres", "--memory", "8GB")
    assert (args.dataset, args.configurations, args.memory) == (["4", "Heart"], ["2d", "3d_fullres"], 8 * 10**9)


def test_numbers_by_hand_and_a_budget_of_time():
    args = parse(plan_and_preprocess, "-d", "4", "--time", "1h30m", "--patch-size", "16", "24", "8", "--depth", "2")
    assert (args.time, args.patch_size, args.depth, args.width) == (5400, [16, 24, 8], 2, None)


@pytest.mark.parametrize(
    "argv",
    [
        ["-d", "4", "--memory", "8GB", "--preset", "S"],
        ["-d", "4", "-c", "4d"],
        [],
        ["-d", "4", "--llm-layer", "x"],
        ["-d", "4", "--patch-size", "0", "8", "8"],
        ["-d", "4", "--depth", "1.5"],
        ["-d", "4", "--time", "soon"],
        ["-d", "4", "--workers", "2", "--scheduler", "tcp://127.0.0.1:8786"],
    ],
)
def test_what_does_not_go_together_is_wrong_usage(argv, capsys):
    with pytest.raises(SystemExit) as end:
        parse(plan_and_preprocess, *argv)
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("chosen", "next_command"),
    [
        ([], "mvl_train 4 fold0"),
        (["-c", "3d_lowres"], "mvl_train 4 fold0 -c 3d_lowres"),
        (
            ["-c", "3d_cascade_fullres"],
            "mvl_train 4 0 1 2 -c 3d_lowres && mvl_train 4 fold0 -c 3d_cascade_fullres",
        ),
        (["-c", "3d_cascade_fullres", "--plan-only"], "mvl_plan_and_preprocess -d 4 -c 3d_cascade_fullres"),
    ],
)
def test_before_a_cascade_comes_its_first_stage_on_all_folds(chosen, next_command):
    second = make_configuration(name="3d_cascade_fullres", previous_stage="3d_lowres")
    plan = make_plan(make_configuration(), make_configuration(name="3d_lowres"), second)
    args = parse(plan_and_preprocess, "-d", "4", *chosen)
    assert plan_and_preprocess.next_command("4", plan, 3, args) == next_command


@pytest.fixture
def dataset(root):
    return make_dataset(root / "raw", "nnunet", cases=5, shape=(10, 12, 11))


BLOCK = "random:hidden=32,heads=4,kv_heads=2,ffn=64,seed=0"


def command(*words: str) -> int:
    return plan_and_preprocess.main(["-d", "7", "--plan-only", "--workers", "1", "--llm", BLOCK, "-q", *words])


def test_numbers_by_hand_stand_in_the_plan_and_are_named(dataset, capsys):
    words = ["--patch-size", "8", "8", "8", "--batch-size", "3", "--depth", "2", "--width", "48", "--steps", "9"]
    assert command("--preset", "cpu", "--llm-layers", "2", "--llm-tokens", "all", *words, "--explain") == 0
    told = capsys.readouterr().out
    header, _, *rows = told[told.index("axes: ") :].splitlines()
    assert header.split("  ")[0] == "axes: Z Y X, 2d: Y X"
    column = next(n for n, name in enumerate(re.split(r" {2,}", header)) if name == "3d_fullres *")
    values = {cells[0]: cells[column] for cells in (re.split(r" {2,}", row) for row in rows[:7])}
    assert {"patch, voxels": "8x8x8", "batch": "3", "depth x width": "2 x 48", "steps": "9"}.items() <= values.items()
    assert f"LLM block: {BLOCK}" in told
    assert "2 layers of width 32" in " ".join(told.split())
    assert told.count("set by the user") == 9  # patch, batch, width, depth, iterations; the patch is none of 2d's
    again = next(line for line in told.splitlines() if line.startswith("next: ")).removeprefix("next: ")
    by_hand = "--llm-layers 2 --llm-tokens all --patch-size 8 8 8 --batch-size 3 --depth 2 --width 48 --steps 9"
    assert again == f"mvl_plan_and_preprocess -d 7 --preset cpu --llm {BLOCK} {by_hand}"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--llm-layers", "20000"], "--llm-layers 20000: input should be less than or equal to 10000"),
        (["--llm-layer", "20000"], "--llm-layer 20000: input should be less than or equal to 10000"),
        (["--patch-size", "8"], "a patch of 1 axes fits no configuration. Give Z Y X"),
        (["--patch-size", "10", "8", "8"], "not a multiple of the token size"),
        (["--time", "60", "--steps", "5"], "both say how long to train. Give only one of them."),
        (["--time", "60", "--preset", "L"], "give --memory 24GiB with --time"),
        (["--memory", "100MB"], "too little for any 3d_fullres network: the smallest needs"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_code_2(dataset, capsys, words, told):
    assert command(*words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert told in lines[0]


def test_a_time_is_kept_in_the_plan_and_told(dataset, root, capsys):
    assert command("--preset", "cpu", "--time", "90", "--explain") == 0
    told = " ".join(capsys.readouterr().out.replace("|", " ").split())
    assert "and 90 s of training" in told
    assert "measured" in told
    plan = plans.read_document(root / "preprocessed" / "Dataset007_Tiny" / "plans.json", plans.Plan)
    assert plan.time_budget == 90


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


def test_the_last_columns_share_what_the_first_leaves():
    words = "one two three four five six seven"
    text = table(["file", "what", "why"], [["a", words, words], ["b", "short", ""]], width=66, wrapped=2)
    assert text.splitlines() == [
        "file  what                          why",
        "----  ----------------------------  ------------------------------",
        "a     one two three four five six   one two three four five six",
        "      seven                         seven",
        "b     short",
    ]


@hypothesis.given(st.lists(st.lists(st.text("ab ", max_size=60), min_size=4, max_size=4), min_size=1, max_size=4))
def test_a_table_is_never_wider_than_the_screen(rows):
    text = table(["one", "two", "three", "four"], rows, width=80)
    assert max(map(len, text.splitlines())) <= 80
    kept = "".join(text.split("\n", 2)[2].split())
    assert sorted(kept) == sorted("".join("".join(cell.split()) for row in rows for cell in row))


def test_a_table_without_rows_is_its_header():
    assert table(["a", "bc"], []).splitlines() == ["a  bc", "-  --"]


def test_oddities_are_a_table_cut_after_twenty_rows():
    odd = [each.model_copy(update={"what": f"has {k} ears"}) for k, each in enumerate(labels_that_label_nothing(25))]
    text = plan_and_preprocess.anomalies("odd about it", odd)
    assert text.startswith("\nodd about it:\n")
    assert "labelsTr/case_00.nii.gz  has 0 ears   Check that this is meant." in text
    assert "case_19" in text
    assert "case_20" not in text
    assert text.endswith("... and 5 more, see fingerprint.json\n")
    assert plan_and_preprocess.anomalies("odd about it", ()) == ""


def test_an_oddity_of_many_cases_is_one_row_with_a_count_and_three_files():
    text = plan_and_preprocess.anomalies("odd about it", labels_that_label_nothing(25))
    assert text.count("labels nothing") == 1
    words = " ".join(text.split())
    assert "25 files: labelsTr/case_00.nii.gz," in words
    assert "case_02.nii.gz and 22 more" in words
    assert "case_03" not in words


def labels_that_label_nothing(number: int) -> list[plans.Anomaly]:
    odd = plans.Anomaly(file="", what="labels nothing", remedy="Check that this is meant.")
    return [odd.model_copy(update={"file": f"labelsTr/case_{k:02}.nii.gz"}) for k in range(number)]
