"""Dice on validation patches against its definition, of the averaged network; and when a class collapses."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from networks import tiny
from trained import make_labels

from mvl_auto.network import build_network
from mvl_auto.network.loss import targets_of
from mvl_auto.network.step import Learner, StepContext
from mvl_auto.plans import IGNORE
from mvl_auto.training.patches import Batch
from mvl_auto.training.watch import LOOK_SHARE, Watch, patch_dice

CPU = torch.device("cpu")
CLASSES = make_labels((0, 1, 2))
REGIONS = make_labels(
    (0, 1, 2), region_names=("whole", "core"), regions=((1, 2), (2,)), regions_class_order=(1, 2), ignore_value=3
)


def context(labels):
    return StepContext(targets_of(labels, CPU), CPU, torch.autocast("cpu", enabled=False))


def batch(ignored=False):
    random = torch.Generator().manual_seed(0)
    label = torch.randint(-1 if ignored else 0, 3, (3, 16, 16, 16), generator=random, dtype=torch.int16)
    image = torch.randn(3, 1, 16, 16, 16, generator=random)
    return Batch(image, label, torch.arange(3, dtype=torch.int32))


def loud(labels):
    """A network with an average that is another one than its weights."""
    network = build_network(tiny(), 1, labels.num_outputs).train()
    learner = Learner.of(network)
    random = torch.Generator().manual_seed(1)
    for value in learner.average.values:
        value.copy_(0.3 * torch.randn(value.shape, generator=random))
    return learner


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_dice_is_that_of_the_averaged_network_over_all_patches(labels):
    learner, many = loud(labels), batch(ignored=labels.has_regions)
    found = patch_dice(learner, many, labels, context(labels))
    assert learner.network.training
    network = build_network(tiny(), 1, labels.num_outputs).eval()
    network.load_state_dict(learner.average.tensors())
    with torch.no_grad():
        logits = network(many.image).numpy()
    label = many.label.numpy()
    seen = label != IGNORE
    for place, (name, classes) in enumerate(zip(labels.foreground_names, labels.foreground_classes, strict=True)):
        predicted = logits[:, place] > 0 if labels.has_regions else logits.argmax(axis=1) == place + 1
        predicted, actual = predicted & seen, np.isin(label, classes)
        expected = 2 * (predicted & actual).sum() / (predicted.sum() + actual.sum())
        assert found[name] == pytest.approx(expected, abs=1e-4)
        assert 0 < expected < 1


def test_looks_take_no_more_than_their_share_of_the_time():
    watch = Watch(batch(), CLASSES, context(CLASSES))
    learner = loud(CLASSES)
    assert watch.look(learner, 0.1, elapsed=0.0) == watch.dice
    assert watch.look(learner, 0.1, elapsed=0.9 * watch.spent / LOOK_SHARE) is None
    assert watch.look(learner, 0.1, elapsed=1.1 * watch.spent / LOOK_SHARE) is not None
    assert watch.look(learner, 1.0, elapsed=0.0) is not None, "the last look is always taken"


def test_a_class_that_the_network_never_finds_is_warned_about_once_and_not_at_the_start(caplog):
    learner = loud(CLASSES)
    head = [value for name, value in learner.average.tensors().items() if name == "decoder.head.body.bias"]
    head[0].view(-1, 3)[:, 2] = -1e4
    watch = Watch(batch(), CLASSES, context(CLASSES))
    with caplog.at_level(logging.WARNING):
        watch.look(learner, 0.1, elapsed=0.0)
        assert not caplog.text
        watch.look(learner, 0.5, elapsed=1e9)
        assert "after 50 % of the training the network finds no voxel of label 2" in caplog.text
        caplog.clear()
        watch.look(learner, 0.6, elapsed=1e9)
    assert not caplog.text
