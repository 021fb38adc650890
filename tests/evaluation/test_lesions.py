"""Lesion-wise detection, on lesions drawn by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mvl_auto.evaluation.lesions import LesionCounts, count_lesions, lesion_f1, lesion_precision, lesion_recall


def drawn(*rows: str) -> np.ndarray:
    return np.array([[mark == "1" for mark in row] for row in rows])


def test_two_of_three_lesions_are_found_and_one_is_invented():
    reference = drawn("11..1..1", "11..1..1", "........")
    predicted = drawn("11..1...", "1...1...", "......1.")  # the last touches no lesion but over a corner
    counts = count_lesions(reference, predicted)
    assert counts == LesionCounts(reference=3, prediction=3, matched=2)
    assert lesion_recall(counts) == lesion_precision(counts) == pytest.approx(2 / 3)
    assert lesion_f1(counts) == pytest.approx(2 * 2 / (3 + 3))


def test_voxels_that_share_a_corner_are_one_lesion():
    assert count_lesions(drawn("1..", ".1.", "..1"), drawn("...", "...", "...")).reference == 1


def test_the_overlap_that_counts_is_stated():
    reference, predicted = drawn("1111"), drawn("1...")  # IoU 1/4
    assert count_lesions(reference, predicted, min_iou=0.25).matched == 1
    assert count_lesions(reference, predicted, min_iou=0.26).matched == 0


def test_one_large_prediction_over_two_lesions_finds_one_of_them():
    assert count_lesions(drawn("11.11"), drawn("11111"), min_iou=0.1) == LesionCounts(2, 1, 1)


def test_as_many_as_possible_are_matched():
    """The first prediction fits both lesions, the second only the first: the better pair must not be in the way."""
    reference, predicted = drawn("1111.11"), drawn("1.11111")
    assert count_lesions(reference, predicted, min_iou=0.1).matched == 2


@pytest.mark.parametrize(
    ("counts", "recall", "precision", "f1"),
    [
        (LesionCounts(0, 0, 0), math.nan, math.nan, math.nan),
        (LesionCounts(2, 0, 0), 0, 0, 0),
        (LesionCounts(0, 2, 0), math.nan, 0, 0),
    ],
)
def test_empty_masks(counts, recall, precision, f1):
    found = [lesion_recall(counts), lesion_precision(counts), lesion_f1(counts)]
    assert found == pytest.approx([recall, precision, f1], nan_ok=True)


@given(arrays(bool, (7, 9)), arrays(bool, (7, 9)), st.floats(0, 1))
def test_both_sides_count_alike(reference, predicted, min_iou):
    there, back = count_lesions(reference, predicted, min_iou), count_lesions(predicted, reference, min_iou)
    assert (there.reference, there.prediction, there.matched) == (back.prediction, back.reference, back.matched)
    assert count_lesions(reference, reference, 1.0).matched == there.reference
