"""The grid of a file, and how far its axes are from right angles."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from mvl_auto.images.geometry import skew_degrees
from mvl_auto.images.nifti import read_nifti


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("degrees", [-12.0, 3.0, 40.0])
def test_the_skew_is_that_of_the_worst_pair_of_axes(pair: tuple[int, int], degrees: float) -> None:
    """Of voxels of 0.5 x 2 x 3 mm, one axis is tilted towards another."""
    first, second = pair
    affine = np.eye(4)
    angle = np.radians(degrees)
    affine[first, second], affine[second, second] = np.sin(angle), np.cos(angle)
    affine[:3, :3] *= [0.5, 2.0, 3.0]
    assert skew_degrees(affine) == pytest.approx(abs(degrees))
    assert skew_degrees(np.diag([0.5, 2.0, 3.0, 1.0])) == 0


def test_the_grid_of_a_nifti_has_its_shape_and_its_affine_in_mm(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((2, 3, 4), np.int16), np.diag([0.001, 0.002, 0.003, 1.0]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "a.nii")
    _, grid = read_nifti(tmp_path / "a.nii")
    assert grid.shape == (2, 3, 4)
    np.testing.assert_allclose(grid.affine, np.diag([1.0, 2.0, 3.0, 1.0]), atol=1e-5)
