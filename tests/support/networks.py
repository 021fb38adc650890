"""Small networks for the tests."""

from __future__ import annotations

from typing import Any

from mvl_auto.plans import LlmSettings, NetworkSettings

RANDOM_BLOCK = "random:hidden=32,heads=4,kv_heads=2,ffn=64,seed=0"


def tiny(dimensions: int = 3, **changes: Any) -> NetworkSettings:
    """Two stem levels, token_size 8 per axis, width 24, two blocks, no LLM; `changes` replaces fields."""
    two = (2,) * dimensions
    fields: dict[str, Any] = {
        "spacing": (1.0,) * dimensions,
        "stem_channels": (8, 16),
        "stem_strides": (two, two),
        "token_stride": two,
        "width": 24,
        "depth": 2,
        "heads": 3,
        "llm": LlmSettings(source="none"),
    }
    return NetworkSettings(**(fields | changes))


def tiny_llm(**changes: Any) -> LlmSettings:
    return LlmSettings(**({"source": RANDOM_BLOCK} | changes))
