"""Multi-frame DICOM files: geometry and values of each frame from the functional groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import AXIAL, ENHANCED_CT, NUCLEAR, new_dataset, put_pixels, save, write_frames
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from mvl_auto.errors import MvlError
from mvl_auto.images import read_image
from mvl_auto.images.dicom import read_dicom, scan_folder

IMAGE = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 7)).astype(np.int16)
HEIGHTS = [10.0, 12.5, 15.0, 17.5, 20.0, 22.5]
ORDER = [3, 0, 5, 1, 4, 2]


def refusal(folder: Path) -> str:
    with pytest.raises(MvlError) as caught:
        read_image([folder])
    return str(caught.value)


@pytest.mark.parametrize("compressed", [False, True])
def test_frames_lie_where_their_groups_say_with_their_own_slopes(tmp_path: Path, compressed: bool) -> None:
    slopes = np.array([1, 0.002, 0.0031, 0.5, 0.004, 2.5])

    def pack(dataset: Any) -> None:
        if compressed:
            dataset.compress(RLELossless, generate_instance_uid=False)

    heights = [HEIGHTS[n] for n in ORDER]
    write_frames(tmp_path / "a.dcm", IMAGE[ORDER], heights, slopes=slopes[ORDER], edit=pack)
    array, grid = read_dicom(tmp_path)
    assert_allclose(array[0].transpose(2, 1, 0), IMAGE * slopes[:, None, None], rtol=2e-7)
    assert_allclose(grid.affine, [[-0.7, 0, 0, 20], [0, -0.8, 0, 30], [0, 0, 2.5, 10], [0, 0, 0, 1]], atol=1e-9)


def test_interleaved_echoes_in_one_file_are_volumes_of_their_own(tmp_path: Path) -> None:
    both = np.stack([IMAGE, IMAGE + 500], axis=1).reshape(12, 5, 7)
    write_frames(tmp_path / "a.dcm", both, np.repeat(HEIGHTS, 2).tolist(), echoes=[4.6, 9.2] * 6)
    assert [volume.name for volume in scan_folder(tmp_path).volumes] == ["echo1", "echo2"]
    for n, name in enumerate(("echo1", "echo2")):
        assert_array_equal(read_dicom(tmp_path, name)[0][0].transpose(2, 1, 0), IMAGE + 500 * n)
    assert "echo1 (EffectiveEchoTime 4.6, 6 slices), echo2 (EffectiveEchoTime 9.2" in refusal(tmp_path)


def test_a_gap_between_frames_is_named(tmp_path: Path) -> None:
    write_frames(tmp_path / "a.dcm", IMAGE[:5], [HEIGHTS[n] for n in (0, 1, 3, 4, 5)])
    assert "5 mm between a.dcm (frame 2) and a.dcm (frame 3)" in refusal(tmp_path)


def test_frames_at_one_place_are_no_stack(tmp_path: Path) -> None:
    write_frames(tmp_path / "a.dcm", IMAGE, [10.0] * 6)
    assert "holds 6 DICOM volumes: volume1 (" in refusal(tmp_path)
    assert_array_equal(read_dicom(tmp_path, "volume6")[0][0].transpose(2, 1, 0), IMAGE[5:])


def top_level(dataset: Any) -> None:
    """Geometry at the top level of the file only."""
    del dataset.PerFrameFunctionalGroupsSequence, dataset.SharedFunctionalGroupsSequence
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [-20, -30, 10], list(AXIAL)
    dataset.PixelSpacing, dataset.SliceThickness = [0.8, 0.7], 9


def test_one_position_for_many_frames_needs_their_spacing(tmp_path: Path) -> None:
    write_frames(tmp_path / "without" / "a.dcm", IMAGE, HEIGHTS, edit=top_level)
    told = refusal(tmp_path / "without")
    assert "a.dcm: its 6 frames do not say where they lie: no position of each, no first one with Spacing" in told
    assert "Save the frames of a film as PNG" in told

    def spaced(dataset: Any) -> None:
        top_level(dataset)
        dataset.SpacingBetweenSlices = 2.5

    write_frames(tmp_path / "with" / "a.dcm", IMAGE, HEIGHTS, edit=spaced)
    array, grid = read_dicom(tmp_path / "with")
    assert_array_equal(array[0].transpose(2, 1, 0), IMAGE)
    assert_allclose(grid.affine[:3, 2:], [[0, 20], [0, 30], [2.5, 10]])


def test_positions_in_the_stack_order_frames_without_positions(tmp_path: Path) -> None:
    def stacked(dataset: Any) -> None:
        groups = dataset.PerFrameFunctionalGroupsSequence
        top_level(dataset)
        dataset.SpacingBetweenSlices = 2.5
        for n, group in enumerate(groups):
            del group.PlanePositionSequence
            group.FrameContentSequence[0].InStackPositionNumber = ORDER[n] + 1
        dataset.PerFrameFunctionalGroupsSequence = groups

    write_frames(tmp_path / "a.dcm", IMAGE[ORDER], HEIGHTS, edit=stacked)
    assert_array_equal(read_dicom(tmp_path)[0][0].transpose(2, 1, 0), IMAGE)


def test_a_film_is_no_stack(tmp_path: Path) -> None:
    def film(dataset: Any) -> None:
        top_level(dataset)
        dataset.FrameIncrementPointer, dataset.FrameTime, dataset.SpacingBetweenSlices = 0x00181063, 40, 2.5

    write_frames(tmp_path / "a.dcm", IMAGE, HEIGHTS, edit=film)
    assert "holds 6 DICOM volumes" in refusal(tmp_path)


def test_nuclear_medicine_has_its_place_with_the_detector(tmp_path: Path) -> None:
    made = new_dataset(NUCLEAR)
    detector = Dataset()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = [-20, -30, 22.5], list(AXIAL)
    made.DetectorInformationSequence = [detector]
    made.PixelSpacing, made.SpacingBetweenSlices, made.NumberOfFrames = [0.8, 0.7], -2.5, 6
    put_pixels(made, IMAGE[::-1])
    save(made, tmp_path / "a.dcm")
    array, grid = read_dicom(tmp_path)
    assert_array_equal(array[0].transpose(2, 1, 0), IMAGE)
    assert_allclose(grid.affine[:3, 2:], [[0, 20], [0, 30], [2.5, 10]])


@pytest.mark.parametrize(("frames", "told"), [(5, "6 functional groups for 5 frames"), (99999, "NumberOfFrames")])
def test_a_number_of_frames_that_cannot_be_is_refused(tmp_path: Path, frames: int, told: str) -> None:
    def count(dataset: Any) -> None:
        dataset.NumberOfFrames = frames

    path = write_frames(tmp_path / "a.dcm", IMAGE, HEIGHTS, edit=count)
    assert refusal(tmp_path).startswith(f"{path}: has a damaged header (")
    assert told in refusal(tmp_path)


def test_a_file_of_frames_and_files_of_slices_agree(tmp_path: Path) -> None:
    """Legacy converted: a file of some frames, and another of the rest."""

    def second(dataset: Any) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.2"

    write_frames(tmp_path / "b.dcm", IMAGE[:3], HEIGHTS[:3])
    write_frames(tmp_path / "a.dcm", IMAGE[3:], HEIGHTS[3:], edit=second)
    assert_array_equal(read_dicom(tmp_path)[0][0].transpose(2, 1, 0), IMAGE)
    assert scan_folder(tmp_path).volumes[0].frames[0].file.name == "b.dcm"
    assert new_dataset(ENHANCED_CT).Modality == "CT"
