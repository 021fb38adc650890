"""Plans: what was measured to work, byte for byte the same, never smaller for more memory."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from fingerprints import DECATHLON, case_of, fingerprint_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_auto.errors import MvlError
from mvl_auto.network import build_network
from mvl_auto.planners import Budget, Overrides, budget_here, plan
from mvl_auto.planners.budget import CGROUP_LIMITS
from mvl_auto.planners.presets import CPU_3D, GIB, GPU_3D
from mvl_auto.planners.schedule import Difficulty, mirror_axes, object_share, rate_difficulty
from mvl_auto.plans import LabelScheme, LlmSettings, Plan, read_document, write_document

AMPLE = Budget(8 * GIB)
DECATHLON_BY_NAME = {task.task: task for task in DECATHLON}


def plan_of(task: str, budget: Budget = AMPLE) -> Plan:
    published = DECATHLON_BY_NAME[task]
    size = tuple(int(n) for n in published.size)
    return plan(fingerprint_of(size, published.spacing, published.cases, published.channels), budget)


# ------------------------------------------------------------------------------------- what is planned


def test_hippocampus_on_a_cpu_gets_what_was_measured_to_work():
    planned = plan_of("Hippocampus")
    assert planned.recommended == "3d_fullres"
    chosen = planned.configuration()
    assert (chosen.patch_size, chosen.batch_size, chosen.spacing) == ((32, 48, 32), 2, (1.0, 1.0, 1.0))
    network = chosen.network
    assert (network.stem_channels, network.token_size) == ((16, 32), (8, 8, 8))
    assert (network.width, network.depth, network.heads) == (192, 2, 3)
    assert network.llm == LlmSettings(source="auto", hidden_size=576, tokens="pooled")


@pytest.mark.parametrize("task", [task.task for task in DECATHLON])
def test_a_low_resolution_and_a_cascade_come_together_where_a_patch_covers_little(task):
    planned = plan_of(task, Budget(80 * GIB, "cpu"))
    full = planned.configuration("3d_fullres")
    covers = math.prod(full.patch_size) / math.prod(full.median_image_size_in_voxels)
    assert "2d" in planned.configurations
    assert ("3d_lowres" in planned.configurations) == ("3d_cascade_fullres" in planned.configurations)
    if "3d_lowres" in planned.configurations:
        low = planned.configuration("3d_lowres")
        assert covers < 0.25
        assert 0.24 <= math.prod(low.patch_size) / math.prod(low.median_image_size_in_voxels) < 0.3
        assert planned.configuration("3d_cascade_fullres").previous_stage == "3d_lowres"
        assert planned.configuration("3d_cascade_fullres").patch_size == full.patch_size
    else:
        assert covers >= 0.25 / 2


def test_a_low_resolution_must_be_worth_it():
    """A patch of 64^3 covers 20 % of 110^3: 1.3 times fewer voxels would do, less than the factor 2 that pays."""
    assert list(plan(fingerprint_of((110, 110, 110)), AMPLE).configurations) == ["3d_fullres", "2d"]
    assert "3d_lowres" in plan(fingerprint_of((130, 130, 130)), AMPLE).configurations


def test_a_cpu_is_recommended_the_low_resolution_of_large_images_alone():
    """A patch of 64^3 covers 0.2 % of a liver's CT, 12 % of 130^3: from two percent on the full one is worth it."""
    assert plan_of("Liver").recommended == "3d_lowres"
    middling = plan(fingerprint_of((130, 130, 130)), AMPLE)
    assert "3d_lowres" in middling.configurations
    assert middling.recommended == "3d_fullres"
    assert plan(fingerprint_of((240, 240, 240)), AMPLE).recommended == "3d_lowres"  # 1.9 %
    assert plan(fingerprint_of((230, 230, 230)), AMPLE).recommended == "3d_fullres"  # 2.15 %


