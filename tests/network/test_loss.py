"""The loss against sums written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mvl_auto.network.loss import SMOOTH, at_grid, deep_loss, dice_and_cross_entropy, targets_of
from mvl_auto.plans import IGNORE, LabelScheme

CLASSES = LabelScheme(class_values=(0, 1, 2), class_names=("background", "a", "b"))
REGIONS = LabelScheme(
    class_values=(0, 1, 2),
    class_names=("background", "a", "b"),
    region_names=("whole", "core"),
    regions=((1, 2), (2,)),
    regions_class_order=(1, 2),
)
CPU = torch.device("cpu")
IGNORING = targets_of(CLASSES.model_copy(update={"ignore_value": 3}), CPU)


def reference(logits, label, softmax, members):
    """Voxel by voxel. logits (b, k, v), label (b, v), members: classes of each output."""
    entropies, dices = [], []
    for sample, classes in zip(logits, label, strict=True):
        seen = [v for v in range(len(classes)) if classes[v] != IGNORE]
        if softmax:
            p = np.exp(sample) / np.exp(sample).sum(axis=0)
            entropies += [-np.log(p[classes[v], v]) for v in seen]
        else:
            p = 1 / (1 + np.exp(-sample))
            target = [[classes[v] in members[k] for v in range(len(classes))] for k in range(len(p))]
            entropies += [
                np.mean([-np.log(p[k, v] if target[k][v] else 1 - p[k, v]) for k in range(len(p))]) for v in seen
            ]
        for k in range(1 if softmax else 0, len(p)):
            t = np.array([classes[v] in members[k] for v in seen], float)
            q = p[k, seen]
            dices.append((2 * (q * t).sum() + SMOOTH) / (q.sum() + t.sum() + SMOOTH))
    return np.mean(entropies) + 1 - np.mean(dices)


@pytest.mark.parametrize("ignored", [0, 5])
@pytest.mark.parametrize(("scheme", "members"), [(CLASSES, ((0,), (1,), (2,))), (REGIONS, ((1, 2), (2,)))])
def test_loss_is_dice_plus_cross_entropy(scheme, members, ignored):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, scheme.num_outputs, 3, 4, 2))
    label = rng.integers(0, 3, (2, 3, 4, 2)).astype(np.int16)
    label.reshape(-1)[:ignored] = IGNORE
    softmax = not scheme.has_regions
    scheme = scheme.model_copy(update={"ignore_value": 3 if ignored else None})
    ours = dice_and_cross_entropy(torch.as_tensor(logits), torch.as_tensor(label), targets_of(scheme, CPU))
    expected = reference(logits.reshape(2, scheme.num_outputs, -1), label.reshape(2, -1), softmax, members)
    assert ours.item() == pytest.approx(expected, rel=1e-4)


def test_ignored_voxels_have_no_gradient():
    logits = torch.randn(1, 3, 2, 2, 2, requires_grad=True)
    label = torch.ones(1, 2, 2, 2, dtype=torch.int16)
    label[0, 0] = IGNORE
    dice_and_cross_entropy(logits, label, IGNORING).backward()
    assert torch.all(logits.grad[0, :, 0] == 0)
    assert torch.any(logits.grad[0, :, 1] != 0)


def test_a_batch_of_ignored_voxels_alone_is_a_finite_loss():
    logits = torch.randn(1, 3, 2, 2, 2, requires_grad=True)
    label = torch.full((1, 2, 2, 2), IGNORE, dtype=torch.int16)
    loss = dice_and_cross_entropy(logits, label, IGNORING)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_much():
    label = torch.randint(0, 3, (2, 4, 4, 4))
    perfect = 50.0 * torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float()
    targets = targets_of(CLASSES, CPU)
    assert dice_and_cross_entropy(perfect, label, targets) < 1e-4
    assert dice_and_cross_entropy(perfect.roll(1, dims=1), label, targets) > 10


def test_coarser_levels_weigh_half_and_look_at_the_middle_of_each_cell():
    label = torch.zeros(1, 4, 4, 4, dtype=torch.int16)
    label[0, 2::4, 2::4, 2::4] = 2
    coarse = torch.zeros(1, 3, 1, 1, 1)
    assert at_grid(label, coarse).flatten().tolist() == [2]
    fine = torch.randn(1, 3, 4, 4, 4)
    targets = targets_of(CLASSES, CPU)
    parts = [
        dice_and_cross_entropy(fine, label, targets),
        dice_and_cross_entropy(coarse, at_grid(label, coarse), targets),
    ]
    torch.testing.assert_close(deep_loss([fine, coarse], label, targets), (parts[0] + parts[1] / 2) / 1.5)
