"""The rough count of memory against the measurement, which test_memory holds against real steps."""

from __future__ import annotations

import math
from dataclasses import replace

from fingerprints import BANK
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_grid import grid, labels_of

from mvl_auto.planners.cost.block import SMOLLM2
from mvl_auto.planners.cost.estimate import TRUSTED, estimate_memory
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
    trunk, block = draw(st.sampled_from(TRUNKS)), draw(st.sampled_from([None, SMOLLM2, *BANK]))
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
        else LlmSettings(source=block.source, hidden_size=block.hidden_size),
    )
    labels = labels_of(draw(st.integers(2, 120)), ignore=draw(st.booleans()))
    patch_size = draw(patch.filter(lambda shape: math.prod(shape) <= VOXELS))
    return TrainingStep(
        network, patch_size, draw(st.integers(1, 8)), draw(st.integers(1, 40)), labels, block, draw(st.booleans())
    )


@settings(max_examples=25)
@given(steps())
def test_the_estimate_is_within_the_factor_that_it_is_trusted(step):
    assert 1 / TRUSTED <= estimate_memory(step) / training_memory(step) <= TRUSTED


def test_so_it_is_for_every_network_of_the_grid():
    for name, step in grid().items():
        assert 1 / TRUSTED <= estimate_memory(step) / training_memory(step) <= TRUSTED, name


def test_a_frozen_block_counts_as_it_is_stored_and_as_it_is_cast():
    step = grid()["3D, block, float32"]
    stored = [estimate_memory(replace(step, block=replace(SMOLLM2, weight_bytes=size))) for size in (2, 4)]
    assert stored[0] - stored[1] == 2 * SMOLLM2.parameters  # beside a copy in float32, which the other is already
