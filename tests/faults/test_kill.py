"""The harness of kill.py with one round: each stage is killed once, two with their workers and two without."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("kill.py")


@pytest.fixture(scope="module")
def harness():
    spec = importlib.util.spec_from_file_location("faults_kill", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_each_stage_ends_as_if_it_had_not_been_killed(harness, tmp_path):
    found = list(harness.kill_stages(tmp_path, list(harness.STAGES), rounds=1, seed=1))
    assert [each.stage for each in found] == list(harness.STAGES)
    assert not [each for each in found if each.problem]
    assert any(each.was_running for each in found), "someone must have been killed"


def test_a_difference_is_seen(harness, tmp_path):
    (tmp_path / "a.json").write_text('{"value": 1, "elapsed": 2}')
    one = harness.digest(tmp_path)
    (tmp_path / "a.json").write_text('{"elapsed": 3, "value": 1}')
    assert harness.digest(tmp_path) == one
    (tmp_path / "a.json").write_text('{"elapsed": 3, "value": 2}')
    assert harness.digest(tmp_path) != one
