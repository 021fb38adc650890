"""The search order: no candidate is smaller than the one before it, and the largest that fits is found."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_auto.planners.cost.block import SMOLLM2, like_smollm2
from mvl_auto.planners.presets import CPU_3D_SMALL_IMAGES, SEARCH_ORDERS, SMALL, TOKEN_MAX, TOKENS_MIN, TRUNKS
from mvl_auto.planners.search import (
    Candidate,
    choose_strides,
    find_largest_that_fits,
    limit_trunk,
    list_candidates,
    list_patches,
)

MM = st.floats(0.2, 10)
VOXELS = st.integers(1, 700)
BLOCKS = (SMOLLM2, like_smollm2("hf:a/b", 11, 960), like_smollm2("hf:c/d", 31, 4096))
IMAGES = st.one_of(
    st.tuples(st.tuples(MM, MM, MM), st.tuples(VOXELS, VOXELS, VOXELS)),
    st.tuples(st.tuples(MM, MM), st.tuples(VOXELS, VOXELS)),
)


def token_of(strides) -> tuple[int, ...]:
    return tuple(math.prod(axis) for axis in zip(*strides, strict=True))


# ----------------------------------------------------------------------------------------- strides


@pytest.mark.parametrize(
    ("spacing", "shape", "expected"),
    [
        ((1.0, 1.0, 1.0), (36, 50, 35), [(2, 2, 2)] * 3),
        ((3.6, 0.625, 0.625), (20, 320, 319), [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]),  # 3.6 < 2 x 2.5
        ((7.5, 0.5, 0.5), (11, 320, 320), [(1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2)]),
        ((17.0, 0.84, 0.84), (5, 40, 40), [(1, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2)]),
        ((0.65, 0.65), (256, 320), [(2, 2)] * 4),
        ((1.0, 1.0, 1.0), (1, 1, 1), [(1, 1, 1)] * 3),
        ((1.0, 1.0, 1.0), (3, 40, 40), [(1, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2)]),  # too few slices to halve
    ],
)
def test_strides_by_hand(spacing, shape, expected):
    assert choose_strides(spacing, shape) == tuple(expected)


@given(IMAGES)
def test_tokens_stay_large_enough_and_fine_enough(image):
    spacing, shape = image
    token = token_of(choose_strides(spacing, shape))
    for size, voxels in zip(token, shape, strict=True):
        assert size <= TOKEN_MAX
        assert size == 1 or voxels / size >= TOKENS_MIN


# ----------------------------------------------------------------------------------------- patches


def test_the_largest_patch_is_the_median_image_rounded_down_to_whole_tokens():
    assert list_patches((1.0, 1.0, 1.0), (36, 50, 35), (8, 8, 8))[0] == (32, 48, 32)


def test_a_large_image_is_cut_to_a_cube_in_mm():
    largest = list_patches((1.0, 0.5, 0.5), (5000, 5000, 5000), (8, 8, 8))[0]
    edge = (256**3 * 0.25) ** (1 / 3)
    assert largest == tuple(math.floor(edge / mm / 8) * 8 for mm in (1.0, 0.5, 0.5))


def test_the_axis_that_is_largest_in_relation_to_the_image_is_shortened_first():
    chain = list_patches((1.0, 1.0, 1.0), (100, 50, 50), (8, 8, 8))
    assert chain[:4] == [(96, 48, 48), (88, 48, 48), (88, 40, 48), (88, 40, 40)]  # 0.96 each; then 0.88 and 0.96


@given(IMAGES)
def test_patches_shrink_one_token_at_a_time_down_to_four(image):
    spacing, shape = image
    token = token_of(choose_strides(spacing, shape))
    chain = list_patches(spacing, shape, token)
    for larger, smaller in pairwise(chain):
        steps = [a - b for a, b in zip(larger, smaller, strict=True)]
        assert sorted(zip(steps, token, strict=True))[-1][0] > 0
        assert sum(step > 0 for step in steps) == 1
    for patch in chain:
        assert all(voxels % size == 0 and voxels > 0 for voxels, size in zip(patch, token, strict=True))
    assert all(voxels <= 4 * size for voxels, size in zip(chain[-1], token, strict=True))


# ------------------------------------------------------------------------------------------ candidates


@given(IMAGES, st.sampled_from(["cpu", "gpu"]), st.floats(1, 1e10), st.booleans())
def test_no_candidate_is_smaller_than_the_one_before(image, device, batch_voxels, timed):
    spacing, shape = image
    chain = list_patches(spacing, shape, token_of(choose_strides(spacing, shape)))
    order = SEARCH_ORDERS[device, len(shape)]
    candidates = list_candidates(order, chain, batch_voxels, BLOCKS, timed=timed)
    for below, above in pairwise(candidates):
        assert below.whole_schedule <= above.whole_schedule
        sizes = [(trunk.stem, trunk.width, trunk.depth, trunk.heads) for trunk in (below.trunk, above.trunk)]
        assert all(a <= b for a, b in zip(*sizes, strict=True))
        assert below != above
        assert all(a <= b for a, b in zip(below.patch_size, above.patch_size, strict=True))
        assert below.batch_size <= above.batch_size
        assert TRUNKS.index(below.trunk) <= TRUNKS.index(above.trunk)
        assert BLOCKS.index(below.block) <= BLOCKS.index(above.block)
    assert candidates[0].block == SMOLLM2
    assert candidates[-1].block == (BLOCKS[-1] if device == "gpu" else SMOLLM2)  # a CPU's time is for the trunk
    if order.voxels_per_step:
        most = max(math.prod(chain[-1]) * order.batch_size, order.voxels_per_step)
        assert all(r.patch_voxels * r.batch_size <= most for r in candidates if not r.whole_schedule)
    assert timed or not any(each.whole_schedule for each in candidates)


GROWTH = {
    ("gpu", 3): "patch to 128^3, width 384, batch 4, block, patch to 192^3, width 768, batch 8, patch to 256^3",
    ("gpu", 2): "patch to 512^2, batch 12, width 384, block, patch to 1024^2, batch 24, width 768, patch to 2048^2",
    (
        "cpu",
        3,
    ): "patch to 64^3, patch to 96^3, depth 8, width 384, batch 4, patch to 128^3, depth 12, width 768, batch 8",
    (
        "small images",
        3,
    ): "patch to 64^3, depth 6, patch to 96^3, depth 8, width 384, batch 4, patch to 128^3, depth 12, "
    "width 768, batch 8",
    ("cpu", 2): "patch to 320^2, batch 5, patch to 512^2, depth 8, width 384, batch 16, patch to 1024^2, depth 12, "
    "width 768",
}


@pytest.mark.parametrize(("device", "dimensions"), GROWTH)
def test_candidates_grow_in_the_order_of_the_document(device, dimensions):
    """For an image that is larger than any patch: what grows, one after the other, and where each growth ends."""
    spacing, shape, token = (1.0,) * dimensions, (4000,) * dimensions, ((16, 16) if dimensions == 2 else (8, 8, 8))
    order = CPU_3D_SMALL_IMAGES if device == "small images" else SEARCH_ORDERS[device, dimensions]
    candidates = list_candidates(order, list_patches(spacing, shape, token), 1e12, BLOCKS, timed=True)
    told: list[str] = []
    for below, above in pairwise(candidates):
        if above.patch_size != below.patch_size:
            now = f"patch to {round(above.patch_voxels ** (1 / dimensions))}^{dimensions}"
        elif above.batch_size != below.batch_size:
            now = f"batch {above.batch_size}"
        elif above.trunk.width != below.trunk.width:
            now = f"width {above.trunk.width}"
        elif above.trunk != below.trunk:
            now = f"depth {above.trunk.depth}"
        else:
            now = "block"
        if told and told[-1].split()[0] == now.split()[0] and now.split()[0] in ("patch", "batch", "block"):
            same = not (now.startswith("patch") and (above.whole_schedule != below.whole_schedule))
            told = told[:-1] if same else told
        told.append(now)
    assert ", ".join(told) == GROWTH[device, dimensions]


def test_an_image_of_a_handful_of_tokens_keeps_the_small_trunk():
    assert limit_trunk([(16, 16, 16)], (8, 8, 8)) == SMALL  # 8 tokens
    assert limit_trunk([(64, 48)], (16, 16)) is None  # 12: a slice of Hippocampus
    tiny = list_candidates(SEARCH_ORDERS["gpu", 3], [(8, 8, 8)], 1e9, BLOCKS, largest=SMALL)
    assert {each.trunk for each in tiny} == {SMALL}
    assert tiny[-1].batch_size == 8


def test_small_datasets_keep_small_batches():
    chain = list_patches((1.0, 1.0, 1.0), (36, 50, 35), (8, 8, 8))
    assert list_candidates(SEARCH_ORDERS["gpu", 3], chain, batch_voxels=3 * 32 * 48 * 32)[-1].batch_size == 3


# ------------------------------------------------------------------------------------------ search

CANDIDATES = [Candidate((n,), n, SMALL) for n in range(1, 60)]


@given(st.lists(st.integers(1, 1000), min_size=59, max_size=59), st.integers(1, 40_000), st.floats(0.1, 10))
def test_the_largest_candidate_that_fits_is_found_however_bad_the_guess(steps, memory, bias):
    costs = {rung: sum(steps[: n + 1]) for n, rung in enumerate(CANDIDATES)}
    affordable = [rung for rung in CANDIDATES if costs[rung] <= memory]
    guess = {rung: max(1, int(bias * 500 * (n + 1))) for n, rung in enumerate(CANDIDATES)}
    found = find_largest_that_fits(CANDIDATES, costs.__getitem__, guess.__getitem__, memory)
    assert found == (affordable[-1] if affordable else None)


def test_a_good_guess_needs_few_looks():
    looks = []

    def cost(rung):
        looks.append(rung)
        return 1000 * rung.batch_size + 70

    found = find_largest_that_fits(CANDIDATES, cost, lambda rung: 600 * rung.batch_size, 33_333)
    assert found.batch_size == 33
    assert len(looks) <= 4
