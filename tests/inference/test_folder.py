"""A folder of images to a folder of segmentations: names, grids, values, bad files."""

from __future__ import annotations

import logging
import os
import re
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from builders import make_case, write_array
from dicom_series import MR, write_slices
from predicting import VALUES, predicted, values
from trained import make_configuration, make_labels, make_plan, write_trained

from mvl_auto.cli.predict import main
from mvl_auto.errors import MvlError
from mvl_auto.images import read_image
from mvl_auto.inference import PredictionSettings, predict_case, predict_folder
from mvl_auto.locks import locked
from mvl_auto.runs import find_trained

# --------------------------------------------------------------------------- what is written


def test_every_image_gets_its_segmentation_in_the_values_of_the_training_data(images, tmp_path, root, run):
    report = predicted(images, tmp_path / "preds", root)
    assert (report.done, report.skipped, report.failed) == (["a", "b", "c"], [], {})
    trained = find_trained(root)
    network = trained.load(root / "blocks")[0].network
    for name in "abc":
        classes = predict_case([network], trained.plan, trained.configuration, read_image([images / f"{name}.nii.gz"]))
        assert set(np.unique(classes)) == {0, 1, 2}
        assert np.array_equal(values(tmp_path / "preds" / f"{name}.nii.gz"), np.array(VALUES)[classes])


def test_every_segmentation_has_the_type_that_all_labels_need(images, tmp_path, root):
    """Also one that found nothing: a folder of one dataset has one type."""
    write_trained(root, make_plan(make_configuration(normalization="z_score"), labels=make_labels((0, 300, 301))))
    write_array(images / "empty.nii.gz", np.zeros((9, 9, 9), np.float32), (1, 1, 1))
    predicted(images, tmp_path / "preds", root)
    types = {path.name: nibabel.load(path).get_data_dtype() for path in (tmp_path / "preds").glob("*.nii.gz")}
    assert types == dict.fromkeys(["a.nii.gz", "b.nii.gz", "c.nii.gz", "empty.nii.gz"], np.uint16)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("axes", ["LPS", "RAI", "PIR", "SAL"])
def test_a_turned_image_gives_the_same_segmentation_on_its_own_grid(ending, axes, tmp_path, root, run):
    array = make_case((14, 18, 16), seed=3)[0][0]
    straight = sitk.GetImageFromArray(array)
    straight.SetSpacing((0.9, 1.1, 1.3))
    straight.SetOrigin((-20.5, 11.25, 7))
    turn = np.deg2rad(9)
    straight.SetDirection([np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1])
    (tmp_path / "imgs").mkdir()
    sitk.WriteImage(straight, str(tmp_path / "imgs" / "straight.nrrd"))
    sitk.WriteImage(sitk.DICOMOrient(straight, axes), str(tmp_path / "imgs" / f"turned{ending}"))
    predicted(tmp_path / "imgs", tmp_path / "preds", root)

    image = sitk.ReadImage(str(tmp_path / "imgs" / f"turned{ending}"))
    turned = sitk.ReadImage(str(tmp_path / "preds" / f"turned{ending}"))
    assert turned.GetSize() == image.GetSize()
    for frame in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(turned, frame)(), getattr(image, frame)(), rtol=0, atol=1e-6)
    back = sitk.GetArrayFromImage(sitk.DICOMOrient(turned, "LPS"))
    expected = values(tmp_path / "preds" / "straight.nrrd")
    assert len(np.unique(expected)) == 3
    # NIfTI keeps the frame in 32 bits, so the spacing and with it the resampling differ in the last digits
    assert (back != expected).mean() <= (1e-3 if "nii" in ending else 0)


def test_an_oblique_nifti_keeps_its_affine_and_units(tmp_path, root, run):
    affine = nibabel.affines.from_matvec(
        nibabel.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([1.2, -1, 1]), [10, -20, 30]
    )
    image = nibabel.Nifti1Image(make_case((14, 18, 16))[0][0].transpose(), affine)
    image.header.set_xyzt_units("mm")
    (tmp_path / "imgs").mkdir()
    nibabel.save(image, tmp_path / "imgs" / "a.nii.gz")
    predicted(tmp_path / "imgs", tmp_path / "preds", root)
    found = nibabel.load(tmp_path / "preds" / "a.nii.gz")
    np.testing.assert_allclose(found.affine, nibabel.load(tmp_path / "imgs" / "a.nii.gz").affine, atol=1e-6)
    assert found.shape == (16, 18, 14)
    assert found.header.get_xyzt_units()[0] == "mm"


