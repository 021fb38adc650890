"""Datasets as they are listed: MONAI's datalists, a folder per case, names and JSON as other systems write them."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_dataset, write_array

from mvl_auto.datasets import cases_to_predict, find_cases, inspect_dataset, load_case, read_dataset
from mvl_auto.datasets.case_folders import Pattern, find_pattern
from mvl_auto.errors import MvlError
from mvl_auto.images import file_ending, stem
from mvl_auto.plans import Channel

LABELS = {"background": 0, "core": 1, "shell": 2}
SHAPE = (4, 5, 6)


def tiny(folder: Path, **options: Any) -> Path:
    settings: dict[str, Any] = {"cases": 3, "shape": SHAPE, "vary": 0, "layout": "nnunet"}
    return make_dataset(folder, **(settings | options))


def describe(folder: Path, encoding: str = "utf-8", **content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    return folder


def case_folders(folder: Path, *files: str, cases: int = 3) -> list[str]:
    """A folder for each case, with files in which {case} is its name; the n-th file of a case holds n everywhere."""
    names = [f"Case-{number:03d}" for number in range(cases)]
    for name in names:
        for number, file in enumerate(files):
            value = 1 if file == files[-1] else 10 + number
            write_array(folder / name / file.format(case=name), np.full(SHAPE, value, np.uint8), (1, 1, 1))
    return names


def refusal(folder: Path) -> str:
    with pytest.raises(MvlError) as caught:
        read_dataset(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------ MONAI's datalists


def test_images_may_be_lists_of_channels(tmp_path: Path) -> None:
    folder = tiny(tmp_path, channels=2)
    expected = read_dataset(folder)
    listed = [
        {
            "image": [f"imagesTr/tiny_00{n}_000{channel}.nii.gz" for channel in range(2)],
            "label": [f"./labelsTr/tiny_00{n}.nii.gz"],
        }
        for n in range(3)
    ]
    describe(folder, channel_names={"0": "MRI", "1": "MRI"}, labels=LABELS, training=listed)
    assert read_dataset(folder).cases == expected.cases


def test_folds_of_a_datalist_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny(tmp_path)
    listed: list[dict[str, Any]] = [
        {"fold": n % 2, "image": f"imagesTr/tiny_00{n}_0000.nii.gz", "label": f"labelsTr/tiny_00{n}.nii.gz"}
        for n in range(3)
    ]

    def folds() -> Any:
        describe(folder, channel_names=["MRI"], labels=LABELS, training=listed)
        caplog.clear()
        return read_dataset(folder).folds

    assert folds() == {"tiny_000": 0, "tiny_001": 1, "tiny_002": 0}
    assert not caplog.messages
    listed[1]["fold"] = 0
    assert folds() == {}
    assert caplog.messages == [f"{folder / 'dataset.json'}: its folds are not used: all cases are in one"]
    del listed[1]["fold"]
    assert folds() == {}
    assert caplog.messages == [f"{folder / 'dataset.json'}: its folds are not used: 2 of 3 cases have one"]
    for entry in listed:
        entry["fold"] = "zero"
    assert folds() == {}
    assert caplog.messages == [f"{folder / 'dataset.json'}: its folds are not used: 'zero' is no whole number"]


@pytest.mark.parametrize("written", [str, float, lambda fold: f"{fold:02d}"])
def test_folds_of_a_datalist_may_be_text_or_have_a_decimal_point(tmp_path: Path, written: Any) -> None:
    folder = tiny(tmp_path)
    listed = [
        {"fold": written(n % 2), "image": f"imagesTr/tiny_00{n}_0000.nii.gz", "label": f"labelsTr/tiny_00{n}.nii.gz"}
        for n in range(3)
    ]
    describe(folder, channel_names=["MRI"], labels=LABELS, training=listed)
    assert read_dataset(folder).folds == {"tiny_000": 0, "tiny_001": 1, "tiny_002": 0}


@pytest.mark.parametrize("fold", [True, 0.5, [1], {"a": 1}, "9" * 50, "-1x"])
def test_folds_that_are_no_numbers_are_said_to_be_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fold: Any
) -> None:
    folder = tiny(tmp_path)
    listed: list[dict[str, Any]] = [
        {"fold": n, "image": f"imagesTr/tiny_00{n}_0000.nii.gz", "label": f"labelsTr/tiny_00{n}.nii.gz"}
        for n in range(3)
    ]
    listed[1]["fold"] = fold
    describe(folder, channel_names=["MRI"], labels=LABELS, training=listed)
    assert read_dataset(folder).folds == {}
    (told,) = caplog.messages
    assert told.startswith(f"{folder / 'dataset.json'}: its folds are not used: ")
    assert told.endswith("is no whole number")


@pytest.mark.parametrize("prefix", [".\\imagesTr\\", "imagesTr\\"])
def test_separators_of_windows_are_read(tmp_path: Path, prefix: str) -> None:
    folder = tiny(tmp_path)
    listed = [
        {"image": f"{prefix}tiny_00{n}_0000.nii.gz", "label": f".\\labelsTr\\tiny_00{n}.nii.gz"} for n in range(3)
    ]
    expected = read_dataset(folder).cases
    describe(folder, modality={"0": "MRI"}, labels={"0": "background", "1": "core", "2": "shell"}, training=listed)
    assert read_dataset(folder).cases == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_of_windows_is_read(tmp_path: Path, encoding: str) -> None:
    folder = tiny(tmp_path)
    expected = read_dataset(folder)
    describe(folder, encoding, channel_names={"0": "MRI"}, labels=LABELS, file_ending=".nii.gz")
    assert read_dataset(folder) == expected


# ------------------------------------------------------------------------------ a folder per case


def test_kits_is_read_as_it_is(tmp_path: Path) -> None:
    names = case_folders(tmp_path, "imaging.nii.gz", "segmentation.nii.gz")
    (tmp_path / names[0] / "instances").mkdir()  # KiTS23 has more in each folder
    (tmp_path / names[0] / "._imaging.nii.gz").write_bytes(b"resource fork")
    describe(tmp_path, channel_names={"0": "CT"}, labels=LABELS, file_ending=".nii.gz")
    dataset = read_dataset(tmp_path)
    assert [case.name for case in dataset.cases] == names
    assert dataset.cases[1].images == (tmp_path / names[1] / "imaging.nii.gz",)
    assert dataset.cases[1].label == tmp_path / names[1] / "segmentation.nii.gz"
    (tmp_path / names[2] / "segmentation.nii.gz").unlink()
    assert refusal(tmp_path).startswith(
        f"{tmp_path / names[2] / 'segmentation.nii.gz'}: is missing; it belongs to the training case '{names[2]}'"
    )


def test_case_folders_may_lie_one_folder_below(tmp_path: Path) -> None:
    """As in the repository of KiTS: dataset/case_00000/imaging.nii.gz."""
    names = case_folders(tmp_path / "dataset", "imaging.nii.gz", "segmentation.nii.gz")
    (tmp_path / "starter_code").mkdir()
    assert "dataset/{case}/imaging.nii.gz" in refusal(tmp_path)  # the dataset.json that is proposed
    describe(tmp_path, channel_names={"0": "CT"}, labels=LABELS)
    dataset = read_dataset(tmp_path)
    assert [case.name for case in dataset.cases] == names
    assert dataset.cases[1].label == tmp_path / "dataset" / names[1] / "segmentation.nii.gz"
    case_folders(tmp_path / "other", "imaging.nii.gz", "segmentation.nii.gz")  # two of them: which is meant?
    assert find_pattern(tmp_path, ["CT"]) == (None, None)


def test_a_list_of_files_with_one_name_goes_by_their_folders(tmp_path: Path) -> None:
    names = case_folders(tmp_path, "imaging.nii.gz", "segmentation.nii.gz")
    listed = [{"image": f"{name}/imaging.nii.gz", "label": f"{name}/segmentation.nii.gz"} for name in names]
    describe(tmp_path, channel_names={"0": "CT"}, labels=LABELS, training=listed)
    assert [case.name for case in read_dataset(tmp_path).cases] == names


BRATS_2023 = ["{case}-t1n.nii.gz", "{case}-t1c.nii.gz", "{case}-t2w.nii.gz", "{case}-t2f.nii.gz", "{case}-seg.nii.gz"]
BRATS_2020 = ["{case}_t1.nii", "{case}_t1ce.nii", "{case}_t2.nii", "{case}_flair.nii", "{case}_seg.nii"]


@pytest.mark.parametrize("files", [BRATS_2023, BRATS_2020])
@pytest.mark.parametrize("channels", [("T1", "T1ce", "T2", "FLAIR"), ("t1n", "t1c", "t2w", "t2f")])
def test_brats_is_read_by_the_names_of_the_channels(tmp_path: Path, files: list[str], channels: Any) -> None:
    names = case_folders(tmp_path, *files)
    for order in ((0, 1, 2, 3), (3, 0, 2, 1)):
        described = {str(n): channels[place] for n, place in enumerate(order)}
        describe(tmp_path, channel_names=described, labels=LABELS, file_ending=file_ending(files[0]))
        dataset = read_dataset(tmp_path)
        assert [case.name for case in dataset.cases] == names
        volume, classes = load_case(dataset.cases[0], dataset.labels, 4)
        assert volume.array[:, 0, 0, 0].tolist() == [10 + place for place in order]
        assert classes is not None
        assert classes.all()


def test_a_pattern_is_proposed_where_names_leave_a_doubt_and_then_read(tmp_path: Path) -> None:
    names = case_folders(tmp_path, *BRATS_2023)
    described: dict[str, Any] = {"channel_names": {str(n): f"MR{n}" for n in range(4)}, "labels": LABELS}
    describe(tmp_path, **described, file_ending=".nii.gz")
    said = refusal(tmp_path)
    assert "dataset.json: does not say which files of its case folders are channels and which is the label. Add" in said
    line = said[
        said.index("Add ") + 4 : said.index(" with the images in the order of the channels (MR0, MR1, MR2, MR3)")
    ]
    proposed = json.loads(f"{{{line}}}")
    assert proposed["case_pattern"]["label"] == "{case}/{case}-seg.nii.gz"
    describe(tmp_path, **described, file_ending=".nii.gz", **proposed)
    dataset = read_dataset(tmp_path)
    assert [case.name for case in dataset.cases] == names
    assert {path.name.removeprefix(f"{names[0]}-")[:3] for path in dataset.cases[0].images} == {
        "t1n",
        "t1c",
        "t2w",
        "t2f",
    }


def test_patterns_of_any_depth(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        write_array(tmp_path / "data" / name / "ct" / f"{name} [x].nii.gz", np.ones(SHAPE, np.uint8), (1, 1, 1))
        write_array(tmp_path / "masks" / f"{name}.nii.gz", np.ones(SHAPE, np.uint8), (1, 1, 1))
    write_array(tmp_path / "data" / "p3" / "ct" / "p4 [x].nii.gz", np.ones(SHAPE, np.uint8), (1, 1, 1))  # two names
    pattern = {"images": "data/{case}/ct/{case} [x].nii.gz", "label": "masks/{case}.nii.gz"}
    describe(tmp_path, channel_names=["CT"], labels=LABELS, case_pattern=pattern)
    assert [(case.name, case.label) for case in read_dataset(tmp_path).cases] == [
        (name, tmp_path / "masks" / f"{name}.nii.gz") for name in ("p1", "p2")
    ]


@pytest.mark.parametrize(
    "pattern",
    [
        {},
        [],
        {"images": ["{case}.nii.gz"]},
        {"images": [1], "label": "{case}.nii.gz"},
        {"images": ["image.nii.gz"], "label": "{case}.nii.gz"},
        {"images": "{case}/image.nii.gz", "label": "{case}"},
        {"images": ["/data/{case}.nii.gz"], "label": "{case}.nii.gz"},
        {"images": ["../{case}.nii.gz"], "label": "{case}.nii.gz"},
    ],
)
def test_patterns_that_make_no_sense_are_refused(tmp_path: Path, pattern: Any) -> None:
    describe(tmp_path, channel_names=["CT"], labels=LABELS, case_pattern=pattern)
    assert f"{tmp_path / 'dataset.json'}: its case_pattern " in refusal(tmp_path)


def test_several_labels_in_a_folder_leave_a_doubt(tmp_path: Path) -> None:
    case_folders(tmp_path, "imaging.nii.gz", "aggregated_AND_seg.nii.gz", "aggregated_MAJ_seg.nii.gz")  # KiTS21
    proposed, certain = find_pattern(tmp_path, ["CT"])
    assert proposed == Pattern(("{case}/imaging.nii.gz",), "{case}/aggregated_AND_seg.nii.gz")
    assert certain is None


def test_images_in_folders_of_their_own_are_predicted_by_the_folders(tmp_path: Path) -> None:
    names = case_folders(tmp_path, "imaging.nii.gz", "segmentation.nii.gz")
    assert [(case.name, case.images) for case in find_cases(tmp_path, 1)] == [
        (name, (tmp_path / name / "imaging.nii.gz",)) for name in names
    ]


def test_brats_folders_are_predicted_as_they_are(tmp_path: Path) -> None:
    kinds = ["{case}-t2f.nii.gz", "{case}-t1n.nii.gz", "{case}-t1c.nii.gz", "{case}-t2w.nii.gz", "{case}-seg.nii.gz"]
    names = case_folders(tmp_path, *kinds)
    channels = tuple(Channel(name=name) for name in ("T1", "T1Gd", "T2", "FLAIR"))
    ordered = ("t1n", "t1c", "t2w", "t2f")
    expected = {name: tuple(tmp_path / name / f"{name}-{kind}.nii.gz" for kind in ordered) for name in names}
    assert {case.name: case.images for case in cases_to_predict(tmp_path, channels)} == expected
    (alone,) = cases_to_predict(tmp_path / names[1], channels)
    assert (alone.name, alone.images) == (names[1], expected[names[1]])

    (tmp_path / names[0] / f"{names[0]}-t1c.nii.gz").unlink()
    problems: list[MvlError] = []
    assert [case.name for case in cases_to_predict(tmp_path, channels, problems)] == names[1:]
    assert [f"-t1c.nii.gz: is missing; it belongs to the case '{names[0]}'" in str(p) for p in problems] == [True]

    with pytest.raises(
        MvlError, match=r"CASE/CASE-t1c\.nii\.gz, .*, whose names do not tell the channels \(CT, .*0003"
    ):
        cases_to_predict(tmp_path, [Channel(name=name) for name in ("CT", "PET", "MR", "SPECT")])


# ------------------------------------------------------------------------------ a missing dataset.json


def test_a_missing_description_is_proposed_from_the_files(tmp_path: Path) -> None:
    folder = tiny(tmp_path, channels=2, label_values=(0, 3, 700), file_ending=".nrrd")
    (folder / "dataset.json").unlink()
    said = refusal(folder)
    assert said.startswith(f"{folder / 'dataset.json'}: is missing. Write this, with names of your own: {{")
    proposed = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert proposed == {
        "channel_names": {"0": "channel 0", "1": "channel 1"},
        "labels": {"background": 0, "label 3": 3, "label 700": 700},
        "file_ending": ".nrrd",
    }
    describe(folder, **proposed)
    assert len(read_dataset(folder).cases) == 3


def test_what_is_proposed_for_a_folder_per_case_can_be_read(tmp_path: Path) -> None:
    names = case_folders(tmp_path, *BRATS_2023)
    said = refusal(tmp_path)
    describe(tmp_path, **json.loads(said[said.index("{") : said.rindex("}") + 1]))
    assert [case.name for case in read_dataset(tmp_path).cases] == names


def test_what_a_description_lacks_is_proposed(tmp_path: Path) -> None:
    """Auto3DSeg's lists have neither channels nor labels."""
    folder = tiny(tmp_path)
    listed = [{"image": f"imagesTr/tiny_00{n}_0000.nii.gz", "label": f"labelsTr/tiny_00{n}.nii.gz"} for n in range(3)]
    describe(folder, training=listed)
    said = refusal(folder)
    assert "dataset.json: has no channels and no labels. Add this, with names of your own: " in said
    proposed = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert proposed.keys() == {"channel_names", "labels"}
    describe(folder, training=listed, **proposed)
    assert len(read_dataset(folder).cases) == 3


