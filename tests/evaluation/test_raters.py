"""Several raters: who is compared with whom, and on which cases."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
import SimpleITK as sitk

from mvl_auto.errors import MvlError
from mvl_auto.evaluation.raters import evaluate_raters

SIDE = 4


def write(folder, name: str, shift: int) -> None:
    """A block of SIDE voxels along X, moved by `shift`: two of them have a Dice of 1 - difference / SIDE."""
    values = np.zeros((3, 6, 12), np.uint8)
    values[1, 2:4, shift : shift + SIDE] = 1
    folder.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(values), folder / f"{name}.nii.gz")


@pytest.fixture
def folders(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "raters" / "alice", name, 0)
        write(tmp_path / "raters" / "bob", name, 1)
        write(tmp_path / "preds", name, 3)
    return tmp_path / "raters", tmp_path / "preds"


def test_the_model_and_the_raters_by_hand(folders):
    agreement = evaluate_raters(*folders)
    dice = {pair: summary.mean("dice") for pair, summary in agreement.summaries.items()}
    assert dice == pytest.approx(
        {("alice", "model"): 1 - 3 / SIDE, ("bob", "model"): 1 - 2 / SIDE, ("alice", "bob"): 1 - 1 / SIDE}
    )
    assert agreement.means("dice") == pytest.approx((1 - 2.5 / SIDE, 1 - 1 / SIDE))


def test_the_table_begins_with_the_reference_and_what_is_compared_with_it(folders):
    table = evaluate_raters(*folders).table()
    assert list(table.columns[:3]) == ["reference", "prediction", "case"]
    assert set(zip(table["reference"], table["prediction"], strict=True)) == {
        *(("alice", "model"), ("bob", "model"), ("alice", "bob")),
    }


def test_a_case_that_one_rater_lacks_counts_for_the_others(folders):
    raters, predictions = folders
    write(raters / "alice", "c", 0)
    write(predictions, "c", 0)
    cases = {pair: len(summary.cases) for pair, summary in evaluate_raters(raters, predictions).summaries.items()}
    assert cases == {("alice", "model"): 3, ("bob", "model"): 2, ("alice", "bob"): 2}


def test_fewer_than_two_raters(folders):
    raters, predictions = folders
    with pytest.raises(MvlError, match="needs two raters"):
        evaluate_raters(raters / "alice", predictions)
    with pytest.raises(MvlError, match="not a folder of raters"):
        evaluate_raters(raters / "nobody", predictions)


def test_folders_without_label_files(folders, tmp_path):
    raters, predictions = folders
    (tmp_path / "nothing").mkdir()
    with pytest.raises(MvlError, match="nothing: has 0 folders of label files"):
        evaluate_raters(tmp_path / "nothing", predictions)
    with pytest.raises(MvlError, match="nothing: holds no predictions"):
        evaluate_raters(raters, tmp_path / "nothing")


def flat(path):
    return sitk.ReadImage(str(path))[:, :, 1]


def half(path):
    return sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkFloat32) * 0.5


def with_nan(path):
    image = sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkFloat32)
    image[0, 0, 0] = float("nan")
    return image


@pytest.mark.parametrize(("spoil", "told"), [(flat, "12 x 6 x 1"), (half, "soft label"), (with_nan, "NaN")])
@pytest.mark.parametrize("whose", ["raters/bob", "preds"])
def test_a_file_that_does_not_fit_the_others_is_named(folders, tmp_path, spoil, told, whose):
    file = tmp_path / whose / "b.nii.gz"
    sitk.WriteImage(spoil(file), file)
    with pytest.raises(MvlError, match=told) as caught:
        evaluate_raters(*folders)
    assert str(file) in str(caught.value)


def test_names_of_a_rater_in_other_letters(folders, tmp_path):
    raters, predictions = folders
    for folder, name in (
        (raters / "alice", "Müller"),
        (raters / "bob", unicodedata.normalize("NFD", "Müller")),
        (predictions, "Müller"),
    ):
        write(folder, name, 0)
    assert {len(summary.cases) for summary in evaluate_raters(raters, predictions).summaries.values()} == {3}
    (raters / "bob" / "b.nii.gz").rename(raters / "bob" / "B.nii.gz")
    with pytest.raises(MvlError, match="upper and lower case only") as caught:
        evaluate_raters(raters, predictions)
    assert str(raters / "bob" / "B.nii.gz") in str(caught.value)


def test_the_command(folders, tmp_path, capsys):
    from mvl_auto.cli.evaluate import main

    raters, predictions = folders
    assert main(["--raters", str(raters), "-p", str(predictions), "-o", str(tmp_path / "scores"), "-q"]) == 0
    printed = capsys.readouterr().out
    assert "dice: model with raters 0.375, raters with each other 0.750" in printed
    content = json.loads((tmp_path / "scores" / "raters.json").read_text())
    assert [(pair["reference"], pair["prediction"]) for pair in content["pairs"]] == [
        ("alice", "model"),
        ("bob", "model"),
        ("alice", "bob"),
    ]
    rows = (tmp_path / "scores" / "raters.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 2