def test_channels_in_several_files_are_one_case_under_its_name(tmp_path, root):
    write_trained(root, make_plan(make_configuration(channels=2)))
    image = make_case((10, 12, 11), channels=2)[0] / 100
    for channel in range(2):
        write_array(tmp_path / "imgs" / f"a_{channel:04d}.nii.gz", image[channel], (1, 1, 1))
    write_array(tmp_path / "imgs" / "b.nii.gz", np.moveaxis(image, 0, -1), (1, 1, 1), is_vector=True)
    report = predicted(tmp_path / "imgs", tmp_path / "preds", root)
    assert report.done == ["a", "b"]
    assert np.array_equal(values(tmp_path / "preds" / "a.nii.gz"), values(tmp_path / "preds" / "b.nii.gz"))


def test_a_picture_gives_a_picture(tmp_path, root):
    write_trained(root, make_plan(make_configuration((16, 16), normalization="z_score"), labels=make_labels((0, 200))))
    picture = np.random.default_rng(0).integers(0, 255, (40, 25)).astype(np.uint8)
    write_array(tmp_path / "imgs" / "a.png", picture, (1, 1))
    predicted(tmp_path / "imgs", tmp_path / "preds", root, probabilities=True)
    found = values(tmp_path / "preds" / "a.png")
    assert found.shape == picture.shape
    assert set(np.unique(found)) == {0, 200}
    assert (tmp_path / "preds" / "probabilities" / "a.nii.gz").is_file()


def test_a_dicom_series_gives_a_nifti_on_its_grid(real_data, tmp_path, root):
    folder = real_data / "samples" / "ct" / "dicom"
    write_trained(root, make_plan(make_configuration((8, 32, 32), spacing=(4, 8, 8), normalization="z_score")))
    predicted(folder, tmp_path / "preds", root, mirror=False, step_size=1)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    found = sitk.ReadImage(str(tmp_path / "preds" / "dicom.nii.gz"))
    assert found.GetSize() == image.GetSize()
    for frame in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(found, frame)(), getattr(image, frame)(), atol=1e-4)


def test_each_volume_of_a_dicom_folder_gets_its_segmentation(tmp_path, root):
    write_trained(root, make_plan(make_configuration((8, 8, 8), normalization="z_score")))
    image = np.random.default_rng(0).integers(0, 1000, (6, 9, 8)).astype(np.int16)
    for echo in (1, 2):

        def edit(dataset, k, echo=echo):
            dataset.EchoNumbers, dataset.EchoTime = echo, 10.0 * echo

        write_slices(tmp_path / "imgs" / "knee", image * np.int16(echo), kind=MR, first=6 * echo, edit=edit)
    write_slices(tmp_path / "imgs" / "DOE^JOHN" / "STUDY" / "SERIES", image)
    report = predicted(tmp_path / "imgs", tmp_path / "preds", root, mirror=False)
    assert not report.failed
    names = sorted(file.name for file in (tmp_path / "preds").glob("*.nii.gz"))
    assert names[:2] == ["knee_echo1.nii.gz", "knee_echo2.nii.gz"]
    assert re.fullmatch(r"study[0-9a-f]{8}_series1\.nii\.gz", names[2])
    found = sitk.ReadImage(str(tmp_path / "preds" / names[1]))
    assert found.GetSize() == (8, 9, 6)
    np.testing.assert_allclose(found.GetSpacing(), (0.7, 0.8, 2.5), rtol=1e-6)
    assert predicted(tmp_path / "imgs", tmp_path / "preds", root, mirror=False).done == []  # all are there
    everything = [file for file in (tmp_path / "preds").iterdir() if file.suffix in (".json", ".txt")]
    assert everything
    assert not any("DOE" in file.read_text() for file in everything)


def test_folds_vote(images, tmp_path, root):
    write_trained(root, folds=["0", "1"])
    for folds in (["0"], ["1"], None):
        predicted(images, tmp_path / f"preds{folds}", root, folds=folds, probabilities=True)
    first, second, both = (
        nibabel.load(tmp_path / f"preds{folds}" / "probabilities" / "a.nii.gz").get_fdata()
        for folds in (["0"], ["1"], None)
    )
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-6)
    np.testing.assert_array_equal(values(tmp_path / "predsNone" / "a.nii.gz").T, both.argmax(-1))
    np.testing.assert_allclose(both.sum(-1), 1, atol=1e-5)
    assert np.abs(first - second).max() > 0.1


