"""Datasets: three layouts, one content; what is wrong with them in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_dataset, write_array, write_description
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mvl_auto.datasets import Case, Dataset, find_cases, hash_files, load_case, read_dataset, to_classes, to_values
from mvl_auto.errors import MvlError
from mvl_auto.plans import IGNORE, LabelScheme


def tiny(folder: Path, **options: Any) -> Path:
    settings: dict[str, Any] = {"cases": 3, "shape": (6, 7, 8), "vary": 0}
    return make_dataset(folder, **(settings | options))


def rewrite(dataset: Path, /, **changes: Any) -> None:
    """Change keys of dataset.json; None removes one."""
    content = json.loads((dataset / "dataset.json").read_text()) | changes
    kept = {key: value for key, value in content.items() if value is not None}
    (dataset / "dataset.json").write_text(json.dumps(kept))


def refusal(dataset: Path) -> str:
    with pytest.raises(MvlError) as caught:
        read_dataset(dataset)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def content(dataset: Dataset) -> Any:
    names = tuple(case.name for case in dataset.cases)
    return dataset.id, dataset.channels, dataset.labels, dataset.file_ending, names, dataset.groups


def voxels(dataset: Dataset) -> list[Any]:
    loaded = [load_case(case, dataset.labels, len(dataset.channels)) for case in dataset.cases]
    return [(volume.array, volume.spacing, classes) for volume, classes in loaded]


# ------------------------------------------------------------------------------ layouts


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"])
def test_one_dataset_in_three_layouts_is_the_same(tmp_path: Path, channels: int, ending: str) -> None:
    options = {"channels": channels, "file_ending": ending, "spacing": (2, 1, 0.5), "label_values": (0, 10, 255)}
    msd = read_dataset(tiny(tmp_path / "a", layout="msd", **options))
    for layout in ("nnunet", "nnunet_v1"):
        other = read_dataset(tiny(tmp_path / layout, layout=layout, **options))
        assert content(other) == content(msd)
        for mine, its in zip(voxels(msd), voxels(other), strict=True):
            assert_array_equal(mine[0], its[0])
            assert mine[1] == its[1] == (2.0, 1.0, 0.5)
            assert_array_equal(mine[2], its[2])
    assert msd.id == "Dataset007_Tiny"
    assert [channel.name for channel in msd.channels] == ["MRI"] * channels
    assert msd.labels == LabelScheme(class_values=(0, 10, 255), class_names=("background", "core", "shell"))
    assert set(np.unique(voxels(msd)[0][2])) == {0, 1, 2}


def test_hidden_files_of_macos_archives_are_ignored(tmp_path: Path) -> None:
    for layout in ("msd", "nnunet"):
        dataset = tiny(tmp_path / layout, layout=layout)
        before = content(read_dataset(dataset))
        for part in ("imagesTr", "labelsTr"):
            (dataset / part / "._tiny_000.nii.gz").write_bytes(b"resource fork")
            (dataset / part / ".DS_Store").touch()
        assert content(read_dataset(dataset)) == before


def test_cases_named_one_by_one_with_their_paths(tmp_path: Path) -> None:
    elsewhere = tiny(tmp_path / "elsewhere", layout="nnunet", channels=2)
    dataset = tmp_path / "Dataset007_Tiny"
    entries = {
        f"patient{n}": {
            "images": [str(elsewhere / "imagesTr" / f"tiny_00{n}_000{channel}.nii.gz") for channel in range(2)],
            "label": str(elsewhere / "labelsTr" / f"tiny_00{n}.nii.gz"),
        }
        for n in range(2)
    }
    write_description(dataset, "nnunet", [], channel_names=["T1", "T2"], dataset=entries)
    read = read_dataset(dataset)
    assert [case.name for case in read.cases] == ["patient0", "patient1"]
    assert load_case(read.cases[1], read.labels, 2)[0].num_channels == 2


def test_colour_pictures_hold_all_channels_in_one_file(tmp_path: Path) -> None:
    folder = tiny(
        tmp_path,
        layout="nnunet",
        shape=(20, 30),
        spacing=(1, 1),
        channels=3,
        channel_names=["R", "G", "B"],
        file_ending=".png",
        label_values=(0, 255),
    )
    dataset = read_dataset(folder)
    assert dataset.cases[0].images == (folder / "imagesTr" / "tiny_000_0000.png",)
    volume, classes = load_case(dataset.cases[0], dataset.labels, 3)
    assert volume.array.shape == (3, 1, 20, 30)
    assert classes is not None
    assert set(np.unique(classes)) == {0, 1}


@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_dicom_folders_are_images(real_data: Path, tmp_path: Path, layout: Any) -> None:
    series, label = real_data / "samples" / "ct" / "dicom", real_data / "samples" / "ct" / "example_seg_dicom.nii.gz"
    dataset = tmp_path / "Task009_Ct"
    for part in ("imagesTr", "labelsTr"):
        (dataset / part).mkdir(parents=True)
    (dataset / "imagesTr" / "body").symlink_to(series)
    (dataset / "labelsTr" / "body.nii.gz").symlink_to(label)
    values = sorted({0, *np.unique(load_values(label)).tolist()})
    names = {str(value): f"organ {value}" for value in values}
    labels = names if layout == "msd" else {name: int(value) for value, name in names.items()}
    training: dict[str, Any] = {"training": [{"image": "./imagesTr/body", "label": "./labelsTr/body.nii.gz"}]}
    write_description(dataset, layout, [], channel_names=["CT"], labels=labels, **(training if layout == "msd" else {}))
    read = read_dataset(dataset)
    assert [case.name for case in read.cases] == ["body"]
    assert read.file_ending == ".nii.gz"
    volume, classes = load_case(read.cases[0], read.labels, 1)
    assert volume.array.shape == (1, 20, 512, 512)
    assert classes is not None
    assert classes.max() == len(values) - 1


def load_values(path: Path) -> Any:
    import nibabel

    return np.asarray(nibabel.load(path).dataobj)


def test_the_real_datasets_are_read(real_data: Path) -> None:
    hippocampus = read_dataset(real_data / "Task04_Hippocampus")
    assert hippocampus.id == "Dataset004_Hippocampus"
    assert len(hippocampus.cases) == 200
    assert hippocampus.labels.class_names == ("background", "Anterior", "Posterior")
    nuclei = read_dataset(real_data / "Dataset101_Nuclei")
    assert nuclei.labels.class_values == (0, 255)
    assert [channel.name for channel in nuclei.channels] == ["R", "G", "B"]
    volume, classes = load_case(nuclei.cases[0], nuclei.labels, 3)
    assert classes is not None
    assert volume.geometry.dimensions == 2
    assert 0.01 < classes.mean() < 0.9


def test_three_contrasts_on_one_grid_are_one_case(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "samples" / "cord_mt"
    dataset = tmp_path / "Dataset012_Cord"
    (dataset / "imagesTr").mkdir(parents=True)
    (dataset / "labelsTr").mkdir()
    for n, name in enumerate(("mt0", "mt1", "t1w")):
        shutil.copy(source / f"{name}.nii.gz", dataset / "imagesTr" / f"cord_{n:04d}.nii.gz")
    shutil.copy(source / "mt1_seg.nii.gz", dataset / "labelsTr" / "cord.nii.gz")
    write_description(dataset, "nnunet", [], label_values=(0, 1), channel_names=["MT0", "MT1", "T1w"])
    read = read_dataset(dataset)
    volume, classes = load_case(read.cases[0], read.labels, 3)
    assert volume.array.shape == (3, 5, 40, 40)
    assert classes is not None
    assert classes.sum() > 0


# ------------------------------------------------------------------------------ what can be wrong


def test_a_missing_or_broken_description(tmp_path: Path) -> None:
    dataset = tiny(tmp_path)
    for text, words in (("{'no': json}", "is not valid JSON"), ("[]", "is a list"), ("", "is not valid JSON")):
        (dataset / "dataset.json").write_text(text)
        assert words in refusal(dataset)
    (dataset / "dataset.json").unlink()
    assert refusal(dataset).startswith(f"{dataset}/dataset.json: is missing. Write this, with names of your own: {{")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None}, "has no labels"),
        ({"labels": {}}, "has no labels"),
        ({"labels": ["background", "liver"]}, "has no labels"),
        ({"labels": {"background": 0}}, "has no label but the background"),
        ({"labels": {"liver": 1, "tumour": 2}}, "has no label of value 0, the background"),
        ({"labels": {"background": 0, "liver": 1, "tumour": 1}}, "gives one label value two names"),
        ({"labels": {"0": "background", "1": "liver", "2": "liver"}}, "gives the name 'liver' to two labels"),
        ({"labels": {"background": 0, "liver": 1.5}}, "'liver' has the value 1.5, which is no whole number"),
        ({"labels": {"background": 0, "liver": None}}, "'liver' has the value None"),
        ({"labels": {"background": 0, "liver": True}}, "'liver' has the value True"),
        ({"labels": {"background": 0, "liver": float("inf")}}, "'liver' has the value inf, which is no whole number"),
        ({"labels": {"background": 0, "liver": float("nan")}}, "'liver' has the value nan, which is no whole number"),
        ({"labels": {"background": 0, "liver": 2**64}}, "'liver' has the value 18446744073709551616, too large"),
        ({"labels": {"background": 0, "liver": 1, "ignore": 1}}, "ignore value 1 is also part of a label"),
        ({"labels": {"background": 0, "liver": 1, "ignore": [2]}}, "'ignore' is a region"),
        ({"modality": None}, "has no channels"),
        ({"modality": {"1": "CT"}}, "names no channels"),
        ({"modality": "CT"}, "names no channels"),
        ({"training": []}, "has no training case"),
        ({"training": [{"image": "imagesTr/tiny_000.nii.gz"}]}, "has a training entry without image or label"),
    ],
)
def test_descriptions_that_lack_or_contradict_something(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    dataset = tiny(tmp_path)
    rewrite(dataset, **changes)
    for part in ("imagesTr", "labelsTr"):
        if "training" in changes:
            shutil.rmtree(dataset / part)
    message = refusal(dataset)
    assert message.startswith(f"{dataset}/dataset.json: ")
    assert words in message


@pytest.mark.parametrize("layout", ["msd", "nnunet", "nnunet_v1"])
@pytest.mark.parametrize("listed", [True, False])
def test_an_image_without_its_label_and_a_label_without_its_image(tmp_path: Path, layout: Any, listed: bool) -> None:
    """Also where dataset.json does not list the case."""
    for part, words in (("labelsTr", "missing|without its label"), ("imagesTr", "missing|without its image")):
        dataset = tiny(tmp_path / part, layout=layout)
        files = list((dataset / part).glob("tiny_001*"))
        assert len(files) == 1
        if listed or layout == "nnunet":
            files[0].unlink()
        else:
            other = "imagesTr" if part == "labelsTr" else "labelsTr"
            for extra in (dataset / other).glob("tiny_001*"):
                shutil.copy(extra, extra.with_name(extra.name.replace("tiny_001", "extra")))
        with pytest.raises(MvlError, match=words) as caught:
            read_dataset(dataset)
        assert "tiny_001" in str(caught.value) or "extra" in str(caught.value)


def test_cases_that_dataset_json_does_not_list_are_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = tiny(tmp_path)
    rewrite(dataset, training=json.loads((dataset / "dataset.json").read_text())["training"][:2])
    assert [case.name for case in read_dataset(dataset).cases] == ["tiny_000", "tiny_001"]
    assert "not listed under training and not used: 1 case" in caplog.text


def test_listed_names_may_end_in_four_digits_or_differ_from_the_labels(tmp_path: Path) -> None:
    dataset = tmp_path / "Task007_Tiny"
    for name in ("scan_0001", "scan_0002", "scan_0003"):
        write_array(dataset / "imagesTr" / f"{name}.nii.gz", np.ones((3, 4, 5), np.uint8), (1, 1, 1))
    for name in ("scan_0001", "seg_0002", "scan_0004"):
        write_array(dataset / "labelsTr" / f"{name}.nii.gz", np.ones((3, 4, 5), np.uint8), (1, 1, 1))
    pairs = [("scan_0001", "scan_0001"), ("scan_0002", "seg_0002")]
    training = [{"image": f"imagesTr/{a}.nii.gz", "label": f"labelsTr/{b}.nii.gz"} for a, b in pairs]
    write_description(dataset, "msd", [], training=training)
    assert "imagesTr/scan_0003.nii.gz: is an image without its label" in refusal(dataset)
    (dataset / "imagesTr" / "scan_0003.nii.gz").unlink()
    assert "labelsTr/scan_0004.nii.gz: is a label without its image" in refusal(dataset)
    (dataset / "labelsTr" / "scan_0004.nii.gz").unlink()
    assert [case.name for case in read_dataset(dataset).cases] == ["scan_0001", "scan_0002"]


def test_cases_with_another_number_of_channels(tmp_path: Path) -> None:
    dataset = tiny(tmp_path / "a", layout="nnunet", channels=2)
    (dataset / "imagesTr" / "tiny_001_0001.nii.gz").unlink()  # now it looks like a file of all channels
    read = read_dataset(dataset)
    with pytest.raises(MvlError, match=r"tiny_001_0000\.nii\.gz: has 1 channel, expected 2"):
        load_case(read.cases[1], read.labels, 2)
    dataset = tiny(tmp_path / "b", layout="nnunet", channels=3)
    (dataset / "imagesTr" / "tiny_001_0001.nii.gz").unlink()
    assert "tiny_001: has the channels 0000, 0002, expected 3" in refusal(dataset)
    dataset = tiny(tmp_path / "c", layout="nnunet_v1", channels=3)
    (dataset / "imagesTr" / "tiny_001_0002.nii.gz").unlink()
    assert "has 2 channel files, dataset.json names 3 channels" in refusal(dataset)
    dataset = tiny(tmp_path / "d", layout="nnunet", channels=2)
    rewrite(dataset, channel_names={"0": "T1"})
    assert "is one channel more than the 1 of dataset.json" in refusal(dataset)


def test_what_is_wrong_inside_a_case(tmp_path: Path) -> None:
    folder = tiny(tmp_path)
    dataset = read_dataset(folder)
    image, label = folder / "imagesTr" / "tiny_000.nii.gz", folder / "labelsTr" / "tiny_000.nii.gz"
    good_image, good_label = image.read_bytes(), label.read_bytes()

    def refused(words: str) -> None:
        with pytest.raises(MvlError, match=words):
            load_case(dataset.cases[0], dataset.labels, 1)
        image.write_bytes(good_image)
        label.write_bytes(good_label)
        load_case(dataset.cases[0], dataset.labels, 1)

    write_array(label, np.zeros((6, 7, 9), np.uint8), (1, 1, 1))
    refused(r"8 x 7 x 6 voxels, its label .*labelsTr/tiny_000\.nii\.gz 9 x 7 x 6")
    write_array(label, np.zeros((6, 7, 8), np.uint8), (1, 1, 2))
    refused("voxel size 1 x 1 x 1 and 2 x 1 x 1 mm")
    write_array(label, np.full((6, 7, 8), 7, np.uint8), (1, 1, 1))
    refused(r"labelsTr/tiny_000\.nii\.gz: has the label value 7, which dataset\.json does not name .*0, 1, 2")
    write_array(image, np.full((6, 7, 8), np.nan, np.float32), (1, 1, 1))
    refused(r"imagesTr/tiny_000\.nii\.gz: has 336 NaN")
    image.write_bytes(good_image[:-100])
    refused(r"imagesTr/tiny_000\.nii\.gz: is damaged or cut short")


def test_groups_are_read_and_unknown_cases_named(tmp_path: Path) -> None:
    dataset = tiny(tmp_path)
    groups = dataset / "groups.csv"
    groups.write_text("\ufeffcase,group\ntiny_000, anna\ntiny_001,anna\n", encoding="utf-8")
    assert read_dataset(dataset).groups == {"tiny_000": "anna", "tiny_001": "anna"}
    groups.write_text("case,group\ntiny_000,anna\nnobody,bert\n")
    assert refusal(dataset).startswith(f"{groups}: names cases that the dataset does not have: nobody.")
    groups.write_text("case,group\ntiny_000\n")
    assert "has a line without case or group" in refusal(dataset)
    for text in ("name,patient\na,b\n", "name,patient\n", ""):
        groups.write_text(text)
        assert "has no columns 'case' and 'group'" in refusal(dataset)


def test_groups_that_contradict_themselves_or_could_mean_two_things(tmp_path: Path) -> None:
    dataset = tiny(tmp_path)
    groups = dataset / "groups.csv"
    groups.write_text("case,group\ntiny_000,anna\ntiny_001,anna\ntiny_000,bert\n")
    assert refusal(dataset).startswith(f"{groups}: gives the case 'tiny_000' to two patients, 'anna' and 'bert'.")
    groups.write_text("case,group\ntiny_000,anna\ntiny_000,anna\n")
    assert read_dataset(dataset).groups == {"tiny_000": "anna"}
    groups.write_text("case,group\ntiny_000,tiny_001\n")
    assert refusal(dataset).startswith(f"{groups}: has a patient 'tiny_001', and there is a case of this name")
    groups.write_text("case,group\ntiny_000,tiny_001\ntiny_001,bert\n")
    assert read_dataset(dataset).groups == {"tiny_000": "tiny_001", "tiny_001": "bert"}


def test_a_series_in_a_folder_of_the_folder_of_a_case_is_its_image(tmp_path: Path) -> None:
    dataset = tiny(tmp_path, layout="nnunet")
    (dataset / "imagesTr" / "tiny_001_0000.nii.gz").unlink()
    deep = dataset / "imagesTr" / "tiny_001_0000" / "DICOM"
    touch(deep, "readme")
    assert "is a label without its image. Add its image" in refusal(dataset)
    (deep / "IM1").write_bytes(bytes(128) + b"DICM")
    images = {case.name: case.images for case in read_dataset(dataset).cases}
    assert images["tiny_001"] == (deep.parent,)


@pytest.mark.parametrize(
    "entry",
    [
        {"images": [], "label": "labelsTr/tiny_000.nii.gz"},
        {"images": [5], "label": "labelsTr/tiny_000.nii.gz"},
        {"images": ["imagesTr/tiny_000.nii.gz"], "label": 5},
        {"images": ["imagesTr/\0.nii.gz"], "label": "labelsTr/tiny_000.nii.gz"},
    ],
)
def test_entries_that_name_no_files(tmp_path: Path, entry: Any) -> None:
    dataset = tiny(tmp_path, layout="nnunet")
    rewrite(dataset, dataset={"tiny_000": entry})
    assert "tiny_000" in refusal(dataset)


def test_a_changed_voxel_changes_the_hash_of_a_case_and_its_name_does_not(tmp_path: Path) -> None:
    folder = tiny(tmp_path, file_ending=".mhd")
    case = read_dataset(folder).cases[0]
    before = hash_files(case)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert hash_files(read_dataset(copy).cases[0]) == before
    raw = next((folder / "labelsTr").glob("tiny_000.*raw"))
    raw.write_bytes(raw.read_bytes()[:-1] + b"\x07")
    assert hash_files(case) != before


# ------------------------------------------------------------------------------ labels


def scheme_of(tmp_path: Path, **changes: Any) -> LabelScheme:
    dataset = tiny(tmp_path / str(len(list(tmp_path.iterdir()))), layout="nnunet", cases=1)
    rewrite(dataset, **changes)
    return read_dataset(dataset).labels


REGIONS = {"background": 0, "whole tumour": [10, 20, 30], "core": [20, 30], "enhancing": 30, "ignore": 99}


def test_regions_and_ignore_become_classes(tmp_path: Path) -> None:
    scheme = scheme_of(tmp_path, labels=REGIONS, regions_class_order=[10, 20, 30])
    assert scheme.class_values == (0, 10, 20, 30)
    assert scheme.class_names == ("background", "label 10", "label 20", "enhancing")
    assert scheme.region_names == ("whole tumour", "core", "enhancing")
    assert scheme.regions == ((1, 2, 3), (2, 3), (3,))
    assert scheme.regions_class_order == (1, 2, 3)
    assert scheme.ignore_value == 99
    assert scheme.num_outputs == 3
    classes = to_classes(np.array([0, 10, 20, 30, 99]), scheme, "file")
    assert classes.tolist() == [0, 1, 2, 3, IGNORE]
    assert to_values(classes, scheme).tolist() == [0, 10, 20, 30, 99]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": REGIONS}, "has 3 regions, so regions_class_order must have 3 label values"),
        ({"labels": REGIONS, "regions_class_order": [10, 20]}, "must have 3 label values"),
        ({"labels": REGIONS, "regions_class_order": [10, 20, 40]}, "regions_class_order has 40, which is no label"),
        ({"labels": REGIONS | {"ignore": 20}, "regions_class_order": [10, 20, 30]}, "ignore value 20 is also part"),
        ({"labels": REGIONS | {"core": []}, "regions_class_order": [10, 20, 30]}, "'core' is made of no label"),
        ({"labels": REGIONS | {"core": [0, 20]}, "regions_class_order": [1, 2, 3]}, "'core' contains the background"),
    ],
)
def test_regions_that_make_no_sense(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MvlError, match=r"dataset\.json: ") as caught:
        scheme_of(tmp_path, **changes)
    assert words in str(caught.value)


@given(
    values=st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=6, unique=True),
    ignore=st.booleans(),
    data=st.data(),
)
def test_values_become_consecutive_classes_and_values_again(values: list[int], ignore: bool, data: Any) -> None:
    values = [0, *sorted(set(values) - {0})]
    if len(values) < 2:
        values.append(5)
    ignore_value = values.pop() if ignore and len(values) > 2 else None
    scheme = LabelScheme(class_values=tuple(values), class_names=tuple(map(str, values)), ignore_value=ignore_value)
    possible = values if ignore_value is None else [*values, ignore_value]
    stored = np.array(data.draw(st.lists(st.sampled_from(possible), min_size=1, max_size=20)))
    classes = to_classes(stored, scheme, "file")
    assert classes.dtype == np.int16
    expected = [IGNORE if value == ignore_value else values.index(value) for value in stored.tolist()]
    assert classes.tolist() == expected
    back = to_values(classes, scheme)
    assert_array_equal(back, stored)
    assert back.dtype == to_values(np.zeros(1, np.int16), scheme).dtype  # whatever a case holds


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint64])
def test_unknown_values_are_named(dtype: Any) -> None:
    scheme = LabelScheme(class_values=(0, 100), class_names=("background", "a"))
    with pytest.raises(MvlError, match=r"^file: has the label values 3, 99, which dataset\.json does not name"):
        to_classes(np.array([0, 100, 99, 3, 3], dtype), scheme, "file")
    with pytest.raises(MvlError, match=r"1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 89 more"):
        to_classes(np.arange(100, dtype=dtype), scheme, "file")


@pytest.mark.parametrize("strange", [-1, 70_000, 2**40])
def test_unknown_values_are_named_however_far_off(strange: int) -> None:
    scheme = LabelScheme(class_values=(0, 100), class_names=("background", "a"))
    with pytest.raises(MvlError, match=f"^file: has the label value {strange}, which"):
        to_classes(np.array([0, 100, strange]), scheme, "file")


@pytest.mark.parametrize("known", [5, 2**63 - 1, -1])
@pytest.mark.parametrize("strange", [2**63, 2**64 - 1])
def test_unsigned_values_that_no_signed_integer_holds_are_named(known: int, strange: int) -> None:
    scheme = LabelScheme(class_values=(0, known), class_names=("background", "a"))
    with pytest.raises(MvlError, match=f"^file: has the label value {strange}, which"):
        to_classes(np.array([0, max(known, 0), strange], np.uint64), scheme, "file")


def test_the_largest_values_are_labels_too() -> None:
    scheme = LabelScheme(class_values=(0, 2**63 - 2, 2**63 - 1), class_names=("background", "a", "b"))
    for dtype in (np.int64, np.uint64):
        values = np.array([2**63 - 1, 0, 2**63 - 2], dtype)
        assert to_classes(values, scheme, "file").tolist() == [2, 0, 1]


def test_the_values_type_is_the_smallest_that_holds_all_labels() -> None:
    for highest, expected in ((1, np.uint8), (255, np.uint8), (256, np.uint16), (70000, np.uint32)):
        scheme = LabelScheme(class_values=(0, highest), class_names=("background", "a"))
        assert to_values(np.zeros((2, 2, 2), np.int16), scheme).dtype == expected
    with pytest.raises(ValueError, match="no ignore label"):
        to_values(np.array([IGNORE]), scheme)


# ------------------------------------------------------------------------------ images to predict


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path, num_channels: int) -> dict[str, list[str]]:
    cases = find_cases(folder, num_channels)
    assert [case.name for case in cases] == sorted(case.name for case in cases)
    return {case.name: [path.name for path in case.images] for case in cases}


def test_plain_names_are_cases(tmp_path: Path) -> None:
    touch(tmp_path, "b.nii.gz", "a.nrrd", "readme.txt", ".hidden.nii.gz", "notes/x.txt")
    assert found(tmp_path, 1) == {"a": ["a.nrrd"], "b": ["b.nii.gz"]}
    assert found(tmp_path, 4) == {"a": ["a.nrrd"], "b": ["b.nii.gz"]}  # 4D files


def test_channel_numbers_are_taken_off(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.png", "b_0000.png")
    assert found(tmp_path, 1) == {"a": ["a_0000.png"], "b": ["b_0000.png"]}
    assert found(tmp_path, 3) == {"a": ["a_0000.png"], "b": ["b_0000.png"]}  # colours in one file
    touch(tmp_path, "a_0001.png", "b_0001.png", "c.png")
    assert found(tmp_path, 2) == {"a": ["a_0000.png", "a_0001.png"], "b": ["b_0000.png", "b_0001.png"], "c": ["c.png"]}
    with pytest.raises(MvlError, match="a: has the channels 0000, 0001, expected 3: 0000 to 0002"):
        find_cases(tmp_path, 3)


def test_one_stray_file_renames_no_other_case(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.png", "b_0000.png", "x_0001.png")
    assert list(found(tmp_path, 1)) == ["a", "b", "x_0001"]
    touch(tmp_path, "x_0000.png", "c.png")
    assert list(found(tmp_path, 1)) == ["a", "b", "c", "x_0000", "x_0001"]
    touch(tmp_path, "a.png")
    assert found(tmp_path, 1)["a"] == ["a.png"]
    assert found(tmp_path, 1)["a_0000"] == ["a_0000.png"]


def test_numbers_that_are_no_channels_stay(tmp_path: Path) -> None:
    touch(tmp_path, "scan_2020.nii.gz", "scan_2021.nii.gz", "scan_0000.nii.gz")
    assert list(found(tmp_path, 1)) == ["scan_0000", "scan_2020", "scan_2021"]
    (tmp_path / "scan_0000.nii.gz").unlink()
    assert list(found(tmp_path, 2)) == ["scan_2020", "scan_2021"]


def test_one_file_or_one_series_instead_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.mha", "a_0001.mha", "b.mha", "other_0000.mha")
    assert found(tmp_path / "b.mha", 1) == {"b": ["b.mha"]}
    assert found(tmp_path / "a_0000.mha", 1) == {"a": ["a_0000.mha"]}
    assert found(tmp_path / "a_0001.mha", 2) == {"a": ["a_0000.mha", "a_0001.mha"]}
    series = tmp_path / "case7"
    touch(series, "README")
    (series / "IM1").write_bytes(bytes(128) + b"DICM")
    assert find_cases(series, 1) == (Case("case7", (series,)),)
    touch(tmp_path / "empty", "x.txt")
    assert found(tmp_path, 2).keys() == {"a", "b", "case7", "other"}  # other_0000: all channels in one file


def test_folders_with_nothing_to_predict(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "photos/1.jpg", "photos/2.jpg", "photos/3.jpg", "photos/4.jpg", "two/a.nii", "two/a.mha")
    for folder, words in (
        ("empty", r"empty: holds no images, nothing\. Put images there: \.nii\.gz"),
        ("photos", r"photos: holds no images, only 1\.jpg, 2\.jpg, 3\.jpg and 1 more"),
        ("photos/1.jpg", r"1\.jpg: is not a known image format"),
        ("none", r"none: does not exist"),
        ("two", r"two: a\.mha and a\.nii claim the same case 'a'"),
    ):
        with pytest.raises(MvlError, match=words):
            find_cases(tmp_path / folder, 1)
    with pytest.raises(MvlError, match="holds no references"):
        find_cases(tmp_path / "empty", 1, what="references")


# ------------------------------------------------------------------------------ the user's manual


def test_every_description_in_the_manual_is_valid(tmp_path: Path) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "dataset.md").read_text()
    examples = [json.loads(block.split("```")[0]) for block in manual.split("```json\n")[1:]]
    assert len(examples) == 5
    for example in examples:
        case = "hippocampus_001" if "training" in example else "case"
        num_channels = len(example.get("channel_names", "1"))
        dataset = tmp_path / f"Task{examples.index(example) + 1:02d}_Manual"
        pattern = example.get("case_pattern")
        files = [path.format(case=case) for path in (*pattern["images"], pattern["label"])] if pattern else []
        for file in files or [f"labelsTr/{case}.nii.gz"] + [
            f"imagesTr/{case if 'training' in example else f'{case}_{n:04d}'}.nii.gz" for n in range(num_channels)
        ]:
            write_array(dataset / file, np.ones((3, 4, 5), np.uint8), (1, 1, 1))
        (dataset / "dataset.json").write_text(json.dumps(example))
        read = read_dataset(dataset)
        assert load_case(read.cases[0], read.labels, num_channels)[1] is not None
