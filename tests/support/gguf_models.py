"""GGUF files of made models, written as llama.cpp's convert_hf_to_gguf.py writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

GGUF_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
PLAIN = (Type.F32, Type.F16, Type.BF16)


def permute(weights: np.ndarray, heads: int) -> np.ndarray:
    """The rows of q or k, reordered as `LlamaModel.permute` in convert_hf_to_gguf.py does, word for word."""
    return (
        weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


def write_gguf(path: Path, model: Any, quantisation: Type = Type.F32, words: int = 0, **values: Any) -> Path:
    """Convert a model of transformers. words: of the tokenizer, which readers have to step over.

    values: further key-values; an int, a float or a str.
    """
    config = model.config
    architecture = GGUF_ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_license("apache-2.0")
    head_dim = getattr(config, "head_dim", None)
    if head_dim is not None:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        writer.add_rope_dimension_count(head_dim)
    if words:
        writer.add_token_list([f"word {i}" for i in range(words)])
        writer.add_token_scores([0.5] * words)
    for key, value in values.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(key.replace("__", "."), value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(config))
    for name, tensor in model.state_dict().items():
        weights = tensor.float().numpy()
        if architecture == "llama" and ".q_proj." in name:
            weights = permute(weights, config.num_attention_heads)
        if architecture == "llama" and ".k_proj." in name:
            weights = permute(weights, config.num_key_value_heads)
        kind = quantisation if weights.ndim > 1 else Type.F32  # the converter keeps norms and biases exact
        stored = gguf.quantize(weights, kind) if kind != Type.F32 else weights
        raw_dtype = None if kind in (Type.F32, Type.F16) else kind
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), stored, raw_dtype=raw_dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama3_divisors(config: Any) -> np.ndarray:
    """What the converter stores of Llama 3.1's rope scaling: by how much each frequency is divided."""
    rope, width = config.rope_parameters, config.head_dim
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, width, 2) / width)
    low_wavelength = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high_wavelength = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    divisors = []
    for wavelength in 2 * np.pi / frequencies:
        if wavelength < high_wavelength:
            divisors.append(1.0)
        elif wavelength > low_wavelength:
            divisors.append(rope["factor"])
        else:
            smooth = (rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            divisors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(divisors, dtype=np.float32)