def test_a_batch_holds_no_more_than_a_twentieth_of_the_dataset_but_for_the_first():
    ten, sixty, many = (
        plan(fingerprint_of((40, 56, 40), cases=cases), Budget(40 * GIB, "gpu")).configuration().batch_size
        for cases in (10, 60, 300)
    )
    assert (ten, sixty, many) == (2, 3, 8)  # patches are whole images: a twentieth of 60 are 3


def test_a_twentieth_is_of_the_voxels_at_the_configurations_own_resolution():
    """Where the batch may grow, patches have 128^3 voxels; the one image is of 343 million, or of 67 in 3d_lowres."""
    planned = plan(fingerprint_of((700, 700, 700), cases=1), Budget(10_000 * GIB, "gpu"))
    full, low = planned.configuration("3d_fullres"), planned.configuration("3d_lowres")
    assert 0.05 * math.prod(low.median_image_size_in_voxels) < 3 * 128**3
    assert (full.batch_size, low.batch_size) == (4, 2)


def test_the_cascades_second_stage_is_no_larger_than_the_full_resolution():
    """Even on a device that should be faster with more channels."""

    def seconds(step):
        return step.patch_voxels * step.batch_size / step.channels**3 / 50_000

    planned = plan(fingerprint_of((300, 300, 300), cases=90), Budget(80 * GIB, "cpu", 9000.0), step_seconds=seconds)
    full, second = planned.configuration("3d_fullres"), planned.configuration("3d_cascade_fullres")
    assert (second.patch_size, second.batch_size) == (full.patch_size, full.batch_size)
    assert "no larger than 3d_fullres" in second.reasons["memory"]


def rows_of_the_document(heading: str) -> list[list[str]]:
    """Cells of the table below a heading of docs/planner.md."""
    text = (Path(__file__).parents[2] / "docs" / "planner.md").read_text().split(f"## {heading}")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return rows[2:]


@pytest.mark.parametrize("row", rows_of_the_document("The Decathlon, planned"), ids=lambda row: row[0])
def test_the_decathlon_on_a_cpu_is_planned_as_the_document_says(row):
    patch, batch, trunk, steps = row[-1].split(", ")
    chosen = plan_of(row[0]).configuration("3d_fullres")
    assert " x ".join(map(str, chosen.patch_size)) == patch
    assert (chosen.batch_size, chosen.steps) == (int(batch), int(steps))
    assert (chosen.network.width, chosen.network.depth) == {"S": (192, 6), "shallow": (192, 2)}[trunk]
    size = " x ".join(str(round(n)) for n in chosen.median_image_size_in_voxels)
    assert size == row[2]


@pytest.mark.parametrize(("size", "depth", "steps"), [((64, 64, 64), 2, 7500), ((64, 64, 65), 6, 5000)])
def test_on_a_cpu_an_image_that_one_patch_holds_gets_a_shallow_trunk_and_more_steps(size, depth, steps):
    chosen = plan(fingerprint_of(size), AMPLE).configuration("3d_fullres")
    assert (chosen.network.depth, chosen.steps) == (depth, steps)
    assert ("shallow" in chosen.reasons["depth"]) == (depth == 2)
    assert plan(fingerprint_of(size), Budget(8 * GIB, "gpu")).configuration("3d_fullres").network.depth >= 6


def test_flat_images_are_planned_in_2d_alone():
    planned = plan(fingerprint_of((1, 256, 320), channels=("R", "G", "B")), AMPLE)
    assert list(planned.configurations) == ["2d"]
    chosen = planned.configuration()
    assert chosen.patch_size == (256, 320)
    assert chosen.network.dimensions == 2
    assert chosen.normalization_schemes == ("rgb_to_0_1",) * 3


def test_images_that_are_flat_along_another_axis_are_flat():
    planned = plan(fingerprint_of((256, 320, 1)), AMPLE)
    assert list(planned.configurations) == ["2d"]
    assert planned.transpose_forward == (2, 0, 1)
    assert planned.configuration().patch_size == (256, 320)


