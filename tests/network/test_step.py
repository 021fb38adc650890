"""A training step and its parts against their definitions: the rate, the decay groups, the clipping, the average."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import tiny
from torch import nn

from mvl_auto.network import build_network
from mvl_auto.network.loss import deep_loss, targets_of
from mvl_auto.network.model import TRUNK
from mvl_auto.network.optimizer import (
    CLIP_NORM,
    EMA_DECAY,
    WEIGHT_DECAY,
    Average,
    make_optimizer,
    optimizer_tensors,
    trainable,
)
from mvl_auto.network.step import Learner, StepContext, training_step
from mvl_auto.plans import LabelScheme

CPU = torch.device("cpu")
LABELS = LabelScheme(class_values=(0, 1, 2), class_names=("background", "a", "b"))
CONTEXT = StepContext(targets_of(LABELS, CPU), CPU, torch.autocast("cpu", enabled=False))


def batch(seed=0):
    random = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 1, 16, 16, 16, generator=random)
    return image, torch.randint(0, 3, (2, 16, 16, 16), generator=random, dtype=torch.int16)


def learner(seed=0):
    return Learner.of(build_network(tiny(), 1, 3, seed=seed).train())


def test_a_step_is_adamw_on_clipped_gradients_of_the_loss():
    ours, reference = learner(), build_network(tiny(), 1, 3).train()
    image, label = batch()
    loss = training_step(ours, image, label, CONTEXT, learning_rate=1e-3)
    expected = deep_loss(reference(image), label, CONTEXT.targets)
    expected.backward()
    assert loss.item() == expected.item()
    assert not loss.requires_grad
    gradients = torch.cat([p.grad.flatten() for p in reference.parameters()])
    scale = min(1.0, CLIP_NORM / (gradients.norm().item() + 1e-6))
    for before, after in zip(reference.parameters(), ours.network.parameters(), strict=True):
        # the first step of Adam: both moments are the gradient's own after the correction of their bias
        g = before.grad * scale
        decay = WEIGHT_DECAY if before.ndim >= 2 else 0.0
        moved = before.detach() * (1 - 1e-3 * decay) - 1e-3 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(after.detach(), moved, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_a_slower_trunk_moves_by_its_share_and_a_frozen_one_not_at_all(rate):
    """Adam's first step is the rate times the sign of the gradient, however long the gradients are."""
    network, usual = build_network(tiny(), 1, 3).train(), learner()
    network.rates[TRUNK] = rate
    ours = Learner.of(network)
    for each in (ours, usual):
        training_step(each, *batch(), CONTEXT, learning_rate=1e-3)
    start = dict(build_network(tiny(), 1, 3).named_parameters())
    other = dict(usual.network.named_parameters())
    for name, now in network.named_parameters():
        moved, usually = (now - start[name]).detach(), (other[name] - start[name]).detach()
        torch.testing.assert_close(moved, usually * (rate if name.startswith("trunk.") else 1), rtol=1e-2, atol=2e-6)
    groups = sorted({group["lr"] for group in ours.optimizer.param_groups})
    assert groups == pytest.approx([1e-3 * rate, 1e-3])
    if rate == 0:
        assert not any(p in ours.optimizer.state for name, p in network.named_parameters() if name.startswith("trunk."))
        assert all(torch.equal(p, start[name]) for name, p in network.named_parameters() if name.startswith("trunk."))
        assert all(p.requires_grad for p in network.parameters())  # they are of the checkpoint, as all others
        assert ours.average.tensors().keys() == start.keys()


def test_a_step_with_the_rate_zero_changes_no_weight():
    ours = learner()
    before = [p.detach().clone() for p in ours.network.parameters()]
    training_step(ours, *batch(), CONTEXT, learning_rate=0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, ours.network.parameters(), strict=True))
    assert ours.step == 1


def test_matrices_and_kernels_decay_and_nothing_else_does():
    network = build_network(tiny(), 1, 3)
    groups = make_optimizer(network).param_groups
    decaying = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    still = {id(p) for group in groups if not group["weight_decay"] for p in group["params"]}
    assert not decaying & still
    for name, parameter in network.named_parameters():
        matrix = isinstance(network.get_submodule(name.rpartition(".")[0]), nn.Linear | nn.Conv3d) and "weight" in name
        assert (id(parameter) in decaying) == matrix, name
        assert (id(parameter) in still) != matrix, name


def test_the_average_is_the_recursion_of_its_definition():
    """e_t = d_t e_{t-1} + (1 - d_t) w_t with d_t = min(EMA_DECAY, (1 + t) / (10 + t)), from e_0 = w_0."""
    network = nn.Linear(3, 2)
    average = Average(network)
    expected = {name: p.detach().double().numpy().copy() for name, p in trainable(network).items()}
    random = torch.Generator().manual_seed(0)
    for step in range(1, 60):
        with torch.no_grad():
            for p in network.parameters():
                p.add_(torch.randn(p.shape, generator=random))
        average.update(step)
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        for name, p in trainable(network).items():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach().double().numpy()
    for name, value in average.tensors().items():
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-5, atol=1e-6)


def test_a_late_step_moves_the_average_by_half_a_percent():
    network = nn.Linear(3, 2)
    average = Average(network)
    before = average.tensors()["weight"].clone()
    with torch.no_grad():
        network.weight.add_(1.0)
    average.update(100_000)
    torch.testing.assert_close(average.tensors()["weight"] - before, torch.full((2, 3), 0.005), atol=1e-6, rtol=1e-4)


def test_every_step_moves_the_average_towards_its_own_weights():
    ours = learner()
    expected = [p.detach().double().clone() for p in ours.average.sources]
    for step in (1, 2, 3):
        training_step(ours, *batch(), CONTEXT, learning_rate=1e-2)
        decay = (1 + step) / (10 + step)
        expected = [
            decay * e + (1 - decay) * p.detach().double() for e, p in zip(expected, ours.average.sources, strict=True)
        ]
    for value, wanted in zip(ours.average.values, expected, strict=True):
        torch.testing.assert_close(value.double(), wanted, rtol=1e-5, atol=1e-6)


def test_an_optimizer_that_has_taken_no_step_has_nothing_to_keep():
    ours = learner()
    assert optimizer_tensors(ours.optimizer, ours.network) == {}
    training_step(ours, *batch(), CONTEXT, learning_rate=1e-3)
    assert len(optimizer_tensors(ours.optimizer, ours.network)) == 3 * len(ours.average.names)
