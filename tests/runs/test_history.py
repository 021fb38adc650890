"""progress.csv is read whatever happened to it: what is whole is kept, and damage is no reason to stop."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_auto.runs import COLUMNS, read_history

HEADER = ",".join(COLUMNS) + "\n"
LINES = ["1,0.5,1.2,1e-3,0.1,\n", "2,0.9,1.1,1e-3,0.1,0.25\n", "3,1.3,1.0,1e-3,0.1,\n"]


def test_what_is_whole_is_kept_up_to_the_step_of_the_checkpoint(tmp_path):
    path = tmp_path / "progress.csv"
    path.write_text(HEADER + "".join(LINES))
    assert read_history(path, 3) == [HEADER, *LINES]
    assert read_history(path, 2) == [HEADER, *LINES[:2]]
    assert read_history(tmp_path / "nowhere", 3) == []


DAMAGED = [
    "2,0.9\n",
    "2,0.9,x,1e-3,0.1,\n",
    "two,0.9,1.1,1e-3,0.1,\n",
    "1,0.9,1.1,1e-3,0.1,\n",
    "\x00\x00\n",
    "9" * 40 + ",0,0,0,0,\n",
]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_line_is_left_out_and_said(tmp_path, caplog, damaged):
    path = tmp_path / "progress.csv"
    path.write_text(HEADER + LINES[0] + damaged + LINES[2])
    with caplog.at_level(logging.WARNING, "mvl_auto"):
        assert read_history(path, 10**15) == [HEADER, LINES[0], LINES[2]]
    assert "1 damaged lines are left out" in caplog.text


@pytest.mark.parametrize("header", ["", "step,loss\n", "hello\n", "loss,step\n", HEADER.upper()])
def test_a_file_without_its_header_is_started_anew(tmp_path, caplog, header):
    path = tmp_path / "progress.csv"
    path.write_text(header + "".join(LINES))
    with caplog.at_level(logging.WARNING, "mvl_auto"):
        assert read_history(path, 3) == []
    assert "started anew" in caplog.text


@given(st.binary(max_size=300), st.integers(0, 200), st.integers(0, 5))
def test_no_bytes_make_it_fail(tmp_path_factory, noise, place, last_step):
    whole = (HEADER + "".join(LINES)).encode()
    path = tmp_path_factory.mktemp("history") / "progress.csv"
    path.write_bytes(whole[:place] + noise + whole[place:])
    found = read_history(path, last_step)
    steps = [int(line.split(",")[0]) for line in found[1:]]
    assert found[:1] in ([], [HEADER])
    assert steps == sorted(set(steps))
    assert all(step <= last_step for step in steps)
    assert all(len(line.split(",")) == len(COLUMNS) for line in found)
