"""Which trained networks predict: as few words as leave no doubt, and a line that says which words there are."""

from __future__ import annotations

import hashlib
import logging

import pytest
import torch
from trained import make_configuration, make_plan, write_trained

from mvl_auto.errors import MvlError
from mvl_auto.runs import find_trained


def test_the_only_trained_run_needs_no_words(root):
    folder = write_trained(root, folds=["0", "2"])
    found = find_trained(root)
    assert found.folder == folder
    assert found.fold_names == ("0", "2")
    assert found.configuration.name == "3d_fullres"
    assert found.plan == make_plan()


def test_the_networks_are_those_that_were_written(root):
    folder = write_trained(root, folds=["0", "1"])
    first, second = find_trained(root).load(root / "blocks")
    assert (first.folder, second.folder) == (folder / "fold0", folder / "fold1")
    assert not first.network.training
    image = torch.rand(1, 1, 16, 16, 16)
    assert not torch.allclose(first.network(image), second.network(image))


def test_a_checkpoint_is_known_by_the_hash_of_its_bytes(root):
    folder = write_trained(root)
    expected = hashlib.sha256((folder / "fold0" / "checkpoint.safetensors").read_bytes()).hexdigest()
    assert find_trained(root).checkpoints() == {"0": expected}


@pytest.mark.parametrize(
    "dataset", [4, "4", "004", "Heart", "Task04_Heart", "Dataset004_Heart", "elsewhere/Task04_Heart"]
)
def test_a_dataset_answers_to_number_name_and_path(root, dataset):
    write_trained(root, make_plan(dataset="Dataset007_Tiny"))
    folder = write_trained(root, make_plan(dataset="Dataset004_Heart"))
    assert find_trained(root, dataset).folder == folder


def test_a_run_is_chosen_by_name_or_configuration(root):
    plan = make_plan(make_configuration(), make_configuration((16, 16)))
    runs = {
        ("3d_fullres", None): write_trained(root, plan),
        ("2d", None): write_trained(root, plan, "2d"),
        (None, "second"): write_trained(root, plan, "2d", run="second"),
    }
    assert find_trained(root, run="second").folder == runs[None, "second"]
    assert find_trained(root, configuration="3d_fullres").folder == runs["3d_fullres", None]
    assert find_trained(root, configuration="2d", run="2d").folder == runs["2d", None]
    with pytest.raises(MvlError, match=r"Choose with -d 7 -n 2d or -d 7 -n second\.$"):
        find_trained(root, configuration="2d")


def test_several_runs_are_listed_with_the_words_that_choose(root):
    write_trained(root)
    write_trained(root, run="second")
    write_trained(root, make_plan(dataset="Heart"), run="third")
    line = r"holds 3 trained networks\. Choose with -d 7 -n 3d_fullres or -d 7 -n second or -d Heart -n third\."
    with pytest.raises(MvlError, match=line):
        find_trained(root)
    with pytest.raises(MvlError, match="holds 2 trained networks"):
        find_trained(root, 7)


def test_without_any_run_the_line_says_how_to_train_one(root):
    with pytest.raises(MvlError, match=r"results: holds no trained network\. Train one: mvl_train DATASET fold0"):
        find_trained(root)
    with pytest.raises(MvlError, match=r"no trained dataset '4' in .*there is none at all.*mvl_train 4 fold0"):
        find_trained(root, 4)
    write_trained(root)
    with pytest.raises(MvlError, match=r"no trained dataset '4' in .*there are: Dataset007_Tiny"):
        find_trained(root, 4)


@pytest.mark.parametrize(("words", "asked"), [({"run": "nice"}, "-n nice"), ({"configuration": "2d"}, "-c 2d")])
def test_a_run_that_does_not_exist_is_answered_with_those_that_do(root, words, asked):
    write_trained(root)
    with pytest.raises(MvlError, match=rf"no trained network matches {asked}\. There are: -d 7 -n 3d_fullres\."):
        find_trained(root, **words)


@pytest.mark.parametrize("folds", [["1"], [1], ["fold1"], ["fold_1"], [1, "fold1"]])
def test_one_fold_can_be_chosen(root, folds):
    write_trained(root, folds=["0", "1", "all"])
    assert find_trained(root, folds=folds).fold_names == ("1",)
    assert find_trained(root, folds=["all"]).folds[0][0].name == "fold_all"


def test_a_fold_that_was_not_trained_is_answered_with_those_that_were(root):
    write_trained(root, folds=["0", "1"])
    with pytest.raises(MvlError, match=r"there is no trained fold 'fold3' \(there are: 0, 1\)"):
        find_trained(root, folds=["fold3"])


def test_unfinished_folds_vote_only_when_they_are_named(root, caplog):
    folder = write_trained(root, folds=["0"], finished=False)
    with pytest.raises(MvlError, match=r"is not trained to the end \(fold 0 stopped at step 4\).*-f 0"):
        find_trained(root)
    with caplog.at_level(logging.WARNING):
        assert find_trained(root, folds=["0"]).fold_names == ("0",)
    assert f"{folder}: fold 0 is not trained to the end" in caplog.text
    write_trained(root, folds=["1"])
    assert find_trained(root).fold_names == ("1",)


def test_an_unfinished_run_does_not_stand_in_the_way_of_a_finished_one(root):
    write_trained(root, run="begun", finished=False)
    folder = write_trained(root)
    assert find_trained(root).folder == folder


def test_folds_of_two_configurations_do_not_vote_together(root):
    plan = make_plan(make_configuration(), make_configuration((16, 16)))
    write_trained(root, plan, "3d_fullres", run="mixed", folds=["0"])
    write_trained(root, plan, "2d", run="mixed", folds=["1"])
    with pytest.raises(MvlError, match=r"has folds of several configurations\. Choose with -c 2d or -c 3d_fullres\."):
        find_trained(root)
    assert find_trained(root, configuration="2d").fold_names == ("1",)


def test_a_damaged_checkpoint_is_named(root):
    checkpoint = write_trained(root) / "fold0" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(MvlError, match=r"checkpoint\.safetensors: is damaged"):
        find_trained(root)


def test_folders_without_a_checkpoint_are_no_runs(root):
    folder = write_trained(root)
    (folder / "fold3").mkdir()
    (folder.parent / "empty" / "fold0").mkdir(parents=True)
    (folder.parent / ".writing-abc" / "fold0").mkdir(parents=True)
    assert find_trained(root).fold_names == ("0",)
