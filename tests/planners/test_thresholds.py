"""Every rule of the planner at its exact threshold: a comparison that is turned, moved or left out fails here."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from fingerprints import STATISTICS, case_of, fingerprint_of

from mvl_auto.planners import Budget, Overrides, plan
from mvl_auto.planners.cost.estimate import estimate_memory
from mvl_auto.planners.cost.measure import measure_with
from mvl_auto.planners.normalization import normalization_schemes, relative_size_after_crop, use_mask_for_norm
from mvl_auto.planners.planner import DEFAULT_LLM, NO_OVERRIDES
from mvl_auto.planners.presets import CPU_3D, GIB
from mvl_auto.planners.schedule import Difficulty, choose_steps
from mvl_auto.planners.search import choose_strides, list_patches
from mvl_auto.planners.search_space import SearchSpace, build_search_space
from mvl_auto.planners.selection import Selector
from mvl_auto.planners.spacing import coarse_axis, coarser
from mvl_auto.planners.task import describe_task
from mvl_auto.plans import Channel

LARGE = fingerprint_of((300, 300, 300), cases=90)
GPU_RESERVED = 1 << 30  # bytes: CUDA's context and workspaces


def space_of(budget: Budget, memory=estimate_memory, seconds=None, dataset=LARGE) -> SearchSpace:
    task = describe_task(dataset, budget, DEFAULT_LLM, NO_OVERRIDES, (), measure_with(memory, seconds))
    return build_search_space(task, "3d_fullres", task.spacing)


def process_bytes(space: SearchSpace, position: int) -> int:
    """The memory of a GPU's process, by the document's words: 5 % over the tensors, and 1 GiB."""
    return GPU_RESERVED + round(1.05 * estimate_memory(space.training_step(space.candidates[position])))


# ------------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize("position", [0, 3, 20])
def test_a_candidate_that_takes_the_budget_to_the_byte_fits_and_one_byte_more_does_not(position):
    ample = space_of(Budget(80 * GIB, "gpu"))
    exact = process_bytes(ample, position)
    assert space_of(Budget(exact, "gpu")).select().candidate == ample.candidates[position]
    if position:
        assert space_of(Budget(exact - 1, "gpu")).select().candidate == ample.candidates[position - 1]


@pytest.mark.parametrize(("device", "mixed"), [("gpu", True), ("cpu", False)])
def test_steps_are_measured_in_the_precision_of_the_device(device, mixed):
    asked = []

    def memory(step):
        asked.append(step)
        return estimate_memory(step)

    space = space_of(Budget(3 * GIB if device == "gpu" else GIB, device), memory)
    assert space.training_step(space.candidates[0]).mixed_precision is mixed
    space.select()
    assert {step.mixed_precision for step in asked} == {mixed}


def test_where_the_estimate_leaves_a_doubt_the_measurement_decides():
    """Within a factor of 1.25 of the budget either way: measured; beyond, never."""
    ample = space_of(Budget(80 * GIB, "gpu"))
    position, asked = 30, []
    exact = process_bytes(ample, position)

    def much(step):
        asked.append(step)
        return 100 * GIB

    assert not space_of(Budget(exact, "gpu"), much).fits(position)
    assert asked
    asked.clear()
    assert space_of(Budget(math.ceil(1.25 * exact), "gpu"), much).fits(position)  # so surely that nobody measures
    assert not asked
    assert not space_of(Budget(math.floor(exact / 1.25) - 1, "gpu"), lambda step: 1).fits(position)  # as surely not
    assert space_of(Budget(math.ceil(exact / 1.25) + 1, "gpu"), lambda step: 1).fits(position)


def test_what_is_selected_is_measured_unless_its_estimate_is_far_below_the_budget():
    last = len(space_of(Budget(80 * GIB, "gpu")).candidates) - 1
    exact = process_bytes(space_of(Budget(80 * GIB, "gpu")), last)
    sure = space_of(Budget(math.ceil(1.25 * exact), "gpu")).select()
    doubtful = space_of(Budget(math.floor(1.25 * exact) - 1, "gpu")).select()
    assert (sure.measured, doubtful.measured) == (False, True)
    assert sure.memory == doubtful.memory == exact


# ------------------------------------------------------------------------------------------ time


def test_a_time_of_exactly_the_minimum_of_steps_is_enough_and_less_is_not():
    """A step takes as many seconds as the patches of a batch: 2,500 steps on a GPU for an easy task."""
    dataset = fingerprint_of((32, 48, 32), cases=1000)
    space = space_of(Budget(80 * GIB, "gpu", 1.0), seconds=lambda step: float(step.batch_size), dataset=dataset)
    four = next(each for each in space.candidates if each.batch_size == 4)
    selector = space._selector
    assert isinstance(selector, Selector)
    whole = replace(selector, budget=Budget(80 * GIB, "gpu", 4 * 2500.0))
    less = replace(selector, budget=Budget(80 * GIB, "gpu", math.nextafter(4 * 2500.0, 0)))
    assert whole.select(space.candidates).candidate.batch_size == four.batch_size
    assert less.select(space.candidates).candidate.batch_size == 3


# -------------------------------------------------------------------------------- resolution and grids


def test_an_axis_exactly_twice_as_coarse_waits():
    assert choose_strides((2.0, 1.0, 1.0), (64, 64, 64))[0] == (1, 2, 2)
    assert choose_strides((math.nextafter(2.0, 0), 1.0, 1.0), (64, 64, 64))[0] == (2, 2, 2)


def test_an_axis_of_four_voxels_is_halved_and_one_of_three_is_not():
    assert choose_strides((1.0, 1.0, 1.0), (4, 64, 64))[0] == (2, 2, 2)
    assert choose_strides((1.0, 1.0, 1.0), (3, 64, 64))[0] == (1, 2, 2)


def test_thick_slices_are_more_than_three_times_as_thick_and_fewer_than_a_third():
    assert coarse_axis((3.0, 1.0, 1.0), (20, 100, 100)) is None
    assert coarse_axis((3.001, 1.0, 1.0), (20, 100, 100)) == 0
    assert coarse_axis((3.001, 1.0, 1.0), (30, 90, 90)) is None
    assert coarse_axis((3.001, 1.0, 1.0), (29, 90, 90)) == 0


def test_axes_within_twice_the_coarsest_are_coarsened_together():
    assert coarser((2.0, 1.0, 1.0)) == pytest.approx((2.06, 1.03, 1.03))
    assert coarser((2.001, 1.0, 1.0)) == pytest.approx((2.001, 1.03, 1.03))


@pytest.mark.parametrize(("voxels", "patch"), [(47, 40), (48, 48), (55.5, 48), (16, 16)])
def test_a_patch_is_rounded_down_to_whole_tokens(voxels, patch):
    assert list_patches((1.0,) * 3, (voxels,) * 3, (8, 8, 8))[0] == (patch,) * 3


def test_the_largest_patch_is_exactly_256_voxels_wide():
    assert list_patches((1.0,) * 3, (4000,) * 3, (8, 8, 8))[0] == (256, 256, 256)
    assert list_patches((0.7,) * 2, (4000,) * 2, (16, 16))[0] == (2048, 2048)


# ------------------------------------------------------------------------------------------ intensities


@pytest.mark.parametrize(
    ("low", "high", "scheme"),
    [
        (0.0, 255.0, "rgb_to_0_1"),
        (-0.5, 255.0, "z_score"),
        (0.0, 255.5, "z_score"),
        (-255.0, 0.0, "z_score"),
    ],
)
def test_colours_are_bytes_from_0_to_255(low, high, scheme):
    statistics = STATISTICS.model_copy(update={"min": low, "max": high})
    names = [Channel(name=name) for name in "RGB"]
    assert normalization_schemes(names, [statistics] * 3) == (scheme,) * 3


def test_each_channel_is_judged_by_its_own_statistics():
    outside = STATISTICS.model_copy(update={"max": 300.0})
    names = [Channel(name=name) for name in ("R", "G", "B")]
    assert normalization_schemes(names, [STATISTICS, outside, STATISTICS]) == ("rgb_to_0_1", "z_score", "rgb_to_0_1")


def test_a_plan_keeps_the_statistics_of_each_channel_in_order():
    own = tuple(STATISTICS.model_copy(update={"mean": float(n)}) for n in range(3))
    dataset = fingerprint_of(channels=("CT", "CT", "T1"))
    dataset = dataset.model_copy(update={"foreground_intensity_properties_per_channel": own})
    assert plan(dataset, Budget(8 * GIB)).foreground_intensity_properties_per_channel == own


def test_it_is_the_median_crop_that_decides_about_the_mask_and_not_the_mean():
    cases = [
        case_of(str(n), (1, 1, 100), (1, 1, 1), shape_after_crop=(1, 1, left)) for n, left in enumerate((10, 80, 80))
    ]
    assert relative_size_after_crop(cases) == pytest.approx(0.8)  # the mean is 0.57
    assert use_mask_for_norm(("z_score",), cases) == (False,)


# ------------------------------------------------------------------------------- what follows from the task


def test_an_object_of_three_permille_is_not_rare_and_a_smaller_one_is():
    assert Difficulty(1.0, 0.003).rarity == 1.0
    assert Difficulty(1.0, 0.003 / 4).rarity == pytest.approx(2.0)


@pytest.mark.parametrize(("cases", "batch"), [(59, 2), (60, 3), (79, 3), (80, 4)])
def test_a_batch_may_hold_exactly_a_twentieth_of_the_dataset(cases, batch):
    whole = fingerprint_of((32, 48, 32), cases=cases)
    assert plan(whole, Budget(40 * GIB, "gpu")).configuration().batch_size == batch


@pytest.mark.parametrize(("labels", "over_batch"), [(7, False), (8, True)])
def test_from_eight_labels_on_dice_is_taken_over_the_batch(labels, over_batch):
    names = ["background", *(f"organ {n}" for n in range(labels))]
    planned = plan(fingerprint_of(labels=names), Budget(8 * GIB))
    full = planned.configuration("3d_fullres")
    assert full.batch_dice is over_batch
    assert planned.configuration("2d").batch_dice
    assert full.reasons["batch_dice"].startswith("Dice over all patches" if over_batch else "Dice of each patch")


def test_beside_a_low_resolution_dice_is_taken_over_the_batch_but_not_in_it():
    planned = plan(LARGE, Budget(8 * GIB))
    flags = {name: each.batch_dice for name, each in planned.configurations.items()}
    assert flags == {"3d_fullres": True, "3d_lowres": False, "3d_cascade_fullres": True, "2d": True}


@pytest.mark.parametrize(("width", "heads"), [(192, 3), (384, 6), (768, 12), (100, 1), (63, 1), (320, 5), (200, 2)])
def test_heads_have_64_channels_where_that_divides_the_width(width, heads):
    chosen = plan(fingerprint_of(), Budget(8 * GIB), overrides=Overrides(width=width)).configuration()
    assert chosen.network.heads == heads


@pytest.mark.parametrize(("degree", "steps"), [(1.0, 1000), (1.2344, 1234), (1.2346, 1235), (10.0, 10_000)])
def test_the_steps_are_those_of_an_easy_task_times_the_degree_to_the_nearest(degree, steps):
    difficulty = Difficulty(5.0 * (12 / 5) ** ((degree - 1) / 9))
    assert difficulty.degree == pytest.approx(degree)
    assert choose_steps(difficulty, replace(CPU_3D, steps=1000)) == steps
