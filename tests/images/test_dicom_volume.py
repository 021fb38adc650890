"""Which slices make up a volume of DICOM, where it lies, and what lies beside it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_series import (
    AXIAL,
    CORONAL,
    DIRECTORY,
    DOSE,
    MR,
    PHOTO,
    PRESENTATION,
    REPORT,
    SAGITTAL,
    STRUCTURES,
    affine_of,
    new_dataset,
    put_pixels,
    save,
    save_series,
    write_other,
    write_slices,
)
from numpy.testing import assert_allclose, assert_array_equal

from mvl_auto.errors import MvlError
from mvl_auto.images import read_image, write_label
from mvl_auto.images.dicom import read_dicom, scan_folder
from mvl_auto.images.geometry import skew_degrees

IMAGE = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 7)).astype(np.int16)
SPACING, ORIGIN = (2.5, 0.8, 0.7), (-20.0, -30.0, 10.0)
OBLIQUE = (0.96, 0.28, 0.0, -0.168, 0.576, 0.8)
APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(100)


def refusal(folder: Path) -> str:
    with pytest.raises(MvlError) as caught:
        read_image([folder])
    message = str(caught.value)
    assert "\n" not in message
    assert "Doe" not in message
    assert "John" not in message
    return message


def values(folder: Path, name: str = "") -> Any:
    """(Z, Y, X) of the slices in order along their normal."""
    array, _ = read_dicom(folder, name)
    return array[0].transpose(2, 1, 0)


# ------------------------------------------------------------------------------ ordinary series


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, CORONAL, OBLIQUE])
@pytest.mark.parametrize("names", ["IM{:04d}.dcm", "{:03d}", "Z{}.IMA"])
def test_a_series_has_the_voxels_and_the_place_that_gdcm_gives_it(tmp_path: Path, orientation: Any, names: str) -> None:
    order = [3, 0, 5, 1, 4, 2]  # names say nothing about places

    def shuffled(dataset: Any, k: int) -> None:
        normal = np.cross(orientation[:3], orientation[3:])
        dataset.ImagePositionPatient = [round(float(value), 6) for value in ORIGIN + normal * 2.5 * order[k]]

    folder = write_slices(tmp_path / "case", IMAGE[order], orientation=orientation, name=names, edit=shuffled)
    array, grid = read_dicom(folder)
    assert_array_equal(array[0], IMAGE.transpose(2, 1, 0))
    assert_allclose(grid.affine, affine_of(SPACING, ORIGIN, orientation), atol=1e-5)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    by_gdcm = reader.Execute()
    assert_array_equal(array[0].transpose(2, 1, 0), sitk.GetArrayFromImage(by_gdcm))
    assert_allclose(grid.affine[:3, 3] * (-1, -1, 1), by_gdcm.GetOrigin(), atol=1e-5)
    directions = grid.affine[:3, :3] / by_gdcm.GetSpacing() * np.array([[-1], [-1], [1]])
    assert_allclose(directions.ravel(), by_gdcm.GetDirection(), atol=1e-5)


def test_a_dicom_series_is_the_volume_it_was_written_from(tmp_path: Path) -> None:
    folder = save_series(tmp_path / "case", IMAGE[:5][::-1], [8.0, 6.0, 4.0, 2.0, 0.0])  # from the head to the feet
    volume = read_image([folder])
    assert volume.spacing == (2.0, 0.5, 0.5)
    assert_array_equal(volume.array[0], IMAGE[:5, ::-1, ::-1])  # DICOM's x and y run to the left and the back
    write_label(tmp_path / "label.nii.gz", (volume.array[0] > 0).astype(np.uint8), volume.geometry)
    label = sitk.ReadImage(str(tmp_path / "label.nii.gz"))
    assert_array_equal(sitk.GetArrayFromImage(label), IMAGE[:5] > 0)
    assert_allclose(label.GetOrigin(), (-10, -20, 0), atol=1e-5)
    assert label.GetPixelID() == sitk.sitkUInt8


def test_a_real_dicom_series_matches_simpleitk(real_data: Path) -> None:
    folder = real_data / "samples" / "ct" / "dicom"
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    expected = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(names), "RAS"))
    volume = read_image([folder])
    assert_array_equal(volume.array[0], expected)
    assert_allclose(volume.spacing, (2.0, 0.9765625, 0.9765625), rtol=1e-6)


@pytest.mark.parametrize("degrees", [0.0, 12.0, -20.0])
@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
def test_slices_of_a_tilted_gantry_lie_where_their_headers_say(
    tmp_path: Path, degrees: float, orientation: Any
) -> None:
    along_column = np.array(orientation[3:])
    normal = np.cross(orientation[:3], orientation[3:])
    step = 2.5 * (normal + np.tan(np.deg2rad(degrees)) * along_column)

    def lean(dataset: Any, k: int) -> None:
        dataset.ImagePositionPatient = [round(float(value), 6) for value in ORIGIN + step * k]

    _, grid = read_dicom(write_slices(tmp_path / "case", IMAGE, orientation=orientation, edit=lean))
    assert grid.tilt_degrees == pytest.approx(abs(degrees), abs=1e-3)
    assert skew_degrees(grid.affine) == pytest.approx(abs(degrees), abs=1e-3)
    assert_allclose(grid.affine[:3, 2], step * (-1, -1, 1), atol=1e-5)


def test_slices_that_are_displaced_are_refused(tmp_path: Path) -> None:
    def aside(dataset: Any, k: int) -> None:
        dataset.ImagePositionPatient = [-20.0 + (5 if k == 2 else 0), -30.0, 10 + 2.5 * k]

    message = refusal(write_slices(tmp_path / "one", IMAGE, edit=aside))
    assert "one: the slice IM0003.dcm lies 5 mm beside where the others put it" in message

    def apart(dataset: Any, k: int) -> None:
        dataset.ImagePositionPatient = [-20.0 + 30 * k, -30.0, 10 + 2.5 * k]

    assert "displaced sideways, by 30 mm every 2.5 mm" in refusal(write_slices(tmp_path / "all", IMAGE[:2], edit=apart))


# ------------------------------------------------------------------------------ gaps and positions


def test_missing_slices_are_named_by_their_neighbours(tmp_path: Path) -> None:
    folder = write_slices(tmp_path / "gap", IMAGE)
    (folder / "IM0003.dcm").unlink()
    message = refusal(folder)
    assert message.startswith(f"{folder}: slices are missing or unevenly spaced: 2.5 to 5 mm apart, mostly 2.5 mm")
    assert "5 mm between IM0002.dcm and IM0004.dcm" in message


def test_uneven_slices_are_named(tmp_path: Path) -> None:
    def uneven(dataset: Any, k: int) -> None:
        dataset.ImagePositionPatient = [-20.0, -30.0, [0, 2, 4, 7, 9, 11][k]]

    message = refusal(write_slices(tmp_path / "case", IMAGE, edit=uneven))
    assert "2 to 3 mm apart, mostly 2 mm; 3 mm between IM0003.dcm and IM0004.dcm" in message


def test_without_positions_the_slice_location_gives_order_and_spacing(tmp_path: Path) -> None:
    order = [3, 0, 5, 1, 4, 2]

    def located(dataset: Any, k: int) -> None:
        del dataset.ImagePositionPatient
        dataset.SliceLocation = 100 + 3.5 * order[k]

    array, grid = read_dicom(write_slices(tmp_path / "case", IMAGE[order], edit=located))
    assert_array_equal(array[0], IMAGE.transpose(2, 1, 0))
    assert_allclose(np.abs(np.diag(grid.affine)[:3]), (0.7, 0.8, 3.5))
    assert not grid.has_frame


@pytest.mark.parametrize("missing", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_slices_that_do_not_say_where_they_lie_are_refused(tmp_path: Path, missing: str) -> None:
    def without(dataset: Any, k: int) -> None:
        del dataset[missing]

    assert "6 slices do not say where they lie" in refusal(write_slices(tmp_path / "case", IMAGE, edit=without))


def test_without_a_pixel_spacing_nothing_is_assumed(tmp_path: Path) -> None:
    def without(dataset: Any, k: int) -> None:
        del dataset.PixelSpacing

    assert "IM0001.dcm: its header gives no pixel spacing" in refusal(write_slices(tmp_path, IMAGE, edit=without))


def test_one_slice_is_a_2d_image_without_a_thickness_too(tmp_path: Path) -> None:
    def without(dataset: Any, k: int) -> None:
        del dataset.SliceThickness

    volume = read_image([write_slices(tmp_path / "case", IMAGE[:1], edit=without)])
    assert volume.geometry.dimensions == 2
    assert volume.spacing == (1.0, 0.8, 0.7)


# ------------------------------------------------------------------------------ several volumes


def write_echoes(folder: Path, count: int = 2, slices: int = 6, shift: float = 0.0) -> Path:
    """Volumes IMAGE, IMAGE + 500, ... that differ in their echo; shift: mm from one to the next."""
    for echo in range(1, count + 1):

        def edit(dataset: Any, k: int, echo: int = echo) -> None:
            dataset.EchoNumbers, dataset.EchoTime = echo, 10.0 * echo

        image = IMAGE[:slices] + np.int16(500 * (echo - 1))
        first, origin = 1 + slices * (echo - 1), (-20.0, -30.0, 10.0 + shift * (echo - 1))
        write_slices(folder, image, kind=MR, first=first, origin=origin, edit=edit)
    return folder


@pytest.mark.parametrize("slices", [1, 2, 6])
@pytest.mark.parametrize("shift", [0.0, 1.25])
def test_echoes_are_volumes_of_their_own_and_named_in_the_refusal(tmp_path: Path, slices: int, shift: float) -> None:
    folder = write_echoes(tmp_path / "case", slices=slices, shift=shift)
    assert [volume.name for volume in scan_folder(folder).volumes] == ["echo1", "echo2"]
    for n, name in enumerate(("echo1", "echo2")):
        assert_array_equal(values(folder, name), IMAGE[:slices] + 500 * n)
    told = "1 slice" if slices == 1 else f"{slices} slices"
    message = refusal(folder)
    assert f"{folder}: holds 2 DICOM volumes: echo1 (EchoNumbers 1, EchoTime 10, {told}), echo2 (" in message
    assert "no volume" not in message
    with pytest.raises(MvlError, match="holds no DICOM volume 'echo3'"):
        read_dicom(folder, "echo3")


@pytest.mark.parametrize(
    ("keyword", "told", "names"),
    [
        ("TemporalPositionIdentifier", [1, 2, 3], ["time1", "time2", "time3"]),
        ("TriggerTime", [30, 0, 60], ["time2", "time1", "time3"]),
        ("DiffusionBValue", [0.0, 1000.0, 500.0], ["b0", "b1000", "b500"]),
        ("ImageType", [["ORIGINAL", "PRIMARY", part] for part in "MPR"], ["type1", "type2", "type3"]),
        ("AcquisitionNumber", [1, 2, 3], ["acquisition1", "acquisition2", "acquisition3"]),
        ("ConvolutionKernel", ["A", "B", "C"], ["kernel1", "kernel2", "kernel3"]),
        ("ContentTime", ["120000", "120010", "120020"], ["time1", "time2", "time3"]),
        ("InstanceNumber", None, ["volume1", "volume2", "volume3"]),
    ],
)
def test_slices_at_one_place_are_told_apart_by_what_differs(
    tmp_path: Path, keyword: str, told: Any, names: list[str]
) -> None:
    for n in range(3):

        def edit(dataset: Any, k: int, n: int = n) -> None:
            if told is not None:
                setattr(dataset, keyword, told[n])

        write_slices(tmp_path / "case", IMAGE + np.int16(500 * n), kind=MR, first=1 + 6 * n, edit=edit)
    assert {volume.name for volume in scan_folder(tmp_path / "case").volumes} == set(names)
    for n, name in enumerate(names):
        assert_array_equal(values(tmp_path / "case", name), IMAGE + 500 * n)


def test_two_differences_at_once_give_four_volumes(tmp_path: Path) -> None:
    for n in range(4):

        def edit(dataset: Any, k: int, n: int = n) -> None:
            dataset.EchoNumbers, dataset.EchoTime = 1 + n // 2, 10.0 + n // 2
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "MP"[n % 2]]

        write_slices(tmp_path / "case", IMAGE + np.int16(500 * n), kind=MR, first=1 + 6 * n, edit=edit)
    names = ["echo1_type1", "echo1_type2", "echo2_type1", "echo2_type2"]
    assert [volume.name for volume in scan_folder(tmp_path / "case").volumes] == names
    for n, name in enumerate(names):
        assert_array_equal(values(tmp_path / "case", name), IMAGE + 500 * n)


def test_phases_whose_times_differ_from_slice_to_slice_are_ranked(tmp_path: Path) -> None:
    for phase in range(3):

        def edit(dataset: Any, k: int, phase: int = phase) -> None:
            dataset.TriggerTime = 40.0 * phase + 0.7 * k
            dataset.InstanceNumber = 3 * k + phase + 1

        write_slices(tmp_path / "case", IMAGE + np.int16(500 * phase), kind=MR, first=1 + 6 * phase, edit=edit)
    for phase in range(3):
        assert_array_equal(values(tmp_path / "case", f"time{phase + 1}"), IMAGE + 500 * phase)


def test_a_cine_at_one_place_is_no_stack_of_slices(tmp_path: Path) -> None:
    def still(dataset: Any, k: int) -> None:
        dataset.ImagePositionPatient, dataset.TriggerTime = list(ORIGIN), 40.0 * k

    cine = np.stack([IMAGE[0] + t for t in range(25)]).astype(np.int16)
    folder = write_slices(tmp_path / "cine", cine, kind=MR, edit=still)
    assert "holds 25 DICOM volumes: time01 (TriggerTime 0, 1 slice), " in refusal(folder)
    assert "and 21 more" in refusal(folder)
    assert_array_equal(values(folder, "time25"), cine[24:])


def test_positions_that_slice_locations_contradict_are_refused(tmp_path: Path) -> None:
    """Some programs write the first slice's position into all: these are no volumes of one slice."""

    def located(dataset: Any, k: int) -> None:
        dataset.ImagePositionPatient, dataset.SliceLocation = list(ORIGIN), 10 + 2.5 * k

    folder = write_slices(tmp_path / "case", IMAGE, edit=located)
    assert len(scan_folder(folder).volumes) == 1
    assert "its 6 slices have different SliceLocations at one ImagePositionPatient" in refusal(folder)


