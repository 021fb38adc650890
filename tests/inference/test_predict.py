"""One image to classes: networks that a formula describes, so that the right answer is known voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inverse import labels_in_native_space
from known_networks import Bands, random_bands, volume_of
from torch import nn
from trained import make_configuration, make_labels, make_plan

from mvl_auto.errors import MvlError
from mvl_auto.inference import PredictionSettings, WindowSettings, windows
from mvl_auto.inference.predict import (
    decide_classes,
    predict_case,
    predict_prepared,
    probability_slabs,
    to_probabilities,
)
from mvl_auto.preprocessing.case import preprocess_case

ON_CPU = PredictionSettings("cpu")
KEEP = PredictionSettings("cpu", probabilities=True)


class Constant(nn.Module):
    """The same probabilities everywhere."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.logits = torch.tensor(probabilities).log()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = [1, -1] + [1] * (x.ndim - 2)
        return self.logits.reshape(shape).expand(len(x), -1, *x.shape[2:]).clone()


@pytest.mark.parametrize("transpose", [(0, 1, 2), (1, 2, 0)])
@pytest.mark.parametrize("shape", [(20, 24, 22), (7, 40, 9), (5, 6, 7)])
def test_a_known_network_gives_the_known_classes(shape, transpose):
    image = random_bands(*shape)
    plan = make_plan(make_configuration((8, 12, 10)), transpose_forward=transpose)
    found = predict_case([Bands()], plan, plan.configuration(), volume_of(image))
    assert found.dtype == np.int16
    assert np.array_equal(found, np.rint(image[0]))


@pytest.mark.parametrize("shape", [(6, 24, 22), (1, 40, 9)])
def test_a_2d_network_gives_every_slice_its_classes(shape):
    image = random_bands(*shape)
    plan = make_plan(make_configuration((16, 12)))
    assert np.array_equal(predict_case([Bands()], plan, plan.configuration(), volume_of(image)), np.rint(image[0]))


def test_what_the_crop_cut_away_is_background():
    image = np.zeros((1, 20, 24, 22), np.float32)
    image[:, 5:15, 6:18, 3:19] = 2
    plan = make_plan(make_configuration((8, 8, 8)))
    prepared = preprocess_case(image, (1, 1, 1), None, plan, plan.configuration())
    assert prepared.image.shape == (1, 10, 12, 16)
    found = predict_prepared(
        [Constant(0.1, 0.2, 0.7)],
        plan.labels,
        plan.configuration(),
        prepared.image,
        prepared.trail,
        KEEP,
    )
    assert np.array_equal(found.classes, image[0])
    np.testing.assert_allclose(found.probabilities[:, 0, 0, 0], [1, 0, 0])
    np.testing.assert_allclose(found.probabilities[:, 10, 10, 10], [0.1, 0.2, 0.7], rtol=1e-5)


@pytest.mark.parametrize("apart", [False, True])
def test_probabilities_are_brought_back_before_they_are_decided(apart):
    """As scikit-image resamples the probabilities of the whole image."""
    image = random_bands(12, 30, 28)
    configuration = make_configuration((10, 12, 10), spacing=(2.0, 1.3, 1.4), resample_separate_z=apart)
    plan = make_plan(configuration)
    spacing = (3.2, 1.0, 1.0)
    found = predict_case([Bands()], plan, configuration, volume_of(image, spacing))
    prepared = preprocess_case(image, spacing, None, plan, configuration)
    assert prepared.image.shape[1:] != image.shape[1:]
    probabilities = Bands()(torch.from_numpy(prepared.image)[None])[0].softmax(0).numpy()
    expected = labels_in_native_space(probabilities, prepared.trail, plan.labels)
    assert len(np.unique(expected)) == 3
    assert (found != expected).mean() < 1e-3  # ties of rounding


def test_an_ensemble_votes_with_its_mean_probabilities():
    """Two weak votes for class 1 lose against one that is sure of class 2; the mean of the logits would say 0."""
    networks = [Constant(0.45, 0.54, 0.01), Constant(0.45, 0.54, 0.01), Constant(0.005, 0.005, 0.99)]
    image = np.ones((1, 9, 9, 9), np.float32)
    plan = make_plan(make_configuration((8, 8, 8)))
    prepared = preprocess_case(image, (1, 1, 1), None, plan, plan.configuration())
    found = predict_prepared(networks, plan.labels, plan.configuration(), prepared.image, prepared.trail, KEEP)
    np.testing.assert_allclose(found.probabilities.reshape(3, -1).T[0], [0.905 / 3, 1.085 / 3, 1.01 / 3], rtol=1e-5)
    assert (found.classes == 1).all()
    sure = predict_prepared(networks[1:], plan.labels, plan.configuration(), prepared.image, prepared.trail, ON_CPU)
    assert (sure.classes == 2).all()