def test_a_single_image_can_be_named(images, tmp_path, root, run):
    assert predicted(images / "b.nii.gz", tmp_path / "preds", root).done == ["b"]


def test_the_bar_runs_to_its_end(images, tmp_path, root, run):
    seen = []

    @contextmanager
    def progress(what, total, unit="case", done=0):
        seen.append((what, total, done))
        yield lambda amount=1, note="": seen.append(amount)

    (images / "b.nii.gz").write_bytes(b"no image")
    predicted(images, tmp_path / "preds", root, progress=progress)
    assert seen[0] == ("predicting", 3, 0)
    assert sum(seen[1:]) == pytest.approx(3)


# ----------------------------------------------------------------------------- bad input


def test_a_bad_file_is_named_and_the_others_are_done(images, tmp_path, root, run, capsys):
    bad = (images / "a.nii.gz").read_bytes()
    (images / "bad_0cut.nii.gz").write_bytes(bad[: len(bad) // 2])
    nan = make_case((9, 9, 9))[0][0]
    nan[3, 4, 5] = np.nan
    write_array(images / "bad_1nan.nii.gz", nan, (1, 1, 1))
    write_array(images / "bad_2two.nii.gz", np.ones((9, 9, 9, 2), np.float32), (1, 1, 1), is_vector=True)
    (images / "notes.txt").write_text("not an image")
    code = main(["-i", str(images), "-o", str(tmp_path / "preds"), "--root", str(root), "--device", "cpu"])
    assert code == 1
    assert sorted(path.name for path in (tmp_path / "preds").glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith(f"root: {root}")
    assert f"3 images predicted, in {tmp_path / 'preds'}" in lines
    assert lines[-1] == f"next: mvl_evaluate -r REFERENCES -p {tmp_path / 'preds'}"
    assert "3 images failed; the errors say why" in lines
    reasons = [line for line in said.err.splitlines() if line.startswith(str(images / "bad_"))]
    assert [Path(line.strip().split(": ")[0]).name for line in reasons] == [
        "bad_0cut.nii.gz", "bad_1nan.nii.gz", "bad_2two.nii.gz",
    ]  # fmt: skip
    assert "1 NaN" in reasons[1]
    assert "has 2 channels, Dataset007_Tiny has 1 (MRI)" in reasons[2]


def test_again_after_a_failure_only_the_failed_one_is_tried(images, tmp_path, root, run, capsys):
    whole = (images / "b.nii.gz").read_bytes()
    (images / "b.nii.gz").write_bytes(whole[:200])
    command = ["-i", str(images), "-o", str(tmp_path / "preds"), "--root", str(root)]
    assert main(command) == 1
    (images / "b.nii.gz").write_bytes(whole)
    assert main(command) == 0
    assert f"1 image predicted, 2 existed already, in {tmp_path / 'preds'}" in capsys.readouterr().out


def test_an_image_that_cannot_be_stored_is_a_failure_of_its_own(images, tmp_path, root):
    """A label of 70000 does not go into a PNG."""
    plan = make_plan(make_configuration(normalization="z_score"), labels=make_labels((0, 70000)))
    write_trained(root, plan)
    write_array(images / "picture.png", np.random.default_rng(0).integers(0, 255, (20, 20)).astype(np.uint8), (1, 1))
    report = predicted(images, tmp_path / "preds", root)
    assert report.done == ["a", "b", "c"]
    assert list(report.failed) == ["picture"]
    assert not (tmp_path / "preds" / "picture.png").exists()


def test_nothing_to_predict_is_an_error_before_anything_is_written(tmp_path, root, run):
    (tmp_path / "imgs").mkdir()
    for input in ("imgs", "nowhere"):
        with pytest.raises(MvlError, match=str(tmp_path / input)):
            predicted(tmp_path / input, tmp_path / "preds", root)
    assert not (tmp_path / "preds").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_named(images, tmp_path, root, run):
    (tmp_path / "preds").mkdir(mode=0o500)
    with pytest.raises(MvlError, match=r"preds.*cannot be written"):
        predicted(images, tmp_path / "preds", root)


def test_a_file_where_the_folder_should_be_is_named(images, tmp_path, root, run):
    (tmp_path / "preds").write_text("in the way")
    with pytest.raises(MvlError, match=r"preds.*cannot be written"):
        predicted(images, tmp_path / "preds", root)


def test_two_processes_do_not_share_a_folder(images, tmp_path, root, run):
    with locked(tmp_path / "preds", "predicting"), pytest.raises(MvlError, match="another process is predicting here"):
        predicted(images, tmp_path / "preds", root)


@pytest.mark.parametrize(("device", "what"), [("cuda:99", "torch sees"), ("nonsense", "is no device")])
def test_a_device_that_is_not_there_is_said_before_any_work(device, what, images, tmp_path, root, run):
    with pytest.raises(MvlError, match=what):
        predict_folder(images, tmp_path / "preds", find_trained(root), root / "blocks", PredictionSettings(device))
    assert not (tmp_path / "preds").exists()


@pytest.mark.parametrize("step", [0, -1, 1.5, float("nan")])
def test_a_step_that_leaves_gaps_is_refused(step, images, tmp_path, root, run):
    with pytest.raises(MvlError, match="the step size is"):
        predicted(images, tmp_path / "preds", root, step_size=step)


def test_a_run_whose_plan_was_exchanged_does_not_predict(images, tmp_path, root, run):
    write_trained(root, make_plan(make_configuration((8, 8, 8))), run="other")
    (run / "plans.json").write_bytes((run.parent / "other" / "plans.json").read_bytes())
    trained = find_trained(root, run="3d_fullres")
    with pytest.raises(MvlError, match="was trained with another plan"):
        predict_folder(images, tmp_path / "preds", trained, root / "blocks", PredictionSettings("cpu"))


def test_the_command_without_a_trained_network_ends_with_one_line_and_code_2(images, tmp_path, root, capsys):
    assert main(["-i", str(images), "-o", str(tmp_path / "preds")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("mvl_predict: ")
    assert not (tmp_path / "preds").exists()


def test_failures_are_in_the_log_of_the_folder(images, tmp_path, root, run, caplog):
    (images / "b.nii.gz").write_bytes(b"no image")
    with caplog.at_level(logging.INFO):
        predicted(images, tmp_path / "preds", root)
    log = (tmp_path / "preds" / "log.txt").read_text()
    assert "ERROR b: " in log
    assert str(images / "b.nii.gz") in log


def test_what_many_images_have_is_told_once(tmp_path, root, caplog):
    write_trained(root, make_plan(make_configuration(normalization="z_score")))
    (tmp_path / "imgs").mkdir()
    for name in "abcd":
        image = make_case((8, 12, 11))[0][0].astype(np.float32)
        metadata = {"axes": "ZYX", "spacing": 2, "unit": "furlong"}
        tifffile.imwrite(tmp_path / "imgs" / f"{name}.tif", image, imagej=True, metadata=metadata)
    with caplog.at_level(logging.WARNING):
        assert len(predicted(tmp_path / "imgs", tmp_path / "preds", root).done) == 4
    (told,) = [message for message in caplog.messages if "furlong" in message]
    assert told.startswith("4 images (")
    assert "and 1 more" in told


# ------------------------------------------------------------------------ one bad case among others


def test_a_case_without_a_channel_is_named_and_the_others_are_done(tmp_path, root, capsys):
    write_trained(root, make_plan(make_configuration(channels=2, normalization="z_score")))
    for name, channels in {"a": (0, 1), "b": (0,), "c": (0, 1), "d": (1,), "e": (0, 1, 2)}.items():
        for channel in channels:
            path = tmp_path / "imgs" / f"{name}_{channel:04d}.nii.gz"
            write_array(path, make_case((14, 18, 16), seed=channel)[0][0], (1, 1, 1))
    assert main(["-i", str(tmp_path / "imgs"), "-o", str(tmp_path / "preds"), "--device", "cpu"]) == 1
    assert {path.name for path in (tmp_path / "preds").glob("*.nii.gz")} == {"a.nii.gz", "c.nii.gz"}
    out, told = capsys.readouterr()
    assert "2 images predicted" in out
    assert "3 images failed" in out
    same = f"2 cases (b, d_0001), the first: {tmp_path / 'imgs' / 'b_0000.nii.gz'}: has 1 channel,"
    for words in (same, "/e: has the channels"):
        assert words in told, told
    assert f"next: mvl_evaluate -r REFERENCES -p {tmp_path / 'preds'}" in out
    for name in "ac":
        for file in (tmp_path / "imgs").glob(f"{name}_*"):
            file.unlink()
    (tmp_path / "imgs" / "b_0000.nii.gz").unlink()
    (tmp_path / "imgs" / "d_0001.nii.gz").unlink()
    assert main(["-i", str(tmp_path / "imgs"), "-o", str(tmp_path / "none"), "--device", "cpu"]) == 2
    assert not (tmp_path / "none").exists()
