"""Two folders of files compared: matching, labels, formats, and each way it can be refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from mvl_auto.errors import MvlError
from mvl_auto.evaluation import evaluate_folders
from mvl_auto.plans import LabelScheme

SPACING = (0.8, 1.1, 3.0)  # mm, x y z
SHAPE = (5, 12, 10)  # Z Y X
LABELS = {"labels": {"0": "background", "1": "anterior", "2": "posterior"}}


def write(folder, name: str, values, spacing=SPACING, turn: str = "") -> None:
    """A label file of any format. turn: the orientation to store it in, such as "PIR"."""
    image = sitk.GetImageFromArray(np.asarray(values, dtype=np.uint8))
    image.SetSpacing(spacing)
    image.SetOrigin((-20.0, 7.5, 100.0))
    folder.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, turn) if turn else image, folder / name)


def two_blocks(shift: int = 0) -> np.ndarray:
    """Label 1 in 3 x 4 x 4 voxels and label 2 in 3 x 4 x 2, both moved along X by `shift`."""
    values = np.zeros(SHAPE, np.uint8)
    values[1:4, 1:5, 1 + shift : 5 + shift] = 1
    values[1:4, 6:10, 1 + shift : 3 + shift] = 2
    return values


@pytest.fixture
def folders(tmp_path):
    """references: a, b; predictions: a exact, b moved by one voxel."""
    references, predictions = tmp_path / "labelsTr", tmp_path / "preds"
    write(references, "a.nii.gz", two_blocks())
    write(references, "b.nii.gz", two_blocks())
    write(predictions, "a.nii.gz", two_blocks())
    write(predictions, "b.nii.gz", two_blocks(shift=1))
    return references, predictions


def test_cases_are_matched_by_name_and_scored(folders):
    summary = evaluate_folders(*folders)
    assert summary.cases == ("a", "b")
    assert summary.labels == ("1", "2")
    dice = summary.table.set_index(["case", "label"])["dice"]
    assert dice["a", "1"] == dice["a", "2"] == 1
    assert dice["b", "1"] == pytest.approx(3 / 4)
    assert dice["b", "2"] == pytest.approx(1 / 2)
    assert summary.mean() == pytest.approx((7 / 8 + 3 / 4) / 2)


def test_names_come_from_the_dataset_json_beside_the_references(folders, tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(LABELS))
    assert evaluate_folders(*folders).labels == ("anterior", "posterior")
    other = tmp_path / "other" / "dataset.json"
    other.parent.mkdir()
    other.write_text(json.dumps({"labels": {"background": 0, "head": 1, "tail": 2}}))
    assert evaluate_folders(*folders, dataset_json=other).labels == ("head", "tail")


def test_regions_and_the_ignore_label_of_dataset_json(folders, tmp_path):
    content = {
        "labels": {"background": 0, "whole": [1, 2], "posterior": [2], "ignore": 3},
        "regions_class_order": [1, 2],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    references, predictions = folders
    reference = two_blocks()
    reference[two_blocks(shift=1) > reference] = 3
    write(references, "b.nii.gz", reference)
    dice = evaluate_folders(references, predictions).table.set_index(["case", "label"])["dice"]
    hit, missed = 3 * (4 * 3 + 4 * 1), 3 * (4 + 4)
    assert dice["b", "whole"] == pytest.approx(2 * hit / (2 * hit + missed))


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha", ".mhd"])
def test_formats_may_differ(folders, ending):
    references, predictions = folders
    (predictions / "b.nii.gz").unlink()
    write(predictions, f"b{ending}", two_blocks(shift=1))
    assert evaluate_folders(references, predictions).per_case()["b"] == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_a_prediction_stored_in_another_orientation_is_the_same_prediction(folders):
    references, predictions = folders
    straight = evaluate_folders(references, predictions, surfaces=True).table
    write(predictions, "b.nii.gz", two_blocks(shift=1), turn="PIR")
    write(references, "a.nii.gz", two_blocks(), turn="SRA")
    turned = evaluate_folders(references, predictions, surfaces=True).table
    pd.testing.assert_frame_equal(turned, straight)


def test_surfaces_are_in_mm_whatever_the_voxels(folders):
    table = evaluate_folders(*folders, surfaces=True, tolerance_mm=0.7).table.set_index(["case", "label"])
    assert table.loc[("a", "1"), "hd95_mm"] == 0
    assert table.loc[("b", "1"), "hd95_mm"] == pytest.approx(SPACING[0], rel=1e-4)
    assert table.loc[("a", "1"), "nsd"] == 1
    assert 0 < table.loc[("b", "1"), "nsd"] < 1
    assert evaluate_folders(*folders, surfaces=True, tolerance_mm=0.9).mean("nsd") == 1


def test_a_label_that_only_the_prediction_has_shows_as_zero(folders):
    references, predictions = folders
    wrong = two_blocks()
    wrong[0] = 7
    write(predictions, "a.nii.gz", wrong)
    summary = evaluate_folders(references, predictions)
    assert summary.labels == ("1", "2", "7")
    assert summary.per_label()["dice"].loc["7"].to_dict() == pytest.approx(
        {"mean": 0, "sd": np.nan, "n": 1}, nan_ok=True
    )


def test_labels_can_be_given(folders):
    only_one = LabelScheme(class_values=(0, 2, 1), class_names=("background", "tail", "head"))
    assert evaluate_folders(*folders, labels=only_one).labels == ("tail", "head")


def test_threads_change_nothing(folders):
    one, many = (evaluate_folders(*folders, workers=workers).table for workers in (1, 4))
    assert one.equals(many)


def test_masks_of_0_and_255_in_pictures(tmp_path):
    mask = np.zeros((8, 9), np.uint8)
    mask[2:6, 2:6] = 255
    for folder in ("references", "predictions"):
        (tmp_path / folder).mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(mask), tmp_path / folder / "cell.png")
    summary = evaluate_folders(tmp_path / "references", tmp_path / "predictions", surfaces=True)
    assert summary.labels == ("255",)
    assert summary.mean() == 1
    assert summary.mean("hd95_mm") == 0


# ------------------------------------------------------------------------------------ refusals


def refusal(*args, **settings) -> str:
    with pytest.raises(MvlError) as caught:
        evaluate_folders(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_predictions_are_named(folders):
    references, predictions = folders
    write(references, "c.nii.gz", two_blocks())
    message = refusal(references, predictions)
    assert str(predictions) in message
    assert "no prediction for 1 of 3 cases: c" in message
    assert evaluate_folders(references, predictions, only_common=True).cases == ("a", "b")


def test_predictions_without_a_reference_are_named(folders):
    references, predictions = folders
    for number in range(8):
        write(predictions, f"extra{number}.mha", two_blocks())
    message = refusal(references, predictions)
    assert str(references) in message
    assert "no reference for 8 of 10 cases: extra0, extra1, extra2, extra3, extra4 and 3 more" in message


def test_different_sizes_are_told_with_both_files(folders):
    references, predictions = folders
    write(predictions, "b.nii.gz", two_blocks()[:, :, :8])
    message = refusal(references, predictions)
    for part in (str(references / "b.nii.gz"), str(predictions / "b.nii.gz"), "10 x 12 x 5", "8 x 12 x 5"):
        assert part in message


def test_different_spacing_is_told(folders):
    references, predictions = folders
    write(predictions, "b.nii.gz", two_blocks(), spacing=(1.0, 1.0, 1.0))
    message = refusal(references, predictions)
    assert str(references / "b.nii.gz") in message
    assert str(predictions / "b.nii.gz") in message


def test_a_value_that_dataset_json_does_not_know(folders, tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "anterior": 1}}))
    message = refusal(*folders)
    assert "labelsTr/a.nii.gz" in message
    assert "label value 2" in message


def test_folders_that_are_none_or_hold_nothing(folders, tmp_path):
    references, predictions = folders
    assert "nowhere" in refusal(tmp_path / "nowhere", predictions)
    (tmp_path / "empty").mkdir()
    assert "empty: holds no predictions" in refusal(references, tmp_path / "empty")
    write(tmp_path / "others", "x.nii.gz", two_blocks())
    assert "no file has the name" in refusal(references, tmp_path / "others", only_common=True)


def test_two_files_of_one_name(folders):
    references, predictions = folders
    write(predictions, "a.nrrd", two_blocks())
    assert "two predictions of one name" in refusal(references, predictions)


def test_a_dataset_json_that_is_missing_or_no_object(folders, tmp_path):
    assert "is missing" in refusal(*folders, dataset_json=tmp_path / "nowhere.json")
    (tmp_path / "dataset.json").write_text("[]")
    assert "dataset.json: is a list" in refusal(*folders)


def test_nothing_but_background(tmp_path):
    for folder in ("references", "predictions"):
        write(tmp_path / folder, "a.nii.gz", np.zeros(SHAPE))
    assert "nothing but background" in refusal(tmp_path / "references", tmp_path / "predictions")


# ------------------------------------------------------------------------------------ the command


def test_the_command_writes_two_files_and_prints_a_table(folders, tmp_path, capsys):
    from mvl_auto.cli.evaluate import main

    references, predictions = folders
    code = main(["-r", str(references), "-p", str(predictions), "-o", str(tmp_path / "scores"), "--surface", "-q"])
    printed = capsys.readouterr().out
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["scores.csv", "scores.json"]
    assert not (predictions / "scores.csv").exists()
    rows = {line.split()[0]: line for line in printed.splitlines() if line}
    assert "0.875 ± 0.177" in rows["1"]
    assert rows["mean"].split()[1] == f"{(7 / 8 + 3 / 4) / 2:.3f}"
    assert "hd95_mm" in rows["label"]
    assert printed.index("\nb  ") < printed.index("\na  "), "the worst case comes first"
    assert f"wrote {tmp_path / 'scores' / 'scores.csv'}" in printed


def test_the_command_refuses_in_one_line_and_writes_nothing(folders, capsys):
    from mvl_auto.cli.evaluate import main

    references, predictions = folders
    write(references, "c.nii.gz", two_blocks())
    assert main(["-r", str(references), "-p", str(predictions)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("mvl_evaluate: ")
    assert captured.err.count("\n") == 1
    assert sorted(path.name for path in predictions.iterdir()) == ["a.nii.gz", "b.nii.gz"]
