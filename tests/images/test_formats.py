"""Formats and headers as they occur, against nibabel, SimpleITK, Pillow and tifffile."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from builders import make_case, write_array
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from mvl_auto.errors import MvlError
from mvl_auto.images import check_finite, check_same_geometry, read_image, read_label, write_label

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)  # in NIfTI's order, i j k


def save_nifti(
    path: Path, voxels: Any = VOXELS, affine: Any = None, header: Any = None, kind: Any = nibabel.Nifti1Image
) -> Path:
    nibabel.save(kind(voxels, np.eye(4) if affine is None else affine, header), path)
    return path


# ------------------------------------------------------------------------------ NIfTI


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_every_version_byte_order_and_type(tmp_path: Path, kind: Any, endianness: str, dtype: str, ending: str) -> None:
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(np.dtype(endianness + dtype))
    path = save_nifti(tmp_path / f"image{ending}", VOXELS.astype(dtype), header=header, kind=kind)
    volume = read_image([path])
    assert volume.array.dtype == np.float32
    assert volume.array.flags.writeable
    assert_array_equal(volume.array[0], VOXELS.T)
    values, geometry = read_label(path)
    assert values.dtype.isnative
    assert values.dtype.kind in "iu"
    assert_array_equal(values, VOXELS.T)
    write_label(tmp_path / f"label{ending}", values, geometry)
    written = nibabel.load(tmp_path / f"label{ending}")
    assert isinstance(written, kind)
    assert written.header.endianness == endianness
    assert_array_equal(np.asarray(written.dataobj), VOXELS)


def test_scaled_integers_are_read_as_nibabel_reads_them(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(VOXELS, np.eye(4), header)
    image.header.set_slope_inter(0.37, -100)
    (tmp_path / "image.nii").write_bytes(image.to_bytes())
    expected = nibabel.load(tmp_path / "image.nii").get_fdata()
    volume = read_image([tmp_path / "image.nii"])
    assert_allclose(volume.array[0], expected.T, rtol=1e-6)
    assert expected.min() < -50  # the scaling did something
    write_label(tmp_path / "label.nii", (volume.array[0] > -90).astype(np.uint8), volume.geometry)
    label = nibabel.load(tmp_path / "label.nii")
    assert label.get_data_dtype() == np.int16
    assert label.dataobj.slope == 1
    assert label.dataobj.inter == 0
    assert_array_equal(label.get_fdata(), expected > -90)


def test_scaled_labels_are_whole_numbers_again(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.full((2, 2, 2), 3, np.uint8), np.eye(4))
    image.header.set_slope_inter(1 / 3, 0)
    (tmp_path / "label.nii").write_bytes(image.to_bytes())
    assert_array_equal(read_label(tmp_path / "label.nii")[0], 1)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e3), ("mm", 1.0), ("micron", 1e-3), ("unknown", 1.0)])
def test_spacings_are_millimetres_whatever_the_headers_unit(tmp_path: Path, unit: str, factor: float) -> None:
    header = nibabel.Nifti1Header()
    header.set_xyzt_units(unit)
    path = save_nifti(tmp_path / "image.nii", affine=np.diag([0.01, 0.02, 0.03, 1]), header=header)
    assert_allclose(read_image([path]).spacing, np.array([0.03, 0.02, 0.01]) * factor, rtol=1e-6)


def test_the_fourth_axis_is_the_channels(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype(np.float32)
    volume = read_image([save_nifti(tmp_path / "image.nii.gz", voxels)])
    for channel in range(2):
        assert_array_equal(volume.array[channel], voxels[..., channel].T)
    write_label(tmp_path / "label.nii.gz", np.ones((5, 4, 3), np.uint8), volume.geometry)
    assert nibabel.load(tmp_path / "label.nii.gz").shape == (3, 4, 5)


def test_vector_and_colour_images_are_channels_too(tmp_path: Path) -> None:
    vector = np.random.default_rng(0).normal(size=(3, 4, 5, 1, 2)).astype(np.float32)
    assert_array_equal(read_image([save_nifti(tmp_path / "v.nii", vector)]).array[1], vector[..., 0, 1].T)
    colours = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = VOXELS
    volume = read_image([save_nifti(tmp_path / "rgb.nii", colours)])
    assert volume.num_channels == 3
    assert_array_equal(volume.array[1], VOXELS.T)


def test_a_plane_without_thickness_is_one_millimetre_thick(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "image.nii", VOXELS[:, :, 0], affine=np.diag([2.0, 3.0, 1.0, 1.0]))
    assert nibabel.load(path).ndim == 2
    content = bytearray(path.read_bytes())
    content[76 + 12 : 76 + 16] = bytes(4)  # pixdim[3]
    content[312:328] = bytes(16)  # the sform's third column lies in three rows: use the qform
    content[254:256] = bytes(2)
    content[252:254] = (1).to_bytes(2, "little")
    path.write_bytes(content)
    volume = read_image([path])
    assert volume.spacing == (1.0, 3.0, 2.0)
    write_label(tmp_path / "label.nii", np.ones((1, 4, 3), np.uint8), volume.geometry)
    assert nibabel.load(tmp_path / "label.nii").shape == (3, 4)


def test_extensions_of_the_image_are_not_copied_into_the_label(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOXELS, np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"secret" * 100))
    nibabel.save(image, tmp_path / "image.nii")
    values, geometry = read_label(tmp_path / "image.nii")
    assert_array_equal(values, VOXELS.T)
    write_label(tmp_path / "label.nii", values, geometry)
    assert b"secret" not in (tmp_path / "label.nii").read_bytes()
    assert (tmp_path / "label.nii").stat().st_size == 352 + VOXELS.nbytes
    assert_array_equal(np.asarray(nibabel.load(tmp_path / "label.nii").dataobj), VOXELS)


def test_the_same_prediction_is_the_same_bytes(tmp_path: Path) -> None:
    _, geometry = read_label(save_nifti(tmp_path / "image.nii.gz"))
    for name in ("one", "two"):
        write_label(tmp_path / f"{name}.nii.gz", VOXELS.T, geometry)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
    assert (tmp_path / "one.nii.gz").read_bytes()[4:8] == bytes(4)  # gzip's time of writing


def test_gzip_is_told_by_its_bytes_not_by_the_name(tmp_path: Path) -> None:
    plain = save_nifti(tmp_path / "plain.nii").read_bytes()
    (tmp_path / "zipped.nii").write_bytes(gzip.compress(plain))
    (tmp_path / "plain.nii.gz").write_bytes(plain)
    assert_array_equal(read_image([tmp_path / "zipped.nii"]).array, read_image([tmp_path / "plain.nii.gz"]).array)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_one_line_with_its_name(tmp_path: Path, ending: str, share: float) -> None:
    flat = ending in (".png", ".tif", ".bmp")
    voxels = np.random.default_rng(0).integers(0, 255, (20, 30) if flat else (20, 30, 10)).astype(np.uint8)
    path = write_array(tmp_path / f"case{ending}", voxels, (1, 1, 1)[: voxels.ndim])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MvlError) as caught:
        read_image([path])
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_damage_inside_a_gzip_is_noticed(tmp_path: Path) -> None:
    content = bytearray(save_nifti(tmp_path / "case.nii.gz").read_bytes())
    content[-6] ^= 1  # the checksum
    (tmp_path / "case.nii.gz").write_bytes(content)
    with pytest.raises(MvlError, match=r"case\.nii\.gz: is damaged or cut short"):
        read_image([tmp_path / "case.nii.gz"])
    (tmp_path / "case.nii.gz").write_bytes(bytes(content[:-5]))  # all voxels, half the checksum
    with pytest.raises(MvlError, match=r"case\.nii\.gz: is damaged or cut short"):
        read_image([tmp_path / "case.nii.gz"])


@pytest.mark.parametrize("spacing", [0.0, 1000.0, np.nan, np.inf, 1e-9])
def test_absurd_spacings_are_refused(tmp_path: Path, spacing: float) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape((3, 4, 5))
    header.set_data_dtype(np.int16)
    header["srow_x"], header["srow_y"], header["srow_z"] = [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, spacing, 0]
    header["sform_code"], header["vox_offset"] = 1, 352
    (tmp_path / "case.nii").write_bytes(header.binaryblock + bytes(4) + VOXELS.T.tobytes())
    with pytest.raises(MvlError, match=r"case\.nii: its header gives"):
        read_image([tmp_path / "case.nii"])


@pytest.mark.parametrize("pixdim", [0.0, -1.0])
def test_absurd_spacings_of_a_qform_are_refused(tmp_path: Path, pixdim: float) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape((3, 4, 5))
    header.set_data_dtype(np.int16)
    header["pixdim"][3] = pixdim
    header["qform_code"], header["vox_offset"] = 1, 352
    (tmp_path / "case.nii").write_bytes(header.binaryblock + bytes(4) + VOXELS.T.tobytes())
    with pytest.raises(MvlError, match=r"case\.nii: "):
        read_image([tmp_path / "case.nii"])


@pytest.mark.parametrize(
    ("voxels", "message"),
    [
        (np.zeros((2, 2, 2, 2, 2), np.int16), "has 5 axes"),
        (np.zeros((2, 2, 2), np.complex64), "complex64"),
        (np.zeros((2, 0, 2), np.int16), "holds no voxels"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, voxels: Any, message: str) -> None:
    with pytest.raises(MvlError, match=message):
        read_image([save_nifti(tmp_path / "case.nii", voxels)])


def test_a_pair_of_header_and_image_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(VOXELS, np.eye(4)), tmp_path / "case.img")
    (tmp_path / "case.hdr").rename(tmp_path / "case.nii")
    with pytest.raises(MvlError, match=r"is not a single-file NIfTI image\. Convert"):
        read_image([tmp_path / "case.nii"])


# ------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_colour_pictures_are_three_channels_of_rows_and_columns(tmp_path: Path, ending: str) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (6, 9, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / f"case{ending}")
    volume = read_image([tmp_path / f"case{ending}"])
    assert volume.spacing == (1.0, 1.0, 1.0)
    assert volume.geometry.dimensions == 2
    assert_array_equal(volume.array, np.moveaxis(picture, -1, 0)[:, None])
    write_label(tmp_path / f"label{ending}", (volume.array[0] > 100).astype(np.uint8) * 255, volume.geometry)
    assert_array_equal(np.asarray(Image.open(tmp_path / f"label{ending}")), (picture[..., 0] > 100) * 255)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_masks_in_three_equal_channels_are_one_label(tmp_path: Path, ending: str) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (6, 9)).astype(np.uint8) * 255
    Image.fromarray(np.stack([mask] * 3, axis=-1)).save(tmp_path / f"mask{ending}")
    assert_array_equal(read_label(tmp_path / f"mask{ending}")[0][0], mask)
    Image.fromarray(np.stack([mask, mask, mask.T.reshape(6, 9)], axis=-1)).save(tmp_path / f"odd{ending}")
    with pytest.raises(MvlError, match="has 3 channels; a label map has one"):
        read_label(tmp_path / f"odd{ending}")


def test_palettes_are_colours_of_an_image_and_indices_of_a_label(tmp_path: Path) -> None:
    indices = np.random.default_rng(0).integers(0, 3, (6, 9)).astype(np.uint8)
    colours = np.array([[0, 0, 0], [255, 0, 0], [10, 200, 30]], np.uint8)
    picture = Image.fromarray(indices, "P")
    picture.putpalette(colours.ravel().tolist())
    picture.save(tmp_path / "case.png")
    assert_array_equal(read_label(tmp_path / "case.png")[0][0], indices)
    assert_array_equal(read_image([tmp_path / "case.png"]).array[:, 0], np.moveaxis(colours[indices], -1, 0))


def test_bit_masks_transparency_and_sixteen_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (6, 9)).astype(bool)
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert_array_equal(read_label(tmp_path / "bits.png")[0][0], bits)
    rgba = rng.integers(0, 255, (6, 9, 4)).astype(np.uint8)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert_array_equal(read_image([tmp_path / "rgba.png"]).array[:, 0], np.moveaxis(rgba[..., :3], -1, 0))
    deep = rng.integers(0, 65535, (6, 9)).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(deep), str(tmp_path / "grey.png"))
    assert_array_equal(read_label(tmp_path / "grey.png")[0][0], deep)
    deep_rgb = rng.integers(0, 65535, (6, 9, 3)).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(deep_rgb, isVector=True), str(tmp_path / "rgb.png"))
    assert_array_equal(read_image([tmp_path / "rgb.png"]).array[:, 0], np.moveaxis(deep_rgb, -1, 0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_tiff_stacks_are_volumes(tmp_path: Path, dtype: Any) -> None:
    stack = np.random.default_rng(0).integers(0, 100, (4, 6, 9)).astype(dtype)
    tifffile.imwrite(tmp_path / "case.tif", stack, photometric="minisblack")
    volume = read_image([tmp_path / "case.tif"])
    assert_array_equal(volume.array[0], stack)
    assert volume.geometry.dimensions == 3
    write_label(tmp_path / "label.tif", (stack > 50).astype(np.uint8), volume.geometry)
    assert_array_equal(tifffile.imread(tmp_path / "label.tif"), stack > 50)


def test_tiff_stacks_of_three_pages_are_no_colours_and_colour_stacks_are(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 100, (3, 6, 4)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "three.tif", stack, photometric="minisblack")
    volume = read_image([tmp_path / "three.tif"])
    assert volume.array.shape == (1, 3, 6, 4)
    write_label(tmp_path / "label.tif", stack, volume.geometry)
    assert_array_equal(read_label(tmp_path / "label.tif")[0], stack)
    colours = np.random.default_rng(0).integers(0, 100, (5, 6, 4, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "colours.tif", colours, photometric="rgb")
    assert_array_equal(read_image([tmp_path / "colours.tif"]).array, np.moveaxis(colours, -1, 0))


def test_tiffs_packed_with_lzw_are_read(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 100, (4, 6, 9)).astype(np.uint8)
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "case.tif"))
    writer.UseCompressionOn()
    writer.SetCompressor("LZW")
    writer.Execute(sitk.GetImageFromArray(stack))
    assert_array_equal(read_image([tmp_path / "case.tif"]).array[0], stack)


def test_the_spacing_of_a_tiff_stands_beside_it_or_in_imagejs_words(tmp_path: Path) -> None:
    stack = np.ones((4, 6, 9), np.uint8)
    tifffile.imwrite(tmp_path / "case_0000.tif", stack, photometric="minisblack")
    (tmp_path / "case.json").write_text('{"spacing": [3, 0.5, 0.25]}')
    volume = read_image([tmp_path / "case_0000.tif"])
    assert volume.spacing == (3.0, 0.5, 0.25)
    write_label(tmp_path / "out" / "case.tif", stack, volume.geometry)
    assert read_label(tmp_path / "out" / "case.tif")[1].spacing == (3.0, 0.5, 0.25)
    tifffile.imwrite(
        tmp_path / "j.tif",
        stack,
        imagej=True,
        resolution=(4, 2),
        metadata={"axes": "ZYX", "spacing": 1.5, "unit": "um"},
    )
    assert_allclose(read_image([tmp_path / "j.tif"]).spacing, (0.0015, 0.0005, 0.00025))
    (tmp_path / "case.json").write_text('{"spacing": "1 mm"}')
    with pytest.raises(MvlError, match=r"case\.json: has no spacing"):
        read_image([tmp_path / "case_0000.tif"])


# ------------------------------------------------------------------------------ DICOM


# ------------------------------------------------------------------------------ real files


def test_odd_real_headers_work_or_are_refused_in_one_line(real_data: Path, tmp_path: Path) -> None:
    refused = {}
    for path in sorted((real_data / "samples" / "odd").iterdir()):
        try:
            volume = read_image([path])
            check_finite(volume, [path])
        except MvlError as error:
            refused[path.name] = str(error)
            continue
        by_nibabel = nibabel.as_closest_canonical(nibabel.load(path))
        expected = by_nibabel.get_fdata().reshape(*by_nibabel.shape[:3], -1).T
        assert_allclose(volume.array, expected, rtol=1e-5)
        write_label(tmp_path / path.name, (volume.array[0] > volume.array[0].mean()).astype(np.uint8), volume.geometry)
        written, original = nibabel.load(tmp_path / path.name), nibabel.load(path)
        assert_array_equal(written.affine, original.affine)
        assert written.shape == original.shape[:3]
    assert set(refused) == {"row_major.dconn.nii", "resampled_anat_moved.nii"}
    assert "CIFTI" in refused["row_major.dconn.nii"]
    assert "153 NaN" in refused["resampled_anat_moved.nii"]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("odd/t2.nii.gz", "odd/t2_seg-manual.nii.gz"),  # other qform and sform codes
        ("odd/t2.nii.gz", "odd/t2_seg-manual_labeled.nii.gz"),  # stored as float64
        ("odd/t2.nii.gz", "odd/labels.nii.gz"),
        ("cord/t2s.nii.gz", "cord/t2s_gmseg_manual.nii.gz"),
        ("cord/t2s_uncropped.nii.gz", "cord/t2s_uncropped_gmseg_manual.nii.gz"),
        ("cord_mt/mt0.nii.gz", "cord_mt/mt1.nii.gz"),
        ("cord_mt/mt0.nii.gz", "cord_mt/t1w.nii.gz"),
        ("cord_mt/mt1.nii.gz", "cord_mt/mt1_seg.nii.gz"),
        ("ct/example_ct_sm.nii.gz", "ct/example_seg.nii.gz"),
        ("ct/example_mr_sm.nii.gz", "ct/example_seg_mr.nii.gz"),
        ("ct/dicom", "ct/example_seg_dicom.nii.gz"),
        ("spleen/sub-spleen2_ct.nii.gz", "spleen/sub-spleen2_ct_seg-manual.nii.gz"),
    ],
)
def test_real_images_and_labels_that_belong_together_do(real_data: Path, image: str, label: str) -> None:
    samples = real_data / "samples"
    a, b = read_image([samples / image]), read_image([samples / label])
    check_same_geometry(a.geometry, b.geometry, image, label)


def test_soft_labels_are_refused_by_name(real_data: Path) -> None:
    with pytest.raises(MvlError, match=r"mt1_gmseg\.nii\.gz: has 203 label values that are no whole numbers"):
        read_label(real_data / "samples" / "cord_mt" / "mt1_gmseg.nii.gz")


def test_made_cases_are_what_their_builder_says() -> None:
    image, classes = make_case((10, 12, 14), channels=2, num_classes=3, seed=1)
    means = [image[0][classes == number].mean() for number in range(3)]
    assert means == sorted(means)
    assert means[1] - means[0] > 2 * image[0][classes == 0].std()
