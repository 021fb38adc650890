"""Headers of pictures and of NRRD and MetaImage with any values: read, or refused in one line, in little memory."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mvl_auto.errors import MvlError, noting
from mvl_auto.images import read_image, read_label

GREY = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(np.uint8)
GIBIBYTE = 1 << 30
ANY = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
NUMBERS = st.sampled_from([0, 1, 2, 7, 8, 9, 255, 65_535, 2**31 - 1, 2**32 - 1]) | st.integers(0, 2**32 - 1)


def check(path: Path) -> None:
    """Read as image and as label: whatever comes, it is an image or one line."""
    for read in (lambda: read_image([path]).array.shape, lambda: read_label(path)[0].shape):
        problems: list[MvlError] = []
        with noting(problems):
            assert 0 < np.prod(read()) <= 10_000_000
        for problem in problems:
            assert str(problem).startswith(str(path.with_suffix("")))  # or a file beside it that holds its voxels
            assert "\n" not in str(problem)
            assert len(str(problem)) < 600


def refusal_within(path: Path, limit: int) -> str:
    """What reading says in a process of its own that may have this many bytes more than it takes at the start."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "import tifffile, PIL.Image, SimpleITK\n"
        "from mvl_auto.errors import MvlError\n"
        "from mvl_auto.images import read_image\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (now + {limit}, now + {limit}))\n"
        "try:\n    print('read', read_image([Path(sys.argv[1])]).array.shape)\n"
        "except MvlError as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr[-500:]
    return ran.stdout.strip()


# ------------------------------------------------------------------------------ any header


@ANY
@given(
    width=NUMBERS,
    height=NUMBERS,
    depth=st.sampled_from([0, 1, 2, 4, 8, 16, 32, 255]),
    colour=st.sampled_from([0, 2, 3, 4, 6, 7, 255]),
    data=st.binary(max_size=40),
)
def test_any_png(tmp_path: Path, width: int, height: int, depth: int, colour: int, data: bytes) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    )
    check(path)


@ANY
@given(fields=st.lists(st.tuples(st.integers(2, 50), NUMBERS), min_size=1, max_size=3))
def test_any_bmp(tmp_path: Path, fields: list[tuple[int, int]]) -> None:
    path = tmp_path / "a.bmp"
    Image.fromarray(GREY).save(path)
    content = bytearray(path.read_bytes())
    for place, number in fields:
        struct.pack_into("<I", content, place, number)
    path.write_bytes(content)
    check(path)


@ANY
@given(
    changes=st.lists(
        st.tuples(st.sampled_from([256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 339, 0, 65_535]), NUMBERS),
        min_size=1,
        max_size=4,
    ),
    next_directory=st.sampled_from([0, 8, 10, 2**32 - 1]),
)
def test_any_tiff(tmp_path: Path, changes: list[tuple[int, int]], next_directory: int) -> None:
    """Tags with other values, in a directory that may be its own successor."""
    tags = {256: 7, 257: 9, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 9, 279: 63} | dict(changes)
    start = 8 + 2 + 12 * len(tags) + 4
    tags[273] = tags[273] or start
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in sorted(tags.items()))
    content = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", next_directory)
    path = tmp_path / "a.tif"
    path.write_bytes(content + GREY.tobytes())
    check(path)


