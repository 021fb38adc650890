"""Memory without taking it, against what torch's allocator reports for a real training step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from memory_grid import block, grid, known, volume
from networks import tiny
from peak import real_peak
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from mvl_auto.network import MedVisionLlama
from mvl_auto.planners.cost.block import SMOLLM2
from mvl_auto.planners.cost.memory import Allocations, training_memory
from mvl_auto.planners.cost.short_ways import SHORT_WAYS
from mvl_auto.planners.cost.stand_in import around, stand_in, step_loss
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


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
@pytest.mark.parametrize("changes", [{}, {"attention": "sum"}, {"gradient_checkpointing": True}], ids=str)
def test_the_short_ways_lead_to_the_same_tensors(changes, mixed):
    """Each operation of a real step, done without values too: the same shapes, strides and types, the same views."""
    settings = volume(**changes, llm=block(lora_rank=8))
    network = MedVisionLlama(around(settings), 2, 3, stand_in(settings)).train()
    image, label = torch.rand(2, 2, 16, 24, 16), torch.zeros(2, 16, 24, 16, dtype=torch.int16)
    with Both() as both, torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        step_loss(network(image), label, masked=mixed).backward()
    assert both.compared > 500
    assert not both.differing


class Both(TorchDispatchMode):
    """Does every operation, and those that have a short way once more on tensors without values."""

    def __init__(self):
        super().__init__()
        self.compared, self.differing, self.fakes = 0, [], FakeTensorMode()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if operation not in SHORT_WAYS:
            return operation(*args, **kwargs)
        with self.fakes, Allocations(self.fakes) as allocations:
            shapes = tree_map_only(Tensor, without_values, (args, kwargs))
            ours = allocations.__torch_dispatch__(operation, types, *shapes)
        result = operation(*args, **kwargs)
        self.compared += 1
        if described(result, (args, kwargs)) != described(ours, shapes):
            self.differing.append((operation, described(result, (args, kwargs)), described(ours, shapes)))
        return result


def without_values(tensor):
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)


def described(results, given):
    """Of each tensor: shape, strides, type, and whether it shares the memory of what was given."""
    inputs = {leaf.untyped_storage()._cdata for leaf in tree_leaves(given) if isinstance(leaf, Tensor)}
    return [
        leaf if leaf is None else (leaf.shape, leaf.stride(), leaf.dtype, leaf.untyped_storage()._cdata in inputs)
        for leaf in tree_leaves(results)
    ]


def test_measuring_twice_gives_the_same_bytes():
    assert training_memory(*STEPS["3D, mappers only"]) == training_memory(*STEPS["3D, mappers only"])


def test_a_block_that_is_not_shaped_like_the_smallest_one(tmp_path):
    """As many heads for keys as for queries, and a wider inside, as SmolLM2-1.7B has."""
    wide = BlockSizes("random:hidden=512,heads=8,kv_heads=8,ffn=2048,seed=0", "last", 512, 8, 8, 64, 2048)
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
