"""Datasets damaged on purpose, and the copy that --fix makes: against nibabel, SimpleITK, numpy and the original."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from builders import make_dataset, write_array, write_description
from commands import as_a_user
from dicom_series import write_slices
from scipy import ndimage
from walking import hashes

from mvl_auto.datasets import read_dataset
from mvl_auto.errors import MvlError
from mvl_auto.images import read_image, read_label
from mvl_auto.planners import Repairs, examine_dataset, fingerprint_dataset, repair_dataset
from mvl_auto.plans import read_document

IMAGE, LABEL = "imagesTr/tiny_001_0000.nii.gz", "labelsTr/tiny_001.nii.gz"
SPACING = (3.0, 0.8, 0.9)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four cases with one label, on an oblique grid."""
    folder = make_dataset(tmp_path / "raw", "nnunet", cases=4, label_values=(0, 1), spacing=SPACING, shape=(9, 14, 12))
    (folder / "imagesTs").mkdir()
    (folder / "imagesTs" / "note.txt").write_text("kept")
    (folder / "groups.csv").write_text("case,group\ntiny_000,one\n")
    for file in folder.glob("*Tr/*.nii.gz"):
        save(file, voxels(file), oblique(nibabel.load(file).affine))
    return folder


def oblique(affine: np.ndarray) -> np.ndarray:
    angle = np.deg2rad(12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turned = np.eye(4)
    turned[:3, :3] = turn @ affine[:3, :3]
    turned[:3, 3] = (11.5, -7.25, 30.0)
    return turned


def voxels(file: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(file).dataobj).copy()


def affine(file: Path) -> np.ndarray:
    return nibabel.load(file).affine


def save(file: Path, array: np.ndarray, affine: np.ndarray, codes=(1, 1)) -> None:
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    nibabel.save(image, file)


def repair(folder: Path) -> tuple[Path, Repairs]:
    """The copy and its report; the original must be as it was, and everything that the report does not name copied."""
    before, copy = hashes(folder), folder.parent / "copy"
    report = repair_dataset(folder, copy)
    assert hashes(folder) == before
    after = hashes(copy)
    assert after.pop("repairs.json")
    changed = {file for file in before if after[file] != before[file]}
    assert changed == {repair.file for repair in report.repairs if repair.outcome == "repaired"}
    assert after.keys() == before.keys()
    assert read_document(copy / "repairs.json", Repairs) == report
    return copy, report


def usable(copy: Path) -> None:
    assert len(fingerprint_dataset(read_dataset(copy)).cases) == 4


# ------------------------------------------------------------------------------------- places


def test_a_sound_dataset_is_copied_byte_by_byte(folder):
    copy, report = repair(folder)
    assert report.repairs == report.remaining == ()
    usable(copy)


@pytest.mark.parametrize(
    "shift_mm", [(0.5, -0.4, 0.0), (0.0, 0.0, 2.9), (0.6, 0.6, 2.5)], ids=["less than 1 mm", "a slice", "oblique"]
)
def test_a_label_with_another_origin_takes_its_images_header(folder, shift_mm):
    moved = affine(folder / LABEL)
    moved[:3, 3] += shift_mm
    save(folder / LABEL, voxels(folder / LABEL), moved, codes=(2, 4))
    copy, report = repair(folder)
    (done,) = report.repairs
    assert done.file == LABEL
    assert f"{np.linalg.norm(shift_mm):.3g} mm" in done.done
    image, label = nibabel.load(folder / IMAGE), nibabel.load(copy / LABEL)
    np.testing.assert_array_equal(label.affine, image.affine)
    np.testing.assert_array_equal(label.get_qform(), image.get_qform())
    for code in ("qform_code", "sform_code"):
        assert label.header[code] == image.header[code]
    np.testing.assert_array_equal(voxels(copy / LABEL), voxels(folder / LABEL))
    assert label.get_data_dtype() == np.uint8
    usable(copy)


def test_directions_and_voxel_sizes_that_are_a_little_off_too(folder):
    turned = affine(folder / LABEL)
    angle = np.deg2rad(0.8)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    turned[:3, :3] = turn @ turned[:3, :3] * 1.008
    save(folder / LABEL, voxels(folder / LABEL), turned)
    copy, _ = repair(folder)
    np.testing.assert_array_equal(affine(copy / LABEL), affine(folder / IMAGE))
    usable(copy)


@pytest.mark.parametrize("code", ["LPS", "SRA", "PIL"])
def test_a_label_whose_axes_run_otherwise_is_turned_first(folder, code):
    straight = sitk.ReadImage(str(folder / LABEL))
    turned = sitk.DICOMOrient(straight, code)
    turned.SetOrigin(np.add(turned.GetOrigin(), (0.3, 0.3, -0.5)).tolist())
    sitk.WriteImage(turned, str(folder / LABEL))
    copy, _ = repair(folder)
    np.testing.assert_array_equal(affine(copy / LABEL), affine(folder / IMAGE))
    np.testing.assert_array_equal(voxels(copy / LABEL), sitk.GetArrayFromImage(straight).T)
    usable(copy)


def far_away(matrix: np.ndarray) -> np.ndarray:
    matrix[:3, 3] += (2.0, 0, 0)
    return matrix


def turned_by_3_degrees(matrix: np.ndarray) -> np.ndarray:
    angle = np.deg2rad(3)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix[:3, :3] = turn @ matrix[:3, :3]
    return matrix


def larger(matrix: np.ndarray) -> np.ndarray:
    matrix[:3, :3] *= 1.05
    return matrix


@pytest.mark.parametrize("change", [far_away, turned_by_3_degrees, larger])
def test_a_label_that_lies_elsewhere_is_left_and_told(folder, change):
    save(folder / LABEL, voxels(folder / LABEL), change(affine(folder / LABEL)))
    _, report = repair(folder)
    assert report.repairs == ()
    (left,) = report.remaining
    assert (left.file, left.prevents_use) == (IMAGE, True)
    assert LABEL in left.what


def test_a_label_of_another_size_is_left(folder):
    save(folder / LABEL, voxels(folder / LABEL)[1:], affine(folder / LABEL))
    _, report = repair(folder)
    assert report.repairs == ()
    assert "voxels" in report.remaining[0].what


def test_a_further_channel_takes_the_first_ones_place(tmp_path):
    folder = make_dataset(tmp_path, "nnunet", cases=4, channels=2)
    file = folder / "imagesTr/tiny_002_0001.nii.gz"
    save(file, voxels(file), np.diag([1.004, 1, 1, 1]))
    copy, report = repair(folder)
    assert [done.file for done in report.repairs] == ["imagesTr/tiny_002_0001.nii.gz"]
    np.testing.assert_array_equal(affine(copy / "imagesTr/tiny_002_0001.nii.gz"), np.eye(4))
    np.testing.assert_array_equal(voxels(copy / "imagesTr/tiny_002_0001.nii.gz"), voxels(file))
    usable(copy)


def test_a_label_takes_the_place_of_an_image_of_several_channels_in_one_file(tmp_path):
    folder = make_dataset(tmp_path, "msd", cases=4, channels=3)
    image, label = (f"{part}/tiny_001.nii.gz" for part in ("imagesTr", "labelsTr"))
    assert voxels(folder / image).ndim == 4
    moved = np.eye(4)
    moved[:3, 3] = 0.3
    save(folder / label, voxels(folder / label), moved)
    copy, _ = repair(folder)
    np.testing.assert_array_equal(affine(copy / label), affine(folder / image))
    np.testing.assert_array_equal(voxels(copy / label), voxels(folder / label))
    usable(copy)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd"])
def test_other_formats_keep_theirs(tmp_path, ending):
    folder = make_dataset(tmp_path, "msd", cases=4, label_values=(0, 1), file_ending=ending)
    file = folder / f"labelsTr/tiny_001{ending}"
    label = sitk.ReadImage(str(file))
    changed = sitk.Cast(label * 255, sitk.sitkUInt8)
    changed.SetOrigin((0.2, 0.0, 0.4))
    sitk.WriteImage(changed, str(file))
    copy = tmp_path / "copy"
    report = repair_dataset(folder, copy)
    assert [done.file for done in report.repairs] == [f"labelsTr/tiny_001{ending}"] * 2
    repaired, image = (sitk.ReadImage(str(copy / part / f"tiny_001{ending}")) for part in ("labelsTr", "imagesTr"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(repaired), sitk.GetArrayFromImage(label))
    assert repaired.GetOrigin() == image.GetOrigin()
    assert repaired.GetDirection() == image.GetDirection()
    usable(copy)


# -------------------------------------------------------------------------------------- values


def test_a_mask_of_255_is_mapped_to_the_only_label(folder):
    before = voxels(folder / LABEL)
    save(folder / LABEL, before * 255, affine(folder / LABEL))
    copy, report = repair(folder)
    (done,) = report.repairs
    assert f"{int(before.sum())} voxels of 255 are 1, core" in done.done
    np.testing.assert_array_equal(voxels(copy / LABEL), before)
    assert nibabel.load(copy / LABEL).get_data_dtype() == np.uint8
    usable(copy)


def test_a_mask_of_1_is_mapped_where_the_label_is_255(tmp_path):
    folder = make_dataset(tmp_path, "nnunet", cases=4, label_values=(0, 255))
    save(folder / LABEL, voxels(folder / LABEL).clip(max=1), np.eye(4))
    copy, _ = repair(folder)
    assert set(np.unique(voxels(copy / LABEL))) == {0, 255}
    usable(copy)


def test_a_coloured_png_mask_becomes_a_grey_one(tmp_path):
    folder = make_dataset(tmp_path, "nnunet", cases=4, shape=(30, 28), label_values=(0, 1), file_ending=".png")
    file = folder / "labelsTr/tiny_001.png"
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    write_array(file, np.stack([mask * 255] * 3, axis=-1), (1, 1), is_vector=True)
    copy, _ = repair(folder)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(copy / "labelsTr/tiny_001.png"))), mask)
    usable(copy)


