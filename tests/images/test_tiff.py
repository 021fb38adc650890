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
from mvl_auto.images.tiff_units import millimetres

MASK = np.add.outer(np.arange(21) ** 2, np.arange(19) ** 2) < 200
GREY = np.random.default_rng(0).integers(0, 256, (21, 19)).astype(np.uint8)
STACK = np.random.default_rng(1).integers(0, 999, (4, 6, 5)).astype(np.uint16)


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


def test_units_of_ome_may_differ_by_axis(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata=metadata | {"PhysicalSizeZ": 1.0})
    assert_allclose(read_image([tmp_path / "a.ome.tif"]).spacing, [1e-3, 2.5e-4, 2.5e-4], rtol=1e-5)


def test_a_unit_that_is_not_known_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, unit in (("odd", "furlong"), ("none", "pixel")):
        metadata = {"axes": "ZYX", "spacing": 3.5, "unit": unit}
        tifffile.imwrite(tmp_path / f"{name}.tif", STACK, imagej=True, resolution=(2, 2), metadata=metadata)
    with caplog.at_level(logging.WARNING):
        assert read_image([tmp_path / "none.tif"]).spacing == (1.0, 1.0, 1.0)
        assert not caplog.messages
        assert read_image([tmp_path / "odd.tif"]).spacing == (1.0, 1.0, 1.0)
    assert caplog.messages == [
        f"{tmp_path / 'odd.tif'}: its voxel size is in 'furlong', a unit that is not known: 1 mm is assumed"
    ]
    assert millimetres("furlong") is None


def test_the_resolution_meant_for_printers_is_not_used(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, resolution=(300, 300), resolutionunit="INCH", metadata=None)
    assert read_image([tmp_path / "a.tif"]).spacing == (1.0, 1.0, 1.0)
