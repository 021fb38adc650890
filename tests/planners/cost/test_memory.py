"""Memory without taking it, against what torch's allocator reports for a real training step."""

from __future__ import annotations

from dataclasses import replace

import pytest
from memory_grid import grid, step_of, volume
from networks import tiny
from peak import real_peak

from mvl_auto.planners.cost.block import SMOLLM2
from mvl_auto.planners.cost.memory import training_memory
from mvl_auto.planners.cost.step import TrainingStep
from mvl_auto.plans import BlockSizes, LlmSettings

FIVE_PERCENT = 0.05
# benchmarks/planner_memory.py does all of them
NAMES = (
    "3D, block, mixed",
    "3D, no block, checkpointed, float32",
    "3D of thick slices, block and LoRA 8, float32",
    "2D, block and LoRA 8, mixed",
    "3D, trunk of convolutions",
    "3D, mappers only",
    "3D, block on pooled tokens",
    "3D, block on queries",
    "3D, 120 outputs, float32",
    "3D, 42 outputs, mixed",
    "2D, 120 outputs, mixed",
    "3D, 40 channels, mixed",
    "3D, Llama-1B's block, mixed",
)


def quick(step: TrainingStep) -> TrainingStep:
    """In mixed precision a patch of half the side: CPUs without bfloat16 emulate it, and that takes long."""
    if not step.mixed_precision:
        return step
    sides = zip(step.patch_size, step.settings.token_size, strict=True)
    return replace(step, patch_size=tuple(max(2 * token, side // 2 // token * token) for side, token in sides))


STEPS = {name: quick(grid()[name]) for name in NAMES}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_a_fake_step_takes_what_a_real_one_does(step, tmp_path):
    assert training_memory(step) == pytest.approx(real_peak(step, tmp_path), rel=FIVE_PERCENT)


def test_measuring_twice_gives_the_same_bytes():
    assert training_memory(STEPS["3D, mappers only"]) == training_memory(STEPS["3D, mappers only"])


def test_a_block_that_is_not_shaped_like_the_smallest_one(tmp_path):
    """As many heads for keys as for queries, and a wider inside, as SmolLM2-1.7B has."""
    wide = BlockSizes("random:hidden=512,heads=8,kv_heads=8,ffn=2048,seed=0", "last", 512, 8, 8, 64, 2048)
    network = volume(llm=LlmSettings(source=wide.source, hidden_size=512))
    step = replace(step_of(network, (48, 48, 48), 2, 1, 3, False), block=wide)
    assert training_memory(step) == pytest.approx(real_peak(step, tmp_path), rel=FIVE_PERCENT)


def test_adapters_take_what_they_really_take(tmp_path):
    """A tenth of the whole at rank 64, so the whole being right would not show it."""
    plain, adapted = (grid()[name] for name in ("3D, causal block with positions", "3D, LoRA 64 and causal"))
    real = real_peak(adapted, tmp_path) - real_peak(plain, tmp_path)
    assert training_memory(adapted) - training_memory(plain) == pytest.approx(real, rel=FIVE_PERCENT)


def test_a_block_takes_the_room_of_the_type_that_it_is_multiplied_in_however_it_is_stored():
    for name in ("3D, block, mixed", "3D, block, float32"):
        step = grid()[name]
        four, two = (training_memory(replace(step, block=replace(SMOLLM2, weight_bytes=size))) for size in (4, 2))
        assert four == pytest.approx(two, rel=1e-3), name  # the norms stay as they are stored


@pytest.mark.parametrize("tokens", ["pooled", "queries"])
def test_fewer_tokens_in_the_block_take_less(tokens):
    step = grid()["3D, block, mixed"]
    fewer = step.settings.model_copy(update={"llm": step.settings.llm.model_copy(update={"tokens": tokens})})
    assert training_memory(replace(step, settings=fewer)) < training_memory(step)


def test_a_grid_of_thirty_networks_at_least_is_measured():
    steps = grid().values()
    assert len(steps) >= 30
    assert {step.settings.dimensions for step in steps} == {2, 3}
    assert {step.channels for step in steps} == {1, 2, 3, 4, 40}
    assert {step.settings.gradient_checkpointing for step in steps} == {False, True}
    assert {step.settings.llm.lora_rank > 0 for step in steps} == {False, True}


def test_a_block_of_unknown_width_cannot_be_measured():
    settings = tiny(llm=LlmSettings(source="auto"))
    with pytest.raises(ValueError, match="hidden_size"):
        training_memory(step_of(settings, (16, 16, 16), 1, 1, 2, False))
