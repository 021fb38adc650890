"""Faults of the same kind are told once, with a count and the first three files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_auto.alike import alike, lines_of, lines_of_reasons
from mvl_auto.errors import MvlError

SAME = {
    "names of the case's files": [
        ("imagesTr/a_0000.nii.gz", "and its label labelsTr/a.nii.gz lie differently in space"),
        ("imagesTr/b_0000.nii.gz", "and its label labelsTr/b.nii.gz lie differently in space"),
    ],
    "files in folders of their own": [
        ("case_00000/imaging.nii.gz", "and case_00000/segmentation.nii.gz differ"),
        ("case_00001/imaging.nii.gz", "and case_00001/segmentation.nii.gz differ"),
    ],
    "origins": [
        ("imagesTr/a.mha", "differs (origin -16.5 x -14 x -15 and 0 x 0 x 0 mm)"),
        ("imagesTr/b.mha", "differs (origin 3 x 4 x 5 and 0 x 0 x 0 mm)"),
    ],
    "numbers of slices": [("imagesTr/a", "its 8 slices do not say"), ("imagesTr/b", "its 12 slices do not say")],
    "measured figures": [("a.png", "is 2.5 degrees off"), ("b.png", "is 16.25 degrees off")],
    "soft labels": [
        ("a.nii", "has 2004 label values that are no whole numbers (such as 1.25)"),
        ("b.nii", "has 17 label values that are no whole numbers (such as 0.5)"),
    ],
    "where links lead": [
        ("imagesTr/a.nii", "is a link to ../store/12.nii, which is not there"),
        ("imagesTr/b.nii", "is a link to ../store/7f.nii, which is not there"),
    ],
    "names that are words": [("a.png", "is a mask, a.png is"), ("is.png", "is a mask, is.png is")],
}
OTHER = {
    "label values": [("a.png", "has the label value 7"), ("b.png", "has the label value 9")],
    "files of others": [("a.png", "is the same as c.png"), ("b.png", "is the same as d.png")],
    "numbers of channels": [("a.png", "has 1 channel"), ("b.png", "has 2 channels")],
}


@pytest.mark.parametrize("told", SAME.values(), ids=SAME.keys())
def test_what_differs_from_case_to_case_does_not_part_them(told):
    assert alike(told, lambda item: item) == [told]


@pytest.mark.parametrize("told", OTHER.values(), ids=OTHER.keys())
def test_what_tells_another_fault_parts_them(told):
    assert alike(told, lambda item: item) == [[item] for item in told]


def test_each_kind_of_error_is_one_line_in_the_order_of_the_first():
    errors = [MvlError("is empty", file=Path(f"x/{n}.mha"), remedy="Remove it.") for n in range(5)]
    errors.insert(1, MvlError("has no label", file="x/9.mha"))
    assert lines_of(errors) == [
        "5 files (x/0.mha, x/1.mha, x/2.mha and 2 more): is empty. Remove it.",
        "x/9.mha: has no label.",
    ]


def test_reasons_of_cases_are_grouped_by_what_they_say():
    failed = {name: f"/data/{name}_0000.nii.gz: has 1 channel." for name in "abcd"} | {
        "e": "/data/e.nii.gz: is damaged."
    }
    assert lines_of_reasons(failed) == [
        "4 cases (a, b, c and 1 more), the first: /data/a_0000.nii.gz: has 1 channel.",
        "/data/e.nii.gz: is damaged.",
    ]
