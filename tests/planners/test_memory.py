"""Memory without taking it, against what torch's allocator reports for a real training step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from memory_grid import grid, known, volume
from networks import tiny
from peak import real_peak

from mvl_auto.planners.block import SMOLLM2, Block
from mvl_auto.planners.memory import SHORT_WAYS, training_memory
from mvl_auto.plans import LlmSettings

FIVE_PERCENT = 0.05
# benchmarks/planner_memory.py does all of them
NAMES = (
    "3D, block, mixed",
    "3D, no block, checkpointed, float32",
    "3D of thick slices, block and LoRA 8, float32",
    "2D, block and LoRA 8, mixed",
    "3D, trunk of convolutions",
    "3D, mappers only",
    "3D, 120 outputs, float32",
    "3D, 42 outputs, mixed",
    "2D, 120 outputs, mixed",
    "3D, 40 channels, mixed",
    "3D, Llama-1B's block, mixed",
)
STEPS = {name: grid()[name] for name in NAMES}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_a_fake_step_takes_what_a_real_one_does(step, tmp_path):
    assert training_memory(*step, known(step[0])) == pytest.approx(real_peak(*step, tmp_path), rel=FIVE_PERCENT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_short_ways_lead_to_the_same_tensors(dtype):
    """Shapes, strides and types of what torch itself computes, with and without weights, channels last too."""
    aten = torch.ops.aten
    image = torch.rand(2, 6, 4, 5).to(dtype)
    mean, rstd = torch.rand(2, 3, dtype=dtype), torch.rand(2, 3, dtype=dtype)
    backward = aten.native_group_norm_backward.default
    for weight in (None, torch.rand(6, dtype=dtype)):
        for wanted in ([True, False, False], [True, weight is not None, weight is not None]):
            words = (image, image, mean, rstd, weight, 2, 6, 20, 3, wanted)
            same_tensors(SHORT_WAYS[backward](*words), backward(*words))
    for tensor in (
        image,
        image.transpose(1, 3),
        image.to(memory_format=torch.channels_last),
        image[:, :1].expand(2, 6, 4, 5),
    ):
        for how in ({"dtype": torch.float32}, {"dtype": torch.bfloat16}, {}):
            same_tensors([SHORT_WAYS[aten._to_copy.default](tensor, **how)], [aten._to_copy.default(tensor, **how)])


def same_tensors(ours, torchs):
    for one, other in zip(ours, torchs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)


def test_measuring_twice_gives_the_same_bytes():
    assert training_memory(*STEPS["3D, mappers only"]) == training_memory(*STEPS["3D, mappers only"])


def test_a_block_that_is_not_shaped_like_the_smallest_one(tmp_path):
    """As many heads for keys as for queries, and a wider inside, as SmolLM2-1.7B has."""
    wide = Block("random:hidden=512,heads=8,kv_heads=8,ffn=2048,seed=0", "last", 512, 8, 8, 64, 2048)
    step = (volume(llm=LlmSettings(source=wide.source, hidden_size=512)), (48, 48, 48), 2, 1, 3, False)
    assert training_memory(*step, wide) == pytest.approx(real_peak(*step, tmp_path), rel=FIVE_PERCENT)


def test_adapters_take_what_they_really_take(tmp_path):
    """A tenth of the whole at rank 64, so the whole being right would not show it."""
    plain, adapted = (grid()[name] for name in ("3D, causal block with positions", "3D, LoRA 64 and causal"))
    real = real_peak(*adapted, tmp_path) - real_peak(*plain, tmp_path)
    assert training_memory(*adapted) - training_memory(*plain) == pytest.approx(real, rel=FIVE_PERCENT)


def test_a_block_stored_in_float32_takes_twice_the_room():
    step = STEPS["3D, block, mixed"]
    twice = training_memory(*step, replace(SMOLLM2, weight_bytes=4)) - training_memory(*step, SMOLLM2)
    assert twice >= 2 * SMOLLM2.parameters


def test_a_grid_of_thirty_networks_at_least_is_measured():
    steps = grid().values()
    assert len(steps) >= 30
    assert {settings.dimensions for settings, *_ in steps} == {2, 3}
    assert {channels for _, _, _, channels, *_ in steps} == {1, 2, 3, 4, 40}
    assert {settings.gradient_checkpointing for settings, *_ in steps} == {False, True}
    assert {settings.llm.lora_rank > 0 for settings, *_ in steps} == {False, True}


def test_a_block_of_unknown_width_cannot_be_measured():
    settings = tiny(llm=LlmSettings(source="auto"))
    with pytest.raises(ValueError, match="hidden_size"):
        training_memory(settings, (16, 16, 16), 1, 1, 2)
