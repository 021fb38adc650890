"""The rough count of memory against the measurement, which test_memory holds against real steps."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from fingerprints import BANK
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_grid import grid, labels_of

from mvl_auto.network import build_network
from mvl_auto.planners.cost.block import SMOLLM2
from mvl_auto.planners.cost.estimate import TRUSTED, estimate_memory, estimate_work
from mvl_auto.planners.cost.memory import training_memory
from mvl_auto.planners.cost.step import TrainingStep
from mvl_auto.planners.presets import TRUNKS
from mvl_auto.planners.search import choose_strides
from mvl_auto.plans import LlmSettings, NetworkSettings

VOXELS = 1 << 21  # of a patch
MEDIAN_SHAPE = (200, 200, 200)


@st.composite
def steps(draw):
    """A training step such as the planner considers, and what it knows of the block."""
    dimensions = draw(st.sampled_from([2, 3]))
    spacing = draw(st.sampled_from([(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (5.0, 0.7, 0.7)]))[-dimensions:]
    strides = choose_strides(spacing, MEDIAN_SHAPE[:dimensions])
    token = [math.prod(axis) for axis in zip(*strides, strict=True)]
    tokens = st.tuples(*(st.integers(2, {2: 48, 3: 12}[dimensions]) for _ in token))
    patch = st.builds(lambda n: tuple(a * b for a, b in zip(n, token, strict=True)), tokens)
    two_layers = replace(SMOLLM2, layers=2)
    trunk, block = draw(st.sampled_from(TRUNKS)), draw(st.sampled_from([None, SMOLLM2, two_layers, *BANK]))
    network = NetworkSettings(
        spacing=spacing,
        stem_channels=tuple(trunk.stem * 2**level for level in range(len(strides) - 1)),
        stem_strides=strides[:-1],
        token_stride=strides[-1],
        width=trunk.width,
        depth=trunk.depth,
        heads=trunk.heads,
        llm=LlmSettings(source="none")
        if block is None
        else LlmSettings(source=block.source, layers=block.layers, hidden_size=block.hidden_size),
    )
    labels = labels_of(draw(st.integers(2, 120)), ignore=draw(st.booleans()))
    patch_size = draw(patch.filter(lambda shape: math.prod(shape) <= VOXELS))
    return TrainingStep(
        network, patch_size, draw(st.integers(1, 8)), draw(st.integers(1, 40)), labels, block, draw(st.booleans())
    )


@settings(max_examples=8)
@given(steps())
def test_the_estimate_is_within_the_factor_that_it_is_trusted(step):
    assert 1 / TRUSTED <= estimate_memory(step) / training_memory(step) <= TRUSTED


def test_so_it_is_for_networks_of_the_grid():
    """Every fifth; benchmarks/planner_memory.py does all of them."""
    for name, step in list(grid().items())[::5]:
        assert 1 / TRUSTED <= estimate_memory(step) / training_memory(step) <= TRUSTED, name


@pytest.mark.parametrize("name", ["3D, no block, float32", "2D, no block, float32"])
def test_the_weights_are_counted_within_a_tenth(name):
    """What does not grow with the batch is five copies of float32 weights: with gradient, moments and average."""
    step = grid()[name]
    of_one, of_two = (estimate_memory(replace(step, batch_size=size)) for size in (1, 2))
    network = build_network(step.settings, step.channels, step.outputs)
    weights = sum(weight.numel() for weight in network.parameters())
    assert (2 * of_one - of_two) / (5 * 4) == pytest.approx(weights, rel=0.1)


def test_a_step_is_in_float32_if_nothing_else_is_said():
    step = grid()["3D, no block, float32"]
    plain = TrainingStep(step.settings, step.patch_size, step.batch_size, step.channels, step.labels)
    assert estimate_memory(plain) == estimate_memory(replace(plain, mixed_precision=False))
    assert estimate_memory(plain) > estimate_memory(replace(plain, mixed_precision=True))


def test_a_frozen_block_counts_in_the_type_that_it_is_multiplied_in():
    step = replace(grid()["3D, block, float32"], block=SMOLLM2)
    larger = replace(SMOLLM2, kv_heads=9)  # of keys and values nothing is counted but their weights
    more = larger.parameters - SMOLLM2.parameters
    assert estimate_memory(replace(step, block=larger)) - estimate_memory(step) == 4 * more
    step = replace(step, mixed_precision=True)
    assert estimate_memory(replace(step, block=larger)) - estimate_memory(step) == 2 * more


def test_two_layers_work_twice_as_much_as_one():
    """But for the final norm, of which there is one."""
    step = replace(grid()["3D, block, float32"], block=SMOLLM2)
    without, one, two = (
        estimate_work(replace(step, block=block)) for block in (None, SMOLLM2, replace(SMOLLM2, layers=2))
    )
    norm = step.batch_size * step.block_tokens * SMOLLM2.hidden_size
    assert two - one == pytest.approx(one - without - norm)


@pytest.mark.parametrize(
    ("patch", "tokens", "expected"),
    [
        ((40, 56, 40), "all", 175),
        ((40, 56, 40), "pooled", 36),
        ((40, 56, 40), "queries", 16),
        ((8, 16, 8), "pooled", 1),
    ],
)
def test_the_block_costs_what_its_tokens_cost(patch, tokens, expected):
    """Tokens of 8 voxels a side: 5 x 7 x 5 of them, 3 x 4 x 3 cells."""
    step = replace(grid()["3D, block, float32"], patch_size=patch, block=SMOLLM2, batch_size=1)
    step = replace(
        step, settings=step.settings.model_copy(update={"llm": step.settings.llm.model_copy(update={"tokens": tokens})})
    )
    assert step.block_tokens == expected
    rest = estimate_work(replace(step, block=None))
    per_token = SMOLLM2.parameters + 2 * expected * SMOLLM2.heads * SMOLLM2.head_dim
    assert estimate_work(step) - rest == pytest.approx(expected * per_token, rel=1e-6)
