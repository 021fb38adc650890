"""The pipeline computes today what it computed when tests/golden/ was recorded (scripts/golden.py).

A change that is meant to alter these values records them anew, and its commit says which changed and why.
"""

from __future__ import annotations

import golden
import pytest

MADE = [name for name in golden.SECTIONS if name not in golden.REAL]


def assert_as_recorded(section: str) -> None:
    found = golden.portable(golden.SECTIONS[section]())
    differ = golden.differences(golden.read_golden(section), found, path=f"/{section}")
    more = f"\n... {len(differ) - 20} more" if len(differ) > 20 else ""
    assert not differ, "\n".join(differ[:20]) + more


@pytest.mark.parametrize("section", MADE)
def test_made_data_give_the_recorded_values(section):
    assert_as_recorded(section)


def test_ten_cases_of_hippocampus_give_the_recorded_values(real_data):
    if not (golden.REAL_DATA / golden.TASK).is_dir():
        pytest.skip(f"needs {golden.TASK} in {golden.REAL_DATA}")
    assert_as_recorded("hippocampus")


def test_a_number_counts_as_the_same_within_its_tolerance_only():
    recorded = {"losses": [1.0, 2.0], "plan": {"width": 48, "name": "2d"}}
    close = {"losses": [1.000005, 2.0], "plan": {"width": 48, "name": "2d"}}
    assert golden.differences(recorded, close, path="/x") == []
    assert golden.differences(recorded, close, exact=True, path="/x") == ["/x/losses/0: was 1.0, is 1.000005"]
    far = {"losses": [1.0001, 2.0], "plan": {"width": 49, "depth": 1}}
    assert golden.differences(recorded, far, path="/x") == [
        "/x/losses/0: was 1.0, is 1.0001",
        "/x/plan/depth: is new",
        "/x/plan/name: is gone",
        "/x/plan/width: was 48, is 49",
    ]
