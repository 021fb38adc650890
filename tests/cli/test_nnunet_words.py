"""nnU-Net's words on our command lines, and docs/from_nnunet.md, which must say the same."""

from __future__ import annotations

import argparse
import re
from importlib import import_module
from pathlib import Path

import pytest

from mvl_auto.cli import common
from mvl_auto.cli.nnunet_words import MANY, WORDS, Refused, Word, translate
from mvl_auto.cli.train import split_configuration
from mvl_auto.errors import MvlError

PAGE = (Path(__file__).parents[2] / "docs" / "from_nnunet.md").read_text(encoding="utf-8")
ALL = [(command, given, word) for command, words in WORDS.items() for given, word in words.items()]
LEAST = {  # the fewest words that each command takes
    "mvl_plan_and_preprocess": ["-d", "4"],
    "mvl_train": ["4", "0"],
    "mvl_predict": ["-i", "imgs", "-o", "preds"],
    "mvl_evaluate": ["-r", "references", "-p", "preds"],
}


def command_named(name: str) -> common.Command:
    return import_module(f"mvl_auto.cli.{name.removeprefix('mvl_')}").COMMAND


def parse(name: str, *argv: str) -> argparse.Namespace:
    return common.parse_arguments(command_named(name), [*LEAST[name], *argv])


def example(given: str, word: Word) -> list[str]:
    """The option with a value that it takes."""
    value = word.only[0] if word.only else "cpu" if given == "-device" else "0.5" if given == "-step_size" else "2"
    return [given, *[value] * abs(word.values)]


@pytest.mark.parametrize(("command", "given", "word"), ALL, ids=[f"{name} {given}" for name, given, _ in ALL])
def test_a_word_means_the_same_or_is_answered_in_one_line(command, given, word, capsys):
    argv = example(given, word)
    if word.instead and not word.only:
        with pytest.raises(SystemExit) as end:
            parse(command, *argv)
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{command}: {given}")
        assert word.instead.split(":")[0] in line
        return
    ours = [part.format(*argv[1:]) for part in word.ours]
    assert vars(parse(command, *argv)) == vars(parse(command, *ours))
    assert bool(word.note) == (word.note in capsys.readouterr().err and bool(word.note))


@pytest.mark.parametrize(
    ("command", "argv", "told"),
    [
        ("mvl_train", ["-npz"], "-npz is nnU-Net's. Write probabilities of any images with mvl_predict --probab"),
        ("mvl_train", ["-nqz"], "there is no option -nqz. Did you mean --npz?"),
        ("mvl_predict", ["-m", "model"], "-m model is nnU-Net's. Choose the network with -d DATASET and -n RUN"),
        ("mvl_train", ["-num_gpus", "2"], "-num_gpus 2 is nnU-Net's. A fold is trained on one GPU"),
        ("mvl_train", ["-tr", "nnUNetTrainerDA5"], "-tr nnUNetTrainerDA5 is nnU-Net's. There is one trainer"),
        ("mvl_train", ["-configuration", "2d"], "Did you mean --configuration?"),
        ("mvl_train", ["-n4"], "put a space between -n and 4"),
        ("mvl_train", ["--tme", "10m"], "there is no option --tme. Did you mean --time?"),
        ("mvl_predict", ["-chk", "checkpoint_best.pth"], "a fold has one checkpoint"),
        ("mvl_predict", ["-folds", "0"], "Did you mean --folds?"),
        ("mvl_predict", ["-chk"], "-chk needs a value"),
        ("mvl_evaluate", ["-xyz"], "there is no option -xyz. See"),
        ("mvl_evaluate", ["-vq"], "there is no option -vq"),
    ],
)
def test_a_wrong_word_is_one_line_with_a_hint(command, argv, told, capsys):
    with pytest.raises(SystemExit) as end:
        parse(command, *argv)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{command}: ")
    assert line.endswith(f"See {command} --help.")
    assert told in line


def test_npz_was_once_a_run_called_pz():
    assert parse("mvl_train", "-n", "pz").name == "pz"


def test_a_value_that_belongs_to_a_long_option_may_stand_behind_an_equals_sign():
    assert translate("mvl_train", ["-device=cpu"], []) == ["--device", "cpu"]


def test_negative_numbers_and_what_is_behind_two_dashes_are_no_options():
    assert parse("mvl_plan_and_preprocess", "--llm-layer", "-12").llm_layer == -12
    common.check_single_dashes(["--", "-npz"], set())
    assert translate("mvl_train", ["--", "--npz"], []) == ["--", "--npz"]


def test_a_command_of_ours_that_nnunet_does_not_have_is_left_alone():
    assert translate("mvl_block", ["add", "--npz"], []) == ["add", "--npz"]


def test_a_word_with_one_dash_too_few_is_understood():
    assert parse("mvl_predict", "-disable_tta").no_mirroring


def test_the_order_of_nnunets_evaluation():
    given = translate("mvl_evaluate", ["refs", "preds", "-djfile", "dataset.json"], [])
    assert given == ["-r", "refs", "-p", "preds", "--dataset-json", "dataset.json"]


def test_the_order_of_nnunets_training_command():
    args = common.parse_arguments(command_named("mvl_train"), ["4", "3d_fullres", "0", "--c"])
    assert (args.dataset, args.folds) == ("4", ["3d_fullres", "0"])
    assert split_configuration(None, args.folds) == ("3d_fullres", ["0"])
    assert split_configuration("2d", ["0", "1"]) == ("2d", ["0", "1"])
    assert split_configuration("2d", ["2d", "all"]) == ("2d", ["all"])
    with pytest.raises(MvlError, match="two configurations"):
        split_configuration("2d", ["3d_fullres", "0"])
    with pytest.raises(MvlError, match=r"Add one: 3d_fullres fold0\."):
        split_configuration(None, ["3d_fullres"])


def test_the_page_has_every_word_and_no_other():
    told = {}
    for section in PAGE.split("\n## `")[1:]:
        command = section.split("`")[0]
        rows = re.findall(r"^\| `(-[^` ]+)[^`]*` \| ([^|]+) \|", section, re.MULTILINE)
        told[command] = {given: answer.strip() for given, answer in rows}
    same = {"-d", "-c", "-i", "-o", "-f"}
    assert {command: set(answers) - same for command, answers in told.items()} == {
        command: set(words) for command, words in WORDS.items()
    }
    for command, given, word in ALL:
        answer = told[command][given]
        if word.ours:
            assert f"`{word.ours[0]}" in answer
        elif word.note:
            assert answer.startswith("not needed")
        else:
            assert answer.startswith("no:")


def test_words_without_a_value_and_with_too_few():
    assert all(word.values in (0, 1, MANY) for _, _, word in ALL)
    with pytest.raises(Refused, match="-device needs a value"):
        translate("mvl_train", ["-device", "-v"], [])
