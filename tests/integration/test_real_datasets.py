"""From raw data to scores on whatever real data there is: many spacings, formats, orientations and labels.

A few steps of training teach nothing; what is looked at is that each dataset goes all the way, and comes back on
its own grid and in its own values. That networks learn is asked in test_walk.py and test_hippocampus.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from commands import TINY_BLOCK, succeed
from PIL import Image
from real_datasets import NUMBERS, assemble, link_some
from walking import dice, hashes, voxels

from mvl_auto import api
from mvl_auto.plans import Fingerprint, Plan, Splits, read_document

STEPS = 3
VALIDATED = {"Cord", "CordContrasts", "Spleen"}  # the others keep no case apart: they would validate for minutes
ORIENTATIONS = ["LPI", "SAR", "PIR", "ASL", "IRP", "LAS"]


def plan_and_preprocess(dataset: Path, root: Path, configuration: str = "3d_fullres") -> Plan:
    settings = {"llm": TINY_BLOCK, "memory": 10**9, "device": "cpu", "workers": 1}
    return api.plan_and_preprocess(dataset, root=root, configurations=[configuration], **settings)


def cached_arrays(folder: Path) -> dict[str, str]:
    return {file: digest for file, digest in hashes(folder).items() if file.endswith((".b2nd", ".seg", ".locations"))}


@dataclass(frozen=True)
class Walked:
    """A dataset in two layouts, planned and prepared; in nnU-Net's, trained and predicted too. image: what of."""

    msd: Path
    nnunet: Path
    dataset: Path
    image: Path
    prediction: Path


@pytest.fixture(scope="module", params=NUMBERS)
def walked(request: pytest.FixtureRequest, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Walked:
    folder = tmp_path_factory.mktemp(request.param)
    configuration = "2d" if request.param == "Series" else "3d_fullres"  # five slices of 512 x 512 pixels
    for layout in ("msd", "nnunet"):
        dataset = assemble(request.param, real_data / "samples", folder / layout / "raw", layout)
        plan_and_preprocess(dataset, folder / layout, configuration)
    root, fold = folder / "nnunet", "0" if request.param in VALIDATED else "all"
    how = {"root": root, "configuration": configuration, "steps": STEPS, "device": "cpu", "workers": 1}
    api.train(NUMBERS[request.param], [fold], **how)
    series = dataset / "imagesTr" / "three"
    image = series if series.is_dir() else dataset / "imagesTr" / "three_0000.nii.gz"
    api.predict(image, root / "preds", root=root, device="cpu", mirror=False, step_size=1.0)
    return Walked(folder / "msd", root, dataset, image, root / "preds" / "three.nii.gz")


def test_both_layouts_are_the_same_dataset_with_the_same_cache(walked: Walked):
    msd, nnunet = (root / "preprocessed" / walked.dataset.name for root in (walked.msd, walked.nnunet))
    assert read_document(msd / "fingerprint.json", Fingerprint).hash == (
        read_document(nnunet / "fingerprint.json", Fingerprint).hash
    )
    for document in ("plans.json", "splits.json"):
        assert (msd / document).read_bytes() == (nnunet / document).read_bytes()
    assert len(cached_arrays(msd)) == 3 * 3
    assert cached_arrays(msd) == cached_arrays(nnunet)


def test_a_prediction_lies_on_the_grid_of_its_image(walked: Walked):
    predicted = sitk.ReadImage(str(walked.prediction))
    if walked.image.is_dir():
        image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(walked.image)))
    else:
        image = sitk.ReadImage(str(walked.image))
        written, original = nibabel.load(walked.prediction), nibabel.load(walked.image)
        assert written.shape == original.shape
        np.testing.assert_array_equal(written.affine, original.affine)
    # a series is written along the axes that nearest run to the right, the front and the head, or as it is stored
    image = sitk.DICOMOrient(
        image, sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(predicted.GetDirection())
    )
    assert predicted.GetSize() == image.GetSize()
    assert predicted.GetSpacing() == pytest.approx(image.GetSpacing(), abs=1e-5)
    assert predicted.GetOrigin() == pytest.approx(image.GetOrigin(), abs=1e-3)
    assert predicted.GetDirection() == pytest.approx(image.GetDirection(), abs=1e-5)


def test_a_prediction_holds_values_of_the_dataset_alone(walked: Walked):
    known = set(json.loads((walked.dataset / "dataset.json").read_text(encoding="utf-8"))["labels"].values())
    assert set(np.unique(voxels(walked.prediction))) <= known


