"""Names of label values inside a NIfTI file: a header extension with the label table of Caret (Connectome Workbench).

TotalSegmentator writes and reads this table, and MRIcroGL and Workbench show its names:

    <CaretExtension><VolumeInformation Index="0"><LabelTable>
        <Label Key="1" Red="1" Green="0" Blue="0" Alpha="1">liver</Label> ...

The background is listed too, so that readers always find a list of labels.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from xml.etree import ElementTree

ECODE = 0  # as TotalSegmentator writes it; 30 is Caret's own code, whose content nibabel refuses to give
GOLDEN_SECTION = 0.618034  # of the circle of hues: neighbours differ most


def color_of(value: int) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a label value: always the same, black for the background."""
    if value == 0:
        return 0, 0, 0
    hue = (value - 1) * GOLDEN_SECTION % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.9, 0.6)[value // 5 % 2], (1.0, 0.75)[value // 10 % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def label_table(names: Mapping[int, str]) -> bytes:
    """The extension's content. names: label value -> name."""
    root = ElementTree.Element("CaretExtension")
    information = ElementTree.SubElement(root, "VolumeInformation", Index="0")
    table = ElementTree.SubElement(information, "LabelTable")
    for value, name in names.items():
        red, green, blue = (f"{part / 255:.4g}" for part in color_of(value))
        alpha = str(int(value != 0))
        label = ElementTree.SubElement(table, "Label", Key=str(value), Red=red, Green=green, Blue=blue, Alpha=alpha)
        label.text = "".join(letter for letter in name if letter.isprintable())
    ElementTree.SubElement(information, "VolumeType").text = "Label"
    return bytes(ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True))
