"""Finding datasets by number, name and path; the messages list what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_auto.errors import MvlError
from mvl_auto.paths import dataset_id, find_preprocessed_dataset, find_raw_dataset, find_results, find_root


def raw(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "dataset.json").write_text("{}")
    return folder / name


def test_the_root_is_the_argument_then_the_variable_then_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MVL_ROOT", str(tmp_path / "variable"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert find_root(tmp_path / "argument") == tmp_path / "argument"
    assert find_root() == tmp_path / "variable"
    assert find_root("~/here") == tmp_path / "home" / "here"
    monkeypatch.delenv("MVL_ROOT")
    assert find_root() == tmp_path / "home" / "mvl_auto"
    monkeypatch.chdir(tmp_path)
    assert find_root("relative") == tmp_path / "relative"


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("Task04_Hippocampus", "Dataset004_Hippocampus"),
        ("Task004_Hippocampus", "Dataset004_Hippocampus"),
        ("Dataset004_Hippocampus", "Dataset004_Hippocampus"),
        ("Dataset1004_Two_Words", "Dataset1004_Two_Words"),
        ("my data", "my data"),
    ],
)
def test_inside_the_root_every_dataset_has_the_same_form_of_name(folder: str, expected: str) -> None:
    assert dataset_id(Path("/somewhere") / folder) == expected


@pytest.mark.parametrize("folder", ["Task04_Hippocampus", "Dataset004_Hippocampus", "Task004_Hippocampus"])
@pytest.mark.parametrize(
    "words", [4, "4", "004", "Hippocampus", "hippocampus", "Task04_Hippocampus", "Dataset004_Hippocampus"]
)
def test_a_dataset_answers_to_its_number_and_its_names(root: Path, folder: str, words: str | int) -> None:
    expected = raw(root / "raw", folder)
    raw(root / "raw", "Dataset014_Hippocampi")
    raw(root / "raw", "Dataset040_Other")
    assert find_raw_dataset(words, root) == expected


def test_a_dataset_is_found_by_path_wherever_it_lies(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = raw(tmp_path / "elsewhere", "my data")
    assert find_raw_dataset(elsewhere, root) == elsewhere
    monkeypatch.chdir(tmp_path)
    assert find_raw_dataset("elsewhere/my data", root) == elsewhere


def test_nnunets_folder_is_looked_at_too(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = raw(tmp_path / "nnunet", "Dataset004_Hippocampus")
    with pytest.raises(MvlError, match="there is none at all"):
        find_raw_dataset(4, root)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnunet"))
    assert find_raw_dataset(4, root) == theirs


def test_of_very_many_datasets_a_message_names_a_few(root: Path) -> None:
    for number in range(1, 101):
        raw(root / "raw", f"Dataset{number:03d}_Many")
    with pytest.raises(MvlError, match=r"Dataset001_Many, .*Dataset008_Many and 92 more\)"):
        find_raw_dataset(944, root)


def test_a_dataset_that_is_not_there_lists_those_that_are(root: Path) -> None:
    raw(root / "raw", "Task04_Hippocampus")
    raw(root / "raw", "Dataset009_Spleen")
    (root / "raw" / ".hidden").mkdir()
    with pytest.raises(MvlError) as caught:
        find_raw_dataset(5, root)
    message = str(caught.value)
    assert f"no dataset '5' in {root}/raw (there are: Dataset009_Spleen, Task04_Hippocampus)" in message
    assert "MVL_ROOT" in message


def test_two_datasets_of_one_number_are_both_named(root: Path) -> None:
    raw(root / "raw", "Task04_Hippocampus")
    raw(root / "raw", "Dataset004_Heart")
    with pytest.raises(MvlError, match="'4' matches several datasets: Dataset004_Heart, Task04_Hippocampus"):
        find_raw_dataset(4, root)
    assert find_raw_dataset("Heart", root).name == "Dataset004_Heart"


def test_a_planned_dataset_is_one_with_plans(root: Path) -> None:
    folder = root / "preprocessed" / "Dataset004_Hippocampus"
    folder.mkdir(parents=True)
    with pytest.raises(MvlError, match=r"no planned dataset '4'.*Run mvl_plan_and_preprocess -d 4 first"):
        find_preprocessed_dataset(4, root)
    (folder / "plans.json").touch()
    for words in (
        4,
        "Hippocampus",
        "Task04_Hippocampus",
        "some/where/Task04_Hippocampus",
        Path("/a/Task04_Hippocampus"),
    ):
        assert find_preprocessed_dataset(words, root) == folder


def test_results_are_those_with_a_fold(root: Path) -> None:
    with pytest.raises(MvlError, match=r"no trained dataset '4'.*Run mvl_train 4 fold0 first"):
        find_results(4, root)
    assert find_results(None, root) == []
    (root / "results" / "Dataset004_Hippocampus" / "3d_fullres" / "fold0").mkdir(parents=True)
    (root / "results" / "Dataset005_Empty").mkdir()
    for words in (4, "Hippocampus", None):
        assert [folder.name for folder in find_results(words, root)] == ["Dataset004_Hippocampus"]
