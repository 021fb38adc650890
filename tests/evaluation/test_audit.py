"""The label audit of one case: made labels with a known fault, and a prediction that has it right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from mvl_auto.evaluation.audit import (
    audit_case,
    best_offset,
    moved,
    soft_dice,
    soft_minimum,
    suspicion_score,
    usual_agreement,
)
from mvl_auto.plans import IGNORE, LabelScheme

LABELS = LabelScheme(class_values=(0, 1, 2), class_names=("background", "head", "tail"), ignore_value=9)
SHAPE = (24, 30, 28)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """An asymmetric body: a large ellipsoid, and a smaller one beside it."""
    z, y, x = np.indices(SHAPE)
    classes = np.zeros(SHAPE, np.int16)
    classes[((z - 9) / 5) ** 2 + ((y - 10) / 6) ** 2 + ((x - 10) / 4) ** 2 <= 1] = 1
    classes[((z - 15) / 4) ** 2 + ((y - 20) / 5) ** 2 + ((x - 14) / 3) ** 2 <= 1] = 2
    return classes


def predicted(classes: np.ndarray, seed: int = 0, blur: float = 0.8) -> np.ndarray:
    """Probabilities (K, Z, Y, X) of a network that is nearly right: soft borders and some noise."""
    noise = np.random.default_rng(seed).normal(0, 0.3, (3, *SHAPE))
    logits = np.stack([ndimage.gaussian_filter((classes == k).astype(float), blur) for k in range(3)]) * 8 + noise
    chances = np.exp(logits - logits.max(axis=0))
    return (chances / chances.sum(axis=0)).astype(np.float32)


def without_slices(classes: np.ndarray) -> np.ndarray:
    return np.where((np.indices(SHAPE)[1] >= 9) & (np.indices(SHAPE)[1] <= 12), 0, classes).astype(np.int16)


FAULTS = {
    "labels swapped": lambda classes: np.array([0, 2, 1], np.int16)[classes],
    "label shifted": lambda classes: np.roll(classes, 3, axis=1),
    "label flipped": lambda classes: np.flip(classes, 0).copy(),
    "slices missing": without_slices,
    "object missing": lambda classes: np.where(classes == 2, 0, classes).astype(np.int16),
}


def test_a_right_label_raises_no_suspicion(truth):
    found = audit_case("case", truth, predicted(truth), LABELS)
    assert found.suspicions == ()
    assert found.agreement > 0.85
    assert set(found.per_label) == {"head", "tail"}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_and_scores_above_a_right_label(truth, fault):
    given = FAULTS[fault](truth)
    right = audit_case("case", truth, predicted(truth), LABELS)
    wrong = audit_case("case", given, predicted(truth), LABELS)
    assert wrong.suspicions[0].reason == fault
    assert wrong.suspicions[0].gain == pytest.approx(right.agreement - wrong.agreement, abs=0.05)
    usual = usual_agreement([right.per_label])
    of_wrong = suspicion_score(wrong.per_label, wrong.suspicions[0].gain, usual)
    assert of_wrong > suspicion_score(right.per_label, 0, usual)


def test_an_object_that_only_the_label_has_is_extra_and_where_it_is(truth):
    given = truth.copy()
    given[2:5, 24:28, 22:26] = 1
    found = audit_case("case", given, predicted(truth), LABELS)
    assert found.suspicions[0].reason == "object extra"
    assert np.abs(np.subtract(found.suspicions[0].place, (3, 25.5, 23.5))).max() <= 1


def test_the_place_is_a_voxel_that_would_change(truth):
    given = np.where(np.isin(np.indices(SHAPE)[1], [6, 7, 13, 14]), 0, truth).astype(np.int16)
    (suspicion,) = audit_case("case", given, predicted(truth), LABELS).suspicions
    assert suspicion.reason == "slices missing"
    assert given[suspicion.place] != truth[suspicion.place]  # their middle lies between them, where nothing is wrong


def test_a_picture_has_no_slices_that_could_be_missing():
    classes = np.zeros((1, *SHAPE[1:]), np.int16)
    classes[0, 3:15, 3:15] = 1
    chances = np.stack([classes == k for k in range(3)]).astype(np.float32)
    given = np.where(np.indices(classes.shape)[1] < 8, 0, classes).astype(np.int16)
    solid = {each.reason for each in audit_case("case", given[[0, 0]], chances[:, [0, 0]], LABELS).suspicions}
    assert "slices missing" in solid
    assert "slices missing" not in {each.reason for each in audit_case("case", given, chances, LABELS).suspicions}


def test_the_shift_that_was_made_is_the_shift_that_is_named(truth):
    found = audit_case("case", np.roll(truth, (2, -3), (0, 2)), predicted(truth), LABELS)
    assert found.suspicions[0].detail == "moving the label by -2 along Z, +3 along X voxels fits better"


def test_ignored_voxels_say_nothing(truth):
    given = truth.copy()
    given[:, :, :12] = IGNORE  # where the large one is, mostly
    right = truth.copy()
    right[:, :, :12] = 0
    assert audit_case("case", given, predicted(truth), LABELS).agreement == pytest.approx(
        audit_case("case", right, predicted(right, blur=0.8), LABELS).agreement, abs=0.1
    )


def test_overlapping_regions_are_audited_each_on_its_own(truth):
    regions = LabelScheme(
        class_values=(0, 1, 2), class_names=("background", "a", "b"), region_names=("whole", "core"),
        regions=((1, 2), (2,)), regions_class_order=(1, 2),
    )  # fmt: skip
    chances = predicted(truth)
    of_regions = np.stack([chances[1] + chances[2], chances[2]])
    assert audit_case("case", truth, of_regions, regions).suspicions == ()
    dropped = audit_case("case", np.where(truth == 2, 1, truth).astype(np.int16), of_regions, regions)
    assert dropped.suspicions[0].reason == "object missing"
    assert dropped.suspicions[0].labels == ("core",)


def test_empty_label_and_prediction_agree():
    empty = np.zeros(SHAPE, np.int16)
    found = audit_case("case", empty, predicted(empty), LABELS)
    assert (found.agreement, found.per_label, found.suspicions) == (1.0, {}, ())


def test_soft_dice_by_hand():
    masks = np.array([[[[True, True, False]]], [[[False, False, False]]]])
    chances = np.array([[[[0.5, 1.0, 0.5]]], [[[0.0, 0.0, 0.0]]]], np.float32)
    assert soft_dice(masks, chances) == pytest.approx([2 * 1.5 / (2 + 2), 1.0])


def test_soft_minimum_by_hand():
    mask, chance = np.array([[[True, True, False]]]), np.array([[[0.9, 0.2, 0.6]]], np.float32)
    x = [0.9, 0.2, 0.4]  # outside the label the probability of not being it
    weights = [math.exp(-each / 0.1) for each in x]
    expected = sum(a * b for a, b in zip(x, weights, strict=True)) / sum(weights)
    assert soft_minimum(mask, chance) == pytest.approx(expected, rel=1e-5)
    assert soft_minimum(np.zeros((1, 1, 3), bool), np.zeros((1, 1, 3), np.float32)) == 1.0


@pytest.mark.parametrize("offset", [(0, 0, 0), (3, 0, 0), (-2, 4, 1), (0, -8, 8)])
def test_the_best_offset_is_the_one_that_brute_force_finds(offset):
    random = np.random.default_rng(1)
    inside = np.zeros((2, 20, 22, 24), bool)
    inside[:, 9:11, 9:12, 9:14] = random.random((2, 2, 3, 5)) < 0.7
    target = moved(inside, offset).astype(np.float32)
    assert best_offset(inside, target) == offset


def test_moving_out_of_the_image_leaves_nothing_behind():
    masks = np.ones((1, 4, 4, 4), bool)
    assert moved(masks, (1, 0, -2))[0].sum() == 3 * 4 * 2
    assert not moved(masks, (1, 0, 0))[0, 0].any()
