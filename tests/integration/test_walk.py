"""All stages through the installed commands, on a tiny dataset, judged against the truth."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from builders import make_dataset
from commands import TINY_BLOCK, succeed
from walking import STEPS, UNSEEN, Walk, dice, hashes, voxels

from mvl_auto.cache import open_case
from mvl_auto.plans import Plan, Splits, read_document

FLOOR = 0.5  # Dice; an untrained network, or one label everywhere, stays below 0.25


def file_of(folder: Path, case: str) -> Path:
    return folder / f"{case}{UNSEEN[case][0]}"


@pytest.mark.parametrize("case", UNSEEN)
@pytest.mark.parametrize("label", [1, 2])
def test_unseen_cases_are_segmented_as_the_truth(walk: Walk, case, label):
    assert dice(voxels(file_of(walk.references, case)), voxels(file_of(walk.predictions, case)), label) > FLOOR


@pytest.mark.parametrize("label", [1, 2])
def test_one_label_everywhere_would_not_reach_the_floor(walk: Walk, label):
    reference = voxels(file_of(walk.references, "straight"))
    assert dice(reference, np.full_like(reference, label), label) < 0.25


@pytest.mark.parametrize("case", UNSEEN)
def test_a_prediction_has_the_name_and_the_exact_grid_of_its_image(walk: Walk, case):
    image, predicted = (sitk.ReadImage(str(file_of(folder, case))) for folder in (walk.images, walk.predictions))
    assert predicted.GetSize() == image.GetSize()
    assert predicted.GetSpacing() == pytest.approx(image.GetSpacing(), abs=1e-6)
    assert predicted.GetOrigin() == pytest.approx(image.GetOrigin(), abs=1e-5)
    assert predicted.GetDirection() == pytest.approx(image.GetDirection(), abs=1e-6)
    assert predicted.GetPixelIDTypeAsString() == "8-bit unsigned integer"


def test_the_scores_are_the_dice_that_numpy_counts(walk: Walk):
    scores = json.loads((walk.predictions / "scores.json").read_text(encoding="utf-8"))
    for case in UNSEEN:
        reference, predicted = (voxels(file_of(folder, case)) for folder in (walk.references, walk.predictions))
        for value, label in enumerate(scores["labels"], start=1):  # named by labels.json beside the predictions
            expected = dice(reference, predicted, value)
            assert scores["cases"][case][label]["dice"] == pytest.approx(expected, abs=1e-9)
    assert len(scores["labels"]) == 2
    assert (walk.predictions / "scores.csv").read_text(encoding="utf-8").count("\n") == 1 + 2 * len(UNSEEN)
    assert f"{next(iter(scores['labels'].values()))['dice']['mean']:.3f}" in walk.said["evaluate"]


def test_every_command_that_works_on_a_root_names_it_in_its_first_line(walk: Walk):
    for command in ("plan_and_preprocess", "train", "predict"):
        assert walk.said[command].splitlines()[0] == f"root: {walk.root} ($MVL_ROOT)"


def test_each_command_names_the_next(walk: Walk):
    assert "next: mvl_train 7 fold0" in walk.said["plan_and_preprocess"]
    assert "next: mvl_predict " in walk.said["train"]


def test_the_plan_is_explained_number_by_number(walk: Walk):
    chosen = read_document(walk.preprocessed / "plans.json", Plan).configuration()
    for field in ("patch_size", "batch_size", "spacing"):
        assert chosen.reasons[field]
        assert re.search(rf"^{field} +\S", walk.said["plan_and_preprocess"], re.MULTILINE)


def test_the_frozen_block_is_the_same_bytes_after_training(walk: Walk, tmp_path):
    import torch

    from mvl_auto.llm import load_block
    from mvl_auto.runs import load_trained

    assert hashes(walk.root / "blocks") == walk.block_before
    pristine = load_block(TINY_BLOCK, "last", tmp_path)
    trained = load_trained(walk.fold, walk.root / "blocks")
    assert trained.state.block is not None
    assert trained.state.block.sha256 == pristine.card.sha256
    (block,) = [part for part in trained.network.modules() if type(part) is type(pristine)]
    expected, found = pristine.state_dict(), block.state_dict()
    assert found.keys() == expected.keys()
    assert len(found) >= 9, "q, k, v, o, gate, up, down and two norms"
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_the_checkpoint_holds_no_copy_of_the_block(walk: Walk):
    from safetensors import safe_open

    with safe_open(walk.fold / "checkpoint.safetensors", "pt") as checkpoint:
        names = list(checkpoint.keys())
    assert names
    assert not [name for name in names if re.search(r"q_proj|k_proj|gate_proj|input_layernorm", name)]


def test_validation_scored_the_cases_of_its_fold(walk: Walk):
    names = read_document(walk.preprocessed / "splits.json", Splits).folds[0]
    assert {file.name for file in (walk.fold / "validation").iterdir()} == {f"{name}.nii.gz" for name in names}
    assert set(json.loads((walk.fold / "summary.json").read_text(encoding="utf-8"))["cases"]) == set(names)
    for name in names:
        truth = voxels(walk.root / "raw" / walk.dataset / "labelsTr" / f"{name}.nii.gz")
        assert dice(truth, voxels(walk.fold / "validation" / f"{name}.nii.gz"), 1) > FLOOR


def test_each_run_has_its_log(walk: Walk):
    assert "mvl_plan_and_preprocess" in (walk.preprocessed / "log.txt").read_text(encoding="utf-8")
    assert "mvl_train" in (walk.fold / "log.txt").read_text(encoding="utf-8")


def test_what_is_finished_is_not_done_again(walk: Walk):
    def times() -> dict[str, int]:
        kept = [*walk.preprocessed.rglob("*.b2nd"), *walk.fold.glob("checkpoint.*"), *walk.predictions.glob("*.n*")]
        return {str(file): file.stat().st_mtime_ns for file in kept}

    before = times()
    assert len(before) > len(UNSEEN)
    succeed("plan_and_preprocess", "-d", 7, "--llm", TINY_BLOCK, "--memory", "1GB", "--device", "cpu", root=walk.root)
    succeed("train", 7, 0, "--steps", STEPS, "--device", "cpu", root=walk.root)
    assert times() == before


def test_nothing_unfinished_is_left_behind(walk: Walk):
    assert not [*walk.root.rglob(".writing-*"), *walk.root.rglob(".probe")]


def test_both_layouts_are_the_same_dataset(tmp_path):
    """MSD: one file per case, labels by value; nnU-Net: one file per channel, labels by name."""
    roots = {layout: tmp_path / layout for layout in ("msd", "nnunet")}
    for layout, root in roots.items():
        folder = make_dataset(root / "raw", layout, cases=5, number=4, name="Hippocampus", label_values=(0, 4, 255))
        assert folder.name == {"msd": "Task004_Hippocampus", "nnunet": "Dataset004_Hippocampus"}[layout]
        succeed("plan_and_preprocess", "-d", 4, "--memory", "1GB", "--device", "cpu", root=root)
    msd, nnunet = (root / "preprocessed" / "Dataset004_Hippocampus" for root in roots.values())
    for document in ("fingerprint.json", "plans.json", "splits.json"):
        assert (msd / document).read_bytes() == (nnunet / document).read_bytes()
    cases = sorted(file.stem for file in (msd / "3d_fullres").glob("*.json"))
    assert len(cases) == 5
    for case in cases:
        one, other = (open_case(folder / "3d_fullres", case) for folder in (msd, nnunet))
        assert one.cached == other.cached
        np.testing.assert_array_equal(one.image(), other.image())
        np.testing.assert_array_equal(one.label(), other.label())
        for label in (1, 2):
            np.testing.assert_array_equal(one.locations(label), other.locations(label))
