"""Which frozen block a plan names, and why."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
from fingerprints import BANK, LLAMA_1B, LLAMA_8B, SMOLLM2_360M, fingerprint_of
from hypothesis import given
from hypothesis import strategies as st

from mvl_auto import planners
from mvl_auto.planners import Budget, TrainingStep
from mvl_auto.planners.cost.block import SMOLLM2, block_from_settings, eligible_blocks, like_smollm2
from mvl_auto.planners.cost.estimate import estimate_memory
from mvl_auto.planners.presets import GIB
from mvl_auto.plans import Configuration, LlmSettings

AUTO = LlmSettings()
plan = partial(planners.plan, step_memory=estimate_memory)  # estimated, not measured: the search is the same


def planned(budget: Budget, llm: LlmSettings = AUTO, bank=BANK) -> Configuration:
    return plan(fingerprint_of((110, 160, 160)), budget, llm, blocks=bank).configuration("3d_fullres")


def test_the_catalogues_figure_for_a_layer_is_found_again():
    assert SMOLLM2.parameters == pytest.approx(3.54e6, rel=1e-3)
    assert LLAMA_8B.parameters * LLAMA_8B.weight_bytes == pytest.approx(436.2e6, rel=1e-3)
    assert like_smollm2("auto", "last", 576) == SMOLLM2


def test_auto_begins_with_the_smallest_and_goes_through_the_bank():
    chain = eligible_blocks(AUTO, BANK)
    assert chain == (SMOLLM2, SMOLLM2_360M, LLAMA_1B, LLAMA_8B)  # Qwen's is narrower than SmolLM2's and yet heavier
    assert eligible_blocks(AUTO, ()) == (SMOLLM2,)
    assert eligible_blocks(LlmSettings(source="none"), BANK) == ()


@given(st.lists(st.sampled_from([64, 576, 600, 896, 960, 2048, 4096]).map(lambda n: like_smollm2(f"hf:a/{n}", 1, n))))
def test_each_block_of_the_chain_is_wider_and_heavier(bank):
    chain = eligible_blocks(AUTO, bank)
    widths = [block.hidden_size for block in chain]
    assert widths == sorted(set(widths))
    assert widths[-1] == max([576, *(block.hidden_size for block in bank)])
    for lighter, heavier in pairwise(chain):
        assert all(a <= b for a, b in zip(lighter.heaviness, heavier.heaviness, strict=True))


def test_a_large_gpu_takes_the_widest_of_the_bank_and_names_it():
    llm = planned(Budget(80 * GIB, "gpu")).network.llm
    assert (llm.source, llm.layer, llm.hidden_size) == (LLAMA_8B.source, 31, 4096)
    why = planned(Budget(80 * GIB, "gpu")).reasons["llm"]
    assert "Llama-3.1-8B" in why
    assert "the widest of the bank's pretrained blocks" in why


def test_a_small_gpu_spends_on_patch_and_trunk_first():
    chosen = planned(Budget(3 * GIB, "gpu"))
    assert chosen.network.llm == LlmSettings(source="auto", hidden_size=576)
    assert "bank's 3 wider" in chosen.reasons["llm"]


@pytest.mark.parametrize(("budget", "bank"), [(Budget(80 * GIB, "cpu"), BANK), (Budget(80 * GIB, "gpu"), ())])
def test_a_cpu_and_an_empty_bank_get_the_smallest(budget, bank):
    chosen = planned(budget, bank=bank)
    assert chosen.network.llm == LlmSettings(source="auto", hidden_size=576)
    assert "in every candidate, before anything else grows" in chosen.reasons["llm"]


def test_a_block_that_was_asked_for_is_planned_at_its_own_width():
    asked = LlmSettings(source=LLAMA_8B.source, layer="last")
    chosen = planned(Budget(24 * GIB, "gpu"), asked, bank=[LLAMA_8B])
    assert (chosen.network.llm.layer, chosen.network.llm.hidden_size) == ("last", 4096)
    unknown = planned(Budget(24 * GIB, "gpu"), LlmSettings(source="hf:nobody/knows"), bank=())
    assert unknown.network.llm.hidden_size == 576
    assert "assumed" in unknown.reasons["llm"]


def test_a_layer_that_was_asked_for_is_asked_of_the_default_too():
    assert planned(Budget(8 * GIB), LlmSettings(layer=3)).network.llm.layer == 3


def test_a_heavier_block_costs_more_whatever_its_width():
    chosen = planned(Budget(24 * GIB, "gpu"))
    labels = fingerprint_of().labels
    step = TrainingStep(chosen.network, chosen.patch_size, chosen.batch_size, 1, labels, LLAMA_8B, True)
    lighter = replace(step, block=replace(LLAMA_8B, ffn=4096))
    assert estimate_memory(lighter) < estimate_memory(step)


def test_without_a_width_nothing_can_be_said():
    with pytest.raises(ValueError, match="hidden_size"):
        block_from_settings(LlmSettings())
    assert block_from_settings(LlmSettings(source="none")) is None
