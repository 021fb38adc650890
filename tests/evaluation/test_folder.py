"""Two folders of files compared: matching, labels, formats, and each way it can be refused."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from slicer_segments import write_nrrd

from mvl_auto.errors import MvlError
from mvl_auto.evaluation import Scoring, evaluate_folders
from mvl_auto.evaluation.case import make_scoring
from mvl_auto.evaluation.metrics import choose_metrics
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
    assert evaluate_folders(*folders, labels=other).labels == ("head", "tail")


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
    straight = evaluate_folders(references, predictions).table
    write(predictions, "b.nii.gz", two_blocks(shift=1), turn="PIR")
    write(references, "a.nii.gz", two_blocks(), turn="SRA")
    turned = evaluate_folders(references, predictions).table
    pd.testing.assert_frame_equal(turned, straight)


def test_surfaces_are_in_mm_whatever_the_voxels(folders):
    table = evaluate_folders(*folders, scoring=make_scoring("hd,hd95_voxel_mm,nsd", 0.7)).table.set_index(
        ["case", "label"]
    )
    assert table.loc[("a", "1"), "hd_mm"] == 0
    assert table.loc[("b", "1"), "hd_mm"] == pytest.approx(SPACING[0], rel=1e-4)
    assert table.loc[("b", "1"), "hd95_voxel_mm"] == pytest.approx(SPACING[0], rel=1e-4)
    assert table.loc[("a", "1"), "nsd"] == 1
    assert 0 < table.loc[("b", "1"), "nsd"] < 1
    assert evaluate_folders(*folders, scoring=make_scoring("nsd", 0.9)).mean("nsd") == 1


def test_a_label_that_only_the_prediction_has_shows_as_zero(folders):
    references, predictions = folders
    wrong = two_blocks()
    wrong[0] = 7
    write(predictions, "a.nii.gz", wrong)
    summary = evaluate_folders(references, predictions)
    assert summary.labels == ("1", "2", "7")
    assert summary.per_label()["dice"].loc["7", ["mean", "sd", "n"]].to_dict() == pytest.approx(
        {"mean": 0, "sd": np.nan, "n": 1}, nan_ok=True
    )


def test_labels_can_be_given(folders):
    only_one = LabelScheme(class_values=(0, 2, 1), class_names=("background", "tail", "head"))
    assert evaluate_folders(*folders, labels=only_one).labels == ("tail", "head")


def test_processes_change_nothing(folders):
    one, many = (evaluate_folders(*folders, workers=workers).table for workers in (1, 2))
    assert one.equals(many)


def test_masks_of_0_and_255_in_pictures(tmp_path):
    mask = np.zeros((8, 9), np.uint8)
    mask[2:6, 2:6] = 255
    for folder in ("references", "predictions"):
        (tmp_path / folder).mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(mask), tmp_path / folder / "cell.png")
    summary = evaluate_folders(tmp_path / "references", tmp_path / "predictions")
    assert summary.labels == ("255",)
    assert summary.mean() == 1
    assert summary.mean("hd95_mm") == 0


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_values_of_every_integer_type_down_to_its_lowest_and_up_to_its_highest(tmp_path, dtype):
    most = np.iinfo(np.int64).max  # of a label value in dataset.json, to either side
    lowest, highest = max(np.iinfo(dtype).min, -most) or 3, min(np.iinfo(dtype).max, most)
    for folder in ("references", "predictions"):
        values = two_blocks().astype(np.int64)
        array = np.where(values == 1, lowest, np.where(values == 2, highest, 0)).astype(dtype)
        image = sitk.GetImageFromArray(array)
        (tmp_path / folder).mkdir()
        sitk.WriteImage(image, tmp_path / folder / "a.nrrd")
    summary = evaluate_folders(tmp_path / "references", tmp_path / "predictions")
    assert set(summary.labels) == {str(lowest), str(highest)}
    assert summary.mean("dice") == 1
    description = {"labels": {"background": 0, "low": int(lowest), "high": int(highest)}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    named = evaluate_folders(tmp_path / "references", tmp_path / "predictions")
    assert set(named.labels) == {"low", "high"}
    assert named.mean("dice") == 1


def test_values_far_apart_are_scored_like_others(tmp_path):
    for folder in ("references", "predictions"):
        image = sitk.GetImageFromArray(np.array([-7, 70000, 0, 5], np.int32)[two_blocks()])
        (tmp_path / folder).mkdir()
        sitk.WriteImage(image, tmp_path / folder / "a.nii.gz")
    assert evaluate_folders(tmp_path / "references", tmp_path / "predictions").labels == ("-7", "70000")


def test_a_label_that_one_case_lacks_on_both_sides_is_undefined_there(folders):
    references, predictions = folders
    for folder in folders:
        write(folder, "b.nii.gz", np.where(two_blocks() == 1, 1, 0))
    table = evaluate_folders(references, predictions, scoring=Scoring(choose_metrics("all"))).table
    of_b = table[table["case"] == "b"].set_index("label").loc["2"]
    assert np.isnan(of_b["dice"])
    assert np.isnan(of_b["hd95_mm"])
    assert (of_b["specificity"], of_b["reference_voxels"]) == (1, 0)


def test_missing_predictions_score_as_empty_ones_where_that_is_asked_for(folders):
    references, predictions = folders
    write(references, "c.nii.gz", two_blocks())
    table = evaluate_folders(references, predictions, missing_as_zero=True).table
    of_c = table[table["case"] == "c"]
    assert of_c["dice"].tolist() == [0, 0]
    assert of_c["nsd"].tolist() == [0, 0]
    diagonal = np.hypot.reduce([(size - 1) * mm for size, mm in zip(SHAPE, SPACING[::-1], strict=True)])
    assert of_c["hd95_mm"].tolist() == pytest.approx([diagonal] * 2, rel=1e-4)
    write(predictions, "d.nii.gz", two_blocks())
    assert "no reference for 1 of 3 cases: d" in refusal(references, predictions, missing_as_zero=True)


def test_names_in_two_unicode_forms_are_one_name(folders):
    references, predictions = folders
    write(references, unicodedata.normalize("NFC", "Müller.nii.gz"), two_blocks())
    write(predictions, unicodedata.normalize("NFD", "Müller.nii.gz"), two_blocks())
    assert len(evaluate_folders(references, predictions).cases) == 3


def test_a_tolerance_for_a_label_in_the_other_unicode_form(folders, tmp_path):
    decomposed, composed = (unicodedata.normalize(form, "Ödem") for form in ("NFD", "NFC"))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, decomposed: 1, "other": 2}}))
    write(folders[1], "a.nii.gz", np.roll(two_blocks(), 1, axis=1))
    wide, narrow = (
        evaluate_folders(*folders, scoring=make_scoring("nsd", {composed: mm})).per_label()["nsd"]["mean"].to_list()
        for mm in (100.0, 0.01)
    )
    assert wide[0] == 1 > narrow[0]
    assert wide[1] == narrow[1]


def test_labels_named_beside_the_predictions(folders):
    (folders[1] / "labels.json").write_text(json.dumps(LABELS))
    assert evaluate_folders(*folders).labels == ("anterior", "posterior")


def test_one_case_alone(folders):
    for folder in folders:
        (folder / "b.nii.gz").unlink()
    summary = evaluate_folders(*folders)
    assert summary.mean() == 1
    assert np.isnan(summary.per_label()["dice"]["sd"]).all()


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
    assert "empty: holds no references" in refusal(tmp_path / "empty", predictions)
    write(tmp_path / "others", "x.nii.gz", two_blocks())
    assert "no file has the name" in refusal(references, tmp_path / "others", only_common=True)


def test_two_files_of_one_name(folders):
    references, predictions = folders
    write(predictions, "a.nrrd", two_blocks())
    assert "two predictions of one name" in refusal(references, predictions)


def test_a_dataset_json_that_is_missing_or_no_object(folders, tmp_path):
    assert "is missing" in refusal(*folders, labels=tmp_path / "nowhere.json")
    (tmp_path / "dataset.json").write_text("[]")
    assert "dataset.json: is a list" in refusal(*folders)


def test_nothing_but_background(tmp_path):
    for folder in ("references", "predictions"):
        write(tmp_path / folder, "a.nii.gz", np.zeros(SHAPE))
    assert "nothing but background" in refusal(tmp_path / "references", tmp_path / "predictions")


def test_names_that_differ_in_upper_and_lower_case_are_told(folders):
    references, predictions = folders
    (predictions / "b.nii.gz").rename(predictions / "B.nii.gz")
    message = refusal(references, predictions, only_common=True)
    assert str(predictions / "B.nii.gz") in message
    assert str(references / "b.nii.gz") in message


def test_2d_against_3d(folders):
    references, predictions = folders
    write(predictions, "b.nii.gz", two_blocks()[0])
    message = refusal(references, predictions)
    assert str(predictions / "b.nii.gz") in message
    assert "10 x 12 x 1." in message


def test_probabilities_in_place_of_labels(folders):
    references, predictions = folders
    for values, told in ((np.full(SHAPE, 0.3), "soft label"), (np.full(SHAPE, np.nan), "NaN")):
        sitk.WriteImage(sitk.GetImageFromArray(values.astype(np.float32)), predictions / "b.nii.gz")
        message = refusal(references, predictions)
        assert told in message
        assert str(predictions / "b.nii.gz") in message


@pytest.mark.parametrize("side", [0, 1])
def test_an_image_in_place_of_labels(folders, side):
    values = np.arange(-1000, 1000, dtype=np.int16).reshape(5, 20, 20)
    for folder in folders:
        (folder / "b.nii.gz").unlink()
        sitk.WriteImage(sitk.GetImageFromArray((values > 0).astype(np.int16)), folder / "a.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(values), folders[side] / "a.nii.gz")
    message = refusal(*folders)
    assert "2000 different values, as an image has" in message
    assert str(folders[side] / "a.nii.gz") in message


def test_all_cases_that_fail_are_named(folders):
    references, predictions = folders
    for name in ("a", "b"):
        write(predictions, f"{name}.nii.gz", two_blocks(), spacing=(1.0, 1.0, 1.0))
    message = refusal(references, predictions)
    assert "a.nii.gz" in message
    assert "1 more case fails: b" in message


def test_a_tolerance_for_a_label_that_is_none(folders, tmp_path):
    assert "labels are 1, 2" in refusal(*folders, scoring=make_scoring("nsd", {"kidney": 3.0}))
    (tmp_path / "dataset.json").write_text(json.dumps(LABELS))
    assert "labels are anterior, posterior" in refusal(*folders, scoring=make_scoring("nsd", {"kidney": 3.0}))


# ------------------------------------------------------------------------------------ the command


def test_the_command_writes_two_files_and_prints_a_table(folders, tmp_path, capsys):
    from mvl_auto.cli.evaluate import main

    references, predictions = folders
    code = main(["-r", str(references), "-p", str(predictions), "-o", str(tmp_path / "scores"), "-q"])
    printed = capsys.readouterr().out
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == [
        *("scores.csv", "scores.json", "scores_long.csv", "scores_wide.csv")
    ]
    assert not (predictions / "scores.csv").exists()
    rows = {line.split()[0]: line for line in printed.split("\n\n")[1].splitlines() if line}
    assert "0.875 ± 0.177" in rows["1"]
    assert rows["mean"].split()[1] == f"{(7 / 8 + 3 / 4) / 2:.3f}"
    assert "hd95_mm" in printed
    assert "accuracy" not in printed, "only in the files"
    assert max(map(len, printed.splitlines())) <= max(80, len(str(tmp_path)) + 80)
    assert printed.index("\nb  ") < printed.index("\na  "), "the worst case comes first"
    assert printed.endswith(f"scores.json in {tmp_path / 'scores'}\n")


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


def test_the_command_takes_metrics_and_a_tolerance_per_label(folders, tmp_path, capsys):
    from mvl_auto.cli.evaluate import main

    (tmp_path / "dataset.json").write_text(json.dumps(LABELS))
    scores = tmp_path / "scores"
    asked = ["--metrics", "nsd,lesion", "--tolerance", "posterior=0.9", "--lesion-iou", "0.6"]
    assert main(["-r", str(folders[0]), "-p", str(folders[1]), "-o", str(scores), "-q", *asked]) == 0
    content = json.loads((scores / "scores.json").read_text())
    assert content["scoring"]["tolerances_mm"] == {"posterior": 0.9}
    assert content["cases"]["b"]["posterior"]["nsd"] == 1
    assert content["cases"]["b"]["anterior"]["nsd"] == 1, "1 mm is more than a voxel of 0.8 mm"
    assert [content["cases"]["b"][label]["lesion_f1"] for label in ("anterior", "posterior")] == [1, 0]
    assert "posterior 0.9 mm" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["two", "-1", "=3", "kidney=", "inf", "kidney=1,kidney=2"])
def test_a_tolerance_that_is_none(wrong, capsys):
    from mvl_auto.cli.evaluate import main

    with pytest.raises(SystemExit) as end:
        main(["-r", "references", "-p", "predictions", f"--tolerance={wrong}"])
    assert end.value.code == 2
    assert "--tolerance" in capsys.readouterr().err


def test_segmentations_of_3d_slicer_are_compared_by_the_names_of_their_segments(tmp_path):
    """Two people, who made the segments in another order and saved other extents, with names in capitals or not."""
    values = np.zeros((9, 10, 12), np.uint8)
    values[2:6, 3:8, 2:7], values[6:8, 2:9, 6:11] = 1, 2
    references, predictions = tmp_path / "labelsTr", tmp_path / "preds"
    write_nrrd(references / "a.seg.nrrd", values[1:], (("anterior", 1, 0), ("posterior", 2, 0)), start=(1, 0, 0))
    swapped = np.array([0, 2, 1], np.uint8)[values]
    write_nrrd(predictions / "a.seg.nrrd", swapped, (("Posterior", 1, 0), ("Anterior", 2, 0)))
    (references / "dataset.json").write_text(json.dumps(LABELS))
    dice = evaluate_folders(references, predictions).table.set_index("label")["dice"]
    assert dice["anterior"] == dice["posterior"] == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("turn", [1, -1])
def test_files_of_any_type_and_orientation_give_the_same_scores(tmp_path, dtype, turn):
    """Values of one byte are turned into classes where they lie, files that run against RAS+ are copied first."""
    import nibabel

    rng = np.random.default_rng(0)
    for folder in ("references", "predictions"):
        (tmp_path / folder).mkdir()
        values = rng.choice(np.array([0, 7, 100]), (9, 8, 7))
        affine = np.diag([turn, 1.0, 1.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(values.astype(dtype), affine), tmp_path / folder / "a.nii.gz")
        if folder == "references":
            reference = values
    summary = evaluate_folders(tmp_path / "references", tmp_path / "predictions", workers=1)
    for label in (7, 100):
        of_reference, of_prediction = reference == label, values == label
        expected = 2 * (of_reference & of_prediction).sum() / (of_reference.sum() + of_prediction.sum())
        assert summary.mean("dice", str(label)) == pytest.approx(expected, abs=1e-12)
