"""A part of the limits in every run of the suite; `python -m tests.faults.limits` tries every stage under each."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # the harnesses are run as modules of the repository

from tests.faults.kill import STAGES, digest, prepare, restore, resume, run_to_end
from tests.faults.limits import LIMITS, Ended, fault

EVALUATE = STAGES["evaluate"]  # the stage that needs no torch


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A root with references and predictions, a copy to restore it from, and the digest of it when they are scored."""
    root, before = (tmp_path_factory.mktemp("limits") / name for name in ("root", "before"))
    prepare(root)
    shutil.copytree(root / "refs", root / "preds")
    shutil.copytree(root, before)
    run_to_end(EVALUATE, root)
    return root, before, digest(root)


@pytest.mark.parametrize("limit", ["disk: 0 kB free", "read-only", "descriptors: 16", "twice at once"])
def test_a_command_under_a_limit_ends_in_one_line_or_well_and_loses_nothing(scored, limit):
    root, before, expected = scored
    restore(before, root)
    had = digest(root)
    ends = LIMITS[limit](EVALUATE, root)
    assert fault(ends, root, had) == ""
    if limit in ("disk: 0 kB free", "read-only"):
        assert [end.code for end in ends] == [2]
        assert "cannot be written" in ends[0].said
    assert resume(EVALUATE, root, expected) == ""


def test_what_is_wrong_after_a_command_is_seen(tmp_path):
    (tmp_path / "kept").write_text("x")
    had = digest(tmp_path)
    good = Ended(2, "root: x\nmvl_train: the disk is full.\n")
    assert fault([good, Ended(0, "")], tmp_path, had) == ""
    assert "exit code -9" in fault([Ended(-9, "")], tmp_path, had)
    assert "exit code 1" in fault([good, Ended(1, "Traceback (most recent call last):\nmvl_x: y")], tmp_path, had)
    assert "no reason" in fault([Ended(2, "mvl_x: y\nsomething else")], tmp_path, had)
    assert "lost: gone" in fault([good], tmp_path, had | {"gone": "0"})
    (tmp_path / ".writing-1").mkdir()
    assert "half-written" in fault([good], tmp_path, had)
