"""Files that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_auto.errors import MvlError
from mvl_auto.files import (
    CannotWrite,
    clear_unfinished,
    copy_file,
    ensure_writable_folder,
    nothing_unfinished,
    read_bytes,
    read_json,
    sha256_of_file,
    sha256_of_json,
    write_json,
    writing,
)
from mvl_auto.locks import locked, shared_lock, writing_folder

HOLD_AND_WAIT = """
import sys
from pathlib import Path
from mvl_auto.locks import locked
with locked(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    sys.stdin.read()
"""
KILLED_WHILE_WRITING = """
import os, sys
from pathlib import Path
from mvl_auto.files import writing
with writing(Path(sys.argv[1])) as beside:
    beside.write_text("half")
    os.kill(os.getpid(), 9)
"""


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_appears_whole_under_its_own_suffixes(tmp_path: Path) -> None:
    target = tmp_path / "new" / "case.nii.gz"
    with writing(target) as beside:
        assert beside.name.endswith(".nii.gz")
        beside.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert everything_in(tmp_path) == ["new", "new/case.nii.gz"]


def test_after_an_error_the_old_file_stands_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail_half_way() -> None:
        with writing(target) as beside:
            beside.write_text("new")
            (beside.parent / "companion.raw").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert target.read_text() == "old"
    assert everything_in(tmp_path) == ["file.txt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def write_on_a_full_disk() -> None:
        with writing(tmp_path / "plan.json") as beside:
            beside.symlink_to("/dev/full")
            beside.write_text("x" * 100_000)

    with pytest.raises(MvlError) as caught:
        write_on_a_full_disk()
    assert isinstance(caught.value, CannotWrite), "the next file will fare no better"
    assert re.fullmatch(
        rf"{tmp_path}/plan\.json: cannot be written \({os.strerror(errno.ENOSPC)}; [\d.]+ [kMG]B are free there\)\. "
        r"Free space or choose a place that you may write to\.",
        str(caught.value),
    )
    assert everything_in(tmp_path) == []


def test_a_place_that_is_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MvlError, match=r"file/below/plan\.json: cannot be written"):
        write_json(tmp_path / "file" / "below" / "plan.json", {})
    with pytest.raises(MvlError, match="cannot be written"):
        ensure_writable_folder(tmp_path / "file" / "out")
    assert ensure_writable_folder(tmp_path / "out") == tmp_path / "out"
    assert everything_in(tmp_path) == ["file", "out"]


def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, tmp_path / "folder" / "case.txt"], check=False)
    (tmp_path / "folder" / "done.txt").touch()
    assert any(".writing-" in name for name in everything_in(tmp_path))
    assert not (tmp_path / "folder" / "case.txt").exists()
    clear_unfinished(tmp_path)
    assert everything_in(tmp_path) == ["folder", "folder/done.txt"]


def test_nothing_unfinished_stays_of_killed_processes_nor_of_stopped_workers(tmp_path: Path) -> None:
    (tmp_path / ".writing-killed").mkdir()
    (tmp_path / "done.txt").touch()

    def stop() -> None:
        with nothing_unfinished(tmp_path):
            assert everything_in(tmp_path) == ["done.txt"]
            (tmp_path / "case" / ".writing-stopped").mkdir(parents=True)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        stop()
    assert everything_in(tmp_path) == ["case", "done.txt"]


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    content = {"b": [1, 2.5, None], "a": "µm"}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == content
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert list(json.loads(text)) == ["b", "a"]
    assert "µm" in text
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "nan.json", float("nan"))
    assert everything_in(tmp_path) == ["x.json"]


def test_a_path_that_is_no_text_is_not_written(tmp_path: Path) -> None:
    lost = os.fsdecode(b"/images/caf\xe9/one.nii.gz")
    with pytest.raises(MvlError, match=r"scores.json: .*/images/caf.udce9/one.*encoding of this locale.*LC_ALL"):
        write_json(tmp_path / "scores.json", {"above": 1, "predictions": lost})
    assert list(tmp_path.iterdir()) == []


def test_json_that_cannot_be_read_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"a": ')
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.json").mkdir()
    for name, words in (
        ("none", "is missing"),
        ("cut", "is not valid JSON"),
        ("binary", "is not valid JSON"),
        ("folder", "cannot be read"),
    ):
        with pytest.raises(MvlError) as caught:
            read_json(tmp_path / f"{name}.json", remedy="Do this.")
        message = str(caught.value)
        assert message.startswith(f"{tmp_path}/{name}.json: {words}")
        assert message.endswith("Do this.")
        assert "\n" not in message


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=30)
@given(json_values)
def test_the_order_of_keys_is_not_part_of_a_hash(value: Any) -> None:
    assert sha256_of_json(reversed_keys(value)) == sha256_of_json(value)


def test_the_order_of_a_list_is_part_of_a_hash() -> None:
    assert sha256_of_json([1, 2]) != sha256_of_json([2, 1])


def test_large_files_are_hashed_whole(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    command = [sys.executable, "-c", HOLD_AND_WAIT, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(MvlError, match=r"folder: another process is training here\. Wait"),
            locked(folder, "training"),
        ):
            pytest.fail("two processes held one folder")
        first.kill()  # without a chance to let go
        first.wait()
    with locked(folder, "training"):
        pass


def test_a_folder_that_cannot_be_made_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MvlError, match="cannot be written"), locked(tmp_path / "file" / "folder", "training"):
        pytest.fail("a file was taken for a folder")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with writing_folder(tmp_path / "deep" / "new", "testing") as beside:
        (beside / "sub").mkdir()
        (beside / "sub" / "file").write_text("x")
        assert not (tmp_path / "deep" / "new").exists()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "deep",
        "deep/new",
        "deep/new/sub",
        "deep/new/sub/file",
    ]
    with (
        pytest.raises(MvlError, match="other: cannot be written"),
        writing_folder(tmp_path / "other", "testing") as beside,
    ):
        fill_and_fail(beside)
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def fill_and_fail(folder: Path) -> None:
    write_json(folder / "sub" / "file", 1)
    raise IsADirectoryError(errno.EISDIR, "no file")


def test_a_folder_that_holds_something_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").touch()
    with pytest.raises(MvlError, match="is there already"), writing_folder(tmp_path / "there", "testing"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "mine"]


def test_a_folder_half_written_by_a_killed_process_is_begun_anew(tmp_path: Path) -> None:
    left = tmp_path / ".new.unfinished"
    (left / "sub").mkdir(parents=True)
    (left / "file").touch()
    (left / ".lock").touch()
    with writing_folder(tmp_path / "new", "testing") as beside:
        assert [path.name for path in beside.iterdir()] == [".lock"]
    assert list((tmp_path / "new").iterdir()) == []


def test_a_second_process_does_not_write_the_same_folder(tmp_path: Path) -> None:
    with writing_folder(tmp_path / "new", "testing") as beside:
        (beside / "file").touch()
        with pytest.raises(MvlError, match="another process is testing"), writing_folder(tmp_path / "new", "testing"):
            pass
        assert (beside / "file").exists()
    assert (tmp_path / "new" / "file").exists()


# ------------------------------------------------------------------------------ what is read


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(
    "read", [read_json, sha256_of_file, read_bytes, lambda path: copy_file(path, path.parent / "x")]
)
def test_a_named_pipe_is_not_waited_for(tmp_path: Path, read: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises((MvlError, OSError), match=r"not a (regular )?file"):
        read(tmp_path / "pipe")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero, a file without an end")
def test_a_device_without_an_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").symlink_to("/dev/zero")
    with pytest.raises(MvlError, match=r"dataset\.json: cannot be read .*device"):
        read_json(tmp_path / "dataset.json")


def test_a_json_file_has_a_largest_size(tmp_path: Path) -> None:
    (tmp_path / "exact.json").write_text('"' + "x" * 98 + '"')
    assert read_json(tmp_path / "exact.json", most=100) == "x" * 98
    (tmp_path / "large.json").write_text('"' + "x" * 99 + '"')
    with pytest.raises(MvlError, match=r"large\.json: is larger than"):
        read_json(tmp_path / "large.json", most=100)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"b": [{"a": 1, "c": 2, "a": 1}]}'])
def test_a_key_that_occurs_twice_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(MvlError, match=r"the key 'a' occurs twice"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "9" * 5000, "", "{'a': 1}"])
def test_what_is_no_json_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(MvlError, match=r"x\.json: is not valid JSON") as raised:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(raised.value)


# ------------------------------------------------------------------------------ shared locks

HOLD = """
import sys
from pathlib import Path
from mvl_auto.locks import locked, shared_lock
with {how}(Path(sys.argv[1]), "preprocessing"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("theirs", "ours", "refused"),
    [
        ("shared_lock", shared_lock, False),
        ("shared_lock", locked, True),
        ("locked", shared_lock, True),
        ("locked", locked, True),
    ],
)
def test_readers_share_a_folder_and_a_writer_has_it_alone(
    tmp_path: Path, theirs: str, ours: Any, refused: bool
) -> None:
    command = [sys.executable, "-c", HOLD.format(how=theirs), tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        if refused:
            with (
                pytest.raises(MvlError, match="another process is preprocessing here"),
                ours(tmp_path, "preprocessing"),
            ):
                pass
        else:
            with ours(tmp_path, "preprocessing"):
                pass
        process.kill()
        process.wait()
        with ours(tmp_path, "preprocessing"):
            pass


def test_two_that_prove_a_folder_writable_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom mvl_auto.files import ensure_writable_folder\n"
        "for _ in range(300): ensure_writable_folder(Path(sys.argv[1]))"
    )
    commands = [subprocess.Popen([sys.executable, "-c", script, tmp_path / "out"]) for _ in range(3)]
    assert [command.wait() for command in commands] == [0, 0, 0]
    assert everything_in(tmp_path) == ["out"]
