"""Folders of DICOM as cases: in training one volume each, in prediction every volume, under names that tell nobody."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import write_array, write_description
from dicom_series import MR, STRUCTURES, write_other, write_slices
from numpy.testing import assert_array_equal

from mvl_auto.datasets import (
    Case,
    cases_to_predict,
    files_of,
    find_cases,
    hash_files,
    load_case,
    read_dataset,
    split_volumes,
)
from mvl_auto.errors import MvlError
from mvl_auto.images import read_image
from mvl_auto.plans import Channel

IMAGE = np.random.default_rng(0).integers(0, 1000, (6, 5, 7)).astype(np.int16)


def write_echoes(folder: Path) -> Path:
    for echo in (1, 2):

        def edit(dataset: Any, k: int, echo: int = echo) -> None:
            dataset.EchoNumbers, dataset.EchoTime = echo, 10.0 * echo

        write_slices(folder, IMAGE + np.int16(500 * (echo - 1)), kind=MR, first=6 * echo, edit=edit)
    return folder


def values(case: Case) -> Any:
    return read_image(case.images, dicom_volume=case.dicom_volume).array[0, :, ::-1, ::-1]


def of_study(study: str, patient: str = "Doe^John") -> Any:
    def edit(dataset: Any, k: int) -> None:
        dataset.StudyInstanceUID, dataset.PatientName = study, patient
        dataset.SeriesInstanceUID += f".{study}"
        dataset.SOPInstanceUID += f".{study}"

    return edit


def test_in_prediction_each_volume_is_a_case(tmp_path: Path) -> None:
    write_echoes(tmp_path / "knee")
    write_slices(tmp_path / "head", IMAGE)
    cases = split_volumes(find_cases(tmp_path, 1))
    assert [case.name for case in cases] == ["head", "knee_echo1", "knee_echo2"]
    for case, expected in zip(cases, (IMAGE, IMAGE, IMAGE + 500), strict=True):
        assert_array_equal(values(case), expected)
    assert_array_equal(load_case(cases[2], None)[0].array, read_image(cases[2].images, None, "echo2").array)  # type: ignore[arg-type]
    assert [case.name for case in split_volumes(find_cases(tmp_path / "knee", 1))] == ["knee_echo1", "knee_echo2"]


def test_a_volume_has_its_own_files_and_hash(tmp_path: Path) -> None:
    write_echoes(tmp_path / "knee")
    first, second = split_volumes(find_cases(tmp_path, 1))
    assert [file.name for file in files_of(first)] == [f"IM{n:04d}.dcm" for n in range(6, 12)]
    before = hash_files(first), hash_files(second)
    file = files_of(second)[0]
    file.write_bytes(file.read_bytes() + bytes(2))
    assert (hash_files(first) == before[0], hash_files(second) == before[1]) == (True, False)


def test_in_training_several_volumes_are_refused_by_name(tmp_path: Path) -> None:
    dataset = tmp_path / "Dataset001_Knee"
    for name in ("a", "b"):
        write_array(dataset / "labelsTr" / f"{name}.nii.gz", np.zeros((6, 5, 7), np.uint8), (2.5, 0.8, 0.7))
    write_slices(dataset / "imagesTr" / "a_0000" / "STUDY" / "SERIES", IMAGE)
    write_echoes(dataset / "imagesTr" / "b_0000")
    write_description(dataset, "nnunet", ["a", "b"])
    read = read_dataset(dataset)
    assert [case.name for case in read.cases] == ["a", "b"]
    assert_array_equal(values(read.cases[0]), IMAGE)
    with pytest.raises(MvlError, match=r"imagesTr/b_0000: holds 2 DICOM volumes: echo1 \(.*\), echo2 \("):
        load_case(read.cases[1], read.labels)


def test_folders_of_an_archive_are_searched_and_named_without_the_patient(tmp_path: Path) -> None:
    series = tmp_path / "DOE^JOHN" / "20200101" / "CT1"
    write_slices(series, IMAGE, name="I{}")
    write_slices(series.with_name("CT2"), IMAGE + np.int16(7), series=2, name="I{}")
    write_slices(tmp_path / "ROE^JANE" / "20200102" / "MR", IMAGE, name="I{}", edit=of_study("1.2.77", "Roe^Jane"))
    write_other(tmp_path / "ROE^JANE" / "20200102" / "RS" / "I1", STRUCTURES)
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    cases = split_volumes(find_cases(tmp_path, 1))
    names = [case.name for case in cases]
    assert len(set(names)) == 3
    assert not any(word in name.lower() for name in names for word in ("doe", "john", "roe", "jane", "2020"))
    assert sorted(name.split("_")[1] for name in names) == ["series1", "series1", "series2"]
    second = next(case for case in cases if case.name.endswith("series2"))
    assert_array_equal(values(second), IMAGE + 7)
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "DOE^JOHN", moved / "P1")
    assert {case.name for case in split_volumes(find_cases(moved, 1))} < set(names)


def test_all_files_of_a_medium_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "disc" / "IMAGES"
    write_slices(folder, IMAGE, name="A{}")
    write_slices(folder, IMAGE + np.int16(7), series=3, name="B{}")
    (tmp_path / "disc" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    cases = split_volumes(find_cases(tmp_path / "disc", 1))
    assert [case.name for case in cases] == ["IMAGES_series1", "IMAGES_series3"]
    write_slices(folder, IMAGE, name="C{}", edit=of_study("1.2.77"))
    assert len({case.name for case in split_volumes(find_cases(tmp_path / "disc", 1))}) == 3


@pytest.mark.parametrize(
    ("name", "patient", "identity", "is_kept"),
    [
        ("case_7", "Doe^John", "P7", True),
        ("Doe_John", "Doe^John", "P7", False),
        ("scan of john", "Doe^John", "P7", False),
        ("LIDC-0001", "LIDC-0001", "LIDC-0001", True),
    ],
)
def test_the_name_of_a_folder_is_used_unless_it_is_the_patients(
    tmp_path: Path, name: str, patient: str, identity: str, is_kept: bool
) -> None:
    def edit(dataset: Any, k: int) -> None:
        dataset.PatientName, dataset.PatientID = patient, identity

    write_slices(tmp_path / name, IMAGE, edit=edit)
    (case,) = split_volumes(find_cases(tmp_path, 1))
    assert (case.name == name) == is_kept
    assert_array_equal(values(case), IMAGE)
    (trained,) = find_cases(tmp_path, 1)
    assert trained.name == name  # labels have this name


def test_a_folder_that_cannot_be_read_leaves_the_others(tmp_path: Path) -> None:
    write_slices(tmp_path / "good", IMAGE)
    file = write_slices(tmp_path / "torn", IMAGE) / "IM0003.dcm"
    file.write_bytes(file.read_bytes()[:200])
    cases = split_volumes(find_cases(tmp_path, 1))
    assert [case.name for case in cases] == ["good", "torn"]
    with pytest.raises(MvlError, match=r"torn/IM0003\.dcm: is damaged or cut short"):
        read_image(cases[1].images)


# ------------------------------------------------------------------------------ slices without folders of their own


def test_slices_of_several_cases_in_one_folder_are_sorted_into_cases(tmp_path: Path) -> None:
    write_slices(tmp_path / "all", IMAGE, name="a{}.dcm", edit=of_study("1.2.50"))
    write_slices(tmp_path / "all", IMAGE + np.int16(7), name="b{}.dcm", edit=of_study("1.2.60", "Roe^Jane"))
    cases = split_volumes(find_cases(tmp_path / "all", 1))
    assert len({case.name for case in cases}) == 2
    assert sorted(int(values(case).min() - IMAGE.min()) for case in cases) == [0, 7]


def test_radiographs_in_one_folder_have_the_names_of_their_files(tmp_path: Path) -> None:
    for n, name in enumerate(("left", "right", "roe_jane")):
        write_slices(tmp_path, IMAGE[n : n + 1], name=f"{name}.dcm", edit=of_study(f"1.2.{n}", "Roe^Jane"))
    cases = {case.name: case for case in split_volumes(find_cases(tmp_path, 1))}
    assert {"left", "right"} < cases.keys()
    assert len(cases) == 3
    assert not any("roe" in name for name in cases), "names of patients are not passed on"
    assert_array_equal(values(cases["right"]), IMAGE[1:2])


def test_one_file_of_a_series_is_answered_with_its_folder(tmp_path: Path) -> None:
    file = write_slices(tmp_path / "series", IMAGE) / "IM0003.dcm"
    with pytest.raises(MvlError, match=rf"one file of DICOM.* Give the folder that it lies in: {tmp_path / 'series'}"):
        find_cases(file, 1)


def test_in_training_loose_slices_are_told_with_the_way_to_lay_them_out(tmp_path: Path) -> None:
    dataset = tmp_path / "Dataset001_Knee"
    write_slices(dataset / "imagesTr", IMAGE)
    for name in ("knee_7", "knee_8"):
        write_array(dataset / "labelsTr" / f"{name}.nii.gz", np.zeros((6, 5, 7), np.uint8), (2.5, 0.8, 0.7))
    write_description(dataset, "nnunet", ["knee_7", "knee_8"])
    with pytest.raises(MvlError) as caught:
        read_dataset(dataset)
    assert str(caught.value) == (
        f"{dataset / 'imagesTr'}: holds 6 DICOM files outside of a case's folder (first: IM0001.dcm). "
        "Put the slices of each case into a folder with the name of its label, such as imagesTr/knee_7/."
    )
    assert not caught.value.others


# ------------------------------------------------------------------------------ a folder of slices for each channel


def write_channels(folder: Path, names: tuple[str, str]) -> None:
    """Two series of one grid; the first is 100 less than the second."""
    write_slices(folder.with_name(names[0]) if "_0000" in names[0] else folder / names[0], IMAGE, series=1)
    other = folder.with_name(names[1]) if "_0000" in names[0] else folder / names[1]
    write_slices(other, IMAGE + np.int16(100), series=2)


@pytest.mark.parametrize(
    "names", [("{}_0000", "{}_0001"), ("T1", "FLAIR"), ("t1n", "T2-Flair"), ("0000", "0001"), ("{}_T1", "{}_FLAIR")]
)
def test_a_folder_of_slices_for_each_channel(tmp_path: Path, names: tuple[str, str]) -> None:
    for case in ("a", "b"):
        write_channels(tmp_path / "imagesTr" / case, (names[0].format(case), names[1].format(case)))
        write_array(tmp_path / "labelsTr" / f"{case}.nii.gz", np.zeros((6, 5, 7), np.uint8), (2.5, 0.8, 0.7))
    write_description(tmp_path, "nnunet", ["a", "b"], channel_names=("T1", "FLAIR"))
    channels = tuple(Channel(name=name) for name in ("T1", "FLAIR"))
    trained, predicted = read_dataset(tmp_path).cases, cases_to_predict(tmp_path / "imagesTr", channels)
    assert [case.name for case in trained] == [case.name for case in predicted] == ["a", "b"]
    for case in (*trained, *predicted):
        first, second = read_image(case.images).array
        assert_array_equal(second - first, np.full(IMAGE.shape, 100))
    if "_0000" not in names[0]:
        (alone,) = cases_to_predict(tmp_path / "imagesTr" / "a", channels)
        assert (alone.name, alone.images) == ("a", predicted[0].images)


def test_folders_that_do_not_tell_the_channels_are_named_and_the_others_done(tmp_path: Path) -> None:
    write_channels(tmp_path / "a", ("T1", "FLAIR"))
    write_channels(tmp_path / "b", ("S1", "S2"))
    problems: list[MvlError] = []
    (case,) = cases_to_predict(tmp_path, [Channel(name="T1"), Channel(name="FLAIR")], problems)
    assert case.name == "a"
    assert [str(problem) for problem in problems] == [
        f"{tmp_path / 'b'}: has S1, S2, whose names do not tell the channels (T1, FLAIR). "
        "Name them as the channels, or CASE_0000 to CASE_0001."
    ]
