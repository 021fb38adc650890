"""What the computer ran out of, in one line, from the errors that libraries really raise."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mvl_auto.errors import MvlError
from mvl_auto.exhausted import exhaustion
from mvl_auto.files import read_bytes
from mvl_auto.jobs import JobFailed, run_jobs
from mvl_auto.locks import locked, shared_lock
from mvl_auto.progress import noting_stages, silent

HUGE = 1 << 60  # bytes: more than any address space has


def raised(call) -> BaseException:
    try:
        call()
    except Exception as error:  # noqa: BLE001  it is what is looked at
        return error
    pytest.fail("nothing was raised")


def too_much(_: int) -> None:
    np.empty((HUGE,), np.uint8)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: too_much(0), f"{HUGE / 1e9:.0f} GB were wanted for an array of {HUGE}"),
        (lambda: np.empty((1 << 20, 1 << 38, 4), np.float32), "were wanted for an array of 1048576 x 274877906944 x 4"),
        (lambda: torch.empty(HUGE, dtype=torch.uint8), f"{HUGE / 1e9:.0f} GB were wanted"),
        (lambda: bytearray(HUGE), "the memory ran out while scoring."),
    ],
)  # fmt: skip
def test_memory_that_numpy_torch_and_python_could_not_have(call, told):
    found = exhaustion(raised(call), "scoring")
    assert str(found).startswith("the memory ran out while scoring")
    assert told in str(found)
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory ran out. Close"),
        (ImportError("libx.so: failed to map segment from shared object"), "the memory ran out. Close"),
        (RuntimeError("could not create a primitive"), "the memory ran out. Close"),  # oneDNN
        (RuntimeError("std::bad_alloc"), "the memory ran out. Close"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "the GPU ran out of memory (2.15"),
        (RuntimeError("can't start new thread"), "no further thread or process could be started. Use fewer"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no further thread or process"),
        (OSError(errno.EMFILE, "Too many open files"), "too many files are open (the limit is "),
        (RuntimeError("unable to open shared memory object </torch_1>: Too many open files (24)"), "too many files"),
    ],
)  # fmt: skip
def test_each_kind_has_its_line_and_its_remedy(error, told):
    assert str(exhaustion(error)).startswith(told)


@pytest.mark.parametrize(
    "error",
    [ValueError("MemoryError"), OSError(errno.ENOENT, "x"), RuntimeError("sizes differ"), MvlError("bad_alloc")],
)
def test_other_errors_are_not_taken_for_it(error):
    assert exhaustion(error) is None


def test_no_folder_for_temporary_files(monkeypatch):
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    monkeypatch.setattr(tempfile, "tempdir", None)
    said = str(exhaustion(raised(tempfile.gettempdir), "planning"))
    assert said.startswith("there is no folder for temporary files that can be written while planning. Set $TMPDIR")


def test_a_job_that_runs_out_of_memory_says_how_much_it_wanted():
    [(_, outcome)] = run_jobs(too_much, [1], workers=1)
    assert isinstance(outcome, JobFailed)
    assert str(outcome).startswith("the memory ran out (")


def test_the_stage_is_that_of_the_innermost_bar_of_this_error():
    progress, stage_of = noting_stages(silent)
    earlier, later = KeyError("a"), MemoryError()
    for names, error in ((["planning", "reading"], earlier), (["training", "validating"], later)):
        with pytest.raises(type(error)), progress(names[0], 1), progress(names[1], 1):
            raise error
    assert stage_of(later) == "validating"
    assert stage_of(MemoryError()) == ""


def test_no_free_descriptor_is_told_with_the_limit_to_raise(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    code = (
        "import resource, sys, os\nfrom pathlib import Path\nfrom mvl_auto.errors import MvlError\n"
        "from mvl_auto.files import read_bytes, write_text\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))\nheld = []\n"
        "try:\n    while True: held.append(os.open(sys.argv[1], os.O_RDONLY))\nexcept OSError: pass\n"
        "for work in (read_bytes, lambda path: write_text(path, 'y')):\n"
        "    try: work(Path(sys.argv[1]))\n    except MvlError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "file"], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all("Too many open files" in line and "ulimit -n" in line for line in lines)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("lock", [locked, shared_lock])
def test_a_disk_without_locks_is_told(tmp_path, monkeypatch, lock, number):
    """The system call is replaced: no file system of a test machine is without locks."""
    fcntl = pytest.importorskip("fcntl")

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(MvlError, match="its disk has no locks") as told, lock(tmp_path, "training"):
        pytest.fail("the folder was held")
    assert "mount this one with locks" in str(told.value)


def test_a_file_beyond_the_memory_is_named(tmp_path):
    import resource

    file = tmp_path / "large"
    with open(file, "wb") as stream:
        stream.truncate(1 << 40)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 37, before[1]))
    try:
        with pytest.raises(MvlError, match=f"the memory ran out while reading {file}"):
            read_bytes(file)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    ("name", "words", "threads", "kilobytes", "told"),
    [
        ("train", ("7", "0"), 2, 600_000, "limited to 0.61 GB (`ulimit -v`), and PyTorch needs 1.00 GB to be loaded"),
        ("predict", ("-i", "x", "-o", "y"), 2, 600_000, "limited to 0.61 GB (`ulimit -v`), and PyTorch needs 1.00 GB"),
        ("ablate", ("-d", "7"), 2, 600_000, "limited to 0.61 GB (`ulimit -v`), and PyTorch needs 1.00 GB"),
        ("plan_and_preprocess", ("-d", "7"), 2, 250_000, "(`ulimit -v`), and NumPy and SciPy need 0.51 GB"),
        ("evaluate", ("-r", "x", "-p", "y"), 64, 2_000_000, "need 5.47 GB to be loaded for 64 threads."),
    ],
)  # fmt: skip
def test_too_small_a_limit_for_libraries_is_told_before_they_abort_or_wait(
    tmp_path, name, words, threads, kilobytes, told
):
    program = Path(sys.executable).with_name(f"mvl_{name}")
    command = ["sh", "-c", f'ulimit -v {kilobytes}; exec "$0" "$@"', program, *words]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "", "MVL_ROOT": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_no_worker_is_started_where_its_libraries_would_wait_for_ever():
    code = (
        "import resource\nfrom mvl_auto.jobs import run_jobs\n"
        "resource.setrlimit(resource.RLIMIT_AS, (250 << 20, 250 << 20))\n"
        "print(*run_jobs(len, ['a'], workers=2))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "MvlError: the memory is limited to 0.26 GB" in done.stderr.splitlines()[-1]
