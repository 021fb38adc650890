"""Windows that are larger than the training patch: when, how large, and with which result."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from known_networks import Bands, random_bands, volume_of
from networks import tiny
from torch import nn
from torch.nn import functional
from trained import make_configuration, make_plan

from mvl_auto.errors import MvlError
from mvl_auto.inference import PredictionSettings, predict_case
from mvl_auto.inference.windows import (
    MOST_LOGIT_BYTES,
    choose_batch_size,
    choose_window_shape,
    choose_windows,
)
from mvl_auto.network import build_network
from mvl_auto.network.stem import position_code


class Counting(Bands):
    """Remembers the shapes of the windows."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += [tuple(x.shape[2:])] * len(x)
        return super().forward(x)


class Small(Bands):
    """Has memory for so many voxels."""

    def __init__(self, voxels: int) -> None:
        super().__init__()
        self.voxels = voxels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2:].numel() > self.voxels:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


@pytest.mark.parametrize(
    ("image", "patch", "window"),
    [
        ((36, 50, 35), (32, 48, 32), (40, 56, 40)),  # median Hippocampus on a patch rounded down: tokens of 8 voxels
        ((32, 48, 32), (32, 48, 32), (32, 48, 32)),
        ((33, 48, 20), (32, 48, 32), (40, 48, 32)),  # never smaller than the patch
        ((24, 24, 24), (16, 16, 16), (24, 24, 24)),
        ((25, 25, 25), (16, 16, 16), (16, 16, 16)),  # 32 voxels would be 2 times the patch
        ((128, 130, 400), (80, 96, 96), (128, 136, 96)),  # 1.6 times exactly; and an axis that stays in windows
        ((129, 50, 50), (80, 96, 96), (80, 96, 96)),
        ((7, 50, 40), (32, 32), (32, 40)),  # 2D: slices; 56 is 1.75 times
        ((7, 48, 33), (32, 32), (48, 40)),
    ],
)
def test_the_window_covers_the_image_up_to_1_6_times_the_patch(image, patch, window):
    configuration = make_configuration(patch)
    assert configuration.network.token_size == (8,) * len(patch)
    assert choose_window_shape(image, 3, configuration) == window


def test_the_logits_of_a_larger_window_are_bounded():
    configuration, image = make_configuration((128, 128, 128)), (200, 200, 200)
    larger = choose_window_shape(image, 1, configuration)
    assert larger == (200, 200, 200)
    most = MOST_LOGIT_BYTES // (4 * prod(larger))
    assert choose_window_shape(image, most, configuration) == larger
    assert choose_window_shape(image, most + 1, configuration) == (128, 128, 128)


def test_the_settings_become_windows():
    configuration = make_configuration((16, 16, 16), mirror_axes=(0, 2))
    windows = choose_windows((20, 16, 16), 3, configuration, PredictionSettings("cpu", step_size=0.7))
    assert windows.shape == (24, 16, 16)
    assert windows.mirror_axes == (0, 2)
    assert windows.step_size == 0.7
    assert windows.device == torch.device("cpu")
    without = choose_windows((20, 16, 16), 3, configuration, PredictionSettings("cpu", mirror=False))
    assert without.mirror_axes == ()


def test_batches_are_large_for_small_windows_and_as_in_training_on_a_gpu():
    small, large = make_configuration((16, 16, 16), batch_size=6), make_configuration((128, 128, 128), batch_size=6)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert choose_batch_size(small.patch_size, small, cpu) == 256
    assert choose_batch_size(large.patch_size, large, cpu) == 1
    assert choose_batch_size(large.patch_size, large, gpu) == 6
    assert choose_batch_size((128, 128, 256), large, gpu) == 3
    assert choose_batch_size((200, 200, 200), large, cpu) == 1


@pytest.mark.parametrize("transpose", [(0, 1, 2), (1, 2, 0)])
@pytest.mark.parametrize(("patch", "windows"), [((16, 16, 16), 1), ((16, 16, 8), 3)])
def test_a_larger_window_gives_the_same_classes_at_the_same_place(patch, windows, transpose):
    image = random_bands(*np.take((19, 24, 17), np.argsort(transpose)))
    plan = make_plan(make_configuration(patch), transpose_forward=transpose)
    network = Counting()
    found = predict_case([network], plan, plan.configuration(), volume_of(image), mirror=False, step_size=1.0)
    assert np.array_equal(found, np.rint(image[0]))
    assert network.seen == [(24, 24, 24 if patch[2] == 16 else 8)] * windows


def test_a_2d_network_sees_every_slice_at_once():
    image = random_bands(4, 40, 35)
    plan = make_plan(make_configuration((32, 32)))
    network = Counting()
    found = predict_case([network], plan, plan.configuration(), volume_of(image), mirror=False)
    assert np.array_equal(found, np.rint(image[0]))
    assert network.seen == [(40, 40)] * 4


def test_the_network_itself_predicts_the_whole_image_in_one_window():
    """One window is one forward pass over the image, centred in zeros."""
    configuration = make_configuration((16, 16, 16), network=tiny())
    plan = make_plan(configuration)
    network = build_network(configuration.network, 1, 3).eval()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    image = np.random.default_rng(0).normal(size=(1, 20, 24, 18)).astype(np.float32)
    with torch.inference_mode():
        padded = functional.pad(torch.from_numpy(image)[None], (3, 3, 0, 0, 2, 2))
        expected = network(padded)[0, :, 2:22, :, 3:21].argmax(0).numpy()
    found = predict_case([network], plan, configuration, volume_of(image), mirror=False)
    assert len(np.unique(expected)) == 3
    assert np.array_equal(found, expected)


def test_positions_in_mm_do_not_depend_on_the_window():
    """The middle of a larger window has the positions of a smaller one: token by token, in mm from the middle."""
    pitch, cpu = (8.0, 4.0, 5.0), torch.device("cpu")
    small = position_code((2, 3, 4), pitch, 24, cpu).reshape(2, 3, 4, 24)
    large = position_code((4, 5, 6), pitch, 24, cpu).reshape(4, 5, 6, 24)
    torch.testing.assert_close(large[1:3, 1:4, 1:5], small)


def test_where_the_gpu_is_too_small_for_the_larger_window_the_patch_is_used(caplog):
    image = random_bands(20, 16, 16)
    plan = make_plan(make_configuration((16, 16, 16)))
    found = predict_case([Small(16**3)], plan, plan.configuration(), volume_of(image))
    assert np.array_equal(found, np.rint(image[0]))
    assert "too little free memory for windows of (24, 16, 16) voxels: using (16, 16, 16)" in caplog.text
    with pytest.raises(MvlError, match="too little free memory for one window"):
        predict_case([Small(16**3 - 1)], plan, plan.configuration(), volume_of(image))


@pytest.mark.parametrize("step_size", [0, -1, 1.5, float("nan")])
def test_a_step_size_that_leaves_gaps_is_refused(step_size):
    with pytest.raises(MvlError, match="step size is"):
        PredictionSettings(step_size=step_size)
