"""Sheared grids straightened, against functions of the place in space, scipy's polar decomposition and SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.linalg import polar
from scipy.spatial.transform import Rotation

from mvl_auto.images.geometry import FileGrid, skew_degrees
from mvl_auto.planners.doctor.straighten import on_grid, straight_grid

SHAPE = (18, 20, 9)
SPACING = np.array([0.8, 0.9, 3.0])
UPRIGHT = np.eye(3)
OBLIQUE = Rotation.from_euler("xyz", [20, -10, 35], degrees=True).as_matrix()


def tilted(degrees: float, turn=UPRIGHT, axes=(0, 1, 2), flips=(1, 1, 1)) -> FileGrid:
    """Slices of SHAPE whose stack leans by so many degrees; the file's axes in another order, or run the other way."""
    angle = np.deg2rad(degrees)
    directions = np.array([[1, 0, 0], [0, 1, np.sin(angle)], [0, 0, np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = (turn @ directions * SPACING * flips)[:, axes]
    affine[:3, 3] = (11.5, -7.25, 30.0)
    i, j, k = (SHAPE[axis] for axis in axes)
    return FileGrid(shape=(i, j, k), affine=affine)


def skewed() -> FileGrid:
    """No two axes at right angles."""
    directions = np.array([[1, 0.1, -0.15], [0, 1, 0.2], [0.05, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE @ (directions / np.linalg.norm(directions, axis=0)) * SPACING
    return FileGrid(shape=SHAPE, affine=affine)


def places(grid: FileGrid) -> np.ndarray:
    """(i, j, k, 3): where each voxel is, in mm."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def scene(place: np.ndarray) -> np.ndarray:
    """A smooth image as a function of the place in mm."""
    x, y, z = np.moveaxis(place, -1, 0)
    return 100 * np.sin(x / 5) + 80 * np.cos(y / 6 + z / 25)


GRIDS = {
    "tilted": tilted(15),
    "tilted the other way": tilted(-22),
    "tilted, oblique": tilted(15, OBLIQUE),
    "tilted, slices first": tilted(15, axes=(2, 0, 1)),
    "tilted, left-handed": tilted(15, OBLIQUE, flips=(-1, 1, 1)),
    "tilted, from the head down": tilted(15, flips=(1, 1, -1)),
    "skewed": skewed(),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_new_axes_are_at_right_angles_and_run_as_before(grid):
    new = straight_grid(grid).affine[:3, :3]
    directions = new / np.linalg.norm(new, axis=0)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)
    assert np.sign(np.linalg.det(new)) == np.sign(np.linalg.det(grid.affine[:3, :3]))
    assert ((directions * grid.affine[:3, :3]).sum(axis=0) > 0).all()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_new_grid_holds_the_old_one_and_not_much_more(grid):
    new = straight_grid(grid)
    index = (places(grid) - new.affine[:3, 3]) @ np.linalg.inv(new.affine[:3, :3]).T
    assert index.min() > -0.01
    np.testing.assert_array_equal(np.ceil(index.reshape(-1, 3).max(axis=0) - 0.01), np.array(new.shape) - 1)
    assert (index.reshape(-1, 3).min(axis=0) < 1).all()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_what_is_at_a_place_is_there_afterwards(grid):
    new = straight_grid(grid)
    found = on_grid(scene(places(grid)), grid, new, fill=-1000.0)
    index = (places(new) - grid.affine[:3, 3]) @ np.linalg.inv(grid.affine[:3, :3]).T
    inside = ((index > 1.5) & (index < np.array(grid.shape) - 2.5)).all(axis=-1)
    beyond = ((index < -0.6) | (index > np.array(grid.shape) - 0.4)).any(axis=-1)
    assert inside.sum() > 300
    np.testing.assert_allclose(found[inside], scene(places(new))[inside], atol=1.5)
    assert (found[beyond] == -1000).all()


@pytest.mark.parametrize("degrees", [15, -22])
def test_a_tilt_leaves_every_slice_in_its_plane(degrees):
    """Only in-plane shifts: the slices' number, planes and in-plane voxels are those of before."""
    grid = tilted(degrees, OBLIQUE)
    new = straight_grid(grid)
    assert new.shape[2] == SHAPE[2]
    lengths = np.linalg.norm(new.affine[:3, :3], axis=0)
    np.testing.assert_allclose(lengths, [0.8, 0.9, 3.0 * np.cos(np.deg2rad(degrees))])
    noise = np.random.default_rng(0).normal(size=SHAPE)
    noise[..., 3] = 50.0
    found = on_grid(noise, grid, new, fill=-9.0)
    assert np.isin(found[..., 3].round(6), [50.0, -9.0]).all(), "no other slice has a part in this one"
    back = np.rint(np.linalg.inv(new.affine[:3, :3]) @ (grid.affine[:3, 3] - new.affine[:3, 3])).astype(int)
    first = found[back[0] : back[0] + SHAPE[0], back[1] : back[1] + SHAPE[1], back[2]]
    np.testing.assert_allclose(first, noise[..., 0], atol=1e-6)


def test_axes_that_are_all_skewed_become_the_closest_ones():
    grid = skewed()
    directions = grid.affine[:3, :3] / SPACING
    rotation, _ = polar(directions)
    np.testing.assert_allclose(straight_grid(grid).affine[:3, :3], rotation * SPACING, atol=1e-9)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_labels_as_simpleitk_resamples_them(grid):
    image = scene(places(grid))
    label = (image > np.median(image)).astype(np.uint8) * 7
    new = straight_grid(grid)
    image, reference = (sitk.GetImageFromArray(array.T) for array in (label, np.zeros(new.shape, np.uint8)))
    for volume, affine in ((image, grid.affine), (reference, new.affine)):
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        volume.SetSpacing(lengths.tolist())
        volume.SetDirection((affine[:3, :3] / lengths).ravel().tolist())
        volume.SetOrigin(affine[:3, 3].tolist())
    expected = sitk.GetArrayFromImage(sitk.Resample(image, reference, sitk.Transform(), sitk.sitkNearestNeighbor)).T
    found = on_grid(label, grid, new, fill=0, is_label=True)
    assert found.dtype == np.uint8
    assert (found != expected).mean() < 2e-3, "but for ties, halfway between two voxels"
    assert (found == 7).sum() > 300


def test_whole_numbers_stay_whole_and_in_their_type():
    grid = tilted(15)
    image = np.where(scene(places(grid)) > 0, 32767, -32768).astype(np.int16)
    found = on_grid(image, grid, straight_grid(grid), fill=-32768)
    assert found.dtype == np.int16
    assert (found.min(), found.max()) == (-32768, 32767), "splines swing over, numbers must not run over"


@pytest.mark.parametrize("degrees", [0.0, 0.01, 0.2, 15.0, 40.0])
def test_the_skew_is_the_tilt(degrees):
    told = skew_degrees(tilted(degrees, OBLIQUE).affine)
    assert told == pytest.approx(degrees if degrees > 0.06 else 0.0, abs=1e-6)