def test_the_coarse_axis_comes_first_in_all_that_is_planned():
    planned = plan(fingerprint_of((320, 320, 11), (0.5, 0.5, 7.5)), AMPLE)
    chosen = planned.configuration("3d_fullres")
    assert planned.transpose_forward == (2, 0, 1)
    assert chosen.spacing == (7.5, 0.5, 0.5)
    assert chosen.median_image_size_in_voxels == (11, 320, 320)
    assert chosen.network.stem_strides[0] == (1, 2, 2)
    assert chosen.resample_separate_z
    flat = planned.configuration("2d")
    assert flat.network.spacing == (0.5, 0.5)
    assert len(flat.patch_size) == 2


def test_a_dataset_of_one_voxel_is_planned():
    planned = plan(fingerprint_of((1, 1, 1), cases=1), AMPLE)
    assert planned.configuration().patch_size == (1, 1)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("size", [(1, 64, 64), (5, 40, 40), (33, 17, 90), (3, 3, 3), (200, 9, 200)])
def test_what_is_planned_can_be_built_and_sees_its_patch(device, size):
    import torch

    planned = plan(fingerprint_of(size, (2.0, 1.0, 0.7)), Budget(80 * GIB, device), LlmSettings(source="none"))
    for configuration in planned.configurations.values():
        channels = 1 + (configuration.previous_stage is not None)
        with torch.device("meta"):
            network = build_network(configuration.network, channels, 2).eval()
            seen = network(torch.zeros(1, channels, *configuration.patch_size))
        assert seen.shape == (1, 2, *configuration.patch_size)


def test_a_block_of_the_users_choice_is_kept():
    own = LlmSettings(source="random:hidden=64,heads=4,kv_heads=2,ffn=128,seed=0", hidden_size=64)
    planned = plan(fingerprint_of(), AMPLE, own)
    assert all(configuration.network.llm == own for configuration in planned.configurations.values())
    without = plan(fingerprint_of(), AMPLE, LlmSettings(source="none"))
    assert without.configuration().network.llm.hidden_size is None


def test_what_is_chosen_by_hand_stands_and_is_named():
    own = Overrides(patch_size=(16, 24, 8), batch_size=3, width=100, depth=2, steps=77)
    planned = plan(fingerprint_of(), AMPLE, overrides=own)
    chosen = planned.configuration("3d_fullres")
    assert (chosen.patch_size, chosen.batch_size, chosen.steps) == ((16, 24, 8), 3, 77)
    assert (chosen.network.width, chosen.network.depth, chosen.network.heads) == (
        100,
        2,
        1,
    )  # heads of 64 channels do not divide 100
    assert {name for name, why in chosen.reasons.items() if why == "set by the user"} == {
        "patch_size",
        "batch_size",
        "width",
        "depth",
        "iterations",
    }
    assert chosen.reasons["heads"].startswith("100 channels each")
    flat = planned.configuration("2d")
    assert (flat.patch_size, flat.batch_size) == ((48, 32), 3)
    assert "set by the user" not in flat.reasons["patch_size"]


def test_a_batch_by_hand_is_paid_for_with_the_patch():
    dataset, short = fingerprint_of((1, 700, 700), cases=100), Budget(2 * GIB, "gpu")
    few, many = (plan(dataset, short, overrides=Overrides(batch_size=size)).configuration() for size in (4, 12))
    assert (few.batch_size, many.batch_size) == (4, 12)
    assert math.prod(many.patch_size) < math.prod(few.patch_size)


def test_on_a_cpu_too_a_batch_by_hand_is_paid_for_with_the_patch():
    chosen = plan(fingerprint_of((100, 100, 100)), AMPLE, overrides=Overrides(batch_size=16)).configuration()
    assert (chosen.patch_size, chosen.batch_size) == ((32, 32, 32), 16)  # 16 x 32^3 = 524288 of 540000 voxels