def test_nothing_to_propose_from(tmp_path: Path) -> None:
    said = refusal(tmp_path)
    assert said.startswith(f"{tmp_path / 'dataset.json'}: is missing. Write this, with names of your own: {{")


# ------------------------------------------------------------------------------ names


def capitals(folder: Path) -> None:
    for file in [*folder.glob("imagesTr/*"), *folder.glob("labelsTr/*")]:
        file.rename(file.with_name(file.name.replace(".nii.gz", ".NII.GZ")))


def test_endings_in_capitals_with_several_channels(tmp_path: Path) -> None:
    folder = tiny(tmp_path, channels=2)
    capitals(folder)
    dataset = read_dataset(folder)
    assert [case.name for case in dataset.cases] == ["tiny_000", "tiny_001", "tiny_002"]
    assert load_case(dataset.cases[0], dataset.labels, 2)[0].num_channels == 2
    (one,) = find_cases(folder / "imagesTr" / "tiny_001_0000.NII.GZ", 2)
    assert one.images == dataset.cases[1].images
    listed = [{"image": f"./imagesTr/tiny_00{n}.nii.gz", "label": f"./labelsTr/tiny_00{n}.nii.gz"} for n in range(3)]
    describe(folder, modality={"0": "T1", "1": "T2"}, labels=LABELS, training=listed)
    assert read_dataset(folder).cases == dataset.cases


