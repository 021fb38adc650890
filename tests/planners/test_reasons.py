"""Whether what a plan says of its numbers is true of them, for datasets and budgets of all kinds."""

from __future__ import annotations

import math
import re
from functools import partial

import pytest
from fingerprints import BANK, DECATHLON, case_of, fingerprint_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_auto import planners
from mvl_auto.cli.plan_and_preprocess import reasons as table_of_reasons
from mvl_auto.planners import Budget, Overrides
from mvl_auto.planners.cost.estimate import estimate_memory
from mvl_auto.planners.presets import GIB
from mvl_auto.planners.reasons import values
from mvl_auto.plans import Configuration, Fingerprint, Plan

plan = partial(planners.plan, step_memory=estimate_memory)  # estimated, not measured: the search is the same
MM, VOXELS = st.sampled_from([0.5, 0.8, 1.0, 2.5, 5.0]), st.integers(12, 400)
SIZES = st.tuples(VOXELS, VOXELS, VOXELS)
BUDGETS = st.builds(
    Budget, st.integers(3 * GIB, 60 * GIB), st.sampled_from(["cpu", "gpu"]), st.none() | st.floats(600, 1e6)
)


def dataset(size, spacings, thing: float) -> Fingerprint:
    """A case per spacing of the first axis. thing: share of an image that its one object takes."""
    voxels = math.prod(size)
    counts = {"class_voxels": (voxels - round(thing * voxels), round(thing * voxels))}
    cases = tuple(case_of(f"c{n}", size, (mm, 1.0, 0.7), **counts) for n, mm in enumerate(spacings))
    return fingerprint_of().model_copy(update={"cases": cases})


def seconds_of(step) -> float:
    return step.patch_voxels * step.batch_size * step.settings.width * step.settings.depth / 1e9


def figure(pattern: str, told: str) -> float:
    found = re.search(pattern, told)
    assert found, (pattern, told)
    return float(found.group(1))


def covered(configuration: Configuration) -> float:
    median = configuration.median_image_size_in_voxels[-configuration.dimensions :]
    return 100 * math.prod(configuration.patch_size) / math.prod(median)


@settings(max_examples=60)
@given(SIZES, st.lists(MM, min_size=1, max_size=12), st.floats(1e-4, 0.5), BUDGETS)
def test_the_figures_in_the_reasons_are_those_of_the_plan(size, spacings, thing, budget):
    planned = plan(dataset(size, spacings, thing), budget, blocks=BANK, step_seconds=seconds_of)
    for name, configuration in planned.configurations.items():
        why, network = configuration.reasons, configuration.network
        _assert_patch_and_batch(configuration)
        assert figure(r"(\d+) channels each", why["heads"]) * network.heads == network.width
        assert figure(r"trunk, (\d+) at", why["stem_channels"]) == min(network.stem_channels)
        assert figure(r"^([\d.]+) GB", why["memory"]) <= budget.memory / 1e9 + 0.01
        assert figure(r"of a budget of ([\d.]+) GB", why["memory"]) == pytest.approx(budget.memory / 1e9, abs=0.01)
        hard = figure(r"steps of an easy task times ([\d.]+)", why["iterations"])
        if budget.seconds is None:
            assert figure(r"^(\d+) steps", why["iterations"]) * hard == pytest.approx(configuration.steps, rel=0.01)
        else:
            per_step = figure(r"about ([\d.e+-]+) s a step", why["iterations"])
            assert per_step * configuration.steps == pytest.approx(budget.seconds, rel=0.06)
        if name == "3d_lowres":
            assert figure(r"it covers ([\d.]+) %", why["spacing"]) == pytest.approx(covered(configuration), rel=0.01)
        elif "percentile: " in why["spacing"] and "not finer" not in why["spacing"]:
            assert figure(r"percentile: ([\d.]+) mm", why["spacing"]) == pytest.approx(
                configuration.spacing[0], rel=1e-4
            )
        elif "percentile" not in why["spacing"]:
            medians = sorted((float(_median(spacings)), 1.0, 0.7))
            axes = configuration.spacing[-configuration.dimensions :]
            assert all(any(mm == pytest.approx(each) for each in medians) for mm in axes)
        if "no larger than 3d_fullres" in why["memory"]:
            assert name == "3d_cascade_fullres"
    assert sum("recommended" in each.reasons for each in planned.configurations.values()) == 1


def _median(numbers) -> float:
    ordered, half = sorted(numbers), len(numbers) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _assert_patch_and_batch(configuration: Configuration) -> None:
    why, voxels = configuration.reasons, math.prod(configuration.patch_size)
    if "covers all" in why["patch_size"]:
        median = configuration.median_image_size_in_voxels[-configuration.dimensions :]
        assert configuration.patch_size == median
    else:
        assert figure(r"covers ([\d.e+-]+) %", why["patch_size"]) == pytest.approx(covered(configuration), rel=0.01)
    assert figure(r"^(\d+) voxels a step", why["batch_size"]) == voxels * configuration.batch_size
    for told in (why["patch_size"], why["batch_size"], why["memory"]):
        if "batch" in told and "next would be" in told:
            grown = re.search(r"next would be batch (\d+)", told)
            assert grown is None or int(grown.group(1)) == configuration.batch_size + 1
        if found := re.search(r"next would be patch ([\d x]+\d)", told):
            patch = tuple(int(n) for n in found.group(1).split(" x "))
            assert sum(a != b for a, b in zip(patch, configuration.patch_size, strict=True)) >= 1
            assert all(a >= b for a, b in zip(patch, configuration.patch_size, strict=True))


