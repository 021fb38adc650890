"""Folds that dataset.json gives: used as they are, unless a patient would be on both sides."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from builders import make_dataset
from fingerprints import case_of, fingerprint_of

import mvl_auto
from mvl_auto.errors import MvlError
from mvl_auto.planners.given_folds import given_splits
from mvl_auto.planners.splits import split
from mvl_auto.plans import Fingerprint, Splits, read_document

FILE = Path("dataset.json")


def dataset_of(**cases: tuple[str, str]) -> Fingerprint:
    found = [case_of(n, (9, 9, 9), (1, 1, 1), group=group, image_hash=image) for n, (group, image) in cases.items()]
    return fingerprint_of().model_copy(update={"cases": tuple(found)})


def test_given_folds_are_used_in_the_order_of_their_numbers() -> None:
    dataset = dataset_of(a=("p1", "1"), b=("p2", "2"), c=("p3", "3"), d=("p4", "4"))
    found = given_splits(dataset, {"a": 7, "b": 2, "c": 7, "d": 9}, FILE)
    assert found is not None
    assert found.folds == (("b",), ("a", "c"), ("d",))
    assert found.fingerprint_hash == dataset.hash


def test_folds_of_cases_that_were_left_out_leave_no_gap() -> None:
    found = given_splits(dataset_of(a=("p1", "1"), b=("p2", "2")), {"a": 0, "b": 2, "gone": 1}, FILE)
    assert found is not None
    assert found.folds == (("a",), ("b",))


@pytest.mark.parametrize("folds", [{}, {"a": 0}, {"a": 0, "b": 0}])
def test_folds_that_are_none_are_not_used(folds: dict[str, int]) -> None:
    assert given_splits(dataset_of(a=("p1", "1"), b=("p2", "2")), folds, FILE) is None


@pytest.mark.parametrize(("b", "c"), [(("p1", "2"), ("p3", "3")), (("p2", "1"), ("p3", "3"))])
def test_a_patient_or_an_image_in_two_folds_is_refused(b: tuple[str, str], c: tuple[str, str]) -> None:
    with pytest.raises(
        MvlError, match=r"^dataset\.json: puts 'a' into fold 0 and 'b' into fold 1, and they are of one"
    ):
        given_splits(dataset_of(a=("p1", "1"), b=b, c=c), {"a": 0, "b": 1, "c": 1}, FILE)


def test_the_stage_writes_the_given_folds_and_follows_their_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_dataset(tmp_path, cases=4, shape=(8, 9, 10))
    content = json.loads((folder / "dataset.json").read_text())
    splits = tmp_path / "root" / "preprocessed" / "Dataset007_Tiny" / "splits.json"
    for folds in ((0, 1, 0, 1), (1, 1, 0, 0)):
        for entry, fold in zip(content["training"], folds, strict=True):
            entry["fold"] = fold
        (folder / "dataset.json").write_text(json.dumps(content))
        mvl_auto.plan_and_preprocess(
            folder, llm="none", preset="cpu", plan_only=True, workers=1, root=tmp_path / "root"
        )
        names = [f"tiny_{n:03d}" for n in range(4)]
        expected = tuple(tuple(n for n, f in zip(names, folds, strict=True) if f == fold) for fold in (0, 1))
        assert read_document(splits, Splits).folds == expected

    assert not [message for message in caplog.messages if "folds" in message]
    for entry in content["training"]:
        del entry["fold"]
    (folder / "dataset.json").write_text(json.dumps(content))
    mvl_auto.plan_and_preprocess(folder, llm="none", preset="cpu", plan_only=True, workers=1, root=tmp_path / "root")
    drawn = read_document(splits, Splits)
    assert drawn.folds == split(read_document(splits.with_name("fingerprint.json"), Fingerprint)).folds
    assert not drawn.given
    told = (
        "mvl_auto.planners.stage",
        logging.WARNING,
        f"{splits}: dataset.json gives no folds any more; they are drawn anew",
    )
    assert caplog.record_tuples.count(told) == 1
    mvl_auto.plan_and_preprocess(folder, llm="none", preset="cpu", plan_only=True, workers=1, root=tmp_path / "root")
    assert caplog.record_tuples.count(told) == 1
    assert read_document(splits, Splits) == drawn
