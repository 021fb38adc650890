"""TIFF as microscopes and fax machines leave it: one bit, white for zero, sizes in the units of OME and ImageJ."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from mvl_auto.images import read_image, read_label
from mvl_auto.images.remarks import remark_on, tell_remarks
from mvl_auto.images.tiff_units import millimetres

MASK = np.add.outer(np.arange(21) ** 2, np.arange(19) ** 2) < 200
GREY = np.random.default_rng(0).integers(0, 256, (21, 19)).astype(np.uint8)
STACK = np.random.default_rng(1).integers(0, 999, (4, 6, 5)).astype(np.uint16)
FURLONG = "states its voxel size in 'furlong', a unit that is not known: 1 mm is assumed"


def write_stack(path: Path, writer: str, unit: str) -> None:
    """A TIFF of ImageJ or of OME whose voxel size is in any unit."""
    if writer == "imagej":
        metadata = {"axes": "ZYX", "spacing": 3.5, "unit": unit}
        tifffile.imwrite(path, STACK, imagej=True, resolution=(2, 2), metadata=metadata)
        return
    sizes: dict[str, Any] = {f"PhysicalSize{axis}": 3.5 for axis in "XYZ"}
    units = {f"PhysicalSize{axis}Unit": unit for axis in "XYZ"}
    tifffile.imwrite(path, STACK, ome=True, metadata={"axes": "ZYX"} | sizes | units)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "group3", "group4", "packbits", "tiff_adobe_deflate"])
def test_masks_of_one_bit_are_read_in_every_compression(tmp_path: Path, compression: str | None) -> None:
    Image.fromarray(MASK).save(tmp_path / "a.tif", compression=compression)
    assert_array_equal(read_label(tmp_path / "a.tif")[0][0], MASK)


@pytest.mark.parametrize("compression", ["tiff_lzw", "group4"])
def test_stacks_of_one_bit_are_read_page_by_page(tmp_path: Path, compression: str) -> None:
    pages = [MASK, ~MASK, MASK.T.copy().T, np.zeros_like(MASK)]
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(tmp_path / "a.tif", compression=compression, save_all=True, append_images=others)
    assert_array_equal(read_label(tmp_path / "a.tif")[0], np.stack(pages))


def test_white_for_zero_is_read_as_it_looks(tmp_path: Path) -> None:
    """As Pillow does: the greatest value is white, whichever way the file stores it."""
    tifffile.imwrite(tmp_path / "one.tif", ~MASK, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "eight.tif", 255 - GREY, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "sixteen.tif", 65_535 - GREY.astype(np.uint16), photometric="miniswhite")
    tifffile.imwrite(tmp_path / "zip.tif", 255 - GREY, photometric="miniswhite", compression="zlib")
    assert_array_equal(read_label(tmp_path / "one.tif")[0][0], MASK)
    for name in ("eight", "sixteen", "zip"):
        assert_array_equal(read_label(tmp_path / f"{name}.tif")[0][0], GREY)
    assert_array_equal(np.asarray(Image.open(tmp_path / "eight.tif")), GREY)
    assert_array_equal(np.asarray(Image.open(tmp_path / "one.tif")), MASK)


def test_grey_pictures_in_lzw_are_read(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.tif", compression="tiff_lzw")
    assert_array_equal(read_image([tmp_path / "a.tif"]).array[0, 0], GREY)
    Image.fromarray(GREY).save(tmp_path / "w.tif", compression="tiff_lzw", tiffinfo={262: 0})
    with tifffile.TiffFile(tmp_path / "w.tif") as tiff:
        stored_white_is_zero = tiff.pages[0].photometric == 0
    assert_array_equal(read_image([tmp_path / "w.tif"]).array[0, 0], np.asarray(Image.open(tmp_path / "w.tif")))
    assert stored_white_is_zero or (np.asarray(Image.open(tmp_path / "w.tif")) == GREY).all()


UNITS = [("micron", 1e-3), ("Micron", 1e-3), ("microns", 1e-3), ("um", 1e-3), ("\\u00B5m", 1e-3), ("mm", 1.0)]
UNITS += [("cm", 10.0), ("inch", 25.4), ("inches", 25.4), ("nm", 1e-6)]


@pytest.mark.parametrize(("unit", "scale"), UNITS)
def test_sizes_of_imagej_are_in_its_unit(tmp_path: Path, unit: str, scale: float) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        STACK,
        imagej=True,
        resolution=(1 / 2.5, 1 / 1.25),  # pixels per unit along x and y
        metadata={"axes": "ZYX", "spacing": 3.5, "unit": unit},
    )
    assert_allclose(read_image([tmp_path / "a.tif"]).spacing, np.array([3.5, 1.25, 2.5]) * scale, rtol=1e-5)


@pytest.mark.parametrize(("unit", "scale"), [("µm", 1e-3), ("nm", 1e-6), ("mm", 1.0), ("cm", 10.0), ("in", 25.4)])
def test_sizes_of_ome_are_in_its_units(tmp_path: Path, unit: str, scale: float) -> None:
    sizes: dict[str, Any] = {f"PhysicalSize{axis}": 1.25 * n for n, axis in enumerate("XYZ", start=1)}
    units = {f"PhysicalSize{axis}Unit": unit for axis in "XYZ"}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata={"axes": "ZYX"} | sizes | units)
    assert_allclose(read_image([tmp_path / "a.ome.tif"]).spacing, np.array([3.75, 2.5, 1.25]) * scale, rtol=1e-5)
    tifffile.imwrite(tmp_path / "b.ome.tif", STACK, metadata={"axes": "ZYX"} | sizes)  # OME's default unit
    assert_allclose(read_image([tmp_path / "b.ome.tif"]).spacing, np.array([3.75, 2.5, 1.25]) * 1e-3, rtol=1e-5)


@pytest.mark.parametrize("unit", ["nm", "\u00e5", "angstrom"])
def test_voxels_of_atoms_are_no_damaged_header(tmp_path: Path, unit: str) -> None:
    write_stack(tmp_path / "a.ome.tif", "ome", unit)
    assert_allclose(read_image([tmp_path / "a.ome.tif"]).spacing, [3.5 * (millimetres(unit) or 0)] * 3, rtol=1e-5)


def test_units_of_ome_may_differ_by_axis(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata=metadata | {"PhysicalSizeZ": 1.0})
    assert_allclose(read_image([tmp_path / "a.ome.tif"]).spacing, [1e-3, 2.5e-4, 2.5e-4], rtol=1e-5)


@pytest.mark.parametrize("writer", ["imagej", "ome"])
def test_a_unit_that_is_not_known_is_remarked_on_and_taken_for_mm(tmp_path: Path, writer: str) -> None:
    for name, unit in (("odd", "furlong"), ("none", "pixel")):
        write_stack(tmp_path / f"{name}.tif", writer, unit)
    for name, remark in (("odd", FURLONG), ("none", "")):
        volume = read_image([tmp_path / f"{name}.tif"])
        assert volume.spacing == (1.0, 1.0, 1.0)
        assert remark_on(volume.geometry.file) == remark
    assert millimetres("furlong") is None


def test_a_spacing_written_beside_it_stands_for_a_unit_that_is_not_known(tmp_path: Path) -> None:
    write_stack(tmp_path / "a_0000.tif", "imagej", "furlong")
    (tmp_path / "a.json").write_text('{"spacing": [3, 2, 1]}')
    volume = read_image([tmp_path / "a_0000.tif"])
    assert volume.spacing == (3.0, 2.0, 1.0)
    assert remark_on(volume.geometry.file) == ""


def test_a_remark_on_many_files_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [Path(f"{name}.tif") for name in "abcde"]
    with caplog.at_level(logging.WARNING):
        tell_remarks(logging.getLogger("mvl_auto"), {"": files, FURLONG: files, "leans": files[:1]})
    assert caplog.messages == [f"5 images (a.tif, b.tif, c.tif and 2 more): each {FURLONG}", "a.tif: leans"]


def test_the_resolution_meant_for_printers_is_not_used(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, resolution=(300, 300), resolutionunit="INCH", metadata=None)
    assert read_image([tmp_path / "a.tif"]).spacing == (1.0, 1.0, 1.0)
