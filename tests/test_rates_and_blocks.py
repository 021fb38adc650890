"""Defaults of a run that follow from its plan: the learning rate from the width, the block's tokens."""

from __future__ import annotations

import pytest
from networks import tiny

from mvl_auto.api.training import block_of_run
from mvl_auto.errors import MvlError
from mvl_auto.plans import LlmSettings


@pytest.mark.parametrize(("width", "rate"), [(48, 3e-3), (192, 3e-3), (384, 1.5e-3), (768, 7.5e-4)])
def test_the_default_rate_falls_inversely_beyond_a_width_of_192(width, rate):
    assert tiny(width=width, heads=3).peak_learning_rate == pytest.approx(rate)


@pytest.mark.parametrize("tokens", ["all", "pooled", "queries"])
def test_another_block_reads_the_tokens_that_the_planned_one_reads(tokens):
    found = block_of_run("hf:them/theirs", LlmSettings(source="auto", tokens=tokens))
    assert found == LlmSettings(source="hf:them/theirs", tokens=tokens)


def test_a_block_where_none_was_planned_reads_pooled_tokens():
    none = LlmSettings(source="none")
    assert block_of_run("auto", none) == LlmSettings(source="auto", tokens="pooled")
    assert block_of_run(None, none) is None
    with pytest.raises(MvlError):
        block_of_run("no such syntax", none)
