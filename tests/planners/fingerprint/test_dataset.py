"""The fingerprint of datasets on disk: counted by hand, turned around, in both layouts, with all that can be odd."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from builders import make_dataset, write_array, write_description

from mvl_auto.datasets import hash_files, read_dataset
from mvl_auto.errors import MvlError
from mvl_auto.planners import changed_cases, fingerprint_dataset

SHAPE = (6, 8, 10)


def make_by_hand(folder: Path, cases: dict, label_values=(0, 1, 2), channels=1, spacing=(2.0, 1.0, 0.5)) -> Path:
    """An nnU-Net dataset of the given (image C Z Y X, label Z Y X) pairs."""
    folder = folder / "Dataset009_Hand"
    for name, (image, label) in cases.items():
        for channel, array in enumerate(image):
            write_array(folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz", np.float32(array), spacing)
        write_array(folder / "labelsTr" / f"{name}.nii.gz", np.uint8(label), spacing)
    write_description(folder, "nnunet", sorted(cases), label_values, ["MRI"] * channels)
    return folder


def an_image(seed: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 100, (channels, *SHAPE)).astype(np.float32)


def a_label(*boxes: tuple[int, tuple[slice, ...]]) -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    for value, box in boxes:
        label[box] = value
    return label


TWO_BLOCKS = a_label((1, np.s_[1:3, 1:3, 1:3]), (1, np.s_[4:5, 6:8, 8:9]), (2, np.s_[0:1, 0:1, 9:10]))


def take(folder: Path, **options):
    return fingerprint_dataset(read_dataset(folder), **options)


def what_is_odd(folder: Path) -> list[str]:
    return [f"{found.file} {found.what}" for found in take(folder).anomalies]


# ---------------------------------------------------------------------------------- what is counted


def test_a_case_counted_by_hand(tmp_path):
    image = an_image(0)
    image[:, :, :2] = 0  # a frame of zeros on one side of Y
    folder = make_by_hand(tmp_path, {"a": (image, TWO_BLOCKS), "b": (an_image(1), TWO_BLOCKS)})
    case = take(folder).cases[0]
    assert (case.name, case.shape, case.spacing, case.shape_after_crop) == ("a", SHAPE, (2.0, 1.0, 0.5), (6, 6, 10))
    assert case.class_voxels == (480 - 11, 10, 1)
    assert case.components == (2, 1)
    assert case.smallest_object == (2, 1)
    assert case.largest_object == (8, 1)
    assert case.group == "a"
    (intensities,) = case.foreground_intensity_properties_per_channel
    labelled = image[0][TWO_BLOCKS > 0]
    assert intensities.mean == pytest.approx(labelled.mean(dtype=np.float64))
    assert intensities.median == pytest.approx(np.median(labelled), rel=0.005)
    assert (intensities.min, intensities.max) == (labelled.min(), labelled.max())


def test_objects_that_touch_at_a_corner_are_one(tmp_path):
    label = a_label((1, np.s_[0:2, 0:2, 0:2]), (1, np.s_[2:4, 2:4, 2:4]))
    folder = make_by_hand(tmp_path, {"a": (an_image(0), label)}, label_values=(0, 1))
    assert take(folder).cases[0].components == (1,)


def test_intensities_are_those_inside_the_labels(tmp_path):
    image = an_image(0, channels=2)
    folder = make_by_hand(tmp_path, {"a": (image, TWO_BLOCKS)}, channels=2)
    for channel, found in zip(image, take(folder).foreground_intensity_properties_per_channel, strict=True):
        inside = channel[TWO_BLOCKS > 0].astype(float)
        assert (found.mean, found.std) == (pytest.approx(inside.mean()), pytest.approx(inside.std()))
        assert (found.min, found.max) == (inside.min(), inside.max())


def test_label_values_with_gaps_count_as_consecutive_classes(tmp_path):
    label = np.array([0, 2, 5], np.uint8)[TWO_BLOCKS]
    folder = make_by_hand(tmp_path, {"a": (an_image(0), label)}, label_values=(0, 2, 5))
    assert take(folder).cases[0].class_voxels == (469, 10, 1)


def test_ignored_voxels_count_nowhere(tmp_path):
    label = TWO_BLOCKS.copy()
    label[5] = 3
    folder = make_by_hand(tmp_path, {"a": (an_image(0), label)})
    description = json.loads((folder / "dataset.json").read_text())
    description["labels"]["ignore"] = 3
    (folder / "dataset.json").write_text(json.dumps(description))
    fingerprint = take(folder)
    assert fingerprint.cases[0].class_voxels == (469 - 80, 10, 1)
    assert fingerprint.foreground_intensity_properties_per_channel[0].max == an_image(0)[0][TWO_BLOCKS > 0].max()


def test_one_voxel_is_a_case(tmp_path):
    one = (np.ones((1, 1, 1, 1), np.float32), np.ones((1, 1, 1), np.uint8))
    folder = make_by_hand(tmp_path, {"a": one, "b": one}, label_values=(0, 1))
    fingerprint = take(folder)
    assert fingerprint.cases[0].shape_after_crop == (1, 1, 1)
    assert fingerprint.foreground_intensity_properties_per_channel[0].std == 0


def test_the_groups_of_groups_csv(tmp_path):
    folder = make_by_hand(tmp_path, {name: (an_image(n), TWO_BLOCKS) for n, name in enumerate("abc")})
    (folder / "groups.csv").write_text("case,group\na,Smith\nb,Smith\n")
    assert [case.group for case in take(folder).cases] == ["Smith", "Smith", "c"]


# ---------------------------------------------------------------------------- the same, however it is stored


def test_both_layouts_give_the_same_fingerprint(tmp_path):
    msd = take(make_dataset(tmp_path / "msd", "msd", channels=2))
    nnunet = take(make_dataset(tmp_path / "nnunet", "nnunet", channels=2))
    assert msd.hash == nnunet.hash
    assert msd.foreground_intensity_properties_per_channel == nnunet.foreground_intensity_properties_per_channel


def test_turned_images_give_the_same_fingerprint(tmp_path):
    folder = make_dataset(tmp_path, "nnunet", spacing=(3.0, 0.7421875, 0.9765625))
    before = take(folder)
    for n, file in enumerate(sorted(folder.glob("*Tr/*.nii.gz"))):
        code = ["LPI", "SAR", "PIR", "ASL", "IRP", "LAS"][n % 6]
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(file)), code), str(file))
    after = take(folder)
    assert after.hash == before.hash
    assert [case.files_hash for case in after.cases] != [case.files_hash for case in before.cases]


def test_neither_worker_processes_nor_the_order_of_cases_change_anything(tmp_path):
    dataset = read_dataset(make_dataset(tmp_path, cases=7))
    turned = replace(dataset, cases=dataset.cases[::-1])
    assert fingerprint_dataset(turned, workers=2) == fingerprint_dataset(dataset, workers=1)


def test_other_voxels_other_labels_other_groups_are_another_dataset(tmp_path):
    def hash_with(**changes):
        case = {"image": an_image(0), "label": TWO_BLOCKS, "groups": "case,group\na,one\n"} | changes
        folder = make_by_hand(tmp_path, {"a": (case["image"], case["label"])})
        (folder / "groups.csv").write_text(case["groups"])
        return take(folder).hash

    moved = np.roll(TWO_BLOCKS, 1, axis=1)
    hashes = {
        hash_with(),
        hash_with(image=an_image(1)),
        hash_with(label=moved),
        hash_with(groups="case,group\na,two\n"),
    }
    assert len(hashes) == 4
    assert hash_with() in hashes


# ------------------------------------------------------------------------------------ what is odd


def test_an_ordinary_dataset_is_not_odd(tmp_path):
    assert what_is_odd(make_dataset(tmp_path)) == []


def test_copies_are_told_with_what_their_labels_are(tmp_path):
    other = np.roll(TWO_BLOCKS, 1, axis=1)
    cases = {"a": (an_image(0), TWO_BLOCKS), "b": (an_image(0), TWO_BLOCKS), "c": (an_image(0), other)}
    assert what_is_odd(make_by_hand(tmp_path, cases)) == [
        "imagesTr/b_0000.nii.gz is the same image as imagesTr/a_0000.nii.gz, with the same label",
        "imagesTr/c_0000.nii.gz is the same image as imagesTr/a_0000.nii.gz, with another label",
    ]


@pytest.mark.parametrize(
    ("image", "label", "told"),
    [
        (an_image(1), a_label(), "labelsTr/b.nii.gz has no labelled voxel"),
        (np.full((1, *SHAPE), 7.0), TWO_BLOCKS, "imagesTr/b_0000.nii.gz channel 0 has the value 7 everywhere"),
        (np.where(np.arange(10) < 5, an_image(1), 0), TWO_BLOCKS, "labelsTr/b.nii.gz has 3 labelled voxels outside"),
    ],
    ids=["empty label", "constant image", "label outside"],
)
def test_an_odd_case_is_told_and_used(tmp_path, image, label, told):
    folder = make_by_hand(
        tmp_path, {"a": (an_image(0), TWO_BLOCKS), "b": (image, label), "c": (an_image(2), TWO_BLOCKS)}
    )
    (odd,) = what_is_odd(folder)
    assert odd.startswith(told)
    assert len(take(folder).cases) == 3


def test_labels_that_hardly_occur_are_told(tmp_path):
    once = a_label((1, np.s_[0:2, 0:2, 0:2]))
    folder = make_by_hand(
        tmp_path, {"a": (an_image(0), TWO_BLOCKS), "b": (an_image(1), once)}, label_values=(0, 1, 2, 9)
    )
    assert what_is_odd(folder) == [
        "dataset.json label 'third' (9) occurs in no case",
        "dataset.json label 'shell' (2) occurs only in imagesTr/a_0000.nii.gz",
    ]


def test_many_labels_that_do_not_occur_are_one_line(tmp_path):
    folder = make_by_hand(tmp_path, {"a": (an_image(0), TWO_BLOCKS)})
    description = json.loads((folder / "dataset.json").read_text())
    description["labels"] |= {f"organ {n}": n for n in range(3, 20)}
    (folder / "dataset.json").write_text(json.dumps(description))
    (odd,) = what_is_odd(folder)
    assert odd.startswith("dataset.json labels 'organ 3' (3), ")
    assert odd.endswith("and 12 more occur in no case")


# ------------------------------------------------------------------------------- what cannot be used


def test_cases_that_cannot_be_read_are_all_named_at_the_end(tmp_path):
    folder = make_dataset(tmp_path, "nnunet", cases=4)
    broken = sorted((folder / "imagesTr").iterdir())[1:3]
    for file in broken:
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(MvlError, match=r"2 of 4 cases \(") as raised:
        take(folder)
    for file in broken:
        assert f"imagesTr/{file.name}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_fault_of_all_cases_is_one_line_with_the_command_that_mends_it(tmp_path, caplog):
    label = a_label((255, np.s_[1:3, 1:3, 1:3]))
    folder = make_by_hand(tmp_path, {f"case{n}": (an_image(n), label) for n in range(8)}, label_values=(0, 1))
    with pytest.raises(MvlError) as raised:
        take(folder)
    message = str(raised.value)
    files = ", ".join(f"labelsTr/case{n}.nii.gz" for n in range(3))
    assert message.startswith(f"{folder}: 8 of 8 cases ({files} and 5 more): holds 0 and 255")
    assert f"mvl_doctor -d {folder} --fix FOLDER" in message
    assert not caplog.messages


def test_faults_of_two_kinds_are_a_line_each_and_the_first_again(tmp_path, caplog):
    cases = {f"case{n}": (an_image(n), a_label((255 if n < 3 else 9, np.s_[1:3, 1:3, 1:3]))) for n in range(6)}
    folder = make_by_hand(tmp_path, cases, label_values=(0, 1))
    with pytest.raises(MvlError, match=r"case0\.nii\.gz: holds 0 and 255.*6 of 6 cases cannot be used"):
        take(folder)
    assert [message.partition(" (")[0] for message in caplog.messages] == ["3 files", "3 files"]


def test_a_dataset_without_a_labelled_voxel_is_refused(tmp_path):
    folder = make_by_hand(tmp_path, {"a": (an_image(0), a_label()), "b": (an_image(1), a_label())})
    with pytest.raises(MvlError, match="none of its 2 cases has a labelled voxel"):
        take(folder)


def test_flat_and_deep_images_are_no_dataset(tmp_path):
    flat = (an_image(0)[:, :1], TWO_BLOCKS[:1])
    folder = make_by_hand(tmp_path, {"a": (an_image(0), TWO_BLOCKS), "b": flat})
    with pytest.raises(MvlError, match=r"mixes images of one slice \(b, 1 in all\) and of several \(a\)"):
        take(folder)


def test_a_case_of_more_channels_is_refused(tmp_path):
    folder = make_dataset(tmp_path, "msd", channels=2, cases=3)
    file = next((folder / "imagesTr").iterdir())
    image = nibabel.load(file)
    more = np.concatenate([image.get_fdata(), image.get_fdata()], axis=3)
    nibabel.save(nibabel.Nifti1Image(more, image.affine), file)
    with pytest.raises(MvlError, match="4 channels"):
        take(folder)


# --------------------------------------------------------------------------------------- what has changed


def test_changed_cases_are_noticed(tmp_path):
    folder = make_dataset(tmp_path, "nnunet", cases=4)
    fingerprint = take(folder)
    assert changed_cases(fingerprint, read_dataset(folder)) == ()
    shutil.copyfile(folder / "imagesTr/tiny_000_0000.nii.gz", folder / "imagesTr/tiny_009_0000.nii.gz")
    shutil.copyfile(folder / "labelsTr/tiny_000.nii.gz", folder / "labelsTr/tiny_009.nii.gz")
    (folder / "imagesTr/tiny_001_0000.nii.gz").unlink()
    (folder / "labelsTr/tiny_001.nii.gz").unlink()
    label = folder / "labelsTr/tiny_002.nii.gz"
    shutil.copyfile(folder / "labelsTr/tiny_003.nii.gz", label)
    (folder / "groups.csv").write_text("case,group\ntiny_003,Smith\n")
    changed = changed_cases(fingerprint, read_dataset(folder))
    assert changed == ("tiny_001", "tiny_002", "tiny_003", "tiny_009")


def test_a_case_that_may_not_be_read_any_more_has_changed(tmp_path, monkeypatch):
    folder = make_dataset(tmp_path, "nnunet", cases=3)
    fingerprint, dataset = take(folder), read_dataset(folder)
    unreadable, as_before = dataset.cases[1].images[0], os.open

    def guarded(path, *words, **more):
        if Path(path) == unreadable:
            raise PermissionError(13, "Permission denied", str(path))
        return as_before(path, *words, **more)

    monkeypatch.setattr("os.open", guarded)
    assert changed_cases(fingerprint, dataset) == (dataset.cases[1].name,)


# -------------------------------------------------------------------------------------------- real data


def test_hippocampus_against_nibabel_and_numpy(real_data, tmp_path):
    source, folder = real_data / "Task04_Hippocampus", tmp_path / "Task04_Hippocampus"
    description = json.loads((source / "dataset.json").read_text())
    description["training"] = description["training"][:12]
    for part in ("image", "label"):
        for entry in description["training"]:
            (folder / entry[part]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / entry[part], folder / entry[part])
    (folder / "dataset.json").write_text(json.dumps(description))
    fingerprint = take(folder)
    means = []
    for case in fingerprint.cases:
        image = nibabel.load(folder / "imagesTr" / f"{case.name}.nii.gz").get_fdata()
        label = nibabel.load(folder / "labelsTr" / f"{case.name}.nii.gz").get_fdata()
        assert case.shape == image.shape[::-1]
        assert case.class_voxels == tuple(int((label == value).sum()) for value in (0, 1, 2))
        means.append(image[label > 0].mean())
    assert fingerprint.foreground_intensity_properties_per_channel[0].mean == pytest.approx(np.mean(means))
    assert fingerprint.anomalies == ()


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".png", ".tif"])
def test_the_files_of_a_case_are_hashed_byte_for_byte_in_every_format(tmp_path, ending):
    """Also where the reader hashes what it has in hand anyway: both must be the hash of what lies on disk."""
    shape = (1, *SHAPE[1:]) if ending == ".png" else SHAPE
    image, label = sitk.GetImageFromArray(np.full(shape, 7, np.uint8)), np.zeros(shape, np.uint8)
    label[0, 2:4, 2:4] = 1
    for part, picture in (("imagesTr/a_0000", image), ("labelsTr/a", sitk.GetImageFromArray(label))):
        (tmp_path / part).parent.mkdir()
        flat = picture[:, :, 0] if ending == ".png" else picture
        sitk.WriteImage(flat, str(tmp_path / f"{part}{ending}"))
    write_description(tmp_path, "nnunet", ["a"], (0, 1), ["MRI"])
    dataset = read_dataset(tmp_path)
    found = fingerprint_dataset(dataset)
    assert found.cases[0].files_hash == hash_files(dataset.cases[0])
    assert changed_cases(found, dataset) == ()
