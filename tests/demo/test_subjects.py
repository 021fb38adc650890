"""Made subjects: labels that match the tissue, geometry that varies, the same again from the same seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from mvl_auto.datasets import read_dataset
from mvl_auto.demo import subjects
from mvl_auto.demo.subjects import DemoData, Recipe, draw_recipe, load_template, make_demo_dataset, make_subject
from mvl_auto.images import check_same_geometry, read_image, read_label

SPACING = 7.0  # mm: quick


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DemoData:
    return make_demo_dataset(tmp_path_factory.mktemp("demo"), subjects=4, held_out=2, spacing_mm=SPACING, seed=3)


@pytest.fixture(scope="module")
def pairs(data) -> list[tuple[Path, Path]]:
    """Image and label of all six subjects."""
    folders = ((data.dataset / "imagesTr", data.dataset / "labelsTr"), (data.images, data.references))
    return [(image, labels / image.name) for images, labels in folders for image in sorted(images.iterdir())]


def recipe(seed: int = 0) -> Recipe:
    return draw_recipe(np.random.default_rng(seed), SPACING, load_template().size_mm)


def straight(spacing_mm: float) -> Recipe:
    """A scan of the template as it is, its first voxel on the template's."""
    return Recipe(
        stretch=np.eye(3),
        knots_mm=tuple(np.zeros_like(knots) for knots in recipe().knots_mm),
        gamma=1.0,
        gain=1.0,
        shading=np.zeros((3, 3, 3)),
        noise=0.0,
        spacing_mm=(spacing_mm,) * 3,
        margins_mm=np.array([[-0.5, -0.5], [-0.5, -0.5], [0, 0]]),
        tilt=np.eye(3),
        orientation="RAS",
        seed=0,
    )


def test_it_is_a_dataset_in_the_msd_layout(data):
    dataset = read_dataset(data.dataset)
    assert dataset.id == "Dataset900_DemoBrain"
    assert dataset.labels.class_names == ("background", "grey matter", "white matter")
    assert [case.name for case in dataset.cases] == ["brain_001", "brain_002", "brain_003", "brain_004"]
    assert sorted(path.name for path in data.images.iterdir()) == ["brain_005.nii.gz", "brain_006.nii.gz"]
    assert "Copyright (C) 1993-2009 Louis Collins" in (data.dataset / "dataset.json").read_text()


def test_labels_lie_on_their_images_and_match_the_tissue(pairs):
    for image_file, label_file in pairs:
        image, (label, geometry) = read_image([image_file]), read_label(label_file)
        check_same_geometry(image.geometry, geometry, image_file, label_file)
        air, grey, white = (np.median(image.array[0][label == k]) for k in range(3))
        assert 2 * air < grey < white, "T1: white matter is brighter than grey"


def test_a_scan_holds_a_slab_of_a_brain(pairs):
    for _, label_file in pairs:
        label, geometry = read_label(label_file)
        head_mm = [np.ptp(axis) * mm for axis, mm in zip(np.nonzero(label), geometry.spacing, strict=True)]
        assert 35 < head_mm[0] < 75, "from below to above"
        assert 130 < head_mm[1] < 230, "from back to front"
        assert 110 < head_mm[2] < 190, "from left to right"
        grey, white = ((label == k).sum() for k in (1, 2))
        assert 0.3 < white / grey < 1.2


def test_without_randomness_it_is_the_template():
    template, step = load_template(), 3
    subject = make_subject(template, straight(spacing_mm=step))
    first = np.rint(subject.affine[:3, 3] + template.size_mm / 2 - 0.5).astype(int)
    assert (first[:2] == 0).all(), "the first voxel is a corner of the head"
    box = tuple(slice(start, None, step) for start in first)
    maps = [array[box] for array in (template.t1, template.grey, template.white)]
    common = tuple(slice(0, min(sizes)) for sizes in zip(maps[0].shape, subject.label.shape, strict=True))
    t1, grey, white = (array[common] for array in maps)
    assert (subject.label[common] == np.argmax([1 - grey - white, grey, white], axis=0)).all()
    assert np.abs(subject.image[common] - subjects.WHITE_MATTER * t1).max() <= 0.5 + 1e-3
    assert np.allclose(subject.affine[:3, :3], step * np.eye(3))
    assert subject.label.size > 1000


def test_the_same_seed_gives_the_same_files_and_another_one_others(data, tmp_path):
    again = make_demo_dataset(tmp_path / "again", subjects=1, held_out=1, spacing_mm=SPACING, seed=3)
    other = make_demo_dataset(tmp_path / "other", subjects=1, held_out=1, spacing_mm=SPACING, seed=4)
    first, same, different = (
        nibabel.load(each.dataset / "imagesTr" / "brain_001.nii.gz") for each in (data, again, other)
    )
    assert (np.asarray(first.dataobj) == np.asarray(same.dataobj)).all()
    assert (first.affine == same.affine).all()
    assert not np.allclose(first.affine, different.affine)


def test_no_two_subjects_are_scanned_alike(pairs):
    images = [nibabel.load(image) for image, _ in pairs]
    assert len({image.shape for image in images}) == len(images)
    assert len({"".join(nibabel.aff2axcodes(image.affine)) for image in images}) > 1
    for image in images:
        assert np.allclose(image.header.get_zooms(), SPACING, rtol=0.11)
        assert nibabel.affines.obliquity(image.affine).max() > np.radians(0.5)


def test_subjects_differ_in_shape_and_contrast():
    template = load_template()
    first, second = recipe(0), recipe(1)
    scanned_alike = replace(
        second, spacing_mm=first.spacing_mm, margins_mm=first.margins_mm, tilt=first.tilt, orientation=first.orientation
    )
    labels = [make_subject(template, each).label for each in (first, scanned_alike)]
    common = tuple(slice(0, min(sizes)) for sizes in zip(*(label.shape for label in labels), strict=True))
    a, b = (label[common] == 2 for label in labels)
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) < 0.8, "Dice of one's white matter with the other's"
    assert abs(first.gamma - second.gamma) > 0.01
    assert abs(first.gain - second.gain) > 0.01


@pytest.mark.parametrize("orientation", subjects.ORIENTATIONS)
def test_the_axis_order_of_the_file_does_not_change_the_subject(orientation, tmp_path):
    template = load_template()
    canonical = []
    for turned in ("RAS", orientation):
        subject = make_subject(template, replace(recipe(), orientation=turned))
        assert "".join(nibabel.aff2axcodes(subject.affine)) == turned
        nibabel.save(nibabel.Nifti1Image(subject.image, subject.affine), tmp_path / "image.nii")
        canonical.append(read_image([tmp_path / "image.nii"]))
    assert (canonical[0].array == canonical[1].array).all()
    assert np.allclose(canonical[0].geometry.affine, canonical[1].geometry.affine, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_deformation_is_smooth_and_folds_nothing(seed):
    template, step = load_template(), 4.0
    world = np.stack(
        np.meshgrid(*(np.arange(-0.4 * size, 0.4 * size, step) for size in template.size_mm), indexing="ij")
    )
    index = subjects.template_index(world, template, recipe(seed))
    jacobian = np.stack([np.stack(np.gradient(each, step)) for each in index])
    determinant = np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1)))
    assert 0.2 < determinant.min() < determinant.max() < 3


def test_nothing_is_downloaded(monkeypatch):
    import socket

    def refuse(*args, **settings):
        pytest.fail("the template was looked for on the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    load_template.cache_clear()
    assert load_template().t1.max() == pytest.approx(1)
