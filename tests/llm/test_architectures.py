"""From a model's config.json to the geometry of a layer, and from there to transformers' layer."""

from __future__ import annotations

import pytest
from llm_models import SIZES

from mvl_auto.errors import MvlError
from mvl_auto.llm.architectures import build_parts, read_config
from mvl_auto.llm.card import BlockGeometry
from mvl_auto.llm.layers import LayerRange

MOST = 10_000  # layers


def geometry_of(model_type: str, **changes: object) -> BlockGeometry:
    return read_config(SIZES | {"model_type": model_type} | changes, LayerRange(0), "config.json")[0]


def test_heads_that_do_not_divide_the_width_are_as_wide_as_transformers_makes_them():
    geometry = geometry_of("qwen2", hidden_size=34, num_attention_heads=4)
    assert geometry.head_dim == 8
    assert build_parts(geometry).layers[0].self_attn.head_dim == 8


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("window", [None, 3])
def test_the_layer_is_told_whether_its_attention_has_a_window(model_type, window):
    geometry = geometry_of(model_type).model_copy(update={"sliding_window": window})
    assert build_parts(geometry).layers[0].self_attn.sliding_window == window


@pytest.mark.parametrize("change", [{"use_bidirectional_attention": True}, {"attn_logit_softcapping": 30.0}])
def test_gemmas_layers_of_another_attention_are_refused(change):
    with pytest.raises(MvlError, match="bidirectional or soft-capped"):
        geometry_of("gemma3_text", **change)


def test_a_model_may_have_as_many_layers_as_the_refusal_says():
    config = SIZES | {"model_type": "llama", "num_hidden_layers": MOST}
    assert read_config(config, LayerRange(), "config.json")[1:] == (MOST - 1, MOST)
    with pytest.raises(MvlError, match="has 10,001 layers; at most 10,000"):
        read_config(config | {"num_hidden_layers": MOST + 1}, LayerRange(), "config.json")


@pytest.mark.parametrize("name", ["gemma3", "qwen2_vl"])
def test_a_vision_language_model_is_refused_with_the_way_on(name):
    with pytest.raises(MvlError, match="take the text model of the family"):
        geometry_of(name)


def test_a_model_of_another_kind_is_not_called_one_of_vision():
    with pytest.raises(MvlError, match="mvl_block list"):
        geometry_of("gpt2")