@pytest.mark.parametrize("noise", [0.0, 4e-4])
def test_whole_numbers_in_floating_point_become_the_smallest_integers(tmp_path, noise):
    folder = make_dataset(tmp_path, "nnunet", cases=4, label_values=(0, 2, 300))
    before = voxels(folder / LABEL)
    save(folder / LABEL, before.astype(np.float64) + noise, np.eye(4))
    copy, report = repair(folder)
    assert report.repairs[0].done == "stored as uint16"
    np.testing.assert_array_equal(voxels(copy / LABEL), before)
    assert nibabel.load(copy / LABEL).get_data_dtype() == np.uint16
    usable(copy)


@pytest.mark.parametrize("scale", [1.0, 1.108])
def test_a_soft_mask_is_cut_at_one_half(folder, scale):
    soft = ndimage.gaussian_filter(voxels(folder / LABEL).astype(np.float32), 1) * np.float32(scale)
    save(folder / LABEL, soft, affine(folder / LABEL))
    copy, report = repair(folder)
    np.testing.assert_array_equal(voxels(copy / LABEL), soft >= 0.5)
    assert f"{int((soft >= 0.5).sum())} voxels of 0.5 and more are 1, core" in report.repairs[0].done
    usable(copy)


def test_a_soft_mask_in_scaled_bytes_is_cut_too(folder):
    """As FSL and SPM write them: uint8 with a slope of 1 / 255."""
    soft = np.rint(ndimage.gaussian_filter(voxels(folder / LABEL).astype(float), 1) * 255).astype(np.uint8)
    image = nibabel.Nifti1Image(soft, affine(folder / LABEL))
    image.header.set_slope_inter(1 / 255, 0)
    nibabel.save(image, folder / LABEL)
    shown = nibabel.load(folder / LABEL).get_fdata()
    assert 0 < shown.max() <= 1.01
    copy, _ = repair(folder)
    np.testing.assert_array_equal(voxels(copy / LABEL), shown >= 0.5)


