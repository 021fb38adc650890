"""The cascade: what its second stage sees of the first, in training of unseen cases, in prediction of all folds."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import make_case, write_array
from networks import RANDOM_BLOCK, tiny, tiny_llm
from scipy.ndimage import zoom
from trained import make_configuration, make_labels, make_plan, write_trained

from mvl_auto.cache import open_previous, write_case
from mvl_auto.errors import MvlError
from mvl_auto.files import sha256_of_file
from mvl_auto.images import read_image, read_label
from mvl_auto.inference import PredictionSettings, predict_case, predict_folder
from mvl_auto.inference.explain import explain_case
from mvl_auto.inference.predict import add_previous, make_network_input
from mvl_auto.llm import load_block
from mvl_auto.plans import CachedCase, Plan, Splits, Trail
from mvl_auto.preprocessing import preprocess_case
from mvl_auto.runs import PreviousReference, State, find_trained, network_of
from mvl_auto.runs.checkpoint import read_state
from mvl_auto.training.first_stage import find_first_stage, prepare_first_stage

VALUES = (0, 4, 255)
FOLDS = (("a", "b"), ("c",))
SHAPE = (12, 16, 14)


def two_stages(**changes) -> Plan:
    """A plan with a first stage at twice the spacing, and the second at 1 mm."""
    words = {"normalization": "z_score"}
    low = make_configuration((8, 8, 8), (2.0, 2.0, 2.0), name="3d_lowres", **words)
    high = make_configuration((16, 16, 16), name="3d_cascade_fullres", previous_stage="3d_lowres", **words)
    return make_plan(low, high, **({"labels": make_labels(VALUES)} | changes))


def splits(plan: Plan) -> Splits:
    return Splits(fingerprint_hash=plan.fingerprint_hash, seed=0, folds=FOLDS)


def write_first(root: Path, plan: Plan, run: str = "3d_lowres", folds=("0", "1"), **words) -> Path:
    """A first stage, with the segmentations (found_in) of the cases that each of its folds had not seen."""
    validation = {str(n): cases for n, cases in enumerate(FOLDS)}
    folder = write_trained(root, plan, "3d_lowres", run, folds, validation=validation, **words)
    for fold in folds:
        for case in validation[fold]:
            write_array(folder / f"fold{fold}" / "validation" / f"{case}.nii.gz", found_in(case), (1, 1, 1))
    return folder


def found_in(case: str) -> np.ndarray:
    values = np.zeros(SHAPE, np.uint8)
    values["abc".index(case) + 2 : 8, 4:12, 3:9] = 4
    values[5:9, 4:8, 9:13] = 255
    return values


def cache_cases(folder: Path, plan: Plan, names=("a", "b", "c")) -> Path:
    cache = folder / "3d_cascade_fullres"
    for n, name in enumerate(names):
        image, classes = make_case(SHAPE, seed=n)
        configuration = plan.configuration("3d_cascade_fullres")
        prepared = preprocess_case(image, (1, 1, 1), classes.astype(np.int16), plan, configuration)
        cached = CachedCase(
            name=name,
            shape=prepared.image.shape,
            trail=prepared.trail,
            files_hash="f",
            settings_hash="s",
            class_voxels=(1, 1, 1),
        )
        write_case(cache, prepared.image, prepared.label, cached, {}, configuration.patch_size)
    return cache


def first_of(root: Path, plan: Plan, run: str | None = None):
    results = root / "results" / plan.dataset
    return find_first_stage(results, plan, plan.configuration("3d_cascade_fullres"), splits(plan), run)


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if not path.name.startswith(".")}


# --------------------------------------------------------------------- what the second stage sees


def test_the_channels_behind_the_image_are_the_segmentation_on_the_networks_grid():
    """Finer by whole factors, turned and cropped: the way of numpy and scipy's zoom."""
    labels = make_labels((0, 1, 2))
    native = np.kron(np.random.default_rng(0).integers(0, 3, (3, 4, 5)), np.ones((3, 3, 3), int)).astype(np.int16)
    trail = Trail(
        shape=native.shape,
        transpose_forward=(2, 0, 1),
        crop=((3, 12), (0, 9), (0, 9)),
        spacing=(3, 1.5, 3),
        resampled_shape=(27, 9, 27),
        resampled_spacing=(1, 1.5, 1),
        separate_axis=None,
    )
    image = np.random.default_rng(1).normal(size=(2, 27, 9, 27)).astype(np.float32)
    seen = add_previous(image, native, trail, labels)
    assert seen.shape == (4, 27, 9, 27)
    assert seen.dtype == np.float32
    np.testing.assert_array_equal(seen[:2], image)
    cropped = native.transpose(2, 0, 1)[3:12, 0:9, 0:9]
    expected = zoom(cropped, (3, 1, 3), order=0, grid_mode=True, mode="nearest")
    for channel, k in zip(seen[2:], (1, 2), strict=True):
        assert (channel != (expected == k)).mean() < 0.03, "but for ties between two voxels"
        inner = zoom(cropped == k, (3, 1, 3), order=1, grid_mode=True, mode="nearest", output=float)
        np.testing.assert_array_equal(channel[inner == 1], 1)
        np.testing.assert_array_equal(channel[inner == 0], 0)


