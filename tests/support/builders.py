"""Small labelled datasets on disk that a small network can learn.

Each case is smooth noise with one bright ellipsoid per label, brighter with each label, so that the
truth is known, follows from the intensities, and differs from case to case.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

Array = NDArray[Any]
Layout = Literal["msd", "nnunet", "nnunet_v1"]

CONTRAST = 3.0  # brightness steps between labels, in standard deviations of the noise
NAMES = ("background", "core", "shell", "third", "fourth")


def make_case(
    shape: Sequence[int] = (20, 24, 22),
    channels: int = 1,
    num_classes: int = 3,
    seed: int = 0,
) -> tuple[Array, Array]:
    """An image (C, Z, Y, X), float32, and its classes (Z, Y, X), uint8; an axis of one voxel is allowed."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    classes = np.zeros(shape, np.uint8)
    for number in range(1, num_classes):
        # spread along the last axis, so that none hides another
        centre = (np.array(shape) - 1) * rng.uniform(0.4, 0.6, len(shape))
        centre[-1] = shape[-1] * (number - 0.5 + rng.uniform(-0.1, 0.1)) / (num_classes - 1)
        radii = np.maximum(np.array(shape) * rng.uniform(0.25, 0.35, len(shape)), 0.6)
        radii[-1] = max(shape[-1] * 0.4 / (num_classes - 1), 0.6)
        classes[(((grid - centre) / radii) ** 2).sum(-1) <= 1] = number
    image = np.empty((channels, *shape), np.float32)
    for channel in range(channels):
        texture = gaussian_filter(rng.normal(size=shape), 0.7)
        noise = texture / texture.std() + rng.normal(scale=0.3, size=shape)
        image[channel] = 100 + 20 * (noise + CONTRAST * classes * (1 if channel == 0 else -0.5))
    return image, classes


def make_dataset(
    folder: Path,
    layout: Layout = "msd",
    cases: int = 6,
    shape: Sequence[int] = (20, 24, 22),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    channels: int = 1,
    file_ending: str = ".nii.gz",
    label_values: Sequence[int] = (0, 1, 2),
    seed: int = 0,
    number: int = 7,
    name: str = "Tiny",
    vary: int = 2,
    channel_names: Sequence[str] | None = None,
) -> Path:
    """Make a dataset in `folder` and return its own folder, Task007_Tiny or Dataset007_Tiny.

    shape: voxels Z, Y, X, or Y, X for 2D files; every case differs by up to `vary` voxels per axis.
    spacing: mm, in the order of shape. layout: "msd" has all channels in one file, "nnunet" and
    "nnunet_v1" one file per channel (PNG: all in one). label_values: what label files hold, background first.
    The voxels depend on the seed alone: a dataset made in two layouts is the same dataset.
    """
    dataset = Path(folder) / f"{'Dataset' if layout == 'nnunet' else 'Task'}{number:03d}_{name}"
    rng = np.random.default_rng(seed)
    names = [f"tiny_{n:03d}" for n in range(cases)]
    for n, case in enumerate(names):
        size = [int(voxels + rng.integers(0, vary + 1)) for voxels in shape]
        image, classes = make_case(size, channels, len(label_values), seed=seed * 1000 + n)
        label = np.array(label_values, np.uint16 if max(label_values) > 255 else np.uint8)[classes]
        write_channels(dataset / "imagesTr", case, image, spacing, file_ending, split=layout != "msd")
        write_array(dataset / "labelsTr" / f"{case}{file_ending}", label, spacing)
    channel_names = channel_names or ["MRI"] * channels
    write_description(dataset, layout, names, label_values, channel_names, file_ending)
    return dataset


def write_channels(
    folder: Path, case: str, image: Array, spacing: Sequence[float], file_ending: str, split: bool
) -> list[Path]:
    """Write (C, Z, Y, X) or (C, Y, X): a file per channel (`split`), or one file. Returns the files."""
    if file_ending in (".png", ".bmp"):
        rgb = np.moveaxis(image, 0, -1).clip(0, 255).astype(np.uint8)
        path = folder / f"{case}{'_0000' if split else ''}{file_ending}"
        write_array(path, rgb if len(image) > 1 else rgb[..., 0], spacing, is_vector=len(image) > 1)
        return [path]
    if split:
        paths = [folder / f"{case}_{channel:04d}{file_ending}" for channel in range(len(image))]
        for path, channel in zip(paths, image, strict=True):
            write_array(path, channel, spacing)
        return paths
    path = folder / f"{case}{file_ending}"
    if len(image) > 1:
        write_array(path, np.moveaxis(image, 0, -1), spacing, is_vector=True)
    else:
        write_array(path, image[0], spacing)
    return [path]


def write_array(path: Path, array: Array, spacing: Sequence[float], is_vector: bool = False) -> Path:
    """Write (Z, Y, X) or (Y, X), or with `is_vector` channels last; axes run along R, A, S, origin 0.

    Several channels in NIfTI become its fourth axis, as in MSD.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    spatial = array.ndim - is_vector
    if path.name.endswith((".nii", ".nii.gz")):
        xyz = array.transpose(*range(spatial)[::-1], *range(spatial, array.ndim))
        affine = np.diag([*spacing[::-1], *[1.0] * (4 - spatial)])
        header = nibabel.Nifti1Header()
        header.set_xyzt_units("mm")
        header.set_data_dtype(array.dtype)
        nibabel.save(nibabel.Nifti1Image(xyz if spatial == 3 else xyz[:, :, None], affine, header), path)
        return path
    image = sitk.GetImageFromArray(array, isVector=is_vector)
    image.SetSpacing([float(length) for length in spacing[::-1]])
    if spatial == 3:
        image.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    sitk.WriteImage(image, str(path))
    return path


def write_description(
    dataset: Path,
    /,
    layout: Layout,
    names: Sequence[str],
    label_values: Sequence[int] = (0, 1, 2),
    channel_names: Sequence[str] = ("MRI",),
    file_ending: str = ".nii.gz",
    **more: Any,
) -> Path:
    """Write dataset.json in one of the three layouts. more: further keys, or others in place of these."""
    channels = {str(n): channel for n, channel in enumerate(channel_names)}
    labels = dict(zip(NAMES, label_values, strict=False))
    content: dict[str, Any] = {"name": dataset.name, "numTraining": len(names)}
    if layout == "nnunet":
        content |= {"channel_names": channels, "labels": labels, "file_ending": file_ending}
    else:
        files = [f"{name}{file_ending}" for name in names]
        content |= {
            "modality": channels,
            "labels": {str(value): name for name, value in labels.items()},
            "training": [{"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"} for file in files],
        }
    path = dataset / "dataset.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | more))
    return path
