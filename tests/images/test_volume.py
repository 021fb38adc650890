"""Geometry: canonical arrays and their way back, against SimpleITK and nibabel."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from builders import write_array
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from mvl_auto.errors import MvlError
from mvl_auto.images import (
    check_finite,
    check_same_geometry,
    file_ending,
    read_image,
    read_label,
    stem,
    write_label,
    write_probabilities,
)
from mvl_auto.images.geometry import FileGrid, canonical_geometry, to_canonical

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
ORIENTATIONS = [
    "".join(letters) for axes in itertools.permutations(["RL", "AP", "SI"]) for letters in itertools.product(*axes)
]
MEDICAL_ENDINGS = [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"]
OBLIQUE = (12.0, -8.0, 20.0)  # degrees about x, y, z: far from any other axis

in_a_fixed_folder = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def itk_image(
    size: tuple[int, int, int] = (5, 6, 7),
    spacing: tuple[float, float, float] = (0.7, 1.3, 2.5),
    angles: tuple[float, float, float] = OBLIQUE,
    orientation: str = "LPS",
    dtype: str = "int16",
    seed: int = 0,
) -> sitk.Image:
    """Noise on an oblique grid; size and spacing are those of the axes that are closest to x, y, z."""
    noise = np.random.default_rng(seed).normal(scale=50, size=size[::-1]).astype(dtype)
    image = sitk.GetImageFromArray(noise)
    image.SetSpacing(spacing)
    image.SetOrigin((-31.5, 12.25, 77.125))
    image.SetDirection(Rotation.from_euler("xyz", angles, degrees=True).as_matrix().ravel().tolist())
    return sitk.DICOMOrient(image, orientation)


def save(image: sitk.Image, path: Path) -> Path:
    sitk.WriteImage(image, str(path))
    return path


def assert_same_frame(a: sitk.Image, b: sitk.Image, tolerance: float = 0.0) -> None:
    assert a.GetSize() == b.GetSize()
    assert_allclose(a.GetSpacing(), b.GetSpacing(), rtol=tolerance, atol=tolerance)
    assert_allclose(a.GetOrigin(), b.GetOrigin(), rtol=tolerance, atol=tolerance)
    assert_allclose(a.GetDirection(), b.GetDirection(), rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------------------ canonical arrays


@given(
    angles=st.tuples(*[st.floats(-25, 25)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 9)] * 3),
    size=st.tuples(*[st.integers(2, 6)] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
)
@in_a_fixed_folder
def test_every_voxel_lies_where_simpleitk_says(
    tmp_path: Path, angles: Any, spacing: Any, size: Any, orientation: str
) -> None:
    image = itk_image(size, spacing, angles, orientation)
    volume = read_image([save(image, tmp_path / "image.mha")])
    array = volume.array[0]
    for z, y, x in np.ndindex(array.shape):
        point_ras = volume.geometry.affine[:3] @ [x, y, z, 1]
        index = image.TransformPhysicalPointToIndex((LPS_TO_RAS @ point_ras).tolist())
        assert array[z, y, x] == image[index]
    assert_allclose(volume.spacing[::-1], spacing, rtol=1e-5)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_a_turned_copy_is_the_same_canonical_image(tmp_path: Path, ending: str) -> None:
    original = read_image([save(itk_image(), tmp_path / f"original{ending}")])
    for orientation in ORIENTATIONS:
        turned = save(itk_image(orientation=orientation), tmp_path / f"turned{ending}")
        volume = read_image([turned])
        assert_array_equal(volume.array, original.array)
        assert volume.spacing == original.spacing
        assert_allclose(volume.geometry.affine, original.geometry.affine, atol=1e-4)


@pytest.mark.parametrize("angles", [(0, 0, 45), (45, 0, 0), (0, -45, 0), (45, 45, 0), (30, 0, 45), (45, 35.2644, 45)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_axes_exactly_between_two_directions_are_turned_one_way_from_all_48_orders(angles: Any, dtype: Any) -> None:
    array = np.random.default_rng(0).normal(size=(3, 4, 5))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * (1.5, 1.5, 2.0)
    found = []
    for order in itertools.permutations(range(3)):
        for flips in itertools.product([False, True], repeat=3):
            turn = np.eye(4)[:, [*order, 3]]  # from the turned copy's index to the original's
            for axis, flip in zip(order, flips, strict=True):
                if flip:
                    turn[axis] *= -1
                    turn[axis, 3] = array.shape[axis] - 1
            flipped = np.flip(array, [axis for axis, flip in zip(order, flips, strict=True) if flip])
            copy = flipped.transpose(order)
            i, j, k = copy.shape
            stored = (affine @ turn).astype(dtype).astype(float)  # as a header rounds it
            geometry = canonical_geometry(FileGrid((i, j, k), stored), "file")
            found.append((to_canonical(copy, geometry), geometry.affine))
    assert len(found) == 48
    for canonical, its_affine in found:
        assert_array_equal(canonical, found[0][0])
        assert_allclose(its_affine, found[0][1], atol=1e-5)


@pytest.mark.parametrize("spacing", [0.9765625, 1.953125, 0.5859375, 0.3515625, 0.488281, 9.99999, 1.00001, 0.1])
def test_a_voxel_size_is_the_same_number_whichever_oblique_header_it_went_through(spacing: float) -> None:
    seen = set()
    for seed in range(50):
        turn = Rotation.random(random_state=seed).as_matrix() if seed else np.eye(3)
        affine = np.eye(4, dtype=np.float32)
        affine[:3, :3] = turn * np.array([spacing, spacing, 2 * spacing])
        geometry = canonical_geometry(FileGrid((3, 4, 5), affine.astype(float)), "file")
        seen.add(tuple(sorted(geometry.spacing)))
    (found,) = seen
    assert_allclose(found, (spacing, spacing, 2 * spacing), rtol=6e-6)


def test_axes_run_to_the_right_the_front_and_the_head(tmp_path: Path) -> None:
    volume = read_image([save(itk_image(angles=(0, 0, 0), orientation="PIR"), tmp_path / "image.nii.gz")])
    by_nibabel = nibabel.as_closest_canonical(nibabel.load(tmp_path / "image.nii.gz"))
    assert nibabel.aff2axcodes(volume.geometry.affine) == ("R", "A", "S")
    assert_array_equal(volume.array[0], by_nibabel.get_fdata().T)
    assert_allclose(volume.geometry.affine, by_nibabel.affine, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_is_the_plane_of_y_and_x_whatever_its_orientation(tmp_path: Path, axis: int) -> None:
    i, j, k = (1 if n == axis else 5 + n for n in range(3))
    image = itk_image((i, j, k), angles=(0, 0, 0))
    volume = read_image([save(image, tmp_path / "slice.nii.gz")])
    assert volume.geometry.shape[0] == 1
    assert volume.geometry.dimensions == 2
    write_label(tmp_path / "label.nii.gz", (volume.array[0] > 0).astype(np.uint8), volume.geometry)
    written = sitk.ReadImage(str(tmp_path / "label.nii.gz"))
    assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(image) > 0)
    assert_same_frame(written, sitk.ReadImage(str(tmp_path / "slice.nii.gz")))


# ------------------------------------------------------------------------------ the way back


@pytest.mark.parametrize("ending", MEDICAL_ENDINGS)
@pytest.mark.parametrize("orientation", ["LPS", "RAS", "ASR", "PIR", "SLA"])
def test_a_prediction_has_its_images_grid_to_the_last_bit(tmp_path: Path, ending: str, orientation: str) -> None:
    source = save(itk_image(orientation=orientation), tmp_path / f"image{ending}")
    volume = read_image([source])
    target = tmp_path / f"label{ending}"
    write_label(target, (volume.array[0] > 0).astype(np.uint8), volume.geometry)
    image, written = sitk.ReadImage(str(source)), sitk.ReadImage(str(target))
    # NRRD stores spacing times direction: the last bit of each is lost in any reader
    assert_same_frame(written, image, tolerance=1e-14 if ending == ".nrrd" else 0.0)
    assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(image) > 0)
    assert written.GetPixelID() == image.GetPixelID()


@given(
    affine=st.tuples(*[st.floats(-2, 2)] * 12).map(lambda v: np.array([*v[:3], v[9], *v[3:6], v[10], *v[6:9], v[11]])),
    codes=st.tuples(st.integers(0, 4), st.integers(1, 4)),
)
@in_a_fixed_folder
def test_any_affine_sheared_ones_too_is_written_as_it_was_read(tmp_path: Path, affine: Any, codes: Any) -> None:
    matrix = np.vstack([affine.reshape(3, 4), [0, 0, 0, 1]])
    matrix[:3, :3] += 3 * np.eye(3)  # keeps it away from singular ones
    header = nibabel.Nifti1Header()
    header.set_xyzt_units("mm")
    header.set_sform(matrix, codes[1])
    header.set_qform(matrix, codes[0])  # without the shear: differs from the sform
    voxels = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(voxels, None, header), tmp_path / "image.nii")
    volume = read_image([tmp_path / "image.nii"])
    assert_allclose(sorted(volume.spacing), sorted(np.linalg.norm(matrix[:3, :3], axis=0)), rtol=1e-5)
    values, geometry = read_label(tmp_path / "image.nii")
    write_label(tmp_path / "label.nii", values, geometry)
    image, label = nibabel.load(tmp_path / "image.nii"), nibabel.load(tmp_path / "label.nii")
    assert_array_equal(label.affine, image.affine)
    for form in ("get_sform", "get_qform"):
        mine, its = getattr(image, form)(coded=True), getattr(label, form)(coded=True)
        assert mine[1] == its[1]
        assert_array_equal(mine[0], its[0])
    assert label.header.get_xyzt_units() == image.header.get_xyzt_units()
    assert_array_equal(np.asarray(label.dataobj), voxels)


@pytest.mark.parametrize("ending", MEDICAL_ENDINGS)
def test_probabilities_lie_on_the_images_grid(tmp_path: Path, ending: str) -> None:
    source = save(itk_image(orientation="PIR"), tmp_path / f"image{ending}")
    volume = read_image([source])
    pair = np.stack([volume.array[0], volume.array[0] / 7])
    write_probabilities(tmp_path / f"p{ending}", pair, volume.geometry)
    again = read_image([tmp_path / f"p{ending}"])
    assert_array_equal(again.array, pair)
    check_same_geometry(volume.geometry, again.geometry, source, "p")


def test_an_image_can_be_written_in_another_format(tmp_path: Path) -> None:
    source = save(itk_image(orientation="PIR"), tmp_path / "image.nrrd")
    volume = read_image([source])
    for ending in (".nii.gz", ".mha"):
        write_label(tmp_path / f"label{ending}", (volume.array[0] > 0).astype(np.uint8), volume.geometry)
        written = sitk.ReadImage(str(tmp_path / f"label{ending}"))
        assert_same_frame(written, sitk.ReadImage(str(source)), tolerance=1e-5)
    nifti = read_image([save(itk_image(orientation="PIR"), tmp_path / "image.nii.gz")])
    write_label(tmp_path / "from_nifti.mha", (nifti.array[0] > 0).astype(np.uint8), nifti.geometry)
    assert_same_frame(sitk.ReadImage(str(tmp_path / "from_nifti.mha")), sitk.ReadImage(str(source)), tolerance=1e-5)


@pytest.mark.parametrize(
    ("stored", "label_values", "expected"),
    [
        ("int16", (0, 1, 2), "int16"),
        ("int8", (0, 1), "int8"),
        ("uint8", (0, 255), "uint8"),
        ("int8", (0, 255), "uint8"),
        ("uint8", (0, 256), "uint16"),
        ("uint16", (0, 70000), "uint32"),
        ("float32", (0, 1), "uint8"),
        ("float64", (0, 300), "uint16"),
        ("uint32", (0, 1), "uint32"),
        ("int64", (0, 1), "int64"),
        ("uint8", (-1, 0, 1), "int8"),
    ],
)
@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_predictions_keep_the_images_integer_type_where_it_can_hold_the_labels(
    tmp_path: Path, stored: str, label_values: tuple[int, ...], expected: str, ending: str
) -> None:
    path = write_array(tmp_path / f"image{ending}", np.ones((3, 4, 5), stored), (1, 1, 1))
    volume = read_image([path])
    # no voxel has the highest label: the type must not depend on it
    write_label(tmp_path / f"label{ending}", np.zeros((3, 4, 5), np.uint8), volume.geometry, label_values)
    if ending == ".mha":
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"label{ending}"))).dtype
    else:
        found = nibabel.load(tmp_path / f"label{ending}").get_data_dtype()
    assert found == np.dtype(expected)


def test_the_type_holds_the_values_even_where_nobody_said_what_labels_there_are(tmp_path: Path) -> None:
    volume = read_image([write_array(tmp_path / "image.nii", np.ones((3, 4, 5), np.uint8), (1, 1, 1))])
    write_label(tmp_path / "label.nii", np.full((3, 4, 5), 1000), volume.geometry)
    assert_array_equal(np.asarray(nibabel.load(tmp_path / "label.nii").dataobj), 1000)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    volume = read_image([write_array(tmp_path / "in" / "image.png", np.ones((4, 5), np.uint8), (1, 1))])
    with pytest.raises(MvlError, match=r"label\.png: cannot hold .* uint32"):
        write_label(tmp_path / "out" / "label.png", np.full((1, 4, 5), 70000), volume.geometry)
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(MvlError, match="cannot be written"):
        write_label(tmp_path / "file" / "label.png", np.ones((1, 4, 5), np.uint8), volume.geometry)


def test_metaimage_headers_get_their_data_file(tmp_path: Path) -> None:
    volume = read_image([save(itk_image(), tmp_path / "image.mhd")])
    write_label(tmp_path / "out" / "label.mhd", (volume.array[0] > 0).astype(np.uint8), volume.geometry)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"label.mhd", "label.raw"}


# ------------------------------------------------------------------------------ comparing geometries


def grid_of(tmp_path: Path, name: str, **changes: Any) -> Any:
    return read_image([save(itk_image(**changes), tmp_path / f"{name}.mha")]).geometry


def test_rounding_errors_of_headers_are_no_difference(tmp_path: Path) -> None:
    image = grid_of(tmp_path, "image")
    rounded = itk_image(spacing=(0.70001, 1.30002, 2.50003), angles=(12.01, -8.01, 20.01))
    rounded.SetOrigin((-31.503, 12.252, 77.13))
    label = read_image([save(rounded, tmp_path / "label.mha")]).geometry
    check_same_geometry(image, label, "image.mha", "label.mha")
    check_same_geometry(image, grid_of(tmp_path, "turned", orientation="SAR"), "image.mha", "turned.mha")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (5, 6, 8)}, "is 5 x 6 x 7 voxels, its label label.mha 5 x 6 x 8"),
        ({"spacing": (0.7, 1.3, 2.6)}, "voxel size 0.7 x 1.3 x 2.5 and 0.7 x 1.3 x 2.6 mm"),
        ({"angles": (12.0, -8.0, 22.0)}, "directions turned by 2.00 degrees"),
    ],
)
def test_different_grids_are_refused_with_both(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    image, label = grid_of(tmp_path, "image"), grid_of(tmp_path, "label", **changes)
    with pytest.raises(MvlError) as caught:
        check_same_geometry(image, label, "image.mha", "label.mha")
    assert str(caught.value).startswith("image.mha: ")
    assert message in str(caught.value)


def test_a_shifted_label_is_refused(tmp_path: Path) -> None:
    shifted = itk_image()
    shifted.SetOrigin((-31.5, 12.25, 78.125))
    label = read_image([save(shifted, tmp_path / "label.mha")]).geometry
    with pytest.raises(MvlError, match=r"origin .* and .* mm"):
        check_same_geometry(grid_of(tmp_path, "image"), label, "image.mha", "label.mha")


def test_a_label_turned_about_the_first_voxel_is_refused(tmp_path: Path) -> None:
    for name, degrees in (("image", 0.0), ("nearly", 0.05), ("turned", 1.0)):
        affine = np.eye(4)
        affine[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
        nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), affine), tmp_path / f"{name}.nii")
    image, nearly, turned = (read_image([tmp_path / f"{name}.nii"]).geometry for name in ("image", "nearly", "turned"))
    check_same_geometry(image, nearly, "image", "nearly")
    with pytest.raises(MvlError, match=r"image: and its label turned .*directions turned by 1\.00 degrees"):
        check_same_geometry(image, turned, "image", "turned")


def test_channels_in_files_of_their_own_must_share_a_grid(tmp_path: Path) -> None:
    one = save(itk_image(), tmp_path / "case_0000.nii.gz")
    two = save(itk_image(seed=1, orientation="RAS"), tmp_path / "case_0001.nii.gz")
    volume = read_image([one, two])
    assert_array_equal(volume.array[1], read_image([two]).array[0])
    save(itk_image(size=(5, 6, 8)), two)
    with pytest.raises(MvlError, match=r"case_0000.*its other channel .*case_0001\.nii\.gz 5 x 6 x 8"):
        read_image([one, two])


# ------------------------------------------------------------------------------ values


@pytest.mark.parametrize(("value", "words"), [(np.nan, "2 NaN"), (np.inf, "2 infinite"), (-np.inf, "2 infinite")])
def test_images_that_are_not_finite_are_named_with_a_count(tmp_path: Path, value: float, words: str) -> None:
    good, bad = np.zeros((3, 4, 5), np.float32), np.zeros((3, 4, 5), np.float32)
    bad[1, 2, 3] = bad[0, 0, 0] = value
    files = [
        write_array(tmp_path / f"case_{channel:04d}.nii.gz", array, (1, 1, 1))
        for channel, array in enumerate((good, bad))
    ]
    check_finite(read_image(files[:1]), files[:1])
    with pytest.raises(MvlError, match=rf"case_0001\.nii\.gz: has {words} among its 60 voxels"):
        check_finite(read_image(files), files)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_labels_stored_as_floating_point_are_whole_numbers_nearly(tmp_path: Path, ending: str) -> None:
    nearly = np.array([0, 1.0000001, 1.9999, 300.0003]).reshape(1, 2, 2)
    values, _ = read_label(write_array(tmp_path / f"label{ending}", nearly, (1, 1, 1)))
    assert sorted(values.ravel().tolist()) == [0, 1, 2, 300]
    assert values.dtype.kind == "i"
    soft = write_array(tmp_path / f"soft{ending}", np.array([0, 0.5, 1, 0.2]).reshape(1, 2, 2), (1, 1, 1))
    with pytest.raises(MvlError, match=r"soft.*2 label values that are no whole numbers \(such as 0\.[25]\)"):
        read_label(soft)


def test_endings_and_stems() -> None:
    assert [file_ending(name) for name in ("a/b.nii.gz", "b.NII", "b.gz", "c.tiff", "dicom")] == [
        ".nii.gz",
        ".nii",
        "",
        ".tiff",
        "",
    ]
    assert stem("a/tumour.1_0000.nii.gz") == "tumour.1_0000"
    assert stem("a/series") == "series"


def test_a_missing_or_unknown_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MvlError, match=r"none\.nii\.gz: is missing"):
        read_image([tmp_path / "none.nii.gz"])
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(MvlError, match=r"photo\.jpg: is not a known image format.*\.nrrd"):
        read_image([tmp_path / "photo.jpg"])


@pytest.mark.parametrize("value", [2.0**63, -(2.0**63), 1e300])
def test_floating_point_that_no_integer_holds_is_no_label(tmp_path: Path, value: float) -> None:
    array = np.zeros((3, 4, 5))
    array[0, 0, 0] = value
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "label.nii")
    with pytest.raises(MvlError, match=r"label\.nii: has values up to .*, which are no labels"):
        read_label(tmp_path / "label.nii")
