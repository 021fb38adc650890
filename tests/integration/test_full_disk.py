"""A disk that is full or read-only: one line and exit code 2 at the first file; the next call goes on from there."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from builders import make_dataset, write_array
from commands import TINY_BLOCK, mvl, refuse, succeed

PLAN = ("plan_and_preprocess", "--memory", "1GB", "--device", "cpu", "--llm", TINY_BLOCK, "-d")
CASES = 8
SHAPE = (24, 60, 60)  # of noise, which compresses little: 300 kB a case in the cache

# the command as installed, in a process that has the folder of the cache to itself for as many cases as it is told
FULL_ON_THE_WAY = """
    import errno, os, sys, tempfile
    from mvl_auto.cli.plan_and_preprocess import main

    most, reason, make = int(sys.argv[1]), getattr(errno, sys.argv[2]), tempfile.mkdtemp
    written = []

    def make_or_fail(*args, prefix="", dir=None, **more):
        if prefix == ".writing-" and dir.name == "3d_fullres":
            written.append(dir)
            if len(written) > most:
                raise OSError(reason, os.strerror(reason))
        return make(*args, prefix=prefix, dir=dir, **more)

    tempfile.mkdtemp = make_or_fail
    code = main(sys.argv[3:])
    print(len(written), "cases begun")
    sys.exit(code)
"""


def stamps(folder: Path) -> dict[str, int]:
    return {file.stem: file.stat().st_mtime_ns for file in folder.glob("*.json")}


def one_line(done: subprocess.CompletedProcess[str], program: str) -> str:
    """The last line of stderr, the only one that is no progress."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Logging error" not in done.stderr
    assert done.stderr.count("cannot be written") == 1, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"{program}: ")
    return line


@pytest.mark.parametrize(("finished", "reason"), [(2, "ENOSPC"), (0, "EROFS"), (1, "EACCES")])
def test_it_stops_at_the_first_file_and_the_next_call_does_what_is_missing(root, finished, reason):
    dataset = make_dataset(root / "raw", "nnunet", cases=5, shape=(10, 12, 11))
    words = [*map(str, PLAN[1:]), "7", "--workers", "1", "--root", str(root)]
    command = [sys.executable, "-c", textwrap.dedent(FULL_ON_THE_WAY), str(finished), reason, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    cache = root / "preprocessed" / dataset.name / "3d_fullres"
    line = one_line(done, "mvl_plan_and_preprocess")
    assert f"{cache / f'tiny_{finished:03d}'}." in line
    assert os.strerror(getattr(errno, reason)) in line
    assert ("are free there" in line) == (reason == "ENOSPC")
    assert done.stdout.splitlines()[-1] == f"{finished + 1} cases begun", "no other was tried"
    before = stamps(cache)
    assert sorted(before) == [f"tiny_{n:03d}" for n in range(finished)]
    assert not list(cache.glob(".writing-*"))

    succeed(*PLAN, 7, root=root)
    after = stamps(cache)
    assert len(after) == 5
    assert {name: after[name] for name in before} == before


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 2 MB, which `enlarge` makes larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def enlarge(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def noisy_dataset(folder: Path) -> Path:
    dataset = make_dataset(folder, "nnunet", cases=CASES, shape=SHAPE)
    for seed, image in enumerate(sorted((dataset / "imagesTr").iterdir())):
        shape = nibabel.load(image).shape[::-1]
        noise = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        write_array(image, noise, (1.0, 1.0, 1.0))
    return dataset


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_is_full_for_real(small, tmp_path, workers):
    dataset = noisy_dataset(tmp_path)
    done = mvl(*PLAN, dataset, "--workers", workers, root=small)
    cache = small / "preprocessed" / dataset.name / "3d_fullres"
    assert f"{cache}{os.sep}tiny_" in one_line(done, "mvl_plan_and_preprocess")
    before = stamps(cache)
    assert 0 < len(before) < CASES
    assert not list(cache.glob(".writing-*"))

    enlarge(small, "64m")
    succeed(*PLAN, dataset, root=small)
    after = stamps(cache)
    assert len(after) == CASES
    assert {name: after[name] for name in before} == before


def test_training_and_prediction_on_a_full_disk_end_in_one_line_each_and_go_on_later(small, tmp_path):
    dataset = noisy_dataset(tmp_path)
    enlarge(small, "256m")
    succeed(*PLAN, dataset, root=small)
    filler = small / "filler"
    train = ("train", dataset, "all", "--steps", 2, "--device", "cpu")
    with open(filler, "wb") as stream:
        stream.write(bytes(space(small) - 200_000))
    said = one_line(mvl(*train, root=small), "mvl_train")
    assert re.search(r"fold_all/(checkpoint|resume)\.safetensors", said), said
    filler.unlink()
    succeed(*train, root=small)

    predict = ("predict", "-i", dataset / "imagesTr", "-o", small / "predictions", "--no-mirroring")
    with open(filler, "wb") as stream:
        stream.write(bytes(space(small) - 8_000))
    assert "predictions" in refuse(*predict, root=small)
    filler.unlink()
    succeed(*predict, root=small)
    assert len(list((small / "predictions").glob("*.nii.gz"))) == CASES


def space(disk: Path) -> int:
    return shutil.disk_usage(disk).free