def test_regions_are_channels_that_overlap():
    labels = make_labels((0, 1, 2), region_names=("whole", "core"), regions=((1, 2), (2,)), regions_class_order=(1, 2))
    plan = two_stages(labels=labels)
    second = plan.configuration("3d_cascade_fullres")
    assert plan.input_channels(second) == 3
    assert plan.input_channels(plan.configuration("3d_lowres")) == 1
    image, classes = make_case(SHAPE)
    prepared = preprocess_case(image, (1, 1, 1), None, plan, second)
    seen = make_network_input(prepared, classes.astype(np.int16), plan, second)
    np.testing.assert_array_equal(seen[1], classes > 0)
    np.testing.assert_array_equal(seen[2], classes == 2)


def test_a_second_stage_without_the_first_is_a_mistake_of_the_caller(root):
    plan = two_stages()
    image, _ = make_case(SHAPE)
    second = plan.configuration("3d_cascade_fullres")
    with pytest.raises(ValueError, match="3d_cascade_fullres needs the segmentation by 3d_lowres"):
        make_network_input(preprocess_case(image, (1, 1, 1), None, plan, second), None, plan, second)


# ------------------------------------------------------------------------- training: unseen cases


def test_each_case_comes_from_the_fold_that_had_not_seen_it(root):
    plan = two_stages()
    folder = write_first(root, plan)
    first = first_of(root, plan)
    assert {case: unseen.fold for case, unseen in first.unseen.items()} == {"a": "0", "b": "0", "c": "1"}
    for case in "abc":
        np.testing.assert_array_equal(first.classes(case), np.searchsorted(VALUES, found_in(case)))
    assert first.reference == PreviousReference(
        run="3d_lowres",
        configuration="3d_lowres",
        checkpoints={fold: sha256_of_file(folder / f"fold{fold}" / "checkpoint.safetensors") for fold in "01"},
    )


def test_in_the_cache_it_lies_on_the_grid_of_its_case_and_is_not_made_twice(root, tmp_path):
    plan = two_stages()
    write_first(root, plan)
    cache = cache_cases(tmp_path, plan)
    first = first_of(root, plan)
    folder = prepare_first_stage(first, cache, ["a", "c"], (16, 16, 16), workers=1)
    assert folder == cache / "previous" / "3d_lowres"
    for case in "ac":
        np.testing.assert_array_equal(open_previous(folder, case).classes(), np.searchsorted(VALUES, found_in(case)))
        assert open_previous(folder, case).card.fold == first.unseen[case].fold
    before = times(folder)
    assert set(before) == {"a.b2nd", "a.json", "c.b2nd", "c.json"}
    prepare_first_stage(first, cache, ["a", "b", "c"], (16, 16, 16), workers=2)
    after = times(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"b.b2nd", "b.json"}


@pytest.mark.parametrize("what", ["another network", "another segmentation", "a damaged file"])
def test_what_was_made_of_something_else_is_made_anew(what, root, tmp_path):
    plan = two_stages()
    run = write_first(root, plan)
    cache = cache_cases(tmp_path, plan)
    folder = prepare_first_stage(first_of(root, plan), cache, ["a", "c"], (16, 16, 16), workers=1)
    before = times(folder)
    expected = found_in("c")
    if what == "another network":
        shutil.copy(run / "fold0" / "checkpoint.safetensors", tmp_path)
        write_trained(root, plan, "3d_lowres", folds=("0", "1"), seed=7, validation={"0": FOLDS[0], "1": FOLDS[1]})
        shutil.copy(tmp_path / "checkpoint.safetensors", run / "fold0")
    elif what == "another segmentation":
        expected = expected[::-1].copy()
        write_array(run / "fold1" / "validation" / "c.nii.gz", expected, (1, 1, 1))
    else:
        (folder / "c.b2nd").write_bytes(b"no array")
    prepare_first_stage(first_of(root, plan), cache, ["a", "c"], (16, 16, 16), workers=1)
    assert {name for name, time in times(folder).items() if time != before[name]} == {"c.b2nd", "c.json"}
    np.testing.assert_array_equal(open_previous(folder, "c").classes(), np.searchsorted(VALUES, expected))


