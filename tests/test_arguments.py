"""Arguments of the Python functions, and options in messages put as arguments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvl_auto.ablation.options import AblationOptions
from mvl_auto.arguments import (
    as_bytes,
    as_seconds,
    check_counts,
    in_python_words,
    list_of_folds,
    list_of_words,
    python_words,
)
from mvl_auto.errors import MvlError, PartlyFailed


@pytest.mark.parametrize(
    ("option", "argument"),
    [
        ("Give more with --time.", "Give more with seconds."),
        ("give --memory 24GiB with --time", 'give memory="24GiB" with seconds'),
        ("Leave one of --steps and --time out.", "Leave one of steps and seconds out."),
        ("replace what is there with --overwrite.", "replace what is there with overwrite=True."),
        ("Choose another for -o.", "Choose another for output."),
        ("Choose with -d 4 -n first or -d 4 -n 2d.", 'Choose with dataset=4 run="first" or dataset=4 run="2d".'),
        ("Give it a name with -n or -c.", "Give it a name with run or configuration."),
        ("train without it (--llm none).", 'train without it (llm="none").'),
        ("Run mvl_train 4 fold0 first.", 'Run mvl_auto.train(4, "fold0") first.'),
        ("Train one: mvl_train DATASET fold0.", 'Train one: mvl_auto.train(DATASET, "fold0").'),
        (
            "Run mvl_train 4 0 1 -c 3d_lowres -n x first.",
            'Run mvl_auto.train(4, [0, 1], configuration="3d_lowres", run="x") first.',
        ),
        ("Run mvl_doctor -d 4 --fix FOLDER.", "Run mvl_auto.doctor(dataset=4, fix=FOLDER)."),
        ("Train it with mvl_train.", "Train it with mvl_auto.train()."),
        ("a well-kept plan - and a/b-c.nii.gz", "a well-kept plan - and a/b-c.nii.gz"),
        ("Use --no-mirroring.", "Use mirror=False."),
    ],
)
def test_options_become_arguments(option, argument):
    assert python_words(option) == argument


def test_an_error_keeps_its_type_its_file_and_its_result():
    failure = PartlyFailed("x failed", file="a.nii.gz", remedy="Use --strict.")
    failure.result = 3
    with pytest.raises(PartlyFailed) as caught, in_python_words():
        raise failure
    assert str(caught.value) == "a.nii.gz: x failed. Use strict=True."
    assert (caught.value.file, caught.value.result, caught.value.remedy) == ("a.nii.gz", 3, "Use strict=True.")


def test_other_errors_are_left_alone():
    with pytest.raises(ValueError, match="--time"), in_python_words():
        raise ValueError("--time")


def test_numbers_pass_and_words_are_read():
    assert (as_seconds(None), as_seconds(2.5), as_seconds("10m")) == (None, 2.5, 600)
    assert (as_bytes(None), as_bytes(7), as_bytes("8GB")) == (None, 7, 8 * 10**9)
    with pytest.raises(MvlError, match=r"^'soon' is not a duration\. Give 90s, 10m, 1h30m or a number of seconds\.$"):
        as_seconds("soon")


@pytest.mark.parametrize("number", [0, -1, float("nan"), float("inf"), True, [1]])
def test_what_is_not_above_0_is_refused(number):
    with pytest.raises(MvlError, match="is not a duration"):
        as_seconds(number)
    with pytest.raises(MvlError, match="is not an amount of memory"):
        as_bytes(number)


def test_counts_are_whole_and_above_0():
    check_counts(steps=None, batch_size=np.int64(2))
    for count in (0, -1, 2.5, "many", True):
        with pytest.raises(MvlError, match=r"^batch_size is .* Give a whole number from 1 on"):
            check_counts(steps=1, batch_size=count)


def test_no_fold_at_all_is_an_error():
    with pytest.raises(MvlError, match="no fold is named"):
        list_of_folds([])


def test_one_fold_is_a_list_of_one():
    assert [list_of_folds(folds) for folds in (0, "12", [0, "1"], ("all",))] == [[0], ["12"], [0, "1"], ["all"]]
    assert list_of_folds(np.array([0, 2])) == [0, 2]
    assert list_of_folds(np.int64(3)) == [3]
    assert list_of_folds(range(2)) == [0, 1]


@pytest.mark.parametrize("folds", [1.5, [0, None], object()])
def test_what_is_no_fold_is_an_error_of_one_line(folds):
    with pytest.raises(MvlError, match="is no fold"):
        list_of_folds(folds)


def test_a_word_or_a_path_is_a_list_of_one():
    assert list_of_words("3d_fullres") == ["3d_fullres"]
    assert list_of_words(Path("a/b")) == ["a/b"]
    assert list_of_words(["2d", Path("c")]) == ["2d", "c"]
    options = AblationOptions(arms="block", folds=1)
    assert (options.arms, options.folds) == (("block",), ("1",))