def test_memory_and_time_are_named_where_they_end_the_search():
    large = fingerprint_of((400, 400, 400), cases=100)
    short = plan(large, Budget(6 * GIB, "gpu")).configuration("3d_fullres")
    assert re.search(r"next would be .*, which needs too much memory$", short.reasons["memory"])
    brief = plan(large, Budget(600 * GIB, "gpu", 40_000.0), step_seconds=seconds_of).configuration("3d_fullres")
    assert ", whose steps take too long" in brief.reasons["memory"]
    small = plan(fingerprint_of(), Budget(60 * GIB)).configuration("3d_fullres")
    assert "no larger network is considered" in small.reasons["memory"]


@pytest.mark.parametrize("task", [task for task in DECATHLON if task.task in ("HepaticVessel", "Spleen", "Prostate")])
def test_thick_slices_are_said_to_have_the_tenth_percentile(task):
    """Of Spleen and HepaticVessel the target itself is no longer thrice as coarse as the other axes."""
    cases = [case_of(f"a{n}", task.raw_size, task.spacing) for n in range(5)]
    cases += [case_of(f"b{n}", task.raw_size, task.raw_spacing) for n in range(16)]
    planned = plan(fingerprint_of().model_copy(update={"cases": tuple(cases)}), Budget(8 * GIB))
    told = planned.configuration("3d_fullres").reasons["spacing"]
    assert f"median of {task.raw_spacing[0]:g} mm" in told
    assert f"10th percentile: {planned.configuration('3d_fullres').spacing[0]:g} mm" in told
    assert planned.configuration("2d").reasons["spacing"] == "median of 21 cases"  # in plane
    isotropic = plan(fingerprint_of(), Budget(8 * GIB)).configuration()
    assert isotropic.reasons["spacing"] == "median of 20 cases"


def test_the_order_of_axes_is_told_as_it_is():
    equal = plan(fingerprint_of(), Budget(8 * GIB)).configuration()
    assert equal.reasons["transpose_forward"] == "unchanged: all axes are equally coarse"
    turned = plan(fingerprint_of((90, 90, 30), (1.0, 1.0, 2.0)), Budget(8 * GIB)).configuration()
    assert turned.reasons["transpose_forward"].startswith("axis 2 comes first: it is the coarsest, 2 mm")
    flat = plan(fingerprint_of((90, 90, 1)), Budget(8 * GIB)).configuration()
    assert flat.reasons["transpose_forward"] == "axis 2 comes first: it has one voxel"


def test_numbers_by_hand_leave_the_others_their_reasons():
    chosen = plan(fingerprint_of((100, 100, 100)), Budget(8 * GIB), overrides=Overrides(depth=2)).configuration()
    assert chosen.reasons["depth"] == "set by the user"
    assert all(
        "64 channels" in chosen.reasons["heads"] and "the small trunk" in chosen.reasons[field]
        for field in ("width", "stem_channels")
    )
    large = plan(fingerprint_of((100, 100, 100)), Budget(8 * GIB), overrides=Overrides(patch_size=(160, 160, 160)))
    assert large.configuration().reasons["batch_size"].startswith("8192000 voxels a step; ")


def test_why_it_is_recommended():
    def told(size, budget) -> str:
        return plan(fingerprint_of(size), budget).configuration().reasons["recommended"]

    assert "2D" in told((1, 90, 90), Budget(8 * GIB))
    assert "covers 0.191 % of the median image, and below 2%" in told((516, 516, 516), Budget(8 * GIB))
    assert "on a GPU" in told((516, 516, 516), Budget(8 * GIB, "gpu"))
    assert "no lower resolution is planned" in told((64, 64, 64), Budget(8 * GIB))


def test_the_table_has_each_number_with_its_value(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    planned: Plan = plan(fingerprint_of((110, 160, 160), (3.0, 1.0, 1.0)), Budget(8 * GIB))
    lines = table_of_reasons(planned).splitlines()
    chosen = planned.configuration("3d_fullres")
    assert re.match(r"field +value +reason$", lines[2])
    first = next(line for line in lines if line.startswith("patch_size"))
    assert re.match(r"patch_size +" + " x ".join(map(str, chosen.patch_size)) + r" +covers ", first)
    assert values(planned, chosen)["strides"] == "1 x 2 x 2, 2 x 2 x 2, 2 x 2 x 2"
    assert values(planned, chosen)["depth"] == "6"
    for configuration in planned.configurations.values():
        assert values(planned, configuration).keys() == configuration.reasons.keys()
