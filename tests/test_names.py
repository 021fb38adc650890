"""Names that may be part of a path, and text that may go to a terminal."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mvl_auto.errors import MvlError
from mvl_auto.names import MOST_BYTES, checked_name, fault_of_name
from mvl_auto.plans import Name
from mvl_auto.printable import printable, shown

GOOD = ["la_007", "Dataset004_Hippocampus", "a.b", "..a", "a..", "fall 3", "Größe", "患者", "CONSOLE", "a" * MOST_BYTES]
BAD = [
    "", " ", ".", "..", "/", "a/b", "../a", "/etc/passwd", "a\\b", "a\0b", "a\nb", "a\x1b[2Jb", "a\x7f", "\ud800",
    "a\u2028b", "a\u202eb", "con", "NUL.txt", "Com1.nii.gz", "lpt9", "a" * (MOST_BYTES + 1),
    "é" * (MOST_BYTES // 2 + 1),
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_names_of_folders(name):
    assert checked_name(name) == name
    assert TypeAdapter(Name).validate_python(name) == name


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_what_is_no_name_is_one_printable_line(name):
    with pytest.raises(MvlError) as raised:
        checked_name(name, "run", file="plans.json")
    line = str(raised.value)
    assert line.startswith("plans.json: the run ")
    assert line.isprintable()
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)


@pytest.mark.parametrize("value", [None, 7, 1.5, ["a"], {"a": 1}, b"a"])
def test_what_is_no_text_is_no_name(value):
    assert fault_of_name(value) == "it is not text"


@given(st.text(max_size=200))
def test_a_name_stays_in_its_folder(tmp_path_factory, text):
    if fault_of_name(text) is None:
        folder = Path("/root/of/all")
        assert (folder / text).parent == folder
        assert (folder / text).name == text
        text.encode()


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_nothing_that_a_terminal_acts_on_is_left(text):
    told = printable(text)
    told.encode()
    assert not {unicodedata.category(letter) for letter in told} & {"Cc", "Cs", "Zl", "Zp"}
    assert not set(told) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=50))
def test_letters_stay_as_they_are(text):
    assert printable(text) == text
    assert shown(text) == f"'{text}'"


def test_long_values_are_cut_in_messages():
    assert shown("x" * 100, 10) == "'xxxxxxxxxx...'"
    assert shown([1, 2]) == "'[1, 2]'"
