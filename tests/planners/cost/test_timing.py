"""A budget of time: the largest network that leaves enough steps, and steps that end with the time."""

from __future__ import annotations

import math

import pytest
from fingerprints import fingerprint_of
from hypothesis import given
from hypothesis import strategies as st
from memory_grid import step_of
from networks import tiny

from mvl_auto.errors import MvlError
from mvl_auto.planners import Budget, Overrides, budget_here, plan, preset_budget, time_step
from mvl_auto.planners.cost.measure import measure_with
from mvl_auto.planners.planner import DEFAULT_LLM, NO_OVERRIDES
from mvl_auto.planners.presets import CPU_3D, CPU_MIN_STEPS, CPU_MIN_STEPS_2D, GIB, GPU_MIN_STEPS
from mvl_auto.planners.schedule import steps_in
from mvl_auto.planners.search_space import build_search_space
from mvl_auto.planners.spacing import coarsened
from mvl_auto.planners.task import describe_task
from mvl_auto.plans import LlmSettings, Plan

HIPPOCAMPUS = fingerprint_of((36, 50, 35), cases=260)
LIVER = fingerprint_of((482, 512, 512), (1.0, 0.77, 0.77), cases=131)


class Device:
    """A device of which a step takes 1 s for so many voxels, whatever the network. Remembers what it was asked."""

    def __init__(self, voxels_per_second: float) -> None:
        self.speed = voxels_per_second
        self.asked: list[float] = []

    def __call__(self, step) -> float:
        seconds = step.patch_voxels * step.batch_size / self.speed
        self.asked.append(seconds)
        return seconds


def planned(fingerprint, seconds, device, memory=10_000 * GIB, kind="cpu", **more) -> Plan:
    return plan(fingerprint, Budget(memory, kind, seconds), step_seconds=device, **more)


WHOLE = 32 * 48 * 32  # voxels of the largest patch of a hippocampus


def test_ample_time_buys_the_largest_network_and_is_spent_on_steps():
    chosen = planned(HIPPOCAMPUS, 2000.0, Device(4 * WHOLE)).configuration()  # 0.5 s a step at batch 2
    assert (chosen.patch_size, chosen.batch_size, chosen.steps) == ((32, 48, 32), 2, 4000)
    assert "33 min at about 0.5 s a step" in chosen.reasons["iterations"]


def test_where_time_is_short_the_network_shrinks_until_the_least_steps_are_bought():
    chosen = planned(HIPPOCAMPUS, float(CPU_MIN_STEPS), Device(2 * WHOLE)).configuration()  # batch 2 takes 1 s
    assert (chosen.patch_size, chosen.batch_size, chosen.steps) == ((32, 48, 32), 2, CPU_MIN_STEPS)
    shorter = planned(HIPPOCAMPUS, CPU_MIN_STEPS * 0.7, Device(2 * WHOLE)).configuration()
    assert math.prod(shorter.patch_size) < WHOLE
    assert shorter.steps >= CPU_MIN_STEPS
    assert "steps take too long" in shorter.reasons["memory"]


def test_a_hard_task_must_have_more_steps():
    easy, hard = (planned(dataset, 36_000.0, Device(500_000.0), kind="gpu") for dataset in (HIPPOCAMPUS, LIVER))
    assert easy.configuration().steps >= GPU_MIN_STEPS
    assert hard.configuration("3d_fullres").steps >= 9 * GPU_MIN_STEPS


def test_time_for_hardly_a_step_is_planned_with_the_smallest_network_and_says_so():
    chosen = planned(HIPPOCAMPUS, 3.0, Device(1000.0)).configuration()
    assert (chosen.batch_size, chosen.steps) == (2, 1)
    assert f"too few, at least {CPU_MIN_STEPS} steps" in chosen.reasons["iterations"]


@given(st.floats(1e3, 1e7), st.floats(10, 1e6))
def test_no_larger_network_is_planned_than_leaves_the_least_steps_and_none_smaller(speed, seconds):
    """For whole pictures only the batch grows, so what should be chosen can be said without searching."""
    whole = fingerprint_of((1, 64, 96), cases=1000)
    patch = Overrides(patch_size=(64, 96))
    chosen = planned(whole, seconds, Device(speed), overrides=patch).configuration()
    paid = [n for n in range(4, 17) if n * 64 * 96 / speed * CPU_MIN_STEPS_2D <= seconds]
    assert chosen.batch_size == max([*paid, 4])


def test_a_cpu_with_days_of_time_gets_a_larger_network_and_with_minutes_does_not():
    """Beyond the plan without a time, only while the time buys all the steps of that plan, 5000."""

    def seconds(step):
        return step.patch_voxels * step.batch_size * step.settings.width * step.settings.depth / 4e8

    default = plan(HIPPOCAMPUS, Budget(8 * GIB)).configuration()
    brief, long = (planned(HIPPOCAMPUS, time, seconds).configuration() for time in (1000.0, 30 * 86_400.0))
    assert (brief.patch_size, brief.batch_size, brief.network) == (default.patch_size, 2, default.network)
    assert (long.network.width, long.network.depth, long.batch_size) == (768, 12, 8)
    between = planned(HIPPOCAMPUS, 3000.0, seconds).configuration()
    assert (between.network.width, between.network.depth) == (192, 8)
    assert between.steps >= CPU_3D.steps
    hard = planned(LIVER, 30 * 86_400.0, seconds).configuration("3d_fullres")
    assert math.prod(hard.patch_size) > 80**3
    assert hard.network.width >= 384


