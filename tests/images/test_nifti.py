"""NIfTI headers: which form places the voxels, where they begin, and how much of a file is read."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mvl_auto.errors import MvlError, noting
from mvl_auto.images import read_image, read_label, write_label
from mvl_auto.images.nifti import read_nifti, write_nifti

VOXELS = np.random.default_rng(0).integers(-500, 500, (6, 5, 4)).astype(np.int16)
AFFINE = np.array([[-2.0, 0, 0, 7], [0, 1.5, 0, -8], [0, 0, 3.0, 9], [0, 0, 0, 1]])
MEBIBYTE = 1 << 20


def saved(path: Path, changes: dict[int, bytes], voxels: Any = VOXELS, kind: Any = nibabel.Nifti1Image) -> Path:
    """A NIfTI file with both forms, and then other bytes at some places of its header."""
    image = kind(voxels, AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    content = bytearray(image.to_bytes())
    for place, new in changes.items():
        content[place : place + len(new)] = new
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


QFORM_CODE, SFORM_CODE, SROWS, VOX_OFFSET, CAL_MAX, DIM = 252, 254, 280, 108, 124, 40


# ------------------------------------------------------------------------------ the place in space


def test_an_sform_of_zeros_gives_way_to_the_qform(tmp_path: Path) -> None:
    """As ITK reads it; what is written on its grid has the qform in the place of the zeros."""
    path = saved(tmp_path / "a.nii.gz", {SFORM_CODE: struct.pack("<h", 1), SROWS: bytes(48)})
    volume = read_image([path])
    expected = read_image([saved(tmp_path / "b.nii.gz", {})])
    assert_allclose(volume.geometry.affine, expected.geometry.affine, atol=1e-5)
    assert_allclose(sitk.ReadImage(str(path)).GetSpacing(), [2, 1.5, 3], atol=1e-5)
    assert volume.geometry.file.header_fault == "its sform is all zeros"
    assert expected.geometry.file.header_fault == ""
    write_label(tmp_path / "p.nii.gz", np.zeros(volume.geometry.shape, np.uint8), volume.geometry)
    assert_allclose(nibabel.load(tmp_path / "p.nii.gz").get_sform(), AFFINE, atol=1e-5)


def test_zeros_in_both_forms_are_refused(tmp_path: Path) -> None:
    changes = {SFORM_CODE: struct.pack("<h", 1), SROWS: bytes(48), QFORM_CODE: bytes(2)}
    with pytest.raises(MvlError, match="voxel size of 0 x 0 x 0 mm"):
        read_image([saved(tmp_path / "a.nii.gz", changes)])


def test_forms_that_disagree_are_read_by_the_sform(tmp_path: Path) -> None:
    moved = AFFINE + np.array([[0, 0, 0, 40]] * 3 + [[0, 0, 0, 0]])
    path = saved(tmp_path / "a.nii.gz", {SROWS: moved[:3].astype("<f4").tobytes()})
    assert_allclose(read_nifti(path)[1].affine, moved, atol=1e-5)


# ------------------------------------------------------------------------------ which bytes are read


@pytest.mark.parametrize(("kind", "size"), [(nibabel.Nifti1Image, 348), (nibabel.Nifti2Image, 540)])
@pytest.mark.parametrize("offset", [0, 100, -1])
def test_voxels_never_begin_inside_the_header(tmp_path: Path, kind: Any, size: int, offset: int) -> None:
    """A vox_offset below the header means: right behind it."""
    content = kind(VOXELS, AFFINE).to_bytes()
    header = bytearray(content[:size])
    place, code = (VOX_OFFSET, "<f") if size == 348 else (168, "<q")
    struct.pack_into(code, header, place, offset)
    (tmp_path / "a.nii").write_bytes(bytes(header) + VOXELS.tobytes(order="F"))
    assert_array_equal(read_nifti(tmp_path / "a.nii")[0][0], VOXELS)


def test_voxels_may_begin_later_and_be_followed_by_more(tmp_path: Path) -> None:
    content = nibabel.Nifti1Image(VOXELS, AFFINE).to_bytes()
    header = bytearray(content[:348])
    struct.pack_into("<f", header, VOX_OFFSET, 800)
    everything = bytes(header).ljust(800, b"x") + VOXELS.tobytes(order="F") + b"more" * 99
    for path, packed in ((tmp_path / "a.nii", everything), (tmp_path / "a.nii.gz", gzip.compress(everything))):
        path.write_bytes(packed)
        hashes: dict[Path, str] = {}
        assert_array_equal(read_nifti(path, hashes)[0][0], VOXELS)
        assert hashes == {path: hashlib.sha256(path.read_bytes()).hexdigest()}


def test_files_of_several_gzip_members_are_read(tmp_path: Path) -> None:
    content = nibabel.Nifti1Image(VOXELS, AFFINE).to_bytes()
    for size in (100, 400, 5000):
        parts = [gzip.compress(content[start : start + size]) for start in range(0, len(content), size)]
        (tmp_path / "a.nii.gz").write_bytes(b"".join(parts))
        assert_array_equal(read_nifti(tmp_path / "a.nii.gz")[0][0], VOXELS)


@pytest.mark.parametrize("members", [1, 2])
def test_a_damaged_checksum_is_noticed(tmp_path: Path, members: int) -> None:
    content = nibabel.Nifti1Image(VOXELS, AFFINE).to_bytes()
    cut = len(content) // members
    packed = bytearray(b"".join(gzip.compress(content[start : start + cut]) for start in range(0, len(content), cut)))
    packed[-8] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(packed)
    with pytest.raises(MvlError, match=r"is damaged or cut short \(.*(check|CRC)"):
        read_nifti(tmp_path / "a.nii.gz")


def peak_of(action: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(MvlError) as caught:
            action()
        assert "\n" not in str(caught.value)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bomb(path: Path, behind: int, changes: dict[int, bytes] | None = None) -> Path:
    """An image with gigabytes of zeros behind its voxels, in members of one MiB: a few MiB on disk."""
    first = gzip.decompress(saved(path, changes or {}).read_bytes())
    one = gzip.compress(bytes(MEBIBYTE), 9)
    path.write_bytes(gzip.compress(first) + one * (behind // MEBIBYTE))
    return path


def test_what_lies_behind_the_voxels_is_not_unpacked(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.nii.gz", 4096 * MEBIBYTE)
    assert peak_of(lambda: read_nifti(path)) < 100 * MEBIBYTE
    one_member = gzip.decompress(saved(tmp_path / "b.nii.gz", {}).read_bytes()) + bytes(300 * MEBIBYTE)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(one_member, 1))
    del one_member
    assert peak_of(lambda: read_nifti(tmp_path / "b.nii.gz")) < 100 * MEBIBYTE


def test_sparse_files_are_not_read_to_their_end(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii", {})
    os.truncate(path, 1 << 40)
    assert peak_of(lambda: read_nifti(path)) < 10 * MEBIBYTE


@pytest.mark.parametrize("dims", [(32767,) * 3, (32767, 1, 32767), (2, 32767, 32767)])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_header_that_promises_too_much_takes_no_memory(tmp_path: Path, dims: Any, ending: str) -> None:
    path = saved(tmp_path / f"a{ending}", {DIM + 2: np.array(dims, "<i2").tobytes()})
    assert peak_of(lambda: read_nifti(path)) < 10 * MEBIBYTE


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    for ending in (".nii.gz", ".nii", ".tif", ".png", ".nrrd", ".mha"):
        os.mkfifo(tmp_path / f"a{ending}")
        with pytest.raises(MvlError, match="is not a regular file but a pipe or a device"):
            read_image([tmp_path / f"a{ending}"])
    (tmp_path / "device.nii").symlink_to("/dev/zero")
    with pytest.raises(MvlError, match="is not a regular file"):
        read_label(tmp_path / "device.nii")


def test_pointers_of_git_lfs_are_named(tmp_path: Path) -> None:
    for ending in (".nii.gz", ".nrrd", ".tif"):
        path = tmp_path / f"a{ending}"
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
        with pytest.raises(MvlError, match=r"is a pointer of Git LFS, not the file itself\. .* git lfs pull"):
            read_image([path])


# ------------------------------------------------------------------------------ headers of any bytes

NUMBERS = st.sampled_from([0, 1, -1, 2, 127, 255, 32767, -32768]) | st.integers(-(2**15), 2**15 - 1)
FLOATS = st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-45]) | st.floats(width=32)


@st.composite
def header_changes(draw: st.DrawFn) -> dict[int, bytes]:
    fields = {
        **{DIM + 2 * n: ("<h", NUMBERS) for n in range(8)},
        68: ("<h", NUMBERS),  # intent_code
        70: ("<h", st.sampled_from([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 511, 512, 768, 1024, 1536, 2304, 9999])),
        72: ("<h", NUMBERS),  # bitpix
        **{76 + 4 * n: ("<f", FLOATS) for n in range(8)},  # pixdim
        **dict.fromkeys((VOX_OFFSET, 112, 116), ("<f", FLOATS)),  # scl_slope, scl_inter
        123: ("<B", st.integers(0, 255)),  # xyzt_units
        **dict.fromkeys((QFORM_CODE, SFORM_CODE), ("<h", NUMBERS)),
        **{256 + 4 * n: ("<f", FLOATS) for n in range(18)},  # quaternion, offsets, rows of the sform
    }
    chosen = draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=6, unique=True))
    return {place: struct.pack(fields[place][0], draw(fields[place][1])) for place in chosen}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changes=header_changes(), packed=st.booleans())
def test_any_header_is_read_or_refused_in_one_line(tmp_path: Path, changes: dict[int, bytes], packed: bool) -> None:
    path = saved(tmp_path / ("a.nii.gz" if packed else "a.nii"), changes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (lambda: read_image([path]).geometry, lambda: read_label(path)[1]):
            problems: list[MvlError] = []
            with noting(problems):
                geometry = read()
                assert np.isfinite(geometry.affine).all()
                assert 1e-7 < min(geometry.spacing) <= max(geometry.spacing) < 101
            for problem in problems:
                assert str(problem).startswith(str(path))
                assert "\n" not in str(problem)


# ------------------------------------------------------------------------------ what is written


def test_a_label_does_not_take_over_the_window_of_its_image(tmp_path: Path) -> None:
    """cal_min and cal_max of a CT would show a label map as black."""
    path = saved(tmp_path / "a.nii.gz", {CAL_MAX: struct.pack("<ff", 400.0, -160.0), 148: b"a scan"})
    geometry = read_image([path]).geometry
    write_label(tmp_path / "p.nii.gz", np.ones(geometry.shape, np.uint8), geometry)
    header = nibabel.load(tmp_path / "p.nii.gz").header
    assert (float(header["cal_max"]), float(header["cal_min"])) == (0.0, 0.0)
    assert header["descrip"].item() == b"MVL-Auto"
    assert header["intent_code"] == 0


def test_a_label_for_an_image_of_another_format_has_both_forms(tmp_path: Path) -> None:
    """Some programs look at the sform alone, some at the qform: 1 is the scanner's space in both."""
    image = sitk.GetImageFromArray(np.ones((3, 4, 5), np.float32))
    image.SetSpacing((0.5, 0.75, 2.0))
    image.SetOrigin((-10.0, 20.0, 30.0))
    sitk.WriteImage(image, str(tmp_path / "image.nrrd"))
    geometry = read_image([tmp_path / "image.nrrd"]).geometry
    write_label(tmp_path / "p.nii.gz", np.ones(geometry.shape, np.uint8), geometry)
    header = nibabel.load(tmp_path / "p.nii.gz").header
    expected = [
        [-0.5, 0, 0, 10],
        [0, -0.75, 0, -20],
        [0, 0, 2, 30],
        [0, 0, 0, 1],
    ]  # ITK's axes x and y point the other way
    for affine, code in (header.get_sform(coded=True), header.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(affine, expected, atol=1e-5)
    assert header.get_xyzt_units()[0] == "mm"


def test_a_packed_label_has_no_time_in_it(tmp_path: Path) -> None:
    """The same prediction is the same file, whenever it is written (RFC 1952: MTIME, bytes 4 to 8)."""
    path = saved(tmp_path / "a.nii.gz", {})
    geometry = read_image([path]).geometry
    write_label(tmp_path / "p.nii.gz", np.ones(geometry.shape, np.uint8), geometry)
    assert (tmp_path / "p.nii.gz").read_bytes()[4:8] == bytes(4)


@pytest.mark.parametrize(("stored", "scaled"), [("int16", "float32"), ("uint8", "float32"), ("int32", "float64")])
def test_scaled_integers_become_the_shortest_floating_point_that_holds_them(
    tmp_path: Path, stored: str, scaled: str
) -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=stored).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, 3.0)
    nibabel.save(image, tmp_path / "a.nii")
    with open(tmp_path / "a.nii", "r+b") as stream:  # nibabel scales what it saves
        stream.seek(112)
        stream.write(struct.pack("<ff", 0.5, 3.0))
    channels, _ = read_nifti(tmp_path / "a.nii")
    assert channels.dtype == np.dtype(scaled)


