"""Tiny language models of every supported architecture, with transformers' own full model as the reference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

NUM_LAYERS = 3
TOKENS = 7
SIZES = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "num_hidden_layers": NUM_LAYERS,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
# what is tested of each architecture: its default, and what changes the layer's output
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-biases-llama3-rope": {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": LLAMA3_ROPE,
    },
    "llama-no-groups-wide-heads": {"model_type": "llama", "num_key_value_heads": 4, "head_dim": 10},
    "mistral": {"model_type": "mistral", "sliding_window": None, "head_dim": 16},
    "mistral-window": {"model_type": "mistral", "sliding_window": 3},
    "qwen2": {"model_type": "qwen2"},
    "qwen2-window": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "qwen3-bias": {"model_type": "qwen3", "head_dim": 8, "attention_bias": True},
    "gemma3_text": {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "query_pre_attn_scalar": 9,
        "sliding_window": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}


@dataclass(frozen=True)
class Reference:
    """What transformers' full model did: inputs and outputs of each layer, and the output of the final norm."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    normed: Tensor


@cache
def reference(variant: str, seed: int = 0) -> Reference:
    """A full model with random weights, run on random embeddings with its own mask and positions."""
    model = make_model(seed=seed, **VARIANTS[variant])
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda _, args, kwargs: inputs.append(args[0]), with_kwargs=True)
        layer.register_forward_hook(lambda _, args, output: outputs.append(output))
    embeddings = torch.randn(2, TOKENS, SIZES["hidden_size"], generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        normed = model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    return Reference(model, tuple(inputs), tuple(outputs), normed)


def make_model(model_type: str = "llama", seed: int = 0, **changes: Any) -> Any:
    """A causal language model whose every weight, norms and biases too, is random."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(model_type, **(SIZES | changes))
    model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.3 * noise if weight.ndim == 1 else 0.3 * noise)
    return model


def save_model(folder: Path, model: Any, shard_size: str = "1GB", dtype: torch.dtype = torch.float32) -> Path:
    """As Hugging Face lays models out; a small shard_size makes several files and an index."""
    model.to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    model.to(torch.float32)
    return folder
