"""mvl_doctor as a user runs it: what it says, what it writes, what it leaves alone, and its exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from builders import make_dataset
from commands import mvl, refuse, succeed
from walking import hashes

IMAGE, LABEL = "imagesTr/tiny_002_0000.nii.gz", "labelsTr/tiny_002.nii.gz"


@pytest.fixture
def dataset(root: Path) -> Path:
    return make_dataset(root / "raw", "nnunet", cases=4, shape=(10, 12, 11), label_values=(0, 1))


def mask_of_255(dataset: Path) -> None:
    label = nibabel.load(dataset / LABEL)
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(label.dataobj) * 255, label.affine), dataset / LABEL)


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("imagesTr", "labelsTr"))]


def test_a_sound_dataset(root, dataset):
    said = succeed("doctor", "-d", 7, root=root)
    assert said.splitlines()[0] == f"root: {root} ($MVL_ROOT)"
    assert "Dataset007_Tiny: 4 of 4 cases can be used; nothing wrong, nothing odd" in said
    assert rows(said) == []


def test_what_is_wrong_is_a_table_and_what_is_odd_another(root, dataset):
    mask_of_255(dataset)
    for part in ("imagesTr/tiny_000_0000.nii.gz", "labelsTr/tiny_000.nii.gz"):
        shutil.copyfile(dataset / part, dataset / part.replace("tiny_000", "tiny_001"))
    before = hashes(dataset)
    done = mvl("doctor", "-d", 7, "--json", "found.json", root=root)
    assert done.returncode == 1
    wrong, odd = rows(done.stdout)
    assert wrong.startswith(LABEL)
    assert "255" in wrong
    assert odd.startswith("imagesTr/tiny_001_0000.nii.gz")
    assert max(map(len, done.stdout.splitlines())) <= 120
    found = json.loads((root / "found.json").read_text())
    assert [finding["file"] for finding in found["findings"]] == [LABEL, "imagesTr/tiny_001_0000.nii.gz"]
    assert "1 file can be repaired, in a copy: mvl_doctor -d 7 --fix FOLDER" in done.stdout
    assert hashes(dataset) == before


def test_what_is_only_odd_prevents_nothing(root, dataset):
    for part in (IMAGE, LABEL):
        shutil.copyfile(dataset / part, dataset / part.replace("002", "001"))
    assert "the same image" in succeed("doctor", "-d", 7, root=root)


def test_a_repaired_copy_can_be_planned(root, dataset):
    mask_of_255(dataset)
    before = hashes(dataset)
    said = succeed("doctor", "-d", 7, "--fix", root / "raw" / "Dataset107_Repaired", "-q", root=root)
    assert hashes(dataset) == before
    assert [row.split()[0] for row in rows(said)] == [LABEL, LABEL], "found, repaired, and not left"
    report = json.loads((root / "raw" / "Dataset107_Repaired" / "repairs.json").read_text())
    assert [repair["file"] for repair in report["repairs"]] == [LABEL]
    succeed(
        "plan_and_preprocess",
        "-d",
        107,
        "--llm",
        "none",
        "--memory",
        "1GB",
        "--device",
        "cpu",
        "--plan-only",
        root=root,
    )
    assert "nothing wrong" in succeed("doctor", "-d", 107, root=root)


def test_what_is_left_in_the_copy_is_told_by_the_exit_code(root, dataset):
    (dataset / LABEL).unlink()
    done = mvl("doctor", "-d", 7, "--fix", "copy", root=root)
    assert done.returncode == 1
    assert "nothing to repair" in done.stdout
    assert "left in the copy" in done.stdout
    assert hashes(root / "copy").keys() == {*hashes(dataset), "repairs.json"}


def test_long_lists_are_cut_on_the_screen_and_whole_in_the_file(root):
    dataset = make_dataset(root / "raw", "nnunet", cases=25, shape=(6, 7, 8))
    for file in (dataset / "labelsTr").iterdir():
        file.unlink()
    done = mvl("doctor", "-d", 7, "--json", "found.json", root=root)
    assert len(rows(done.stdout)) == 20
    assert "... and 5 more, see found.json" in done.stdout
    assert len(json.loads((root / "found.json").read_text())["findings"]) == 25


def test_bad_input_is_one_line(root, dataset):
    assert "'99'" in refuse("doctor", "-d", 99, root=root)
    before = hashes(root)
    assert str(dataset / "copy") in refuse("doctor", "-d", 7, "--fix", dataset / "copy", root=root)
    (dataset / "dataset.json").write_text("{")
    assert "dataset.json" in refuse("doctor", "-d", 7, root=root)
    assert hashes(root).keys() == before.keys()
