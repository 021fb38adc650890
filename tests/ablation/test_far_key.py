"""The made dataset where only far context tells the class: what the key changes, and what it must not tell."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_far_key.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_far_key", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_two_classes_differ_in_the_far_key_alone(script):
    grey = np.random.default_rng(0).integers(1, 255, (40, 30)).astype(np.uint8)
    mask = np.zeros((40, 30), bool)
    mask[10:20, 5:9] = True
    (one, one_classes), (other, other_classes) = (script.compose(grey, mask, shuffled, seed=3) for shuffled in (0, 1))
    assert one.shape == (48, 192)
    np.testing.assert_array_equal(one[:, 48:], other[:, 48:])
    assert (one[:, :48] != other[:, :48]).any()
    np.testing.assert_array_equal(np.sort(one.ravel()), np.sort(other.ravel()))  # the brightness does not tell
    np.testing.assert_array_equal(one[:40, 162:], grey)
    np.testing.assert_array_equal(one_classes[:40, 162:], mask)
    np.testing.assert_array_equal(other_classes, 2 * one_classes)


def test_the_slice_taken_is_that_of_the_largest_label(script):
    label = np.zeros((3, 6, 6))
    label[1, :2, :2], label[2, 2:5, 2:5] = 1, 2
    image = np.arange(108.0).reshape(3, 6, 6)
    grey, mask = script.largest_slice(image, label)
    assert mask.sum() == 9
    assert grey[5, 5] == 255
    assert grey[0, 0] == pytest.approx(255 * 72 / np.percentile(image[2], 99.5), abs=1)