def test_regions_overlap_and_later_ones_overwrite():
    labels = make_labels(
        (0, 1, 2, 4),
        region_names=("whole", "core", "active"),
        regions=((1, 2, 3), (2, 3), (3,)),
        regions_class_order=(1, 2, 3),
    )
    inside = torch.tensor(
        # whole, core, active
        [[0.4, 0.9, 0.9, 0.9, 0.1], [0.3, 0.2, 0.8, 0.9, 0.1], [0.1, 0.2, 0.5, 0.7, 0.6]]
    ).reshape(3, 5, 1, 1)
    assert decide_classes(inside, labels).flatten().tolist() == [0, 1, 2, 3, 3]
    turned = labels.model_copy(update={"regions_class_order": (3, 2, 1)})
    assert decide_classes(inside, turned).flatten().tolist() == [0, 3, 2, 1, 1]


def test_regions_have_a_sigmoid_each_and_nothing_outside_the_crop():
    labels = make_labels(region_names=("both", "inner"), regions=((1, 2), (2,)), regions_class_order=(1, 2))

    class Regions(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x - 0.5, x - 1.5], dim=1)

    image = np.zeros((1, 12, 12, 12), np.float32)
    image[0, 2:10, 2:10, 2:10] = np.random.default_rng(0).choice([0.2, 1.0, 2.0], (8, 8, 8))
    plan = make_plan(make_configuration((8, 8, 8)), labels=labels)
    assert np.array_equal(
        predict_case([Regions()], plan, plan.configuration(), volume_of(image)), (image[0] > 0.5) * 1 + (image[0] > 1.5)
    )
    prepared = preprocess_case(image, (1, 1, 1), None, plan, plan.configuration())
    kept = predict_prepared([Regions()], labels, plan.configuration(), prepared.image, prepared.trail, KEEP)
    assert (kept.probabilities[:, 0] == 0).all()
    logits = torch.tensor([0.3, 1.2]).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(to_probabilities(logits, labels).flatten(), 1 / (1 + np.exp([-0.3, -1.2])), rtol=1e-5)


def test_an_output_that_is_no_number_is_an_error_of_the_case():
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_full((len(x), 3, *x.shape[2:]), float("nan"))

    plan = make_plan(make_configuration((8, 8, 8)))
    with pytest.raises(MvlError, match="not finite"):
        predict_case([Broken()], plan, plan.configuration(), volume_of(random_bands(9, 9, 9)))


def test_the_share_that_is_done_adds_up_to_one(monkeypatch):
    monkeypatch.setattr(windows, "VOXELS_AT_ONCE", 1)
    plan = make_plan(make_configuration((8, 8, 8)))
    prepared = preprocess_case(random_bands(40, 9, 9), (1, 1, 1), None, plan, plan.configuration())
    shares: list[float] = []
    predict_prepared(
        [Bands()], plan.labels, plan.configuration(), prepared.image, prepared.trail, ON_CPU, shares.append
    )
    assert len(shares) > 3
    assert sum(shares) == pytest.approx(1)


def test_mirroring_can_be_switched_off_and_the_step_be_chosen():
    class Counting(Bands):
        windows = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.windows += len(x)
            return super().forward(x)

    counts = []
    for axes, options in [
        ((0, 1, 2), {}),
        ((0, 2), {}),  # the labels tell left from right
        ((0, 1, 2), {"mirror": False}),
        ((0, 1, 2), {"mirror": False, "step_size": 1.0}),
    ]:
        network, plan = Counting(), make_plan(make_configuration((8, 8, 8), mirror_axes=axes))
        predict_case([network], plan, plan.configuration(), volume_of(random_bands(16, 8, 8)), **options)
        counts.append(network.windows)
    assert counts == [3 * 8, 3 * 4, 3, 2]


def test_the_slabs_of_several_networks_are_held_one_row_at_a_time():
    """Nothing is asked of a network before the row before it has been handed out."""
    plan, order = make_plan(make_configuration((8, 8, 8))), []

    class Noted(Bands):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            order.append("network")
            return super().forward(x)

    image = torch.from_numpy(random_bands(8, 8, 30))
    slabs = probability_slabs([Noted(), Noted()], plan.labels, image, WindowSettings((8, 8, 8)), axis=2)
    for _ in slabs:
        order.append("slab")
    row = ["network", "network", "slab"]
    assert order == row * (len(order) // 3)
    assert len(order) > 9
