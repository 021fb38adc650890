"""Overlap metrics, against masks drawn by hand, SimpleITK, and what must hold for any masks."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mvl_auto.evaluation import overlap as metrics
from mvl_auto.evaluation.overlap import Counts, confusion_matrix, counts_of
from mvl_auto.plans import IGNORE

CLASSES = 4
SHARES = (
    metrics.dice,
    metrics.jaccard,
    metrics.precision,
    metrics.recall,
    metrics.specificity,
    metrics.accuracy,
    metrics.volume_similarity,
)
MARKS = {".": 0, "?": IGNORE}

counts = st.builds(Counts, *[st.integers(0, 10**12)] * 4)


@st.composite
def two_maps(draw):
    shape = draw(array_shapes(min_dims=2, max_dims=3, max_side=6))
    values = arrays(np.int16, shape, elements=st.integers(0, CLASSES - 1))
    return draw(values), draw(values)


def drawn(*rows: str) -> np.ndarray:
    """A class map from lines of digits; "." is background, "?" is ignored."""
    return np.array([[int(MARKS.get(mark, mark)) for mark in row] for row in rows])


def test_a_square_moved_by_one_voxel():
    side = 4
    reference, predicted = np.zeros((2, 8, 8), int)
    reference[1 : 1 + side, 1 : 1 + side] = 1
    predicted[1 : 1 + side, 2 : 2 + side] = 1
    found = counts_of(confusion_matrix(reference, predicted, 2), [1])
    overlap, one_side = side * (side - 1), side
    assert found == Counts(overlap, one_side, one_side, 8 * 8 - overlap - 2 * one_side)
    assert metrics.dice(found) == pytest.approx((side - 1) / side)
    assert metrics.jaccard(found) == pytest.approx((side - 1) / (side + 1))
    assert metrics.precision(found) == metrics.recall(found) == pytest.approx((side - 1) / side)
    assert metrics.accuracy(found) == pytest.approx(1 - 2 * side / 64)


def test_precision_and_recall_are_not_each_other():
    reference = drawn("11..", "11..")
    predicted = drawn("1...", "....")
    found = counts_of(confusion_matrix(reference, predicted, 2), [1])
    assert metrics.precision(found) == 1
    assert metrics.recall(found) == Fraction(1, 4)


def test_ignored_voxels_count_for_nothing():
    reference = drawn("11?", "..?")
    predicted = drawn("1.1", ".1.")
    assert counts_of(confusion_matrix(reference, predicted, 2), [1]) == Counts(1, 1, 1, 1)


def test_what_is_undecided_in_the_prediction_is_background():
    assert counts_of(confusion_matrix(drawn("11."), drawn("1?."), 2), [1]) == Counts(1, 0, 1, 1)


def test_a_region_is_the_union_of_its_classes():
    reference, predicted = drawn("1122.3"), drawn("2.13.3")
    region = counts_of(confusion_matrix(reference, predicted, CLASSES), [1, 2])
    assert region == counts_of(confusion_matrix(np.isin(reference, [1, 2]) * 1, np.isin(predicted, [1, 2]) * 1, 2), [1])
    assert region == Counts(2, 0, 2, 2)


def test_maps_larger_than_one_portion_are_counted_whole(monkeypatch):
    rng = np.random.default_rng(0)
    reference, predicted = rng.integers(0, CLASSES, (2, 7, 11, 13))
    whole = confusion_matrix(reference, predicted, CLASSES)
    monkeypatch.setattr(metrics, "VOXELS_AT_ONCE", 64)
    assert (confusion_matrix(reference, predicted, CLASSES) == whole).all()
    assert whole.sum() == reference.size


def test_maps_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        confusion_matrix(np.zeros((2, 3), int), np.zeros((3, 2), int), 2)


NAN = math.nan


@pytest.mark.parametrize(
    ("reference", "prediction", "dice", "jaccard", "precision", "recall", "specificity", "accuracy", "similarity"),
    [
        ("....", "....", NAN, NAN, NAN, NAN, 1, 1, NAN),
        ("....", "..1.", 0, 0, 0, NAN, 3 / 4, 3 / 4, 0),
        ("11..", "....", 0, 0, 0, 0, 1, 1 / 2, 0),
        ("11..", "..11", 0, 0, 0, 0, 0, 0, 1),
        ("1111", "1111", 1, 1, 1, 1, NAN, 1, 1),
    ],
)
def test_empty_masks(reference, prediction, dice, jaccard, precision, recall, specificity, accuracy, similarity):
    found = counts_of(confusion_matrix(drawn(reference), drawn(prediction), 2), [1])
    expected = [dice, jaccard, precision, recall, specificity, accuracy, similarity]
    assert [metric(found) for metric in SHARES] == pytest.approx(expected, nan_ok=True)


def test_volumes_by_hand():
    found = counts_of(confusion_matrix(drawn("1111..", "......"), drawn("..1...", "......"), 2), [1])
    assert metrics.volume_error_ml(found, voxel_ml=0.5) == pytest.approx((1 - 4) * 0.5)
    assert metrics.volume_similarity(found) == pytest.approx(1 - 3 / 5)
    assert metrics.specificity(counts_of(confusion_matrix(drawn("1..."), drawn("11.."), 2), [1])) == pytest.approx(
        2 / 3
    )


@given(two_maps())
def test_the_box_around_the_foreground_has_all_of_it_and_touches_it_on_every_side(maps):
    box = metrics.foreground_box(*maps)
    outside = np.ones(maps[0].shape, bool)
    outside[box] = False
    used = (maps[0] != 0) | (maps[1] != 0)
    assert not used[outside].any()
    for axis in range(used.ndim):
        if used.any():
            assert np.take(used[box], 0, axis).any()
            assert np.take(used[box], -1, axis).any()


@given(two_maps())
def test_the_same_figures_as_simpleitk(maps):
    reference, predicted = maps
    confusion = confusion_matrix(reference, predicted, CLASSES)
    independent = sitk.LabelOverlapMeasuresImageFilter()
    independent.Execute(*(sitk.GetImageFromArray(each.astype(np.uint8)) for each in (predicted, reference)))
    for label in set(np.unique(reference)) & set(np.unique(predicted)) - {0}:
        found = counts_of(confusion, [label])
        assert metrics.dice(found) == pytest.approx(independent.GetDiceCoefficient(int(label)))
        assert metrics.jaccard(found) == pytest.approx(independent.GetJaccardCoefficient(int(label)))
        assert 1 - metrics.recall(found) == pytest.approx(independent.GetFalseNegativeError(int(label)))
        difference = independent.GetVolumeSimilarity(int(label)) / 2  # SimpleITK: 2 (prediction - reference) / sum
        assert 1 - metrics.volume_similarity(found) == pytest.approx(abs(difference))
        assert 1 - metrics.precision(found) == pytest.approx(independent.GetFalseDiscoveryRate(int(label)))


@given(counts)
def test_dice_and_jaccard_do_not_mind_which_is_the_reference(found):
    swapped = Counts(found.true_positives, found.false_negatives, found.false_positives, found.true_negatives)
    assert metrics.dice(found) == pytest.approx(metrics.dice(swapped), nan_ok=True)
    assert metrics.jaccard(found) == pytest.approx(metrics.jaccard(swapped), nan_ok=True)
    if swapped.reference and swapped.prediction:
        assert metrics.precision(found) == pytest.approx(metrics.recall(swapped))


@given(counts)
def test_jaccard_follows_from_dice(found):
    dice = metrics.dice(found)
    assert metrics.jaccard(found) == pytest.approx(dice / (2 - dice), nan_ok=True)


@given(counts)
def test_dice_is_the_harmonic_mean_of_precision_and_recall(found):
    if found.true_positives:
        harmonic = 2 / (1 / metrics.precision(found) + 1 / metrics.recall(found))
        assert metrics.dice(found) == pytest.approx(harmonic)


@given(counts)
def test_every_metric_lies_between_0_and_1_or_is_undefined(found):
    for metric in SHARES:
        assert math.isnan(metric(found)) or 0 <= metric(found) <= 1


@given(two_maps(), st.permutations(range(CLASSES)))
def test_renaming_the_classes_renames_the_counts(maps, new_names):
    reference, predicted = maps
    before = confusion_matrix(reference, predicted, CLASSES)
    after = confusion_matrix(np.take(new_names, reference), np.take(new_names, predicted), CLASSES)
    for label, new_label in enumerate(new_names):
        assert counts_of(before, [label]) == counts_of(after, [new_label])


@given(two_maps())
def test_each_voxel_is_counted_once(maps):
    confusion = confusion_matrix(*maps, CLASSES)
    for label in range(CLASSES):
        assert counts_of(confusion, [label]).all == maps[0].size
    assert np.trace(confusion) == (maps[0] == maps[1]).sum()


def test_volumes_are_in_ml_distances_in_mm_and_shares_without_a_unit():
    from mvl_auto.evaluation.metrics import METRICS

    for name, metric in METRICS.items():
        unit = next((unit for unit in ("ml", "mm") if name.endswith(f"_{unit}")), "")
        assert metric.unit == unit, name
