"""A fault of many cases is one group with a count and the first three files."""

from __future__ import annotations

import numpy as np
import tifffile
from builders import make_dataset, write_description
from hypothesis import given
from hypothesis import strategies as st

from mvl_auto.images import read_file, write_file
from mvl_auto.planners import examine_dataset
from mvl_auto.planners.doctor.diagnosis import Finding
from mvl_auto.planners.fingerprint.grouping import group_anomalies


def finding(file: str, what: str, remedy: str = "Repair it.", prevents_use: bool = True) -> Finding:
    return Finding(file=file, what=what, remedy=remedy, prevents_use=prevents_use)


def test_masks_of_0_and_255_are_one_group_for_the_dataset(tmp_path):
    folder = make_dataset(tmp_path, "nnunet", cases=8, label_values=(0, 1))
    for label in sorted((folder / "labelsTr").iterdir()):
        array, grid = read_file(label)
        write_file(label, (array[0] * 255).astype(np.uint8), grid)
    (group,) = group_anomalies(examine_dataset(folder).preventing)
    assert len(group.files) == 8
    names = ", ".join(f"labelsTr/tiny_{n:03d}.nii.gz" for n in range(3))
    assert group.where == f"8 files: {names} and 5 more"
    assert "255" in group.what


def test_measured_figures_may_differ_and_label_values_may_not():
    groups = group_anomalies(
        [
            finding("a", "has axes that are 16.7 degrees off a right angle"),
            finding("b", "has axes that are 2.31 degrees off a right angle"),
            finding("c", "has 3 labelled voxels outside the non-zero part"),
            finding("d", "has 70 labelled voxels outside the non-zero part"),
            finding("e", "1 of 500 voxels are NaN or infinite"),
            finding("f", "20 of 72 voxels are NaN or infinite"),
            finding("g", "has the label value 7"),
            finding("h", "has the label value 9"),
        ]
    )
    assert [group.files for group in groups] == [("a", "b"), ("c", "d"), ("e", "f"), ("g",), ("h",)]
    assert groups[0].what == "has axes that are 16.7 degrees off a right angle"
    assert [group.where for group in groups[:1]] == ["2 files: a, b"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x 1.5", "x 2.5", "y"]), st.booleans())))
def test_no_finding_is_lost_and_none_is_counted_twice(drawn):
    findings = [finding(file, what, prevents_use=prevents) for file, what, prevents in drawn]
    assert sorted(file for group in group_anomalies(findings) for file in group.files) == sorted(f for f, _, _ in drawn)


def test_tiffs_in_an_unknown_unit_are_one_group_for_the_dataset(tmp_path):
    folder = tmp_path / "Dataset007_Furlongs"
    names = [f"stack{n}" for n in range(5)]
    rng = np.random.default_rng(0)
    for folder_name, ending in (("imagesTr", "_0000.tif"), ("labelsTr", ".tif")):
        (folder / folder_name).mkdir(parents=True)
        for name in names:
            array = rng.integers(0, 2, (4, 6, 5)).astype(np.uint16)
            metadata = {"axes": "ZYX", "spacing": 2, "unit": "furlong"}
            tifffile.imwrite(folder / folder_name / f"{name}{ending}", array, imagej=True, metadata=metadata)
    write_description(folder, "nnunet", names, (0, 1), file_ending=".tif")
    (group,) = group_anomalies(examine_dataset(folder).findings)
    assert (
        group.where
        == "5 files: imagesTr/stack0_0000.tif, imagesTr/stack1_0000.tif, imagesTr/stack2_0000.tif and 2 more"
    )
    assert "'furlong'" in group.what
    assert "spacing" in group.remedy
