"""Damaged DICOM files: read all the same, or refused by name in one line."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import write_frames, write_slices
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from mvl_auto.errors import MvlError
from mvl_auto.images import read_image

IMAGE = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 7)).astype(np.int16)


def implicit(dataset: Any, k: int) -> None:
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def compressed(dataset: Any, k: int) -> None:
    dataset.compress(RLELossless, generate_instance_uid=False)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "explicit": lambda folder: write_slices(folder, IMAGE),
    "implicit": lambda folder: write_slices(folder, IMAGE, edit=implicit),
    "compressed": lambda folder: write_slices(folder, IMAGE, edit=compressed),
    "frames": lambda folder: write_frames(folder / "IM0001.dcm", IMAGE, [0, 1, 2, 3], slopes=[1, 2, 3, 4]),
}


def refusal(folder: Path) -> str:
    """The message of the MvlError that reading raises; empty where it can be read. Warnings are errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_image([folder])
    except MvlError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", WRITERS)
def test_a_damaged_file_is_read_or_refused_by_name(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "case")
    content = (tmp_path / "whole" / "IM0001.dcm").read_bytes()
    refused = 0

    @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        st.none() | st.floats(0, 1, exclude_max=True),
        st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    )
    def check(cut: float | None, changes: list[tuple[float, int]]) -> None:
        nonlocal refused
        changed = bytearray(content)
        for place, value in changes:
            changed[128 + int(place * (len(content) - 128))] = value
        (tmp_path / "case" / "IM0001.dcm").write_bytes(changed[: None if cut is None else int(cut * len(content))])
        if message := refusal(tmp_path / "case"):
            refused += 1
            assert message.startswith(str(tmp_path / "case"))
            assert "\n" not in message
            assert len(message) < len(str(tmp_path)) + 350

    check()
    assert refused > 20


@pytest.mark.parametrize("number", [1, 3, 4])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5, 0.98])
def test_a_slice_that_is_cut_short_is_named_at_the_ends_of_the_series_too(
    tmp_path: Path, number: int, share: float
) -> None:
    damaged = write_slices(tmp_path, IMAGE) / f"IM{number:04d}.dcm"
    content = damaged.read_bytes()
    damaged.write_bytes(content[: int(share * len(content))])
    with pytest.raises(MvlError, match="cut short") as caught:
        read_image([tmp_path])
    assert str(caught.value).startswith(f"{damaged}: ")


def test_a_functional_group_that_ends_early_is_a_damaged_file(tmp_path: Path) -> None:
    """pydicom reads groups when they are asked for, and then raises an OSError of its own."""
    folder = tmp_path / "case"
    WRITERS["frames"](folder)
    file = folder / "IM0001.dcm"
    content = file.read_bytes()
    for length in range(200, len(content), 7):
        file.write_bytes(content[:length])
        if message := refusal(folder):
            assert message.startswith(str(folder))