@pytest.mark.parametrize(
    ("values", "factor", "why"),
    [
        ((0, 1, 2), 0.6, "more than one label"),
        ((0, 1), 87.5, "do not lie between 0 and 1"),
        ((0, 1), np.nan, "unknown which label"),
    ],
    ids=["two labels", "no probabilities", "NaN"],
)
def test_a_soft_mask_that_could_mean_anything_is_left(tmp_path, values, factor, why):
    folder = make_dataset(tmp_path, "nnunet", cases=4, label_values=values)
    save(folder / LABEL, voxels(folder / LABEL) * np.float32(factor), np.eye(4))
    _, report = repair(folder)
    (left,) = report.repairs
    assert (left.file, left.outcome) == (LABEL, "left")
    assert why in left.done
    assert [finding.file for finding in report.remaining if finding.prevents_use] == [LABEL]


@pytest.mark.parametrize("stranger", [7, 255])
def test_a_second_unknown_value_is_left(folder, stranger):
    mask = voxels(folder / LABEL)
    mask[0, 0, 0] = stranger
    save(folder / LABEL, mask, affine(folder / LABEL))
    _, report = repair(folder)
    assert report.repairs == ()
    assert str(stranger) in report.remaining[0].what


# -------------------------------------------------------------------------------- what is no number


