"""The made dataset where only far context tells the class: what the keys change, and what they must not tell."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from networks import tiny
from PIL import Image

from mvl_auto.network import build_network
from mvl_auto.network.layers import Normalisation

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_far_key.py"
OBJECTS = (slice(112, 144), slice(0, 32)), (slice(112, 144), slice(112, 144))
KEYS = (slice(0, 32), slice(0, 32)), (slice(0, 32), slice(112, 144))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_far_key", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def panel():
    grey = np.random.default_rng(0).integers(1, 255, (32, 32)).astype(np.uint8)
    mask = np.zeros((32, 32), bool)
    mask[10:20, 5:9] = True
    return grey, mask


def test_the_two_images_of_a_volume_differ_in_the_places_of_the_keys_alone(script, panel):
    grey, mask = panel
    (one, classes), (other, other_classes) = (script.compose(grey, mask, left, seed=3) for left in (True, False))
    assert one.shape == classes.shape == (144, 144)
    np.testing.assert_array_equal(one[32:], other[32:])
    np.testing.assert_array_equal(one[:, 32:112], 0)
    np.testing.assert_array_equal(one[32:112], 0)
    for this, that in (KEYS, KEYS[::-1]):
        np.testing.assert_array_equal(one[this], other[that])
    np.testing.assert_array_equal(one[KEYS[0]], grey)
    assert (one[KEYS[1]] != grey).mean() > 0.9
    np.testing.assert_array_equal(np.sort(one[KEYS[1]].ravel()), np.sort(grey.ravel()))
    np.testing.assert_array_equal(one[OBJECTS[0]], one[OBJECTS[1]][:, ::-1])
    for found, (left, right) in ((classes, (3, 4)), (other_classes, (4, 3))):
        assert (found[KEYS[0]] == left).all()
        assert (found[KEYS[1]] == right).all()
    np.testing.assert_array_equal(classes[OBJECTS[0]], 1 * mask)
    np.testing.assert_array_equal(classes[OBJECTS[1]], 2 * mask[:, ::-1])
    np.testing.assert_array_equal(other_classes[OBJECTS[0]], 2 * mask)
    np.testing.assert_array_equal(other_classes[OBJECTS[1]], 1 * mask[:, ::-1])


@torch.inference_mode()
def test_the_keys_lie_outside_of_the_field_of_view_at_an_object(script, panel):
    """Of the planned network without its trunk, whose normalizations are left out; with its trunk they lie inside."""
    images = [
        torch.from_numpy(script.compose(*panel, left, seed=3)[0]).double()[None, None] / 255 for left in (True, False)
    ]
    for depth, told in ((0, False), (1, True)):
        settings = tiny(2, stem_channels=(8, 8, 8), stem_strides=((2, 2),) * 3, depth=depth)
        network = build_network(settings, 1, 3).double().eval()
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, Normalisation):
                    setattr(module, name, torch.nn.Identity())
        one, other = (network(image) for image in images)
        assert not torch.equal(one[0, :, *KEYS[0]], other[0, :, *KEYS[0]])
        for place in OBJECTS:
            assert torch.equal(one[0, :, *place], other[0, :, *place]) is not told


def test_the_slice_taken_is_that_of_the_largest_label(script):
    label = np.zeros((3, 6, 6))
    label[1, :2, :2], label[2, 2:5, 2:5] = 1, 2
    image = np.arange(108.0).reshape(3, 6, 6)
    grey, mask = script.largest_slice(image, label)
    assert mask.sum() == 9
    assert grey[5, 5] == 255
    assert grey[0, 0] == pytest.approx(255 * 72 / np.percentile(image[2], 99.5), abs=1)


def test_a_panel_has_the_object_in_its_middle_and_zeros_outside_the_slice(script):
    grey = np.full((40, 20), 7, np.uint8)
    mask = np.zeros((40, 20), bool)
    mask[30:33, 4:7] = True
    panel, cut = script.cut_panel(grey, mask)
    assert panel.shape == cut.shape == (32, 32)
    np.testing.assert_array_equal(np.argwhere(cut).mean(axis=0), (16, 16))
    assert cut.sum() == 9
    assert (panel == 7).sum() == (40 - 15) * 20  # rows 15 to 39 of the slice, and all its columns
    assert panel[25:].sum() == 0


def test_every_volume_gives_two_images(script, tmp_path):
    image = np.random.default_rng(1).integers(1, 200, (5, 40, 40)).astype(np.int16)
    label = np.zeros_like(image)
    label[2, 15:25, 18:30] = 1
    for folder, content in (("imagesTr", image), ("labelsTr", label)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(content, np.eye(4)), tmp_path / "in" / folder / "a.nii.gz")
    script.write_dataset([tmp_path / "in" / "imagesTr" / "a.nii.gz"], tmp_path / "out")
    described = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "near_picture": 1, "near_noise": 2, "picture": 3, "noise": 4}
    left, right = (np.array(Image.open(tmp_path / f"out/labelsTr/case_000_{side}.png")) for side in ("left", "right"))
    assert sorted(file.name for file in (tmp_path / "out" / "imagesTr").iterdir()) == [
        "case_000_left_0000.png",
        "case_000_right_0000.png",
    ]
    groups = (tmp_path / "out" / "groups.csv").read_text().split()
    assert groups == ["case,group", "case_000_left,volume_000", "case_000_right,volume_000"]
    assert set(np.unique(left)) == {0, 1, 2, 3, 4}
    np.testing.assert_array_equal(left, np.array([0, 2, 1, 4, 3])[right])
