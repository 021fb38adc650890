"""The limits of a plan's numbers at their exact place, and what stands where nothing is said."""

from __future__ import annotations

import math

import pytest
from fingerprints import fingerprint_of
from networks import tiny
from pydantic import ValidationError
from trained import STATISTICS, make_plan
from trained import make_configuration as configuration

from mvl_auto.plans import LabelScheme, LlmSettings, Splits
from mvl_auto.plans.plan import MOST_STEP_VOXELS


def test_a_block_is_attached_from_the_first_step_unless_said_otherwise_and_never_at_the_end():
    assert LlmSettings(source="none").start == 0
    assert LlmSettings(source="none", start=0.99).start == 0.99
    with pytest.raises(ValidationError, match="less than 1"):
        LlmSettings(source="none", start=1.0)


def test_a_plan_without_a_word_on_it_keeps_all_activations():
    assert not tiny().gradient_checkpointing


def test_the_voxels_of_a_step_are_16_gibi_at_most():
    assert MOST_STEP_VOXELS == 2**34
    side = 2**10
    most = configuration(patch_size=(side, side, side), batch_size=2**4)
    assert most.batch_size * math.prod(most.patch_size) == MOST_STEP_VOXELS
    with pytest.raises(ValidationError, match="voxels"):
        configuration(patch_size=(side, side, side), batch_size=2**4 + 1)


def test_label_values_are_those_of_64_bits():
    names = ("background", "a")
    for value in (-(2**63), 2**64 - 1):
        assert LabelScheme(class_values=(0, value), class_names=names).class_values[1] == value
    for value in (-(2**63) - 1, 2**64):
        with pytest.raises(ValidationError):
            LabelScheme(class_values=(0, value), class_names=names)


def test_a_patch_has_two_or_three_axes_and_mirrors_only_those_it_has():
    flat = tiny(2)
    assert configuration(patch_size=(8, 8), network=flat, mirror_axes=(0, 1)).dimensions == 2
    with pytest.raises(ValidationError, match="mirror_axes"):
        configuration(patch_size=(8, 8), network=flat, mirror_axes=(0, 2))
    with pytest.raises(ValidationError, match="mirror_axes"):
        configuration(mirror_axes=(1, 1))
    with pytest.raises(ValidationError):
        configuration(patch_size=(8,), network=flat, mirror_axes=())


def test_a_second_stage_sees_a_channel_for_each_label_of_the_first():
    plain = configuration(name="3d_lowres")
    second = configuration(name="3d_cascade_fullres", previous_stage="3d_lowres")
    plan = make_plan(plain).model_copy(update={"configurations": {each.name: each for each in (plain, second)}})
    seen = {each.name: plan.input_channels(each) for each in (plain, second)}
    assert seen == {
        "3d_lowres": len(plan.channels),
        "3d_cascade_fullres": len(plan.channels) + len(plan.labels.foreground_names),
    }


def test_a_first_stage_is_named_before_its_second_and_each_once():
    plain = configuration(name="3d_lowres")
    second = configuration(name="3d_cascade_fullres", previous_stage="3d_lowres")
    plan = make_plan(plain).model_copy(update={"configurations": {each.name: each for each in (plain, second)}})
    assert plan.with_previous_stages(["3d_cascade_fullres", "3d_lowres"]) == ["3d_lowres", "3d_cascade_fullres"]
    assert plan.with_previous_stages(["3d_lowres"]) == ["3d_lowres"]


def test_the_weights_of_the_trunks_matrices_are_4_gibi_at_most():
    most = tiny(depth=4, width=2**15, heads=4)
    assert configuration(network=most).network.depth == 4
    with pytest.raises(ValidationError, match="4294967296 weights"):
        configuration(network=tiny(depth=5, width=2**15, heads=4))


def test_a_network_may_have_no_trunk_and_is_supervised_at_its_coarse_levels_too():
    assert tiny(depth=0).depth == 0
    said = tiny().model_dump(exclude={"deep_supervision"})
    assert type(tiny()).model_validate(said).deep_supervision


def test_folds_are_drawn_unless_they_are_said_to_be_given():
    assert not Splits(fingerprint_hash="0", seed=0, folds=(("a",), ("b",))).given


def test_intensities_may_all_be_the_same():
    assert STATISTICS.model_validate(STATISTICS.model_dump() | {"std": 0}).std == 0
    with pytest.raises(ValidationError):
        STATISTICS.model_validate(STATISTICS.model_dump() | {"std": -0.1})


def test_regions_are_made_of_the_classes_that_there_are():
    labels = {"class_values": (0, 1, 2), "class_names": ("background", "a", "b"), "region_names": ("whole",)}
    assert LabelScheme(**labels, regions=((1, 2),), regions_class_order=(2,)).num_outputs == 1
    for wrong in (
        {"regions": ((1, 3),), "regions_class_order": (2,)},
        {"regions": ((1,),), "regions_class_order": (3,)},
    ):
        with pytest.raises(ValidationError, match="class numbers"):
            LabelScheme(**labels, **wrong)


def test_the_hash_of_a_fingerprint_is_of_the_data_and_not_of_how_they_are_stored():
    one = fingerprint_of((20, 20, 20), cases=2)
    case = one.cases[0].model_copy(update={"files_hash": "f" * 64})
    stored = {"mvl_auto_version": "9", "file_ending": ".nrrd", "cases": (case, *one.cases[1:])}
    assert one.model_copy(update=stored).hash == one.hash
    assert one.model_copy(update={"cases": one.cases[1:]}).hash != one.hash