def test_its_scores_are_the_dice_that_numpy_counts(walked: Walked):
    references, predictions = walked.dataset / "labelsTr", walked.prediction.parent
    api.evaluate(references, predictions, output=walked.nnunet / "scores", only_common=True)
    scores = json.loads((walked.nnunet / "scores" / "scores.json").read_text(encoding="utf-8"))["cases"]["three"]
    reference = references / walked.prediction.name
    labels = json.loads((walked.dataset / "dataset.json").read_text(encoding="utf-8"))["labels"]
    there = set(np.unique(voxels(reference)))
    assert len(there) > 1
    for name, value in labels.items():
        if value in there - {0}:
            expected = dice(voxels(reference), voxels(walked.prediction), value)
            assert scores[name]["dice"] == pytest.approx(expected, abs=1e-9)


def test_validation_scored_the_case_that_was_kept_apart(walked: Walked):
    name = walked.dataset.name.split("_")[1]
    folds = list((walked.nnunet / "results" / walked.dataset.name).glob("*/fold0"))
    assert len(folds) == (name in VALIDATED)
    for fold in folds:
        splits = read_document(walked.nnunet / "preprocessed" / walked.dataset.name / "splits.json", Splits)
        assert set(json.loads((fold / "summary.json").read_text(encoding="utf-8"))["cases"]) == set(splits.folds[0])


# -------------------------------------------------------------------------------- turned datasets


@pytest.mark.parametrize("name", ["Hippocampus", "Cord", "CordContrasts"])
def test_a_dataset_of_turned_cases_is_the_same_dataset(real_data: Path, tmp_path: Path, name: str):
    if name == "Hippocampus":
        source = link_some(real_data / "Task04_Hippocampus", tmp_path / "raw", cases=6)
    else:
        source = assemble(name, real_data / "samples", tmp_path / "raw", "nnunet")
    turned = tmp_path / "turned" / source.name
    for n, label in enumerate(sorted((source / "labelsTr").iterdir())):
        case = label.name.split(".")[0]
        for file in [label, *(source / "imagesTr").glob(f"{case}*")]:
            target = turned / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(file)), ORIENTATIONS[n]), str(target))
    (turned / "dataset.json").write_text((source / "dataset.json").read_text(encoding="utf-8"))
    plans = [plan_and_preprocess(dataset, tmp_path / root) for dataset, root in [(source, "as is"), (turned, "around")]]
    before, after = (tmp_path / root / "preprocessed" / plans[0].dataset for root in ("as is", "around"))
    fingerprints = [read_document(folder / "fingerprint.json", Fingerprint) for folder in (before, after)]
    assert fingerprints[0].hash == fingerprints[1].hash
    assert fingerprints[0].cases[0].files_hash != fingerprints[1].cases[0].files_hash
    assert plans[0] == plans[1]
    assert cached_arrays(before) == cached_arrays(after)
    assert cached_arrays(before)


# ---------------------------------------------------------------------------------------- pictures


def test_pictures_of_cells_go_all_the_way_by_the_commands(real_data: Path, tmp_path: Path):
    """Nuclei: RGB, masks of 0/255, seven sizes."""
    source = real_data / "Dataset101_Nuclei"
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / source.name).symlink_to(source)
    some = sorted((source / "imagesTr").iterdir())[:3]
    for file in some:
        (tmp_path / "imgs").mkdir(exist_ok=True)
        (tmp_path / "imgs" / file.name).symlink_to(file)
    plan = ("plan_and_preprocess", "-d", 101, "--llm", TINY_BLOCK, "--device", "cpu", "--memory", "800MB")
    succeed(*plan, root=tmp_path)
    succeed("train", 101, "all", "--steps", STEPS, "--device", "cpu", root=tmp_path)
    succeed("predict", "-i", "imgs", "-o", "preds", "--no-mirroring", "--step-size", "1", root=tmp_path)
    said = succeed("evaluate", "-r", source / "labelsTr", "-p", "preds", "--only-common", root=tmp_path)
    assert "nucleus" in said

    planned = read_document(tmp_path / "preprocessed" / source.name / "plans.json", Plan)
    assert planned.recommended == "2d"
    assert planned.labels.class_values == (0, 255)
    assert planned.configuration().normalization_schemes == ("rgb_to_0_1",) * 3
    for file in some:
        predicted = Image.open(tmp_path / "preds" / file.name.replace("_0000", ""))
        assert predicted.size == Image.open(file).size
        assert set(np.unique(np.asarray(predicted))) <= {0, 255}
