"""What a user can get wrong: one line that names the file, exit code 2, nothing half-written."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from builders import make_case, make_dataset, write_array
from commands import TINY_BLOCK, mvl, refuse, succeed
from walking import Walk

PLAN = ("plan_and_preprocess", "--memory", "1GB", "--device", "cpu", "--llm", TINY_BLOCK, "-d")
HELD_ANYWAY = {".lock", "log.txt"}  # says what went wrong, and is no product
EXAMINED = ".examined"  # what the good cases were found to be: the next call needs not read them again

IMAGE = "imagesTr/tiny_002_0000.nii.gz"
LABEL = "labelsTr/tiny_002.nii.gz"


@pytest.fixture
def dataset(root: Path) -> Path:
    return make_dataset(root / "raw", "nnunet", cases=4, shape=(10, 12, 11))


def products(root: Path) -> list[Path]:
    """All files beside the raw data that a later stage might take for a result, and what writing leaves behind."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name not in HELD_ANYWAY]
    files = [path for path in files if path.relative_to(root).parts[0] != "raw"]
    return sorted(path for path in files if (path.parent.name, path.suffix) != (EXAMINED, ".npz"))


# ------------------------------------------------------------------------------------ a bad dataset


def edit_description(**changes: object) -> Callable[[Path], None]:
    def edit(dataset: Path) -> None:
        path = dataset / "dataset.json"
        content = json.loads(path.read_text(encoding="utf-8")) | changes
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return edit


def edit_voxels(file: str, change: Callable[[np.ndarray], np.ndarray], spacing: float = 1.0) -> Callable[[Path], None]:
    def edit(dataset: Path) -> None:
        image = nibabel.load(dataset / file)
        changed = change(np.asanyarray(image.dataobj).copy())
        nibabel.save(nibabel.Nifti1Image(changed, np.diag([spacing, spacing, spacing, 1])), dataset / file)

    return edit


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(voxels: np.ndarray) -> np.ndarray:
        voxels[3, 4, 5] = value
        return voxels

    return change


