"""Labels that a header distorts, repaired: slopes, copied scalings, an sform of zeros; segments keep their names."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from slicer_segments import write_nrrd

from mvl_auto.datasets import load_case, read_dataset
from mvl_auto.planners.doctor import examine_dataset, repair_dataset

SHAPE = (5, 6, 7)
AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])


def dataset_of(folder: Path, label: Any, values: dict[str, int], stored: Any) -> Path:
    """Two cases whose labels (Z, Y, X) are saved through floating point as `stored`, as nibabel does."""
    for name in ("a", "b"):
        for part, array, kind in (
            ("imagesTr", np.arange(label.size).reshape(label.shape), np.int16),
            ("labelsTr", label, stored),
        ):
            image = nibabel.Nifti1Image(array.astype(float).T, AFFINE)
            image.header.set_data_dtype(kind)
            image.set_qform(AFFINE, 1)
            (folder / part).mkdir(parents=True, exist_ok=True)
            nibabel.save(image, folder / part / f"{name}{'_0000' if part == 'imagesTr' else ''}.nii.gz")
    content = {"channel_names": {"0": "MRI"}, "labels": {"background": 0} | values, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def patch(path: Path, place: int, new: bytes) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[place : place + len(new)] = new
    path.write_bytes(gzip.compress(bytes(content)))


@pytest.mark.parametrize("stored", [np.uint8, np.int16])
def test_a_quantising_slope_becomes_whole_numbers(tmp_path: Path, stored: Any) -> None:
    values = [1, 40, 41, 119] if stored is np.uint8 else [1024, 2035, 11175, 14175]
    label = np.random.default_rng(0).choice([0, *values], SHAPE)
    folder = dataset_of(tmp_path / "raw", label, {f"s{value}": value for value in values}, stored)
    assert examine_dataset(folder, workers=1).usable
    repairs = repair_dataset(folder, tmp_path / "copy", workers=1)
    assert repairs.usable
    assert {(repair.file, repair.outcome) for repair in repairs.repairs} == {
        (f"labelsTr/{name}.nii.gz", "repaired") for name in ("a", "b")
    }
    copied = nibabel.load(tmp_path / "copy" / "labelsTr" / "a.nii.gz")
    assert (copied.dataobj.slope, copied.dataobj.inter) == (1, 0)
    assert copied.get_data_dtype().kind in "iu"
    assert_array_equal(np.asarray(copied.dataobj).T, label)


def test_a_copied_intercept_is_taken_out(tmp_path: Path) -> None:
    label = np.random.default_rng(0).integers(0, 2, SHAPE)
    folder = dataset_of(tmp_path / "raw", label, {"core": 1}, np.int16)
    for name in ("a", "b"):
        path = folder / "labelsTr" / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(label.T.astype(np.int16), AFFINE), path)
        patch(path, 112, struct.pack("<ff", 1.0, -1024.0))
    assert not examine_dataset(folder, workers=1).usable
    assert repair_dataset(folder, tmp_path / "copy", workers=1).usable
    assert_array_equal(nibabel.load(tmp_path / "copy" / "labelsTr" / "b.nii.gz").get_fdata().T, label)


def test_an_sform_of_zeros_becomes_the_qform(tmp_path: Path) -> None:
    label = np.random.default_rng(0).integers(0, 2, SHAPE)
    folder = dataset_of(tmp_path / "raw", label, {"core": 1}, np.uint8)
    path = folder / "imagesTr" / "a_0000.nii.gz"
    patch(path, 254, struct.pack("<h", 1))
    patch(path, 280, bytes(48))
    before = nibabel.load(path).get_fdata()
    repairs = repair_dataset(folder, tmp_path / "copy", workers=1)
    (repair,) = (repair for repair in repairs.repairs if "imagesTr" in repair.file)
    assert (repair.found, repair.done) == ("its sform is all zeros", "has the qform in its place")
    copied = nibabel.load(tmp_path / "copy" / "imagesTr" / "a_0000.nii.gz")
    assert_allclose(copied.get_sform(), AFFINE, atol=1e-5)
    assert_allclose(copied.get_fdata(), before, atol=1e-3)


@pytest.mark.parametrize("placeless", ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"])
def test_a_header_without_a_place_is_matched_voxel_by_voxel(tmp_path: Path, placeless: str) -> None:
    label = np.random.default_rng(0).integers(0, 2, SHAPE)
    folder = dataset_of(tmp_path / "raw", label, {"core": 1}, np.uint8)
    patch(folder / placeless, 252, bytes(4))  # the codes of qform and sform
    (finding,) = examine_dataset(folder, workers=1).preventing
    assert "header has neither sform nor qform" in finding.what
    assert "mvl_doctor --fix" in finding.remedy
    repairs = repair_dataset(folder, tmp_path / "copy", workers=1)
    assert repairs.usable
    (repair,) = (repair for repair in repairs.repairs if repair.done == "takes the image's header, voxel by voxel")
    assert repair.file == "labelsTr/a.nii.gz"
    assert placeless in repair.found
    image, copied = (nibabel.load(tmp_path / "copy" / name) for name in ("imagesTr/a_0000.nii.gz", repair.file))
    assert_array_equal(copied.affine, image.affine)
    assert_array_equal(np.asarray(copied.dataobj).T, label)


def test_a_header_without_a_place_and_another_voxel_size_is_left(tmp_path: Path) -> None:
    label = np.random.default_rng(0).integers(0, 2, SHAPE)
    folder = dataset_of(tmp_path / "raw", label, {"core": 1}, np.uint8)
    patch(folder / "labelsTr" / "a.nii.gz", 252, bytes(4))
    patch(folder / "labelsTr" / "a.nii.gz", 80, struct.pack("<f", 3.0))
    repairs = repair_dataset(folder, tmp_path / "copy", workers=1)
    assert not repairs.usable
    assert "Resample the label" in repairs.remaining[0].remedy


def test_segments_keep_their_labels_when_their_file_is_written_anew(tmp_path: Path) -> None:
    """Slicer's values are others than those of dataset.json; an image that lies a little elsewhere makes it rewrite."""
    label = np.zeros(SHAPE, np.uint8)
    label[1, 2:4], label[3, 1:3] = 1, 2
    for name, shift in (("a", 0.2), ("b", 0.0)):
        write_nrrd(
            tmp_path / "raw" / "imagesTr" / f"{name}_0000.nrrd", np.arange(label.size, dtype=np.int16).reshape(SHAPE)
        )
        write_nrrd(
            tmp_path / "raw" / "labelsTr" / f"{name}.seg.nrrd",
            np.array([0, 2, 1], np.uint8)[label],
            (("core", 2, 0), ("shell", 1, 0)),
            start=(0, shift, 0),
        )
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "core": 1, "shell": 2},
        "file_ending": ".nrrd",
    }
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps(content))
    assert repair_dataset(tmp_path / "raw", tmp_path / "copy", workers=1).usable
    dataset = read_dataset(tmp_path / "copy")
    for case in dataset.cases:
        assert_array_equal(load_case(case, dataset.labels)[1], label[:, ::-1, ::-1])
