"""Names and colours beside predictions, and in the headers of NIfTI files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from xml.etree import ElementTree

import nibabel
import numpy as np
import pytest
from builders import make_case, write_array
from trained import make_configuration, make_labels, make_plan, write_trained

from mvl_auto.datasets.labels import read_scheme
from mvl_auto.images.label_table import color_of, label_table
from mvl_auto.inference import predict_folder
from mvl_auto.inference.label_files import labels_as_json, value_names, write_color_tables
from mvl_auto.plans import LabelScheme
from mvl_auto.runs import find_trained

REGIONS = LabelScheme(
    class_values=(0, 1, 2, 4),
    class_names=("background", "label 1", "label 2", "label 4"),
    ignore_value=9,
    region_names=("whole", "core"),
    regions=((1, 2, 3), (2, 3)),
    regions_class_order=(1, 3),
)


@pytest.mark.parametrize("scheme", [make_labels((0, 7, 255)), make_labels((0, 1), ignore_value=3), REGIONS])
def test_the_names_are_read_as_the_scheme_that_was_written(scheme):
    assert read_scheme(labels_as_json(scheme), "labels.json") == scheme


def test_a_value_is_called_as_the_region_that_it_is_written_for():
    assert value_names(REGIONS) == {0: "background", 1: "whole", 2: "label 2", 4: "core"}


def names_as_totalsegmentator_reads_them(path: Path) -> dict[int, str]:
    content = nibabel.load(path).header.extensions[0].get_content()
    table = ElementTree.fromstring(content).find("VolumeInformation/LabelTable")
    assert table is not None
    return {int(label.attrib["Key"]): label.text or "" for label in table}


def test_predictions_carry_the_names_of_their_labels(tmp_path, root):
    """And are read as before: an extension stands between header and voxels."""
    labels = LabelScheme(class_values=(0, 1, 2), class_names=("background", "Milz <&> Äste", "b]]>"))
    write_trained(root, make_plan(make_configuration(normalization="z_score"), labels=labels))
    write_array(tmp_path / "imgs" / "a.nii.gz", make_case((14, 18, 16))[0][0], (1, 1, 1))
    predict_folder(tmp_path / "imgs", tmp_path / "preds", find_trained(root), root / "blocks")
    names = {0: "background", 1: "Milz <&> Äste", 2: "b]]>"}
    assert names_as_totalsegmentator_reads_them(tmp_path / "preds" / "a.nii.gz") == names
    written = json.loads((tmp_path / "preds" / "labels.json").read_text(encoding="utf-8"))
    assert written["labels"] == {name: value for value, name in names.items()}
    assert not (tmp_path / "preds" / "colors_itksnap.txt").exists()


def test_a_letter_that_xml_cannot_hold_is_left_out():
    assert ElementTree.fromstring(label_table({1: "a\x00b\nc"})).find(".//Label").text == "abc"


def test_colours_of_neighbours_differ_and_the_background_is_black():
    colours = [color_of(value) for value in range(120)]
    assert colours[0] == (0, 0, 0)
    assert len(set(colours)) > 110
    for one, other in itertools.pairwise(colours):
        assert np.abs(np.subtract(one, other)).sum() > 100


def test_colour_tables_have_a_line_for_each_label(tmp_path):
    write_color_tables(tmp_path, make_labels((0, 7, 255)))
    red, green, blue = color_of(7)
    lines = (tmp_path / "colors_itksnap.txt").read_text().splitlines()
    label = next(line for line in lines if line.split()[0] == "7")
    assert label.split() == ["7", str(red), str(green), str(blue), "1", "1", "1", '"label', '7"']
    assert [line.split()[0] for line in lines if not line.startswith("#")] == ["0", "7", "255"]
    slicer = (tmp_path / "colors_slicer.ctbl").read_text().splitlines()
    assert f"7 label_7 {red} {green} {blue} 255" in slicer
    assert "0 label_0 0 0 0 0" in slicer
