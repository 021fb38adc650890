"""The card of a block: which geometries it takes, and what it calls pretrained."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mvl_auto.llm import ensure_block
from mvl_auto.llm.card import BlockGeometry

SMALLEST = {
    "architecture": "llama",
    "hidden_size": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 2,
    "intermediate_size": 1,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}
COUNTS = [name for name, value in SMALLEST.items() if isinstance(value, int)]


@pytest.mark.parametrize("field", COUNTS)
def test_every_size_has_its_least_value_and_none_below(field):
    assert getattr(BlockGeometry(**SMALLEST), field) == SMALLEST[field]
    with pytest.raises(ValidationError, match=f"{field}\n.*greater than or equal to {SMALLEST[field]}"):
        BlockGeometry(**(SMALLEST | {field: SMALLEST[field] - 1}))


def test_random_numbers_are_not_pretrained(tmp_path):
    card = ensure_block("random:hidden=32,heads=4,kv_heads=2,ffn=48,seed=0", "last", tmp_path)
    assert not card.pretrained
    assert card.model_copy(update={"source": "file:/models/a"}).pretrained
