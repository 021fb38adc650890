"""3D Slicer's segmentations as labels: the names in the file decide, whatever the values, layers and extents are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from slicer_segments import Segment, write_nrrd

from mvl_auto.datasets import Case, find_cases, load_case, load_label, read_dataset, read_scheme
from mvl_auto.errors import MvlError
from mvl_auto.images import read_label
from mvl_auto.plans import LabelScheme

SHAPE = (9, 10, 12)
LABELS = {"background": 0, "liver": 1, "tumour": 2}
SCHEME = read_scheme({"labels": LABELS}, "dataset.json")
STANDARD = (("liver", 1, 0), ("tumour", 2, 0))


def truth() -> Any:
    classes = np.zeros(SHAPE, np.uint8)
    classes[2:6, 3:8, 2:7] = 1
    classes[4:7, 5:9, 6:11] = 2
    return classes


def case(folder: Path, label: Any, segments: tuple[Segment, ...], image: Any = None, **how: Any) -> Case:
    image = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) if image is None else image
    return Case(
        "a", (write_nrrd(folder / "a_0000.nrrd", image),), write_nrrd(folder / "a.seg.nrrd", label, segments, **how)
    )


def classes_of(one: Case, scheme: LabelScheme = SCHEME) -> Any:
    """In the order of the file, LPS+, where x and y run against ours."""
    classes = load_case(one, scheme, 1)[1]
    assert classes is not None
    return classes[:, ::-1, ::-1]


def refusal(one: Case) -> str:
    with pytest.raises(MvlError) as caught:
        load_case(one, SCHEME, 1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_dataset_of_segmentations_is_found_by_name(tmp_path: Path) -> None:
    for number in range(3):
        write_nrrd(tmp_path / "imagesTr" / f"case_{number}_0000.nrrd", np.ones(SHAPE, np.int16))
        write_nrrd(tmp_path / "labelsTr" / f"case_{number}.seg.nrrd", truth(), STANDARD)
    content = {"channel_names": {"0": "MRI"}, "labels": LABELS, "file_ending": ".nrrd"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    dataset = read_dataset(tmp_path)
    assert [one.name for one in dataset.cases] == ["case_0", "case_1", "case_2"]
    assert dataset.file_ending == ".nrrd"
    assert_array_equal(classes_of(dataset.cases[2]), truth())


def test_two_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    write_nrrd(tmp_path / "imagesTr" / "a_0000.nrrd", np.ones(SHAPE, np.int16))
    for ending in (".nrrd", ".seg.nrrd"):
        write_nrrd(tmp_path / "labelsTr" / f"a{ending}", truth(), STANDARD)
    content = {"channel_names": {"0": "MRI"}, "labels": LABELS, "file_ending": ".nrrd"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(MvlError, match=r"labelsTr: a\.nrrd and a\.seg\.nrrd are both labels of the case 'a'"):
        read_dataset(tmp_path)


def test_a_segmentation_beside_its_image_is_no_image(tmp_path: Path) -> None:
    write_nrrd(tmp_path / "a.nrrd", np.ones(SHAPE, np.int16))
    write_nrrd(tmp_path / "a.seg.nrrd", truth(), STANDARD)
    assert find_cases(tmp_path, 1) == (Case("a", (tmp_path / "a.nrrd",)),)


@pytest.mark.parametrize("names", [("tumour", "liver"), ("TUMOUR", " Liver")])
def test_the_name_decides_whatever_the_value(tmp_path: Path, names: tuple[str, str]) -> None:
    swapped = np.array([0, 2, 1], np.uint8)[truth()]
    assert_array_equal(classes_of(case(tmp_path, swapped, ((names[0], 1, 0), (names[1], 2, 0)))), truth())
    far = np.array([0, 40, 7], np.uint8)[truth()]
    assert_array_equal(classes_of(case(tmp_path, far, ((names[0], 7, 0), (names[1], 40, 0)))), truth())


def test_labels_of_dataset_json_decide_over_the_values_too(tmp_path: Path) -> None:
    one = case(tmp_path, truth(), STANDARD)
    assert one.label is not None
    scheme = read_scheme({"labels": {"background": 0, "tumour": 100, "liver": 70000, "ignore": -1}}, "dataset.json")
    classes = load_label(one.label, scheme)[0][:, ::-1, ::-1]
    assert_array_equal(classes, np.array([0, 2, 1])[truth()])  # classes go by value


def test_ignored_voxels_may_be_a_segment(tmp_path: Path) -> None:
    scheme = read_scheme({"labels": LABELS | {"ignore": 9}}, "dataset.json")
    label = truth()
    label[0] = 3
    one = case(tmp_path, label, (*STANDARD, ("Ignore", 3, 0)))
    assert_array_equal(classes_of(one, scheme), np.where(label == 3, -1, truth().astype(int)))


@given(
    start=st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2)),
    stop=st.tuples(st.integers(7, 9), st.integers(9, 10), st.integers(11, 12)),
    directions=st.tuples(*[st.sampled_from([1, -1])] * 3),
)
def test_a_cropped_extent_is_padded_to_the_image(
    tmp_path_factory: pytest.TempPathFactory, start: Any, stop: Any, directions: Any
) -> None:
    """Whatever the box around the segments, and whichever way its axes run."""
    part = truth()[tuple(map(slice, start, stop))]
    part = part[tuple(slice(None, None, sign) for sign in directions[::-1])]
    one = case(tmp_path_factory.mktemp("a"), part, STANDARD, start=start, directions=directions)
    assert_array_equal(classes_of(one), truth())


def test_a_box_of_one_slice_is_padded_along_the_right_axis(tmp_path: Path) -> None:
    label = np.zeros(SHAPE, np.uint8)
    label[3, 4:6, 2:9] = 1
    for axis, box in enumerate([np.s_[3:4, :, :], np.s_[:, 4:5, :], np.s_[:, :, 2:3]]):
        start = [0, 0, 0]
        start[axis] = box[axis].start
        expected = np.zeros_like(label)
        expected[box] = label[box]
        one = case(tmp_path / str(axis), label[box], STANDARD, start=start)
        assert_array_equal(classes_of(one), expected)


def test_an_extent_beyond_the_image_is_cut_where_it_is_empty(tmp_path: Path) -> None:
    larger = np.pad(truth(), 2)
    assert_array_equal(classes_of(case(tmp_path / "a", larger, STANDARD, start=(-2, -2, -2))), truth())
    larger[0, 0, 0] = 1
    assert "is 12 x 10 x 9 voxels, its label" in refusal(case(tmp_path / "b", larger, STANDARD, start=(-2, -2, -2)))


def test_an_extent_of_the_same_shape_elsewhere_is_moved(tmp_path: Path) -> None:
    moved = np.zeros(SHAPE, np.uint8)
    moved[:, :-2] = truth()[:, 2:]
    assert_array_equal(classes_of(case(tmp_path, moved, STANDARD, start=(0, 2, 0))), truth())


def test_a_label_without_segments_is_never_padded(tmp_path: Path) -> None:
    assert "is 12 x 10 x 9 voxels, its label" in refusal(case(tmp_path, truth()[1:], (), start=(1, 0, 0)))


def test_layers_are_merged_where_they_do_not_overlap(tmp_path: Path) -> None:
    layers = np.stack([truth() == 1, truth() == 2]).astype(np.uint8)
    assert_array_equal(classes_of(case(tmp_path, layers, (("liver", 1, 0), ("tumour", 1, 1)))), truth())
    assert_array_equal(classes_of(case(tmp_path, layers, (("liver", 1, 0), ("tumour", 1, 1)), old=True)), truth())
    assert_array_equal(classes_of(case(tmp_path, layers, (("tumour", 1, 1), ("liver", 1, 0)))), truth())


def test_layers_that_overlap_are_refused_by_name(tmp_path: Path) -> None:
    layers = np.stack([truth() > 0, truth() == 2]).astype(np.uint8)
    said = refusal(case(tmp_path, layers, (("liver", 1, 0), ("tumour", 1, 1))))
    assert f"a.seg.nrrd: its segments 'liver' and 'tumour' overlap in {int((truth() == 2).sum())} voxels" in said


def test_two_segments_of_one_label_may_overlap(tmp_path: Path) -> None:
    layers = np.stack([truth() == 1, truth() == 1]).astype(np.uint8)
    assert_array_equal(classes_of(case(tmp_path, layers, (("liver", 1, 0), ("LIVER", 1, 1)))), truth() == 1)


@pytest.mark.parametrize("segments", [(), STANDARD])
def test_a_single_empty_voxel_is_an_empty_segmentation(tmp_path: Path, segments: Any) -> None:
    assert not np.any(classes_of(case(tmp_path, np.zeros((1, 1, 1), np.uint8), segments)))
    assert "is 12 x 10 x 9 voxels, its label" in refusal(case(tmp_path, np.ones((1, 1, 1), np.uint8), ()))


def test_segments_that_nothing_explains_are_refused_by_name(tmp_path: Path) -> None:
    said = refusal(case(tmp_path, truth(), (("liver", 1, 0), ("Segment_2", 2, 0))))
    assert "a.seg.nrrd: has the segment 'Segment_2', which dataset.json does not name (it names liver, tumour)" in said
    assert "holds the value 2, which is none of its segments" in refusal(case(tmp_path, truth(), (("liver", 1, 0),)))
    assert "its segment 'liver' is in layer 3, of 1" in refusal(case(tmp_path, truth(), (("liver", 1, 3),)))
    empty = np.where(truth() == 2, 0, truth())
    assert_array_equal(classes_of(case(tmp_path, empty, (("liver", 1, 0), ("Segment_2", 2, 0)))), empty)


def test_layers_without_names_to_look_up_are_refused(tmp_path: Path) -> None:
    layers = np.stack([truth() == 1, truth() == 2]).astype(np.uint8)
    path = write_nrrd(tmp_path / "a.seg.nrrd", layers, (("liver", 1, 0), ("tumour", 1, 1)))
    with pytest.raises(MvlError, match="has 2 channels"):
        read_label(path)


@pytest.mark.parametrize("line", ["Segment0_LabelValue:=one", "Segment0_Layer:=", "Segment0_LabelValue:=1e400"])
def test_damaged_segments_are_told(tmp_path: Path, line: str) -> None:
    one = case(tmp_path, truth(), STANDARD)
    assert one.label is not None
    key = line.split(":=")[0].encode()
    head, _, voxels = one.label.read_bytes().partition(b"\n\n")
    lines = [line.encode() if known.startswith(key) else known for known in head.split(b"\n")]
    one.label.write_bytes(b"\n".join(lines) + b"\n\n" + voxels)
    assert "has a damaged header (its segments)" in refusal(one)
