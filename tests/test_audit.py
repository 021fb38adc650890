"""The audit of a run: cases by the fold that kept them apart, resumed, ranked, and found again in the image's file."""

from __future__ import annotations

import csv
import json
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from builders import make_dataset
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from trained import make_plan, write_trained

from mvl_auto import api
from mvl_auto.audit import (
    AuditedCase,
    AuditedSuspicion,
    file_voxel,
    itksnap_annotations,
    position_mm,
    write_fix_list,
)
from mvl_auto.cli.audit import main
from mvl_auto.errors import MvlError
from mvl_auto.images import read_image


@pytest.fixture
def run(root):
    """A dataset of four cases, and an untrained run of two folds that kept two of them apart each."""
    folder = make_dataset(root / "raw", cases=4)
    names = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "imagesTr").glob("*.nii.gz"))
    return write_trained(root, make_plan(), folds=["0", "1"], validation={"0": names[:2], "1": names[2:]})


def test_every_case_is_ranked_once_with_the_fold_that_kept_it_apart(root, run):
    report = api.audit(7, root=root)
    names = [audited.case for audited, _ in report.cases]
    assert len(set(names)) == len(names) == 4
    scores = [score for _, score in report.cases]
    assert scores == sorted(scores, reverse=True)
    folds = {audited.case: audited.fold for audited, _ in report.cases}
    assert [folds[name] for name in sorted(folds)] == ["0", "0", "1", "1"]
    rows = list(csv.DictReader((run / "audit" / "audit.csv").open()))
    assert [row["case"] for row in rows] == names
    assert [row["case"] for row in json.loads((run / "audit" / "audit.json").read_text())["cases"]] == names


def test_audited_cases_are_kept_and_a_changed_label_is_audited_again(root, run):
    api.audit(7, root=root)
    files = sorted((run / "audit" / "cases").glob("*.json"))
    before = {path.name: path.stat().st_mtime_ns for path in files}
    label = next(iter(sorted((root / "raw" / "Task007_Tiny" / "labelsTr").glob("*.nii.gz"))))
    image = sitk.ReadImage(str(label))
    sitk.WriteImage(sitk.Flip(image, [True, False, False]), str(label))
    again = sitk.ReadImage(str(label))
    again.CopyInformation(image)
    sitk.WriteImage(again, str(label))
    api.audit(7, root=root)
    changed = [path.name for path in files if path.stat().st_mtime_ns != before[path.name]]
    assert changed == [f"{label.name.removesuffix('.nii.gz')}.json"]


def test_a_case_that_cannot_be_read_is_left_out_and_named(root, run):
    broken = next(iter(sorted((root / "raw" / "Task007_Tiny" / "imagesTr").glob("*.nii.gz"))))
    broken.write_bytes(broken.read_bytes()[:200])
    report = api.audit(7, root=root)
    assert len(report.cases) == 3
    assert list(report.left_out) == [broken.name.removesuffix(".nii.gz")]


def test_a_run_without_kept_cases_says_what_to_train(root):
    make_dataset(root / "raw", cases=4)
    write_trained(root, make_plan(), folds=["all"])
    with pytest.raises(MvlError, match="no fold that kept cases apart"):
        api.audit(7, root=root)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "ASL"])
def test_a_place_is_the_same_voxel_in_the_image_file_however_its_axes_run(tmp_path, axes):
    array = np.zeros((6, 7, 8), np.float32)
    array[1, 5, 2] = 100
    image = sitk.DICOMOrient(sitk.GetImageFromArray(array), axes)
    image.SetSpacing([1.5, 2.0, 2.5])
    image.SetOrigin([3.0, -4.0, 5.0])
    sitk.WriteImage(image, str(tmp_path / "image.nii.gz"))
    volume = read_image([tmp_path / "image.nii.gz"])
    place = np.unravel_index(int(volume.array[0].argmax()), volume.array[0].shape)
    voxel = file_voxel(place, volume.geometry)
    assert image[voxel] == 100
    x, y, z = position_mm(place, volume.geometry)
    assert image.TransformPhysicalPointToIndex([-x, -y, z]) == voxel


