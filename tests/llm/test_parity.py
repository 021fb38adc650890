"""The extracted layer computes what transformers' own full model computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from llm_models import NUM_LAYERS, VARIANTS, reference, save_model

from mvl_auto.llm import load_block

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(params=VARIANTS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A variant's name, and its model on disk in several shards."""
    folder = save_model(tmp_path / "model", reference(request.param).model, shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return request.param, folder


def test_every_layer_computes_what_the_full_model_does(saved, tmp_path):
    variant, folder = saved
    expected = reference(variant)
    for layer in range(NUM_LAYERS):
        block = load_block(f"file:{folder}", layer, tmp_path / "blocks")
        found = block(expected.inputs[layer], causal=True, rotary=True, final_norm=False)
        torch.testing.assert_close(found, expected.outputs[layer], **TOLERANCE)


def test_the_last_layer_with_the_final_norm_is_the_models_output(saved, tmp_path):
    variant, folder = saved
    expected = reference(variant)
    block = load_block(f"file:{folder}", "last", tmp_path / "blocks")
    assert block.card.layer == NUM_LAYERS - 1
    torch.testing.assert_close(block(expected.inputs[-1], causal=True, rotary=True), expected.normed, **TOLERANCE)