@ANY
@given(
    sizes=st.lists(st.integers(-1, 9) | NUMBERS, min_size=0, max_size=5),
    fields=st.lists(
        st.sampled_from(
            [
                "type: float",
                "type: block",
                "encoding: raw",
                "encoding: hex",
                "dimension: 99",
                "space: right-anterior-superior",
                "space directions: (nan,0,0) (0,1,0) (0,0,1)",
                "space directions: none (1,0,0) (0,1,0) (0,0,1)",
                "space origin: (1e400,0,0)",
                "spacings: nan 0 -1",
                "kinds: list domain domain domain",
                "Segment0_LabelValue:=1",
                "Segment0_Layer:=99999999999",
                "Segment0_Name:=a\\nb",
                "byte skip: -1",
                "line skip: 99999",
                "data file: LIST",
                "data file: ./a%03d.raw 1 9999 1",
            ]
        ),
        max_size=4,
        unique=True,
    ),
)
def test_any_nrrd(tmp_path: Path, sizes: list[int], fields: list[str]) -> None:
    path = tmp_path / "a.nrrd"
    lines = [
        "NRRD0004",
        "type: uchar",
        f"dimension: {len(sizes)}",
        f"sizes: {' '.join(map(str, sizes))}",
        "encoding: raw",
    ]
    path.write_bytes(("\n".join([*lines, *fields]) + "\n\n").encode() + bytes(1000))
    check(path)


@ANY
@given(
    sizes=st.lists(st.integers(-1, 9) | NUMBERS, min_size=0, max_size=4),
    fields=st.lists(
        st.sampled_from(
            [
                "ElementType = MET_DOUBLE",
                "ElementType = MET_NONE",
                "ElementNumberOfChannels = 4294967295",
                "ElementSpacing = nan 0 -1",
                "TransformMatrix = 0 0 0 0 0 0 0 0 0",
                "Offset = inf 0 0",
                "CompressedData = True",
                "CompressedDataSize = 99999999999999999999",
                "BinaryData = False",
                "HeaderSize = -1",
                "HeaderSize = 999999999",
            ]
        ),
        max_size=4,
        unique=True,
    ),
)
def test_any_metaimage(tmp_path: Path, sizes: list[int], fields: list[str]) -> None:
    path = tmp_path / "a.mha"
    lines = [
        "ObjectType = Image",
        f"NDims = {len(sizes)}",
        "BinaryData = True",
        f"DimSize = {' '.join(map(str, sizes))}",
    ]
    lines += ["ElementType = MET_UCHAR", *fields, "ElementDataFile = LOCAL"]
    path.write_bytes(("\n".join(lines) + "\n").encode() + bytes(1000))
    check(path)


# ------------------------------------------------------------------------------ bombs


def test_a_strip_of_a_tiff_is_unpacked_no_further_than_it_should(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="zlib", metadata=None)
    content = (tmp_path / "a.tif").read_bytes()
    packer = zlib.compressobj(1)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(800)) + packer.flush()  # 0.8 gigabytes
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        tags = tiff.pages[0].tags
        places = {tags["StripOffsets"].valueoffset: len(content), tags["StripByteCounts"].valueoffset: len(bomb)}
        sizes = {tag.valueoffset: tag.dtype for tag in tags.values()}
    changed = bytearray(content)
    for place, value in places.items():
        assert sizes[place] == 4  # LONG
        struct.pack_into("<I", changed, place, value)
    (tmp_path / "a.tif").write_bytes(bytes(changed) + bomb)
    assert "is damaged: a strip of 63 bytes unpacks to more" in refusal_within(tmp_path / "a.tif", GIBIBYTE // 4)


@pytest.mark.parametrize("ending", [".tif", ".png", ".bmp"])
def test_a_sparse_file_behind_a_small_picture_is_not_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    Image.fromarray(GREY).save(path)
    os.truncate(path, 1 << 40)
    said = refusal_within(path, GIBIBYTE)
    assert "is 1099511627776 bytes long, for " in said


def test_a_directory_of_a_tiff_that_follows_itself_ends(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY, GREY]), photometric="minisblack", metadata=None)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * count, first)
    (tmp_path / "a.tif").write_bytes(content)
    check(tmp_path / "a.tif")


def test_the_limit_of_these_tests_is_one() -> None:
    """A process that may have a gigabyte more cannot take two."""
    assert resource.RLIMIT_AS
    code = "import resource; now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
    code += f"resource.setrlimit(resource.RLIMIT_AS, (now + {GIBIBYTE}, now + {GIBIBYTE}))\nbytearray({2 * GIBIBYTE})"
    ran: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "MemoryError" in ran.stderr
