"""Label values of every integer type, however large: training, what prediction writes, what evaluation reads."""

from __future__ import annotations

import gzip
import struct
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal

from mvl_auto.datasets import Case, load_case, load_label, read_scheme, to_classes, to_values
from mvl_auto.errors import MvlError
from mvl_auto.images import read_image, read_label, write_label

TYPES = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64]
VALUES = [-(2**63), -(2**31), -70_000, -129, -1, 2, 127, 255, 32_768, 65_535, 65_536, 614_454_277]
VALUES += [2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]
SHAPE = (4, 5, 6)
TABLE, SPARSE = "table", "sparse"


def scheme_of(*values: int, ignore: int | None = None) -> Any:
    named = {"background": 0, **{f"label {value}": value for value in values}}
    return read_scheme({"labels": named | ({} if ignore is None else {"ignore": ignore})}, "dataset.json")


def fits(value: int, dtype: Any) -> bool:
    return bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)


def expected_classes(values: Any, scheme: Any) -> Any:
    """Voxel by voxel, in Python's integers."""
    known = {value: number for number, value in enumerate(scheme.class_values)} | {scheme.ignore_value: -1}
    return np.array([known[int(value)] for value in values.ravel()]).reshape(values.shape)


def kinds() -> list[Any]:
    """(type, value, values of the file): by the table for 0 to 65535; a value beyond makes all go by binary search."""
    found = []
    for dtype in TYPES:
        beyond = [far for far in (-2, 70_000, -100) if fits(far, dtype)][:1]
        for value in VALUES:
            for values in {(value,), (value, *beyond)}:
                together = min(values) < 0 and max(values) > np.iinfo(np.int64).max  # no type holds both
                if fits(value, dtype) and not together:
                    road = TABLE if min(values) >= 0 and max(values) < 65_536 else SPARSE
                    found.append(pytest.param(dtype, values, id=f"{np.dtype(dtype)} {values} {road}"))
    return found


@pytest.mark.parametrize(("dtype", "values"), kinds())
@pytest.mark.parametrize("ending", [".nii", ".nrrd"])
def test_any_value_of_any_type_is_read_written_and_read_again(
    tmp_path: Path, ending: str, dtype: Any, values: tuple[int, ...]
) -> None:
    scheme = scheme_of(*values, 100)
    stored = np.random.default_rng(0).choice(np.array([0, 100, *values], dtype), SHAPE)
    stored.flat[: len(values)] = values
    image = tmp_path / f"image{ending}"
    write(image, np.ones(SHAPE, np.int16))
    label = tmp_path / f"label{ending}"
    write(label, stored)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume, classes = load_case(Case("a", (image,), label), scheme, 1)  # training
        assert_array_equal(classes, expected_classes(stored, scheme))
        assert classes is not None
        prediction = tmp_path / f"prediction{ending}"
        write_label(prediction, to_values(classes, scheme), volume.geometry, scheme.class_values)
        assert_array_equal(read_label(prediction)[0].astype(object), stored.astype(object))
        assert_array_equal(load_label(prediction, scheme)[0], classes)  # evaluation


def write(path: Path, array_zyx: Any) -> None:
    if path.suffix == ".nii":
        nibabel.save(nibabel.Nifti1Image(array_zyx.T, np.eye(4), dtype=array_zyx.dtype), path)
        return
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array_zyx)
    image.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("dtype", TYPES)
def test_values_that_the_type_cannot_hold_are_not_in_the_file(dtype: Any) -> None:
    """dataset.json names -1 and 614454277; a file of 8 bits holds neither, and its 255 is not -1."""
    scheme = scheme_of(1, 614_454_277, ignore=-1)
    assert_array_equal(to_classes(np.array([0, 1, 1, 0], dtype), scheme, "file"), [0, 1, 1, 0])
    highest = int(np.iinfo(dtype).max)
    with pytest.raises(MvlError, match=f"has the label value {highest}, which"):
        to_classes(np.array([0, highest], dtype), scheme, "file")