def truncate(file: str) -> Callable[[Path], None]:
    def edit(dataset: Path) -> None:
        whole = (dataset / file).read_bytes()
        (dataset / file).write_bytes(whole[: len(whole) // 2])

    return edit


def cut_before_compression(file: str) -> Callable[[Path], None]:
    """A whole gzip stream of half a NIfTI file: the disk was full while it was written."""

    def edit(dataset: Path) -> None:
        whole = gzip.decompress((dataset / file).read_bytes())
        (dataset / file).write_bytes(gzip.compress(whole[: len(whole) // 2]))

    return edit


def remove(file: str) -> Callable[[Path], None]:
    return lambda dataset: (dataset / file).unlink()


BAD_DATASETS = {
    "dataset.json missing": (remove("dataset.json"), "dataset.json", "missing"),
    "dataset.json no JSON": (lambda d: (d / "dataset.json").write_text("{"), "dataset.json", "JSON"),
    "dataset.json without labels": (edit_description(labels=None), "dataset.json", "label"),
    "image without label": (remove(LABEL), "tiny_002", "label"),
    "label without image": (remove(IMAGE), "tiny_002", "image"),
    "label of another size": (edit_voxels(LABEL, lambda voxels: voxels[1:]), LABEL, "voxels"),
    "label of another spacing": (edit_voxels(LABEL, lambda voxels: voxels, spacing=1.5), LABEL, "1.5"),
    "unknown label value": (edit_voxels(LABEL, with_value(7)), LABEL, "7"),
    "NaN in an image": (edit_voxels(IMAGE, with_value(np.nan)), IMAGE, "NaN"),
    "infinity in an image": (edit_voxels(IMAGE, with_value(np.inf)), IMAGE, "infinit"),
    "truncated image": (truncate(IMAGE), IMAGE, ""),
    "truncated label": (truncate(LABEL), LABEL, ""),
    "image cut before compression": (cut_before_compression(IMAGE), IMAGE, ""),
}


@pytest.mark.parametrize("what", BAD_DATASETS)
def test_a_bad_dataset_is_refused_by_the_name_of_its_file(root, dataset, what):
    spoil, file, word = BAD_DATASETS[what]
    spoil(dataset)
    line = refuse(*PLAN, 7, root=root)
    assert file in line
    assert word.lower() in line.lower()
    assert products(root) == []


def test_a_number_that_is_not_there_lists_what_there_is(root, dataset):
    line = refuse(*PLAN, 99, root=root)
    assert "'99'" in line
    assert "Dataset007_Tiny" in line
    assert products(root) == []


def test_a_block_that_no_source_names_is_refused_before_any_case_is_read(root, dataset):
    assert "smollm" in refuse("plan_and_preprocess", "-d", 7, "--llm", "smollm", root=root)
    assert products(root) == []


def test_an_empty_root_says_how_to_fill_it(root):
    assert "--root" in refuse(*PLAN, 4, root=root)


# ---------------------------------------------------------------------------- stages out of order


def test_training_before_planning_says_what_to_run(root, dataset):
    assert "mvl_plan_and_preprocess -d 7" in refuse("train", 7, "fold0", root=root)
    assert products(root) == []


def test_training_what_was_only_planned_says_what_to_run(root, dataset):
    succeed(*PLAN, 7, "--plan-only", root=root)
    before = products(root)
    line = refuse("train", 7, "fold0", "--steps", 1, root=root)
    assert "mvl_plan_and_preprocess" in line
    assert [path for path in products(root) if path not in before] == []


def test_a_fold_that_does_not_exist_lists_those_that_do(walk: Walk):
    before = products(walk.root)
    line = refuse("train", 7, "fold5", root=walk.root)
    assert "fold5" in line
    assert "0, 1, 2, 3, 4" in line
    assert products(walk.root) == before


def test_predicting_without_a_trained_model_says_how_to_get_one(root):
    write_array(root / "imgs" / "a.nii.gz", make_case()[0][0], (1, 1, 1))
    before = products(root)
    assert "mvl_train" in refuse("predict", "-i", "imgs", "-o", "preds", root=root)
    assert products(root) == before


def test_predicting_with_several_trained_models_lists_them(walk: Walk, tmp_path):
    for dataset, run in [
        ("Dataset007_Tiny", "3d_fullres"),
        ("Dataset007_Tiny", "second"),
        ("Dataset008_Other", "third"),
    ]:
        shutil.copytree(walk.fold.parent, tmp_path / "results" / dataset / run)
    line = refuse("predict", "-i", walk.images, "-o", "preds", root=tmp_path)
    for word in ("3d_fullres", "second", "third"):
        assert word in line
    assert not (tmp_path / "preds").exists()


# --------------------------------------------------------------------------------- bad folders


def test_an_empty_folder_of_images_is_named(walk: Walk, tmp_path):
    (tmp_path / "empty").mkdir()
    line = refuse("predict", "-i", tmp_path / "empty", "-o", tmp_path / "preds", root=walk.root)
    assert str(tmp_path / "empty") in line
    assert not (tmp_path / "preds").exists()


def test_a_truncated_image_is_named_and_the_others_are_predicted(walk: Walk, tmp_path):
    images = tmp_path / "imgs"
    shutil.copytree(walk.images, images)
    whole = (images / "straight.nii.gz").read_bytes()
    (images / "straight.nii.gz").write_bytes(whole[: len(whole) // 2])
    done = mvl("predict", "-i", images, "-o", tmp_path / "preds", root=walk.root)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "straight.nii.gz" in line]
    assert str(images / "straight.nii.gz") in line
    predicted = {file.name for file in (tmp_path / "preds").iterdir()} & {file.name for file in images.iterdir()}
    assert predicted == {file.name for file in images.iterdir()} - {"straight.nii.gz"}

    for file in images.iterdir():
        if file.name != "straight.nii.gz":
            file.unlink()
    assert mvl("predict", "-i", images, "-o", tmp_path / "none", root=walk.root).returncode == 2
    assert not list((tmp_path / "none").glob("*.nii.gz"))


def test_a_folder_of_images_that_does_not_exist_is_named(walk: Walk, tmp_path):
    line = refuse("predict", "-i", tmp_path / "nowhere", "-o", tmp_path / "preds", root=walk.root)
    assert str(tmp_path / "nowhere") in line
    assert not (tmp_path / "preds").exists()


def test_an_output_folder_that_cannot_be_written_is_named(walk: Walk, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for command in (
        ("predict", "-i", walk.images, "-o", tmp_path / "file" / "preds"),
        ("evaluate", "-r", walk.references, "-p", walk.predictions, "-o", tmp_path / "file" / "scores"),
    ):
        assert str(tmp_path / "file") in refuse(*command, root=walk.root)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"


def test_a_root_that_cannot_be_written_is_named(root, dataset):
    (root / "preprocessed").write_text("in the way")
    assert str(root / "preprocessed") in refuse(*PLAN, 7, root=root)


def test_a_damaged_plan_says_to_plan_again(root, dataset):
    succeed(*PLAN, 7, "--plan-only", root=root)
    path = root / "preprocessed" / "Dataset007_Tiny" / "plans.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"patch_size"', '"patch"'))
    line = refuse("train", 7, "fold0", root=root)
    assert str(path) in line
    assert "mvl_plan_and_preprocess" in line
