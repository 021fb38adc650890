"""The loss against sums written out in numpy, voxel by voxel."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mvl_auto.network.loss import (
    SMOOTH,
    Targets,
    _share,
    class_shares,
    deep_loss,
    loss_at_finest,
    loss_of_shares,
    membership,
    targets_of,
)
from mvl_auto.plans import IGNORE, LabelScheme

CPU = torch.device("cpu")
CLASSES = LabelScheme(class_values=(0, 1, 2), class_names=("background", "a", "b"))
REGIONS = LabelScheme(
    class_values=(0, 1, 2),
    class_names=("background", "a", "b"),
    region_names=("whole", "core"),
    regions=((1, 2), (2,)),
    regions_class_order=(1, 2),
)
MEMBERS = {CLASSES: ((0,), (1,), (2,)), REGIONS: ((1, 2), (2,))}


def ignoring(scheme):
    return scheme.model_copy(update={"ignore_value": 3})


def reference(logits, shares, scheme, batch_dice):
    """logits (b, k, v); shares (b, c, v): of the classes in each voxel, what they lack of 1 is ignored."""
    members, softmax = MEMBERS[scheme], not scheme.has_regions
    entropy, annotated, sums = 0.0, 0.0, []
    for sample, share in zip(logits, shares, strict=True):
        p = np.exp(sample) / np.exp(sample).sum(axis=0) if softmax else 1 / (1 + np.exp(-sample))
        for v in range(p.shape[1]):
            seen = share[:, v].sum()
            annotated += seen
            if softmax:
                entropy -= sum(share[k, v] * np.log(p[k, v]) for k in range(len(p)))
            else:
                targets = [share[list(members[k]), v].sum() for k in range(len(p))]
                entropy -= np.mean(
                    [t * np.log(p[k, v]) + (seen - t) * np.log(1 - p[k, v]) for k, t in enumerate(targets)]
                )
        for k in range(1 if softmax else 0, len(p)):
            t, seen = share[list(members[k])].sum(axis=0), share.sum(axis=0)
            sums.append((k, (p[k] * t).sum(), (p[k] * seen).sum(), t.sum()))
    groups = [[each] for each in sums]
    if batch_dice:
        groups = [[each for each in sums if each[0] == k] for k in {k for k, *_ in sums}]
    losses = []
    for group in groups:
        overlap, predicted, actual = (sum(each[i] for each in group) for i in (1, 2, 3))
        if actual > 0:
            losses.append(1 - (2 * overlap + SMOOTH) / (predicted + actual + SMOOTH))
    return entropy / max(annotated, 1e-3) + (np.mean(losses) if losses else 0.0)


def one_hot(label, classes=3):
    return np.stack([label == k for k in range(classes)], axis=1).astype(float)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("ignored", [0, 5])
@pytest.mark.parametrize("scheme", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_loss_is_cross_entropy_plus_dice_of_the_classes_that_are_there(scheme, ignored, batch_dice):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, scheme.num_outputs, 3, 4, 2))
    label = rng.integers(0, 3, (2, 3, 4, 2)).astype(np.int16)
    label[1][label[1] == 2] = 1  # the second sample has no class 2
    label.reshape(-1)[:ignored] = IGNORE
    targets = targets_of(ignoring(scheme) if ignored else scheme, CPU, batch_dice)
    ours = loss_at_finest(torch.as_tensor(logits), torch.as_tensor(label), targets)
    flat = logits.reshape(2, scheme.num_outputs, -1)
    expected = reference(flat, one_hot(label.reshape(2, -1)), scheme, batch_dice)
    assert ours.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("part", [1.0, 0.7])
@pytest.mark.parametrize("scheme", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_the_loss_of_shares_is_the_same_sum_of_soft_targets(scheme, part, batch_dice):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, scheme.num_outputs, 3, 4, 2))
    shares = rng.dirichlet((1, 1, 1), (2, 3, 4, 2)).transpose(0, 4, 1, 2, 3) * part
    shares[0, :, 0] = 0 if part < 1 else shares[0, :, 0]
    targets = targets_of(ignoring(scheme) if part < 1 else scheme, CPU, batch_dice)
    ours = loss_of_shares(torch.as_tensor(logits), torch.as_tensor(shares).float(), targets)
    flat = logits.reshape(2, scheme.num_outputs, -1)
    expected = reference(flat, shares.reshape(2, 3, -1), scheme, batch_dice)
    assert ours.item() == pytest.approx(expected, rel=1e-4)


def test_of_a_label_map_both_are_the_same():
    logits, label = torch.randn(2, 3, 4, 4, 4), torch.randint(-1, 3, (2, 4, 4, 4))
    for scheme in (CLASSES, REGIONS):
        targets = targets_of(ignoring(scheme), CPU)
        shares = class_shares(label, label.shape[1:], 3)
        own = logits[:, : scheme.num_outputs]
        torch.testing.assert_close(loss_at_finest(own, label, targets), loss_of_shares(own, shares, targets))


def test_of_43_classes_the_three_that_are_there_get_their_whole_gradient():
    """As if there were no others: before, each got 3/42 of it."""
    logits = torch.zeros(1, 43, 6, 6, 6)
    label = torch.randint(1, 4, (1, 6, 6, 6))
    few = Targets(torch.eye(43), softmax=True, masked=False)
    logits.requires_grad_()
    loss_at_finest(logits, label, few).backward()
    p = 1 / 43
    # at a voxel of class k, through softmax: p (g_k - sum_j p g_j); the cross-entropy adds (p - 1) / n
    inside = [(label[0] == k).nonzero()[0].tolist() for k in (1, 2, 3)]
    for k, place in zip((1, 2, 3), inside, strict=True):
        g = torch.zeros(43)
        for j in (1, 2, 3):
            t, n = (label == j).sum().item(), 216
            size, overlap = n * p + t, t * p
            at_voxel = 1.0 if j == k else 0.0
            g[j] = -(2 * at_voxel * size - 2 * overlap) / size**2 / 3
        expected = p * (g[k] - p * g.sum()) + (p - 1) / 216
        assert logits.grad[0, k, *place].item() == pytest.approx(expected.item(), rel=1e-3)


def test_ignored_voxels_have_no_gradient():
    logits = torch.randn(1, 3, 2, 2, 2, requires_grad=True)
    label = torch.ones(1, 2, 2, 2, dtype=torch.int16)
    label[0, 0] = IGNORE
    loss_at_finest(logits, label, targets_of(ignoring(CLASSES), CPU)).backward()
    assert torch.all(logits.grad[0, :, 0] == 0)
    assert torch.any(logits.grad[0, :, 1] != 0)


def test_one_labelled_voxel_is_its_cross_entropy_alone():
    logits = torch.randn(1, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    label = torch.full((1, 2, 2, 2), IGNORE, dtype=torch.int16)
    label[0, 0, 1, 0] = 0  # background: no Dice is asked for
    loss = loss_at_finest(logits, label, targets_of(ignoring(CLASSES), CPU))
    torch.testing.assert_close(loss, -logits[0, :, 0, 1, 0].log_softmax(dim=0)[0])


@pytest.mark.parametrize("scheme", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_a_batch_of_ignored_voxels_alone_is_a_finite_loss_without_gradient(scheme):
    logits = [torch.randn(1, scheme.num_outputs, size, size, size, requires_grad=True) for size in (4, 2)]
    label = torch.full((1, 4, 4, 4), IGNORE, dtype=torch.int16)
    loss = deep_loss(logits, label, targets_of(ignoring(scheme), CPU))
    loss.backward()
    assert torch.isfinite(loss)
    for level in logits:
        assert torch.all(level.grad == 0)


def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_much():
    label = torch.randint(0, 3, (2, 4, 4, 4))
    perfect = 50.0 * torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float()
    targets = targets_of(CLASSES, CPU)
    assert loss_at_finest(perfect, label, targets) < 1e-4
    assert loss_at_finest(perfect.roll(1, dims=1), label, targets) > 10


def test_thin_structures_keep_their_share_at_the_coarse_levels():
    """A plane of one voxel: at a quarter of the resolution it is a quarter of its cells."""
    label = torch.zeros(1, 8, 8, 8, dtype=torch.int16)
    label[0, 3] = 2
    shares = class_shares(label, torch.Size((2, 2, 2)), 3)
    assert shares[0, 2, 0].flatten().tolist() == [0.25] * 4
    assert shares[0, 2, 1].flatten().tolist() == [0] * 4
    assert shares[0, 0, 0].flatten().tolist() == [0.75] * 4
    logits = torch.zeros(1, 3, 2, 2, 2, requires_grad=True)
    deep_loss([torch.zeros(1, 3, 8, 8, 8), logits], label, targets_of(CLASSES, CPU)).backward()
    assert (logits.grad[0, 2, 0] < logits.grad[0, 2, 1]).all()


def test_coarser_levels_weigh_half_of_the_finer():
    label = torch.randint(0, 3, (2, 8, 8, 8))
    levels = [torch.randn(2, 3, size, size, size) for size in (8, 4, 2)]
    targets = targets_of(CLASSES, CPU)
    parts = [loss_at_finest(levels[0], label, targets)]
    parts += [loss_of_shares(x, class_shares(label, x.shape[2:], 3), targets) for x in levels[1:]]
    expected = (parts[0] + parts[1] / 2 + parts[2] / 4) / 1.75
    torch.testing.assert_close(deep_loss(levels, label, targets), expected)


def test_images_in_two_dimensions_have_levels_too():
    label = torch.randint(0, 3, (2, 8, 12))
    shares = class_shares(label, torch.Size((4, 3)), 3)
    for cell in [(0, 0), (3, 2)]:
        part = label[0, 2 * cell[0] : 2 * cell[0] + 2, 4 * cell[1] : 4 * cell[1] + 4]
        assert shares[0, :, *cell].tolist() == [(part == k).float().mean().item() for k in range(3)]


def test_gradients_are_those_of_the_loss():
    label = torch.randint(-1, 3, (2, 3, 2, 2))
    for scheme in (CLASSES, REGIONS):
        logits = torch.randn(2, scheme.num_outputs, 3, 2, 2, dtype=torch.float64, requires_grad=True)
        targets = targets_of(ignoring(scheme), CPU, batch_dice=True)
        loss_at_finest(logits, label, targets).backward()
        at = (1, 1, 2, 0, 1)
        step = torch.zeros_like(logits)
        step[at] = 1e-2
        with torch.no_grad():
            ahead, behind = (loss_at_finest(logits + way * step, label, targets) for way in (1, -1))
        slope = (ahead - behind) / 2e-2
        assert logits.grad[at].item() == pytest.approx(slope.item(), rel=2e-2, abs=1e-4)


def test_regions_are_unions_of_classes():
    assert membership(REGIONS, CPU).tolist() == [[0, 0], [1, 0], [1, 1]]


def test_what_several_processes_add_up_lies_on_the_device_of_the_loss():
    """The device "meta" stands for a GPU: torch refuses to put tensors of two devices into one."""
    team = SimpleNamespace(size=2, total=lambda x: x)
    part = torch.zeros((), device="meta")
    assert _share(part, 3, SimpleNamespace(team=team)).device == part.device
