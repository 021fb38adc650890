"""All that can be wrong with a dataset, at once, and each thing by the name of its file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from builders import make_dataset, write_array
from walking import hashes

from mvl_auto.datasets import read_dataset
from mvl_auto.errors import MvlError
from mvl_auto.planners import Diagnosis, examine_dataset, fingerprint_dataset, repair_dataset
from mvl_auto.plans import read_document, write_document

IMAGE, LABEL = "imagesTr/tiny_001_0000.nii.gz", "labelsTr/tiny_001.nii.gz"


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_dataset(tmp_path, "nnunet", cases=5, shape=(8, 10, 9))


def edit(file: Path, change=lambda voxels: voxels, affine=None) -> None:
    image = nibabel.load(file)
    voxels = change(np.asanyarray(image.dataobj).copy())
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine if affine is None else affine), file)


def with_value(value: float):
    def change(voxels: np.ndarray) -> np.ndarray:
        voxels = voxels.astype(np.float32) if value != value else voxels
        voxels[2, 3, 4] = value
        return voxels

    return change


def truncate(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def sheared(voxel: float = 1.0) -> np.ndarray:
    return np.array([[voxel, 0, 0, 0], [0, voxel, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def shear(folder: Path) -> None:
    edit(folder / IMAGE, affine=sheared())
    edit(folder / LABEL, affine=sheared())


def flatten(folder: Path) -> None:
    edit(folder / IMAGE, lambda voxels: voxels[:, :, :1])
    edit(folder / LABEL, lambda voxels: voxels[:, :, 4:5])


PREVENTING = {
    "truncated image": (lambda d: truncate(d / IMAGE), IMAGE, "cut short"),
    "truncated label": (lambda d: truncate(d / LABEL), LABEL, "cut short"),
    "NaN": (lambda d: edit(d / IMAGE, with_value(np.nan)), IMAGE, "1 NaN"),
    "unknown label": (lambda d: edit(d / LABEL, with_value(9)), LABEL, "9"),
    "soft label": (lambda d: edit(d / LABEL, lambda voxels: voxels * np.float32(0.7)), LABEL, "soft"),
    "label of another size": (lambda d: edit(d / LABEL, lambda voxels: voxels[1:]), IMAGE, LABEL),
    "label elsewhere": (lambda d: edit(d / LABEL, affine=np.diag([2.0, 1, 1, 1])), IMAGE, LABEL),
    "two channels": (lambda d: edit(d / IMAGE, lambda voxels: np.stack([voxels] * 2, axis=-1)), IMAGE, "2 channels"),
    "no label": (lambda d: (d / LABEL).unlink(), IMAGE, "without its label"),
    "no image": (lambda d: (d / IMAGE).unlink(), LABEL, "without its image"),
    "no voxel size": (lambda d: edit(d / IMAGE, affine=np.diag([1000.0, 1, 1, 1])), IMAGE, "1000"),
    "flat and deep": (flatten, "the dataset", "mixes images of one slice (tiny_001"),
    "group of nobody": (lambda d: (d / "groups.csv").write_text("case,group\nx,y\n"), "groups.csv", "x"),
}
ODD = {
    "sheared": (shear, IMAGE, "16.7 degrees off a right angle"),
    "empty label": (lambda d: edit(d / LABEL, lambda voxels: voxels * 0), LABEL, "has no labelled voxel"),
    "constant": (lambda d: edit(d / IMAGE, lambda voxels: voxels * 0 + 5), IMAGE, "the value 5"),
}


@pytest.mark.parametrize("what", PREVENTING)
def test_what_prevents_use_is_found_where_the_fingerprint_stops(folder, what):
    damage, file, word = PREVENTING[what]
    damage(folder)
    diagnosis = examine_dataset(folder)
    (found,) = diagnosis.preventing
    assert found.file == file
    assert word in found.what
    assert str(folder) not in found.what + found.remedy
    assert not diagnosis.usable
    with pytest.raises(MvlError):
        fingerprint_dataset(read_dataset(folder))


@pytest.mark.parametrize("what", ODD)
def test_what_is_odd_is_what_the_fingerprint_tells(folder, what):
    damage, file, word = ODD[what]
    damage(folder)
    diagnosis = examine_dataset(folder)
    (found,) = diagnosis.findings
    assert (found.file, found.prevents_use, diagnosis.usable) == (file, False, True)
    assert word in found.what
    (odd,) = fingerprint_dataset(read_dataset(folder)).anomalies
    assert (odd.file, odd.what, odd.remedy) == (found.file, found.what, found.remedy)


def test_a_sound_dataset_has_no_finding_and_is_not_touched(folder):
    before = hashes(folder)
    diagnosis = examine_dataset(folder, workers=2)
    assert (diagnosis.findings, diagnosis.cases, diagnosis.usable_cases, diagnosis.usable) == ((), 5, 5, True)
    assert hashes(folder) == before


def test_everything_at_once(folder):
    """One case of each kind, several problems in one case, and the copies among those that are left."""
    truncate(folder / "imagesTr/tiny_000_0000.nii.gz")
    edit(folder / IMAGE, with_value(np.nan))
    edit(folder / LABEL, with_value(9), affine=np.diag([2.0, 1, 1, 1]))
    (folder / "labelsTr/tiny_002.nii.gz").unlink()
    for part in ("imagesTr/tiny_003_0000.nii.gz", "labelsTr/tiny_003.nii.gz"):
        shutil.copyfile(folder / part, folder / part.replace("003", "004"))
    write_array(folder / "labelsTr/alone.nii.gz", np.zeros((8, 10, 9), np.uint8), (1, 1, 1))
    diagnosis = examine_dataset(folder)
    assert [finding.file for finding in diagnosis.preventing] == [
        "imagesTr/tiny_002_0000.nii.gz",
        "labelsTr/alone.nii.gz",
        "imagesTr/tiny_000_0000.nii.gz",
        IMAGE,
        IMAGE,
        LABEL,
    ]
    (copy,) = diagnosis.odd
    assert copy.what == "is the same image as imagesTr/tiny_003_0000.nii.gz, with the same label"
    assert (diagnosis.cases, diagnosis.usable_cases) == (4, 2)
    assert examine_dataset(folder, workers=2) == diagnosis


def test_what_could_be_repaired_is_told_before_it_is(tmp_path):
    folder = make_dataset(tmp_path, "nnunet", cases=5, label_values=(0, 1))
    edit(folder / IMAGE, with_value(np.nan))
    edit(folder / LABEL, lambda voxels: voxels * 255, affine=np.diag([1.005, 1, 1, 1]))
    edit(folder / LABEL.replace("001", "002"), affine=np.diag([2.0, 1, 1, 1]))
    edit(folder / LABEL.replace("001", "003"), lambda voxels: voxels * np.float32(30.5))
    truncate(folder / IMAGE.replace("001", "004"))
    before = hashes(folder)
    diagnosis = examine_dataset(folder)
    assert diagnosis.repairable_files == {IMAGE, LABEL}
    assert hashes(folder) == before
    done = repair_dataset(folder, tmp_path / "copy")
    assert done.repairs == diagnosis.repairs
    assert examine_dataset(tmp_path / "copy").repairable_files == set()


def test_missing_and_superfluous_channels_are_told_case_by_case(tmp_path):
    folder = make_dataset(tmp_path, "nnunet", cases=4, channels=2)
    (folder / "imagesTr/tiny_000_0001.nii.gz").unlink()
    shutil.copyfile(folder / "imagesTr/tiny_001_0000.nii.gz", folder / "imagesTr/tiny_001_0002.nii.gz")
    diagnosis = examine_dataset(folder)
    assert [finding.file for finding in diagnosis.preventing] == [
        "imagesTr/tiny_001",
        "imagesTr/tiny_000_0000.nii.gz",
    ]
    assert diagnosis.usable_cases == 2


def test_listed_files_that_are_missing_and_cases_that_are_not_listed(tmp_path):
    folder = make_dataset(tmp_path, "msd", cases=5)
    for part in ("imagesTr", "labelsTr"):
        shutil.copyfile(folder / part / "tiny_003.nii.gz", folder / part / "extra.nii.gz")
    (folder / "imagesTr/tiny_001.nii.gz").unlink()
    (folder / "labelsTr/tiny_002.nii.gz").unlink()
    diagnosis = examine_dataset(folder)
    assert [finding.file for finding in diagnosis.preventing] == [
        "imagesTr/tiny_001.nii.gz",
        "labelsTr/tiny_002.nii.gz",
    ]
    assert all("is missing" in finding.what for finding in diagnosis.preventing)
    (odd,) = diagnosis.odd
    assert odd.file == "dataset.json"
    assert "than 1 of imagesTr and labelsTr, which are not used" in odd.what


def test_rare_labels_are_counted_among_the_cases_that_can_be_used(folder):
    for n in range(1, 5):
        edit(folder / f"labelsTr/tiny_{n:03d}.nii.gz", lambda voxels: np.minimum(voxels, 1))
    truncate(folder / "imagesTr/tiny_000_0000.nii.gz")
    (odd,) = examine_dataset(folder).odd
    assert odd.what == "label 'shell' (2) occurs in no case (of those that can be used)"


def test_a_dataset_of_which_nothing_can_be_used_has_a_diagnosis(folder):
    for file in (folder / "imagesTr").iterdir():
        truncate(file)
    diagnosis = examine_dataset(folder)
    assert (diagnosis.usable_cases, len(diagnosis.preventing), diagnosis.odd) == (0, 5, ())
    shutil.rmtree(folder / "imagesTr")
    assert "does not exist" in examine_dataset(folder).preventing[0].what


@pytest.mark.parametrize("content", [None, "{", "[]", json.dumps({"labels": {"background": 0, "a": 1}})])
def test_without_a_description_there_is_no_diagnosis(folder, content):
    (folder / "dataset.json").unlink()
    if content is not None:
        (folder / "dataset.json").write_text(content)
    with pytest.raises(MvlError, match=r"dataset\.json"):
        examine_dataset(folder)


def test_a_diagnosis_is_a_document(folder, tmp_path):
    truncate(folder / IMAGE)
    diagnosis = examine_dataset(folder)
    write_document(tmp_path / "found.json", diagnosis)
    assert read_document(tmp_path / "found.json", Diagnosis) == diagnosis
    assert json.loads((tmp_path / "found.json").read_text())["schema_version"]


def test_the_hippocampus_is_sound(real_data):
    diagnosis = examine_dataset(real_data / "Task04_Hippocampus")
    assert (diagnosis.findings, diagnosis.cases) == ((), 200)
