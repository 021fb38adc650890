"""Results as tables: printed, and as HTML in a notebook."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from trained import make_configuration, make_labels, make_plan

from mvl_auto.evaluation.case import score_case
from mvl_auto.evaluation.summary import summarise
from mvl_auto.inference import PredictionReport
from mvl_auto.planners.doctor.diagnosis import Diagnosis, Finding
from mvl_auto.results import TrainingResults
from mvl_auto.tables import Tabular, table


def cells(result: Tabular) -> list[list[str]]:
    """What the HTML shows, by row."""
    rows = re.findall(r"<tr>(.*?)</tr>", result._repr_html_())
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows]


def test_a_plan_names_its_axes_and_fits_eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    configurations = [make_configuration(name=name) for name in ("3d_fullres", "3d_lowres", "3d_cascade_fullres")]
    plan = make_plan(make_configuration((16, 16)), *configurations)
    lines = str(plan).splitlines()
    assert lines[0].split("  ")[0] == "axes: Z Y X, 2d: Y X"
    assert max(map(len, lines)) <= 80
    assert cells(plan)[0] == ["axes: Z Y X, 2d: Y X", "2d *", "3d_fullres", "3d_lowres", "3d_cascade_fullres"]
    assert ["patch, voxels", "16x16", "16x16x16", "16x16x16", "16x16x16"] in cells(plan)
    assert str(make_plan(make_configuration((16, 16)))).startswith("axes: Y X ")


def test_a_path_is_broken_behind_its_slashes():
    text = table(["file"], [["2 files: imagesTr/a_0000.nii.gz, labelsTr/verylong.nii.gz"]], 30)
    assert text.splitlines()[2:] == ["2 files: imagesTr/", "a_0000.nii.gz, labelsTr/", "verylong.nii.gz"]


def test_predictions_and_trainings():
    report = PredictionReport(done=["a"], skipped=["b"], failed={"c": "<c.nii.gz>: is damaged"})
    assert cells(report)[1:] == [["a", "predicted"], ["b", "existed already"], ["c", "&lt;c.nii.gz&gt;: is damaged"]]
    assert "c     <c.nii.gz>: is damaged" in str(report)

    class Trained:
        folder, steps, seconds, validation = Path("results/x/run/fold0"), 300, 600.0, None

    assert cells(TrainingResults([Trained()]))[1] == ["fold0", "300", "10 min", "-", "results/x/run/fold0"]


def test_scores_are_means_by_label():
    one, two = np.array([[[1, 1, 2, 0]]]), np.array([[[1, 0, 2, 2]]])
    summary = summarise({"a": score_case(one, two, make_labels()), "b": score_case(one, one, make_labels())})
    header, *rows = cells(summary)
    column = header.index("dice")
    assert "accuracy" not in header  # near 1 for any small label
    assert "accuracy" in summary.metrics
    # label 1: 2/3 and 1; label 2: 2/3 and 1
    assert [(row[0], row[column]) for row in rows] == [("label 1", "0.833"), ("label 2", "0.833"), ("mean", "0.833")]


def test_a_fault_of_many_cases_is_one_row_of_a_diagnosis():
    made = {"what": "holds 0 and 255", "remedy": "Run mvl_doctor --fix FOLDER.", "prevents_use": True}
    findings = tuple(Finding(file=f"labelsTr/{name}.png", **made) for name in "abcd")
    diagnosis = Diagnosis(dataset="D", folder="/d", cases=4, usable_cases=0, findings=findings, repairs=())
    (row,) = cells(diagnosis)[1:]
    assert row[0] == "4 files: labelsTr/a.png, labelsTr/b.png, labelsTr/c.png and 1 more"
    assert row[2] == "Run mvl_auto.doctor(dataset=&quot;/d&quot;, fix=FOLDER)."


def test_a_diagnosis_without_findings_says_so():
    diagnosis = Diagnosis(dataset="D", folder="/d", cases=3, usable_cases=3, findings=(), repairs=())
    assert cells(diagnosis)[1][1] == "3 of 3 cases are usable"