@pytest.mark.parametrize(("seconds", "speed"), [(None, 1.0), (600.0, 1e6), (7200.0, 1e6), (86_400.0, 3e5)])
def test_the_low_resolution_is_the_first_at_which_a_patch_covers_a_quarter(seconds, speed):
    """As nnU-Net seeks it: one step of 3 % after the other, each time with the patch that is paid for there."""
    device = None if seconds is None else Device(speed)
    budget = Budget(10_000 * GIB, "cpu", seconds)
    task = describe_task(LIVER, budget, DEFAULT_LLM, NO_OVERRIDES, (), measure_with(seconds=device))
    for steps in range(1, 200):
        spacing = coarsened(task.spacing, steps)
        there = build_search_space(task, "3d_lowres", tuple(round(mm, 6) for mm in spacing))
        patch = there.select().candidate.patch_size
        if math.prod(patch) * math.prod(spacing) / (482 * 512 * 512 * math.prod(task.spacing)) >= 0.25:
            break
    found = planned(LIVER, seconds, device).configuration("3d_lowres")
    assert found.spacing == there.spacing
    assert found.patch_size == patch
    assert math.prod(patch) / math.prod(found.median_image_size_in_voxels) < 0.3


def test_the_plan_keeps_its_time_and_one_without_has_none():
    assert planned(HIPPOCAMPUS, 600.0, Device(1e6)).time_budget == 600
    assert plan(HIPPOCAMPUS, Budget(8 * GIB)).time_budget is None


def test_the_same_speed_gives_the_same_bytes_and_a_little_noise_does_too():
    one, same, close = (planned(HIPPOCAMPUS, 1800.0, Device(speed)) for speed in (1e6, 1e6, 1.003e6))
    assert one.model_dump_json() == same.model_dump_json()
    assert one.configuration() == close.configuration()


def test_few_steps_are_timed():
    device = Device(30_000.0)
    planned(LIVER, 36_000.0, device, kind="gpu")
    assert (
        len(device.asked) < 60
    )  # of several hundred rungs, in four configurations and a search for the low resolution


def test_no_step_is_timed_that_takes_far_too_long():
    device = Device(30_000.0)
    planned(LIVER, 36_000.0, device, kind="gpu")
    longest = 36_000.0 / (10 * GPU_MIN_STEPS)  # the task is ten times as hard as an easy one
    assert max(device.asked) < max(4 * longest, 1.01 * min(device.asked))


def test_time_without_a_device_to_ask_is_a_bug():
    with pytest.raises(ValueError, match="step_seconds"):
        plan(HIPPOCAMPUS, Budget(8 * GIB, seconds=60.0))


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
def test_no_time_is_no_budget(seconds):
    with pytest.raises(MvlError, match="time budget"):
        Budget(GIB, seconds=seconds)


def test_a_gpus_preset_knows_no_speed_and_a_cpus_does():
    with pytest.raises(MvlError, match=r"preset M plans for any GPU.*--memory 16GiB with --time"):
        preset_budget("M", seconds=60.0)
    assert preset_budget("cpu", seconds=60.0) == budget_here(device="cpu", seconds=60.0)
    with pytest.raises(MvlError, match="S, M, L, XL, cpu"):
        preset_budget("XXL")


def test_a_time_and_a_number_of_steps_are_one_too_many():
    with pytest.raises(MvlError, match="both say how long"):
        planned(HIPPOCAMPUS, 60.0, Device(1e6), overrides=Overrides(steps=5))


@given(st.floats(0.01, 1e6), st.floats(1e-4, 1e3))
def test_steps_are_told_to_two_digits(seconds, step_seconds):
    steps = steps_in(seconds, step_seconds)
    assert len(str(steps).rstrip("0")) <= 2
    assert steps == pytest.approx(max(1, seconds / step_seconds), rel=0.051, abs=0.5)


# ------------------------------------------------------------------------------------------ the clock


def test_a_real_step_takes_time_and_a_larger_one_more():
    llm = LlmSettings(source="auto", hidden_size=64)
    small = time_step(step_of(tiny(llm=llm), (16, 16, 16), 1, 1, 3, False), "cpu")
    large = time_step(step_of(tiny(llm=llm, depth=8), (64, 64, 64), 4, 1, 3, False), "cpu")
    assert 0 < small < large  # 256 times the voxels


def test_adapters_and_shuffled_blocks_can_be_timed():
    llm = LlmSettings(source="auto", hidden_size=64, lora_rank=2, control="permuted")
    assert time_step(step_of(tiny(2, llm=llm), (32, 32), 1, 1, 2, False), "cpu") > 0
