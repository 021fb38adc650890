"""What the walk through all stages is made of, and how its outcome is judged (integration/conftest.py walks it)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from builders import make_case

STEPS = 90
UNSEEN = {  # case -> format, orientation of its axes, turn about the long axis of the body in degrees
    "straight": (".nii.gz", "LPS", 0.0),
    "flipped": (".nrrd", "RAI", 0.0),
    "oblique": (".nii.gz", "PIR", 11.0),
    "turned": (".mha", "ASL", -7.0),
}


@dataclass(frozen=True)
class Walk:
    """Where everything lies after the walk, and what the commands said."""

    root: Path
    dataset: str
    images: Path
    references: Path
    predictions: Path
    block_before: dict[str, str]  # file -> sha256 of what was in blocks/ before training
    said: dict[str, str]  # command -> its stdout

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / self.dataset

    @property
    def fold(self) -> Path:
        return self.root / "results" / self.dataset / "3d_fullres" / "fold0"


def write_unseen(image_file: Path, label_file: Path, seed: int, axes: str, degrees: float) -> None:
    """A case that no training saw: its voxel axes run along `axes`, its grid is turned against the body's."""
    image, classes = make_case(seed=seed)
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    for array, file in [(image[0], image_file), (classes, label_file)]:
        volume = sitk.GetImageFromArray(array)
        volume.SetDirection((turn @ np.diag([-1.0, -1.0, 1.0])).ravel().tolist())
        volume.SetOrigin([11.5, -7.25, 30.0])
        file.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.DICOMOrient(volume, axes), str(file))


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def dice(reference: np.ndarray, predicted: np.ndarray, label: int) -> float:
    both = ((reference == label) & (predicted == label)).sum()
    return float(2 * both / ((reference == label).sum() + (predicted == label).sum()))


def voxels(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
