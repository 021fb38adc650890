"""Datasets that hold what nobody expects: refused by the name of the file, or planned, prepared and trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest
from builders import make_dataset, write_array
from commands import TINY_BLOCK, mvl, refuse, succeed

from mvl_auto.cache import open_case
from mvl_auto.plans import Fingerprint, Plan, read_document

BUDGET = ("--memory", "800MB")  # a small network: what it learns is not asked
PLAN = ("plan_and_preprocess", "-d", 7, "--device", "cpu", "--llm", TINY_BLOCK)
SHAPE = (10, 12, 11)
IMAGE, LABEL = "imagesTr/tiny_002_0000.nii.gz", "labelsTr/tiny_002.nii.gz"


@pytest.fixture
def dataset(root: Path) -> Path:
    return make_dataset(root / "raw", "nnunet", cases=4, shape=SHAPE)


def products(root: Path) -> list[Path]:
    files = [path for path in (root / "preprocessed").rglob("*") if path.is_file()]
    kept = [path for path in files if path.parent.name == ".examined" and path.suffix == ".npz"]
    return [path for path in files if path not in kept and path.name not in (".lock", "log.txt")]


def describe(dataset: Path, **changes: object) -> None:
    path = dataset / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))


def save(dataset: Path, image: np.ndarray, label: np.ndarray) -> None:
    """In place of the case tiny_002. Z Y X."""
    write_array(dataset / IMAGE, image.astype(np.float32), (1.0, 1.0, 1.0))
    write_array(dataset / LABEL, label.astype(np.uint8), (1.0, 1.0, 1.0))


# ------------------------------------------------------------------------------------ refused


def another_channel(dataset: Path) -> None:
    image = nibabel.load(dataset / IMAGE)
    voxels = np.stack([image.get_fdata(dtype=np.float32)] * 2, axis=-1)
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), dataset / IMAGE)


def with_spacing(mm: float) -> Callable[[Path], None]:
    """In the header alone, as nibabel would not write it."""

    def spoil(dataset: Path) -> None:
        for file in (IMAGE, LABEL):
            image = nibabel.load(dataset / file)
            header = image.header.copy()
            header["pixdim"][3] = mm
            header["srow_z"][2] = mm
            header["vox_offset"] = 352
            voxels = np.asanyarray(image.dataobj)
            (dataset / file).write_bytes(header.binaryblock + bytes(4) + voxels.tobytes(order="F"))

    return spoil


def one_voxel(dataset: Path) -> None:
    save(dataset, np.ones((1, 1, 1)), np.ones((1, 1, 1)))


def nothing_labelled(dataset: Path) -> None:
    for file in (dataset / "labelsTr").iterdir():
        label = nibabel.load(file)
        nibabel.save(nibabel.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), file)


def ignored_region(dataset: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 2}
    describe(dataset, labels=labels, regions_class_order=[1, 2])


def stranger_in_groups(dataset: Path) -> None:
    (dataset / "groups.csv").write_text("case,group\ntiny_000,anna\nnobody,bert\n")


BAD = {
    "another number of channels": (another_channel, IMAGE, "has 2 channels, expected 1"),
    "a spacing of zero": (with_spacing(0.0), IMAGE, "its header gives"),
    "a spacing of a metre": (with_spacing(1000.0), IMAGE, "1000"),
    "one case of one voxel": (one_voxel, "tiny_002", "mixes images of one slice"),
    "nothing labelled anywhere": (nothing_labelled, "Dataset007_Tiny", "none of its 4 cases has a labelled voxel"),
    "a region that is ignored": (
        ignored_region,
        "dataset.json",
        "the ignore value 2 is also part of a label or region",
    ),
    "groups.csv with a stranger": (stranger_in_groups, "groups.csv", "nobody"),
}


@pytest.mark.parametrize("what", BAD)
def test_it_is_refused_by_the_name_of_its_file(root, dataset, what):
    spoil, file, words = BAD[what]
    spoil(dataset)
    line = refuse(*PLAN, *BUDGET, root=root)
    assert file in line
    assert words in line
    assert products(root) == []


def test_a_budget_too_small_says_the_least_that_would_do_and_that_does(root, dataset):
    line = refuse(*PLAN, "--memory", "300MB", root=root)
    least = re.search(r"the smallest needs (\d+\.\d+) GB", line)
    assert least, line
    assert "0.30 GB" in line
    assert not (root / "preprocessed" / "Dataset007_Tiny" / "plans.json").exists()
    succeed(*PLAN, "--memory", f"{least[1]}GB", "--plan-only", root=root)


# ------------------------------------------------------------------------------------ odd, and used


def test_labels_with_gaps_one_that_nothing_has_and_a_case_without_any(root):
    """Consecutive in the cache, themselves in predictions; what is odd is told, planned for and trained on."""
    dataset = make_dataset(root / "raw", "nnunet", cases=4, shape=SHAPE, label_values=(0, 2, 5))
    describe(dataset, labels={"background": 0, "core": 2, "shell": 5, "nowhere": 7})
    empty = nibabel.load(dataset / "labelsTr" / "tiny_001.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros(empty.shape, np.uint8), empty.affine), empty.get_filename())
    said = re.sub(r"\s+", " ", succeed(*PLAN, *BUDGET, root=root))
    assert "labelsTr/tiny_001.nii.gz has no labelled voxel" in said
    assert "label 'nowhere' (7) occurs in no case" in said

    folder = root / "preprocessed" / "Dataset007_Tiny"
    assert read_document(folder / "plans.json", Plan).labels.class_values == (0, 2, 5, 7)
    stored = np.asarray(nibabel.load(dataset / LABEL).dataobj)
    cached = open_case(folder / "3d_fullres", "tiny_002").label()
    assert set(np.unique(cached)) == {0, 1, 2}
    assert [(cached == number).sum() for number in (1, 2)] == [(stored == value).sum() for value in (2, 5)]
    assert not open_case(folder / "3d_fullres", "tiny_001").label().any()

    succeed("train", 7, "all", "--steps", 2, "--device", "cpu", root=root)
    succeed("predict", "-i", dataset / IMAGE, "-o", "preds", "--no-mirroring", root=root)
    predicted = np.asarray(nibabel.load(root / "preds" / "tiny_002.nii.gz").dataobj)
    assert set(np.unique(predicted)) <= {0, 2, 5, 7}


def test_regions_with_an_ignore_label_of_its_own_go_all_the_way(root, dataset, tmp_path):
    """Whichever fold holds the case that is partly unlabelled: ignored voxels are neither learned nor scored."""
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    describe(dataset, labels=labels, regions_class_order=[1, 2])
    label = nibabel.load(dataset / LABEL)
    voxels = np.asarray(label.dataobj).copy()
    voxels[:, :, :2] = 3
    nibabel.save(nibabel.Nifti1Image(voxels, label.affine), dataset / LABEL)
    succeed(*PLAN, *BUDGET, root=root)
    cached = open_case(root / "preprocessed" / "Dataset007_Tiny" / "3d_fullres", "tiny_002").label()
    assert (cached[:2] == -1).all()
    assert (cached[2:] >= 0).all()

    succeed("train", 7, "all", "fold0", "--steps", 2, "--device", "cpu", root=root)
    folder = root / "results" / "Dataset007_Tiny" / "3d_fullres"
    progress = pandas.read_csv(folder / "fold_all" / "progress.csv")
    assert np.isfinite(progress["loss"]).all()
    scored = json.loads((folder / "fold0" / "summary.json").read_text(encoding="utf-8"))["labels"]
    assert set(scored) == {"whole", "core"}
    succeed("predict", "-i", dataset / "imagesTr", "-o", tmp_path / "predictions", "--device", "cpu", root=root)
    written = [nibabel.load(file).get_fdata() for file in (tmp_path / "predictions").glob("*.nii.gz")]
    assert len(written) == 4
    assert {value for each in written for value in np.unique(each)} <= {0, 1, 2}, "ignored is nothing to predict"


def test_a_dataset_of_single_voxels_is_planned_and_told(root, dataset):
    for number in range(4):
        for file in (f"imagesTr/tiny_00{number}_0000.nii.gz", f"labelsTr/tiny_00{number}.nii.gz"):
            value = np.full((1, 1, 1), 1 + number % 2 + number * ("images" in file))
            write_array(dataset / file, value.astype(np.float32 if "images" in file else np.uint8), (1.0, 1.0, 1.0))
    said = succeed(*PLAN, *BUDGET, root=root)
    assert "is 1 x 1 x 1 voxels" in said


def test_held_strictly_all_that_is_odd_is_shown_and_kept_and_nothing_is_planned(root):
    """Thirty of thirty-four cases label nothing: they are one row, and the last line names the first."""
    dataset = make_dataset(root / "raw", "nnunet", cases=34, shape=SHAPE)
    files = sorted((dataset / "labelsTr").iterdir())[:30]
    for file in files:
        label = nibabel.load(file)
        nibabel.save(nibabel.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), file)
    folder = root / "preprocessed" / "Dataset007_Tiny"
    for _ in range(2):  # the second time the fingerprint is the one of before
        done = mvl(*PLAN, *BUDGET, "--strict", root=root)
        assert done.returncode == 2, done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"mvl_plan_and_preprocess: {files[0]}: has no labelled voxel (29 more, all in {folder}")
        assert last.endswith("or run again without --strict.")
        assert "30 files: " in done.stdout
        fingerprint = read_document(folder / "fingerprint.json", Fingerprint)
        assert [odd.file for odd in fingerprint.anomalies] == [f"labelsTr/{file.name}" for file in files]
        assert not (folder / "plans.json").exists()
    succeed(*PLAN, *BUDGET, "--plan-only", root=root)
    assert (folder / "plans.json").is_file()
