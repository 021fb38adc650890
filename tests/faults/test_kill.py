"""The harness of kill.py with one round: each stage is killed once, two with their workers and two without."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the harnesses are run as modules of the repository

from tests.faults.kill import STAGES, digest, kill_stages


def test_each_stage_ends_as_if_it_had_not_been_killed(tmp_path):
    found = list(kill_stages(tmp_path, list(STAGES), rounds=1, seed=1))
    assert [each.stage for each in found] == list(STAGES)
    assert not [each for each in found if each.problem]
    assert any(each.was_running for each in found), "someone must have been killed"


def test_a_difference_is_seen(tmp_path):
    (tmp_path / "a.json").write_text('{"value": 1, "elapsed": 2}')
    one = digest(tmp_path)
    (tmp_path / "a.json").write_text('{"elapsed": 3, "value": 1}')
    assert digest(tmp_path) == one
    (tmp_path / "a.json").write_text('{"elapsed": 3, "value": 2}')
    assert digest(tmp_path) != one