def test_a_vector_of_five_axes_is_an_image_of_channels(tmp_path: Path) -> None:
    """The 4th axis is time, of one moment; the 5th are the components of a vector."""
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 1, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    channels, _ = read_nifti(tmp_path / "a.nii")
    np.testing.assert_array_equal(channels, np.moveaxis(values[:, :, :, 0], 3, 0))


def test_an_sform_with_a_row_of_zeros_is_no_sform_of_zeros(tmp_path: Path) -> None:
    """It is damaged, and the qform does not take its place."""
    image = nibabel.Nifti1Image(np.ones((2, 3, 4), np.float32), np.eye(4))
    image.header.set_qform(np.eye(4), 1)
    image.header.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), 1)
    nibabel.save(image, tmp_path / "a.nii")
    with open(tmp_path / "a.nii", "r+b") as stream:
        stream.seek(280)
        stream.write(struct.pack("<12f", 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0))
    with pytest.raises(MvlError, match=r"a\.nii"):
        read_image([tmp_path / "a.nii"])


@pytest.mark.parametrize("shape", [(5,), (5, 4), (0, 4, 4)])
def test_axes_that_are_missing_have_one_voxel_and_an_axis_may_have_none(tmp_path, shape):
    path = tmp_path / "image.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), path)
    array, grid = read_nifti(path)
    assert grid.shape == (*shape, 1, 1)[:3]
    assert array.shape == (1, *grid.shape)


def test_a_labelmap_of_an_image_of_two_axes_has_two_axes(tmp_path: Path) -> None:
    path = tmp_path / "image.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 4), np.uint8), np.eye(4)), path)
    labels = np.arange(20, dtype=np.uint8).reshape(5, 4, 1)
    write_nifti(tmp_path / "labels.nii", labels, read_nifti(path)[1])
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "labels.nii").dataobj), labels[..., 0])
