"""Files that are damaged, or that the system does not give: read all the same, or refused by name in one line."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from builders import make_dataset
from commands import as_a_user
from dicom_series import save_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from mvl_auto.datasets import hash_files, inspect_dataset, load_case, read_dataset
from mvl_auto.errors import MvlError
from mvl_auto.images import read_image, read_label

VOXELS = np.random.default_rng(0).integers(0, 255, (12, 10, 8)).astype(np.int16)
PICTURE = VOXELS[0].astype(np.uint8)
HEADER = 400  # bytes in which damage tells most
WRITERS: dict[str, Callable[[Path], Any]] = {
    "one.nii": lambda path: nibabel.save(nibabel.Nifti1Image(VOXELS, np.diag([1, 2, 3, 1])), path),
    "two.nii": lambda path: nibabel.save(nibabel.Nifti2Image(VOXELS, np.eye(4)), path),
    "one.nii.gz": lambda path: nibabel.save(nibabel.Nifti1Image(VOXELS, np.diag([1, 2, 3, 1])), path),
    "raw.nrrd": lambda path: sitk.WriteImage(sitk.GetImageFromArray(VOXELS), path),
    "packed.nrrd": lambda path: sitk.WriteImage(sitk.GetImageFromArray(VOXELS), path, True),
    "raw.mha": lambda path: sitk.WriteImage(sitk.GetImageFromArray(VOXELS), path),
    "packed.mha": lambda path: sitk.WriteImage(sitk.GetImageFromArray(VOXELS), path, True),
    "beside.mhd": lambda path: sitk.WriteImage(sitk.GetImageFromArray(VOXELS), path),
    "grey.png": lambda path: Image.fromarray(PICTURE).save(path),
    "colour.png": lambda path: Image.fromarray(np.stack([PICTURE] * 3, axis=-1)).save(path),
    "palette.png": lambda path: Image.fromarray(PICTURE).convert("P").save(path),
    "grey.bmp": lambda path: Image.fromarray(PICTURE).save(path),
    "imagej.tif": lambda path: tifffile.imwrite(
        path,
        VOXELS.astype(np.uint16),
        imagej=True,
        resolution=(2, 2),
        metadata={"unit": "um", "spacing": 2, "axes": "ZYX"},
    ),
    "packed.tiff": lambda path: tifffile.imwrite(path, VOXELS.astype(np.uint16), compression="zlib"),
}


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Cut short somewhere, or a few bytes other than they were, mostly of the header."""
    cut = draw(st.none() | st.floats(0, 1, exclude_max=True))
    changes = draw(
        st.lists(
            st.tuples(
                st.floats(0, 1, exclude_max=True),
                st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255),
                st.booleans(),
            ),
            min_size=1,
            max_size=5,
        )
    )

    def damaged(content: bytes) -> bytes:
        if cut is not None:
            return content[: int(cut * len(content))]
        changed = bytearray(content)
        for place, value, anywhere in changes:
            changed[int(place * (len(content) if anywhere else min(HEADER, len(content))))] = value
        return bytes(changed)

    return damaged


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    for name, write in WRITERS.items():
        write(folder / name)
    return folder


