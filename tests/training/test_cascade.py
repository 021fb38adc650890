"""Training the second stage of a cascade, on images that show nothing: all that it can know comes from the first."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from builders import make_dataset
from networks import RANDOM_BLOCK, tiny
from scipy.ndimage import shift
from trained import write_trained

from mvl_auto import plan_and_preprocess
from mvl_auto.cache import open_case, open_previous, write_previous
from mvl_auto.datasets import load_case, read_dataset
from mvl_auto.errors import MvlError
from mvl_auto.files import sha256_of_file
from mvl_auto.inference import predict_case
from mvl_auto.plans import Configuration, Plan, Splits, read_document, write_document
from mvl_auto.preprocessing import preprocess_dataset
from mvl_auto.runs import load_trained
from mvl_auto.runs.checkpoint import read_state
from mvl_auto.training import TrainingOptions, TrainingResult, train
from mvl_auto.training.batches import batches_ahead
from mvl_auto.training.cases import Cases
from mvl_auto.training.patches import Patches
from mvl_auto.training.previous import PreviousChannels

STEPS = 400


@dataclass(frozen=True)
class Blind:
    """A dataset whose images are noise, and a first stage that found the truth in each all the same."""

    root: Path
    raw: Path
    folder: Path  # preprocessed
    plan: Plan

    @property
    def results(self) -> Path:
        return self.root / "results" / self.plan.dataset

    @property
    def names(self) -> tuple[str, ...]:
        splits = read_document(self.folder / "splits.json", Splits)
        return tuple(sorted(name for fold in splits.folds for name in fold))


def truth(raw: Path, name: str) -> Path:
    return raw / "labelsTr" / f"{name}.nii.gz"


@pytest.fixture(scope="module")
def blind(tmp_path_factory) -> Blind:
    root = tmp_path_factory.mktemp("blind")
    raw = make_dataset(root / "raw", cases=3, shape=(16, 20, 18))
    rng = np.random.default_rng(0)
    for path in sorted((raw / "imagesTr").iterdir()):
        image = sitk.ReadImage(str(path))
        noise = sitk.GetImageFromArray(rng.normal(size=image.GetSize()[::-1]).astype(np.float32))
        noise.CopyInformation(image)
        sitk.WriteImage(noise, str(path))
    plan_and_preprocess(raw, root=root, llm=RANDOM_BLOCK, plan_only=True, workers=1)
    folder = root / "preprocessed" / "Dataset007_Tiny"
    plan = read_document(folder / "plans.json", Plan)
    low, high = two_stages(plan.configuration("3d_fullres"))
    plan = plan.model_copy(update={"configurations": {low.name: low, high.name: high}, "recommended": high.name})
    write_document(folder / "plans.json", plan)
    assert not preprocess_dataset(read_dataset(raw), plan, [high.name], folder, workers=1).failed
    folds = read_document(folder / "splits.json", Splits).folds
    validation = {str(number): cases for number, cases in enumerate(folds)}
    run = write_trained(root, plan, low.name, folds=tuple(validation), validation=validation)
    for fold, cases in validation.items():
        (run / f"fold{fold}" / "validation").mkdir()
        for case in cases:
            shutil.copy(truth(raw, case), run / f"fold{fold}" / "validation")
    return Blind(root, raw, folder, plan)


def two_stages(full: Configuration) -> tuple[Configuration, Configuration]:
    """A first stage at 2 mm and the second one, both small."""
    network = tiny(width=48, heads=3)
    low = {"name": "3d_lowres", "spacing": (2.0, 2.0, 2.0), "patch_size": (8, 16, 16)}
    high = {"name": "3d_cascade_fullres", "previous_stage": "3d_lowres", "patch_size": (16, 24, 24)}
    return tuple(
        full.model_copy(update={"batch_size": 2, "network": network.model_copy(update={"spacing": spacing})} | changes)
        for changes, spacing in [(low, (2.0,) * 3), (high, (1.0,) * 3)]
    )


def run(blind: Blind, name: str | None = None, steps: int = STEPS, fold: str = "0", **words) -> TrainingResult:
    return train(
        blind.folder,
        fold,
        TrainingOptions(run=name, steps=steps, workers=0, device="cpu", **words),
        results_folder=blind.results,
        blocks_folder=blind.root / "blocks",
    )


@pytest.fixture(scope="module")
def trained(blind) -> TrainingResult:
    return run(blind)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_where_the_image_shows_nothing_the_second_stage_follows_the_first(blind, trained):
    assert trained.validation.mean() > 0.8
    network = load_trained(trained.folder, blind.root / "blocks")
    raw = read_dataset(blind.raw)
    case = next(case for case in raw.cases if case.name in network.state.validation_cases)
    volume, classes = load_case(case, blind.plan.labels, 1)
    for voxels in (0, 3):
        found = shift(classes, (0, voxels, 0), order=0)
        predicted = predict_case([network.network], blind.plan, network.configuration, volume, previous=found)
        assert dice(predicted == 1, found == 1) > 0.75
    nothing = predict_case([network.network], blind.plan, network.configuration, volume, previous=0 * classes)
    assert dice(nothing == 1, classes == 1) < 0.6, "what the position alone tells"


def test_the_checkpoint_names_the_networks_of_the_first_stage(blind, trained):
    previous = read_state(trained.folder).previous
    assert (previous.run, previous.configuration) == ("3d_lowres", "3d_lowres")
    assert previous.checkpoints == {
        fold: sha256_of_file(blind.results / "3d_lowres" / f"fold{fold}" / "checkpoint.safetensors") for fold in "012"
    }


def test_on_all_cases_it_trains_without_validation(blind):
    result = run(blind, "everyone", steps=2, fold="all")
    assert result.validation is None
    assert read_state(result.folder).previous is not None


def test_a_first_stage_that_changes_between_two_sessions_is_noticed(blind, trained, tmp_path):
    results = tmp_path / "results" / "Dataset007_Tiny"
    shutil.copytree(blind.results, results)
    validation = {str(n): fold for n, fold in enumerate(read_document(blind.folder / "splits.json", Splits).folds)}
    write_trained(tmp_path, blind.plan, "3d_lowres", folds=("1",), seed=8, validation=validation)
    with pytest.raises(MvlError, match=r"other settings \(previous 3d_lowres\)"):
        train(
            blind.folder,
            "0",
            TrainingOptions(steps=STEPS, workers=0),
            results_folder=results,
            blocks_folder=blind.root / "blocks",
        )


def test_a_missing_first_stage_is_said_before_anything_is_written(blind, tmp_path):
    with pytest.raises(MvlError, match=r"folds 0, 1, 2 of it.*mvl_train 7 0 1 2 -c 3d_lowres first"):
        train(
            blind.folder,
            "0",
            TrainingOptions(steps=1),
            results_folder=tmp_path / "results",
            blocks_folder=blind.root / "blocks",
        )
    assert not (tmp_path / "results").exists()


# ----------------------------------------------------------------------------------------- batches


def patches(blind: Blind, previous: bool, **changes) -> Patches:
    cache = blind.folder / "3d_cascade_fullres"
    channels = PreviousChannels(cache / "previous" / "3d_lowres", blind.plan.labels) if previous else None
    configuration = blind.plan.configuration().model_copy(update=changes)
    return Patches(Cases(cache, channels), blind.names, configuration, blind.plan.labels, seed=3)


def test_the_channels_of_the_first_stage_go_the_way_of_the_label(blind, trained, tmp_path):
    """The truth with its classes exchanged: turned, scaled, mirrored as the label, it is still that but for changes."""
    cache = blind.folder / "3d_cascade_fullres"
    for name in blind.names:
        card = open_previous(cache / "previous" / "3d_lowres", name).card
        write_previous(tmp_path, np.array([0, 2, 1], np.int16)[open_case(cache, name).label()], card)
    made, plain = patches(blind, previous=True), patches(blind, previous=False)
    made.cases.previous = PreviousChannels(tmp_path, blind.plan.labels)
    same = []
    for step in range(30):
        batch, image_alone = made.batch(step), plain.batch(step)
        assert batch.image.shape == (2, 3, 16, 24, 24)
        assert batch.image.dtype == torch.float32
        assert torch.equal(batch.image[:, :1], image_alone.image)
        assert torch.equal(batch.label, image_alone.label)
        for found, label in zip(batch.image[:, 1:], batch.label, strict=True):
            same.append(bool((found == torch.stack([label == 2, label == 1])).all()))
    assert 0.3 < np.mean(same) < 0.9


def test_a_worker_makes_the_batches_that_one_process_makes(blind, trained):
    alone = patches(blind, previous=True)
    with batches_ahead(patches(blind, previous=True), 0, 2, torch.device("cpu")) as ahead:
        for step in range(4):
            assert torch.equal(next(ahead).image, alone.batch(step).image)


def test_slices_have_the_channels_too(blind, trained):
    batch = patches(blind, previous=True, patch_size=(16, 8), mirror_axes=(0, 1)).batch(0)
    assert batch.image.shape == (2, 3, 16, 8)
    assert batch.label.shape == (2, 16, 8)