def test_what_is_far_too_large_by_hand_is_refused_without_building_it():
    with pytest.raises(MvlError, match=r"the smallest needs about \d{3,} GB. Give more.*override less"):
        plan(fingerprint_of(), AMPLE, overrides=Overrides(depth=1000, width=9600))
    with pytest.raises(MvlError, match="depth 1001 is too large"):
        Overrides(depth=1001)


def test_a_patch_by_hand_is_for_as_many_axes_as_it_has():
    flat = plan(fingerprint_of(), AMPLE, overrides=Overrides(patch_size=(32, 32)))
    assert flat.configuration("2d").patch_size == (32, 32)
    assert "set by the user" not in flat.configuration("3d_fullres").reasons["patch_size"]
    with pytest.raises(MvlError, match=r"the images of this dataset are 2D\. Give Y X"):
        plan(fingerprint_of((1, 90, 90)), AMPLE, overrides=Overrides(patch_size=(8, 32, 32)))
    with pytest.raises(MvlError, match="a patch of 4 axes"):
        Overrides(patch_size=(8, 8, 8, 8))


def test_a_patch_by_hand_is_enlarged_to_whole_tokens_of_the_low_resolution():
    """Slices of 3 mm: the full resolution's tokens are 4 x 8 x 8, those of the coarser one 8 x 8 x 8."""
    thick = fingerprint_of((150, 512, 512), (3.0, 0.78, 0.78))
    own = plan(thick, Budget(8 * GIB), overrides=Overrides(patch_size=(20, 96, 96)))
    assert own.configuration("3d_fullres").patch_size == (20, 96, 96)
    low = own.configuration("3d_lowres")
    assert all(
        0 <= voxels - wanted < token
        for voxels, wanted, token in zip(low.patch_size, (20, 96, 96), low.network.token_size, strict=True)
    )
    enlarged = low.patch_size != (20, 96, 96)
    assert low.reasons["patch_size"] == "set by the user" + ", enlarged to whole tokens" * enlarged


def test_a_patch_by_hand_must_be_whole_tokens():
    with pytest.raises(MvlError, match=r"not a multiple of the token size, 8 x 8 x 8.*Take 24 x 24 x 24"):
        plan(fingerprint_of(), AMPLE, overrides=Overrides(patch_size=(20, 24, 24)))
    with pytest.raises(MvlError, match="depth 0 is too small"):
        Overrides(depth=0)


# -------------------------------------------------------------------------------- how long, and mirrored how


def test_tasks_that_are_learnt_fast_are_easy_and_the_others_are_not():
    hard = {task.task: rate_difficulty(task.size).degree for task in DECATHLON}
    assert {name for name, degree in hard.items() if degree == 1} >= {"Hippocampus", "Heart", "Prostate"}
    assert {name for name, degree in hard.items() if degree > 8} >= {"Liver", "Lung", "Pancreas", "Colon"}


def test_between_easy_and_hard_the_steps_grow_with_the_logarithm():
    assert Difficulty(5.0).degree == 1
    assert Difficulty(math.sqrt(5 * 12)).degree == pytest.approx(5.5)  # half way
    assert Difficulty(12.0).degree == pytest.approx(10)


def test_fewer_cases_of_a_task_make_it_no_easier():
    liver = DECATHLON_BY_NAME["Liver"]
    size = tuple(int(n) for n in liver.size)
    steps = {
        plan(fingerprint_of(size, liver.spacing, cases), AMPLE).configuration("3d_fullres").steps
        for cases in (131, 20, 5)
    }
    assert steps == {50_000}


def test_all_configurations_are_of_the_same_task():
    planned = plan_of("Liver")
    assert len(planned.configurations) == 4
    flat = planned.configurations["2d"]
    assert flat.steps == 25_000  # of larger batches
    assert {each.steps for each in planned.configurations.values() if each is not flat} == {50_000}