def refusal(read: Callable[[Path], Any], path: Path) -> str:
    """The message of the MvlError that reading raises; empty where the file can be read. Warnings are errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read(path)
    except MvlError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_is_read_or_refused_by_its_name(whole: Path, tmp_path: Path, name: str) -> None:
    packed = name.endswith(".gz")
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    content = (whole / name).read_bytes()
    content = gzip.decompress(content) if packed else content
    refused = 0

    @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(damage())
    def check(damaged: Callable[[bytes], bytes]) -> None:
        nonlocal refused
        changed = damaged(content)
        (tmp_path / name).write_bytes(gzip.compress(changed) if packed else changed)
        for read in (lambda path: read_image([path]), read_label):
            if message := refusal(read, tmp_path / name):
                refused += 1
                assert str(tmp_path) in message
                assert "\n" not in message
                assert len(message) < len(str(tmp_path)) + 250

    check()
    assert refused > 20  # the damage was none that no reader minds


def edited(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    "name", ["raw.mha", "packed.mha", "beside.mhd", "raw.nrrd", "packed.nrrd", "packed.tiff", "colour.png"]
)
def test_a_header_that_promises_more_than_the_file_holds_sets_nothing_aside(
    whole: Path, tmp_path: Path, name: str
) -> None:
    """In 1 GB of memory; the headers promise 0.4 to 16."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = tmp_path / name
    if name.endswith((".mha", ".mhd")):
        edited(path, b"DimSize = 8 10 12", b"DimSize = 8000 10000 100")
    elif name.endswith(".nrrd"):
        edited(path, b"sizes: 8 10 12", b"sizes: 8000 10000 100")
    elif name.endswith(".png"):
        content = bytearray(path.read_bytes())
        content[16:24] = (12_000).to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        path.write_bytes(content)
    else:
        with tifffile.TiffFile(path) as tiff:
            tags = tiff.pages[0].tags
            place, order = tags["ImageWidth"].valueoffset, tiff.byteorder
        content = bytearray(path.read_bytes())
        assert tags["ImageWidth"].dtype == tifffile.DATATYPE.LONG
        content[place : place + 4] = (80_000_000).to_bytes(4, "little" if order == "<" else "big")
        path.write_bytes(content)
    program = (
        "import resource, sys; from pathlib import Path; from mvl_auto.images.volume import read_image\n"
        "import numpy, nibabel, SimpleITK, PIL.Image, tifffile\n"
        "from mvl_auto.errors import MvlError\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
        "try: read_image([Path(sys.argv[1])])\n"
        "except MvlError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: "), done.stderr
    assert "cut short" in done.stdout


@pytest.mark.parametrize("name", ["raw.mha", "packed.mha"])
def test_a_metaimage_that_lacks_its_last_bytes_is_refused_before_metaio_prints_lines(
    whole: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content = (whole / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-3])
    with pytest.raises(MvlError, match=f"is cut short: {len(content) - 3} of {len(content)} bytes"):
        read_image([tmp_path / name])
    (tmp_path / name).write_bytes(content[:200])
    with pytest.raises(MvlError, match="is not a MetaImage"):
        read_image([tmp_path / name])
    assert capfd.readouterr().err == ""


def test_headers_of_nifti_that_no_reader_of_numbers_expects(tmp_path: Path) -> None:
    for offset, value, words in (
        (70, np.int16(-252).tobytes(), "voxel type"),
        (70, np.int16(28164).tobytes(), "voxel type"),
        (108, np.float32(np.nan).tobytes(), "damaged header"),
        (116, np.float32(np.inf).tobytes(), "damaged header"),
        (42, np.int16([32767] * 7).tobytes(), "cut short|axes"),
    ):
        path = tmp_path / "case.nii"
        WRITERS["one.nii"](path)
        content = bytearray(path.read_bytes())
        content[112:116] = np.float32(2).tobytes()  # scl_slope
        content[offset : offset + len(value)] = value
        path.write_bytes(content)
        with pytest.raises(MvlError, match=rf"case\.nii: .*({words})"):
            read_image([path])


# ------------------------------------------------------------------------------ slices of a series


@pytest.mark.parametrize("number", [0, 2, 5])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_slice_that_is_cut_short_is_named_at_the_ends_of_the_series_too(
    tmp_path: Path, number: int, share: float
) -> None:
    folder = save_series(tmp_path / "case", VOXELS[:6], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    damaged = folder / f"1.2.3.{number}.dcm"
    content = damaged.read_bytes()
    damaged.write_bytes(content[: int(share * len(content))])
    with pytest.raises(MvlError, match="is damaged or cut short") as caught:
        read_image([folder])
    assert str(caught.value).startswith(f"{damaged}: ")


def test_the_table_of_contents_of_a_medium_is_no_slice(tmp_path: Path) -> None:
    folder = save_series(tmp_path / "case", VOXELS[:3], [0.0, 1.0, 2.0])
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / "notes.txt").write_text("not a slice")
    assert read_image([folder]).array.shape == (1, 3, 10, 8)


