"""Volumes and mean intensities, against numbers counted by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from builders import write_array
from trained import make_configuration, make_labels, make_plan, write_trained

from mvl_auto import api
from mvl_auto.datasets import Case
from mvl_auto.errors import MvlError
from mvl_auto.inference.volumes import write_volumes


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_volumes_in_ml_and_means_of_the_images_own_values(tmp_path):
    image = np.full((5, 10, 10), 100, np.float32)
    image[0, :2, :5] = 300
    label = np.zeros((5, 10, 10), np.uint8)
    label[0, :2, :10] = 7  # 20 voxels, 10 of them 300
    write_array(tmp_path / "a.nii.gz", image, (2.0, 0.5, 4.0))  # 4 mm^3
    write_array(tmp_path / "preds" / "a.nii.gz", label, (2.0, 0.5, 4.0))
    plan = make_plan(labels=make_labels((0, 7, 9)))
    case = Case("a", (tmp_path / "a.nii.gz",))
    assert rows(write_volumes([(case, tmp_path / "preds" / "a.nii.gz")], tmp_path, plan)) == [
        {"case": "a", "label": "label 7", "voxels": "20", "volume_ml": "0.08", "mean_MRI": "200"},
        {"case": "a", "label": "label 9", "voxels": "0", "volume_ml": "0", "mean_MRI": ""},
    ]


def test_regions_overlap_and_each_is_measured(tmp_path):
    labels = make_labels((0, 1, 2), region_names=("whole", "core"), regions=((1, 2), (2,)), regions_class_order=(1, 2))
    label = np.array([[[0, 1, 1, 2]]], np.uint8)
    write_array(tmp_path / "a.nii.gz", np.array([[[0, 1, 2, 6]]], np.float32), (1, 1, 1))
    write_array(tmp_path / "b.nii.gz", label, (1, 1, 1))
    case = Case("a", (tmp_path / "a.nii.gz",))
    found = rows(write_volumes([(case, tmp_path / "b.nii.gz")], tmp_path, make_plan(labels=labels)))
    assert [(row["label"], row["voxels"], row["mean_MRI"]) for row in found] == [
        ("whole", "3", "3"),
        ("core", "1", "6"),
    ]


def test_a_prediction_of_another_image_is_refused(tmp_path):
    write_array(tmp_path / "a.nii.gz", np.ones((4, 4, 4), np.float32), (1, 1, 1))
    write_array(tmp_path / "b.nii.gz", np.ones((4, 4, 5), np.uint8), (1, 1, 1))
    with pytest.raises(MvlError, match=r"b\.nii\.gz: has another shape than its image"):
        write_volumes([(Case("a", (tmp_path / "a.nii.gz",)), tmp_path / "b.nii.gz")], tmp_path, make_plan())


def test_prediction_writes_them_of_what_is_there(tmp_path, root):
    write_trained(root, make_plan(make_configuration(normalization="z_score")))
    for n, name in enumerate("ab"):
        write_array(tmp_path / "imgs" / f"{name}.nii.gz", np.arange(960.0).reshape(10, 8, 12) % 7 + n, (1, 1, 1))
    (tmp_path / "imgs" / "c.nii.gz").write_bytes(b"damaged")
    report = api.predict(tmp_path / "imgs", tmp_path / "preds", root=root, device="cpu", volumes=True, color_table=True)
    assert (tmp_path / "preds" / "colors_slicer.ctbl").is_file()
    assert list(report.failed) == ["c"]
    found = rows(tmp_path / "preds" / "volumes.csv")
    assert [(row["case"], row["label"]) for row in found] == [
        (case, label) for case in "ab" for label in ("label 1", "label 2")
    ]