def test_small_objects_make_a_task_harder_than_its_size():
    """160^3 is 1.95 patches of 128^3: easy with an organ of 1 % of it, not with lesions of 0.004 %."""
    voxels = 160**3
    share = {}
    for name, thing in (("organ", voxels // 100), ("lesion", voxels // 25_000)):
        objects = {"class_voxels": (voxels - 5 * thing, 5 * thing), "largest_object": (thing,), "components": (5,)}
        planned = plan(fingerprint_of((160, 160, 160), **objects), AMPLE).configuration("3d_fullres")
        share[name] = planned.steps
    assert share["organ"] == 5000
    assert share["lesion"] == pytest.approx(50_000, rel=1e-3)  # 1.95 x sqrt(0.3 / 0.004) = 16.9, beyond 12


def test_the_share_of_an_object_is_that_of_the_smallest_class_in_the_cropped_image():
    cases = [
        case_of("a", (10, 10, 20), (1, 1, 1), shape_after_crop=(10, 10, 10), class_voxels=(1880, 100, 20)),
        case_of("b", (10, 10, 10), (1, 1, 1), class_voxels=(900, 60, 40), largest_object=(60, 8)),
        case_of("c", (10, 10, 10), (1, 1, 1), class_voxels=(900, 100, 0), largest_object=(50, 0)),
    ]
    assert object_share(cases) == pytest.approx((20 / 1000 + 8 / 1000) / 2)
    assert object_share([cases[0].model_copy(update={"class_voxels": (2000, 0, 0)})]) is None


@given(st.floats(1e-3, 1e4), st.floats(1, 10), st.none() | st.floats(1e-7, 1))
def test_larger_images_and_smaller_objects_are_never_easier(patches, factor, share):
    degree = Difficulty(patches, share).degree
    assert 1 <= degree <= 10
    assert Difficulty(patches * factor, share).degree >= degree
    assert Difficulty(patches, share and share / factor).degree >= degree


def labels_called(*names: str) -> LabelScheme:
    return LabelScheme(class_values=tuple(range(len(names) + 1)), class_names=("background", *names))


@pytest.mark.parametrize(
    ("names", "sided"),
    [
        (("kidney_left", "kidney_right"), True),
        (("Left Lung", "Right Lung"), True),
        (("L-hippocampus", "R-hippocampus"), True),
        (("leftkidney", "rightkidney"), True),
        (("LeftLung", "RightLung"), True),
        (("KidneyLeft", "KidneyRight"), True),
        (("left atrium",), False),
        (("copyright", "copyleft"), False),
        (("liver", "spleen"), False),
    ],
)
def test_sides_are_not_mirrored_where_labels_tell_them_apart(names, sided):
    labels = labels_called(*names)
    assert mirror_axes(labels, (0, 1, 2), True, GPU_3D) == ((0, 1) if sided else (0, 1, 2))
    assert mirror_axes(labels, (0, 1, 2), True, CPU_3D) == (() if sided else (2,))  # a short training: bodies only


def test_the_axis_from_left_to_right_is_found_behind_the_transpose():
    assert mirror_axes(labels_called("left", "right"), (2, 0, 1), True, GPU_3D) == (1, 2)
    assert mirror_axes(labels_called("thing"), (2, 0, 1), True, CPU_3D) == (0,)
    assert mirror_axes(labels_called("left", "right"), (1, 2), False, CPU_3D) == (0, 1)  # flat images have no sides


# --------------------------------------------------------------------------------------------- documents


def test_the_same_dataset_and_budget_give_the_same_bytes(tmp_path):
    for n in range(2):
        write_document(tmp_path / f"{n}.json", plan(fingerprint_of((90, 120, 100), (2.0, 1.0, 1.0)), AMPLE))
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "1.json").read_bytes()
    assert read_document(tmp_path / "0.json", Plan) == plan(fingerprint_of((90, 120, 100), (2.0, 1.0, 1.0)), AMPLE)


def test_the_order_of_cases_is_nothing_to_the_plan():
    sizes = [(30, 40, 50), (33, 44, 55), (20, 90, 10)]
    cases = tuple(case_of(f"c{n}", size, (1 + n, 1, 1)) for n, size in enumerate(sizes))
    dataset = fingerprint_of()
    straight, turned = (dataset.model_copy(update={"cases": order}) for order in (cases, cases[::-1]))
    assert plan(straight, AMPLE).configurations == plan(turned, AMPLE).configurations


def test_every_number_has_its_reason():
    chosen = plan_of("Prostate").configuration("3d_fullres")
    assert chosen.reasons.keys() >= {
        "spacing",
        "patch_size",
        "batch_size",
        "token_size",
        "strides",
        "stem_channels",
        "width",
        "depth",
        "heads",
        "oversample_foreground_percent",
        "recommended",
        "memory",
        "normalization_schemes",
        "use_mask_for_norm",
        "transpose_forward",
        "iterations",
        "mirror_axes",
        "llm",
    }


# ------------------------------------------------------------------------------------------------- budget


def test_more_memory_never_gives_less():
    """Measured; test_search.py has the properties that make it so for every budget."""
    before = None
    for gib in (2, 5, 40):
        chosen = plan(fingerprint_of((1, 700, 700), cases=100), Budget(gib * GIB, "gpu")).configuration()
        now = (*chosen.patch_size, chosen.batch_size, chosen.network.width, chosen.network.depth)
        assert before is None or (now != before and all(a <= b for a, b in zip(before, now, strict=True)))
        before = now


def test_a_budget_too_small_says_what_would_do():
    flat, nothing = fingerprint_of((1, 40, 40)), LlmSettings(source="none")
    with pytest.raises(MvlError, match="too little for any 2d network: the smallest needs") as told:
        plan(flat, Budget(600_000_000), nothing)
    needed = float(str(told.value).split("smallest needs ")[1].split(" GB")[0])
    assert plan(flat, Budget(round(needed * 1e9)), nothing).configuration().batch_size >= 4


def test_a_second_stage_that_the_memory_does_not_pay_for_is_left_out():
    """With 40 labels its input has 41 channels: the least for the other configurations is too little for it."""
    dataset = fingerprint_of((300, 300, 300), labels=[f"organ {n}" for n in range(41)])
    with pytest.raises(MvlError, match="too little for any 3d_fullres network: the smallest needs") as told:
        plan(dataset, Budget(700_000_000))
    needed = float(str(told.value).split("smallest needs ")[1].split(" GB")[0])
    little = plan(dataset, Budget(round(needed * 1e9)))
    assert list(little.configurations) == ["3d_fullres", "3d_lowres", "2d"]
    assert "3d_cascade_fullres" in plan(dataset, AMPLE).configurations


@settings(max_examples=30)
@given(st.integers(4 * GIB, 80 * GIB), st.integers(0, 40 * GIB))
def test_on_a_cpu_time_is_what_limits_and_memory_changes_nothing(memory, more):
    one, other = (plan(fingerprint_of(), Budget(size)) for size in (memory, memory + more))
    assert one.configuration().patch_size == other.configuration().patch_size


def test_the_budget_of_this_machine_is_a_third_of_its_memory_in_whole_gib():
    here = budget_here(device="cpu")
    assert here.device == "cpu"
    assert here.memory % (GIB // 4) == 0
    assert here == budget_here(device="cpu")
    told = [file.read_text().strip() for file in map(Path, CGROUP_LIMITS) if file.is_file()]
    limits = [int(limit) for limit in told if limit != "max"]
    third = min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *limits]) / 3
    assert third - GIB < here.memory <= max(third, GIB // 4)
    assert budget_here(memory=123, device="cpu").memory == 123


@pytest.mark.parametrize("memory", [0, -1])
def test_no_memory_is_no_budget(memory):
    with pytest.raises(MvlError, match="memory budget"):
        Budget(memory)


def test_a_device_that_is_not_there():
    with pytest.raises(MvlError, match="no device 'cuda:77' was found"):
        budget_here(device="cuda:77")
