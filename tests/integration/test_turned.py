"""A dataset whose files were turned and compressed anew is the same dataset: the same plan and folds, byte by byte."""

from __future__ import annotations

import nibabel
import numpy as np
from builders import make_dataset
from commands import TINY_BLOCK, succeed
from nibabel.orientations import axcodes2ornt, ornt_transform

PLAN = ("plan_and_preprocess", "--plan-only", "--memory", "1GB", "--device", "cpu", "--llm", TINY_BLOCK, "-d", 7)
TURNS = ["LPS", "ASR", "SPL", "PIR", "RAS"]


def oblique(seed: int) -> np.ndarray:
    """An affine of odd voxel sizes and directions, 4 x 4."""
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(np.eye(3) + 0.2 * rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = directions * rng.uniform(0.6, 1.4, 3)
    affine[:3, 3] = rng.normal(size=3) * 50
    return affine


def test_turned_and_compressed_anew_it_has_the_same_plan_and_folds(tmp_path):
    for root in ("straight", "turned"):
        dataset = make_dataset(tmp_path / root / "raw", "nnunet", cases=6, shape=(12, 14, 13))
        for number in range(6):
            for file in (f"imagesTr/tiny_{number:03d}_0000.nii.gz", f"labelsTr/tiny_{number:03d}.nii.gz"):
                stored = nibabel.load(dataset / file)
                image = nibabel.Nifti1Image(np.asanyarray(stored.dataobj), oblique(number))
                if root == "turned":
                    before = nibabel.io_orientation(image.affine)
                    image = image.as_reoriented(ornt_transform(before, axcodes2ornt(TURNS[number % len(TURNS)])))
                nibabel.save(image, dataset / file)
        succeed(*PLAN, root=tmp_path / root)
    straight, turned = (tmp_path / root / "preprocessed" / "Dataset007_Tiny" for root in ("straight", "turned"))
    assert (straight / "fingerprint.json").read_bytes() != (turned / "fingerprint.json").read_bytes(), "other files"
    for file in ("plans.json", "splits.json"):
        assert (straight / file).read_bytes() == (turned / file).read_bytes(), file
