"""A part of the surroundings in every run of the suite; `python -m tests.faults.surroundings` tries all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # the harnesses are run as modules of the repository

from tests.faults.kill import digest
from tests.faults.limits import may_mount
from tests.faults.surroundings import Surroundings, problem_of, try_everywhere

WITHOUT_ROOT = ["HOME cannot be written", "TMPDIR long", "locale not UTF-8, path is", "no variables", "stderr full"]
AS_ROOT = ["TMPDIR cannot be written", "no passwd entry", "no place for temporary files"]


def well(folder: Path, command: str, names: list[str]) -> None:
    found = list(try_everywhere(folder, [command], names))
    assert sorted(each.surroundings for each in found) == sorted(names)
    assert {each.surroundings: each.problem for each in found if each.problem} == {}


def test_scores_are_the_same_in_any_surroundings(tmp_path):
    well(tmp_path, "evaluate", WITHOUT_ROOT)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_scores_are_the_same_for_a_user_that_nobody_knows():
    if not may_mount():
        pytest.skip("may not mount")
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:  # /tmp is read-only
        well(Path(folder), "evaluate", AS_ROOT)


def test_what_is_wrong_is_seen(tmp_path):
    (tmp_path / "scores.json").write_text("1")
    had = digest(tmp_path)

    def problem(code: int, said: str, around: Surroundings) -> str:
        return problem_of(subprocess.CompletedProcess([], code, b"", said.encode()), 0, around, tmp_path, had)

    usual, missing = Surroundings(), Surroundings(missing=True)
    assert problem(0, "", usual) == ""
    assert problem(2, "a bar\nmvl_evaluate: no room", missing) == ""
    assert "no reason" in problem(2, "mvl_evaluate: no room\nelse", missing)
    assert "not 0" in problem(2, "mvl_evaluate: no room", usual)
    assert "traceback" in problem(0, "Exception ignored in: x", usual)
    (tmp_path / "scores.json").write_text("2")
    assert "differs: scores.json" in problem(0, "", usual)
