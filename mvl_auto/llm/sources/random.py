"""A block of random numbers, initialized as by transformers: a control, or for tests.

Linear weights from N(0, 0.02), norms 1 (transformers' `_init_weights` and its `initializer_range`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mvl_auto.llm.block import weight_shapes
from mvl_auto.llm.card import BlockGeometry
from mvl_auto.llm.sources.syntax import RandomSource

INITIALIZER_RANGE = 0.02  # transformers' default for LlamaConfig
RMS_NORM_EPS = 1e-5  # as Llama 3 and SmolLM2
ROPE_THETA = 10000.0  # transformers' default for LlamaConfig


def random_geometry(source: RandomSource, layers: int = 1) -> BlockGeometry:
    return BlockGeometry(
        architecture="llama",
        hidden_size=source.hidden,
        num_attention_heads=source.heads,
        num_key_value_heads=source.kv_heads,
        head_dim=source.hidden // source.heads,
        intermediate_size=source.ffn,
        rms_norm_eps=RMS_NORM_EPS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        layers=layers,
    )


def random_weights(geometry: BlockGeometry, seed: int) -> dict[str, Tensor]:
    """float32 weights by name; equal seeds give equal weights."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) * INITIALIZER_RANGE
        for name, shape in sorted(weight_shapes(geometry).items())
    }
