"""Made subjects: a small labelled dataset from the one brain that comes with a dependency.

nilearn's wheel holds the ICBM 152 template (T1 contrast, probability of grey and of white matter, 1 mm).
Every subject is that brain bent, stretched and scanned in a way of its own: a smooth random deformation,
another contrast, uneven illumination, noise, another voxel size, field of view, tilt and axis order. The
labels go through the same deformation, so they are the truth.

    recipe = draw_recipe(rng, spacing_mm)     all that is random about a subject
    subject = make_subject(template, recipe)  the same recipe gives the same subject

World coordinates are millimetres, RAS+, with the brain's centre at the origin; arrays here are in the
order x, y, z, as files hold them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mvl_auto.extras import need
from mvl_auto.files import write_json, writing
from mvl_auto.progress import Progress, silent

Array = NDArray[np.float32]

DATASET_NUMBER = 900
DATASET_NAME = "DemoBrain"
LABELS = ("background", "grey matter", "white matter")
LICENCE = (
    "ICBM 152 nonlinear symmetric template, 2009a. Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging "
    "Centre, Montreal Neurological Institute, McGill University. Permission to use, copy, modify, and distribute "
    "this software and its documentation for any purpose and without fee is hereby granted, provided that the "
    "above copyright notice appear in all copies."
)
REFERENCE = "Fonov et al., NeuroImage 2011, doi:10.1016/j.neuroimage.2010.07.033; made into subjects by mvl_auto.demo"

BRAIN_THRESHOLD = 0.05  # of the template's largest intensity: what lies above is head, not air
WARPS = ((48.0, 5.0), (18.0, 1.8))  # mm between the knots of a random field, standard deviation of its shift in mm
SLAB_MM = (-17.0, 37.0)  # what a scan covers of the head, below and above its middle: the ventricles and around
BLUR = 0.4  # standard deviation of a voxel's profile, in voxel sizes
ORIENTATIONS = ("RAS", "LPS", "LAS", "PIR", "ASR", "SPL")  # where the axes of a file may point
WHITE_MATTER = 800.0  # intensity as stored, before a subject's own gain


@dataclass(frozen=True)
class Template:
    """The brain that all subjects are made of, 1 mm voxels, cropped to the head, x y z."""

    t1: Array  # 0 ... 1
    grey: Array  # probability
    white: Array  # probability

    @property
    def size_mm(self) -> NDArray[np.float64]:
        return np.array(self.t1.shape, dtype=float)

    def blurred(self, sd_mm: float) -> Template:
        """As voxels of a larger size see it, before they are sampled."""
        return Template(*(ndimage.gaussian_filter(array, sd_mm) for array in (self.t1, self.grey, self.white)))


@dataclass(frozen=True)
class Recipe:
    """All that is random about one subject."""

    stretch: NDArray[np.float64]  # (3, 3) world of the subject -> world of the template
    knots_mm: tuple[NDArray[np.float64], ...]  # shift at the knots of each of WARPS, (3, nx, ny, nz)
    gamma: float  # of the contrast
    gain: float  # of the intensities
    shading: NDArray[np.float64]  # (3, 3, 3) coefficients of a polynomial in x, y, z: log of the illumination
    noise: float  # standard deviation, as a share of white matter's intensity
    spacing_mm: tuple[float, float, float]
    margins_mm: NDArray[np.float64]  # (3, 2) beyond the head, and above and below the slab
    tilt: NDArray[np.float64]  # (3, 3) rotation of the scanner's axes
    orientation: str  # where the file's axes point
    seed: int  # of the noise


@dataclass(frozen=True)
class Subject:
    """One made scan as its files hold it."""

    image: NDArray[np.int16]  # (i, j, k)
    label: NDArray[np.uint8]  # 0 background, 1 grey matter, 2 white matter
    affine: NDArray[np.float64]  # (4, 4) index i, j, k -> mm, RAS+


@dataclass(frozen=True)
class DemoData:
    """Where a made dataset lies."""

    dataset: Path  # the raw dataset, MSD layout
    images: Path  # held-out subjects
    references: Path  # and their labels


def make_demo_dataset(
    folder: Path,
    subjects: int = 10,
    held_out: int = 3,
    spacing_mm: float = 4.0,
    seed: int = 0,
    progress: Progress = silent,
) -> DemoData:
    """Write labelled subjects as folder/raw/Task900_DemoBrain, `held_out` more into folder/imgs and folder/references.

    spacing_mm: about what the voxels measure; each subject's are its own. The same numbers give the same files.
    Raises MvlError when the folder cannot be written.
    """
    data = DemoData(folder / "raw" / f"Task{DATASET_NUMBER}_{DATASET_NAME}", folder / "imgs", folder / "references")
    streams = np.random.SeedSequence(seed).spawn(subjects + held_out)
    names = [f"brain_{number:03d}" for number in range(1, len(streams) + 1)]
    template = load_template().blurred(BLUR * spacing_mm)
    with progress("making subjects", total=len(streams), unit="subject") as advance:
        for number, (name, stream) in enumerate(zip(names, streams, strict=True)):
            subject = make_subject(template, draw_recipe(np.random.default_rng(stream), spacing_mm, template.size_mm))
            trains = number < subjects
            images, labels = (
                (data.dataset / "imagesTr", data.dataset / "labelsTr") if trains else (data.images, data.references)
            )
            _write_nifti(images / f"{name}.nii.gz", subject.image, subject.affine)
            _write_nifti(labels / f"{name}.nii.gz", subject.label, subject.affine)
            advance(1, name)
    description = _description(names[:subjects])
    write_json(data.dataset / "dataset.json", description)
    write_json(data.references / "dataset.json", {"labels": description["labels"]})
    return data


@cache
def load_template() -> Template:
    """The ICBM 152 template from nilearn's wheel: nothing is downloaded."""
    need("nilearn", "the demo's dataset")
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

    loaders = (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    t1, grey, white = (np.asarray(load(resolution=1).dataobj, dtype=np.float32) for load in loaders)
    head = ndimage.find_objects((t1 > BRAIN_THRESHOLD).astype(np.uint8))[0]
    return Template(*(np.ascontiguousarray(array[head]) for array in (t1, grey, white)))


def draw_recipe(rng: np.random.Generator, spacing_mm: float, size_mm: NDArray[np.float64]) -> Recipe:
    """Everything random about a subject of about this voxel size. size_mm: of the template's head."""
    scale = np.diag(rng.uniform(0.92, 1.08, 3))
    shear = np.eye(3) + np.triu(rng.normal(0, 0.03, (3, 3)), 1)
    return Recipe(
        stretch=_rotation(rng.normal(0, 4, 3)) @ scale @ shear,
        knots_mm=tuple(
            rng.normal(0, sd, (3, *(math.ceil(length / distance) + 4 for length in size_mm))) for distance, sd in WARPS
        ),
        gamma=rng.uniform(0.75, 1.5),
        gain=math.exp(rng.normal(0, 0.4)),
        shading=rng.normal(0, 0.12, (3, 3, 3)),
        noise=rng.uniform(0.02, 0.06),
        spacing_mm=tuple(float(length) for length in spacing_mm * rng.uniform(0.9, 1.1, 3)),  # type: ignore[arg-type]
        margins_mm=rng.uniform((4, 4, -3), (10, 10, 6), (2, 3)).T,
        tilt=_rotation(rng.normal(0, 5, 3)),
        orientation=str(rng.choice(ORIENTATIONS)),
        seed=int(rng.integers(2**32)),
    )


def make_subject(template: Template, recipe: Recipe) -> Subject:
    """Bend the template as the recipe says, and scan it. template: blurred to about the recipe's voxel size."""
    affine, shape = _scanner_grid(template, recipe)
    world = _world(affine, shape)
    where = template_index(world, template, recipe)
    t1, grey, white = (
        ndimage.map_coordinates(array, where, order=1) for array in (template.t1, template.grey, template.white)
    )
    label = np.argmax([1 - grey - white, grey, white], axis=0).astype(np.uint8)
    return _stored(_scan(t1, world, recipe), label, affine, recipe.orientation)


# ------------------------------------------------------------------------------- geometry and anatomy


def _scanner_grid(template: Template, recipe: Recipe) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Affine and shape of a grid along the scanner's axes: a slab through the stretched head, and margins."""
    ellipsoid = recipe.tilt.T @ np.linalg.inv(recipe.stretch) * template.size_mm / 2  # columns: its half axes
    half = np.linalg.norm(ellipsoid, axis=1)
    first, last = (*-half[:2], SLAB_MM[0]) - recipe.margins_mm[:, 0], (*half[:2], SLAB_MM[1]) + recipe.margins_mm[:, 1]
    affine = np.eye(4)
    affine[:3, :3] = recipe.tilt * recipe.spacing_mm
    affine[:3, 3] = recipe.tilt @ first
    return affine, tuple(int(n) for n in np.ceil((last - first) / recipe.spacing_mm) + 1)


def _world(affine: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    """Millimetres of every voxel, (3, x, y, z)."""
    return np.tensordot(affine[:3, :3], np.indices(shape), 1) + affine[:3, 3].reshape(3, 1, 1, 1)


def template_index(world: NDArray[np.float64], template: Template, recipe: Recipe) -> NDArray[np.float64]:
    """Index into the template of every point of the subject: stretched, then shifted by smooth random fields."""
    place_mm = np.tensordot(recipe.stretch, world, 1)
    half = template.size_mm.reshape(3, 1, 1, 1) / 2
    shift_mm = np.zeros_like(place_mm)
    for (distance, _), knots in zip(WARPS, recipe.knots_mm, strict=True):
        at = (place_mm + half) / distance + 1.5
        shift_mm += [ndimage.map_coordinates(each, at, order=3, mode="nearest", prefilter=False) for each in knots]
    return place_mm + shift_mm + half - 0.5


def _rotation(degrees: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_euler("xyz", degrees, degrees=True).as_matrix())


# --------------------------------------------------------------------------------------- the scan


def _scan(t1: Array, world: NDArray[np.float64], recipe: Recipe) -> NDArray[np.int16]:
    """What the scanner makes of the tissue: contrast, uneven illumination, noise of a magnitude image (Rician)."""
    x, y, z = world / 100  # about -1 ... 1
    light = np.exp(np.polynomial.polynomial.polyval3d(x, y, z, recipe.shading))
    signal = np.clip(t1, 0, 1) ** recipe.gamma * light
    real, imaginary = np.random.default_rng(recipe.seed).normal(0, recipe.noise, (2, *t1.shape))
    return np.rint(WHITE_MATTER * recipe.gain * np.hypot(signal + real, imaginary)).astype(np.int16)


def _stored(
    image: NDArray[np.int16], label: NDArray[np.uint8], affine: NDArray[np.float64], orientation: str
) -> Subject:
    """Turn the axes as the file shall hold them; the voxels stay where they are in the world."""
    from nibabel import orientations

    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(orientation))
    affine = affine @ orientations.inv_ornt_aff(turn, image.shape)
    turned_image, turned_label = (orientations.apply_orientation(array, turn) for array in (image, label))
    return Subject(turned_image, turned_label, affine)


# ------------------------------------------------------------------------------------------ files


def _write_nifti(path: Path, array: NDArray[np.int16] | NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    import nibabel

    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    with writing(path) as beside:
        nibabel.save(image, beside)


def _description(names: Sequence[str]) -> dict[str, object]:
    """dataset.json in the words of the Medical Segmentation Decathlon."""
    return {
        "name": DATASET_NAME,
        "description": "Brains made from the ICBM 152 template: grey and white matter on T1-weighted MR",
        "reference": REFERENCE,
        "licence": LICENCE,
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {str(value): name for value, name in enumerate(LABELS)},
        "numTraining": len(names),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
        "test": [],
    }
