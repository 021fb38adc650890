"""The block bank: where the frozen LLM layer comes from, and how it gets to disk (docs/blocks.md).

load_block(source, layers, folder) -> FrozenBlock
load_same_block(source, layers, folder, sha256, ...) -> FrozenBlock   the block that a network was trained with
ensure_block(source, layers, folder) -> BlockCard                     into the bank, not into memory
known_sizes(source, layers, folder) -> BlockSizes | None              without reading the weights
pretrained_sizes(layers, folder) -> list[BlockSizes]                  of the blocks in the bank that `auto` may take
controls                                           what stands in a block's place to ask what it brings
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mvl_auto.llm.bank import list_blocks
from mvl_auto.llm.card import BlockCard, BlockGeometry
from mvl_auto.llm.known import known_sizes, planned_layers, pretrained_sizes
from mvl_auto.llm.layers import LayerRange
from mvl_auto.llm.load import ensure_block, load_block, load_same_block

if TYPE_CHECKING:
    from mvl_auto.llm.block import FrozenBlock

__all__ = [
    "BlockCard",
    "BlockGeometry",
    "FrozenBlock",
    "LayerRange",
    "ensure_block",
    "known_sizes",
    "list_blocks",
    "load_block",
    "load_same_block",
    "planned_layers",
    "pretrained_sizes",
]


def __getattr__(name: str) -> Any:
    """FrozenBlock needs torch and is imported at its first use; the bank is listed without torch."""
    if name == "FrozenBlock":
        from mvl_auto.llm.block import FrozenBlock

        return FrozenBlock
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
