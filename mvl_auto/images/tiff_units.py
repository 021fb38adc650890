"""The voxel size that a TIFF states in the metadata of OME or of ImageJ, in mm.

The plain resolution of a TIFF is not used: it is mostly meant for printers.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from typing import Any

Spacing = tuple[float, float, float]  # mm along Z, Y, X

NO_SPACING: Spacing = (1.0, 1.0, 1.0)
LONGEST_XML = 1 << 24  # bytes of OME metadata
# millimetres, by the names that OME and ImageJ allow, in small letters
MILLIMETRES = {
    "\u00e5": 1e-7,
    "angstrom": 1e-7,
    "pm": 1e-9,
    "nm": 1e-6,
    "nanometer": 1e-6,
    "nanometre": 1e-6,
    "um": 1e-3,
    "\u00b5m": 1e-3,  # micro sign
    "\u03bcm": 1e-3,  # Greek mu
    "\\u00b5m": 1e-3,  # as ImageJ writes it
    "micron": 1e-3,
    "micrometer": 1e-3,
    "micrometre": 1e-3,
    "mm": 1.0,
    "millimeter": 1.0,
    "millimetre": 1.0,
    "cm": 10.0,
    "centimeter": 10.0,
    "centimetre": 10.0,
    "dm": 100.0,
    "m": 1e3,
    "meter": 1e3,
    "metre": 1e3,
    "in": 25.4,
    "inch": 25.4,
    "inche": 25.4,  # inches
    '"': 25.4,
}
NO_UNITS = ("", "pixel", "px", "voxel", "reference frame", "none", "null")  # of images that nobody calibrated


def tiff_spacing(tiff: Any) -> tuple[Spacing, str]:
    """mm along Z, Y, X of an open TiffFile, 1 mm where it states none that is known; and the unit that is not."""
    if tiff.is_ome:
        return _ome_spacing(tiff.ome_metadata or "")
    if tiff.is_imagej:
        return _imagej_spacing(tiff)
    return NO_SPACING, ""


def millimetres(unit: str) -> float | None:
    """How long a unit of length is, in mm; 0 for the names of no unit, None for one that is not known."""
    name = unit.strip().lower()
    name = name if name in MILLIMETRES or name in NO_UNITS else name.removesuffix("s")
    return 0.0 if name in NO_UNITS else MILLIMETRES.get(name)


def _imagej_spacing(tiff: Any) -> tuple[Spacing, str]:
    metadata = tiff.imagej_metadata or {}
    unit = str(metadata.get("unit", ""))
    scale = millimetres(unit)
    tags = tiff.pages[0].tags
    if scale is None:
        return NO_SPACING, unit
    if not scale or "XResolution" not in tags or "YResolution" not in tags:
        return NO_SPACING, ""
    (x_pixels, x_units), (y_pixels, y_units) = tags["XResolution"].value, tags["YResolution"].value
    if not (x_pixels and y_pixels):
        return NO_SPACING, ""
    return (float(metadata.get("spacing", 1.0)) * scale, y_units / y_pixels * scale, x_units / x_pixels * scale), ""


def _ome_spacing(xml: str) -> tuple[Spacing, str]:
    """Of the first image. OME's default unit is the micrometer; a missing size of Z is one unit of X."""
    if len(xml) > LONGEST_XML:
        return NO_SPACING, ""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise ValueError(f"its OME metadata is damaged: {error}") from error
    pixels = next((element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None or not {"PhysicalSizeX", "PhysicalSizeY"} <= pixels.attrib.keys():
        return NO_SPACING, ""
    lengths = []
    for axis in "ZYX":
        unit = pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m")
        if f"PhysicalSize{axis}" not in pixels.attrib:
            unit = pixels.get("PhysicalSizeXUnit", "\u00b5m")
        scale = millimetres(unit)
        if scale is None:
            return NO_SPACING, unit
        lengths.append(float(pixels.get(f"PhysicalSize{axis}", 1.0)) * scale)
    z, y, x = lengths
    return ((z, y, x) if all(length > 0 and math.isfinite(length) for length in lengths) else NO_SPACING), ""
