"""The user's commands on real data: twenty cases of the Decathlon's Hippocampus, in its own layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import TINY_BLOCK, succeed
from walking import dice, voxels

TASK = "Task04_Hippocampus"
TRAINING, UNSEEN = 20, 3
STEPS, BATCH, RATE = 120, 2, "3e-3"
FLOOR = 0.5  # mean Dice over both labels; an untrained network, or all one label, stays below 0.15


@pytest.fixture(scope="module")
def trained(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root where the three commands have run, on links to the real files."""
    root = tmp_path_factory.mktemp("hippocampus")
    source = real_data / TASK
    description = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    chosen = sorted(description["training"], key=lambda pair: pair["image"])[: TRAINING + UNSEEN]
    raw = root / "raw" / TASK
    for number, pair in enumerate(chosen):
        unseen = number >= TRAINING
        link(source / pair["image"], (root / "imgs" if unseen else raw / "imagesTr") / Path(pair["image"]).name)
        link(source / pair["label"], (root / "references" if unseen else raw / "labelsTr") / Path(pair["label"]).name)
    known = {"training": chosen[:TRAINING], "numTraining": TRAINING, "test": [], "numTest": 0}
    (raw / "dataset.json").write_text(json.dumps(description | known))
    (root / "references" / "dataset.json").write_text(json.dumps(description))

    succeed("plan_and_preprocess", "-d", 4, "--llm", TINY_BLOCK, "--device", "cpu", "--memory", "1GB", root=root)
    succeed("train", 4, "fold0", "--steps", STEPS, "--batch-size", BATCH, "--lr", RATE, "--device", "cpu", root=root)
    succeed("predict", "-i", "imgs", "-o", "preds", root=root)
    return root


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


def test_unseen_patients_are_segmented_better_than_by_chance(trained: Path):
    scores = []
    for reference_file in sorted((trained / "references").glob("*.nii.gz")):
        reference, predicted = voxels(reference_file), voxels(trained / "preds" / reference_file.name)
        scores.append([dice(reference, predicted, label) for label in (1, 2)])
        assert max(dice(reference, np.full_like(reference, label), label) for label in (1, 2)) < 0.15
    assert len(scores) == UNSEEN
    assert np.mean(scores) > FLOOR, scores


def test_the_plan_is_what_the_data_ask_for(trained: Path):
    """Hippocampus is 1 mm isotropic with a median of 36 x 50 x 35 voxels (nnU-Net plans a patch of 40 x 56 x 40)."""
    plan = json.loads((trained / "preprocessed" / "Dataset004_Hippocampus" / "plans.json").read_text(encoding="utf-8"))
    chosen = plan["configurations"][plan["recommended"]]
    assert plan["recommended"] == "3d_fullres"
    assert chosen["spacing"] == [1.0, 1.0, 1.0]
    assert chosen["normalization_schemes"] == ["z_score"]
    assert all(32 <= voxels_of_axis <= 64 for voxels_of_axis in chosen["patch_size"])


def test_the_names_of_the_labels_are_those_of_the_dataset(trained: Path):
    said = succeed("evaluate", "-r", "references", "-p", "preds", "-o", "scores", root=trained)
    assert "Anterior" in said
    assert "Posterior" in said
    scores = json.loads((trained / "scores" / "scores.json").read_text(encoding="utf-8"))
    assert scores["mean"]["dice"] > FLOOR