def test_on_another_grid_it_is_made_anew(root, tmp_path):
    plan = two_stages()
    write_first(root, plan)
    folder = prepare_first_stage(first_of(root, plan), cache_cases(tmp_path, plan), "abc", (16, 16, 16), workers=1)
    before = times(folder)
    finer = make_configuration(spacing=(1 / 3, 1, 1), name="3d_cascade_fullres", previous_stage="3d_lowres")
    cache = cache_cases(tmp_path, make_plan(finer), ("a", "b", "c"))
    prepare_first_stage(first_of(root, plan), cache, "abc", (16, 16, 16), workers=1)
    assert all(time != before[name] for name, time in times(folder).items())
    expected = np.searchsorted(VALUES, found_in("b"))
    np.testing.assert_array_equal(open_previous(folder, "b").classes()[1::3], expected)  # the middle one of three


def test_missing_folds_are_listed_with_the_command_that_trains_them(root):
    plan = two_stages()
    with pytest.raises(MvlError, match=r"folds 0, 1 of it are not.*mvl_train 7 0 1 -c 3d_lowres first"):
        first_of(root, plan)
    folder = write_first(root, plan, folds=("0",))
    with pytest.raises(MvlError, match=r"fold 1 of it is not trained.*mvl_train 7 1 -c 3d_lowres first"):
        first_of(root, plan)
    write_trained(root, plan, "3d_lowres", folds=("0", "1"), finished=False, validation={"0": FOLDS[0], "1": FOLDS[1]})
    with pytest.raises(MvlError, match="folds 0, 1 of it are not trained to their end"):
        first_of(root, plan)
    write_first(root, plan)
    (folder / "fold0" / "validation" / "b.nii.gz").unlink()  # stopped while it validated
    with pytest.raises(MvlError, match="fold 0 of it is not trained to its end"):
        first_of(root, plan)


def test_another_name_is_asked_for_with_the_names_there_are(root):
    plan = two_stages()
    write_first(root, plan, run="low_2", folds=("0",))
    write_first(root, plan, run="low_1")
    write_trained(root, plan, "3d_cascade_fullres", run="high")
    for run in (None, "nonsense", "high"):
        with pytest.raises(MvlError, match=r"holds no trained network of 3d_lowres.*--previous low_1 or low_2\."):
            first_of(root, plan, run)
    assert first_of(root, plan, "low_1").run.folder.name == "low_1"
    with pytest.raises(MvlError, match=r"mvl_train 7 1 -c 3d_lowres -n low_2 first"):
        first_of(root, plan, "low_2")


@pytest.mark.parametrize("change", ["fingerprint_hash", "labels", "splits"])
def test_a_first_stage_of_other_data_is_refused(change, root):
    plan = two_stages()
    write_first(root, plan)
    now = {"fingerprint_hash": "1" * 64, "labels": make_labels((0, 4, 254))}
    folds = (("a", "c"), ("b",)) if change == "splits" else FOLDS
    plan = plan.model_copy(update={change: now[change]} if change in now else {"memory_budget": 5})
    with pytest.raises(MvlError, match="trained on another state of the dataset"):
        find_first_stage(
            root / "results" / plan.dataset,
            plan,
            plan.configuration("3d_cascade_fullres"),
            Splits(fingerprint_hash=plan.fingerprint_hash, seed=0, folds=folds),
        )


def test_a_segmentation_of_another_size_is_named(root, tmp_path):
    plan = two_stages()
    run = write_first(root, plan)
    cache = cache_cases(tmp_path, plan)
    write_array(run / "fold1" / "validation" / "c.nii.gz", found_in("c")[1:], (1, 1, 1))
    with pytest.raises(MvlError, match=r"fold1/validation/c.nii.gz: is 11 x 16 x 14 voxels, its image 12 x 16 x 14"):
        prepare_first_stage(first_of(root, plan), cache, ["a", "c"], (16, 16, 16), workers=1)


# ------------------------------------------------------------------------ prediction: both stages


@pytest.fixture
def cascade(root: Path) -> Plan:
    """Both stages, trained by nobody: the second after folds 0 and 1 of the first."""
    plan = two_stages()
    write_first(root, plan)
    reference = first_of(root, plan).reference
    write_trained(root, plan, "3d_cascade_fullres", folds=("0", "1"), seed=3, previous=reference)
    return plan


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for n, name in enumerate(("one", "two")):
        write_array(tmp_path / "imgs" / f"{name}.nii.gz", make_case((14, 18 + n, 16), seed=n)[0][0], (1, 1, 1))
    return tmp_path / "imgs"


