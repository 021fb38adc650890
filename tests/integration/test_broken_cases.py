"""Some of many cases break: the others are done, each broken one is listed with its reason, the next call goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from builders import make_dataset
from commands import TINY_BLOCK, mvl, refuse, succeed

from mvl_auto.cache import open_case
from mvl_auto.plans import Fingerprint, read_document

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
    log = (root / "preprocessed" / "Dataset007_Tiny" / "log.txt").read_text(encoding="utf-8")
    for image in images:
        assert f"{image}: is damaged or cut short" in log
    last = done.stderr.splitlines()[-1]
    told = f"2 cases ({NAMES[1]}, {NAMES[3]}), the first: {images[0]}: is damaged or cut short"
    assert last.startswith(f"mvl_plan_and_preprocess: {told}")

    prepared = root / "preprocessed" / "Dataset007_Tiny" / "3d_fullres"
    before = stamps(prepared)
    assert sorted(before) == [NAMES[0], NAMES[2], NAMES[4]]

    plans = (prepared.parent / "plans.json").read_bytes()
    assert f"imagesTr/{images[0].name}" in refuse(*PLAN, 7, root=root), (
        "as long as it is damaged, the dataset is a bad one"
    )
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
    assert "2 of 5 cases cannot be used" in line
    assert f"labelsTr/{label.name}" in line or "imagesTr/tiny_003_0000.nii.gz" in line
    log = (root / "preprocessed" / "Dataset007_Tiny" / "log.txt").read_text(encoding="utf-8")
    assert f"{image}: is damaged or cut short" in log
    assert "tiny_003" in log
    assert "voxels" in log


def test_cases_that_cannot_be_used_are_left_out_where_the_user_says_so(root, dataset, tmp_path):
    """Planned, prepared, trained and validated without them; once they are mended, they alone are examined and done."""
    untouched = shutil.copytree(dataset, tmp_path / "untouched")
    image, unlabelled = (dataset / "imagesTr" / f"{name}_0000.nii.gz" for name in (NAMES[1], NAMES[3]))
    image.write_bytes(image.read_bytes()[:200])
    (dataset / "labelsTr" / f"{NAMES[3]}.nii.gz").unlink()
    refuse(*PLAN, 7, root=root)
    done = mvl(*PLAN, 7, "--keep-going", root=root)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"imagesTr/{image.name}" in done.stdout, "in the table of what is left out"
    at_the_end = done.stderr.splitlines()[-3:-1]
    assert {line.split(": ")[1] for line in at_the_end if line.startswith("left out: ")} == {
        str(image),
        str(unlabelled),
    }
    assert done.stderr.splitlines()[-1].startswith(f"mvl_plan_and_preprocess: {unlabelled}: ")

    folder = root / "preprocessed" / "Dataset007_Tiny"
    others = [NAMES[0], NAMES[2], NAMES[4]]
    fingerprint = read_document(folder / "fingerprint.json", Fingerprint)
    assert [case.name for case in fingerprint.cases] == others
    assert {odd.file for odd in fingerprint.left_out} == {f"imagesTr/{file.name}" for file in (image, unlabelled)}
    before = stamps(folder / "3d_fullres")
    assert sorted(before) == others
    succeed("train", 7, "fold0", "--steps", 1, "--device", "cpu", root=root)

    again = mvl(*PLAN, 7, "--keep-going", root=root)
    assert again.returncode == 1
    assert stamps(folder / "3d_fullres") == before
    assert "another plan" not in again.stderr
    refuse(*PLAN, 7, root=root)

    shutil.copytree(untouched, dataset, dirs_exist_ok=True)
    mended = mvl(*PLAN, 7, root=root)
    assert mended.returncode == 0, mended.stderr
    assert "3 of 5 cases are unchanged since they were last read" in mended.stderr
    assert "2 cases prepared, 3 kept from before" in mended.stderr
    after = stamps(folder / "3d_fullres")
    assert {name: after[name] for name in others} == before
    assert sorted(after) == NAMES
    assert not read_document(folder / "fingerprint.json", Fingerprint).left_out


def test_nothing_but_broken_cases_is_refused_also_where_the_user_would_go_on(root, dataset):
    for file in (dataset / "imagesTr").iterdir():
        file.write_bytes(file.read_bytes()[:200])
    assert "5 of 5 cases (" in refuse(*PLAN, 7, "--keep-going", root=root)
    assert not (root / "preprocessed" / "Dataset007_Tiny" / "plans.json").exists()


def test_several_datasets_go_on_after_one_with_broken_cases(root, dataset):
    other = make_dataset(root / "raw", "nnunet", cases=3, shape=(10, 12, 11), number=8)
    image = next((dataset / "imagesTr").iterdir())
    image.write_bytes(image.read_bytes()[:200])
    done = mvl(*PLAN, 7, 8, "--keep-going", "--plan-only", root=root)
    assert done.returncode == 1, done.stderr
    assert done.stderr.endswith("All cases without a fault are planned with.\n"), "nothing was prepared"
    assert (root / "preprocessed" / other.name / "plans.json").is_file()


def test_patients_are_never_left_out_for_the_sake_of_going_on(root, dataset):
    """A wrong groups.csv is wrong with all cases: without it, one patient could be on both sides of a fold."""
    (dataset / "groups.csv").write_text("case,group\nnobody,anna\n")
    assert "groups.csv" in refuse(*PLAN, 7, "--keep-going", root=root)