@pytest.mark.parametrize(("images", "labels"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_both_forms_of_an_umlaut_are_one_name(tmp_path: Path, images: Any, labels: Any) -> None:
    folder = tiny(tmp_path, channels=2)
    composed, name = "körper", "tiny_001"
    for file in [*folder.glob(f"imagesTr/{name}*"), *folder.glob(f"labelsTr/{name}*")]:
        form = images if "imagesTr" in str(file) else labels
        file.rename(file.with_name(file.name.replace(name, unicodedata.normalize(form, composed))))
    (folder / "groups.csv").write_text(f"case,group\n{unicodedata.normalize('NFD', composed)},anna\n", encoding="utf-8")
    dataset = read_dataset(folder)
    assert [case.name for case in dataset.cases] == [composed, "tiny_000", "tiny_002"]
    assert dataset.groups == {composed: "anna"}
    assert load_case(dataset.cases[0], dataset.labels, 2)[0].num_channels == 2
    listed = [{"image": f"imagesTr/{composed}.nii.gz", "label": f"labelsTr/{composed}.nii.gz"}]
    describe(folder, modality={"0": "T1", "1": "T2"}, labels=LABELS, training=listed)
    assert read_dataset(folder).cases == dataset.cases[:1]
    assert stem(unicodedata.normalize("NFD", "körper.nii")) == composed


@pytest.mark.parametrize("forms", list(itertools.product(("NFC", "NFD"), repeat=3)))
def test_channels_of_an_image_may_have_different_forms_of_its_name(tmp_path: Path, forms: Any) -> None:
    paths = [tmp_path / unicodedata.normalize(form, f"körper_{n:04d}.nii.gz") for n, form in enumerate(forms)]
    for path in paths:
        write_array(path, np.zeros(SHAPE, np.uint8), (1, 1, 1))
    (case,) = find_cases(tmp_path, 3)
    assert case.images == tuple(paths)


def test_links_to_nothing_are_told_with_their_cause(tmp_path: Path) -> None:
    folder = tiny(tmp_path)
    image = folder / "imagesTr" / "tiny_001_0000.nii.gz"
    image.unlink()
    os.symlink(".git/annex/objects/xx/yy.nii.gz", image)
    assert refusal(folder).startswith(
        f"{image}: is a link to .git/annex/objects/xx/yy.nii.gz, which is not there. Fetch"
    )
    with pytest.raises(MvlError, match="is a link to"):
        find_cases(folder / "imagesTr", 1)


def test_a_folder_of_links_to_nothing_is_told_as_that_alone(tmp_path: Path) -> None:
    folder = tiny(tmp_path)
    for image in (folder / "imagesTr").iterdir():
        image.unlink()
        os.symlink(f"../store/{image.name}", image)
    _, problems = inspect_dataset(folder)
    assert {problem.what.partition(" to ")[0] for problem in problems} == {"is a link"}


# ------------------------------------------------------------------------------ an empty selection


def test_nothing_selected_is_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny(tmp_path)
    with caplog.at_level(logging.WARNING):
        for content in (
            {"training": []},
            {"dataset": {}},
            {"case_pattern": {"images": "{case}/a.nii", "label": "{case}/b.nii"}},
        ):
            described = describe(folder, channel_names=["MRI"], labels=LABELS, **content)
            assert "has no training case" in refusal(described)
    for part in ("imagesTr", "labelsTr"):
        shutil.rmtree(folder / part)
        (folder / part).mkdir()
    describe(folder, channel_names=["MRI"], labels=LABELS, file_ending=".nii.gz")
    assert "holds no images, nothing" in refusal(folder)
    with pytest.raises(MvlError, match="holds no images, nothing"):
        find_cases(folder / "imagesTr", 2)
