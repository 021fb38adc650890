"""A part of the corpus of hostile inputs in every run of the suite; `python -m tests.faults.hostile` runs all of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from corpus import GROUPS

sys.path.insert(0, str(Path(__file__).parents[2]))  # the harnesses are run as modules of the repository

from tests.faults.hostile import runner

EVERY = 12  # one of so many is run here


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with runner(tmp_path_factory.mktemp("hostile")) as run:
        yield run


def test_the_corpus_is_large_and_each_input_has_a_name_of_its_own():
    names = [hostile.name for group in GROUPS.values() for hostile in group()]
    assert len(names) >= 250
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("group", GROUPS)
def test_hostile_inputs_end_in_one_line_in_time_and_in_their_place(run, group):
    outcomes = [run(hostile) for hostile in list(GROUPS[group]())[::EVERY]]
    problems = {outcome.hostile.name: outcome.problem for outcome in outcomes if outcome.problem}
    assert outcomes
    assert not problems
