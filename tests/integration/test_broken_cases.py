"""Some of many cases break: the others are done, each broken one is listed with its reason, the next call goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from builders import make_dataset
from commands import TINY_BLOCK, refuse, succeed

from mvl_auto.cache import open_case

PLAN = ("plan_and_preprocess", "--memory", "1GB", "--device", "cpu", "--llm", TINY_BLOCK, "--workers", "1", "-d")
NAMES = [f"tiny_{n:03d}" for n in range(5)]

# the command as installed, in a process where the images named are cut short as soon as the plan is on disk
DAMAGED_ON_THE_WAY = """
    import os, sys
    from pathlib import Path
    from mvl_auto.cli.plan_and_preprocess import main

    images, replace = sys.argv[1].split(","), os.replace

    def replace_and_damage(source, target):
        replace(source, target)
        if Path(target).name == "plans.json":
            for image in map(Path, images):
                image.write_bytes(image.read_bytes()[:200])

    os.replace = replace_and_damage
    sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def dataset(root: Path) -> Path:
    return make_dataset(root / "raw", "nnunet", cases=len(NAMES), shape=(10, 12, 11))


def stamps(folder: Path) -> dict[str, int]:
    return {file.stem: file.stat().st_mtime_ns for file in folder.glob("*.json")}


def plan_while_damaging(images: list[Path], root: Path) -> subprocess.CompletedProcess[str]:
    words = [*map(str, PLAN[1:]), "7", "--root", str(root)]
    command = [sys.executable, "-c", textwrap.dedent(DAMAGED_ON_THE_WAY), ",".join(map(str, images)), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=root)


def test_cases_that_break_after_the_plan_are_listed_and_the_next_call_does_them_alone(root, dataset, tmp_path):
    untouched = shutil.copytree(dataset, tmp_path / "untouched")
    images = [dataset / "imagesTr" / f"{name}_0000.nii.gz" for name in (NAMES[1], NAMES[3])]
    done = plan_while_damaging(images, root)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    for name, image in zip((NAMES[1], NAMES[3]), images, strict=True):
        (line,) = [line for line in done.stderr.splitlines() if line.startswith(f"{name}: ")]
        assert f"{image}: is damaged or cut short" in line
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"mvl_plan_and_preprocess: {images[0]}: ")
    assert "1 more case" in last

    prepared = root / "preprocessed" / "Dataset007_Tiny" / "3d_fullres"
    before = stamps(prepared)
    assert sorted(before) == [NAMES[0], NAMES[2], NAMES[4]]

    plans = (prepared.parent / "plans.json").read_bytes()
    assert str(images[0]) in refuse(*PLAN, 7, root=root), "as long as it is damaged, the dataset is a bad one"
    assert (prepared.parent / "plans.json").read_bytes() == plans
    assert stamps(prepared) == before

    shutil.copytree(untouched, dataset, dirs_exist_ok=True)
    succeed(*PLAN, 7, root=root)
    after = stamps(prepared)
    assert sorted(after) == NAMES
    assert {name: after[name] for name in before} == before
    assert (prepared.parent / "plans.json").read_bytes() == plans
    assert open_case(prepared, NAMES[1]).image().any()


def test_cases_that_cannot_be_examined_are_all_listed_each_with_its_reason(root, dataset):
    image, label = dataset / "imagesTr" / "tiny_001_0000.nii.gz", dataset / "labelsTr" / "tiny_003.nii.gz"
    image.write_bytes(image.read_bytes()[:200])
    shutil.copy(dataset / "labelsTr" / "tiny_002.nii.gz", label)  # of another size
    line = refuse(*PLAN, 7, root=root)
    assert line.startswith(f"mvl_plan_and_preprocess: {image}: ")
    assert str(label) in line or str(dataset / "imagesTr" / "tiny_003_0000.nii.gz") in line
    log = (root / "preprocessed" / "Dataset007_Tiny" / "log.txt").read_text(encoding="utf-8")
    assert f"{image}: is damaged or cut short" in log
    assert "tiny_003" in log
    assert "voxels" in log
