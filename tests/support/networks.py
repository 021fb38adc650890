"""Small networks for the tests."""

from __future__ import annotations

from typing import Any

import torch

from mvl_auto.network import build_network
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


class Hungry(torch.nn.Module):
    """A network for which the memory is enough up to a number of samples, and after a number of calls for none."""

    def __init__(self, samples=99, calls=99):
        super().__init__()
        self.network, self.samples, self.calls = build_network(tiny(), 1, 3).train(), samples, calls
        self.seen = []

    def forward(self, image):
        self.seen.append(len(image))
        if len(image) > self.samples or len(self.seen) > self.calls:
            raise torch.OutOfMemoryError("no memory")
        return self.network(image)
