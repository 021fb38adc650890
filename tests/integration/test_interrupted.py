"""What can happen to the command on its way: a disk that is full or read-only, kill -9, a second one beside it."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from builders import make_dataset
from commands import TINY_BLOCK, refuse, succeed
from walking import hashes

from mvl_auto.cache import open_case

PLAN = ("plan_and_preprocess", "--memory", "1GB", "--device", "cpu", "--llm", TINY_BLOCK, "-d")
NAMES = [f"tiny_{n:03d}" for n in range(6)]
PATIENCE = 60  # s


@pytest.fixture
def dataset(root: Path) -> Path:
    """Noise hardly packs: each case takes more than 100 kB in the cache, and some tenths of a second."""
    return make_dataset(root / "raw", "nnunet", cases=len(NAMES), shape=(30, 40, 44))


def prepared(root: Path) -> Path:
    return root / "preprocessed" / "Dataset007_Tiny"


@contextmanager
def started(*args: object, root: Path, **settings: object) -> Iterator[subprocess.Popen[str]]:
    """The command in a process group of its own, which is gone when the block ends."""
    program = Path(sys.executable).with_name("mvl_plan_and_preprocess")
    environment = os.environ | {"MVL_ROOT": str(root)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([program, *map(str, args)], env=environment, **pipes, **settings) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(happened: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.002)


# ---------------------------------------------------------------------------------- the disk


def files_no_larger_than(size: int) -> Callable[[], None]:
    """As a quota: what goes beyond is an error of the write, for C's fwrite as for Python's."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_is_full_leaves_no_half_cases_and_the_next_call_goes_on(root, dataset, workers):
    with started(*PLAN[1:], 7, "--workers", workers, root=root, preexec_fn=files_no_larger_than(50_000)) as process:
        _, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, complaints
    assert "Traceback" not in complaints
    (line,) = [line for line in complaints.splitlines() if line.startswith(f"{len(NAMES)} cases (")]
    place = re.escape(str(prepared(root) / "3d_fullres"))
    assert re.search(rf"the first: {place}/tiny_00\d\.b2nd: cannot be written", line)
    assert "Free space" in line
    told = (prepared(root) / "log.txt").read_text(encoding="utf-8")
    assert all(f"{name}: {prepared(root) / '3d_fullres' / name}.b2nd: cannot be written" in told for name in NAMES)
    assert complaints.splitlines()[-1].startswith("mvl_plan_and_preprocess: ")
    assert not [file for file in (prepared(root) / "3d_fullres").rglob("*") if file.name != ".lock"]

    succeed(*PLAN, 7, root=root)
    for name in NAMES:
        assert open_case(prepared(root) / "3d_fullres", name).image().std() > 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_without_room_for_what_a_case_was_found_to_be_is_named_at_once(root, dataset, workers):
    with started(*PLAN[1:], 7, "--workers", workers, root=root, preexec_fn=files_no_larger_than(1_000)) as process:
        _, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, complaints
    last = complaints.splitlines()[-1]
    assert last.startswith(f"mvl_plan_and_preprocess: {prepared(root) / '.examined' / 'tiny_00'}")
    assert ".npz: cannot be written" in last
    assert "cannot be used" not in complaints
    assert {file.name for file in prepared(root).iterdir()} <= {".lock", "log.txt", ".examined"}
    assert not list((prepared(root) / ".examined").glob("*.npz"))


def test_a_disk_without_room_for_the_fingerprint_is_named(root, dataset):
    succeed(*PLAN, 7, "--plan-only", root=root)
    for file in prepared(root).glob("*.json"):
        file.unlink()  # what each case was found to be stays
    with started(*PLAN[1:], 7, root=root, preexec_fn=files_no_larger_than(1_000)) as process:
        _, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, complaints
    last = complaints.splitlines()[-1]
    assert last.startswith(f"mvl_plan_and_preprocess: {prepared(root) / 'fingerprint.json'}: cannot be written")
    assert {file.name for file in prepared(root).iterdir()} <= {".lock", "log.txt", ".examined"}


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root may write to")
def test_a_root_that_nobody_may_write_to_is_named(root, dataset):
    line = refuse(*PLAN, dataset, "--root", "/proc/mvl_auto", root=root)
    assert "/proc/mvl_auto" in line
    assert "cannot be written" in line


