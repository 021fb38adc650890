"""The values of DICOM images: slopes, bits, colours, byte orders, compression."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_series import CT, MR, PET, PHOTO, XRAY, new_dataset, put_pixels, save, write_slices
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from mvl_auto.errors import MvlError
from mvl_auto.images import read_image
from mvl_auto.images.dicom import read_dicom

IMAGE = np.random.default_rng(0).integers(-1000, 1000, (6, 16, 18)).astype(np.int16)
POSITIVE = np.abs(IMAGE).astype(np.uint16)


def values(folder: Path) -> Any:
    """(Z, Y, X) of the slices in order along their normal; colours last."""
    array, _ = read_dicom(folder)
    return array[0].transpose(2, 1, 0) if len(array) == 1 else array.transpose(3, 2, 1, 0)


def refusal(folder: Path) -> str:
    with pytest.raises(MvlError) as caught:
        read_image([folder])
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------ slopes


@pytest.mark.parametrize(
    "slopes",
    [
        [1, 0.25, 0.37, 0.41, 0.5, 0.8],
        [0.8, 0.5, 0.41, 0.37, 0.25, 1],
        [1, 0.002, 0.0031, 0.0035, 0.004, 0.0028],
        [2.02609e-08, 1.04e-08, 1.5e-08, 7.5e-09, 3.1e-08, 1.85e-08],
    ],
)
def test_each_slice_has_its_own_slope_and_intercept(tmp_path: Path, slopes: list[float]) -> None:
    intercepts = [0, 0, -30000, 5, 0, 0.5]

    def scale(dataset: Any, k: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{slopes[k]:.10g}", str(intercepts[k])

    truth = POSITIVE * np.array(slopes)[:, None, None] + np.array(intercepts)[:, None, None]
    assert_allclose(values(write_slices(tmp_path, POSITIVE, kind=PET, edit=scale)), truth, rtol=2e-7)


def test_a_slope_of_zero_is_refused_where_there_is_anything(tmp_path: Path) -> None:
    def scale(dataset: Any, k: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = "0", "0"

    assert not values(write_slices(tmp_path / "empty", 0 * POSITIVE, kind=PET, edit=scale)).any()
    assert "RescaleSlope is 0" in refusal(write_slices(tmp_path / "full", POSITIVE, kind=PET, edit=scale))


def test_a_table_takes_the_place_of_a_slope(tmp_path: Path) -> None:
    stored = (POSITIVE % 4).astype(np.uint16)

    def look_up(dataset: Any, k: int) -> None:
        table = Dataset()
        table.LUTDescriptor, table.ModalityLUTType = [4, 0, 16], "US"
        table.LUTData = np.array([10, 20, 70, 40000], "<u2").tobytes()
        dataset.ModalityLUTSequence = [table]

    assert_array_equal(values(write_slices(tmp_path, stored, edit=look_up)), np.array([10, 20, 70, 40000])[stored])


# ------------------------------------------------------------------------------ bits


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("place", ["low", "high", "middle"])
def test_twelve_bits_of_sixteen_with_something_in_the_others(tmp_path: Path, signed: bool, place: str) -> None:
    """The rest of each word holds an overlay, as older scanners write it."""
    truth = (IMAGE if signed else POSITIVE).astype(np.int64)
    up = {"low": 0, "middle": 2, "high": 4}[place]
    noise = np.random.default_rng(1).integers(0, 1 << 16, truth.shape)
    mask = 0xFFF << up
    stored = ((truth & 0xFFF) << up | noise & ~mask).astype(np.uint16).astype(np.int16 if signed else np.uint16)

    def pack(dataset: Any, k: int) -> None:
        dataset.BitsStored, dataset.HighBit = 12, 11 + up

    assert_array_equal(values(write_slices(tmp_path, stored, edit=pack)), truth)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_integers_of_every_width(tmp_path: Path, dtype: str) -> None:
    limits = np.iinfo(dtype)
    image = np.random.default_rng(2).integers(limits.min, limits.max, (3, 5, 4), endpoint=True).astype(dtype)
    assert_array_equal(values(write_slices(tmp_path, image)), image)


def test_monochrome1_is_inverted_but_for_measurements(tmp_path: Path) -> None:
    def white(dataset: Any, k: int) -> None:
        dataset.PhotometricInterpretation, dataset.BitsStored, dataset.HighBit = "MONOCHROME1", 12, 11

    assert_array_equal(values(write_slices(tmp_path / "x", POSITIVE, kind=XRAY, edit=white)), 4095 - POSITIVE)
    assert_array_equal(values(write_slices(tmp_path / "mr", IMAGE, kind=MR, edit=white)), -1 - IMAGE)
    assert_array_equal(values(write_slices(tmp_path / "ct", IMAGE, kind=CT, edit=white)), IMAGE)


# ------------------------------------------------------------------------------ colours

COLOURS = np.random.default_rng(3).integers(0, 256, (9, 8, 3)).astype(np.uint8)


def colour_slice(folder: Path, stored: Any, photometric: str, planar: int = 0) -> Path:
    dataset = new_dataset(PHOTO)
    dataset.PixelSpacing = [0.5, 0.5]
    put_pixels(dataset, stored, photometric=photometric)
    if planar:
        dataset.PlanarConfiguration = 1
        dataset.PixelData = np.ascontiguousarray(np.moveaxis(stored, -1, 0)).tobytes()
    save(dataset, folder / "a.dcm")
    return folder


@pytest.mark.parametrize("planar", [0, 1])
def test_colours_are_three_channels(tmp_path: Path, planar: int) -> None:
    assert_array_equal(values(colour_slice(tmp_path, COLOURS, "RGB", planar))[0], COLOURS)


def test_luminance_and_chrominance_become_colours(tmp_path: Path) -> None:
    y, blue, red = np.moveaxis(COLOURS.astype(float), -1, 0)
    blue, red = blue - 128, red - 128
    expected = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], axis=-1)
    found = values(colour_slice(tmp_path, COLOURS, "YBR_FULL"))[0]
    assert_allclose(found, expected.clip(0, 255), atol=1)


def test_a_palette_becomes_colours(tmp_path: Path) -> None:
    dataset = new_dataset(PHOTO)
    dataset.PixelSpacing = [0.5, 0.5]
    indices = (COLOURS[..., 0] % 4).astype(np.uint8)
    put_pixels(dataset, indices, photometric="PALETTE COLOR")
    palette = np.random.default_rng(4).integers(0, 1 << 16, (4, 3)).astype(np.uint16)
    for n, colour in enumerate(("Red", "Green", "Blue")):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 16])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", palette[:, n].tobytes())
    save(dataset, tmp_path / "a.dcm")
    assert_array_equal(values(tmp_path)[0], palette[indices])


# ------------------------------------------------------------------------------ encodings


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_uncompressed_encoding(tmp_path: Path, syntax: Any) -> None:
    def encode(dataset: Any, k: int) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = IMAGE[k].astype(">i2").tobytes()

    assert_array_equal(values(write_slices(tmp_path, IMAGE, edit=encode)), IMAGE)


def test_a_deflated_file_may_be_much_smaller_than_its_voxels(tmp_path: Path) -> None:
    def deflated(dataset: Any, k: int) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    image = np.zeros((3, 120, 110), np.int16)
    image[1, 30:60, 20:70] = 77
    folder = write_slices(tmp_path / "case", image, edit=deflated)
    assert all(file.stat().st_size < image[0].nbytes / 4 for file in folder.iterdir())
    assert_array_equal(read_image([folder]).array[0], image[:, ::-1, ::-1])


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, None])
@pytest.mark.parametrize("name", ["IM{:04d}.dcm", "I{}"])
def test_files_without_preamble_and_file_meta_information(tmp_path: Path, syntax: Any, name: str) -> None:
    def encode(dataset: Any, k: int) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax or dataset.file_meta.TransferSyntaxUID
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = IMAGE[k].astype(">i2").tobytes()

    write_slices(tmp_path, IMAGE, name=name, edit=encode)
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        length = int.from_bytes(content[140:144], "little")  # of group 0002
        file.write_bytes(content[144 + length :])
    assert_array_equal(values(tmp_path), IMAGE)


def transcode(path: Path, syntax: str) -> None:
    """Compress a file as gdcm does it."""
    import gdcm

    kinds = {
        JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
        JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
        RLELossless: gdcm.TransferSyntax.RLELossless,
    }
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(kinds[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize("signed", [False, True])
def test_slices_that_are_compressed_in_different_ways(tmp_path: Path, signed: bool) -> None:
    image = IMAGE if signed else POSITIVE
    folder = write_slices(tmp_path, image)
    kinds = [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless]
    for file, syntax in zip(sorted(folder.iterdir()), kinds, strict=False):
        transcode(file, syntax)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(names)), image)
    assert_array_equal(values(folder), image)


def without_decoders(folder: Path) -> str:
    """What is said where only pydicom and Pillow are installed."""
    program = (
        "import sys\n"
        "for name in ('gdcm', 'pylibjpeg', 'openjpeg', 'libjpeg', 'jpeg_ls'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from mvl_auto.images import read_image\n"
        "from mvl_auto.errors import MvlError\n"
        "try: print(read_image([Path(sys.argv[1])]).array.sum())\n"
        "except MvlError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_decoder_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, IMAGE[:1])
    transcode(folder / "IM0001.dcm", JPEGLosslessSV1)
    message = without_decoders(folder)
    assert message.startswith(f"{folder}/IM0001.dcm: is compressed as JPEG Lossless")
    assert 'pip install "mvl-auto[dicom]"' in message


# ------------------------------------------------------------------------------ promises


def test_a_file_that_lacks_pixels_is_refused_before_memory_is_set_aside(tmp_path: Path) -> None:
    def promise(dataset: Any, k: int) -> None:
        dataset.Rows, dataset.Columns = 65535, 65535

    folder = write_slices(tmp_path, IMAGE[:1], edit=promise)
    assert limited(folder).startswith(f"{folder}/IM0001.dcm: is cut short: ")


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1, RLELossless])
def test_a_compressed_bomb_is_refused_before_memory_is_set_aside(tmp_path: Path, syntax: str) -> None:
    folder = write_slices(tmp_path, IMAGE[:1])
    file = folder / "IM0001.dcm"
    transcode(file, syntax)
    rows = (0x0028).to_bytes(2, "little") + (0x0010).to_bytes(2, "little") + b"US\x02\x00"
    content = bytearray(file.read_bytes())
    for tag in (0x10, 0x11):
        at = content.index(rows[:2] + tag.to_bytes(2, "little") + rows[4:]) + 8
        content[at : at + 2] = (60000).to_bytes(2, "little")
    file.write_bytes(content)
    assert limited(folder).startswith(f"{file}: is cut short: ")


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_pixels_that_are_larger_than_the_header_says_are_refused(tmp_path: Path, syntax: str) -> None:
    folder = write_slices(tmp_path, IMAGE[:1])
    file = folder / "IM0001.dcm"
    transcode(file, syntax)
    content = bytearray(file.read_bytes())
    if syntax == JPEG2000Lossless:
        at = content.index(b"\xff\x4f\xff\x51") + 8
        content[at : at + 8] = (60000).to_bytes(4, "big") * 2
    else:
        at = content.index(b"\xff\xf7" if syntax == JPEGLSLossless else b"\xff\xc3", content.index(b"\xff\xd8")) + 5
        content[at : at + 4] = (60000).to_bytes(2, "big") * 2
    file.write_bytes(content)
    assert "has compressed pixels of 60000x60000, its header says 18x16" in limited(folder)


def test_a_deflated_bomb_is_refused(tmp_path: Path) -> None:
    def deflate(dataset: Any, k: int) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    file = write_slices(tmp_path, IMAGE[:1], edit=deflate) / "IM0001.dcm"
    content = file.read_bytes()
    at = 144 + int.from_bytes(content[140:144], "little")
    inner = zlib.decompress(content[at:], -zlib.MAX_WBITS)
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = squeeze.compress(inner)
    for _ in range(40):
        packed += squeeze.compress(bytes(1 << 26))
    file.write_bytes(content[:at] + packed + squeeze.flush())
    assert "becomes more than 2 GiB" in limited(tmp_path)


def limited(folder: Path) -> str:
    """What is said in 1 GB of memory."""
    program = (
        "import resource, sys; from pathlib import Path; from mvl_auto.images.volume import read_image\n"
        "import numpy, pydicom, pydicom.pixels, mvl_auto.images.dicom\n"
        "from mvl_auto.errors import MvlError\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
        "try: print(read_image([Path(sys.argv[1])]).array.shape)\n"
        "except MvlError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    return done.stdout.strip()
