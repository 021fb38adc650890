"""Layers out of a GGUF file: their geometry and their dequantized tensors, in transformers' layout.

Quantized tensors become float32, which holds their values exactly; float16 and bfloat16 are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, dequantize
from pydantic import ValidationError
from torch import Tensor

from mvl_auto.errors import MvlError
from mvl_auto.llm.architectures import check_architecture, in_one_block
from mvl_auto.llm.card import Architecture, BlockGeometry, RopeValue
from mvl_auto.llm.extracted import UNKNOWN_LICENCE, Extracted, check_names, check_shape, expected_shapes
from mvl_auto.llm.formats.gguf_header import GgufHeader, TensorInfo, read_header
from mvl_auto.llm.formats.random_access import RandomAccess, read_ranges
from mvl_auto.llm.layers import LayerRange

# name in GGUF -> ours. Mistral is "llama" in GGUF: its layer is the same.
ARCHITECTURES: dict[str, Architecture] = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
PERMUTED = ("llama",)  # the conversion reorders rows of q and k for ggml's interleaved rotary embedding
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
FINAL_NORM = "output_norm.weight"
ROPE_FACTORS = "rope_freqs.weight"  # divisors of the frequencies: llama.cpp's form of Llama 3.1's rope scaling
KNOWN_EXTRAS = (".attn_rot_embd", ".rope_freqs.weight")  # in old files; the header has the same values
DEFAULT_ROPE_THETA = 10000.0  # llama.cpp's, where the header has none
DEFAULT_CONTEXT = 2048


def read_gguf_layers(file: RandomAccess, layers: LayerRange) -> Extracted:
    """Read the header, layers of the model, and the final norm.

    Raises MvlError for a damaged file and for an architecture or quantization that is not supported.
    """
    header = read_header(file)
    if header.architecture not in ARCHITECTURES:
        check_architecture(f"{header.architecture} (GGUF)", file.name)
    num_layers = _read_count(header, "block_count")
    chosen = layers.numbers(num_layers, file.name)
    geometry = in_one_block([_read_geometry(header, file, each) for each in chosen], chosen[-1], file.name)
    numbers = geometry.layer_numbers(chosen[-1])
    shapes = expected_shapes(geometry, file.name)
    theirs = {_gguf_name(name, numbers): name for name in shapes}
    mine = tuple(f"blk.{each}." for each in numbers.values())
    found = [name for name in header.tensors if name.startswith(mine) or name == FINAL_NORM]
    check_names(theirs, found, KNOWN_EXTRAS, file.name)
    infos = {ours: header.tensors[name] for name, ours in theirs.items()}
    for name, info in infos.items():
        check_shape(name, info.shape, shapes[name], file.name)
    raw = read_ranges(file, {name: (info.start, info.length) for name, info in infos.items()})
    weights = {
        name: _undo_permutation(name, _tensor(raw[name], name, info, file.name), header, geometry)
        for name, info in infos.items()
    }
    return Extracted(
        geometry=geometry,
        layer=chosen[-1],
        num_layers=num_layers,
        weights=weights,
        bytes_read=file.bytes_read,
        bytes_layer=sum(info.length for info in infos.values()),
        quantisation=_quantisation(infos["layer.self_attn.q_proj.weight"]),
        licence=str(header.values.get("general.license", UNKNOWN_LICENCE)),
    )


def undo_permutation(rows: Tensor, heads: int) -> Tensor:
    """Restore transformers' order of the rows of q or k, (heads * head_dim, ...).

    ggml rotates neighbouring pairs of rows, transformers the two halves of a head; the conversion
    (`LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.py) moves row (h, half, i) to (h, i, half).
    """
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _undo_permutation(name: str, tensor: Tensor, header: GgufHeader, geometry: BlockGeometry) -> Tensor:
    if header.architecture not in PERMUTED:
        return tensor
    if ".q_proj." in name:
        return undo_permutation(tensor, geometry.num_attention_heads)
    if ".k_proj." in name:
        return undo_permutation(tensor, geometry.num_key_value_heads)
    return tensor


def _tensor(content: memoryview, name: str, info: TensorInfo, file: str) -> Tensor:
    raw = np.frombuffer(content, dtype=np.uint8)
    if info.type == GGMLQuantizationType.F16:
        return torch.from_numpy(raw.view(np.float16).reshape(info.shape).copy())
    if info.type == GGMLQuantizationType.BF16:
        return torch.from_numpy(raw.view(np.int16).reshape(info.shape).copy()).view(torch.bfloat16)
    try:
        values = dequantize(raw.reshape(*info.shape[:-1], -1), info.type)
    except NotImplementedError as error:
        raise MvlError(
            f"holds {name} in {info.type.name}, which the gguf package cannot dequantize",
            file=file,
            remedy="Choose another quantization of the model, such as Q8_0 or Q4_K_M.",
        ) from error
    return torch.from_numpy(values.astype(np.float32).reshape(info.shape))


def _read_geometry(header: GgufHeader, file: RandomAccess, layer: int) -> BlockGeometry:
    if header.value("expert_count", 0):
        raise MvlError("is a mixture of experts, which is not supported", file=header.file)
    hidden, heads = _read_count(header, "embedding_length"), _read_count(header, "attention.head_count")
    head_dim = header.value("attention.key_length", hidden // heads)
    if header.value("attention.value_length", head_dim) != head_dim:
        raise MvlError("has keys and values of different widths, which is not supported", file=header.file)
    if header.value("rope.dimension_count", head_dim) != head_dim:
        raise MvlError("rotates only a part of each head, which is not supported", file=header.file)
    try:
        return BlockGeometry(
            architecture=ARCHITECTURES[header.architecture],
            hidden_size=hidden,
            num_attention_heads=heads,
            num_key_value_heads=header.value("attention.head_count_kv", heads),
            head_dim=head_dim,
            intermediate_size=_read_count(header, "feed_forward_length"),
            rms_norm_eps=_float32(header.value("attention.layer_norm_rms_epsilon")),
            attention_bias=f"blk.{layer}.attn_q.bias" in header.tensors,
            mlp_bias=f"blk.{layer}.ffn_gate.bias" in header.tensors,
            max_position_embeddings=header.value("context_length", DEFAULT_CONTEXT),
            rope_parameters=_read_rope(header, file),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its widths"
        raise MvlError(f"has an impossible geometry at {where} ({first['msg']})", file=header.file) from error


def _read_rope(header: GgufHeader, file: RandomAccess) -> dict[str, RopeValue]:
    """Rope settings by their names in transformers.

    Llama 3.1's scaling is stored as one divisor per frequency, which is `longrope` in transformers.
    """
    theta = _float32(header.value("rope.freq_base", DEFAULT_ROPE_THETA))
    kind, factor = header.value("rope.scaling.type", "none"), header.value("rope.scaling.factor", 1.0)
    original = header.value("rope.scaling.original_context_length", header.value("context_length", DEFAULT_CONTEXT))
    if ROPE_FACTORS in header.tensors:
        info = header.tensors[ROPE_FACTORS]
        content = file.read(info.start, info.length)
        divisors = tuple(_tensor(content, ROPE_FACTORS, info, file.name).float().flatten().tolist())
        return {
            "rope_type": "longrope",
            "rope_theta": theta,
            "factor": 1.0,
            "short_factor": divisors,
            "long_factor": divisors,
            "attention_factor": 1.0,
            "original_max_position_embeddings": original,
        }
    if kind == "none":
        return {"rope_type": "default", "rope_theta": theta}
    if kind == "linear":
        return {"rope_type": "linear", "rope_theta": theta, "factor": factor}
    if kind == "yarn":
        return {
            "rope_type": "yarn",
            "rope_theta": theta,
            "factor": factor,
            "original_max_position_embeddings": original,
        }
    raise MvlError(f"has the rope scaling '{kind}', which is not supported", file=header.file)


def _gguf_name(name: str, numbers: Mapping[str, int]) -> str:
    """numbers: BlockGeometry.layer_numbers."""
    if name == "norm.weight":
        return FINAL_NORM
    layer, _, rest = name.partition(".")
    stem, _, kind = rest.rpartition(".")
    return f"blk.{numbers[layer]}.{NAMES[stem]}.{kind}"


def _read_count(header: GgufHeader, key: str) -> int:
    value: Any = header.value(key)
    if not isinstance(value, int) or value < 1:
        raise MvlError(f"has an impossible {header.architecture}.{key} of {value}", file=header.file)
    return value


def _float32(value: float) -> float:
    """The shortest decimal that is this float32: 1e-05 rather than 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _quantisation(info: TensorInfo) -> str | None:
    plain = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)
    return None if info.type in plain else info.type.name