def test_a_configuration_folder_that_is_a_file_is_named(root, dataset):
    succeed(*PLAN, 7, "--plan-only", root=root)
    (prepared(root) / "3d_fullres").write_text("in the way")
    line = refuse(*PLAN, 7, root=root)
    assert str(prepared(root) / "3d_fullres") in line
    assert (prepared(root) / "3d_fullres").read_text(encoding="utf-8") == "in the way"


# --------------------------------------------------------------------------- killed, and twice


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_half_way_and_started_again(root, dataset, tmp_path, workers):
    folder = prepared(root) / "3d_fullres"
    with started(*PLAN[1:], 7, "--workers", workers, root=root) as process:
        wait_for(lambda: list(folder.glob("*.json")) or process.poll() is not None)
        process.kill()  # kill -9, of the command alone
        process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: nobody_holds(prepared(root)))
    finished = {file: file.stat().st_mtime_ns for file in folder.glob("*.json")}
    assert 1 <= len(finished) < len(NAMES)

    succeed(*PLAN, 7, root=root)
    assert sorted(file.stem for file in folder.glob("*.json")) == NAMES
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert not list(prepared(root).rglob(".writing-*"))
    (tmp_path / "undisturbed").mkdir()
    succeed(*PLAN, dataset, root=tmp_path / "undisturbed")
    expected = hashes(prepared(tmp_path / "undisturbed"))
    assert hashes(prepared(root)) | {"log.txt": ""} == expected | {"log.txt": ""}


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_while_cases_are_examined_and_started_again(root, dataset, tmp_path, workers):
    folder = prepared(root) / ".examined"
    with started(*PLAN[1:], 7, "--workers", workers, root=root) as process:
        wait_for(lambda: list(folder.glob("*.npz")) or process.poll() is not None)
        process.kill()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: nobody_holds(prepared(root)))
    finished = {file: file.stat().st_mtime_ns for file in folder.glob("*.npz")}
    assert 1 <= len(finished) < len(NAMES)
    assert not (prepared(root) / "fingerprint.json").exists()

    succeed(*PLAN, 7, root=root)
    assert f"{len(finished)} of 6 cases are unchanged since they were last read" in (
        prepared(root) / "log.txt"
    ).read_text("utf-8")
    assert sorted(file.stem for file in folder.iterdir()) == NAMES
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    (tmp_path / "undisturbed").mkdir()
    succeed(*PLAN, dataset, root=tmp_path / "undisturbed")
    expected = hashes(prepared(tmp_path / "undisturbed"))
    assert hashes(prepared(root)) | {"log.txt": ""} == expected | {"log.txt": ""}


def nobody_holds(folder: Path) -> bool:
    import filelock

    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            return True
    except filelock.Timeout:
        return False


def test_the_second_of_two_on_one_folder_says_so_and_the_first_goes_on(root, dataset):
    with started(*PLAN[1:], 7, "--workers", 1, root=root) as first:
        wait_for(lambda: (prepared(root) / "log.txt").exists() or first.poll() is not None)
        os.killpg(first.pid, signal.SIGSTOP)  # in the middle of it, for as long as it takes
        line = refuse(*PLAN, 7, root=root)
        os.killpg(first.pid, signal.SIGCONT)
        _, complaints = first.communicate(timeout=PATIENCE)
    assert "another process is preprocessing here" in line
    assert str(prepared(root)) in line
    assert first.returncode == 0, complaints
    assert sorted(file.stem for file in (prepared(root) / "3d_fullres").glob("*.json")) == NAMES
