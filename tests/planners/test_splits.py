"""Folds: nnU-Net's where nothing is special, and never a patient or a copy on both sides."""

from __future__ import annotations

import random

import pytest
from fingerprints import case_of, fingerprint_of
from hypothesis import given
from hypothesis import strategies as st

from mvl_auto.planners import split
from mvl_auto.plans import CaseFingerprint, Fingerprint


def dataset_of(cases: list[CaseFingerprint]) -> Fingerprint:
    return fingerprint_of().model_copy(update={"cases": tuple(cases)})


def cases_in(groups: list[int], images: list[int] | None = None) -> list[CaseFingerprint]:
    images = images or list(range(len(groups)))
    return [
        case_of(f"case_{n:03d}", (9, 9, 9), (1, 1, 1), group=f"patient {group}", image_hash=f"image {image}")
        for n, (group, image) in enumerate(zip(groups, images, strict=True))
    ]


@pytest.mark.parametrize("number", [5, 7, 20, 41, 200])
def test_without_groups_the_folds_are_those_of_nnunet(number):
    from sklearn.model_selection import KFold

    names = [case.name for case in cases_in(list(range(number)))]
    theirs = [
        tuple(names[i] for i in validation)
        for _, validation in KFold(n_splits=5, shuffle=True, random_state=12345).split(names)
    ]
    assert list(split(dataset_of(cases_in(list(range(number))))).folds) == theirs


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 15)), min_size=1, max_size=40), st.randoms())
def test_properties_of_folds(kinds: list[tuple[int, int]], rng: random.Random):
    cases = cases_in([group for group, _ in kinds], [image for _, image in kinds])
    folds = split(dataset_of(cases)).folds
    fold_of = {name: number for number, fold in enumerate(folds) for name in fold}
    assert sorted(name for fold in folds for name in fold) == [case.name for case in cases]
    assert all(folds)
    assert 1 <= len(folds) <= 5
    for one in cases:
        for other in cases:
            if one.group == other.group or one.image_hash == other.image_hash:
                assert fold_of[one.name] == fold_of[other.name]
    shuffled = cases.copy()
    rng.shuffle(shuffled)
    assert split(dataset_of(shuffled)).folds == folds


def test_patients_of_different_size_make_folds_of_about_one_size():
    rng = random.Random(0)
    groups = [group for group in range(40) for _ in range(rng.randint(1, 9))]
    sizes = [len(fold) for fold in split(dataset_of(cases_in(groups))).folds]
    assert max(sizes) - min(sizes) <= 9


def test_fewer_patients_than_folds():
    folds = split(dataset_of(cases_in([0, 0, 0, 1, 1, 2]))).folds
    assert sorted(map(len, folds)) == [1, 2, 3]


def test_one_patient_trains_and_validates_on_the_same_cases():
    assert split(dataset_of(cases_in([0, 0, 0]))).folds == (("case_000", "case_001", "case_002"),)


@pytest.mark.parametrize(
    ("groups", "images", "words"),
    [
        ([0], None, "it has one case"),
        ([0, 0, 0], None, "all of one patient"),
        ([0, 1], [5, 5], "or one image"),
        ([0, 1], None, ""),
    ],
)
def test_validating_on_what_is_trained_on_is_warned_of(groups, images, words, caplog):
    split(dataset_of(cases_in(groups, images)))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == bool(words)
    assert all(words in line and "validates on what it trains on" in line for line in told)


def test_another_seed_deals_other_folds():
    dataset = dataset_of(cases_in(list(range(30))))
    assert split(dataset, seed=1).folds != split(dataset, seed=2).folds


def test_splits_know_what_they_belong_to():
    dataset = dataset_of(cases_in([0, 1, 2]))
    assert split(dataset).fingerprint_hash == dataset.hash
