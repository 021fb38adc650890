"""The output folder: results never lie beside the images nor replace one, under whatever name or link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders import make_case, write_array
from trained import write_trained

from mvl_auto.errors import MvlError
from mvl_auto.inference import PredictionSettings, predict_folder
from mvl_auto.inference.explain import explain_folder
from mvl_auto.runs import find_trained


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two small volumes."""
    for n, name in enumerate("ab"):
        write_array(tmp_path / "scans" / f"{name}.nii.gz", make_case((14, 18, 16), seed=n)[0][0], (1, 1, 1))
    return tmp_path / "scans"


@pytest.fixture
def trained(root: Path):
    write_trained(root)
    return find_trained(root)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def predict(images: Path, output: Path, trained, root: Path) -> None:
    predict_folder(images, output, trained, root / "blocks", PredictionSettings("cpu"), overwrite=True)


def test_the_folder_of_the_images_is_refused_under_any_name(scans, tmp_path, trained, root):
    before = contents(scans)
    (tmp_path / "same").symlink_to(scans)
    for images, output in [
        (scans, scans),
        (scans, scans / ".." / "scans"),
        (scans / "a.nii.gz", scans),
        (scans, tmp_path / "same"),
        (tmp_path / "same", scans),
    ]:
        with pytest.raises(MvlError, match=f"{output}: is the folder of the images.*Choose another"):
            predict(images, output, trained, root)
    assert contents(scans) == before


def test_the_folder_that_links_point_into_is_refused(scans, tmp_path, trained, root):
    before = contents(scans)
    (tmp_path / "links").mkdir()
    for name in ("a", "b"):
        (tmp_path / "links" / f"{name}.nii.gz").symlink_to(scans / f"{name}.nii.gz")
    with pytest.raises(MvlError, match="scans: is the folder of the images, or of files that they are links to"):
        predict(tmp_path / "links", scans, trained, root)
    assert contents(scans) == before


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_output_that_is_an_image_under_another_name_is_refused(link, scans, tmp_path, trained, root):
    before = contents(scans)
    (tmp_path / "preds").mkdir()
    link(scans / "b.nii.gz", tmp_path / "preds" / "a.nii.gz")
    with pytest.raises(
        MvlError, match=r"preds/a\.nii\.gz: would be replaced, but it is one of the files that are read"
    ):
        predict(scans, tmp_path / "preds", trained, root)
    assert contents(scans) == before
    assert [path.name for path in (tmp_path / "preds").iterdir()] == ["a.nii.gz"], "nothing is left behind"


def test_a_folder_below_that_of_the_images_is_allowed(scans, trained, root):
    predict(scans, scans / "preds", trained, root)
    assert {"a.nii.gz", "b.nii.gz"} <= {path.name for path in (scans / "preds").iterdir()}


def test_the_slices_of_a_series_are_images_too(tmp_path, trained, root, real_data):
    folder = tmp_path / "series"
    folder.mkdir()
    for file in (real_data / "samples" / "ct" / "dicom").iterdir():
        (folder / file.name).symlink_to(file)
    with pytest.raises(MvlError, match="is the folder of the images"):
        predict(folder, folder, trained, root)


def test_maps_are_not_written_beside_the_images(scans, trained, root):
    before = contents(scans)
    with pytest.raises(MvlError, match="is the folder of the images"):
        explain_folder(scans, scans, trained, root / "blocks", device="cpu")
    assert contents(scans) == before
