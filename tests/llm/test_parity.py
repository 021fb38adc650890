"""The extracted layer computes what transformers' own full model computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gguf_models import write_gguf
from llm_models import NUM_LAYERS, VARIANTS, reference, save_model

from mvl_auto.errors import MvlError
from mvl_auto.llm import load_block
from mvl_auto.llm.layers import LayerRange

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


def test_two_layers_compute_what_the_full_model_does_from_the_first_to_its_end(saved, tmp_path):
    variant, folder = saved
    expected = reference(variant)
    if variant == "gemma3_text":  # its last layer has a window, the one before has none
        with pytest.raises(MvlError, match="layers of different kinds between layer 1 and layer 2"):
            load_block(f"file:{folder}", LayerRange("last", 2), tmp_path / "blocks")
        return
    block = load_block(f"file:{folder}", LayerRange("last", 2), tmp_path / "blocks")
    assert (block.card.layer, block.card.layers) == (NUM_LAYERS - 1, 2)
    assert block.card.name.startswith("model-layer1-2-")
    torch.testing.assert_close(block(expected.inputs[-2], causal=True, rotary=True), expected.normed, **TOLERANCE)
    found = block(expected.inputs[-2], causal=True, rotary=True, final_norm=False)
    torch.testing.assert_close(found, expected.outputs[-1], **TOLERANCE)


@pytest.mark.parametrize("variant", ["llama", "qwen2"])
def test_two_layers_of_a_gguf_file_compute_what_the_full_model_does(variant, tmp_path):
    expected = reference(variant)
    file = write_gguf(tmp_path / "model.gguf", expected.model, words=50)
    block = load_block(f"file:{file}", LayerRange(1, 2), tmp_path / "blocks")
    found = block(expected.inputs[0], causal=True, rotary=True, final_norm=False)
    torch.testing.assert_close(found, expected.outputs[1], **TOLERANCE)