def test_the_fix_list_has_markups_in_lps_for_cases_with_a_place(root, run, tmp_path):
    report = api.audit(7, root=root)
    listed = write_fix_list(report, tmp_path / "places", most=4)
    assert listed == [audited.case for audited, _ in report.cases if audited.suspicions]
    assert listed
    by_case = {audited.case: audited for audited, _ in report.cases}
    for case in listed:
        (markup,) = json.loads((tmp_path / "places" / f"{case}.mrk.json").read_text())["markups"]
        x, y, z = by_case[case].suspicions[0].position
        assert markup["coordinateSystem"] == "LPS"
        assert markup["controlPoints"][0]["position"] == [-x, -y, z]


def read_as_itksnap(path):
    """Landmarks of an .annot file: text -> the slices of the three planes that ITK-SNAP shows it in, from 0.

    As LoadAnnotations, LandmarkAnnotation::Load and GetSliceIndex of its source do.
    """
    root = ElementTree.parse(path).getroot()
    assert root.tag == "registry"
    about = {entry.get("key"): entry.get("value") for entry in root.findall("entry")}
    assert about["Format"] == "ITK-SNAP Annotation File"
    assert len(about["FormatDate"]) == 8
    (folder,) = root.findall("folder[@key='Annotations']")
    (size,) = folder.findall("entry[@key='ArraySize']")
    found = {}
    for number in range(int(size.get("value"))):
        (element,) = folder.findall(f"folder[@key='Element[{number}]']")
        values = {entry.get("key"): entry.get("value") for entry in element.findall("entry")}
        assert values["Type"] == "LandmarkAnnotation"
        assert (values["VisibleInAllPlanes"], values["VisibleInAllSlices"]) == ("1", "0")
        assert len(values["Color"].split()) == 3
        assert len(values["Offset"].split()) == 2
        found[values["Text"]] = tuple(int(float(each)) for each in values["Pos"].split())
    return found


def test_the_fix_list_has_landmarks_that_itksnap_shows_in_the_slices_of_the_place(root, run, tmp_path):
    report = api.audit(7, root=root)
    for case in write_fix_list(report, tmp_path, most=4):
        (suspicions,) = (audited.suspicions for audited, _ in report.cases if audited.case == case)
        landmarks = read_as_itksnap(tmp_path / f"{case}.annot")
        assert landmarks == {f"{each.reason}: {each.detail}": each.voxel for each in suspicions}


def test_words_in_landmarks_cannot_break_their_file(tmp_path):
    words = 'a "label" <of> two\nlines & a bell\a'
    suspicion = AuditedSuspicion(reason="object extra", detail=words, gain=0.1, voxel=(3, 0, 41), position=(1, 2, 3))
    audited = AuditedCase(
        case="one",
        fold="0",
        checkpoint="",
        files_hash="",
        agreement=1.0,
        per_label={},
        soft_minimum={},
        suspicions=(suspicion,),
    )
    (tmp_path / "one.annot").write_text(itksnap_annotations(audited), encoding="utf-8")
    shown = 'object extra: a "label" <of> two\\nlines & a bell\\x07'
    assert read_as_itksnap(tmp_path / "one.annot") == {shown: (3, 0, 41)}


def test_the_command_writes_the_fix_list_and_names_both_tools(root, run, tmp_path, capsys):
    assert main(["-d", "7", "--root", str(root), "--most", "2", "--fix-list", str(tmp_path / "places")]) == 0
    assert "3D Slicer, .annot for ITK-SNAP" in capsys.readouterr().out
    files = sorted(path.name for path in (tmp_path / "places").iterdir())
    assert len(files) == 4
    assert {name.partition(".")[2] for name in files} == {"annot", "mrk.json"}


def test_a_fix_list_that_cannot_be_written_is_refused_before_the_work(root, run, tmp_path, capsys):
    (tmp_path / "places").write_text("a file")
    assert main(["-d", "7", "--root", str(root), "--fix-list", str(tmp_path / "places")]) == 2
    assert str(tmp_path / "places") in capsys.readouterr().err
    assert not (run / "audit").exists()


def test_a_network_that_gives_nan_audits_nothing_and_says_so(root, run):
    file = run / "fold0" / "checkpoint.safetensors"
    weights = load_file(file)
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    broken = {
        name: torch.full_like(each, torch.nan) if each.is_floating_point() else each for name, each in weights.items()
    }
    save_file(broken, file, about)
    report = api.audit(7, root=root)
    assert {audited.fold for audited, _ in report.cases} == {"1"}
    assert len(report.left_out) == 2
    assert all("not finite" in reason for reason in report.left_out.values())