def test_nan_and_infinity_become_what_the_image_has(folder):
    image, mask = voxels(folder / IMAGE), voxels(folder / LABEL)
    least, greatest = image[2:].min(), image[2:].max()
    image[0] = np.nan
    image[1, 0] = np.inf
    image[1, 1] = -np.inf
    image[1, 2:] = image[2, 2:]
    save(folder / IMAGE, image, affine(folder / IMAGE))
    copy, report = repair(folder)
    expected = image.copy()
    expected[0], expected[1, 0], expected[1, 1] = least, greatest, least
    np.testing.assert_array_equal(voxels(copy / IMAGE), expected)
    labelled = int(mask[0].sum() + mask[1, :2].sum())
    assert report.repairs[0].done.endswith(f"; {labelled} of them are labelled")
    assert f"{image[0].size} NaN set to {least:g}" in report.repairs[0].done
    usable(copy)


def test_an_image_of_nothing_but_nan_is_left(folder):
    save(folder / IMAGE, np.full_like(voxels(folder / IMAGE), np.nan), affine(folder / IMAGE))
    _, report = repair(folder)
    assert [done.outcome for done in report.repairs] == ["left"]
    assert "NaN" in report.remaining[0].what


def test_channels_have_their_own_least_value(tmp_path):
    folder = make_dataset(tmp_path, "msd", cases=4, channels=2)
    file = folder / "imagesTr/tiny_001.nii.gz"
    image = voxels(file)
    least = image[..., 1].min()
    image[3, 3, 3, 1] = np.nan
    save(file, image, np.eye(4))
    copy, _ = repair(folder)
    image[3, 3, 3, 1] = least
    np.testing.assert_array_equal(voxels(copy / "imagesTr/tiny_001.nii.gz"), image)


# -------------------------------------------------------------------------------------- tilts


def tilt(matrix: np.ndarray, degrees: float = 15) -> np.ndarray:
    leaning = matrix.copy()
    thickness = np.linalg.norm(matrix[:3, 2])
    across, along = matrix[:3, 1] / np.linalg.norm(matrix[:3, 1]), matrix[:3, 2] / thickness
    leaning[:3, 2] = thickness * (np.sin(np.deg2rad(degrees)) * across + np.cos(np.deg2rad(degrees)) * along)
    return leaning


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_a_tilted_image_and_its_label_are_straightened(tmp_path, ending):
    folder = make_dataset(tmp_path, "nnunet", cases=4, spacing=SPACING, file_ending=ending)
    files = [folder / f"imagesTr/tiny_001_0000{ending}", folder / f"labelsTr/tiny_001{ending}"]
    before = [sitk.ReadImage(str(file)) for file in files]
    for file, volume in zip(files, before, strict=True):
        leaning = tilt(np.diag([*SPACING[::-1], 1.0]))
        if ending == ".nii.gz":
            save(file, sitk.GetArrayFromImage(volume).T, leaning)
        else:
            volume.SetDirection((np.diag([-1, -1, 1]) @ leaning[:3, :3] / SPACING[::-1]).ravel().tolist())
            sitk.WriteImage(volume, str(file))
    (told,) = examine_dataset(folder).findings
    assert (told.file, told.prevents_use) == (f"imagesTr/tiny_001_0000{ending}", False)
    assert "15 degrees off a right angle" in told.what
    copy, report = repair(folder)
    assert [done.file for done in report.repairs] == [str(file.relative_to(folder)) for file in files]
    assert report.remaining == ()
    image, label = (sitk.ReadImage(str(copy / file.relative_to(folder))) for file in files)  # refuses what is sheared
    assert (image.GetSize(), image.GetDirection()) == (label.GetSize(), label.GetDirection())
    lengths = np.array([*SPACING[:0:-1], SPACING[0] * np.cos(np.deg2rad(15))])
    np.testing.assert_allclose(image.GetSpacing(), lengths, rtol=1e-5)
    leaning = tilt(np.diag([*SPACING[::-1], 1.0]))
    new = read_image([copy / files[0].relative_to(folder)]).geometry.affine
    index = np.stack(np.meshgrid(*map(np.arange, image.GetSize()), indexing="ij"))
    back = np.linalg.inv(leaning) @ new
    places = np.tensordot(back[:3, :3], index, 1) + back[:3, 3, None, None, None]
    inside = ((places >= 2) & (places <= np.array(before[0].GetSize()).reshape(3, 1, 1, 1) - 3)).all(axis=0)
    stored = sitk.GetArrayFromImage(before[0]).T.astype(float)
    expected = ndimage.map_coordinates(stored, places, order=3, mode="nearest")
    found = read_image([copy / files[0].relative_to(folder)]).array[0].T
    assert inside.sum() > 1000
    np.testing.assert_allclose(found[inside], expected.clip(stored.min(), stored.max())[inside], atol=0.05)
    mask = ndimage.map_coordinates(sitk.GetArrayFromImage(before[1]).T, places, order=0, mode="nearest")
    classes = read_label(copy / files[1].relative_to(folder))[0].T
    assert (classes != mask)[inside].mean() < 2e-3
    assert set(np.unique(classes)) == {0, 1, 2}
    usable(copy)


