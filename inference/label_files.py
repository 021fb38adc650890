"""What the labels of a folder of predictions are called: labels.json, and colour tables for ITK-SNAP and 3D Slicer.

labels.json is written as dataset.json writes it, so that mvl_evaluate, and nnU-Net's users, read it without another
word. NIfTI predictions carry the names in their header too (`mvl_auto.images.label_table`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mvl_auto.datasets.labels import IGNORE_NAME
from mvl_auto.files import write_json, write_text
from mvl_auto.images.label_table import color_of
from mvl_auto.plans import LabelScheme

LABELS, ITK_SNAP, SLICER = "labels.json", "colors_itksnap.txt", "colors_slicer.ctbl"


def write_label_names(folder: Path, labels: LabelScheme) -> None:
    """labels.json in the folder. Raises CannotWrite."""
    write_json(folder / LABELS, labels_as_json(labels))


def labels_as_json(labels: LabelScheme) -> dict[str, Any]:
    """The entries of dataset.json that `mvl_auto.datasets.labels.read_scheme` reads as this very scheme."""
    values = labels.class_values
    content: dict[str, Any] = {}
    if labels.has_regions:
        names: dict[str, Any] = {labels.class_names[0]: values[0]}
        for name, classes in zip(labels.region_names, labels.regions, strict=True):
            names[name] = [values[k] for k in classes]
        content["regions_class_order"] = [values[k] for k in labels.regions_class_order]
    else:
        names = dict(zip(labels.class_names, values, strict=True))
    if labels.ignore_value is not None:
        names[IGNORE_NAME] = labels.ignore_value
    return {"labels": names} | content


def value_names(labels: LabelScheme) -> dict[int, str]:
    """Value in the files -> its name. With regions, a value has the name of the region that it is written for."""
    names = dict(zip(labels.class_values, labels.class_names, strict=True))
    for name, k in zip(labels.region_names, labels.regions_class_order, strict=True):
        names[labels.class_values[k]] = name
    return names


def write_color_tables(folder: Path, labels: LabelScheme) -> None:
    """colors_itksnap.txt (ITK-SNAP: Segmentation, Import Label Descriptions) and colors_slicer.ctbl (3D Slicer)."""
    snap = ["# ITK-SnAP Label Description File", "# value  red green blue  opacity visible mesh  name"]
    slicer = ["# 3D Slicer color table", "# value name red green blue opacity"]
    for value, name in value_names(labels).items():
        red, green, blue = color_of(value)
        shown = int(value != 0)
        quoted = name.replace('"', "'")
        snap.append(f'{value:6d} {red:4d} {green:4d} {blue:4d} {shown:8d} {shown:d} {shown:d}    "{quoted}"')
        slicer.append(f"{value} {'_'.join(name.split())} {red} {green} {blue} {255 * shown}")
    write_text(folder / ITK_SNAP, "\n".join(snap) + "\n")
    write_text(folder / SLICER, "\n".join(slicer) + "\n")
