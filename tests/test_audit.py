"""The audit of a run: cases by the fold that kept them apart, resumed, ranked, and found again in the image's file."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk
from builders import make_dataset
from trained import make_plan, write_trained

from mvl_auto import api
from mvl_auto.audit import file_voxel, position_mm, write_markups
from mvl_auto.errors import MvlError
from mvl_auto.images import read_image


@pytest.fixture
def run(root):
    """A dataset of four cases, and an untrained run of two folds that kept two of them apart each."""
    folder = make_dataset(root / "raw", cases=4)
    names = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "imagesTr").glob("*.nii.gz"))
    return write_trained(root, make_plan(), folds=["0", "1"], validation={"0": names[:2], "1": names[2:]})


def test_every_case_is_ranked_once_with_the_fold_that_kept_it_apart(root, run):
    report = api.audit(7, root=root)
    names = [audited.case for audited, _ in report.cases]
    assert len(set(names)) == len(names) == 4
    scores = [score for _, score in report.cases]
    assert scores == sorted(scores, reverse=True)
    folds = {audited.case: audited.fold for audited, _ in report.cases}
    assert [folds[name] for name in sorted(folds)] == ["0", "0", "1", "1"]
    rows = list(csv.DictReader((run / "audit" / "audit.csv").open()))
    assert [row["case"] for row in rows] == names
    assert [row["case"] for row in json.loads((run / "audit" / "audit.json").read_text())["cases"]] == names


def test_audited_cases_are_kept_and_a_changed_label_is_audited_again(root, run):
    api.audit(7, root=root)
    files = sorted((run / "audit" / "cases").glob("*.json"))
    before = {path.name: path.stat().st_mtime_ns for path in files}
    label = next(iter(sorted((root / "raw" / "Task007_Tiny" / "labelsTr").glob("*.nii.gz"))))
    image = sitk.ReadImage(str(label))
    sitk.WriteImage(sitk.Flip(image, [True, False, False]), str(label))
    again = sitk.ReadImage(str(label))
    again.CopyInformation(image)
    sitk.WriteImage(again, str(label))
    api.audit(7, root=root)
    changed = [path.name for path in files if path.stat().st_mtime_ns != before[path.name]]
    assert changed == [f"{label.name.removesuffix('.nii.gz')}.json"]


def test_a_case_that_cannot_be_read_is_left_out_and_named(root, run):
    broken = next(iter(sorted((root / "raw" / "Task007_Tiny" / "imagesTr").glob("*.nii.gz"))))
    broken.write_bytes(broken.read_bytes()[:200])
    report = api.audit(7, root=root)
    assert len(report.cases) == 3
    assert list(report.left_out) == [broken.name.removesuffix(".nii.gz")]


def test_a_run_without_kept_cases_says_what_to_train(root):
    make_dataset(root / "raw", cases=4)
    write_trained(root, make_plan(), folds=["all"])
    with pytest.raises(MvlError, match="no fold that kept cases apart"):
        api.audit(7, root=root)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "ASL"])
def test_a_place_is_the_same_voxel_in_the_image_file_however_its_axes_run(tmp_path, axes):
    array = np.zeros((6, 7, 8), np.float32)
    array[1, 5, 2] = 100
    image = sitk.DICOMOrient(sitk.GetImageFromArray(array), axes)
    image.SetSpacing([1.5, 2.0, 2.5])
    image.SetOrigin([3.0, -4.0, 5.0])
    sitk.WriteImage(image, str(tmp_path / "image.nii.gz"))
    volume = read_image([tmp_path / "image.nii.gz"])
    place = np.unravel_index(int(volume.array[0].argmax()), volume.array[0].shape)
    voxel = file_voxel(place, volume.geometry)
    assert image[voxel] == 100
    x, y, z = position_mm(place, volume.geometry)
    assert image.TransformPhysicalPointToIndex([-x, -y, z]) == voxel


def test_markups_are_lps_and_only_for_cases_with_a_place(root, run, tmp_path):
    report = api.audit(7, root=root)
    written = write_markups(report, tmp_path / "markups", most=4)
    assert [path.name for path in written] == [f"{a.case}.mrk.json" for a, _ in report.cases if a.suspicions]
    by_case = {audited.case: audited for audited, _ in report.cases}
    for path in written:
        (markup,) = json.loads(path.read_text())["markups"]
        x, y, z = by_case[path.name.removesuffix(".mrk.json")].suspicions[0].position
        assert markup["coordinateSystem"] == "LPS"
        assert markup["controlPoints"][0]["position"] == [-x, -y, z]
