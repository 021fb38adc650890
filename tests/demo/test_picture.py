"""The picture, read back as pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import colors
from PIL import Image

from mvl_auto.demo.picture import COLOURS, ROWS, Shown, draw_picture

SPACING = (4.0, 1.0, 2.0)  # mm, Z Y X
SIDE_MM = 40


def cube(label: int = 1) -> np.ndarray:
    """A cube of 40 mm, off the image's middle."""
    classes = np.zeros((16, 70, 40), np.uint8)
    classes[3:13, 8:48, 12:32] = label
    return classes


def subject(name: str = "someone", truth: np.ndarray | None = None, prediction: np.ndarray | None = None) -> Shown:
    truth = cube() if truth is None else truth
    image = np.random.default_rng(0).normal(100, 5, truth.shape) * (truth > 0)
    return Shown(name, image, truth, truth if prediction is None else prediction, SPACING, {"one": 0.5})


def panels(path: Path, columns: int) -> np.ndarray:
    """(rows, columns, height, width, 3): the picture cut into its panels, without titles and legend."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    height, width = pixels.shape[0] * 29 // 100, pixels.shape[1] * 94 // (100 * columns)
    top, left = pixels.shape[0] * 45 // 1000, pixels.shape[1] * 5 // 100
    rows = [pixels[top + row * height :][:height, left:] for row in range(len(ROWS))]
    return np.array([[row[:, column * width :][:, :width] for column in range(columns)] for row in rows])


def like(pixels: np.ndarray, label: int) -> np.ndarray:
    """Where the hue is that of a label's contour."""
    hsv = colors.rgb_to_hsv(pixels / 255)
    wanted = colors.rgb_to_hsv(colors.to_rgb(COLOURS[label - 1]))
    return (np.abs(hsv[..., 0] - wanted[0]) < 0.04) & (hsv[..., 1] > 0.4)


def test_labels_are_drawn_over_truth_and_prediction_but_not_over_the_scan(tmp_path):
    draw_picture([subject(prediction=cube(label=2))], ["one", "two"], tmp_path / "a.png")
    scan, truth, prediction = panels(tmp_path / "a.png", columns=1)[:, 0]
    assert not like(scan, 1).any()
    assert not like(scan, 2).any()
    assert like(truth, 1).any()
    assert not like(truth, 2).any()
    assert like(prediction, 2).any()
    assert not like(prediction, 1).any()


def test_each_subject_is_seen_from_another_side_and_a_cube_is_a_square_from_each(tmp_path):
    draw_picture([subject(name) for name in "abc"], ["one"], tmp_path / "a.png")
    sides = []
    for panel in panels(tmp_path / "a.png", columns=3)[1]:
        up, right = np.nonzero(like(panel, 1))
        sides += [np.ptp(up), np.ptp(right)]
    assert min(sides) > 100
    assert max(sides) - min(sides) < 0.08 * max(sides)


def test_superior_is_up_and_right_is_right(tmp_path):
    truth = cube()
    image = np.zeros(truth.shape)
    image[10:13, :, 26:31] = 100.0  # superior and right of the cube's middle
    shown = [Shown(name, image, truth, truth, SPACING, {"one": 1.0}) for name in ("axial", "coronal")]
    draw_picture(shown, ["one"], tmp_path / "a.png")
    coronal = panels(tmp_path / "a.png", columns=2)[0, 1].mean(axis=-1)
    down, right = (axis.mean() for axis in np.nonzero(coronal > 200))
    height, width = coronal.shape
    assert down < 0.45 * height
    assert right > 0.55 * width


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_any_number_of_subjects(tmp_path, columns):
    draw_picture([subject(str(number)) for number in range(columns)], ["one"], tmp_path / "a.png", caption="of cubes")
    assert Image.open(tmp_path / "a.png").size[0] > 300 * columns


def test_empty_labels_and_flat_images(tmp_path):
    nothing = np.zeros((1, 20, 20), np.uint8)
    empty = Shown("flat", np.ones(nothing.shape), nothing, nothing, (1.0, 1.0, 1.0), {"one": float("nan")})
    draw_picture([empty], ["one"], tmp_path / "a.png")
    assert (tmp_path / "a.png").is_file()
