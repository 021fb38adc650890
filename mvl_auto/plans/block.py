"""The frozen LLM block in a plan: which one, how it stands in the network, and its sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mvl_auto.plans.document import Frozen, Text

BFLOAT16 = 2  # bytes: how nearly all models store their weights
POOLED_CELL = 2  # tokens along each axis that are averaged into one, where the block sees pooled tokens
ADDED_LATER = (
    "layers",
    "tokens",
    "queries",
    "mapper_rate",
    "start",
    "end",
)  # LlmSettings of 0.1 has not

Tokens = Literal["all", "pooled", "queries"]
PLANNED_TOKENS: Tokens = "pooled"  # a fifth of what all tokens cost, at no loss of Dice (docs/experiments.md)

Width = Annotated[int, Field(ge=1, le=1 << 16)]
MOST_LAYERS = 10_000  # the deepest known models have 126
Layers = Annotated[int, Field(ge=1, le=MOST_LAYERS)]
Layer = Annotated[int, Field(ge=-MOST_LAYERS, le=MOST_LAYERS)]


class LlmSettings(Frozen):
    """The frozen LLM block and how it stands in the network (docs/network.md)."""

    source: Text = Field("auto", description="block bank syntax: auto, none, pypi:..., hf:..., file:..., random:...")
    layer: Layer | Literal["last"] = "last"
    layers: Layers = Field(1, description="how many consecutive layers stand in the block, the last of them is `layer`")
    hidden_size: Width | None = Field(None, description="the block's width where the planner knows it")
    control: Literal["block", "permuted", "random", "rotated", "mlp", "mappers_only"] = "block"
    placement: Literal["head", "middle", "tail"] = "tail"
    causal: bool = False
    rotary: bool = False
    final_norm: bool = True
    residual: Literal["gated", "plain", "none"] = "gated"
    mapper_rank: Width | None = Field(None, description="None: full linear mappers")
    lora_rank: int = Field(0, ge=0, le=1 << 16, description="0: the block stays frozen as it is")
    tokens: Tokens = Field(
        "all", description="which pass the block: all; averages over 2x2x2 (2D: 2x2) of them; a few learned queries"
    )
    queries: int = Field(16, ge=1, le=1 << 12, description="how many, where `tokens` is queries")
    mapper_rate: float = Field(
        1.0, gt=0, le=1000, description="factor on the learning rate of mappers, gate and queries"
    )
    start: float = Field(
        0.0, ge=0, lt=1, description="share of the run after which the block is attached; until then the plain ViT"
    )
    end: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the run after which the block is taken out; below 1 it never predicts",
    )

    @model_validator(mode="after")
    def _consistent(self) -> LlmSettings:
        if self.start and self.residual != "gated":
            raise ValueError("a block that is attached later than the first step must be gated")
        if self.end < 1 and self.residual == "none":
            raise ValueError("a block that is taken out again must stand beside a residual")
        if self.start >= self.end:
            raise ValueError("the block must be attached before it is taken out")
        return self

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the fields of ADDED_LATER that have their default: plans from before keep their hash."""
        content: dict[str, Any] = serialize(self)
        fields = type(self).model_fields
        return {k: v for k, v in content.items() if k not in ADDED_LATER or v != fields[k].default}

    @property
    def present(self) -> bool:
        return self.source != "none"

    @property
    def predicts(self) -> bool:
        """Whether the trained network has the block; else it was there in training only."""
        return self.present and self.end == 1

    @property
    def cell(self) -> int:
        """Tokens along each axis that are averaged into one before the block."""
        return POOLED_CELL if self.tokens == "pooled" else 1

    def tokens_of_block(self, grid: Sequence[float]) -> float:
        """How many tokens of one patch pass the block. grid: its token grid."""
        if self.tokens == "queries":
            return float(self.queries)
        cell = self.cell
        return math.prod(math.ceil(tokens / cell) if cell > 1 else tokens for tokens in grid)


@dataclass(frozen=True)
class BlockSizes:
    """Decoder layers of a Llama-like model, in the words of its configuration.

    source, layer: as a plan names it. weight_bytes: of one weight as it is stored. layers: how many of them.
    """

    source: str
    layer: int | Literal["last"]
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    weight_bytes: int = BFLOAT16
    layers: int = 1

    @property
    def parameters(self) -> int:
        """Weights of the projections, of two norms in each layer and of the final norm."""
        attention = 2 * self.hidden_size * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden_size * self.ffn + 2 * self.hidden_size) + self.hidden_size

    @property
    def heaviness(self) -> tuple[int, ...]:
        """What its memory and its time grow with."""
        return self.hidden_size, self.heads * self.head_dim, self.ffn, self.parameters * self.weight_bytes
