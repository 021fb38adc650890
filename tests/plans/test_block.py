"""The frozen block in a plan: how many tokens pass it, whether it predicts, what it weighs."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mvl_auto.plans import LlmSettings
from mvl_auto.plans.block import BlockSizes


@pytest.mark.parametrize(
    ("tokens", "grid", "passing"),
    [
        ("all", (5, 4, 3), 60),
        ("all", (2.5, 4, 3), 30),  # the grid of a mean image
        ("pooled", (5, 4, 3), 3 * 2 * 2),
        ("pooled", (2.5, 4), 2 * 2),
        ("queries", (5, 4, 3), 16),
    ],
)
def test_the_tokens_that_pass_the_block(tokens, grid, passing):
    assert LlmSettings(tokens=tokens).tokens_of_block(grid) == passing


def test_a_block_predicts_if_it_is_there_to_the_end():
    assert LlmSettings().predicts
    assert not LlmSettings(source="none").predicts
    assert not LlmSettings(end=0.5).predicts


def test_a_block_without_a_residual_stays_to_the_end():
    assert LlmSettings(residual="none").end == 1
    with pytest.raises(ValidationError, match="beside a residual"):
        LlmSettings(residual="none", end=0.99)
    assert LlmSettings(residual="plain", end=0.99).end == 0.99


def test_weights_take_two_bytes_unless_said_otherwise():
    block = BlockSizes("random:", 0, hidden_size=8, heads=2, kv_heads=1, head_dim=4, ffn=16)
    assert block.parameters == 8 * 8 * 2 + 2 * 8 * 4 + 3 * 8 * 16 + 3 * 8
    assert block.heaviness == (8, 8, 16, 2 * block.parameters)
