"""What a run changes of its plan."""

from __future__ import annotations

import pytest

from mvl_auto.plans import LlmSettings
from mvl_auto.training.lookup import Changes


@pytest.mark.parametrize(("planned", "expected"), [("pooled", "pooled"), ("queries", "queries")])
def test_another_block_stands_in_the_network_as_the_planned_one_does(prepared, planned, expected):
    full = prepared.plan.configuration()
    llm = full.network.llm.model_copy(update={"tokens": planned, "mapper_rate": 3.0})
    changed = full.model_copy(update={"network": full.network.model_copy(update={"llm": llm})})
    plan = prepared.plan.model_copy(update={"configurations": {full.name: changed}})
    other = LlmSettings(source="hf:them/theirs", layer=-2, tokens="all")
    found = Changes(llm=other).apply(plan, full.name).configuration().network.llm
    assert (found.source, found.layer, found.hidden_size) == ("hf:them/theirs", -2, None)
    assert (found.tokens, found.mapper_rate) == (expected, 3.0)


def test_a_run_without_a_block_and_one_with_a_block_that_the_plan_has_not(prepared):
    full = prepared.plan.configuration()
    none = LlmSettings(source="none")
    without = Changes(llm=none).apply(prepared.plan, full.name)
    assert without.configuration().network.llm == none
    block = LlmSettings(source="hf:them/theirs", tokens="pooled")
    assert Changes(llm=block).apply(without, full.name).configuration().network.llm == block