@pytest.mark.parametrize("slices", [1, 3])
def test_a_mosaic_is_no_slice(tmp_path: Path, slices: int) -> None:
    def tiled(dataset: Any, k: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]

    told = refusal(write_slices(tmp_path / "case", IMAGE[:slices], kind=MR, edit=tiled))
    assert "IM0001.dcm: is a mosaic of Siemens" in told
    assert "dcm2niix" in told


def test_slices_that_nothing_tells_apart_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_slices(tmp_path / "case", IMAGE)

    def again(dataset: Any, k: int) -> None:
        dataset.SOPInstanceUID, dataset.ImagePositionPatient[2] = "1.2.77", 15.0

    write_slices(folder, IMAGE[:1], name="again.dcm", edit=again)
    assert "at one place that nothing in their headers tells apart: IM0003.dcm and again.dcm" in refusal(folder)


def test_other_series_sizes_and_orientations_are_other_volumes(tmp_path: Path) -> None:
    folder = write_slices(tmp_path / "series", IMAGE)
    write_slices(folder, IMAGE, series=4, name="other{}.dcm")
    assert "holds 2 DICOM volumes: series1 (SeriesNumber 1, 6 slices), series4 (SeriesNumber 4" in refusal(folder)
    folder = write_slices(tmp_path / "turned", IMAGE)
    write_slices(folder, IMAGE, first=7, orientation=CORONAL)
    assert "holds 2 DICOM volumes: axial (axial, 6 slices), coronal (coronal, 6 slices)" in refusal(folder)
    folder = write_slices(tmp_path / "sized", IMAGE)
    write_slices(folder, IMAGE[:, :4], first=7)
    assert "size1 (7x5 pixels of 0.7x0.8 mm, 6 slices), size2 (7x4 pixels" in refusal(folder)