# ------------------------------------------------------------------------------ voxels in other files


def headers_of(tmp_path: Path) -> dict[str, tuple[Path, list[Path]]]:
    """MetaImage and NRRD headers, and the files of one's own that each has its voxels in: VOXELS."""
    (tmp_path / "voxels").mkdir()
    files = {"one": [tmp_path / "voxels" / "all of it.bin"]}
    files["one"][0].write_bytes(VOXELS.tobytes())
    files["slices"] = [tmp_path / "voxels" / f"slice{n:03d}.bin" for n in range(1, len(VOXELS) + 1)]
    for file, pixels in zip(files["slices"], VOXELS, strict=True):
        file.write_bytes(pixels.tobytes())
    names = {key: [str(file.relative_to(tmp_path)) for file in group] for key, group in files.items()}
    mhd = "NDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nDimSize = 8 10 12\nElementType = MET_SHORT\n"
    nrrd = "NRRD0004\ntype: short\ndimension: 3\nsizes: 8 10 12\nendian: little\nencoding: raw\n"
    listed, pattern = "\n".join(names["slices"]), "voxels/slice%03d.bin 1 12"
    texts = {
        "one.mhd": ("one", f"{mhd}ElementDataFile = {names['one'][0]}\n"),
        "absolute.mhd": ("one", f"{mhd}ElementDataFile = {files['one'][0]}\n"),
        "list.mhd": ("slices", f"{mhd}ElementDataFile = LIST\n{listed}\n"),
        "pattern.mhd": ("slices", f"{mhd}ElementDataFile = {pattern} 1\n"),
        "one.nrrd": ("one", f"{nrrd}data file: {names['one'][0]}\n"),
        "list.nrrd": ("slices", f"{nrrd}data file: LIST\n{listed}\n"),
        "pattern.nrrd": ("slices", f"{nrrd}data file: {pattern} 1\n"),
    }
    made = {}
    for name, (key, text) in texts.items():
        (tmp_path / name).write_text(text)
        made[name] = (tmp_path / name, files[key])
    return made


KINDS = ("one.mhd", "absolute.mhd", "list.mhd", "pattern.mhd", "one.nrrd", "list.nrrd", "pattern.nrrd")


@pytest.mark.parametrize("kind", KINDS)
def test_voxels_are_hashed_wherever_their_header_says_that_they_are(tmp_path: Path, kind: str) -> None:
    from mvl_auto.datasets import Case, files_of

    path, files = headers_of(tmp_path)[kind]
    assert_array_equal(np.abs(read_image([path]).array[0]).sum(), VOXELS.sum())  # read at all; turned by its frame
    case = Case("case", (path,))
    assert files_of(case) == [path, *files]
    before = hash_files(case)
    files[-1].write_bytes(bytes(len(files[-1].read_bytes())))
    assert hash_files(case) != before
    files[-1].unlink()
    with pytest.raises(MvlError) as caught:
        read_image([path])
    assert str(caught.value).startswith(f"{files[-1]}: is missing")


# ------------------------------------------------------------------------------ what the system does not give

