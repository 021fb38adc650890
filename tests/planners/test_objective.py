"""More memory or more time never gives a smaller patch, batch, trunk or block, from 2 to 80 GB.

With estimates for measurements, so that hundreds of budgets can be tried.
"""

from __future__ import annotations

import math
from functools import partial

import pytest
from fingerprints import BANK, DECATHLON, fingerprint_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_auto import planners
from mvl_auto.planners import Budget
from mvl_auto.planners.cost.estimate import estimate_memory, estimate_work
from mvl_auto.plans import Configuration, Plan

GB = 10**9
DATASETS = {
    task.task: fingerprint_of(tuple(int(n) for n in task.size), task.spacing, task.cases, task.channels)
    for task in DECATHLON
} | {"pictures": fingerprint_of((1, 700, 900), cases=500, channels=("R", "G", "B"))}
ALWAYS = ("2d", "3d_fullres")  # a low resolution, and with it the cascade, is there while the full one does not fit
MEMORY = st.integers(2 * GB, 80 * GB)
SECONDS = st.floats(60, 3e6)  # a minute to a month

plan = partial(planners.plan, step_memory=estimate_memory)  # estimated, not measured: the search is the same


def seconds_of(step) -> float:
    """A device of 10^12 multiplications a second, with a tenth of a second a step beside."""
    return 0.1 + 3 * estimate_work(step) / 1e12


def planned(name: str, memory: int, device: str, seconds: float | None = None) -> Plan:
    return plan(DATASETS[name], Budget(memory, device, seconds), blocks=BANK, step_seconds=seconds_of)


def greatness(configuration: Configuration) -> tuple[int, ...]:
    network = configuration.network
    block = network.llm.hidden_size or 0
    stem = network.stem_channels
    trunk = (network.width, network.depth, network.heads, len(stem) and stem[0])
    return (*configuration.patch_size, configuration.batch_size, *trunk, block)


def assert_nothing_shrinks(smaller: Plan, larger: Plan) -> None:
    assert {name for name in ALWAYS if name in smaller.configurations} <= larger.configurations.keys()
    for name in smaller.configurations.keys() & larger.configurations.keys():
        one, other = smaller.configuration(name), larger.configuration(name)
        assert all(a >= b for a, b in zip(one.spacing, other.spacing, strict=True)), (name, "becomes coarser")
        if one.spacing == other.spacing:
            before, after = greatness(one), greatness(other)
            assert all(a <= b for a, b in zip(before, after, strict=True)), (name, before, after)
        else:
            assert name == "3d_lowres"


def test_a_configuration_that_is_lost_counts_as_less():
    whole = planned("Spleen", 8 * GB, "gpu")
    without = {name: each for name, each in whole.configurations.items() if name != "3d_fullres"}
    with pytest.raises(AssertionError):
        assert_nothing_shrinks(whole, whole.model_copy(update={"configurations": without}))


@settings(max_examples=60)
@given(st.sampled_from(sorted(DATASETS)), st.sampled_from(["gpu", "cpu"]), MEMORY, MEMORY)
def test_more_memory_never_gives_less(name, device, one, other):
    low, high = sorted((one, other))
    assert_nothing_shrinks(planned(name, low, device), planned(name, high, device))


@settings(max_examples=60)
@given(st.sampled_from(sorted(DATASETS)), st.sampled_from(["gpu", "cpu"]), MEMORY, SECONDS, SECONDS)
def test_more_time_never_gives_less(name, device, memory, one, other):
    low, high = sorted((one, other))
    assert_nothing_shrinks(planned(name, memory, device, low), planned(name, memory, device, high))


@settings(max_examples=30)
@given(st.sampled_from(sorted(DATASETS)), MEMORY, MEMORY, SECONDS)
def test_more_memory_never_gives_less_in_the_same_time(name, one, other, seconds):
    low, high = sorted((one, other))
    assert_nothing_shrinks(planned(name, low, "gpu", seconds), planned(name, high, "gpu", seconds))


def test_the_budgets_tried_do_make_a_difference():
    sizes = [greatness(planned("Spleen", gb * GB, "gpu").configuration("3d_fullres")) for gb in (2, 4, 8, 16, 24, 80)]
    assert len(set(sizes)) == len(sizes)
    times = [
        greatness(planned("Spleen", 80 * GB, "gpu", hours * 3600.0).configuration("3d_fullres")) for hours in (1, 20)
    ]
    assert math.prod(times[0][:3]) < math.prod(times[1][:3])