# ------------------------------------------------------------------------------ what lies beside


def test_what_is_no_slice_is_skipped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_slices(tmp_path / "case", IMAGE)
    for name, kind in (("rs.dcm", STRUCTURES), ("sr.dcm", REPORT), ("ps.dcm", PRESENTATION), ("rd.dcm", DOSE)):
        write_other(folder / name, kind)
    write_other(folder / "index.dcm", DIRECTORY)
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    for file in list(folder.glob("IM*.dcm")):
        (folder / f"._{file.name}").write_bytes(APPLE_DOUBLE)
    (folder / "._hidden.dcm").write_bytes(bytes(128) + b"DICM")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    (folder / "LICENSE").write_text("licence text " * 30)
    picture = new_dataset(PHOTO, uid="1.2.5", series="1.2.5")
    put_pixels(picture, np.zeros((4, 5, 3), np.uint8), photometric="RGB")
    save(picture, folder / "screenshot.dcm")
    with caplog.at_level(logging.DEBUG, "mvl_auto"):
        assert_array_equal(values(folder), IMAGE)
    for words in ("RT Structure Set Storage (rs.dcm)", "RT Dose", "SR Storage", "Presentation State", "picture"):
        assert words in caplog.text
    assert "Doe" not in caplog.text


@pytest.mark.parametrize("is_marked", [True, False])
@pytest.mark.parametrize("series", [1, 2])
def test_a_localizer_beside_the_series_is_skipped(
    tmp_path: Path, is_marked: bool, series: int, caplog: pytest.LogCaptureFixture
) -> None:
    def mark(dataset: Any, k: int) -> None:
        if is_marked:
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    folder = write_slices(tmp_path / "case", IMAGE)
    scout = np.zeros((1, 9, 8), np.int16)
    write_slices(folder, scout, first=77, series=series, orientation=CORONAL, name="scout.dcm", edit=mark)
    with caplog.at_level(logging.DEBUG, "mvl_auto"):
        assert_array_equal(values(folder), IMAGE)
    assert "1 file skipped: localizer (scout.dcm)" in caplog.text