def test_labels_that_no_type_holds_together_are_refused() -> None:
    with pytest.raises(MvlError, match=r"labels -1 and 9223372036854775808, which no integer type holds together"):
        scheme_of(2**63, ignore=-1)
    with pytest.raises(MvlError, match="too large for 64 bits"):
        scheme_of(2**64)


def test_an_unknown_negative_value_may_be_what_nobody_labelled() -> None:
    with pytest.raises(MvlError, match=r'If nobody labelled these voxels, add "ignore": -1 to dataset\.json'):
        to_classes(np.array([0, 1, -1]), scheme_of(1), "file")


# ------------------------------------------------------------------------------ masks of pictures


@pytest.mark.parametrize("white", [255, 65_535])
def test_a_mask_of_a_picture_is_told_as_one(white: int) -> None:
    """In the same words for every file, so that they can be counted."""
    for file in ("a", "b"):
        with pytest.raises(MvlError) as caught:
            to_classes(np.array([[0, white]], np.uint16), scheme_of(1), file)
        assert caught.value.what == f"holds 0 and {white}, dataset.json names 0 and 1: a mask saved as a picture"
        assert caught.value.remedy.startswith("Run mvl_doctor --fix FOLDER")
        assert "add" not in str(caught.value).lower()


def test_255_beside_other_labels_is_only_unknown() -> None:
    for values, scheme in (([0, 1, 255], scheme_of(1)), ([0, 255], scheme_of(1, 2))):
        with pytest.raises(MvlError, match=r"has the label value 255, which dataset.json does not name"):
            to_classes(np.array(values), scheme, "file")
    assert_array_equal(to_classes(np.array([0, 255]), scheme_of(255), "file"), [0, 1])


# ------------------------------------------------------------------------------ scaled by the header


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((1, 2, 3), np.uint8),
        ((1, 2, 3), np.int16),
        (tuple(range(1, 8)), np.uint8),
        ((1024, 2035, 11175, 14175), np.int16),  # FreeSurfer's, 0.216 apart
        ((-1, 5), np.uint8),
        (tuple(range(1, 121)), np.uint8),
    ],
)
def test_a_label_map_behind_a_quantising_slope_is_rounded(tmp_path: Path, values: Any, dtype: Any) -> None:
    stored = np.random.default_rng(0).choice(np.array([0, *values], float), (6, 7, 8))
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_data_dtype(dtype)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert nibabel.load(tmp_path / "a.nii.gz").dataobj.slope != 1
    assert_array_equal(read_label(tmp_path / "a.nii.gz")[0], stored.T)


def test_soft_and_merged_labels_behind_a_slope_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, array, said in (
        ("soft", rng.uniform(0, 1, (6, 7, 8)), "a soft label"),
        ("merged", rng.integers(0, 70_000, (6, 7, 8)).astype(float), "neighbouring label values cannot be told apart"),
    ):
        image = nibabel.Nifti1Image(array, np.eye(4))
        image.header.set_data_dtype(np.uint8)
        nibabel.save(image, tmp_path / f"{name}.nii.gz")
        with pytest.raises(MvlError, match=said):
            read_label(tmp_path / f"{name}.nii.gz")


def test_values_shifted_by_a_copied_intercept_are_told(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.tile(np.array([0, 1], np.int16), (4, 4, 2)), np.eye(4)), tmp_path / "a.nii.gz")
    content = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    content[112:120] = struct.pack("<ff", 1.0, -1024.0)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content)))
    said = "has the label values -1024, -1023 by the scaling of its header; as stored, dataset.json names all of them"
    with pytest.raises(MvlError, match=said):
        load_label(tmp_path / "a.nii.gz", scheme_of(1))
    assert_array_equal(np.unique(read_image([tmp_path / "a.nii.gz"]).array), [-1024, -1023])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_labels_of_floating_point_are_read_without_a_warning(tmp_path: Path, dtype: Any) -> None:
    stored = np.arange(24, dtype=dtype).reshape(4, 6)
    tifffile.imwrite(tmp_path / "a.tif", stored)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_array_equal(read_label(tmp_path / "a.tif")[0][0], stored)
