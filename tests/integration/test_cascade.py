"""The cascade as the planner plans it: all folds of the first stage, a fold of the second, a new image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from builders import make_dataset
from commands import TINY_BLOCK
from walking import dice, voxels, write_unseen

from mvl_auto import api
from mvl_auto.cli.explain import main as mvl_explain
from mvl_auto.cli.predict import main as mvl_predict
from mvl_auto.cli.train import main as mvl_train
from mvl_auto.datasets import read_dataset
from mvl_auto.images import read_image
from mvl_auto.inference import predict_case
from mvl_auto.planners import Budget, plan
from mvl_auto.planners.overrides import Overrides
from mvl_auto.plans import Fingerprint, LlmSettings, read_document, write_document
from mvl_auto.preprocessing import preprocess_dataset
from mvl_auto.runs import find_trained

STEPS = 90
NUMBERS = Overrides(patch_size=(16, 16, 16), batch_size=2, width=48, depth=1)
FLOOR = 0.4  # Dice; one label everywhere stays below 0.25


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Three cases, larger than a patch by so much that there is a low resolution; prepared, not trained."""
    root = tmp_path_factory.mktemp("cascade")
    raw = make_dataset(root / "raw", "nnunet", cases=3, shape=(30, 36, 34), label_values=(0, 4, 255))
    api.plan_and_preprocess(7, root=root, llm=TINY_BLOCK, device="cpu", memory=10**9, plan_only=True, workers=1)
    folder = root / "preprocessed" / "Dataset007_Tiny"
    fingerprint = read_document(folder / "fingerprint.json", Fingerprint)
    planned = plan(fingerprint, Budget(10**9), LlmSettings(source=TINY_BLOCK, hidden_size=32), NUMBERS)
    write_document(folder / "plans.json", planned)
    names = planned.with_previous_stages(["3d_cascade_fullres"])
    assert names == ["3d_lowres", "3d_cascade_fullres"]
    assert not preprocess_dataset(read_dataset(raw), planned, names, folder, workers=1).failed
    write_unseen(root / "imgs" / "new.nrrd", root / "references" / "new.nrrd", 900, "RAI", 9.0)
    return root


@pytest.fixture(scope="module")
def trained(root: Path) -> Path:
    """Both stages; returns the second's run."""
    shared = ["7", "--steps", str(STEPS), "--device", "cpu", "--root", str(root), "-q"]
    assert mvl_train([*shared, "0", "1", "2", "-c", "3d_lowres", "-n", "low"]) == 0
    assert mvl_train([*shared, "0", "-c", "3d_cascade_fullres", "--previous", "low"]) == 0
    return root / "results" / "Dataset007_Tiny" / "3d_cascade_fullres"


def test_before_its_first_stage_the_second_is_refused_with_the_command_to_run(root, capsys):
    assert mvl_train(["7", "0", "-c", "3d_cascade_fullres", "--steps", "1", "--root", str(root)]) == 2
    assert "Run mvl_train 7 0 1 2 -c 3d_lowres first." in capsys.readouterr().err


def test_a_new_image_goes_through_both_stages_to_its_own_grid(root, trained):
    words = ["-i", str(root / "imgs"), "-o", str(root / "preds"), "--root", str(root), "--device", "cpu", "-q"]
    assert mvl_predict([*words, "-n", "3d_cascade_fullres"]) == 0
    image, predicted = (sitk.ReadImage(str(root / folder / "new.nrrd")) for folder in ("imgs", "preds"))
    assert predicted.GetSize() == image.GetSize()
    for frame in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(predicted, frame)(), getattr(image, frame)(), atol=1e-6)
    found = voxels(root / "preds" / "new.nrrd")
    assert set(np.unique(found)) <= {0, 4, 255}
    truth = voxels(root / "references" / "new.nrrd")
    for label, value in ((1, 4), (2, 255)):
        assert dice(truth == label, found == value, True) > FLOOR


def test_the_second_stage_depends_on_the_first(root, trained):
    run = find_trained(root, run="3d_cascade_fullres")
    networks = [each.network for each in run.load(root / "blocks")]
    volume = read_image([root / "imgs" / "new.nrrd"])
    first = predict_case(
        [each.network for each in run.previous.load(root / "blocks")],
        run.previous.plan,
        run.previous.configuration,
        volume,
    )
    seen, blank = (
        predict_case(networks, run.plan, run.configuration, volume, previous=previous)
        for previous in (first, np.zeros_like(first))
    )
    assert (first > 0).any()
    assert (seen != blank).sum() > 0.02 * (seen > 0).sum()


def test_the_validation_cases_were_unseen_by_both_stages(root, trained):
    run = find_trained(root, run="3d_cascade_fullres")
    (state,) = (state for _, state in run.folds)
    low = {each.fold: each for _, each in run.previous.folds}
    assert set(low) == {"0", "1", "2"}
    assert state.validation_cases == low["0"].validation_cases
    assert not {*state.validation_cases} & {*low["0"].training_cases}
    assert {path.name for path in (trained / "fold0" / "validation").iterdir()} == {
        f"{name}.nii.gz" for name in state.validation_cases
    }


def test_its_block_is_explained(root, trained):
    words = ["-i", str(root / "imgs"), "-o", str(root / "maps"), "--root", str(root), "--device", "cpu", "-q"]
    assert mvl_explain([*words, "-n", "3d_cascade_fullres"]) == 0
    assert (root / "maps" / "new_change.nii.gz").is_file()
