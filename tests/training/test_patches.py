"""Which cases and patches make up a batch: decided by seed, step and place; foreground as often as is promised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from trained import make_configuration, make_labels

from mvl_auto.cache import write_case
from mvl_auto.plans import IGNORE, CachedCase, Trail
from mvl_auto.training.augmentation import cut
from mvl_auto.training.cases import MOST_ANNOTATED, Cases
from mvl_auto.training.patches import SHIFT, Patches, centres

SHAPE = (20, 24, 22)


def write(folder, name, label, image=None, classes=3):
    trail = Trail(
        size=label.shape,
        transpose_forward=(0, 1, 2),
        crop=tuple((0, n) for n in label.shape),
        spacing=(1, 1, 1),
        resampled_size=label.shape,
        resampled_spacing=(1, 1, 1),
        separate_axis=None,
    )
    image = np.random.default_rng(1).normal(size=(1, *label.shape)).astype(np.float32) if image is None else image
    voxels = tuple(int((label == k).sum()) for k in range(classes))
    cached = CachedCase(name=name, shape=image.shape, trail=trail, files_hash="", settings_hash="", class_voxels=voxels)
    locations = {k: np.argwhere(label == k).astype(np.int32) for k in range(1, classes) if voxels[k]}
    write_case(folder, image, label.astype(np.int16), cached, locations)


def specks(*places):
    """Class 1 in a cube of 3 voxels a side around the first of the places, class 2 around the second, ..."""
    label = np.zeros(SHAPE, np.int16)
    for k, place in enumerate(places, start=1):
        label[tuple(slice(n - 1, n + 2) for n in place)] = k
    return label


def patches(folder, names=("a",), seed=0, share=(0, 1), labels=None, **changes):
    configuration = make_configuration(**({"patch_size": (8, 8, 8)} | changes))
    return Patches(Cases(folder), names, configuration, labels or make_labels((0, 1, 2)), seed, share)


def test_every_case_is_drawn_once_before_any_is_drawn_again(tmp_path):
    made = patches(tmp_path, tuple("abcdefg"), batch_size=3)
    drawn = [place for step in range(14) for place in made.chosen(step)]
    for epoch in range(6):
        assert sorted(drawn[7 * epoch : 7 * (epoch + 1)]) == list(range(7))
    assert len({tuple(drawn[7 * epoch : 7 * (epoch + 1)]) for epoch in range(6)}) > 3


def test_other_steps_and_other_seeds_are_other_batches_and_the_same_ones_the_same(tmp_path):
    write(tmp_path, "a", specks((3, 4, 5)))
    first = patches(tmp_path).batch(0)
    assert torch.equal(first.image, patches(tmp_path).batch(0).image)
    assert not torch.equal(first.image, patches(tmp_path).batch(1).image)
    assert not torch.equal(first.image, patches(tmp_path, seed=1).batch(0).image)
    assert first.image.shape == (2, 1, 8, 8, 8)
    assert first.label.shape == (2, 8, 8, 8)
    assert (first.image.dtype, first.label.dtype) == (torch.float32, torch.int16)


def test_no_global_generator_is_touched(tmp_path):
    write(tmp_path, "a", specks((3, 4, 5)))
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    for step in range(5):
        patches(tmp_path).batch(step)
    assert np.random.random() == expected  # noqa: NPY002


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_shares_of_all_ranks_are_the_batch(tmp_path, ranks):
    write(tmp_path, "a", specks((3, 4, 5)))
    whole = patches(tmp_path, batch_size=5).batch(4)
    for rank in range(ranks):
        share = patches(tmp_path, batch_size=5, share=(rank, ranks)).batch(4)
        assert torch.equal(share.image, whole.image[rank::ranks])
        assert torch.equal(share.cases, whole.cases[rank::ranks])


@pytest.mark.parametrize(("batch_size", "share"), [(1, 0.33), (2, 0.33), (3, 0.33), (4, 0.5)])
def test_the_share_of_certain_foreground_is_right_on_average(tmp_path, batch_size, share):
    made = patches(tmp_path, batch_size=batch_size, oversample_foreground_percent=share)
    certain = [made.certain_foreground(step) for step in range(2000)]
    assert np.mean(certain) == pytest.approx(batch_size * share, abs=0.04)
    assert max(certain) - min(certain) <= 1


def test_a_certain_foreground_voxel_lies_in_its_patch_but_not_always_in_the_middle(tmp_path):
    write(tmp_path, "a", specks((10, 12, 11)))
    made = patches(tmp_path, mirror_axes=())
    places = []
    for seed in range(150):
        _, label = made.sample(np.random.default_rng(seed), "a", foreground=True)
        places.append(np.argwhere(label == 1).mean(axis=0))
    away = np.array(places) - 3.5
    assert np.isfinite(away).all()
    assert np.abs(away).max() > 0.8 * SHIFT * 3.5
    assert np.abs(away.mean(axis=0)).max() < 0.4, "in no direction more than in the other"


def test_a_patch_without_certain_foreground_may_lie_anywhere_in_its_case(tmp_path, monkeypatch):
    """From one end of the case to the other along each axis, no place more often than another."""
    write(tmp_path, "a", specks((2, 2, 2)))
    made, seen = patches(tmp_path), []

    def look(source, centre, spatial, size):
        seen.append(centre)
        return cut(source, centre, spatial, size)

    monkeypatch.setattr("mvl_auto.training.patches.cut", look)
    for seed in range(400):
        made.sample(np.random.default_rng(seed), "a", foreground=False)
    first, last = np.full(3, 3.5), np.array(SHAPE) - 4.5  # so that a patch of 8 voxels lies inside
    share = (np.array(seen) - first) / (last - first)
    assert share.min() >= 0
    assert share.max() <= 1
    for tenth in range(10):
        there = (share > tenth / 10) & (share <= (tenth + 1) / 10)
        assert there.mean(axis=0) == pytest.approx([0.1] * 3, abs=0.05)


def test_a_rare_class_is_drawn_as_often_as_the_others_over_all_cases(tmp_path):
    """Class 2 is in one of four cases, class 1 in all: in that case 2 is drawn four times as often."""
    for name in "abc":
        write(tmp_path, name, specks((3, 3, 3)))
    write(tmp_path, "d", specks((3, 3, 3), (15, 15, 15)))
    made = patches(tmp_path, tuple("abcd"))
    case = made.cases.open("d")
    drawn = [made.spot(np.random.default_rng(seed), case, True)[0] > 10 for seed in range(1000)]
    assert np.mean(drawn) == pytest.approx(0.8, abs=0.04)


def test_where_only_a_part_is_annotated_every_patch_shows_some_of_it(tmp_path):
    label = np.full(SHAPE, IGNORE, np.int16)
    label[9:11, 0:3, 20:22] = 0
    label[1:4, 1:4, 1:4] = 1
    write(tmp_path, "a", label)
    labels = make_labels((0, 1, 2), ignore_value=3)
    made = patches(tmp_path, labels=labels)
    seen = [(made.sample(np.random.default_rng(seed), "a", seed % 2 == 0)[1] != IGNORE).any() for seed in range(100)]
    assert np.mean(seen) == 1
    assert len(made.cases.open("a").annotated()) == 12 + 27


def test_no_more_annotated_voxels_are_kept_than_is_said_and_always_the_same(tmp_path):
    write(tmp_path, "a", np.zeros((30, 30, 30), np.int16))
    one, other = (Cases(tmp_path).open("a").annotated() for _ in range(2))
    assert len(one) == MOST_ANNOTATED == len(np.unique(one, axis=0))
    np.testing.assert_array_equal(one, other)


def test_cases_in_memory_read_as_those_on_disk_until_the_memory_is_full(tmp_path):
    for name in "ab":
        write(tmp_path, name, specks((3, 4, 5), (6, 7, 8)))
    size = 6 * np.prod(SHAPE)
    in_memory = Cases(tmp_path, memory=int(1.5 * size))
    box = ((2, 9), (3, 11), (4, 12))
    for name in "ab":
        one, other = in_memory.open(name), Cases(tmp_path).open(name)
        np.testing.assert_array_equal(one.image(box), other.image(box))
        np.testing.assert_array_equal(one.maps(box), other.maps(box))
    assert in_memory.memory == int(1.5 * size) - size
    for name in "ab":
        (tmp_path / f"{name}.b2nd").unlink()
    assert in_memory.open("a").image(box).shape == (1, 7, 8, 8)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_memory_of_a_case_is_that_of_its_image_and_its_label(tmp_path, channels):
    image = np.zeros((channels, *SHAPE), np.float32)
    write(tmp_path, "a", specks((3, 4, 5)), image)
    size = image.nbytes + 2 * image[0].size
    for memory, left in ((size - 1, size - 1), (size, 0), (size + 7, 7)):
        cases = Cases(tmp_path, memory=memory)
        cases.open("a")
        assert cases.memory == left


def test_a_plain_patch_of_a_case_without_foreground_is_its_middle_voxel_for_voxel(tmp_path):
    image = np.random.default_rng(2).normal(size=(1, 15, 17, 13)).astype(np.float32)
    write(tmp_path, "a", np.zeros(image.shape[1:], np.int16), image)
    found, _ = patches(tmp_path).plain_sample("a")
    np.testing.assert_allclose(found, image[:, 4:12, 4:12, 2:10], atol=1e-6)


def test_slices_of_a_volume_are_batches_in_two_dimensions(tmp_path):
    write(tmp_path, "a", specks((7, 12, 11)))
    made = patches(tmp_path, patch_size=(16, 8), mirror_axes=(0, 1))
    batch = made.batch(0)
    assert batch.image.shape == (2, 1, 16, 8)
    found = [(made.sample(np.random.default_rng(seed), "a", True)[1] == 1).any() for seed in range(60)]
    assert np.mean(found) == 1
    assert np.mean([(made.sample(np.random.default_rng(s), "a", False)[1] == 1).any() for s in range(60)]) < 0.3


def test_a_patch_larger_than_the_case_sits_in_the_middle():
    low, high = centres((10, 50), (20, 20))
    assert low.tolist() == [4.5, 9.5]
    assert high.tolist() == [4.5, 39.5]