def test_what_goes_wrong_together_is_repaired_together(folder):
    """A tilted image with NaN, its label a little shifted, soft, and with its axes in another order."""
    image, mask = voxels(folder / IMAGE), voxels(folder / LABEL)
    image[0, 0, 0] = np.nan
    leaning = tilt(affine(folder / IMAGE))
    save(folder / IMAGE, image, leaning)
    turned = leaning @ np.array([[-1, 0, 0, mask.shape[0] - 1], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    turned[:3, 3] += 0.2
    save(folder / LABEL, mask[::-1].swapaxes(1, 2).astype(np.float32) * 0.9, turned)
    problems = [finding.what for finding in examine_dataset(folder).findings]
    assert len(problems) == 2, problems
    copy, report = repair(folder)
    assert [done.file for done in report.repairs] == [IMAGE, IMAGE, LABEL, LABEL, LABEL]
    assert report.remaining == ()
    assert affine(copy / LABEL).tolist() == affine(copy / IMAGE).tolist()
    assert abs(voxels(copy / LABEL).sum() - mask.sum()) < 0.05 * mask.sum()
    usable(copy)


@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_slices_of_a_tilted_gantry_become_a_straight_file(tmp_path, layout):
    """A ramp along the patient's axes stays one: every voxel of the copy has the value of its place."""
    folder = make_dataset(tmp_path, layout, cases=4)
    name = "tiny_001" if layout == "msd" else "tiny_001_0000"
    slope, count, lean = np.array([2.0, 3.0, 5.0]), 12, np.tan(np.deg2rad(15))
    z, y, x = np.meshgrid(np.arange(count) * 2.0, np.arange(40) * 0.8, np.arange(20) * 0.7, indexing="ij")
    ramp = np.stack([x, y + lean * z, z], axis=-1) @ slope

    def tilted(dataset, k):
        dataset.ImagePositionPatient = [0, round(lean * 2.0 * k, 6), 2.0 * k]

    write_slices(folder / "imagesTr" / name, (10 * ramp).astype(np.int16), spacing=(2.0, 0.8, 0.7), edit=tilted)
    (folder / "imagesTr" / f"{name}.nii.gz").unlink()
    leaning = read_image([folder / "imagesTr" / name]).geometry.file.affine
    save(folder / "labelsTr/tiny_001.nii.gz", (ramp.T > 100).astype(np.uint8), leaning)
    if layout == "msd":
        text = (folder / "dataset.json").read_text()
        (folder / "dataset.json").write_text(text.replace("imagesTr/tiny_001.nii.gz", "imagesTr/tiny_001"))
    (told,) = [found for found in examine_dataset(folder).findings if "tilted" in found.what]
    assert "gantry tilted by 15 degrees" in told.what
    copy = tmp_path / "repaired"
    report = repair_dataset(folder, copy, workers=1)
    assert {done.file for done in report.repairs} == {f"imagesTr/{name}", "labelsTr/tiny_001.nii.gz"}
    image = sitk.ReadImage(str(copy / "imagesTr" / f"{name}.nii.gz"))  # refuses what is sheared
    index = np.argwhere(sitk.GetArrayFromImage(image).T > 0)
    places = [np.array(image.TransformIndexToPhysicalPoint(each.tolist())) for each in index[::50]]
    found = [image[each.tolist()] for each in index[::50]]
    np.testing.assert_allclose(np.median(np.abs(np.array(found) - 10 * np.array(places) @ slope)), 0, atol=1)
    usable(copy)


def test_a_tilted_image_whose_label_lies_elsewhere_is_left_whole(folder):
    save(folder / IMAGE, voxels(folder / IMAGE), tilt(affine(folder / IMAGE)))
    _, report = repair(folder)
    assert report.repairs == ()
    assert [finding.file for finding in report.remaining if finding.prevents_use] == [IMAGE]


# --------------------------------------------------------------------------- the copy as a whole


def test_copies_of_an_image_are_told_and_kept(folder):
    for part in (IMAGE, LABEL):
        shutil.copyfile(folder / part, folder / part.replace("001", "002"))
    copy, report = repair(folder)
    assert "is the same image as" in report.remaining[0].what
    assert not report.remaining[0].prevents_use
    usable(copy)


def test_what_cannot_be_read_is_copied_and_told(folder):
    (folder / IMAGE).write_bytes((folder / IMAGE).read_bytes()[:300])
    (folder / LABEL.replace("001", "002")).unlink()
    _, report = repair(folder)
    assert report.repairs == ()
    assert sorted(finding.file for finding in report.remaining) == [IMAGE, IMAGE.replace("001", "002")]


def test_what_may_not_be_read_is_left_out_and_told(folder, tmp_path):
    """In a child that is not root, or root without its right to read everything."""
    locked = [folder / IMAGE, folder / LABEL.replace("001", "002"), folder / "imagesTs" / "note.txt"]
    for file in locked:
        file.chmod(0)
    program = (
        "import sys; from pathlib import Path; from mvl_auto.planners import repair_dataset\n"
        "report = repair_dataset(Path(sys.argv[1]), Path(sys.argv[2]), workers=1)\n"
        "for repair in report.repairs: print(repair.file, repair.found, repair.outcome, sep=': ')"
    )
    said = as_a_user(sys.executable, "-c", program, str(folder), str(tmp_path / "copy"))
    names = [str(file.relative_to(folder)) for file in locked]
    assert said.splitlines() == [f"{name}: cannot be read (Permission denied): left" for name in names]
    copied = {str(file.relative_to(tmp_path / "copy")) for file in (tmp_path / "copy").rglob("*") if file.is_file()}
    assert copied == (set(hashes(folder)) | {"repairs.json"}) - set(names)


def test_voxels_that_lie_in_another_folder_come_along(tmp_path):
    folder = make_dataset(tmp_path / "raw", "nnunet", cases=4, label_values=(0, 1), file_ending=".mhd")
    inside, beyond = (folder / "imagesTr" / f"tiny_00{n}_0000.mhd" for n in (1, 2))
    for header, place in ((inside, folder / "imagesTr" / "voxels"), (beyond, tmp_path / "elsewhere")):
        place.mkdir()
        raw = header.with_suffix(".raw")
        moved = Path(shutil.move(raw, place / "all.bin"))
        name = os.path.relpath(moved, header.parent)
        header.write_text(header.read_text().replace(f"ElementDataFile = {raw.name}", f"ElementDataFile = {name}"))
        assert name in header.read_text()
    before = fingerprint_dataset(read_dataset(folder))
    copy = tmp_path / "copies" / folder.name
    repair_dataset(folder, copy)
    shutil.rmtree(tmp_path / "elsewhere")
    shutil.rmtree(folder)
    after = fingerprint_dataset(read_dataset(copy))
    assert [case.image_hash for case in after.cases] == [case.image_hash for case in before.cases]
    assert (copy / "imagesTr" / "voxels" / "all.bin").is_file()


def test_files_outside_the_dataset_come_along_and_are_called_so(tmp_path):
    made = make_dataset(tmp_path / "made", "nnunet", cases=4, label_values=(0, 1), shape=(8, 9, 10))
    folder = tmp_path / "Dataset008_Explicit"
    names = [f"tiny_{n:03d}" for n in range(4)]
    outside = {name: {"images": [str(made / f"imagesTr/{name}_0000.nii.gz")]} for name in names}
    for name in names:
        shutil.copytree(made / "labelsTr", folder / "labelsTr", dirs_exist_ok=True)
        outside[name]["label"] = f"labelsTr/{name}.nii.gz"
    save(folder / LABEL, voxels(folder / LABEL) * 255, np.eye(4))
    write_description(folder, "nnunet", names, (0, 1), dataset=outside)
    before = fingerprint_dataset(read_dataset(make_sound(folder, tmp_path / "sound")))
    copy = tmp_path / "Dataset008_Explicit_Copy"
    repair_dataset(folder, copy)
    shutil.rmtree(made)
    after = fingerprint_dataset(read_dataset(copy))
    assert [case.image_hash for case in after.cases] == [case.image_hash for case in before.cases]
    assert [case.label_hash for case in after.cases] == [case.label_hash for case in before.cases]
    described = json.loads((copy / "dataset.json").read_text())
    assert all(not Path(entry["images"][0]).is_absolute() for entry in described["dataset"].values())


def make_sound(folder: Path, other: Path) -> Path:
    """The same dataset before the label was damaged."""
    shutil.copytree(folder, other)
    save(other / LABEL, voxels(folder / LABEL) // 255, np.eye(4))
    return other


def test_workers_write_the_same_copy(folder, tmp_path):
    save(folder / LABEL, voxels(folder / LABEL) * 255, affine(folder / LABEL))
    first = repair_dataset(folder, tmp_path / "one" / "copy", workers=1)
    second = repair_dataset(folder, tmp_path / "two" / "copy", workers=2)
    assert first == second
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


@pytest.mark.parametrize("place", ["inside", "itself", "above", "taken", "a file"])
def test_a_copy_has_a_place_of_its_own(folder, tmp_path, place):
    out = {
        "inside": folder / "copy",
        "itself": folder,
        "above": folder.parent,
        "taken": tmp_path / "taken",
        "a file": tmp_path / "file",
    }[place]
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    (tmp_path / "file").touch()
    before = hashes(tmp_path)
    with pytest.raises(MvlError, match=r"cannot be written there|is there already"):
        repair_dataset(folder, out)
    assert hashes(tmp_path) == before


def test_an_empty_folder_is_a_place(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    repair_dataset(folder, tmp_path / "empty")
    assert (tmp_path / "empty" / "repairs.json").is_file()
    usable(tmp_path / "empty")


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from mvl_auto.planners import repair_dataset

@contextmanager
def progress(what, total, unit="case", done=0):
    def advance(amount=1, note=""):
        os.kill(os.getpid(), signal.SIGKILL)
    yield advance

repair_dataset(Path(sys.argv[1]), Path(sys.argv[2]), workers=1, progress=progress)
"""


def test_a_process_that_is_killed_leaves_nothing_that_looks_finished(folder, tmp_path):
    out = tmp_path / "out" / "copy"
    done = subprocess.run([sys.executable, "-c", KILLED, folder, out], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    (left,) = out.parent.iterdir()
    assert left.name == ".copy.unfinished"
    repair_dataset(folder, out)
    assert [entry.name for entry in out.parent.iterdir()] == ["copy"]
    assert not [file for file in out.rglob("*") if file.name.startswith(".")]
    usable(out)


# -------------------------------------------------------------------------------------- real data


def real_dataset(tmp_path: Path, real_data: Path, image: str, label: str, values=(0, 1)) -> Path:
    folder = tmp_path / "Dataset010_Real"
    for part, file in (("imagesTr/a_0000.nii.gz", image), ("labelsTr/a.nii.gz", label)):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real_data / "samples" / file, folder / part)
    write_description(folder, "nnunet", ["a"], values, file_ending=".nii.gz")
    return folder


@pytest.mark.parametrize("which", ["gmseg", "wmseg"])
def test_the_soft_labels_of_the_cord(real_data, tmp_path, which):
    folder = real_dataset(tmp_path, real_data, "cord_mt/mt1.nii.gz", f"cord_mt/mt1_{which}.nii.gz")
    soft = nibabel.load(folder / "labelsTr/a.nii.gz").get_fdata()
    copy, report = repair(folder)
    assert f"{soft.max():.4g}" in report.repairs[0].found
    np.testing.assert_array_equal(voxels(copy / "labelsTr/a.nii.gz"), soft >= 0.5)
    assert fingerprint_dataset(read_dataset(copy)).anomalies == ()


def test_a_label_takes_the_place_of_dicom_slices(real_data, tmp_path):
    folder = tmp_path / "Dataset011_Dicom"
    shutil.copytree(real_data / "samples/ct/dicom", folder / "imagesTr/a_0000")
    label = folder / "labelsTr/a.nii.gz"
    label.parent.mkdir()
    original = nibabel.load(real_data / "samples/ct/example_seg_dicom.nii.gz")
    shifted = original.affine.copy()
    shifted[:3, 3] += (0.4, 0.4, 1.0)
    save(label, np.asanyarray(original.dataobj), shifted)
    values = np.unique(original.dataobj).tolist()
    write_description(folder, "nnunet", ["a"], labels={f"label {value}": value for value in values})
    copy, report = repair(folder)
    assert report.repairs[0].file == "labelsTr/a.nii.gz"
    series = sitk.ImageSeriesReader()
    series.SetFileNames(series.GetGDCMSeriesFileNames(str(folder / "imagesTr/a_0000")))
    image, repaired = series.Execute(), sitk.ReadImage(str(copy / "labelsTr/a.nii.gz"))
    oriented = [sitk.DICOMOrient(volume, "RAS") for volume in (image, repaired)]
    np.testing.assert_allclose(oriented[1].GetOrigin(), oriented[0].GetOrigin(), atol=1e-3)
    unmoved = sitk.DICOMOrient(sitk.ReadImage(str(real_data / "samples/ct/example_seg_dicom.nii.gz")), "RAS")
    np.testing.assert_array_equal(*(sitk.GetArrayFromImage(volume) for volume in (oriented[1], unmoved)))


def test_a_real_label_with_other_codes_takes_those_of_its_image(real_data, tmp_path):
    folder = real_dataset(tmp_path, real_data, "odd/t2.nii.gz", "odd/t2_seg-manual.nii.gz")
    file = folder / "labelsTr/a.nii.gz"
    label, image = nibabel.load(file), nibabel.load(folder / "imagesTr/a_0000.nii.gz")
    assert int(label.header["sform_code"]) != int(image.header["sform_code"])
    shifted = label.affine.copy()
    shifted[:3, 3] += (0.5, 0, 0)
    save(file, voxels(file), shifted, codes=(2, 2))
    copy, _ = repair(folder)
    repaired = nibabel.load(copy / "labelsTr/a.nii.gz")
    for field in ("qform_code", "sform_code", "srow_x", "quatern_b", "qoffset_x", "pixdim"):
        np.testing.assert_array_equal(repaired.header[field], image.header[field])
    np.testing.assert_array_equal(voxels(copy / "labelsTr/a.nii.gz"), voxels(file))


def test_real_labels_in_float64_become_bytes(real_data, tmp_path):
    label = "odd/t2_seg-manual_labeled.nii.gz"
    folder = real_dataset(tmp_path, real_data, "odd/t2.nii.gz", label, values=(0, 2, 3, 4, 5))
    copy, report = repair(folder)
    assert report.repairs[0].found == "whole numbers stored as float64"
    assert nibabel.load(copy / "labelsTr/a.nii.gz").get_data_dtype() == np.uint8
    np.testing.assert_array_equal(voxels(copy / "labelsTr/a.nii.gz"), voxels(real_data / "samples" / label))


def test_a_linked_file_becomes_a_file_of_the_copy_and_what_it_leads_to_stays_as_it_is(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    save(folder / LABEL, voxels(folder / LABEL).astype(np.float32), affine(folder / LABEL))  # will be repaired
    for name in (IMAGE, LABEL):
        shutil.move(folder / name, elsewhere / Path(name).name)
        (folder / name).symlink_to(elsewhere / Path(name).name)
    before = hashes(elsewhere)
    repaired = repair_dataset(folder, tmp_path / "copy")
    assert LABEL in {repair.file for repair in repaired.repairs}
    for name in (IMAGE, LABEL):
        assert not (tmp_path / "copy" / name).is_symlink()
    assert voxels(tmp_path / "copy" / LABEL).dtype.kind in "iu"
    assert hashes(elsewhere) == before
    assert (folder / LABEL).is_symlink()


def test_the_unfinished_copy_is_no_link_to_a_folder_of_others(folder, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("precious")
    (tmp_path / ".copy.unfinished").symlink_to(tmp_path / "precious")
    with pytest.raises(MvlError, match="is a link"):
        repair_dataset(folder, tmp_path / "copy")
    assert (tmp_path / "precious" / "file").read_text() == "precious"