def test_a_localizer_beside_echoes_leaves_their_names(tmp_path: Path) -> None:
    folder = write_echoes(tmp_path / "case")
    write_slices(folder, IMAGE[:1, :4], kind=MR, first=77, orientation=SAGITTAL, name="scout.dcm")
    assert [volume.name for volume in scan_folder(folder).volumes] == ["echo1", "echo2"]


def test_a_folder_without_any_image_says_what_is_there(tmp_path: Path) -> None:
    write_other(tmp_path / "case" / "rs.dcm", STRUCTURES)
    assert "case: holds no DICOM series, only RT Structure Set Storage." in refusal(tmp_path / "case")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "readme.txt").touch()
    assert "none: holds no DICOM series." in refusal(tmp_path / "none")


def test_a_copy_of_a_file_counts_once(tmp_path: Path) -> None:
    folder = write_slices(tmp_path / "case", IMAGE)
    shutil.copy(folder / "IM0003.dcm", folder / "IM0003 (1).dcm")
    assert_array_equal(values(folder), IMAGE)


def test_slices_that_an_anonymizer_gave_one_uid_are_no_copies(tmp_path: Path) -> None:
    def same(dataset: Any, k: int) -> None:
        dataset.SOPInstanceUID = "1.2.3.4"

    assert_array_equal(values(write_slices(tmp_path / "case", IMAGE, edit=same)), IMAGE)


def test_slices_in_folders_of_the_folder_are_found_through_links_too(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    write_slices(folder / "A", IMAGE)
    (folder / "A" / "IM0001.dcm").rename(tmp_path / "IM0001.dcm")
    (folder / "B").mkdir()
    (folder / "B" / "IM0001").symlink_to(tmp_path / "IM0001.dcm")
    (folder / "B" / "loop").symlink_to(folder)
    assert_array_equal(values(folder), IMAGE)