def test_the_first_stage_predicts_with_all_its_folds_before_the_second(cascade, images, tmp_path, root):
    trained = find_trained(root, run="3d_cascade_fullres")
    assert trained.previous.fold_names == ("0", "1")
    advanced = []

    @contextmanager
    def progress(what, total, unit="case", done=0):
        yield lambda amount=1, note="": advanced.append(amount)

    report = predict_folder(
        images, tmp_path / "preds", trained, root / "blocks", PredictionSettings("cpu"), progress=progress
    )
    assert (report.done, report.failed) == (["one", "two"], {})
    assert sum(advanced) == pytest.approx(2), "each image counts once, not once for each stage"
    low, high = cascade.configuration("3d_lowres"), cascade.configuration("3d_cascade_fullres")
    networks = {
        run: [each.network for each in find_trained(root, run=run).load(root / "blocks")]
        for run in ("3d_lowres", "3d_cascade_fullres")
    }
    for name in ("one", "two"):
        volume = read_image([images / f"{name}.nii.gz"])
        found = predict_case(networks["3d_lowres"], cascade, low, volume)
        assert len(np.unique(found)) == 3
        classes = predict_case(networks["3d_cascade_fullres"], cascade, high, volume, previous=found)
        written, geometry = read_label(tmp_path / "preds" / f"{name}.nii.gz")
        np.testing.assert_array_equal(written, np.array(VALUES)[classes])
        np.testing.assert_allclose(geometry.affine, volume.geometry.affine)
        other = predict_case(networks["3d_cascade_fullres"], cascade, high, volume, previous=np.zeros_like(found))
        assert (other != classes).mean() > 0.02, "the second stage does not look at the first"
        alone = predict_case(networks["3d_lowres"][:1], cascade, low, volume)
        assert (alone != found).any(), "one fold is not all of them"


def test_a_first_stage_that_changed_or_went_is_named(cascade, root):
    run = root / "results" / cascade.dataset / "3d_lowres"
    shutil.copytree(run, root / "kept")
    write_trained(root, cascade, "3d_lowres", folds=("1",), seed=9, validation={"1": FOLDS[1]})
    with pytest.raises(MvlError, match="trained after fold 1 of 3d_lowres, which has been trained again since"):
        _ = find_trained(root, run="3d_cascade_fullres").previous
    shutil.rmtree(run)
    with pytest.raises(MvlError, match="fold 0 of 3d_lowres, which is not there any more"):
        _ = find_trained(root, run="3d_cascade_fullres").previous
    shutil.copytree(root / "kept", run)
    assert find_trained(root, run="3d_cascade_fullres").previous is not None


def test_folds_after_different_first_stages_do_not_vote_together(cascade, root):
    write_first(root, cascade, run="other", seed=5)
    reference = first_of(root, cascade, "other").reference
    write_trained(root, cascade, "3d_cascade_fullres", folds=("1",), seed=4, previous=reference)
    with pytest.raises(MvlError, match=r"folds 0 and 1 that were trained after different.*-f 0"):
        _ = find_trained(root, run="3d_cascade_fullres").previous
    assert find_trained(root, run="3d_cascade_fullres", folds=["1"]).previous.folder.name == "other"


def test_a_checkpoint_of_before_the_cascade_still_reads(root):
    folder = write_trained(root, make_plan())
    text = (folder / "fold0" / "state.json").read_text()
    assert '"previous": null' in text
    old = read_state(folder / "fold0").model_dump()
    del old["previous"]
    assert State.model_validate(old).previous is None
    assert find_trained(root).previous is None


def test_the_llm_block_of_a_second_stage_is_explained_with_what_the_first_found(images, root, tmp_path):
    plan = two_stages()
    second = plan.configuration("3d_cascade_fullres").model_copy(update={"network": tiny(llm=tiny_llm())})
    network = network_of(plan, second, load_block(RANDOM_BLOCK, "last", tmp_path / "blocks")).eval()
    volume = read_image([images / "one.nii.gz"])
    nothing = np.zeros(volume.array.shape[1:], np.int16)
    maps = [
        explain_case(network, plan, second, volume, torch.device("cpu"), previous).maps["before"]
        for previous in (nothing, nothing + 1)
    ]
    assert maps[0].shape == nothing.shape
    assert not np.allclose(*maps)
