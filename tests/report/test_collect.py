"""What a run's folder has is read; what is missing or damaged becomes a sentence, and the rest is still there."""

from __future__ import annotations

import json
import math

import pytest

from mvl_auto.errors import MvlError
from mvl_auto.report.collect import collect_run, read_log
from mvl_auto.report.scores import score_table
from mvl_auto.runs import read_curves


def test_a_whole_run_has_nothing_missing_but_the_fingerprint(make_run):
    record = collect_run(make_run())
    assert [fold.name for fold in record.folds] == ["fold0", "fold1"]
    assert [problem for problem in record.all_problems if "fingerprint.json" not in problem] == []
    assert record.dataset == "Dataset007_Tiny"
    assert record.configuration.name == "3d_fullres"
    assert record.folds[0].commands == ["/venv/bin/mvl_train 7 0 1 --steps 10"]
    assert record.folds[0].versions == ["mvl_auto 0.1.0, Python 3.11.7"]
    assert len(record.folds[0].predictions) == 3
    assert record.folds[1].curves["loss"][3] == 0.25


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("fold0/summary.json", None),
        ("fold0/summary.json", '{"cases": {"a": 3}, "schema_version": 2}'),
        ("fold0/state.json", "{}"),
        ("fold0/progress.csv", None),
        ("fold0/progress.csv", 'a\rb\x00,"\n1,2\n'),
        ("plans.json", "not JSON"),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_is_shown(make_run, file, content):
    run = make_run()
    (run / file).unlink()
    if content is not None:
        (run / file).write_text(content)
    record = collect_run(run)
    assert any(file in problem for problem in record.all_problems)
    assert set(score_table(record).summary.cases) >= set(record.folds[1].scores.cases)


@pytest.mark.parametrize("damaged", ["fold0/summary.json", "fold0/validation/scores.json"])
def test_of_two_files_of_scores_the_one_that_can_be_read_is_taken(make_run, damaged):
    run = make_run()
    (run / "fold0" / "validation" / "scores.json").write_bytes((run / "fold0" / "summary.json").read_bytes())
    (run / damaged).write_bytes(b"\xff" * 100)
    record = collect_run(run)
    assert any(damaged in problem for problem in record.all_problems)
    assert len(record.folds[0].scores.cases) == 3


def test_an_unfinished_fold_says_how_far_it_is(make_run):
    run = make_run()
    state = json.loads((run / "fold1" / "state.json").read_text())
    (run / "fold1" / "state.json").write_text(json.dumps(state | {"finished": False, "step": 4}))
    record = collect_run(run)
    assert "fold1: The training is not finished: 4 steps are done." in record.all_problems
    assert record.folds[1].scores is None
    assert len(score_table(record).cases) == 3


def test_a_lost_prediction_is_counted(make_run):
    run = make_run()
    next((run / "fold0" / "validation").iterdir()).unlink()
    assert any("predictions of 1 of 3" in problem for problem in collect_run(run).all_problems)


def test_scores_of_mvl_evaluate_are_taken_where_they_have_all_cases(make_run):
    run = make_run()
    summary = json.loads((run / "fold0" / "summary.json").read_text())
    for labels in summary["cases"].values():
        for values in labels.values():
            values["hd95_mm"] = 1.5
    (run / "fold0" / "validation" / "scores.json").write_text(json.dumps(summary))
    assert "hd95_mm" in collect_run(run).folds[0].scores.metrics
    summary["cases"].popitem()
    (run / "fold0" / "validation" / "scores.json").write_text(json.dumps(summary))
    assert "hd95_mm" not in collect_run(run).folds[0].scores.metrics


def test_one_fold_has_a_report_of_its_own(make_run):
    record = collect_run(make_run() / "fold1")
    assert [fold.name for fold in record.folds] == ["fold1"]
    assert record.plan is not None


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(MvlError, match="is not a training run"):
        collect_run(tmp_path)
    with pytest.raises(MvlError, match="is missing"):
        collect_run(tmp_path / "nowhere")


def test_a_torn_last_line_of_the_curves_is_dropped(tmp_path):
    (tmp_path / "progress.csv").write_text("step,loss,dice\n10,0.5,\n20,0.4,0.8\n30,0.")
    curves = read_curves(tmp_path / "progress.csv")
    assert curves["step"] == (10, 20)
    assert curves["loss"] == (0.5, 0.4)
    assert math.isnan(curves["dice"][0])
    assert curves["dice"][1] == 0.8


@pytest.mark.parametrize("text", ["", "\n", "nonsense\n1\n", "\x00\x00"])
def test_curves_without_steps_are_an_error(tmp_path, text):
    (tmp_path / "progress.csv").write_text(text)
    with pytest.raises(MvlError, match="no column 'step'"):
        read_curves(tmp_path / "progress.csv")


def test_lines_below_a_message_belong_to_it(tmp_path):
    (tmp_path / "log.txt").write_text("torn line\n2026-01-01 10:00:00,000 ERROR first\nTraceback\n  more\n")
    (line,) = read_log(tmp_path / "log.txt")
    assert (line.level, line.message) == ("ERROR", "first\nTraceback\n  more")
    assert read_log(tmp_path / "none.txt") == ()
