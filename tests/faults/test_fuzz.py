"""A few tries of the fuzz harness; `python -m tests.faults.fuzz --seconds 600` goes on for as long as one likes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random

from damage import damaged, damaged_archive

sys.path.insert(0, str(Path(__file__).parents[2]))  # the harnesses are run as modules of the repository

from tests.faults.fuzz import fuzz

QUICK = ("image", "image in NRRD", "image in DICOM", "segments of 3D Slicer", "dataset.json", "plan of a run", "splits")
TRIES = 3 * len(QUICK)


def test_commands_end_well_or_in_one_line_whatever_is_damaged(tmp_path):
    codes = set()
    for number, (kind, outcome) in fuzz(tmp_path, seed=5, seconds=600, kinds=QUICK):
        assert not outcome.problem, f"try {number}, {kind}"
        codes.add(outcome.code)
        if number == TRIES:
            break
    assert codes >= {0, 2}, "some damage is refused, some does not matter"


def test_damage_is_damage_and_a_seed_makes_it_again():
    content = json.dumps({"labels": {"background": 0, "one": 1}, "numbers": [1, 2.5]}).encode()
    made = [damaged(content, Random(f"0-{number}")) for number in range(200)]
    assert made == [damaged(content, Random(f"0-{number}")) for number in range(200)]
    assert len(set(made)) > 150
    assert sum(each == content for each in made) < 10
    assert 40 < sum(is_json(each) for each in made) < 180, "some of it gets past the reader of JSON, some does not"


def test_what_is_in_an_archive_is_damaged_behind_its_checksum(tmp_path):
    import numpy as np

    np.savez(tmp_path / "a.npz", voxels=np.arange(1000))
    content = damaged_archive((tmp_path / "a.npz").read_bytes(), Random(1))
    (tmp_path / "b.npz").write_bytes(content)
    assert content != (tmp_path / "a.npz").read_bytes()
    assert np.load(tmp_path / "b.npz").files == ["voxels"], "the archive itself is sound"


def is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True