UNREADABLE = """
import sys
from pathlib import Path
from mvl_auto.datasets import hash_files, inspect_dataset, load_case
from mvl_auto.errors import MvlError
from mvl_auto.planners.doctor.diagnosis import examine_dataset
try:
    dataset, problems = inspect_dataset(Path(sys.argv[1]))
    for problem in problems:
        print(problem)
    for case in dataset.cases:
        for look in (lambda: load_case(case, dataset.labels), lambda: hash_files(case)):
            try:
                look()
            except MvlError as error:
                print(error)
    for finding in examine_dataset(Path(sys.argv[1]), workers=1).findings:
        print(finding.file, finding.what)
except MvlError as error:
    print(error)
"""


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".mhd", ".png", ".tif"])
@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, ending: str, part: str) -> None:
    shape, spacing = ((6, 7), (1, 1)) if ending in (".png", ".tif") else ((6, 7, 8), (1, 1, 1))
    dataset = make_dataset(
        tmp_path, "nnunet", cases=2, shape=shape, spacing=spacing, file_ending=ending, label_values=(0, 1)
    )
    file = sorted((dataset / part).glob(f"tiny_001*{ending}"))[0]
    file.chmod(0)
    said = as_a_user(sys.executable, "-c", UNREADABLE, str(dataset)).splitlines()
    assert [line for line in said if line.startswith(f"{file}: cannot be read (Permission denied).")] == said[:2]
    assert f"{part}/{file.name} cannot be read (Permission denied)" in said


@pytest.mark.parametrize("mode", [0o000, 0o400])
@pytest.mark.parametrize(
    ("part", "layout"),
    [
        ("imagesTr", "nnunet"),
        ("imagesTr", "msd"),
        ("labelsTr", "nnunet"),
        ("labelsTr", "msd"),
        ("imagesTr/series_0000", "nnunet"),
    ],
)
def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path: Path, mode: int, part: str, layout: Any) -> None:
    dataset = make_dataset(tmp_path, layout, cases=2, shape=(6, 7, 8))
    if "series" in part:
        save_series(dataset / part, VOXELS[:3], [0.0, 1.0, 2.0])
    (dataset / part).chmod(mode)
    try:
        said = as_a_user(sys.executable, "-c", UNREADABLE, str(dataset))
    finally:
        (dataset / part).chmod(0o700)
    assert f"{dataset / part}" in said.splitlines()[0]
    assert "cannot be read (Permission denied)" in said.splitlines()[0]


def test_a_file_of_groups_or_a_slice_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, "nnunet", cases=2, shape=(6, 7, 8))
    (dataset / "groups.csv").write_text("case,group\n")
    (dataset / "groups.csv").chmod(0)
    series = save_series(dataset / "imagesTr" / "series_0000", VOXELS[:3], [0.0, 1.0, 2.0])
    (series / "1.2.3.0.dcm").chmod(0)
    said = as_a_user(sys.executable, "-c", UNREADABLE, str(dataset))
    for file in (dataset / "groups.csv", series / "1.2.3.0.dcm"):
        assert f"{file}: cannot be read (Permission denied)." in said


def test_folders_and_dangling_links_in_the_place_of_files(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, "nnunet", cases=3, shape=(6, 7, 8))
    label = dataset / "labelsTr" / "tiny_001.nii.gz"
    label.unlink()
    label.mkdir()
    read = read_dataset(dataset)
    for look in (lambda: load_case(read.cases[1], read.labels), lambda: read_label(label)):
        with pytest.raises(MvlError) as caught:
            look()
        assert str(caught.value).startswith(f"{label}: holds no DICOM series")
    label.rmdir()
    label.symlink_to(tmp_path / "nowhere")
    with pytest.raises(MvlError, match="is missing"):
        hash_files(read.cases[1])
    with pytest.raises(MvlError) as caught:
        read_dataset(dataset)
    assert str(caught.value).startswith(f"{label}: is a link to ")
    label.unlink()
    label.symlink_to(label.name)
    _, problems = inspect_dataset(dataset)
    assert [str(problem).split(" (")[0] for problem in problems] == [f"{label}: cannot be read"]
    (dataset / "groups.csv").mkdir()
    _, problems = inspect_dataset(dataset)
    assert str(problems[-1]).startswith(f"{dataset}/groups.csv: cannot be read (Is a directory)")
