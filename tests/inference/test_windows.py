"""The windows that follow from a configuration and the user's settings."""

from __future__ import annotations

import pytest
import torch
from trained import make_configuration

from mvl_auto.errors import MvlError
from mvl_auto.inference import PredictionSettings, WindowSettings
from mvl_auto.inference.windows import choose_batch_size, choose_windows


def test_the_windows_are_the_patches_of_the_training():
    configuration = make_configuration((16, 24, 16), mirror_axes=(0, 2), batch_size=6)
    cpu = torch.device("cpu")
    batch_size = 2**20 // (16 * 24 * 16)
    expected = WindowSettings((16, 24, 16), (0, 2), 0.7, batch_size, cpu)
    assert choose_windows(configuration, PredictionSettings("cpu", step_size=0.7)) == expected
    without = choose_windows(configuration, PredictionSettings("cpu", mirror=False))
    assert without == WindowSettings((16, 24, 16), (), 0.5, batch_size, cpu)


def test_batches_are_large_for_small_windows_and_those_of_training_on_a_gpu():
    small, large = make_configuration((16, 16, 16), batch_size=6), make_configuration((128, 128, 128), batch_size=6)
    assert choose_batch_size(small, torch.device("cpu")) == 256
    assert choose_batch_size(large, torch.device("cpu")) == 1
    assert choose_batch_size(large, torch.device("cuda")) == 6


@pytest.mark.parametrize("step_size", [0, -1, 1.5, float("nan")])
def test_a_step_size_that_leaves_gaps_is_refused(step_size):
    with pytest.raises(MvlError, match="step size is"):
        PredictionSettings(step_size=step_size)
