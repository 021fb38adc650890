"""The record of a folder of predictions: what an interrupted, repeated or changed run does with it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pytest
from builders import make_case, write_array
from predicting import predicted, values
from trained import write_trained

from mvl_auto.errors import MvlError
from mvl_auto.inference.record import Record
from mvl_auto.runs import find_trained


def record(output: Path) -> dict:
    return json.loads((output / "predictions.json").read_text())


def test_what_is_there_and_whole_is_not_done_again(images, tmp_path, root, run):
    output = tmp_path / "preds"
    predicted(images, output, root)
    times = {path.name: path.stat().st_mtime_ns for path in output.glob("*.nii.gz")}
    (output / "b.nii.gz").unlink()
    report = predicted(images, output, root)
    assert (report.done, report.skipped) == (["b"], ["a", "c"])
    assert {name: (output / name).stat().st_mtime_ns for name in ("a.nii.gz", "c.nii.gz")} == {
        name: times[name] for name in ("a.nii.gz", "c.nii.gz")
    }


def test_stopped_in_the_middle_it_goes_on(images, tmp_path, root, run):
    @contextmanager
    def stop_at_the_third(what, total, unit="case", done=0):
        def advance(amount=1, note=""):
            if note == "c":
                raise KeyboardInterrupt

        yield advance

    with pytest.raises(KeyboardInterrupt):
        predicted(images, tmp_path / "preds", root, progress=stop_at_the_third)
    report = predicted(images, tmp_path / "preds", root)
    assert (report.done, report.skipped) == (["c"], ["a", "b"])
    assert not list((tmp_path / "preds").glob(".writing-*"))


def test_half_a_prediction_is_done_again_an_edited_one_is_kept(images, tmp_path, root, run):
    output = tmp_path / "preds"
    predicted(images, output, root)
    whole = (output / "a.nii.gz").read_bytes()
    (output / "a.nii.gz").write_bytes(whole[: len(whole) // 2])
    edited = nibabel.load(output / "b.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros_like(edited.dataobj), edited.affine), output / "b.nii.gz")
    report = predicted(images, output, root)
    assert (report.done, report.skipped) == (["a"], ["b", "c"])
    assert (output / "a.nii.gz").read_bytes() == whole
    assert not values(output / "b.nii.gz").any()


def stop(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_run_that_was_killed_between_writing_and_recording_is_completed(
    is_cut, images, tmp_path, root, run, monkeypatch
):
    """A readable prediction is kept and recorded, half a file is predicted again; the record is complete afterwards."""
    output = tmp_path / "preds"
    with monkeypatch.context() as killed:
        killed.setattr(Record, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            predicted(images, output, root)
    assert record(output)["cases"]["a"]["size"] is None
    whole = (output / "a.nii.gz").read_bytes()
    if is_cut:
        (output / "a.nii.gz").write_bytes(whole[:100])
    report = predicted(images, output, root)
    assert ("a" in report.skipped) != is_cut
    assert (output / "a.nii.gz").read_bytes() == whole
    assert {name: case["size"] for name, case in record(output)["cases"].items()} == {
        name: (output / f"{name}.nii.gz").stat().st_size for name in "abc"
    }


def test_a_changed_image_is_predicted_again(images, tmp_path, root, run):
    predicted(images, tmp_path / "preds", root)
    write_array(images / "b.nii.gz", make_case((14, 19, 16), seed=77)[0][0], (1, 1, 1))
    report = predicted(images, tmp_path / "preds", root)
    assert (report.done, report.skipped) == (["b"], ["a", "c"])


def test_overwrite_does_all_again(images, tmp_path, root, run):
    predicted(images, tmp_path / "preds", root)
    assert predicted(images, tmp_path / "preds", root, overwrite=True).done == ["a", "b", "c"]


def test_probabilities_that_are_missing_are_made(images, tmp_path, root, run):
    predicted(images, tmp_path / "preds", root)
    assert predicted(images, tmp_path / "preds", root, probabilities=True).done == ["a", "b", "c"]
    assert predicted(images, tmp_path / "preds", root, probabilities=True).skipped == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"mirror": False}, "mirroring"),
        ({"step_size": 0.7}, "step size 0.5"),
        ({"folds": ["0"]}, r"other folds \(0, 1\)"),
    ],
)
def test_predictions_made_otherwise_are_not_taken_for_these(change, found, images, tmp_path, root):
    write_trained(root, folds=["0", "1"])
    predicted(images, tmp_path / "preds", root)
    before = {path: path.read_bytes() for path in (tmp_path / "preds").glob("*.nii.gz")}
    with pytest.raises(MvlError, match=rf"preds: holds predictions made with {found}.*--overwrite"):
        predicted(images, tmp_path / "preds", root, **change)
    assert {path: path.read_bytes() for path in before} == before
    assert predicted(images, tmp_path / "preds", root, overwrite=True, **change).done == ["a", "b", "c"]


def test_predictions_of_a_network_trained_anew_are_not_taken_for_its_own(images, tmp_path, root):
    write_trained(root, seed=1)
    predicted(images, tmp_path / "preds", root)
    write_trained(root, seed=2)
    with pytest.raises(MvlError, match="an earlier training of this network"):
        predicted(images, tmp_path / "preds", root)


def test_someone_elses_file_is_neither_taken_nor_replaced(images, tmp_path, root, run):
    (tmp_path / "preds").mkdir()
    (tmp_path / "preds" / "c.nii.gz").write_bytes(b"precious")
    with pytest.raises(MvlError, match=r"c\.nii\.gz: exists, but predictions\.json does not list it"):
        predicted(images, tmp_path / "preds", root)
    assert (tmp_path / "preds" / "c.nii.gz").read_bytes() == b"precious"
    assert [path.name for path in (tmp_path / "preds").iterdir()] == ["c.nii.gz"]


def test_a_record_of_an_older_version_is_continued(images, tmp_path, root, run):
    """`step` is the key of step_size on disk."""
    predicted(images, tmp_path / "preds", root)
    content = record(tmp_path / "preds")
    assert content["made_by"]["step"] == 0.5
    assert "step_size" not in content["made_by"]
    assert predicted(images, tmp_path / "preds", root).skipped == ["a", "b", "c"]


def test_the_record_says_what_made_the_predictions(images, tmp_path, root, run):
    predicted(images, tmp_path / "preds", root)
    content = record(tmp_path / "preds")
    made_by = content["made_by"]
    assert (made_by["dataset"], made_by["run"], made_by["configuration"]) == (
        "Dataset007_Tiny", "3d_fullres", "3d_fullres",
    )  # fmt: skip
    assert made_by["checkpoints"] == find_trained(root).checkpoints()
    assert list(content["cases"]) == ["a", "b", "c"]
    assert content["cases"]["a"]["size"] == (tmp_path / "preds" / "a.nii.gz").stat().st_size
    assert "3 images to predict" in (tmp_path / "preds" / "log.txt").read_text()
